"""Many seeds: run on several processes, told in order, summed up.

Each process loads the scenario itself, so what it imported and its hash seed differ from the others': a run that
depends on either has another trace when another process runs it again. `run_twice` does that with every seed.
"""

import contextlib
import hashlib
import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import Pool
from typing import Any

from minidist.sim.run import Ending, Outcome, Settings, run_seed
from minidist.sim.scenario import Subject, load

# Second runs go backwards within blocks of so many seeds, so that nothing a seed leaves behind is there both times.
BLOCK = 8

_subject: Subject | None = None


def run_seeds(file: str, seeds: Sequence[int], settings: Settings, processes: int) -> Iterator[Outcome]:
    """The outcomes in the order of the seeds. Raises UsageError."""
    if min(processes, len(seeds)) <= 1:
        subject = load(file)
        for seed in seeds:
            yield run_seed(subject.scenario, seed, settings)
        return
    with _pool(file, min(processes, len(seeds))) as pool:
        yield from pool.imap(_run, ((seed, settings) for seed in seeds))


def run_twice(file: str, seeds: Sequence[int], settings: Settings, processes: int) -> Iterator[Outcome]:
    """As `run_seeds`, and each seed once more: in another process, after other seeds. Traces that differ are a failure.

    It takes at least two processes.
    """
    share = min(max(1, processes // 2), len(seeds))
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(_pool(file, share)) for _ in range(2))
        digests = second.imap(_digest, ((seed, settings) for seed in in_other_order(seeds)))
        again: dict[int, str] = {}
        for outcome in first.imap(_run, ((seed, settings) for seed in seeds)):
            while outcome.seed not in again:
                again.update([next(digests)])
            digest = again.pop(outcome.seed)
            if digest != outcome.digest:
                outcome.ending = Ending.FAILED
                outcome.problems.append(f"not the same run again: the second one's trace is {digest}")
            yield outcome


def in_other_order(seeds: Sequence[int]) -> Iterator[int]:
    """The seeds, block by block, each block backwards."""
    for start in range(0, len(seeds), BLOCK):
        yield from reversed(seeds[start : start + BLOCK])


def _pool(file: str, processes: int) -> Pool:
    return multiprocessing.get_context("spawn").Pool(processes, _begin, (file,))


def _begin(file: str) -> None:
    global _subject
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    _subject = load(file)


def _end_with_the_parent() -> None:
    """A pool's process waits for work for ever when whoever made the pool has been killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(job: tuple[int, Settings]) -> Outcome:
    assert _subject is not None
    outcome = run_seed(_subject.scenario, *job)
    outcome.error = None  # exceptions do not all survive the way to another process
    outcome.history = []  # large, and only of interest when the seed is looked at, which runs it again
    return outcome


def _digest(job: tuple[int, Settings]) -> tuple[int, str]:
    return job[0], _run(job).digest


@dataclass(slots=True)
class Sums:
    """What a campaign amounts to."""

    seeds: int = 0
    endings: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    virtual_s: float = 0.0
    operations: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    short: list[int] = field(default_factory=list)  # seeds in which too little happened
    _hash: Any = field(default_factory=hashlib.sha256)
    _digest: str = ""

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.steps += outcome.steps
        self.virtual_s += outcome.virtual_s
        _count(self.endings, [(outcome.ending.value, 1)])
        _count(self.operations, outcome.operations.items())
        _count(self.faults, outcome.faults.items())
        self.short += [outcome.seed] if outcome.shortfalls() else []
        self._hash.update(outcome.digest.encode())
        self._digest = outcome.digest

    def digest(self) -> str:
        """The trace of the only seed, or the hash of all the seeds' hashes in order."""
        return self._digest if self.seeds == 1 else str(self._hash.hexdigest())

    def all_ok(self) -> bool:
        return self.endings.keys() <= {Ending.OK.value}

    def info_share(self) -> float:
        return self.operations.get("info", 0) / max(1, sum(self.operations.values()))

    def text(self) -> str:
        """For people."""

        def counts(table: dict[str, int]) -> str:
            return ", ".join(f"{name} {number}" for name, number in sorted(table.items())) or "none"

        return (
            f"{self.seeds} seeds: {counts(self.endings)}; {self.virtual_s:.0f} s of virtual time, {self.steps} steps\n"
            f"operations: {counts(self.operations)} ({self.info_share():.1%} info)\n"
            f"faults that fired: {counts(self.faults)}\n"
            f"seeds in which too little happened to count: {len(self.short)}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "seeds": self.seeds,
            "endings": self.endings,
            "virtual_s": round(self.virtual_s, 3),
            "steps": self.steps,
            "operations": self.operations,
            "info_share": round(self.info_share(), 6),
            "faults": self.faults,
            "too_little_happened": self.short,
            "trace": self.digest(),
        }


def _count(table: dict[str, int], more: Iterable[tuple[str, int]]) -> None:
    for name, number in more:
        table[name] = table.get(name, 0) + number
