"""`--workers N`: one node as several processes that share its data port.

The process that was started runs the CONTROL half: admin port, health checks, configuration, counters, limits. It
starts N workers, each a process with the DATA half, and restarts one that dies. Linux spreads new connections over the
workers' own sockets (SO_REUSEPORT); the parent holds the port with a socket that is bound and never listens. Elsewhere
the kernel would give every connection to one of them, so the workers inherit one listening socket and share it.

Parent and worker talk over a socket pair (channel.py):

    parent → worker    start, decide, drain, add-fault, remove-fault, advance-clock, reset, figures, status, recall
    worker → parent    report, event, lease

What the admin port changes (faults, clock, reset, drain) has reached every worker before the call returns; what it
shows is of the whole. Limits are leased (structures/lease.py): a worker that has used up its part holds the new
connection until the parent has answered, so that the total holds and nobody is refused while any of it is free.

A worker ends at end-of-file of its channel: it never outlives its parent.
"""

import asyncio
import dataclasses
import socket
import sys
from typing import TYPE_CHECKING, Any

from minidist.runtime.channel import Channel, ChannelError, ChannelLost
from minidist.runtime.config import Address, Config, options_of
from minidist.runtime.endpoint import ListenError
from minidist.runtime.faults import FaultError
from minidist.runtime.metrics import Family, gauge, merge_family, unpack_family
from minidist.structures.lease import LeasePool

if TYPE_CHECKING:
    from minidist.runtime.node import Message, Node

RESTART_DELAY_S = 0.1
LEASE_SLICES = 8  # per worker: small enough to share evenly, large enough to ask seldom
SHARES_BY_PORT = sys.platform == "linux"


