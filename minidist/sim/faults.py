"""The contract's faults in the simulated world: what is done to hosts and to the network between them.

    partition, delay, bandwidth, drop      rules of the network, for any two hosts
    refuse, reset, hang, reply, disk       the node's own fault set, the same code as in a real process
    clock                                  service time jumps (`by`); all clocks of the host drift (`rate`)
    kill, pause                            the host crashes and comes back after `duration`; or its time stands still

A fault is a dict as `minidist fault add` and a schedule file have it: `{"kind", "on", "peer", "at", "duration", …}`; a
partition may have `sides` (`[["a"], ["b", "c"]]`) instead of `on` and `peer`, a kill `power` (the machine loses its
power, and the disk what was not synced). Each one counts how often it took effect: a declared fault that never fired is
worth knowing about.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from minidist.runtime.faults.spec import Direction, FaultError, read_fault
from minidist.runtime.faults.spec import Fault as NodeFault
from minidist.sim.cluster import LAUNCHER, SimCluster, SimNode
from minidist.sim.host import Crash, Host
from minidist.sim.links import Rule

Spec = Mapping[str, Any]

NETWORK_KINDS = ("partition", "delay", "bandwidth", "drop")
NODE_KINDS = ("refuse", "reset", "hang", "reply", "disk")
HOST_KINDS = ("kill", "pause")
KINDS = (*NETWORK_KINDS, *NODE_KINDS, *HOST_KINDS, "clock")
HOST_KEYS = {"kill": ("id", "kind", "on", "at", "duration", "power"), "pause": ("id", "kind", "on", "at", "duration")}
WHERE_KEYS = ("on", "peer", "one_way", "sides", "power")
DEFAULT_KILL_MS = 2000
CLIENTS = "clients"


class FaultRule(Rule):
    """A rule of a fault: the launcher looks on from outside and is never concerned."""

    def concerns(self, source: str, target: str) -> bool:
        return LAUNCHER not in (source, target) and Rule.concerns(self, source, target)


class FaultState(Enum):
    """Declared and waiting for its time; under way; over."""

    PLANNED = "planned"
    ACTIVE = "active"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Span:
    """A fault as a picture shows it, on the lane of each of its nodes. Times are virtual seconds."""

    text: str
    node: str
    began_s: float
    ended_s: float
    fired: int


class SimFault:
    """One declared fault. `fired` counts its effects. Raises FaultError: the key, what was given, what is allowed."""

    def __init__(self, cluster: SimCluster, spec: Spec, number: int) -> None:
        self.cluster = cluster
        self.spec = dict(spec)
        self.id = str(spec.get("id") or f"f{number}")
        self.kind = str(spec.get("kind"))
        self.state = FaultState.PLANNED
        on, peer = spec.get("on"), spec.get("peer")
        if "sides" in spec:
            on, peer = read_sides(self.kind, spec)
        self.on, self.peer = names(on), names(peer)
        self._check_names()
        self.parsed = self._parse()
        self.at_s = self.parsed.at_ms / 1000
        duration_ms = self.parsed.duration_ms
        if duration_ms is None and self.kind == "kill":
            duration_ms = DEFAULT_KILL_MS
        self.duration_s = None if duration_ms is None else duration_ms / 1000
        self.began_s = self.ended_s = -1.0
        self._effects = 0
        self._rules: list[FaultRule] = []
        self._node_faults: list[tuple[SimNode, NodeFault]] = []

    def _check_names(self) -> None:
        if self.kind not in KINDS:
            raise FaultError("kind", self.spec.get("kind"), "one of " + ", ".join(KINDS))
        known = [*self.cluster.groups, *(node.name for node in self.cluster.nodes)]
        others = [name for name in self.cluster.world.hosts if name not in known and name != LAUNCHER]
        if not self.on:
            raise FaultError("on", None, f"one of {', '.join(known)}")
        for name in self.on:
            if name not in known:
                raise FaultError("on", name, f"one of {', '.join(known)}")
        for name in self.peer:
            if name not in (*known, *others, CLIENTS):
                raise FaultError("peer", name, f"one of {', '.join((*known, CLIENTS, *others))}")

    def _parse(self) -> NodeFault:
        """The common keys and the kind's own, checked as a node would."""
        if self.kind in HOST_KINDS:
            for key, given in self.spec.items():
                if key not in HOST_KEYS[self.kind]:
                    raise FaultError(key, given, f"for {self.kind} one of {', '.join(HOST_KEYS[self.kind])}")
            times: dict[str, Any] = {key: self.spec[key] for key in ("at", "duration") if key in self.spec}
            return read_fault({"kind": "partition"} | times, self.id)
        parsed = read_fault({key: self.spec[key] for key in self.spec if key not in WHERE_KEYS}, self.id)
        programs = [node.name for node in self.nodes if node.kind is None]
        if programs and self.kind in NODE_KINDS:
            raise FaultError("on", programs[0], f"a minidist node: a program of yours cannot {self.kind}")
        for node in self.nodes:
            if self.kind == "reply" and node.node is not None and not has_requests(node):
                raise FaultError("on", node.name, "a node whose protocol has requests")
            if self.kind == "disk" and node.node is not None and node.node.ports.disk is None:
                raise FaultError("on", node.name, "a node that keeps data on disk")
        return parsed

    @property
    def nodes(self) -> list[SimNode]:
        return [node for name in self.on for node in self.cluster.find(name)]

    def peers(self) -> "frozenset[str] | None":
        """The hosts of the other side, as of now; None for everyone."""
        if not self.peer:
            return None
        ours = {node.name for node in self.cluster.nodes}
        found: set[str] = set()
        for name in self.peer:
            if name == CLIENTS:
                found |= {host for host in self.cluster.world.hosts if host not in ours}
            elif name in ours or name in self.cluster.groups:
                found |= {node.name for node in self.cluster.find(name)}
            else:
                found.add(name)
        return frozenset(found)

    # --- taking effect ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self.state = FaultState.ACTIVE
        self.began_s = self.cluster.world.now_s
        self.cluster.world.note(None, f"fault {self.id} begins: {self.shown()}")
        if self.kind in NETWORK_KINDS:
            self._begin_on_network()
        elif self.kind in NODE_KINDS:
            self._begin_on_nodes()
        elif self.kind == "clock":
            self._move_clocks()
        else:
            self._stop_hosts()

    def end(self) -> None:
        """What it held back goes on; hosts that it stopped come back. Does nothing unless it is under way."""
        if self.state is not FaultState.ACTIVE:
            return
        self.state = FaultState.OVER
        self.ended_s = self.cluster.world.now_s
        network = self.cluster.world.network
        for rule in self._rules:
            network.remove_rule(rule)
        if self._kernel_refused in network.on_refused:
            network.on_refused.remove(self._kernel_refused)
        for node, _ in self._node_faults:
            if node.node is not None and node.host.alive:
                node.host.run(node.node.faults.remove, self.id)
        for node in self.nodes:
            if self.kind in ("kill", "disk"):
                self.cluster.restart(node.name)
            elif self.kind == "pause" and node.host.paused:
                node.host.resume()
            elif self.kind == "clock" and "rate" in self.parsed.parameters:
                node.host.drift(1.0)
        self.cluster.world.note(None, f"fault {self.id} ends, fired {self.fired} times")

    @property
    def fired(self) -> int:
        """How often it took effect so far."""
        return self._effects + sum(fault.fired for _, fault in self._node_faults)

    def _took_effect(self) -> None:
        self._effects += 1
        if self._effects == self.parsed.times:
            loop = self.cluster.world.loop
            loop.at_world_time(loop.now_s, self.end)

    def _begin_on_network(self) -> None:
        ours, peers = frozenset(node.name for node in self.nodes), self.peers()
        direction = Direction.OUT if self.spec.get("one_way") else self.parsed.direction
        parameters = {key: float(value) for key, value in self.parsed.parameters.items()}
        ways = {Direction.OUT: (ours, peers), Direction.IN: (peers, ours)}
        for way, (sources, targets) in ways.items():
            if self.parsed.acts_on(way) and direction in (way, Direction.BOTH):
                rule = FaultRule(self.kind, sources, targets, parameters, self._took_effect, self.parsed.probability)
                self._rules.append(rule)
                self.cluster.world.network.add_rule(rule)

    def _begin_on_nodes(self) -> None:
        spec = {key: given for key, given in self.spec.items() if key not in (*WHERE_KEYS, "at", "duration")}
        peers = self.peers()
        if peers is not None:
            hosts = self.cluster.world.hosts
            spec["peer"] = [{"name": name, "addresses": [hosts[name].ip]} for name in sorted(peers)]
        for node in self.nodes:
            if node.node is not None and node.host.alive:
                node.host.run(node.node.faults.add, {**spec, "id": self.id})
                self._node_faults.append((node, node.node.faults.faults[self.id]))
        if self.kind == "refuse":
            self.cluster.world.network.on_refused.append(self._kernel_refused)

    def _kernel_refused(self, source: Host, target: Host) -> None:
        """A node that refuses everybody listens no more, and so does not see whom it refuses."""
        asked = [node for node, _ in self._node_faults if node.host is target and target.alive]
        if asked and source.name != LAUNCHER:
            self._took_effect()

    def _move_clocks(self) -> None:
        for node in self.nodes:
            if "by" in self.parsed.parameters:
                node.host.run(node.host.clock.advance, int(self.parsed.parameters["by"]))
            if "rate" in self.parsed.parameters:
                node.host.drift(float(self.parsed.parameters["rate"]))
            self._took_effect()

    def _stop_hosts(self) -> None:
        for node in self.nodes:
            if self.kind == "pause" and node.host.alive and not node.host.paused:
                node.host.pause()
                self._took_effect()
            elif self.kind == "kill" and node.host.alive:
                node.host.crash(Crash.POWER if self.spec.get("power") else Crash.PROCESS)
                self._took_effect()

    def shown(self) -> str:
        """For people: `delay edge-1 ↔ web-2 ms=50`."""
        hidden = ("id", "kind", "on", "peer", "sides", "at", "duration")
        rest = "".join(f" {key}={given}" for key, given in self.spec.items() if key not in hidden)
        peer = f" {'→' if self.spec.get('one_way') else '↔'} {','.join(self.peer)}" if self.peer else ""
        return f"{self.kind} {','.join(self.on)}{peer}{rest}"


