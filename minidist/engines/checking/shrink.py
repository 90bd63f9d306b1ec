"""Smaller evidence: takes operations out of a violating history for as long as what is left is still a violation.

Not every part of a violating history that looks wrong proves anything: without the write of 2, a read of 2 is absurd.
Operations may only be taken out when **every legal order of the whole is a legal order of the rest**; then a rest
without a legal order proves that the whole has none. For a register that is so when no remaining operation can have
seen a value from one that is taken out; for a counter, when an addition is certainly before or certainly after all
remaining reads (those before are summed up in the initial value). Reads may always go.

Where few values are written over and over, hardly anything may be taken out that way. There the beginning is left out
instead: the search knows which states were possible at each moment, so a rest without a legal order from any of them
proves the same. What was under way and may have happened by then is optional from there on.

The search for a small rest is delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing
Input", IEEE TSE 2002): halves, quarters, … single operations, until no single one can go. When the budget is spent the
smallest rest so far is returned: it is evidence too.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from minidist.engines.checking.models import FORGOTTEN, NEVER, Kind, State, Step
from minidist.engines.checking.search import Moment, Stuck
from minidist.engines.checking.verdict import GaveUpError


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left, the states it may begin with, how many operations these sum up, and whether it is 1-minimal.

    `from_any`: the states are all there are, so nothing needs to be known of those operations.
    """

    steps: list[Step]
    initial: tuple[State, ...] = (0,)
    summed: int = 0
    is_smallest: bool = True
    from_any: bool = False


#: Operations that a person takes in; more, and the beginning is left out.
READABLE = 12
#: Operations up to which all are tried first.
MAX_WHOLE = 200

Violates = Callable[[Sequence[Step], tuple[State, ...]], bool]


def smallest(steps: Sequence[Step], stuck: Stuck, violates: Violates) -> Rest:
    """The most readable part of a register's steps, on which the search was stuck.

    Tried in turn: the last steps, whatever the object held before them; all steps; the last steps, from the states that
    the search knows to be possible.
    """
    known = _until(steps, stuck.step.ended)
    best = Rest(known, is_smallest=False)
    try:
        for begin in (_from_any_state, _from_the_beginning, _from_known_states):
            found = begin(known, stuck, violates)
            if found is not None:
                found = shrink(found, violates)
                if len(found.steps) <= len(best.steps):
                    best = found
                if len(best.steps) <= READABLE:
                    break
    except GaveUpError:
        pass
    return best


def smallest_of_counter(steps: Sequence[Step], violates: Violates) -> Rest:
    """The same for a counter: the shortest violating beginning, of it the last 1, 2, 4 … reads, of them the fewest.

    Where the search of a counter is stuck does not matter: it looks ahead to later reads.
    """
    best = Rest(list(steps), is_smallest=False)
    try:
        ends = sorted(step.ended for step in steps if step.kind is Kind.READ)
        first = bisect_left(ends, True, key=lambda end: violates(_until(steps, end), best.initial))
        best = Rest(_until(steps, ends[first]), is_smallest=False)
        reads = [place for place, step in enumerate(best.steps) if step.kind is Kind.READ]
        count = 1
        while count < len(reads):
            rest = _without_from_counter(best, range(reads[-count]))
            if rest is not None and violates(rest.steps, rest.initial):
                best = rest
                break
            count *= 2
        return shrink(best, violates)
    except GaveUpError:
        return best


def _from_any_state(steps: Sequence[Step], stuck: Stuck, violates: Violates) -> Rest | None:
    states = tuple(dict.fromkeys([0, FORGOTTEN, *(step.sees for step in steps)]))
    begins = frozenset(step.began for step in steps)
    trail = [Moment(moment.line, states, frozenset(), begins) for moment in stuck.trail]
    rest = _latest(steps, trail, violates)
    return None if rest is None else replace(rest, from_any=True)


def _from_the_beginning(steps: Sequence[Step], _stuck: Stuck, _violates: Violates) -> Rest | None:
    return Rest(list(steps), is_smallest=False) if len(steps) <= MAX_WHOLE else None


