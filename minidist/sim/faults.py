"""The contract's faults in the simulated world: what is done to hosts and to the network between them.

    partition, delay, bandwidth, drop      rules of the network, for any two hosts
    refuse, reset, hang, reply, disk       the node's own fault set, the same code as in a real process
    clock                                  service time jumps (`by`); all clocks of the host drift (`rate`)
    kill, pause                            the host crashes and comes back after `duration`; or its time stands still

A fault is a dict as `minidist fault add` and a schedule file have it: `{"kind", "on", "peer", "at", "duration", …}`.
Each one counts how often it took effect: a declared fault that never fired is worth knowing about.
"""

from collections.abc import Mapping
from typing import Any

from minidist.runtime.faults.spec import Direction, FaultError, read_fault
from minidist.runtime.faults.spec import Fault as NodeFault
from minidist.sim.cluster import SimCluster, SimNode
from minidist.sim.host import Crash
from minidist.sim.network import Rule

NETWORK_KINDS = ("partition", "delay", "bandwidth", "drop")
NODE_KINDS = ("refuse", "reset", "hang", "reply", "disk")
HOST_KINDS = ("kill", "pause", "clock")
KINDS = (*NETWORK_KINDS, *NODE_KINDS, *HOST_KINDS)
DEFAULT_KILL_MS = 2000
CLIENTS = "clients"


class SimFault:
    """One declared fault: not yet begun, under way, or over. `fired` counts its effects."""

    def __init__(self, cluster: SimCluster, spec: Mapping[str, Any], number: int) -> None:
        self.cluster = cluster
        self.spec = dict(spec)
        self.id = str(spec.get("id") or f"f{number}")
        self.kind = str(spec.get("kind"))
        self.on = names(spec.get("on"))
        self.peer = names(spec.get("peer"))
        self._effects = 0
        self.begun = False
        self.over = False
        self._rules: list[Rule] = []
        self._node_faults: list[tuple[SimNode, NodeFault]] = []
        self.check()
        self.at_s = self.parsed.at_ms / 1000
        duration_ms = self.parsed.duration_ms
        self.duration_s = None if duration_ms is None else duration_ms / 1000

    def check(self) -> None:
        """Raises FaultError naming the key, what was given and what is allowed."""
        if self.kind not in KINDS:
            raise FaultError("kind", self.kind, "one of " + ", ".join(KINDS))
        known = [*self.cluster.groups, *(node.name for node in self.cluster.nodes)]
        for key, given in (("on", self.on), ("peer", self.peer)):
            for name in given:
                if name not in known and not (key == "peer" and name == CLIENTS):
                    raise FaultError(key, name, f"one of {', '.join([*known, CLIENTS])}")
        if not self.on:
            raise FaultError("on", None, f"one of {', '.join(known)}")
        rest = {key: value for key, value in self.spec.items() if key not in ("on", "peer", "one_way")}
        if self.kind in ("kill", "pause"):
            rest = {**rest, "kind": "partition"}  # they take the common keys only, as a partition does
            rest.pop("power", None)
        self.parsed: NodeFault = read_fault(rest, self.id)
        if self.kind in NODE_KINDS and any(node.group.is_program for node in self.nodes):
            raise FaultError("on", self.on[0], f"a minidist node: a program of yours cannot {self.kind}")

    @property
    def nodes(self) -> list[SimNode]:
        return [node for name in self.on for node in self.cluster.find(name)]

    @property
    def peers(self) -> "frozenset[str] | None":
        """The hosts of the other side; None for everyone."""
        if not self.peer:
            return None
        known = {node.name for name in self.peer if name != CLIENTS for node in self.cluster.find(name)}
        if CLIENTS in self.peer:
            ours = {node.name for node in self.cluster.nodes}
            known |= {name for name in self.cluster.world.hosts if name not in ours}
        return frozenset(known)

    # --- taking effect ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self.begun = True
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
        """What it held back goes on; hosts that it stopped come back."""
        if not self.begun or self.over:
            self.over = True
            return
        self.over = True
        for rule in self._rules:
            self.cluster.world.network.remove_rule(rule)
        for node, _ in self._node_faults:
            if node.node is not None and node.host.alive:
                node.host.run(node.node.faults.remove, self.id)
        for node in self.nodes:
            if self.kind == "kill":
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

    def _count(self) -> None:
        self._effects += 1

    def _begin_on_network(self) -> None:
        ours = frozenset(node.name for node in self.nodes)
        direction = Direction.OUT if self.spec.get("one_way") else self.parsed.direction
        ways: list[tuple[frozenset[str] | None, frozenset[str] | None]] = []
        if direction in (Direction.OUT, Direction.BOTH):
            ways.append((ours, self.peers))
        if direction in (Direction.IN, Direction.BOTH):
            ways.append((self.peers, ours))
        for sources, targets in ways:
            parameters = {key: float(value) for key, value in self.parsed.parameters.items()}
            rule = Rule(self.kind, sources, targets, parameters, self._count, self.parsed.probability)
            self._rules.append(rule)
            self.cluster.world.network.add_rule(rule)

    def _begin_on_nodes(self) -> None:
        spec = {
            key: value for key, value in self.spec.items() if key not in ("on", "peer", "at", "duration", "one_way")
        }
        peers = self.peers
        if peers is not None:
            hosts = self.cluster.world.hosts
            spec["peer"] = [{"name": name, "addresses": [hosts[name].ip]} for name in sorted(peers)]
        for node in self.nodes:
            if node.node is not None and node.host.alive:
                node.host.run(node.node.faults.add, {**spec, "id": self.id})
                self._node_faults.append((node, node.node.faults.faults[self.id]))

    def _move_clocks(self) -> None:
        for node in self.nodes:
            if "by" in self.parsed.parameters:
                node.host.run(node.host.clock.advance, int(self.parsed.parameters["by"]))
            if "rate" in self.parsed.parameters:
                node.host.drift(float(self.parsed.parameters["rate"]))
            self._count()

    def _stop_hosts(self) -> None:
        for node in self.nodes:
            if self.kind == "pause" and node.host.alive and not node.host.paused:
                node.host.pause()
                self._count()
            elif self.kind == "kill" and node.host.alive:
                node.host.crash(Crash.POWER if self.spec.get("power") else Crash.PROCESS)
                self._count()

    def shown(self) -> str:
        rest = {key: value for key, value in self.spec.items() if key not in ("id", "kind", "on", "peer")}
        peer = f" ↔ {','.join(self.peer)}" if self.peer else ""
        return f"{self.kind} {','.join(self.on)}{peer} {rest}"


