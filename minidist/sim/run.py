"""One seed of a scenario: what happened, and how it ended.

A seed says something only if enough happened in it: at least 30 s of simulated time, 300 operations of 4 clients that
ended ok, 3 faults of 2 kinds that took effect, and a liveness phase. What fell short is in the outcome.
"""

import gc
import itertools
import logging
import os
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from minidist.cluster.topology import TopologyError
from minidist.engines.checking.verdict import Verdict
from minidist.run import EntryError
from minidist.runtime.config import ConfigError
from minidist.runtime.faults.spec import FaultError
from minidist.runtime.randomness import derive
from minidist.sim.bugs import planted
from minidist.sim.capture import NodeLogs
from minidist.sim.errors import LeakError, SimulationError
from minidist.sim.faults import Span
from minidist.sim.loop import Policy
from minidist.sim.scenario import Scenario, UsageError
from minidist.sim.simulation import DEFAULT_DURATION_S, CheckFailedError, Faults, Simulation
from minidist.sim.swarm import ENOUGH_FAULTS, ENOUGH_KINDS
from minidist.sim.wiretap import Message, Wiretap
from minidist.sim.world import World

_PACKAGE = os.path.dirname(os.path.dirname(__file__))
# What lies between a run and the code that it runs.
OURS = (os.path.join(_PACKAGE, "sim", ""), os.path.join(_PACKAGE, "testing", ""))
MIN_SIMULATED_S, MIN_OK, MIN_CLIENTS = 30.0, 300, 4
# What a run may take, in virtual time and in steps (about ten minutes of real time); more is no progress.
MAX_TIME_S = 30 * 86400.0
MAX_STEPS = 50_000_000


class Ending(Enum):
    """How a seed ended."""

    OK = "ok"
    FAILED = "failed"  # a check did not hold
    STUCK = "stuck"  # no progress after everything was healed, or the run itself cannot go on


@dataclass(frozen=True, slots=True)
class Settings:
    """What all seeds of a campaign have in common.

    `policy` is the order of what is ready at the same time; None lets half of the seeds shuffle. `keep` keeps what a
    failure bundle needs.
    """

    faults: Faults = None
    duration_s: float = DEFAULT_DURATION_S
    bug: str = ""
    policy: Policy | None = None
    keep: bool = False


@dataclass(slots=True)
class Kept:
    """What a failure bundle needs beyond the outcome."""

    trace: list[str] = field(default_factory=list)
    logs: dict[str, list[str]] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    faults: list[Span] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    process_names: dict[int, str] = field(default_factory=dict)
    header: str = ""
    topology: str = ""  # the file


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
    lived: bool = False
    faults: dict[str, int] = field(default_factory=dict)  # those that took effect, by kind
    never_fired: list[str] = field(default_factory=list)
    specs: list[Mapping[str, Any]] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    kept: Kept | None = None
    error: Exception | None = None  # what ended the scenario

    def line(self) -> str:
        """The contract's line of a seed."""
        ending = self.ending.value
        return f"seed {self.seed} {ending} trace {self.digest} steps {self.steps} virtual {self.virtual_s:.3f}"

    def shortfalls(self) -> list[str]:
        """What was too little for the seed to count."""
        ok, fired, kinds = self.operations.get("ok", 0), sum(self.faults.values()), len(self.faults)
        found = [
            (self.virtual_s < MIN_SIMULATED_S, f"{self.virtual_s:.1f} s simulated, wanted {MIN_SIMULATED_S:g}"),
            (ok < MIN_OK, f"{ok} operations ended ok, wanted {MIN_OK}"),
            (self.clients_ok < MIN_CLIENTS, f"{self.clients_ok} clients succeeded, wanted {MIN_CLIENTS}"),
            (fired < ENOUGH_FAULTS, f"{fired} faults fired, wanted {ENOUGH_FAULTS}"),
            (kinds < ENOUGH_KINDS, f"{kinds} kinds of faults fired, wanted {ENOUGH_KINDS}"),
            (not self.lived, "no liveness phase"),
        ]
        return [text for short, text in found if short]

    def to_json(self) -> dict[str, Any]:
        """For --json: without history and trace."""
        return {
            "seed": self.seed,
            "ending": self.ending.value,
            "trace": self.digest,
            "steps": self.steps,
            "virtual_s": round(self.virtual_s, 3),
            "problems": self.problems,
            "operations": self.operations,
            "faults": self.faults,
            "never_fired": self.never_fired,
            "shortfalls": self.shortfalls(),
        }


