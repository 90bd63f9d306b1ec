"""`--workers N`: one node as several processes that share its data port.

The process that was started runs the CONTROL half: admin port, health checks, configuration, counters, limits. It
starts N workers, each a process with the DATA half, and restarts one that dies. Linux spreads new connections over the
workers' own sockets (SO_REUSEPORT); the parent holds the port with a socket that is bound and never listens. Elsewhere
the kernel would give every connection to one of them, so the workers inherit one listening socket and share it.

Parent and worker talk over a socket pair (channel.py):

    parent → worker    start, decide, configure, finish-accepting, drain, add-fault, remove-fault, advance-clock, drift,
                       reset, granted, recall, figures, status
    worker → parent    report, event, lease, spent

A worker gets `start` with everything as it is, and from then on whatever changes, in order; so also one that is
restarted while things change misses nothing. What the admin port changes (faults, clock, reset, drain) has reached
every worker before the call returns; what it shows is of the whole. Limits are leased (structures/lease.py): a worker
that has used up its part holds the new connection until the parent has answered, so that the total holds and nobody is
refused while any of it is free. For that the parent answers one worker after the other: a part must not be on its way
to one while another, to whom it was given already, is asked what it can spare. A fault's `times` are divided among the
workers.

A worker ends at end-of-file of its channel: it never outlives its parent.
"""

import asyncio
import dataclasses
import itertools
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from minidist.runtime import sockets
from minidist.runtime.channel import Channel, ChannelError, ChannelLost
from minidist.runtime.config import Address, Config, options_of
from minidist.runtime.endpoint import BACKLOG, ListenError
from minidist.runtime.faults import FaultError
from minidist.runtime.faults.spec import Fault, Kind
from minidist.runtime.metrics import Family, gauge, merge_family, merge_figures, unpack_family
from minidist.structures.lease import LeasePool

if TYPE_CHECKING:
    from minidist.runtime.node import Message, Node

