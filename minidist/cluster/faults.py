"""Faults of a cluster: who applies what, and keeping it so while nodes come and go.

The launcher holds the list. From it and from the nodes as they are now follows what each node must have set
(`_wanted`); `sync` makes a node agree through its admin port, after every change of the list and whenever a node
started, was resumed, or a peer got a new process. `at` and `duration` are the launcher's timers. `times` is counted by
each node that applies a fault; one that has spent it says so in an event, and is not given the fault again.

Who applies it:

    kill, pause               the launcher, with a signal; on any node
    disk, clock, reply        the minidist node named by `on`
    partition                 every minidist node of both sides, against the other side
    the other kinds           the minidist node named by `on`; where `on` is a user's program and `peer` are minidist
                              nodes, those, against the program (directions swapped)
    links between regions     delay, on what each end sends; by one end in both directions when the other is a program

A user's program cannot apply a fault itself, so two of them have nobody who could: the command is refused (exit 2) and
says to put a `proxy` between them.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minidist.cluster.node import Ending, Node, State
from minidist.cluster.topology import Link
from minidist.runtime.admin_client import AdminRefused, AdminUnreachable, call
from minidist.runtime.config import parse_duration
from minidist.runtime.faults.spec import FaultError, numeric_parameters, read_fault

if TYPE_CHECKING:
    from minidist.cluster.cluster import Cluster

Body = dict[str, Any]

BY_SIGNAL = ("kill", "pause")
BY_ITSELF = ("disk", "clock", "reply")  # kinds that only the node named by `on` can apply
SWAPPED = {"in": "out", "out": "in", "both": "both"}
CALL_TIMEOUT_S = 2.0
PROXY_HINT = "put a proxy between them"


class FaultRefused(Exception):
    """A fault that nobody can apply, or that says something wrong. Ends a verb with exit code 2."""


@dataclass(eq=False, slots=True)
class SetFault:
    """One fault of the list. `on` and `peer` are the words given; groups are looked up anew each time."""

    id: str
    kind: str
    on: tuple[str, ...]
    peer: tuple[str, ...] = ()
    parameters: Body = field(default_factory=dict)
    one_way: bool = False
    link: bool = False
    active: bool = True
    timer: asyncio.TimerHandle | None = None
    spent: dict[tuple[str, str], None] = field(default_factory=dict)  #: (node, id of the part) that struck `times`

    def shown(self) -> Body:
        flags = {"one_way": True} if self.one_way else {}
        return {"id": self.id, "kind": self.kind, "on": self.on, "peer": self.peer} | self.parameters | flags


class Faults:
    """The list of faults of one cluster."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster = cluster
        self._faults: dict[str, SetFault] = {}
        self._numbers = itertools.count(1)
        self._applied: dict[Node, dict[str, Body]] = {}
        self._locks: dict[Node, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- for the verbs -----------------------------------------------------------------------------------------------

    async def add(
        self, kind: str, on: Sequence[str], peer: Sequence[str] = (), parameters: Mapping[str, Any] | None = None
    ) -> str:
        """Set a fault; returns its id. Raises FaultRefused, ClusterError for names nobody has."""
        fault = SetFault(self._new_id(kind), kind, tuple(on), tuple(peer), dict(parameters or {}))
        self._check(fault)
        self._durations(fault)
        return await self._begin(fault)

    async def partition(self, side: Sequence[str], other: Sequence[str], one_way: bool) -> str:
        """No bytes between two sides; with `one_way` none from the first to the second. Raises as `add`."""
        fault = SetFault(self._new_id("partition"), "partition", tuple(side), tuple(other), {}, one_way)
        nodes, others = self._cluster.find(side), self._cluster.find(other)
        both = [node.name for node in nodes if node in others]
        if both:
            raise FaultRefused(f"given {both[0]!r} on both sides, allowed: each node on one side")
        programs = [node for node in nodes if node.group.is_program]
        others = [node for node in others if node.group.is_program]
        if programs and others:
            pair = f"{programs[0].name} and {others[0].name}"
            raise FaultRefused(f"{pair} are both your own programs, so nobody can part them: {PROXY_HINT}")
        return await self._begin(fault)

    def add_links(self, links: Sequence[Link], regions: Mapping[str, Sequence[str]]) -> None:
        """Put the delays of a topology's links into the list, before the first node starts."""
        for link in links:
            parameters = {"ms": link.latency_ms, "jitter_ms": link.jitter_ms}
            side, other = (tuple(regions[region]) for region in link.between)
            fault = SetFault(self._new_id("delay"), "delay", side, other, parameters, link=True)
            self._faults[fault.id] = fault

    async def remove(self, fault_id: str) -> bool:
        """End a fault; False when there is none of this id."""
        fault = self._faults.pop(fault_id, None)
        if fault is None:
            return False
        if fault.timer is not None:
            fault.timer.cancel()
        if fault.kind == "kill" and fault.active:
            for node in self._present(fault.on):
                if node.state is State.KILLED:  # nobody decided otherwise meanwhile
                    self._cluster.start_node(node)
        if fault.kind == "pause" and fault.active:
            await self._cluster.resume(self._present(fault.on))
        await self.sync_all()
        self._cluster.events.emit("", "fault-removed", id=fault.id, kind=fault.kind)
        return True

    async def heal(self, everything: bool) -> list[str]:
        """Remove the partitions, or every fault; returns their ids."""
        ids = [fault.id for fault in self._faults.values() if everything or fault.kind == "partition"]
        for fault_id in ids:
            await self.remove(fault_id)
        return ids

    async def listed(self) -> list[Body]:
        """The list, with how often each has struck in all."""
        struck: dict[str, int] = {}
        asked = [node for node in self._applied if node.state is State.RUNNING]
        for answer in await asyncio.gather(*(self._ask_quietly(node) for node in asked)):
            for each in answer["faults"]:
                fault_id = each["id"].partition("/")[0]
                struck[fault_id] = struck.get(fault_id, 0) + each["fired"]
        return [fault.shown() | {"fired": struck.get(fault.id, 0)} for fault in self._faults.values()]

    def ids(self) -> list[str]:
        return list(self._faults)

    def hide(self, node: Node) -> bool:
        """Whether a fault stands between the node and everyone, the launcher's probes included."""
        return any(
            fault.active and fault.kind not in (*BY_SIGNAL, "disk", "clock", "delay") and not fault.peer
            for fault in self._faults.values()
            if node in self._present(fault.on)
        )

    def of(self, node: Node) -> list[str]:
        """The ids of the faults that name a node on either side, for the status of a user's program."""
        return [fault.id for fault in self._faults.values() if node in self._present([*fault.on, *fault.peer])]

    def forget(self, node: Node) -> None:
        """A node was removed from the cluster."""
        self._applied.pop(node, None)
        self._locks.pop(node, None)

    def heard(self, event: Body) -> None:
        """A node's own event: it may be that a fault has struck as often as it was to."""
        if event["event"] != "fault-ended":
            return
        part, struck = event["detail"].get("id", ""), event["detail"].get("fired", 0)
        fault = self._faults.get(part.partition("/")[0])
        if fault is None or struck < int(fault.parameters.get("times", struck + 1)):
            return
        fault.spent[event["node"], part] = None
        if not any(_is_of(fault, each) for parts in self._wanted().values() for each in parts):
            del self._faults[fault.id]
            self._cluster.events.emit("", "fault-removed", id=fault.id, kind=fault.kind)

    # --- checks ------------------------------------------------------------------------------------------------------

    def _check(self, fault: SetFault) -> None:
        nodes = self._cluster.find(fault.on)
        if fault.kind in BY_SIGNAL:
            given = {"peer": ",".join(fault.peer)} if fault.peer else {}
            for key, value in (given | fault.parameters).items():
                if key not in ("duration", "at"):
                    raise FaultRefused(f"{key}: given {value!r}, allowed: for {fault.kind} only duration, at")
            return
        try:
            read = read_fault({"kind": fault.kind, **fault.parameters}, fault.id)
        except FaultError as error:
            raise FaultRefused(str(error)) from error
        fault.parameters |= numeric_parameters(read, fault.parameters)  # the command line has them as text
        programs = [node for node in nodes if node.group.is_program]
        peers = self._peer_nodes(fault.peer)
        if fault.kind in ("disk", "clock") and fault.peer:
            raise FaultRefused(f"peer: given {','.join(fault.peer)!r}, allowed: nothing for {fault.kind}")
        if not programs:
            return
        program = programs[0].name
        if fault.kind in BY_ITSELF:
            raise FaultRefused(f"on: given {program!r}, your own program, allowed: a minidist node for {fault.kind}")
        unable = [peer.name for peer in peers if peer.group.is_program]
        if unable:
            raise FaultRefused(f"{program} and {unable[0]} are both your own programs: {PROXY_HINT}")
        if len(peers) == 0 or self._other_peers(fault.peer):
            raise FaultRefused(
                f"on: given {program!r}, your own program, allowed: with a minidist node as --peer; or {PROXY_HINT}"
            )

    def _durations(self, fault: SetFault) -> tuple[float, float | None]:
        """Seconds until the fault begins, and how long it lasts (None: until removed)."""
        spans_s: dict[str, float] = {}
        for key in ("at", "duration"):
            given = fault.parameters.get(key)
            try:
                if given is not None:
                    spans_s[key] = parse_duration(str(given)) / 1000
            except ValueError as error:
                raise FaultRefused(f"{key}: given {given!r}, allowed: a duration such as 1500ms, 30s, 2h") from error
        return spans_s.get("at", 0.0), spans_s.get("duration")

    def _present(self, words: Sequence[str]) -> list[Node]:
        """The nodes that words still stand for: a node may have been scaled away since they were given."""
        found: dict[Node, None] = {}
        for word in words:
            found |= dict.fromkeys(self._cluster.named(word))
        return list(found)

    def _peer_nodes(self, words: Sequence[str]) -> list[Node]:
        return self._cluster.find(word for word in words if ":" not in word)

    @staticmethod
    def _other_peers(words: Sequence[str]) -> list[str]:
        """Peers that are no nodes: `client:NAME` and addresses."""
        return [word for word in words if ":" in word]

    # --- beginning and ending ----------------------------------------------------------------------------------------

    def _new_id(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"

    async def _begin(self, fault: SetFault) -> str:
        at_s, _ = self._durations(fault)
        self._faults[fault.id] = fault
        if at_s > 0:
            fault.active = False
            self._later(fault, at_s, self._activate)
            return fault.id
        try:
            await self._activate(fault)
        except BaseException:
            self._faults.pop(fault.id, None)
            await self.sync_all()
            raise
        return fault.id

    async def _activate(self, fault: SetFault) -> None:
        """Let a fault of the list take hold. Raises FaultRefused, ClusterError."""
        fault.active = True
        nodes = self._cluster.find(fault.on)
        _, duration_s = self._durations(fault)
        if fault.kind == "kill":
            if duration_s is None:  # done, and nothing to end
                del self._faults[fault.id]
            await self._cluster.kill(nodes, Ending.KILL if duration_s is None else Ending.KEPT_DOWN)
        elif fault.kind == "pause":
            await self._cluster.pause(nodes)
        else:
            for refusal in await self.sync_all():
                raise FaultRefused(refusal)
        self._cluster.events.emit("", "fault-set", **fault.shown())
        if duration_s is not None:
            self._later(fault, duration_s, self._expire)

    async def _expire(self, fault: SetFault) -> None:
        await self.remove(fault.id)

    def _later(self, fault: SetFault, delay_s: float, work: Callable[[SetFault], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            try:
                await work(fault)
            except Exception as error:  # nobody waits for it: it becomes an event
                self._faults.pop(fault.id, None)
                self._cluster.events.emit("", "fault-failed", id=fault.id, kind=fault.kind, why=str(error))

        def begin() -> None:
            task = asyncio.ensure_future(run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        fault.timer = asyncio.get_running_loop().call_later(delay_s, begin)

    # --- making the nodes agree --------------------------------------------------------------------------------------

    async def node_spawned(self, node: Node) -> None:
        """A node has a new process: whoever tells it by its process must hear of it."""
        self._applied.pop(node, None)
        await self.sync_all()

    async def sync_all(self) -> list[str]:
        """Make every node that can answer agree with the list; returns what was refused."""
        wanted = self._wanted()
        nodes = [node for node in self._cluster.nodes if node.state is State.RUNNING and not node.group.is_program]
        refusals = await asyncio.gather(*(self.sync(node, wanted.get(node, {})) for node in nodes))
        return [refusal for each in refusals for refusal in each]

    async def sync(self, node: Node, wanted: Mapping[str, Body] | None = None) -> list[str]:
        """Make one node agree; returns what it refused. When it cannot answer, its next start or resume comes here."""
        wanted = self._wanted().get(node, {}) if wanted is None else wanted
        if not wanted and not self._applied.get(node):
            return []
        refusals = []
        async with self._locks.setdefault(node, asyncio.Lock()):
            applied = self._applied.setdefault(node, {})
            try:
                for body_id in [each for each in applied if applied[each] != wanted.get(each)]:
                    await self._delete(node, body_id)
                    del applied[body_id]
                for body_id, body in wanted.items():
                    if body_id not in applied:
                        await self._ask(node, "POST", "/faults", body)
                        applied[body_id] = body
            except AdminUnreachable:
                pass
            except AdminRefused as refused:
                refusals.append(f"{node.name}: {refused.text}")
        return refusals

    async def _delete(self, node: Node, body_id: str) -> None:
        try:
            await self._ask(node, "DELETE", f"/faults?id={body_id}")
        except AdminRefused as refused:
            if refused.status != 404:  # it may have ended by itself
                raise

    async def _ask(self, node: Node, method: str, path: str, body: Body | None = None) -> Any:
        assert node.admin is not None
        return await call(node.admin, method, path, body, timeout_s=CALL_TIMEOUT_S)

    async def _ask_quietly(self, node: Node) -> Body:
        """The faults a node has set; none when it cannot answer."""
        try:
            answer: Body = await self._ask(node, "GET", "/faults")
        except (AdminUnreachable, AdminRefused):
            return {"faults": []}
        return answer

    def _wanted(self) -> dict[Node, dict[str, Body]]:
        """What each node should have set: {node: {id: body}}."""
        wanted: dict[Node, dict[str, Body]] = {}
        for fault in self._faults.values():
            if not fault.active or fault.kind in BY_SIGNAL:
                continue
            numbers: dict[Node, int] = {}
            for node, body in self._parts(fault):
                if body.get("peer") == []:
                    continue  # whom it was about is gone; without the key it would be about everyone
                number = numbers[node] = numbers.get(node, -1) + 1
                body["id"] = f"{fault.id}/{number}" if number else fault.id
                if (node.name, body["id"]) not in fault.spent:
                    wanted.setdefault(node, {})[body["id"]] = body
        return wanted

    def _parts(self, fault: SetFault) -> list[tuple[Node, Body]]:
        """Who applies a fault, and with which body. The table at the top of this file, as code."""
        parameters = {key: value for key, value in fault.parameters.items() if key not in ("at", "duration")}
        body = {"kind": fault.kind, **parameters}
        direction = fault.parameters.get("direction", "both")
        nodes, peers = self._present(fault.on), self._present(fault.peer)
        if fault.link:
            return [*self._link_parts(body, nodes, peers), *self._link_parts(body, peers, nodes)]
        if fault.kind == "partition" and fault.peer:
            way, back = ("out", "in") if fault.one_way else (direction, SWAPPED[direction])
            others = self._other_peers(fault.peer)
            near = [(node, body | {"peer": self._peers(peers, others), "direction": way}) for node in _ours(nodes)]
            far = [(peer, body | {"peer": self._peers(nodes), "direction": back}) for peer in _ours(peers)]
            return near + far
        if not fault.peer:
            return [(node, dict(body)) for node in nodes]
        programs = [node for node in nodes if node.group.is_program]
        near = [(node, body | {"peer": self._peers(peers, self._other_peers(fault.peer))}) for node in _ours(nodes)]
        swapped = body | {"peer": self._peers(programs), "direction": SWAPPED[direction]}
        return near + [(peer, dict(swapped)) for peer in peers if programs]

    def _link_parts(self, body: Body, nodes: Sequence[Node], peers: Sequence[Node]) -> list[tuple[Node, Body]]:
        parts = []
        for node in _ours(nodes):
            for direction, others in (
                ("out", _ours(peers)),
                ("both", [each for each in peers if each.group.is_program]),
            ):
                if others:
                    parts.append((node, body | {"peer": self._peers(others), "direction": direction}))
        return parts

    def _peers(self, nodes: Sequence[Node], others: Sequence[str] = ()) -> list[Any]:
        """Peers as a node understands them: our nodes by name and address, and everyone's processes."""
        return [*(_peer(node) for node in nodes), *others]


def _peer(node: Node) -> Body:
    addresses = {node.endpoint.address: None, **dict.fromkeys(node.listeners.values())}
    return {"name": node.name, "addresses": list(addresses), "pgids": [node.pid] if node.pid else []}


def _ours(nodes: Sequence[Node]) -> list[Node]:
    return [node for node in nodes if not node.group.is_program]


def _is_of(fault: SetFault, body_id: str) -> bool:
    return body_id.partition("/")[0] == fault.id