def _from_known_states(steps: Sequence[Step], stuck: Stuck, violates: Violates) -> Rest | None:
    """From where what the wrong operation needs was last possible, so that the evidence has what changed that."""
    for moment in reversed(stuck.trail):
        if stuck.step.sees in moment.states:
            rest = _after(steps, moment)
            if violates(rest, moment.states):
                return Rest(rest, moment.states, len(steps) - len(rest), is_smallest=False)
            break
    return _latest(steps, stuck.trail, violates)


def _until(steps: Sequence[Step], moment: int) -> list[Step]:
    """What was known at a moment: later operations gone, those under way optional."""
    known = [step for step in steps if step.began <= moment]
    return [
        step if step.ended <= moment else msgspec.structs.replace(step, must=False, ended=NEVER)
        for step in known
        if step.ended <= moment or step.kind is not Kind.READ
    ]


def _latest(steps: Sequence[Step], trail: Sequence[Moment], violates: Violates) -> Rest | None:
    """A violating rest of the last steps only; of 8, 16, 32 …; None when it takes nearly all."""
    begins = sorted(step.began for step in steps)
    size = 8
    while size < len(steps):
        earlier = [moment for moment in trail if moment.line < begins[-size]]
        if not earlier:
            break
        rest = _after(steps, earlier[-1])
        if violates(rest, earlier[-1].states):
            return Rest(rest, earlier[-1].states, len(steps) - len(rest), is_smallest=False)
        size *= 2
    return None


def _after(steps: Sequence[Step], moment: Moment) -> list[Step]:
    """What was not surely done at a moment; what may have been done is optional."""
    left = [step for step in steps if step.ended > moment.line and step.began not in moment.surely]
    left = [msgspec.structs.replace(step, must=False) if step.began in moment.maybe else step for step in left]
    return [step for step in left if step.must or step.kind is not Kind.READ]


def shrink(rest: Rest, violates: Violates) -> Rest:
    """A small part of a violating rest that violates. `violates` may raise GaveUpError, which ends the shrinking."""
    counts = any(step.kind is Kind.ADD for step in rest.steps)
    take_out = _without_from_counter if counts else _without_from_register
    best = rest
    pieces = 2
    try:
        summed = take_out(rest, range(0))  # of a counter, what lies before all reads
        if summed is not None and violates(summed.steps, summed.initial):
            best = summed
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
    return replace(best, is_smallest=True)


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
            and not _has_stand_ins(step, kept, len(lookers[step.makes]))
        ] or _last_writers(leaving, kept, lookers)
        if not needed:
            break
        # A compare-and-set that stays looks for a value itself, which may keep another.
        back = {step.began for step in needed}
        leaving = [step for step in leaving if step.began not in back]
        kept = sorted([*kept, *needed], key=lambda step: step.began)
    return replace(rest, steps=kept, is_smallest=False) if leaving else None


def _last_writers(leaving: Sequence[Step], kept: Sequence[Step], lookers: dict[State, list[Step]]) -> list[Step]:
    """One writer of each value that is looked at stays, seen or not: without it the value would seem to be nobody's."""
    made = frozenset(step.makes for step in kept if step.kind is not Kind.READ)
    last = {
        step.makes: step
        for step in leaving
        if step.kind is not Kind.READ and step.makes not in made and step.makes in lookers
    }
    return list(last.values())


def _has_stand_ins(step: Step, kept: Sequence[Step], lookers: int) -> bool:
    """Whether an optional write can go because enough equal ones, which could do what it does, began before it."""
    if not _is_optional_write(step):
        return False
    equals = [each for each in kept if each.makes == step.makes and each.began < step.began]
    return sum(_is_optional_write(each) for each in equals) >= lookers


def _is_optional_write(step: Step) -> bool:
    return step.kind is Kind.WRITE and not step.must and step.ended == NEVER


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
    if not reads:
        return None
    first, last = min(step.began for step in reads), max(step.ended for step in reads)
    before = [step for step in rest.steps if step.kind is Kind.ADD and step.must and step.ended < first]
    known = {step.began for step in before}
    adds = [step for step in rest.steps if step.kind is Kind.ADD and step.began not in known and step.began < last]
    kept = sorted([*reads, *adds], key=lambda step: step.began)
    if len(kept) == len(rest.steps):
        return None
    more = sum(step.makes for step in before)
    return Rest(kept, tuple(state + more for state in rest.initial), rest.summed + len(before), is_smallest=False)