class Schedule:
    """The faults of one run, each at its time."""

    def __init__(self, cluster: SimCluster, specs: "list[Mapping[str, Any]]") -> None:
        self.cluster = cluster
        self.faults = [SimFault(cluster, spec, number) for number, spec in enumerate(specs, 1)]
        self._healed = False

    def begin(self) -> None:
        """From now on `at` counts."""
        loop = self.cluster.world.loop
        for fault in self.faults:
            loop.at_world_time(loop.now_s + fault.at_s, self._begin, fault)

    def _begin(self, fault: SimFault) -> None:
        if self._healed:
            return
        fault.begin()
        duration_s = fault.duration_s
        if duration_s is None and fault.kind == "kill":
            duration_s = DEFAULT_KILL_MS / 1000
        if duration_s is not None:
            loop = self.cluster.world.loop
            loop.at_world_time(loop.now_s + duration_s, self._end, fault)

    def _end(self, fault: SimFault) -> None:
        if not fault.over:
            fault.end()

    def heal(self) -> None:
        """Everything ends: the liveness phase begins. Nothing new begins after that."""
        self._healed = True
        for fault in self.faults:
            if fault.begun and not fault.over:
                fault.end()

    def fired(self) -> dict[str, int]:
        """How often faults took effect, by kind."""
        counts: dict[str, int] = {}
        for fault in self.faults:
            if fault.fired:
                counts[fault.kind] = counts.get(fault.kind, 0) + fault.fired
        return counts

    def never_fired(self) -> list[SimFault]:
        return [fault for fault in self.faults if not fault.fired]


def names(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str):
        return tuple(part.strip() for part in given.split(",") if part.strip())
    return tuple(str(each) for each in given)
