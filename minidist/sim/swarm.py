"""Random schedules of faults, "swarm" style: each run draws which kinds are on and how strongly.

A run in which every kind of fault happens a little finds less than runs in which some are absent and others heavy. So a
seed draws a handful of kinds, a number of faults for each, and for each fault its victims, its moment and its length,
all from the stream of faults: the same seed gives the same schedule.
"""

import random
from collections.abc import Collection
from typing import Any

from minidist.sim.cluster import SimCluster, SimNode
from minidist.sim.faults import CLIENTS, has_requests

Spec = dict[str, Any]

MIN_KINDS = 3
MIN_FAULTS = 8
FAULTS_PER_MINUTE = (3.0, 15.0)
# Faults begin after the first seconds, in which clients get going, and end before the last tenth.
QUIET_S = 1.0
SLOW_BEFORE_POWER_LOSS = 0.5
RESET_WHEN_REFUSING = 0.5
# Of the partitions, how many split a group of peers, if there is one of so many nodes.
SPLITS, LEAST_SPLIT = 0.4, 3
RESET_MS = 50
# What has to take effect for a run to count: faults, and kinds of them.
ENOUGH_FAULTS, ENOUGH_KINDS = 3, 2


def draw(cluster: SimCluster, rng: random.Random, duration_s: float, *, without: Collection[str] = ()) -> list[Spec]:
    """A schedule for this cluster, in order of time, of all kinds that it can have but those `without`."""
    makers = {
        kind: maker
        for kind, maker in MAKERS.items()
        if kind not in without and maker(cluster, random.Random(0)) is not None
    }
    kinds = sorted(makers)
    chosen = rng.sample(kinds, rng.randint(min(MIN_KINDS, len(kinds)), len(kinds)))
    count = max(MIN_FAULTS, round(rng.uniform(*FAULTS_PER_MINUTE) * duration_s / 60))
    specs = []
    for number in range(count):
        # The first ones go round all kinds, so that a run is never of one kind only.
        kind = chosen[number] if number < len(chosen) else rng.choice(chosen)
        spec = makers[kind](cluster, rng)
        assert spec is not None
        at_s = rng.uniform(QUIET_S, duration_s * 0.9)
        length_s = min(rng.uniform(0.2, duration_s / 5), duration_s - at_s)
        specs.append({"kind": kind, **spec, "at": round(at_s * 1000), "duration": round(length_s * 1000)})
        if spec.get("power") and "disk" in makers and rng.random() < SLOW_BEFORE_POWER_LOSS:
            specs.append(_slow_before(cluster, specs[-1], rng))
        if kind == "refuse" and rng.random() < RESET_WHEN_REFUSING:
            specs.append(_reset_with(specs[-1]))
    return sorted(specs, key=lambda spec: int(spec["at"]))


def _slow_before(cluster: SimCluster, kill: Spec, rng: random.Random) -> Spec:
    """Disks that fell behind just when the power goes: what was acknowledged and not synced is then gone."""
    lead_ms = min(kill["at"], 2000)
    slow = {"kind": "disk", "what": "slow", "ms": rng.choice([20, 100, 400])}
    return slow | {"on": kill["on"], "at": kill["at"] - lead_ms, "duration": lead_ms + 1000}


def _reset_with(refuse: Spec) -> Spec:
    """Clients keep their connections: only who has lost his can be refused."""
    return {"kind": "reset", "on": refuse["on"], "at": refuse["at"], "duration": RESET_MS}


def _node(cluster: SimCluster, rng: random.Random) -> str:
    return rng.choice([node.name for node in cluster.nodes])


def _ours(cluster: SimCluster, rng: random.Random) -> str | None:
    """A node of a component, not of a user's program."""
    names = [node.name for node in cluster.nodes if node.kind is not None]
    return rng.choice(names) if names else None


def _with_disk(cluster: SimCluster, rng: random.Random) -> str | None:
    """A node that keeps data."""
    names = [node.name for node in cluster.nodes if node.node is not None and node.node.ports.disk is not None]
    return rng.choice(names) if names else None


def _pair(cluster: SimCluster, rng: random.Random) -> Spec:
    """A node and somebody it talks to: another node, all clients, or everyone."""
    node = rng.choice(cluster.nodes)
    peer = rng.choice([*partners(cluster, node), CLIENTS, None])
    return {"on": node.name} | ({"peer": peer} if peer else {})


