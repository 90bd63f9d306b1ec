"""Smaller evidence: takes operations out of a violating history for as long as what is left is still a violation.

Not every part of a violating history that looks wrong proves anything: without the write of 2, a read of 2 is absurd.
Operations may only be taken out when **every legal order of the whole is a legal order of the rest**; then a rest
without a legal order proves that the whole has none. For a register that is so when no remaining operation can have
seen a value from one that is taken out; for a counter, when an addition is certainly before or certainly after all
remaining reads (those before are summed up in the initial value). Reads may always go.

The search for a small rest is delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing
Input", IEEE TSE 2002): halves, quarters, … single operations, until no single one can go. When the budget is spent the
smallest rest so far is returned: it is evidence too.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from minidist.engines.checking.models import NEVER, Kind, State, Step
from minidist.engines.checking.verdict import GaveUpError


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left, the state it begins with, how many operations that state sums up, and whether it is 1-minimal."""

    steps: list[Step]
    initial: State = 0
    summed: int = 0
    is_smallest: bool = True


Violates = Callable[[Sequence[Step], State], bool]


def until(steps: Sequence[Step], moment: int) -> list[Step]:
    """What was known at a moment: later operations gone, those under way optional."""
    known = [step for step in steps if step.began <= moment]
    return [
        step if step.ended <= moment else msgspec.structs.replace(step, must=False, ended=NEVER)
        for step in known
        if step.ended <= moment or step.kind is not Kind.READ
    ]


def shrink(steps: Sequence[Step], violates: Violates) -> Rest:
    """A small part of violating steps that violates. `violates` may raise GaveUpError, which ends the shrinking."""
    take_out = _without_from_counter if any(step.kind is Kind.ADD for step in steps) else _without_from_register
    best = Rest(list(steps), is_smallest=False)
    pieces = 2
    try:
        while len(best.steps) > 1:
            pieces = min(pieces, len(best.steps))
            size = -(-len(best.steps) // pieces)
            smaller = None
            for first in range(0, len(best.steps), size):
                candidate = take_out(best, range(first, min(first + size, len(best.steps))))
                if candidate is not None and violates(candidate.steps, candidate.initial):
                    smaller = candidate
                    break
            if smaller is not None:
                best, pieces = smaller, max(2, pieces - 1)
            elif size == 1:
                break
            else:
                pieces *= 2
    except GaveUpError:
        return best
    return Rest(best.steps, best.initial, best.summed)


def _without_from_register(rest: Rest, going: range) -> Rest | None:
    """The rest without these, but for the writers whose value a remaining operation can have seen; None: all stay."""
    leaving = rest.steps[going.start : going.stop]
    kept = [*rest.steps[: going.start], *rest.steps[going.stop :]]
    blockers = _Blockers(rest.steps)
    while True:
        lookers: dict[State, list[Step]] = {}
        for step in kept:
            if step.kind is not Kind.WRITE:
                lookers.setdefault(step.sees, []).append(step)
        needed = [
            step
            for step in leaving
            if step.kind is not Kind.READ
            and any(blockers.can_be_seen(step, looker) for looker in lookers.get(step.makes, ()))
        ]
        if not needed:
            break
        # A compare-and-set that stays looks for a value itself, which may keep another.
        back = {step.began for step in needed}
        leaving = [step for step in leaving if step.began not in back]
        kept = sorted([*kept, *needed], key=lambda step: step.began)
    return Rest(kept, rest.initial, rest.summed, is_smallest=False) if leaving else None


class _Blockers:
    """Which writes lie certainly between two others."""

    def __init__(self, steps: Sequence[Step]) -> None:
        certain = sorted(
            (step for step in steps if step.kind in (Kind.WRITE, Kind.CAS) and step.must), key=lambda step: step.began
        )
        self._begins = [step.began for step in certain]
        self._first_end_from = [NEVER] * (len(certain) + 1)
        for index in range(len(certain) - 1, -1, -1):
            self._first_end_from[index] = min(certain[index].ended, self._first_end_from[index + 1])

    def can_be_seen(self, writer: Step, looker: Step) -> bool:
        """Whether an order may exist in which `looker` sees what `writer` wrote."""
        if looker.ended < writer.began:
            return False
        first_end = self._first_end_from[bisect_right(self._begins, writer.ended)]
        return first_end >= looker.began


def _without_from_counter(rest: Rest, going: range) -> Rest | None:
    """The rest without the reads among these, and without the additions that are then before or after all reads."""
    leaving = {step.began for step in rest.steps[going.start : going.stop] if step.kind is Kind.READ}
    reads = [step for step in rest.steps if step.kind is Kind.READ and step.began not in leaving]
    if not leaving or not reads:
        return None
    first, last = min(step.began for step in reads), max(step.ended for step in reads)
    before = [step for step in rest.steps if step.kind is Kind.ADD and step.must and step.ended < first]
    known = {step.began for step in before}
    adds = [
        step for step in rest.steps if step.kind is Kind.ADD and step.began not in known and step.began < last
    ]
    kept = sorted([*reads, *adds], key=lambda step: step.began)
    initial = rest.initial + sum(step.makes for step in before)
    return Rest(kept, initial, rest.summed + len(before), is_smallest=False)
