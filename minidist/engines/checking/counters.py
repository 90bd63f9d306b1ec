"""Counters: the contradictions that can be seen without a search, which are nearly all there are.

A read cannot return less than what had certainly been added before it began, nor more than what may have been added by
the time it ended; and where nothing is subtracted, a read that began after another had ended cannot return less. What
passes is left to the search: whether one order satisfies all reads at once is a harder question (with arbitrary amounts
it contains subset sum).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from minidist.engines.checking.models import Kind, Step


class Trouble(Enum):
    """How a counter can fail visibly."""

    TOO_LOW = "less than what had been added"
    TOO_HIGH = "more than what can have been added"
    WENT_BACK = "less than before, though nothing was subtracted"


@dataclass(frozen=True, slots=True)
class Conflict:
    """The wrong read; for TOO_LOW and TOO_HIGH the nearest value it could have returned; for WENT_BACK the one before.

    `additions` are those that the bound counts, by the moment from which they count.
    """

    trouble: Trouble
    read: Step
    bound: int
    additions: tuple[Step, ...] = ()
    earlier: Step | None = None


class _Sum:
    """Sums of amounts up to a moment."""

    def __init__(self, entries: list[tuple[int, Step]]) -> None:
        entries.sort(key=lambda entry: entry[0])
        self._moments = [moment for moment, _ in entries]
        self._steps = [step for _, step in entries]
        self._sums = [0]
        for step in self._steps:
            self._sums.append(self._sums[-1] + step.makes)

    def before(self, moment: int) -> int:
        return self._sums[bisect_left(self._moments, moment)]

    def steps(self, moment: int) -> list[Step]:
        return self._steps[: bisect_left(self._moments, moment)]


def conflict(steps: Sequence[Step]) -> Conflict | None:
    """The first visible contradiction, by the end of the wrong read; None when there is none, which proves nothing."""
    adds = [step for step in steps if step.kind is Kind.ADD]
    certain_up = _Sum([(step.ended, step) for step in adds if step.makes > 0 and step.must])
    certain_down = _Sum([(step.ended, step) for step in adds if step.makes < 0 and step.must])
    possible_up = _Sum([(step.began, step) for step in adds if step.makes > 0])
    possible_down = _Sum([(step.began, step) for step in adds if step.makes < 0])
    only_grows = all(step.makes > 0 for step in adds)
    highest: Step | None = None
    for read, so_far in _reads_with_highest_before(steps):
        least = certain_up.before(read.began) + possible_down.before(read.ended)
        most = possible_up.before(read.ended) + certain_down.before(read.began)
        if read.sees < least:
            counted = [*certain_up.steps(read.began), *possible_down.steps(read.ended)]
            return Conflict(Trouble.TOO_LOW, read, least, tuple(counted))
        if read.sees > most:
            counted = [*possible_up.steps(read.ended), *certain_down.steps(read.began)]
            return Conflict(Trouble.TOO_HIGH, read, most, tuple(counted))
        highest = so_far
        if only_grows and highest is not None and highest.sees > read.sees:
            return Conflict(Trouble.WENT_BACK, read, highest.sees, earlier=highest)
    return None


def _reads_with_highest_before(steps: Sequence[Step]) -> list[tuple[Step, Step | None]]:
    """Each read, by its end, with the highest of those that had ended when it began."""
    reads = sorted((step for step in steps if step.kind is Kind.READ), key=lambda step: step.ended)
    highest: list[Step] = []  # by end; highest[i] is the highest of the first i + 1
    for read in reads:
        highest.append(read if not highest or read.sees > highest[-1].sees else highest[-1])
    ends = [read.ended for read in reads]
    found = []
    for read in reads:
        count = bisect_left(ends, read.began)
        found.append((read, highest[count - 1] if count else None))
    return found