def partners(cluster: SimCluster, node: SimNode) -> list[str]:
    """The nodes that this one talks to: of groups one depends on, the others of its cluster; all, if none is known."""
    groups = {each.group.name: each.group for each in cluster.nodes}
    ours = node.group
    related = [
        name
        for name, group in groups.items()
        if name in ours.depends_on or ours.name in group.depends_on or (group is ours and _are_peers(node))
    ]
    found = [each.name for name in related for each in cluster.groups[name] if each is not node]
    return found or [each.name for each in cluster.nodes if each is not node]


def _are_peers(node: SimNode) -> bool:
    """Whether the nodes of its group talk to each other."""
    return node.kind is not None and hasattr(node.kind.config_type, "peers")


def _partition(cluster: SimCluster, rng: random.Random) -> Spec | None:
    """A node, or a pair, is cut off; or a group of peers falls into two."""
    groups = [name for name, nodes in cluster.groups.items() if len(nodes) >= LEAST_SPLIT and _are_peers(nodes[0])]
    where = _split(cluster, rng.choice(groups), rng) if groups and rng.random() < SPLITS else _pair(cluster, rng)
    return where | ({"one_way": True} if rng.random() < 0.3 else {})


def _split(cluster: SimCluster, group: str, rng: random.Random) -> Spec:
    """A minority (or one half) of a group against the rest; clients reach both sides, or one of them."""
    nodes = [node.name for node in cluster.groups[group]]
    few = sorted(rng.sample(nodes, rng.randint(1, len(nodes) // 2)))
    many = [name for name in nodes if name not in few]
    return {"sides": rng.choice([[few, many], [few, [*many, CLIENTS]], [many, [*few, CLIENTS]]])}


def _delay(cluster: SimCluster, rng: random.Random) -> Spec | None:
    ms = rng.choice([5, 50, 300])
    return _pair(cluster, rng) | {"ms": ms, "jitter_ms": ms / 2}


def _bandwidth(cluster: SimCluster, rng: random.Random) -> Spec | None:
    return _pair(cluster, rng) | {"bytes_per_s": rng.choice([1_000, 20_000])}


def _drop(cluster: SimCluster, rng: random.Random) -> Spec | None:
    return _pair(cluster, rng) | {"probability": rng.choice([0.05, 0.3])}


def _kill(cluster: SimCluster, rng: random.Random) -> Spec | None:
    """One node's process or machine; now and then the power of a whole group goes."""
    if rng.random() < 0.2:
        return {"on": rng.choice(sorted(cluster.groups)), "power": True}
    return {"on": _node(cluster, rng)} | ({"power": True} if rng.random() < 0.5 else {})


def _pause(cluster: SimCluster, rng: random.Random) -> Spec | None:
    return {"on": _node(cluster, rng)}


def _clock(cluster: SimCluster, rng: random.Random) -> Spec | None:
    on = _ours(cluster, rng)
    change = (
        {"by": rng.choice([-3_600_000, -500, 500, 3_600_000])}
        if rng.random() < 0.5
        else {"rate": rng.choice([0.9, 1.1])}
    )
    return None if on is None else {"on": on} | change


def _connection(cluster: SimCluster, rng: random.Random) -> Spec | None:
    on = _ours(cluster, rng)
    return None if on is None else {"on": on, "probability": rng.choice([0.2, 1.0])}


def _reset(cluster: SimCluster, rng: random.Random) -> Spec | None:
    spec = _connection(cluster, rng)
    return None if spec is None else spec | {"after_bytes": rng.choice([0, 10, 1000])}


def _reply(cluster: SimCluster, rng: random.Random) -> Spec | None:
    names = [node.name for node in cluster.nodes if has_requests(node)]
    return {"on": rng.choice(names), "error": "ERR injected", "probability": 0.3} if names else None


def _disk(cluster: SimCluster, rng: random.Random) -> Spec | None:
    on = _with_disk(cluster, rng)
    what = rng.choice(["slow", "full", "failing-fsync"])
    return (
        None if on is None else {"on": on, "what": what} | ({"ms": rng.choice([5, 50, 200])} if what == "slow" else {})
    )


MAKERS = {
    "partition": _partition,
    "delay": _delay,
    "bandwidth": _bandwidth,
    "drop": _drop,
    "kill": _kill,
    "pause": _pause,
    "clock": _clock,
    "disk": _disk,
    "refuse": _connection,
    "reset": _reset,
    "hang": _reset,
    "reply": _reply,
}
