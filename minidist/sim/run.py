"""One seed of a topology: up, clients at work under a schedule of faults, heal, liveness, judgement.

A seed says something only if enough happened in it: at least 30 s of simulated time, 300 operations of 4 clients that
ended ok, 3 faults of 2 kinds that took effect, and a liveness phase. What fell short is in the outcome.
"""

import asyncio
import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from minidist.cluster.topology import Topology
from minidist.sim.cluster import SimCluster
from minidist.sim.errors import SimulationError
from minidist.sim.faults import Schedule
from minidist.sim.loop import Policy
from minidist.sim.swarm import draw
from minidist.sim.workload import Workload
from minidist.sim.world import World

MIN_SIMULATED_S, MIN_OK, MIN_CLIENTS, MIN_FAULTS, MIN_KINDS = 30.0, 300, 4, 3, 2
DEFAULT_DURATION_S = 60.0
UP_TIME_S = 60.0
AFTER_S = 60.0  # liveness and last words, at most


class Ending(Enum):
    """How a seed ended."""

    OK = "ok"
    FAILED = "failed"  # a check did not hold
    STUCK = "stuck"  # no progress after everything was healed, or the run itself cannot go on


@dataclass(slots=True)
class Outcome:
    """What one seed amounts to."""

    seed: int
    ending: Ending
    digest: str
    steps: int
    virtual_s: float
    problems: list[str] = field(default_factory=list)
    operations: dict[str, int] = field(default_factory=dict)
    clients_ok: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    never_fired: list[str] = field(default_factory=list)
    specs: list[Mapping[str, Any]] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The contract's line of a seed."""
        ending = self.ending.value
        return f"seed {self.seed} {ending} trace {self.digest} steps {self.steps} virtual {self.virtual_s:.3f}"

    def shortfalls(self) -> list[str]:
        """What was too little for the seed to count."""
        kinds = len(self.faults)
        found = [
            (self.virtual_s < MIN_SIMULATED_S, f"{self.virtual_s:.1f} s simulated, wanted {MIN_SIMULATED_S:g}"),
            (self.operations.get("ok", 0) < MIN_OK, f"{self.operations.get('ok', 0)} operations ok, wanted {MIN_OK}"),
            (self.clients_ok < MIN_CLIENTS, f"{self.clients_ok} clients succeeded, wanted {MIN_CLIENTS}"),
            (sum(self.faults.values()) < MIN_FAULTS or kinds < MIN_KINDS, f"faults that fired: {self.faults}"),
        ]
        return [text for short, text in found if short]


def run_seed(
    topology: Topology,
    seed: int,
    *,
    specs: Sequence[Mapping[str, Any]] | None = None,
    duration_s: float = DEFAULT_DURATION_S,
    policy: Policy = Policy.FIFO,
    keep_trace: bool = False,
) -> Outcome:
    """Run one seed. `specs` are the faults; None draws them from the seed. Raises FaultError, TopologyError."""
    with World(seed, policy=policy, keep_trace=keep_trace) as world:
        cluster = SimCluster(world, topology)
        workload = Workload(cluster)
        chosen = draw(cluster, world.streams.faults, duration_s) if specs is None else list(specs)
        schedule = Schedule(cluster, chosen)
        ending, problems = _play(world, cluster, workload, schedule, duration_s)
        return Outcome(
            seed=seed,
            ending=ending,
            digest=world.trace.digest(),
            steps=world.loop.steps,
            virtual_s=world.now_s,
            problems=problems,
            operations=workload.history.outcomes,
            clients_ok=sum(client.process.ok > 0 for client in workload.clients),
            faults=schedule.fired(),
            never_fired=[fault.shown() for fault in schedule.never_fired()],
            specs=[fault.spec for fault in schedule.faults],
            history=workload.history.lines,
            trace=world.trace.lines,
        )


def _play(
    world: World, cluster: SimCluster, workload: Workload, schedule: Schedule, duration_s: float
) -> tuple[Ending, list[str]]:
    async def main() -> list[str]:
        await cluster.up()
        workload.start()
        schedule.begin()
        await asyncio.sleep(duration_s)
        schedule.heal()
        stuck = await workload.liveness()
        await workload.finish()
        return stuck

    try:
        stuck = world.run(main(), time_limit_s=UP_TIME_S + duration_s + AFTER_S)
    except SimulationError as error:
        return Ending.STUCK, [str(error)]
    except Exception:
        return Ending.FAILED, [traceback.format_exc()]
    problems = workload.judge()
    problems += [_unhandled(context) for context in world.loop.errors]
    problems += [f"{node.name} failed: {node.failure!r}" for node in cluster.nodes if node.failure is not None]
    if problems:
        return Ending.FAILED, problems + stuck
    return (Ending.STUCK, stuck) if stuck else (Ending.OK, [])


def _unhandled(context: Mapping[str, Any]) -> str:
    error = context.get("exception")
    text = "".join(traceback.format_exception(error)) if error is not None else ""
    return f"unhandled: {context.get('message')} {text}".strip()


def as_json(outcome: Outcome) -> str:
    """For --json: the outcome without history and trace."""
    return json.dumps(
        {
            "seed": outcome.seed,
            "ending": outcome.ending.value,
            "trace": outcome.digest,
            "steps": outcome.steps,
            "virtual_s": round(outcome.virtual_s, 3),
            "problems": outcome.problems,
            "operations": outcome.operations,
            "faults": outcome.faults,
            "never_fired": outcome.never_fired,
            "shortfalls": outcome.shortfalls(),
        }
    )