def run_seed(scenario: Scenario, seed: int, settings: Settings = Settings()) -> Outcome:
    """Run one seed. Raises UsageError for faults or options that cannot be taken."""
    try:
        return _run_world(scenario, seed, settings)
    finally:
        # Hosts, disks and all: a world is one large cycle. What is found unclosed in it must not speak up now.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()


def _run_world(scenario: Scenario, seed: int, settings: Settings) -> Outcome:
    policy = settings.policy or derive(seed, "policy").choice((Policy.FIFO, Policy.SHUFFLE))
    with World(seed, policy=policy, keep_trace=settings.keep) as world, planted(settings.bug):
        return _run_in(world, scenario, settings)


def _run_in(world: World, scenario: Scenario, settings: Settings) -> Outcome:
    sim = Simulation(world, faults=settings.faults, duration_s=settings.duration_s)
    tap = Wiretap(world)
    if settings.keep:
        tap.begin()
    with NodeLogs(logging.INFO if settings.keep else logging.CRITICAL) as sim.logs:
        ending, problems = _play(sim, scenario)
    outcome = Outcome(
        seed=world.seed,
        ending=ending,
        digest=world.trace.digest(),
        steps=world.loop.steps,
        virtual_s=world.now_s,
        problems=problems,
        operations=sim.history.outcomes,
        clients_ok=sum(process.ok > 0 for process in sim.history.processes),
        lived=sim.lived,
        faults=sim.schedule.fired(),
        never_fired=[fault.shown() for fault in sim.schedule.never_fired()],
        specs=[fault.spec for fault in sim.schedule.faults],
        history=sim.history.lines,
        error=sim.error,
    )
    if settings.keep:
        outcome.kept = _kept(sim, tap)
    return outcome


def _kept(sim: Simulation, tap: Wiretap) -> Kept:
    return Kept(
        trace=sim.world.trace.lines,
        logs=sim.logs.lines,
        messages=tap.messages,
        verdicts=sim.verdicts,
        faults=sim.schedule.spans(),
        hosts=list(sim.world.hosts),
        process_names=sim.history.names,
        header=sim.world.trace.header,
        topology=sim.file,
    )


def _play(sim: Simulation, scenario: Scenario) -> tuple[Ending, list[str]]:
    """The run itself; how it ended, and what is wrong."""
    world = sim.world
    world.loop.max_steps = MAX_STEPS
    ending = Ending.OK
    problems: list[str] = []
    try:
        world.run(sim.host.start(_scenario(sim, scenario)), time_limit_s=MAX_TIME_S)
    except (FaultError, ConfigError, TopologyError, EntryError, UsageError) as error:
        raise UsageError(str(error)) from error
    except Exception as error:
        stuck = isinstance(error, SimulationError) and not isinstance(error, LeakError)
        ending = Ending.STUCK if stuck else Ending.FAILED
        in_words = isinstance(error, SimulationError | CheckFailedError)
        problems = [str(error) if in_words else _story(error)]
        sim.error = _without_frames(error)
    found = list(sim.problems)
    found += [_unhandled(context) for context in world.errors]
    found += [f"{node.name} failed: {node.failure!r}" for node in sim.cluster.nodes if node.failure is not None]
    return (Ending.FAILED if found else ending), [*found, *problems]


async def _scenario(sim: Simulation, scenario: Scenario) -> None:
    await scenario(sim)


def _story(error: Exception) -> str:
    """The traceback, from where it leaves the simulation and enters the scenario."""
    told = traceback.TracebackException.from_exception(error)
    frames = list(itertools.dropwhile(lambda frame: frame.filename.startswith(OURS), told.stack))
    told.stack = traceback.StackSummary.from_list(frames or told.stack)
    return "".join(told.format()).rstrip()


def _without_frames(error: Exception) -> Exception:
    """The error without what its frames hold: what is found unclosed there must not speak up after the world's end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traceback.clear_frames(error.__traceback__)
    ours = error.__traceback__
    return error.with_traceback(ours.tb_next if ours is not None else None)


def _unhandled(context: Mapping[str, Any]) -> str:
    error = context.get("exception")
    text = "".join(traceback.format_exception(error)) if error is not None else ""
    return f"unhandled: {context.get('message')} {text}".strip()
