"""One worker process of a node with `--workers N`: `python -m minidist.runtime.worker CHANNEL-FD [LISTENER-FD]`.

It waits for `start` on its channel, runs the DATA half of the component, answers the parent, and ends when the channel
does. Requests that come while it starts are carried out when it has. Signals are the parent's business: a Ctrl-C at the
terminal reaches the whole group, and the parent drains us.
"""

import asyncio
import contextlib
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from minidist.runtime import logs
from minidist.runtime.channel import Channel
from minidist.runtime.collector import Collector
from minidist.runtime.config import from_table
from minidist.runtime.endpoint import Endpoint
from minidist.runtime.faults.spec import Fault
from minidist.runtime.loop import run
from minidist.runtime.metrics import pack_family
from minidist.runtime.node import Halves, Message, Node
from minidist.runtime.ports import real_ports

END_TIMEOUT_S = 0.5


class WorkerLease:
    """The worker's part of a limit on connections: asks the parent when it is used up (see endpoint.py)."""

    def __init__(self, channel: Channel, held: int) -> None:
        self.channel = channel
        self.held = held
        self.endpoint: Endpoint[Any] | None = None
        self._asked: list[Any] = []  # the connections that the parent was asked for

    def ask(self) -> None:
        """Ask the parent for room for the connections that wait."""
        if self.endpoint is not None and not self._asked:
            self._asked = self.endpoint.waiting
            if self._asked:
                self.channel.send("lease", len(self._asked))

    def granted(self, amount: int) -> None:
        """The parent's answer. It counts from here on: the parent may recall it with its next message."""
        self.held += amount
        asked, self._asked = self._asked, []
        if self.endpoint is not None:
            self.endpoint.lease_answered(asked)
            self.ask()  # for those that came meanwhile

    def give_back(self) -> int:
        """The parent recalls what is not used."""
        if self.endpoint is None:
            return 0
        unused = max(0, self.held - len(self.endpoint.connections) - len(self.endpoint.waiting))
        self.held -= unused
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
        self.lease: WorkerLease | None = None
        self.gone = asyncio.Event()
        self._started = asyncio.Event()
        self._decisions: list[Message] = []  # that came while it starts
        methods = (
            "configure", "finish-accepting", "drain", "add-fault", "remove-fault", "advance-clock", "drift", "reset",
            "figures", "status", "recall",
        )  # fmt: skip
        handlers = {method: self._when_started(getattr(self, method.replace("-", "_"))) for method in methods}
        handlers |= {"start": self.start, "decide": self.decide, "granted": self.granted}
        self.channel = Channel(handlers, lost=self.gone.set)

    def _when_started(self, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def later(body: Any) -> Any:
            await self._started.wait()
            result = handler(body)
            return await result if asyncio.iscoroutine(result) else result

        return lambda body: handler(body) if self._started.is_set() else later(body)

    @property
    def running(self) -> Node:
        assert self.node is not None, "the first message is start"
        return self.node

    async def start(self, message: Message) -> dict[str, str]:
        """Run the data half; the answer is its listeners' addresses."""
        module, _, name = message["node"].partition(":")
        kind: type[Node] = getattr(importlib.import_module(module), name)
        config = from_table(kind.config_type, message["options"])
        logs.set_up(config.log_level, config.log_format)
        ports = real_ports(config.data_dir, message["seed"])
        offset_ms, rate = message["clock"]
        ports.clock.advance(offset_ms)
        ports.clock.drift(rate)
        node = self.node = kind(config, ports, Halves.DATA)
        asyncio.get_running_loop().set_exception_handler(node.unexpected)
        node.link = WorkerLink(self.channel)
        node.shared_socket = self.shared
        node.lease = self.lease = WorkerLease(self.channel, message["lease"])
        node.faults.on_spent = self._spent
        for decision in message["decisions"]:
            node.decided(decision)
        await node.start()
        for spec in message["faults"]:
            self.add_fault(spec)
        node.events.follow(lambda event: self.channel.send("event", event))
        node.collector = Collector()
        node.collector.install()
        for decision in self._decisions:
            node.decided(decision)
        self._started.set()
        return node.addresses()

    def decide(self, decision: Message) -> None:
        if self._started.is_set():
            self.running.decided(decision)
        else:
            self._decisions.append(decision)

    def configure(self, texts: dict[str, str]) -> None:
        node = self.running
        own = {"listen": str(node.config.listen), "reuse_port": "yes" if node.config.reuse_port else "no"}
        node.configure(from_table(type(node.config), texts | own))

    async def finish_accepting(self, body: None) -> None:
        await asyncio.gather(*(listener.finish_accepting() for listener in self.running.listeners.values()))

    async def drain(self, timeout_s: float) -> None:
        await self.running.drain(timeout_s)

    def add_fault(self, spec: Message) -> None:
        self.running.faults.add(spec)

    def remove_fault(self, ended: list[Any]) -> None:
        fault_id, hurry = ended
        self.running.faults.remove(fault_id, hurry=hurry)

    def _spent(self, fault: Fault) -> None:
        """The parent counts, and ends the fault for all."""
        self.channel.send("spent", [fault.id, fault.fired])

    def advance_clock(self, by_ms: int) -> None:
        self.running.clock.advance(by_ms)

    def drift(self, rate: float) -> None:
        self.running.clock.drift(rate)

    async def reset(self, body: None) -> None:
        await self.running.reset()

    def figures(self, body: None) -> list[Any]:
        return [pack_family(family) for family in self.running.all_families()]

    def status(self, body: None) -> Message:
        return self.running.status()

    def granted(self, amount: int) -> None:
        if self.lease is not None:
            self.lease.granted(amount)

    def recall(self, body: None) -> int:
        return 0 if self.lease is None else self.lease.give_back()


async def work(channel_fd: int, listener_fd: int | None) -> None:
    shared = None if listener_fd is None else socket.socket(fileno=listener_fd)
    worker = Worker(shared)
    end = socket.socket(fileno=channel_fd)
    end.setblocking(False)
    await asyncio.get_running_loop().create_connection(lambda: worker.channel, sock=end)
    await worker.gone.wait()
    if worker.node is not None:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(worker.node.stop(), END_TIMEOUT_S)
    os._exit(0)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    run(work(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None))