class Schedule:
    """The faults of one run, each at its time; those of a test are added as it goes."""

    def __init__(self, cluster: SimCluster) -> None:
        self.cluster = cluster
        self.faults: list[SimFault] = []

    def declare(self, specs: Sequence[Spec], named: Callable[[int], str] = "faults[{}]".format) -> list[SimFault]:
        """Faults that `begin` will begin at their times. Raises FaultError that says which one is wrong."""
        declared = []
        for place, spec in enumerate(specs):
            try:
                declared.append(SimFault(self.cluster, spec, len(self.faults) + place + 1))
            except FaultError as error:
                raise FaultError.said(f"{named(place)}: {error}") from error
        self.faults += declared
        return declared

    def set(self, spec: Spec) -> SimFault:
        """A fault that begins now, or at its `at` from now. Raises FaultError."""
        fault = SimFault(self.cluster, spec, len(self.faults) + 1)
        self.faults.append(fault)
        if fault.at_s:
            self._later(fault.at_s, self._begin, fault)
        else:
            self._begin(fault)
        return fault

    def begin(self) -> None:
        """From now on `at` counts."""
        for fault in self.faults:
            if fault.state is FaultState.PLANNED:
                self._later(fault.at_s, self._begin, fault)

    def _begin(self, fault: SimFault) -> None:
        if fault.state is FaultState.PLANNED:
            fault.begin()
            if fault.duration_s is not None:
                self._later(fault.duration_s, fault.end)

    def _later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        loop = self.cluster.world.loop
        loop.at_world_time(loop.now_s + delay_s, callback, *args)

    def heal(self) -> None:
        """Everything ends, and what has not begun never will: the liveness phase begins."""
        for fault in self.faults:
            if fault.state is FaultState.PLANNED:
                fault.state = FaultState.OVER
            fault.end()

    def fired(self) -> dict[str, int]:
        """How many faults took effect, however often each did, by kind."""
        counts: dict[str, int] = {}
        for fault in self.faults:
            if fault.fired:
                counts[fault.kind] = counts.get(fault.kind, 0) + 1
        return counts

    def spans(self) -> list[Span]:
        """What was set from when to when, for pictures."""
        now_s = self.cluster.world.now_s
        return [
            Span(each.shown(), node.name, each.began_s, each.ended_s if each.ended_s >= 0 else now_s, each.fired)
            for each in self.faults
            if each.began_s >= 0
            for node in each.nodes
        ]

    def never_fired(self) -> list[SimFault]:
        return [fault for fault in self.faults if not fault.fired]


def has_requests(node: SimNode) -> bool:
    """Whether a `reply` fault can be set on it."""
    return node.node is not None and any(endpoint.inspector for endpoint in node.node.faults.endpoints)


def names(given: Any) -> tuple[str, ...]:
    """The names of `on` or `peer`: a list, or a text with commas."""
    if given is None:
        return ()
    if isinstance(given, str):
        return tuple(part.strip() for part in given.split(",") if part.strip())
    if not isinstance(given, list | tuple):
        raise FaultError("on", given, "a name or a list of names")
    return tuple(str(each) for each in given)


def read_sides(kind: str, spec: Spec) -> tuple[Any, Any]:
    """`[["a"], ["b"]]` or `"a | b,c"` as `on` and `peer`. Raises FaultError."""
    given = spec["sides"]
    sides = given.split("|") if isinstance(given, str) else given
    if kind != "partition" or "on" in spec or "peer" in spec or not isinstance(sides, list) or len(sides) != 2:
        raise FaultError("sides", given, 'two sides of a partition without on and peer, [["a"], ["b", "c"]]')
    return sides[0], sides[1]