class Workers:
    """The parent's side; it is the node's link to its data halves."""

    def __init__(self, node: "Node", count: int, *, shares_by_port: bool = SHARES_BY_PORT) -> None:
        self.node = node
        self.count = count
        self.shares_by_port = shares_by_port
        self.address = node.config.listen
        self.listeners: dict[str, str] = {}
        self.pool = LeasePool(node.config.max_clients, node.config.max_clients // (count * LEASE_SLICES))
        self.processes: dict[int, asyncio.subprocess.Process] = {}
        self.channels: dict[int, Channel] = {}
        self.restarts = 0
        self._socket: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the port, start all workers and wait until each listens. Raises ListenError."""
        self._socket = self._take_port()
        host = self.node.config.listen.host
        self.address = Address(host, self._socket.getsockname()[1])
        await asyncio.gather(*(self._start_worker(index) for index in range(1, self.count + 1)))
        self._tasks = [asyncio.create_task(self._keep(index)) for index in range(1, self.count + 1)]

    def _take_port(self) -> socket.socket:
        listen = self.node.config.listen
        if listen.path:
            raise ListenError(f"cannot listen on {listen}: workers share a TCP port")
        family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        taken = socket.socket(family, socket.SOCK_STREAM)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.shares_by_port:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind(("127.0.0.1" if listen.host == "localhost" else listen.host, listen.port))
            if not self.shares_by_port:
                taken.listen(1024)
        except OSError as error:
            taken.close()
            raise ListenError(f"cannot listen on {listen}: {error.strerror or error}") from error
        return taken

    async def _start_worker(self, index: int) -> None:
        ours, theirs = socket.socketpair()
        inherited = [theirs.fileno()]
        if not self.shares_by_port and self._socket is not None:
            inherited.append(self._socket.fileno())
        try:
            self.processes[index] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "minidist.runtime.worker", *map(str, inherited),
                stdin=asyncio.subprocess.DEVNULL, pass_fds=inherited,
            )  # fmt: skip
        finally:
            theirs.close()
        handlers = {
            "report": lambda report: self.node.reported(index, report),
            "event": lambda event: self.node.events.emit(event["event"], worker=index, **event["detail"]),
            "lease": lambda wanted: self._lease(index, wanted),
        }
        channel = Channel(handlers, lost=lambda: self.pool.drop(index))
        ours.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=ours)
        try:
            self.listeners = await channel.request("start", self._start_message(index))
        except (ChannelLost, ChannelError) as error:
            raise ListenError(f"worker {index} did not start: {error}") from error
        self.channels[index] = channel

    def _start_message(self, index: int) -> "Message":
        config = dataclasses.replace(self.node.config, listen=self.address, reuse_port=self.shares_by_port)
        return {
            "component": self.node.component,
            "index": index,
            "seed": self.node.random.getrandbits(48),
            "options": texts_of(config),
            "lease": self.pool.grant(index, 1),
            "clock": [self.node.clock.offset_ms, self.node.clock.rate],
            "faults": [self._fault_share(fault.spec(), index) for fault in self.node.faults.faults.values()],
            "decisions": self.node.standing_decisions(),
        }

    async def _keep(self, index: int) -> None:
        """Restart a worker whenever it dies."""
        while True:
            code = await self.processes[index].wait()
            self.channels.pop(index, None)
            if self._stopping:
                return
            self.restarts += 1
            self.node.events.emit("worker-died", worker=index, exit=code)
            await asyncio.sleep(RESTART_DELAY_S)
            try:
                await self._start_worker(index)
            except (ListenError, OSError) as error:
                self.node.log.error("worker did not start", worker=index, reason=str(error))

    async def drain(self, timeout_s: float) -> None:
        await self._ask_all("drain", timeout_s)

    async def stop(self) -> None:
        self._stopping = True
        for channel in self.channels.values():
            channel.close()
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*(process.wait() for process in self.processes.values()))
        for task in self._tasks:
            task.cancel()
        if self._socket is not None:
            self._socket.close()

    # --- the link ---------------------------------------------------------------------------------------------------

    def decide(self, decision: "Message") -> None:
        for channel in self.channels.values():
            channel.send("decide", decision)

    def report(self, report: "Message") -> None:
        raise AssertionError("the control half does not report")

    async def _ask_all(self, method: str, body: Any) -> "list[Any]":
        """Every living worker's answer; a worker that dies meanwhile starts again with the present state."""
        answers = await asyncio.gather(
            *(channel.request(method, body) for channel in list(self.channels.values())), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, ChannelLost):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    # --- limits -----------------------------------------------------------------------------------------------------

    async def _lease(self, index: int, wanted: int) -> int:
        granted = self.pool.grant(index, wanted)
        if granted < wanted:
            others = [(each, channel) for each, channel in self.channels.items() if each != index]
            unused = await asyncio.gather(*(c.request("recall", None) for _, c in others), return_exceptions=True)
            for (each, _), amount in zip(others, unused, strict=True):
                if isinstance(amount, int):
                    self.pool.give_back(each, amount)
            granted += self.pool.grant(index, wanted - granted)
        return granted

    async def configured(self) -> None:
        """The parent's configuration has changed: the workers take it too."""
        excess = self.pool.resize(self.node.config.max_clients)
        await self._ask_all("configure", texts_of(self.node.config))
        if excess:
            for index, channel in list(self.channels.items()):
                self.pool.give_back(index, await channel.request("recall", None))

    # --- the admin port's requests ----------------------------------------------------------------------------------

    def _fault_share(self, spec: "Message", index: int) -> "Message":
        """A worker's share of a fault: a number of times is divided among the workers."""
        if spec.get("times") is None:
            return spec
        times = int(spec["times"])
        return {**spec, "times": times // self.count + (index <= times % self.count)}

    async def add_fault(self, spec: "Message") -> None:
        requests = [
            channel.request("add-fault", self._fault_share(spec, index)) for index, channel in self.channels.items()
        ]
        try:
            await asyncio.gather(*requests)
        except ChannelError as error:
            await self._ask_all("remove-fault", spec["id"])
            raise FaultError.said(str(error)) from error

    async def remove_fault(self, fault_id: str) -> None:
        await self._ask_all("remove-fault", fault_id)

    async def advance_clock(self, by_ms: int) -> None:
        await self._ask_all("advance-clock", by_ms)

    async def reset(self) -> None:
        await self._ask_all("reset", None)

    async def statuses(self) -> "list[Message]":
        return await self._ask_all("status", None)

    async def families(self) -> list[Family]:
        """The metrics of all workers, summed, and the workers' own."""
        merged: dict[str, Family] = {}
        for answer in await self._ask_all("figures", None):
            for family in map(unpack_family, answer):
                merge_family(merged, family)
        return [
            *merged.values(),
            gauge("workers", "Worker processes that run.", len(self.channels)),
            Family("worker_restarts_total", "counter", "Workers that died.", [({}, self.restarts)]),
        ]


def texts_of(config: Config) -> dict[str, str]:
    """Every option as text, secrets included: for the process that shares them."""
    return {name: each.show(getattr(config, name)) for name, each in options_of(type(config)).items()}
