"""Runs, figures, verdicts: how many measurements become one number that may be compared with a target.

A `Run` is one measurement of one server. Runs come in pairs, ours and the peer's in turn (A B A B …), so that
whatever the machine does to one it soon does to the other. A `Figure` is the ratio of medians over all pairs, judged
against what must be reached and what is aimed for.

A ratio of throughputs says something about the servers only where they were the limit: both servers' cores at least
95 % busy in the median. Otherwise the client was the limit, and what counts is the processor time per operation at
the same load: the same client, connections and pipeline depth.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from statistics import median
from typing import Any

from lab.machine import Cores, Usage, sample, usage
from lab.servers import Running

SATURATED = 0.95


class Verdict(Enum):
    """Where a figure stands."""

    AIM = "aim reached"
    MUST = "ok"
    MISSED = "MISSED"
    NONE = "for information"


@dataclass(frozen=True)
class Target:
    """What is asked of a figure. `higher` says which direction is better."""

    must: float | None = None
    aim: float | None = None
    higher: bool = True

    def judge(self, value: float) -> Verdict:
        def reached(limit: float | None) -> bool:
            return limit is not None and (value >= limit if self.higher else value <= limit)

        if self.must is None:
            return Verdict.NONE
        if reached(self.aim):
            return Verdict.AIM
        return Verdict.MUST if reached(self.must) else Verdict.MISSED


@dataclass(frozen=True)
class Run:
    """One measurement of one server: `operations` in `seconds`, and what the processors did meanwhile."""

    case: str
    server: str
    operations: float
    seconds: float
    server_cpu_s: float
    server_core: float
    load_core: float

    @property
    def per_s(self) -> float:
        return self.operations / self.seconds

    @property
    def cpu_us(self) -> float:
        """Processor time of the server for one operation, in µs."""
        return self.server_cpu_s / self.operations * 1e6


@dataclass(frozen=True)
class Figure:
    """One line of the table: our number beside the peer's (or a fixed target), and the verdict."""

    case: str
    what: str
    ours: float
    theirs: float | None
    unit: str
    value: float  # what is judged: ours / theirs, or `ours` itself
    target: Target
    is_ratio: bool = True
    note: str = ""
    spread: tuple[float, float] | None = None  # smallest and largest value of any pair

    @property
    def verdict(self) -> Verdict:
        return self.target.judge(self.value)


@dataclass
class Result:
    """All that a subject measured."""

    figures: list[Figure] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "settings": self.settings,
            "versions": self.versions,
            "figures": [_figure_document(figure) for figure in self.figures],
            "runs": [{**asdict(run), "per_s": run.per_s, "cpu_us": run.cpu_us} for run in self.runs],
        }


def _figure_document(figure: Figure) -> dict[str, Any]:
    return {**asdict(figure), "verdict": figure.verdict.value}


def measured(case: str, server: Running, cores: Cores, load: Callable[[], tuple[float, float]]) -> Run:
    """Run `load`, which returns (operations, seconds), between two looks at the counters."""
    before = sample([server.pid])
    operations, seconds = load()
    used: Usage = usage(before, sample([server.pid]), cores)
    return Run(case, server.name, operations, seconds, used.server_cpu_s, used.server_core, used.load_core)


def compare(runs: Sequence[Run], ours: str, theirs: str, throughput: Target, cpu: Target, unit: str) -> list[Figure]:
    """The figures of one case: CPU, and throughput, which gets no verdict unless both servers were the limit."""
    mine = [run for run in runs if run.server == ours]
    other = [run for run in runs if run.server == theirs]
    busy = min(median(run.server_core for run in side) for side in (mine, other))
    counts = busy >= SATURATED
    note = "" if counts else f"a server's core was only {busy:.0%} busy: not the limit"
    case = mine[0].case
    return [
        _ratio(case, "throughput", mine, other, lambda run: run.per_s, unit, throughput if counts else Target(), note),
        _ratio(case, "CPU", mine, other, lambda run: run.cpu_us, "µs/op", cpu, ""),
    ]


def _ratio(
    case: str,
    what: str,
    mine: Sequence[Run],
    other: Sequence[Run],
    of: Callable[[Run], float],
    unit: str,
    target: Target,
    note: str,
) -> Figure:
    a, b = median(map(of, mine)), median(map(of, other))
    pairs = [of(one) / of(two) for one, two in zip(mine, other, strict=True)]
    return Figure(case, what, a, b, unit, a / b, target, note=note, spread=(min(pairs), max(pairs)))
