"""One worker process of a node with `--workers N`: `python -m minidist.runtime.worker CHANNEL-FD [LISTENER-FD]`.

It waits for `start` on its channel, runs the DATA half of the component, answers the parent, and ends when the channel
does. Signals are the parent's business: a Ctrl-C at the terminal reaches the whole group, and the parent drains us.
"""

import asyncio
import os
import signal
import socket
import sys
from typing import Any

from minidist.runtime import logs
from minidist.runtime.channel import Channel
from minidist.runtime.clock import Clock
from minidist.runtime.collector import Collector
from minidist.runtime.config import from_table
from minidist.runtime.endpoint import Endpoint
from minidist.runtime.loop import run
from minidist.runtime.metrics import pack_family
from minidist.runtime.node import Halves, Message, Node
from minidist.runtime.ports import real_ports


class Lease:
    """The worker's part of a limit on connections: asks the parent when it is used up (see endpoint.py)."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.endpoint: Endpoint[Any] | None = None
        self._asking: asyncio.Task[None] | None = None

    def hold(self, endpoint: Endpoint[Any], granted: int) -> None:
        self.endpoint = endpoint
        endpoint.lease = self
        endpoint.limits.max_connections = granted

    def ask(self) -> None:
        """Ask the parent for room for the connections that wait."""
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())

    async def _ask(self) -> None:
        assert self.endpoint is not None
        granted: int = await self.channel.request("lease", self.endpoint.waiting_count)
        self._asking = None
        self.endpoint.extend(granted)

    def give_back(self) -> int:
        """The parent recalls what is not used."""
        endpoint = self.endpoint
        if endpoint is None or self._asking is not None:
            return 0
        unused = max(0, endpoint.limits.max_connections - len(endpoint.connections))
        endpoint.limits.max_connections -= unused
        return unused


class WorkerLink:
    """The data half's way to the control half."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def decide(self, decision: Message) -> None:
        raise AssertionError("the data half does not decide")

    def report(self, report: Message) -> None:
        self.channel.send("report", report)


class Worker:
    """The answers to the parent's requests."""

    def __init__(self, shared: socket.socket | None) -> None:
        self.shared = shared
        self.node: Node | None = None
        self.gone = asyncio.Event()
        methods = (
            "start", "decide", "configure", "drain", "add-fault", "remove-fault", "advance-clock", "reset", "figures",
            "status", "recall",
        )  # fmt: skip
        handlers = {method: getattr(self, method.replace("-", "_")) for method in methods}
        self.channel = Channel(handlers, lost=self.gone.set)
        self.lease = Lease(self.channel)

    @property
    def running(self) -> Node:
        assert self.node is not None, "the first message is start"
        return self.node

    async def start(self, message: Message) -> dict[str, str]:
        """Run the data half; the answer is its listeners' addresses."""
        from minidist.components import node_type

        kind = node_type(message["component"])
        config = from_table(kind.config_type, message["options"])
        logs.set_up(config.log_level, config.log_format)
        ports = real_ports(config.data_dir, message["seed"])
        offset_ms, rate = message["clock"]
        move(ports.clock, offset_ms, rate)
        node = self.node = kind(config, ports, Halves.DATA)
        node.link = WorkerLink(self.channel)
        node.shared_socket = self.shared
        for decision in message["decisions"]:
            node.decided(decision)
        await node.start()
        self.lease.hold(next(iter(node.listeners.values())), message["lease"])
        for spec in message["faults"]:
            self.add_fault(spec)
        node.events.follow(lambda event: self.channel.send("event", event))
        Collector().install()
        return node.addresses()

    def decide(self, decision: Message) -> None:
        self.running.decided(decision)

    def configure(self, texts: dict[str, str]) -> None:
        node = self.running
        kept = next(iter(node.listeners.values())).limits.max_connections
        own = {"listen": str(node.config.listen), "reuse_port": "yes" if node.config.reuse_port else "no"}
        node.configure(from_table(type(node.config), texts | own))
        next(iter(node.listeners.values())).limits.max_connections = kept

    async def drain(self, timeout_s: float) -> None:
        await self.running.drain(timeout_s)

    def add_fault(self, spec: Message) -> None:
        if spec.get("times") != 0:
            self.running.faults.add(spec)

    def remove_fault(self, fault_id: str) -> None:
        self.running.faults.remove(fault_id)

    def advance_clock(self, by_ms: int) -> None:
        self.running.clock.advance(by_ms)

    async def reset(self, body: None) -> None:
        await self.running.reset()

    def figures(self, body: None) -> list[Any]:
        return [pack_family(family) for family in self.running.all_families()]

    def status(self, body: None) -> Message:
        return self.running.status()

    def recall(self, body: None) -> int:
        return self.lease.give_back()


def move(clock: Clock, offset_ms: int, rate: float) -> None:
    """Bring a new clock to where the parent's is."""
    clock.advance(offset_ms)
    if rate != 1.0:
        clock.drift(rate)


async def work(channel_fd: int, listener_fd: int | None) -> None:
    shared = None if listener_fd is None else socket.socket(fileno=listener_fd)
    worker = Worker(shared)
    end = socket.socket(fileno=channel_fd)
    end.setblocking(False)
    await asyncio.get_running_loop().create_connection(lambda: worker.channel, sock=end)
    await worker.gone.wait()
    os._exit(0)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    run(work(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None))
