"""A running cluster: its nodes, and everything that is done to them.

Each run of a node is one task, `_live`: spawn, wait until ready, wait for the end, say what the end was, and do it
again where the file says so. Verbs do not wait inside that task; they change something (an intention, a signal, a new
`_live`) and wait for what comes of it. So a `kill` never queues behind a start that hangs.

Groups start as soon as the groups they refer to are ready, and stop as soon as nobody who refers to them is left.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from minidist.cluster import readiness
from minidist.cluster.events import Events
from minidist.cluster.faults import Faults
from minidist.cluster.node import ALIVE, DELIBERATE, Ending, Node, State
from minidist.cluster.processes import Processes
from minidist.cluster.programs import Programs, needs_peers
from minidist.cluster.references import Endpoint
from minidist.cluster.reservations import Reservation
from minidist.cluster.rundir import RunDir
from minidist.cluster.topology import Group, Topology
from minidist.runtime.config import Address

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.1, 5.0
SETTLED_S = 10.0  # a node that ran so long starts its next backoff anew
STOP_TIMEOUT_S = 5.0
LAST_LINES = 20
LAST_LINES_BYTES = 16 * 1024
LAST_EVENTS_S = 0.2  # what a node said last is read when its connection ends, which is at once
MAX_LOG_BYTES = 64 * 1024**2  # per node: hours of a busy log, and no full disk overnight
KEPT_LOG_BYTES = 4 * 1024**2  # of a log that is started anew: a bounded copy, however far it got between two looks
LOG_CHECK_S = 0.5

ADDRESS_IN_USE_HINT = (
    "\n  hint: the launcher keeps its $PORT reserved; it must listen with SO_REUSEADDR, as servers usually do"
)


class ClusterError(Exception):
    """Something that could not be done; `exit_code` is the verb's."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Cluster:
    """All nodes of one topology."""

    def __init__(
        self, topology: Topology, run_dir: RunDir, processes: Processes, programs: Programs, events: Events
    ) -> None:
        self.topology = topology
        self.run_dir = run_dir
        self.processes = processes
        self.programs = programs
        self.events = events
        self.groups: dict[str, list[Node]] = {}
        self.faults = Faults(self)
        self._lives: dict[Node, asyncio.Task[None]] = {}

    # --- nodes -------------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> list[Node]:
        return [node for nodes in self.groups.values() for node in nodes]

    def add_group(self, group: Group) -> None:
        """Make the group's nodes and reserve their ports. Raises PortTaken."""
        self.groups[group.name] = []
        for index in range(group.replicas):
            self.add_node(group, index)

    def add_node(self, group: Group, index: int) -> Node:
        """Make one more node at the end of a group and reserve its ports. Raises PortTaken."""
        node = Node(group, index)
        node.region = self.topology.region_of(node.name)
        node.reservations["listen"] = Reservation(group.listen)
        if not group.is_program:
            node.reservations["admin"] = Reservation(group.admin)
            if needs_peers(group.component):
                node.reservations["peer"] = Reservation(Address("127.0.0.1", 0))
        node.listeners = {"http" if group.is_program else group.component: str(node.address)}
        self.groups[group.name].append(node)
        return node

    def remove_node(self, node: Node) -> None:
        """Forget a node that has ended, with its ports."""
        self.groups[node.group.name].remove(node)
        self.faults.forget(node)
        for reservation in node.reservations.values():
            reservation.release()

    def endpoints(self, group: str) -> Sequence[Endpoint]:
        return [node.endpoint for node in self.groups[group]]

    def named(self, name: str) -> list[Node]:
        """The nodes of a group, the node of that name or index, or the nodes of a region; none for any other name."""
        nodes = self.groups.get(name) or [n for n in self.nodes if name in (n.name, f"{n.group.name}[{n.index}]")]
        return nodes or [node for node in self.nodes if node.region == name]

    def find(self, names: Iterable[str]) -> list[Node]:
        """The nodes that names of groups, nodes (`web-2`, `web[1]`) or regions stand for, each once.

        Raises ClusterError (exit 2).
        """
        found: dict[Node, None] = {}
        for name in names:
            nodes = self.named(name)
            if not nodes:
                known = ", ".join([*self.groups, *(node.name for node in self.nodes)])
                raise ClusterError(f"given {name!r}, allowed: a group or node of {self.topology.name}: {known}", 2)
            found |= dict.fromkeys(nodes)
        return list(found)

    # --- the life of a node ------------------------------------------------------------------------------------------

    def start_node(self, node: Node) -> None:
        """Begin a life of a node that has none; whoever wants to know how it goes watches its state."""
        if node not in self._lives:
            node.become_starting()
            self._lives[node] = asyncio.create_task(self._live(node), name=f"life of {node.name}")

    async def _live(self, node: Node) -> None:
        backoff_s = FIRST_BACKOFF_S
        tried_again = False
        try:
            while True:
                await self._run_once(node)
                again = node.group.restart_always and node.ending in (Ending.UNEXPECTED, Ending.KILL)
                if not again or not (node.ready or tried_again):
                    return
                if node.ready and time.monotonic() - node.started_s > SETTLED_S:
                    backoff_s = FIRST_BACKOFF_S
                node.become_starting()
                if not await self._backed_off(node, backoff_s):
                    return
                backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
                tried_again = True
        except OSError as error:  # no descriptor, no space for the log
            node.trouble = f"{error.filename or 'its process'}: {error.strerror}"
        finally:
            del self._lives[node]
            if node.state in ALIVE:
                node.become_ended(node.exit)

    async def _backed_off(self, node: Node, backoff_s: float) -> bool:
        """Wait before a restart; False when somebody decided otherwise meanwhile."""
        node.waiting_for = f"its restart in {backoff_s:g} s"
        try:
            async with asyncio.timeout(backoff_s):
                while node.ending is Ending.UNEXPECTED:
                    await node.changed.wait()
        except TimeoutError:
            return True
        return False

    async def _run_once(self, node: Node) -> None:
        """One process of a node, from its start to its end."""
        await self._spawn(node)
        process = node.process
        assert process is not None
        ready = asyncio.create_task(self._bring_up(node))
        collecting: asyncio.Task[None] | None = None
        try:
            waiting: list[asyncio.Future[Any]] = [ready, process.exited]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not process.exited.done():
                ready.result()
                node.become_ready()
                self.events.emit(node.name, "ready", pid=process.pid, address=node.endpoint.address)
                if node.admin is not None:
                    collecting = asyncio.create_task(self.events.collect(node.admin))
            code = await asyncio.shield(process.exited)
            if collecting is not None:
                await asyncio.wait([collecting], timeout=LAST_EVENTS_S)
        except BaseException:
            self.processes.signal(process, signal.SIGKILL)
            raise
        finally:
            ready.cancel()
            if collecting is not None:
                collecting.cancel()
        node.become_ended(code)
        self.events.emit(node.name, node.state.value, exit=code)

    async def _spawn(self, node: Node) -> None:
        log = self.run_dir.log_of(node.name)
        node.log_start = log.stat().st_size if log.exists() else 0
        program = self.programs.of(node, self.endpoints, self.groups[node.group.name])
        lines = None if node.group.is_program else _ready_line_reader(node, log)
        node.become_spawned(await self.processes.start(program, log, lines))
        self.events.emit(node.name, "started", pid=node.pid)
        await self.faults.node_spawned(node)
        if node.ending is not Ending.UNEXPECTED:  # somebody wanted it gone before it was there
            self._signal(node, signal.SIGKILL)

    async def _bring_up(self, node: Node) -> None:
        """Returns when the node is ready and the faults that concern it are set."""
        if node.group.is_program:
            log = self.run_dir.log_of(node.name)
            await readiness.until_ready(lambda: readiness.program_ready(node, log), node.wait_for)
        else:
            node.wait_for("its ready line")
            await node.ready_line.wait()
            await self.faults.sync(node)

    def _signal(self, node: Node, number: int) -> None:
        if node.process is not None:
            self.processes.signal(node.process, number)

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def until_running(self, node: Node) -> None:
        """Raises ClusterError when the node ends instead."""
        while node.state is not State.RUNNING:
            if node.state not in ALIVE:
                raise self.failure(node)
            await node.changed.wait()

    async def until_ready(self, nodes: Sequence[Node]) -> None:
        """Until these nodes run and their groups work as a whole. Nodes down or paused on purpose are left out.

        Raises ClusterError when one of them ends.
        """
        nodes = [node for node in nodes if node.state not in DELIBERATE]
        await together(self.until_running(node) for node in nodes)
        groups = dict.fromkeys(node.group.name for node in nodes)
        await together(self._until_works(self.groups[group]) for group in groups)

    async def _until_works(self, group: Sequence[Node]) -> None:
        def running() -> list[Node]:
            return [node for node in group if node.state is State.RUNNING]

        async def probe() -> None:
            for node in group:
                if node.state is State.FAILED:
                    raise self.failure(node)
            if not any(self.faults.hide(node) for node in group):  # else their own word must do
                await readiness.group_ready(group[0].component, running())

        def waiting(missing: str) -> None:
            for node in running():
                node.waiting_for = missing

        await readiness.until_ready(probe, waiting)
        waiting("")

    async def keep_logs_short(self) -> None:
        """Until cancelled, start those logs anew that have grown too long; their end is kept once, as NAME.log.old."""
        while True:
            shorten(self.run_dir.supervisor_log)
            for node in self.nodes:
                if shorten(self.run_dir.log_of(node.name)):
                    node.log_start = 0
                    await asyncio.sleep(0)  # others' turn
            await asyncio.sleep(LOG_CHECK_S)

    def unready(self, nodes: Sequence[Node]) -> str:
        """What a time-out says: who is not ready, what is missing, and the last lines of those that run."""
        text = []
        for node in nodes:
            if node.state is State.STARTING or node.waiting_for:
                text.append(f"  {node.name}: {node.waiting_for or 'waits for other groups'}")
            if node.state is State.STARTING and node.process is not None:
                text += [f"    {line}" for line in last_lines(self.run_dir.log_of(node.name), node.log_start, 5)]
        return "\n".join(text)

    def failure(self, node: Node) -> ClusterError:
        """The error for a node that ended while it was waited for."""
        if node.state is not State.FAILED:
            return ClusterError(f"{node.name} was {node.state.value} meanwhile")
        if node.trouble:
            return ClusterError(f"{node.name} could not be started: {node.trouble}")
        lines = last_lines(self.run_dir.log_of(node.name), node.log_start)
        text = "".join(f"\n  {line}" for line in lines) or " none"
        in_use = node.group.is_program and any(
            "ddress already in use" in line or "EADDRINUSE" in line for line in lines
        )
        hint = ADDRESS_IN_USE_HINT if in_use else ""
        return ClusterError(f"{node.name} failed (exit {node.exit}); its last lines:{text}{hint}")

    # --- what verbs do to nodes --------------------------------------------------------------------------------------

    async def start_groups(self, progress: Callable[[str], object]) -> None:
        """Start every node that has no process, in the order of the references. Raises ClusterError."""
        works = {name: asyncio.Event() for name in self.groups}

        async def start(group: Group) -> None:
            for other in group.depends_on:
                await works[other].wait()
            began_s = time.monotonic()
            idle = [node for node in self.groups[group.name] if node.process is None]
            for node in idle:
                self.start_node(node)
            await self.until_ready(self.groups[group.name])
            works[group.name].set()
            if idle:
                count = f"{len(idle)} nodes, " if len(idle) > 1 else ""
                progress(f"{group.name} ready ({count}{time.monotonic() - began_s:.2f} s)")

        await together(start(group) for group in self.topology.groups.values())

    async def stop_groups(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop everything, each group when nobody who refers to it is left."""
        gone = {name: asyncio.Event() for name in self.groups}

        async def stop(name: str) -> None:
            for other in self.topology.groups.values():
                if name in other.depends_on and other.name in gone:
                    await gone[other.name].wait()
            await self.stop(self.groups[name], timeout_s)
            gone[name].set()

        await together(stop(name) for name in self.groups)

    async def start(self, nodes: Sequence[Node]) -> None:
        """Start those that have no process and wait until all are ready. Raises ClusterError."""
        for node in nodes:
            self.start_node(node)
        await self.until_ready(nodes)

    async def stop(self, nodes: Sequence[Node], timeout_s: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM, and SIGKILL for those that have not ended after `timeout_s`."""
        await together(self._stop(node, timeout_s) for node in nodes)

    async def _stop(self, node: Node, timeout_s: float) -> None:
        life = self._lives.get(node)
        if life is None:
            node.become_stopped()
            return
        node.intend(Ending.STOP)
        self._signal(node, signal.SIGTERM)
        self._signal(node, signal.SIGCONT)
        _, alive = await asyncio.wait({life}, timeout=timeout_s)
        if alive:
            self._signal(node, signal.SIGKILL)
            await asyncio.wait({life})

    async def kill(self, nodes: Sequence[Node], ending: Ending = Ending.KILL) -> None:
        """SIGKILL to just these, with whatever they forked."""
        await together(self._kill(node, ending) for node in nodes)

    async def _kill(self, node: Node, ending: Ending) -> None:
        process = node.process
        node.intend(ending)
        self._signal(node, signal.SIGKILL)
        while process is not None and node.process is process:
            await node.changed.wait()

    async def pause(self, nodes: Sequence[Node]) -> None:
        """SIGSTOP: the process's time stands still. Raises ClusterError for a node that has no process."""
        for node in nodes:
            if node.process is None:
                raise ClusterError(f"{node.name} is {node.state.value}: nothing to pause")
        for node in nodes:
            self._signal(node, signal.SIGSTOP)
            if node.state is not State.PAUSED:
                node.become_paused()
                self.events.emit(node.name, "paused")

    async def resume(self, nodes: Sequence[Node]) -> None:
        """SIGCONT to those that are paused."""
        for node in nodes:
            if node.state is State.PAUSED:
                self._signal(node, signal.SIGCONT)
                node.become_resumed()
                self.events.emit(node.name, "resumed")
        await self.faults.sync_all()


def _ready_line_reader(node: Node, log: Path) -> Callable[[bytes], None]:
    """Takes the stdout of a component's next start: the ready line, and anything else into its log."""
    ready_line = node.ready_line = asyncio.Event()

    def take(line: bytes) -> None:
        try:
            message: dict[str, Any] = json.loads(line)
            node.listeners = dict(message["listeners"])
            ready_line.set()
        except (ValueError, KeyError, TypeError):
            with open(log, "ab") as file:
                file.write(line + b"\n")

    return take


def shorten(log: Path) -> bool:
    """Begin a log anew that is too long; whether it was."""
    too_long = log.exists() and log.stat().st_size > MAX_LOG_BYTES
    if too_long:
        begin_anew(log)
    return too_long


def begin_anew(log: Path) -> None:
    """Empty a log, its last KEPT_LOG_BYTES kept beside it. Whoever writes it appends, so it goes on at the new end."""
    with contextlib.suppress(OSError), open(log, "rb") as file:  # a full disk is no reason not to empty it
        file.seek(max(0, file.seek(0, os.SEEK_END) - KEPT_LOG_BYTES))
        log.with_suffix(".log.old").write_bytes(file.read(KEPT_LOG_BYTES))
    with contextlib.suppress(FileNotFoundError):
        os.truncate(log, 0)


def last_lines(log: Path, start: int = 0, count: int = LAST_LINES) -> list[str]:
    """The last lines of a log, of what was written after byte `start`."""
    if not log.exists():
        return []
    with open(log, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(start, size - LAST_LINES_BYTES))
        return file.read().decode("utf-8", "replace").splitlines()[-count:]


async def together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all at once; the first error cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