# After a first death at once, then slower and slower while a worker does not even start.
RESTART_DELAY_S, LONGEST_RESTART_DELAY_S = 0.1, 5.0
STOP_TIMEOUT_S = 1.0
LEASE_SLICES = 8  # per worker: small enough to share evenly, large enough to ask seldom
SHARES_BY_PORT = sys.platform == "linux"
# What the parent's node says itself, once for all.
NODE_EVENTS = ("running", "draining", "reset", "clock-moved", "fault-started", "fault-ended")


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
        self.channels: dict[int, Channel] = {}  # of all that have been told to start
        self.restarts = 0
        self._started: dict[int, None] = {}
        self._told: list[asyncio.Future[Any]] = []
        self._asks: asyncio.Queue[tuple[int, Channel, int]] = asyncio.Queue()  # for how many clients more
        # How often a fault has fired: by worker, and by which life of it.
        self._fired: dict[str, dict[tuple[int, int], int]] = {}
        self._lives = dict.fromkeys(range(1, count + 1), 0)
        # What each worker has last said of itself, and the counters of those that died: totals must not go back.
        self._families: dict[int, list[Family]] = {}
        self._figures: dict[int, Message] = {}
        self._past_families: dict[str, Family] = {}
        self._past_figures: Message = {}
        self._socket: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []
        node.faults.delegates = True
        node.faults.on_started = self._fault_started
        node.faults.on_ended = self._fault_ended

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the port, start all workers and wait until each listens. Raises ListenError."""
        self._socket = self._take_port()
        self.address = Address(self.node.config.listen.host, self._socket.getsockname()[1])
        indices = range(1, self.count + 1)
        started = await asyncio.gather(*map(self._start_worker, indices), return_exceptions=True)
        for error in started:
            if error is not None:
                raise error
        self._tasks = [asyncio.create_task(self._keep(index)) for index in indices]
        self._tasks.append(asyncio.create_task(self._lend()))

    def _take_port(self) -> socket.socket:
        listen = self.node.config.listen
        if listen.path:
            raise ListenError(f"cannot listen on {listen}: workers share a TCP port")
        taken = socket.socket(socket.AF_INET6 if ":" in listen.host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if taken.family == socket.AF_INET6:
                taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as event loops do
            if self.shares_by_port:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind(("127.0.0.1" if listen.host.lower() == "localhost" else listen.host, listen.port))
            if not self.shares_by_port:
                taken.listen(BACKLOG)
        except (OSError, UnicodeError) as error:
            taken.close()
            raise ListenError(f"cannot listen on {listen}: {sockets.reason(error)}") from error
        return taken

    async def _start_worker(self, index: int) -> None:
        """Raises ListenError, OSError; then there is no such worker."""
        channel = await self._spawn(index)
        self.channels[index] = channel
        self._lives[index] += 1
        try:
            self.listeners = await channel.request("start", self._start_message(index))
        except (ChannelLost, ChannelError) as error:
            channel.close()
            raise ListenError(str(error) if isinstance(error, ChannelError) else f"worker {index} died") from error
        self._started[index] = None

    async def _spawn(self, index: int) -> Channel:
        ours, theirs = socket.socketpair()
        inherited = [theirs.fileno()]
        if not self.shares_by_port and self._socket is not None:
            inherited.append(self._socket.fileno())
        # It imports what we would import, whatever lies in the directory that we were started in.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            self.processes[index] = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "minidist.runtime.worker", *map(str, inherited),
                stdin=asyncio.subprocess.DEVNULL, pass_fds=inherited, env=environment,
            )  # fmt: skip
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        handlers = {
            "report": lambda report: self.node.reported(index, report),
            "event": lambda event: self._event(index, event),
            "lease": lambda wanted: self._asks.put_nowait((index, channel, wanted)),
            "spent": lambda spent: self._spent(index, *spent),
        }
        channel: Channel = Channel(handlers, lost=lambda: self._lost(index, channel))
        ours.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=ours)
        return channel

    def _lost(self, index: int, channel: Channel) -> None:
        self.pool.drop(index)
        self._bury(index)
        self._started.pop(index, None)
        if self.channels.get(index) is channel:
            del self.channels[index]

    def _start_message(self, index: int) -> "Message":
        config = dataclasses.replace(self.node.config, listen=self.address, reuse_port=self.shares_by_port)
        faults = [self._fault_share(fault, index) for fault in self.node.faults.faults.values()]
        return {
            "node": f"{type(self.node).__module__}:{type(self.node).__qualname__}",
            "seed": self.node.random.getrandbits(48),
            "options": texts_of(config),
            "lease": self.pool.grant(index, 1),
            "clock": [self.node.clock.offset_ms, self.node.clock.rate],
            "faults": [share for share in faults if share is not None],
            "decisions": self.node.standing_decisions(),
        }

    async def _keep(self, index: int) -> None:
        """Restart a worker whenever it dies."""
        while True:
            code = await self.processes[index].wait()
            self.restarts += 1
            self.node.events.emit("worker-died", worker=index, exit=code)
            await self._restart(index)

    async def _restart(self, index: int) -> None:
        delay_s = RESTART_DELAY_S
        while True:
            await asyncio.sleep(delay_s)
            try:
                await self._start_worker(index)
            except (ListenError, OSError) as error:
                self.node.log.error("worker did not start", worker=index, reason=str(error))
                delay_s = min(delay_s * 2, LONGEST_RESTART_DELAY_S)
            else:
                self.node.events.emit("worker-started", worker=index)
                return

    async def drain(self, timeout_s: float) -> None:
        if self._socket is not None and not self.shares_by_port:
            self._socket.close()  # with the workers' copies of it, this is the end of listening
        # First all of them stop listening: a client that one sends away would come to the next, and be sent away again.
        await self._ask("finish-accepting", None)
        await self._ask("drain", timeout_s)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in list(self.channels.values()):
            channel.close()  # what a worker takes as its end
        living = [process for process in self.processes.values() if process.returncode is None]
        if living:
            await asyncio.wait([asyncio.ensure_future(each.wait()) for each in living], timeout=STOP_TIMEOUT_S)
        for process in living:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if self._socket is not None:
            self._socket.close()

    # --- telling and asking -----------------------------------------------------------------------------------------

    def decide(self, decision: "Message") -> None:
        for channel in self.channels.values():
            channel.send("decide", decision)

    def report(self, report: "Message") -> None:
        raise AssertionError("the control half does not report")

    def tell(self, method: str, body: Any) -> None:
        """Tell every worker of a change; `settled()` waits until all of them have made it."""
        for index in list(self.channels):
            self._tell(index, method, body)

    def _tell(self, index: int, method: str, body: Any) -> None:
        answer = self.channels[index].request(method, body)
        answer.add_done_callback(self._answered)
        self._told.append(answer)

    def _answered(self, answer: "asyncio.Future[Any]") -> None:
        if answer in self._told:  # nobody waits for it: a fault's `at` or `duration` has come
            self._told.remove(answer)
            if not answer.cancelled() and isinstance(answer.exception(), ChannelError):
                self.node.log.error("a worker refused", reason=str(answer.exception()))

    async def settled(self) -> None:
        """Wait until what was told is done. A worker that dies meanwhile starts again with everything as it is then.

        Raises ChannelError when a worker has refused something.
        """
        told, self._told = self._told, []
        for answer in await asyncio.gather(*told, return_exceptions=True):
            if isinstance(answer, ChannelError):
                raise answer

    async def _ask(self, method: str, body: Any) -> dict[int, Any]:
        """The answers of the workers that run."""
        indices = sorted(self._started)
        requests = [self.channels[index].request(method, body) for index in indices]
        answers = await asyncio.gather(*requests, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, ChannelLost):
                raise answer
        pairs = zip(indices, answers, strict=True)
        running = self._started  # one that has answered may have died while others had not answered yet
        return {index: answer for index, answer in pairs if not isinstance(answer, BaseException) and index in running}

    def configured(self) -> None:
        """The parent's configuration has changed: the workers take it too."""
        self.pool.resize(self.node.config.max_clients)
        self.tell("configure", texts_of(self.node.config))

    def _event(self, index: int, event: "Message") -> None:
        name, detail = event["event"], event["detail"]
        if name == "fault-fired" and detail["id"] in self._fired:
            self._fired[detail["id"]][index, self._lives[index]] = detail["fired"]
            detail = {**detail, "fired": sum(self._fired[detail["id"]].values())}
        if name not in NODE_EVENTS:
            self.node.events.emit(name, **{**detail, "worker": index})

    # --- limits -----------------------------------------------------------------------------------------------------

    async def _lend(self) -> None:
        """Answer the workers that want a larger part, for ever."""
        while True:
            index, channel, wanted = await self._asks.get()
            granted = 0
            if self.channels.get(index) is channel:
                granted = self.pool.grant(index, wanted)
                if granted < wanted:
                    await self._recall(index)
            if self.channels.get(index) is channel:  # it has not died meanwhile
                granted += self.pool.grant(index, wanted - granted) if granted < wanted else 0
                channel.send("granted", granted)

    async def _recall(self, index: int) -> None:
        """Take back what the other workers do not use."""
        others = {each: channel for each, channel in self.channels.items() if each != index}
        requests = [channel.request("recall", None) for channel in others.values()]
        for each, amount in zip(others, await asyncio.gather(*requests, return_exceptions=True), strict=True):
            if isinstance(amount, int):
                self.pool.give_back(each, amount)

    # --- faults -----------------------------------------------------------------------------------------------------

    def _fault_started(self, fault: Fault) -> None:
        """The parent keeps the time of `at` and `duration`; it moves the clock of all, and its own."""
        if fault.kind is Kind.CLOCK:
            if "by" in fault.parameters:
                self.tell("advance-clock", fault.parameters["by"])
            if "rate" in fault.parameters:
                self.tell("drift", fault.parameters["rate"])
            return
        self._fired[fault.id] = {}
        for index in list(self.channels):
            share = self._fault_share(fault, index)
            if share is not None:
                self._tell(index, "add-fault", share)

    def _fault_ended(self, fault: Fault, hurry: bool) -> None:
        fault.fired += sum(self._fired.pop(fault.id, {}).values())
        if fault.kind is not Kind.CLOCK:
            self.tell("remove-fault", [fault.id, hurry])
        elif "rate" in fault.parameters:
            self.tell("drift", 1.0)

    def _fault_share(self, fault: Fault, index: int) -> "Message | None":
        """A worker's share of a fault: what is left of its part of `times`; None when that is nothing."""
        if fault.kind is Kind.CLOCK:
            return None
        share = fault.spec() | {"duration": None}
        if fault.times is None:
            return share
        part = fault.times // self.count + (index <= fault.times % self.count)
        part -= sum(fired for (each, _), fired in self._fired.get(fault.id, {}).items() if each == index)
        return share | {"times": part} if part > 0 else None

    def _spent(self, index: int, fault_id: str, fired: int) -> None:
        """A worker's share has fired as often as it should; when all have, the fault is over."""
        fault = self.node.faults.faults.get(fault_id)
        if fault is None or fault.times is None:
            return
        self._fired[fault_id][index, self._lives[index]] = fired
        if sum(self._fired[fault_id].values()) >= fault.times:
            fault.fired = sum(self._fired.pop(fault_id).values())
            self.node.faults.remove(fault_id, hurry=False)

    async def fault_taken(self, fault_id: str) -> None:
        """Wait until all workers have the fault. Raises FaultError in their words; then none has it."""
        try:
            await self.settled()
        except ChannelError as error:
            self.node.faults.remove(fault_id)
            await self.settled()
            raise FaultError.said(str(error)) from error

    def faults_of(self, statuses: "dict[int, Message]") -> "list[Message]":
        """The node's faults with how often all of the workers' shares have fired."""
        for index, status in statuses.items():
            for share in status["faults"]:
                if share["id"] in self._fired:
                    self._fired[share["id"]][index, self._lives[index]] = share["fired"]
        listed = self.node.faults.listed()
        for fault in listed:
            fault["fired"] += sum(self._fired.get(fault["id"], {}).values())
        return listed

    # --- figures ----------------------------------------------------------------------------------------------------

    def _bury(self, index: int) -> None:
        """A worker is dead. Its counters, as it last told them, go on counting; what it has not told is lost."""
        for family in self._families.pop(index, []):
            if family.kind != "gauge":
                merge_family(self._past_families, family)
        totals = {name: value for name, value in self._figures.pop(index, {}).items() if name.endswith("_total")}
        self._past_figures = merge_figures([self._past_figures, totals])
        self.node.worker_lost(index)

    def reset(self) -> None:
        """Tell all workers to be as new, the dead ones included."""
        for table in (self._families, self._figures, self._past_families, self._past_figures):
            table.clear()
        self.tell("reset", None)

    async def statuses(self) -> "dict[int, Message]":
        """Of the workers that run, by number."""
        statuses = await self._ask("status", None)
        self._figures.update({index: status["figures"] for index, status in statuses.items()})
        return statuses

    def whole_figures(self) -> "Message":
        """The running figures of all workers, the totals of those that died included; as of the last `statuses()`."""
        return merge_figures([self._past_figures, *self._figures.values()])

    async def families(self) -> list[Family]:
        """The metrics of all workers, summed, and the workers' own."""
        answers = await self._ask("figures", None)
        self._families.update({index: list(map(unpack_family, answer)) for index, answer in answers.items()})
        merged: dict[str, Family] = {}
        for family in (*self._past_families.values(), *itertools.chain(*self._families.values())):
            merge_family(merged, family)
        return [
            *merged.values(),
            gauge("workers", "Worker processes that run.", len(self._started)),
            Family("worker_restarts_total", "counter", "Workers that died.", [({}, self.restarts)]),
        ]


def texts_of(config: Config) -> dict[str, str]:
    """Every option as text, secrets included: for the process that shares them."""
    return {name: each.show(getattr(config, name)) for name, each in options_of(type(config)).items()}
