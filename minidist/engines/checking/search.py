"""Linearizability of one object by search: Wing and Gong's, with Lowe's memory, made to bear indeterminate operations.

Wing and Gong, "Testing and Verifying Concurrent Objects" (JPDC 1993); Lowe, "Testing for Linearizability" (CCPE 2017),
of which this is the *just-in-time* form. The history is walked event by event. A **configuration** is one way in which
things may stand: the object's state, and which of the operations under way have taken effect. All configurations that
are possible after an event are kept, equal ones once (that is Lowe's memory, which here forgets what lies behind). When
an operation ends it must have taken effect: configurations in which it has not are driven on, by letting operations
under way take effect in any order, just until it has. When none is left the history is not linearizable.

Operations that certainly happened leave a configuration when they end. Optional ones (`info`) stay for ever, and thirty
of them would make 2^30 configurations. What keeps the number small, each sound by an exchange of operations in an order
that is assumed to be legal:

1. *Reads at once.* A read whose answer is the present state takes effect at once; that hinders nothing.
2. *Equals by deadline.* Of operations under way that do the same, the one that must end first goes first; the optional
   ones go last. So of equal optional writes only their number counts.
3. *Hidden writes.* A blind write may take effect just before another write, unseen. After a write, each other write
   under way may therefore be regarded as done or not, as will suit: they are the configuration's third part, `hidden`,
   instead of two configurations for each.
4. *No idle steps.* A write that nobody sees before the next write is hidden or (optional) left out, never tried. With
   additions, which commute, one after which nothing was seen may as well come later.
5. *Domination.* Of two configurations alike but for the optional operations used up, the one that used fewer is enough;
   of two alike but for `hidden`, the one that may hide more.
6. *Forgetting.* Values of a register that nobody will look at any more are one state.
7. *A ceiling.* A counter that only grows has no use for configurations above a value still to be read.

Where configurations multiply all the same (additions of many different amounts), most histories still have an order
that is easy to find. So the search is done narrowly first, keeping only the configurations that used the fewest
optional operations: when some survive to the end, the history is linearizable. Only when none does, and some were
dropped on the way, it is done again with more room, at last with all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from minidist.engines.checking.models import FORGOTTEN, NEVER, Kind, State, Step, apply
from minidist.engines.checking.verdict import Budget


@dataclass(frozen=True, slots=True)
class Effort:
    """How thorough an attempt is.

    `width`: configurations kept after each event. `tries`: configurations looked at for one event. `spare`: optional
    operations that may take effect for one event beyond the fewest that suffice.
    """

    width: int
    tries: int
    spare: int


#: The attempts; None drops nothing.
EFFORTS = (Effort(32, 2_000, 0), Effort(256, 5_000, 1), Effort(2_048, 20_000, 3), None)

#: (state, those under way that took effect, those under way that may be regarded so); the last two as bits by slot.
_Configuration = tuple[State, int, int]
#: Insertion-ordered, so that runs repeat exactly.
_Frontier = dict[_Configuration, None]


@dataclass(frozen=True, slots=True)
class Moment:
    """How things could stand after an operation had ended at `line`: the possible states, and which operations had

    then taken effect in every configuration, and in some (by their beginnings, as far as they were still under way).
    """

    line: int
    states: tuple[State, ...]
    surely: frozenset[int]
    maybe: frozenset[int]


@dataclass(frozen=True, slots=True)
class Stuck:
    """The operation that cannot have ended as it did; with `trail`, what could be after each operation before."""

    step: Step
    trail: list[Moment]


def search(
    steps: Sequence[Step], budget: Budget, initial: tuple[State, ...] = (0,), *, trail: bool = False
) -> Stuck | None:
    """None when the steps are linearizable from one of the states. Raises GaveUpError when the budget is spent."""
    for effort in EFFORTS:
        attempt = _Search(steps, budget, initial, effort, trail)
        stuck = attempt.run()
        if stuck is None or not attempt.dropped_some:
            return stuck
    raise AssertionError("the last attempt drops nothing")


class _Search:
    def __init__(
        self, steps: Sequence[Step], budget: Budget, initial: tuple[State, ...], effort: Effort | None, trail: bool
    ) -> None:
        self._budget = budget
        self._effort = effort
        self.dropped_some = False
        self._events = sorted(
            [(step.began, True, step) for step in steps]
            + [(step.ended, False, step) for step in steps if step.ended < NEVER],
            key=lambda event: event[0],
        )
        self._frontier: _Frontier = {(state, 0, 0): None for state in initial}
        self._slots: dict[int, int] = {}  # by the beginning of a step: its bit
        self._free: list[int] = []
        self._bits_made = 0
        # Of the steps under way, as masks by slot:
        self._readers: dict[State, int] = {}  # reads, by the state they need
        self._swappers: dict[State, int] = {}  # compare-and-sets, by the state they need
        self._blind = 0  # writes that must happen
        self._optional = 0
        #: Steps under way that change the state, equal ones together, by deadline: [(bit, step)].
        self._equals: dict[tuple[Kind, State, State, bool], list[tuple[int, Step]]] = {}
        # What lies ahead:
        self._seen_until = _seen_until(steps)
        self._has_writes = any(step.kind is Kind.WRITE for step in steps)
        self._with_trail = trail
        self._ceilings = _ceilings(steps) if _only_grows(steps) else None
        self._ceiling = min((step.sees for step in steps if step.kind is Kind.READ), default=NEVER)

    def run(self) -> Stuck | None:
        trail: list[Moment] = []
        for _, begins, step in self._events:
            if begins:
                self._begin(step)
                continue
            self._frontier = self._end(step) if step.must else self._expire(step)
            if not self._frontier:
                return Stuck(step, trail)
            self._budget.room(len(self._frontier))
            if self._with_trail:
                trail.append(self._moment(step.ended))
        return None

    def _moment(self, line: int) -> Moment:
        surely, maybe = -1, 0
        for _, done, hidden in self._frontier:
            surely &= done
            maybe |= done | hidden
        return Moment(
            line,
            tuple(dict.fromkeys(state for state, _, _ in self._frontier)),
            frozenset(began for began, bit in self._slots.items() if bit & surely),
            frozenset(began for began, bit in self._slots.items() if bit & maybe),
        )

    # --- What is under way --------------------------------------------------------------------------------------------

    def _begin(self, step: Step) -> None:
        bit = self._free.pop() if self._free else 1 << self._bits_made
        self._bits_made += bit == 1 << self._bits_made
        self._slots[step.began] = bit
        if step.kind is Kind.READ:
            self._readers[step.sees] = self._readers.get(step.sees, 0) | bit
            if self._ceilings is not None:
                self._ceiling = self._ceilings[step.began]
            self._frontier = {
                (state, done | bit if state == step.sees else done, hidden): None
                for state, done, hidden in self._frontier
            }
            return
        if not step.must:
            self._optional |= bit
        elif step.kind is Kind.WRITE:
            self._blind |= bit
        if step.kind is Kind.CAS:
            self._swappers[step.sees] = self._swappers.get(step.sees, 0) | bit
        equals = self._equals.setdefault(_sameness(step), [])
        equals.append((bit, step))
        equals.sort(key=lambda entry: entry[1].ended)

    def _leave(self, step: Step, bit: int) -> None:
        if step.kind is Kind.READ:
            self._readers[step.sees] &= ~bit
        else:
            same = _sameness(step)
            self._equals[same] = [entry for entry in self._equals[same] if entry[0] != bit]
            if not self._equals[same]:
                del self._equals[same]
            if step.kind is Kind.CAS:
                self._swappers[step.sees] &= ~bit
            self._blind &= ~bit
            self._optional &= ~bit
        del self._slots[step.began]
        self._free.append(bit)

    # --- The end of an operation --------------------------------------------------------------------------------------

    def _end(self, step: Step) -> _Frontier:
        bit = self._slots[step.began]
        done_already: _Frontier = {}
        behind: list[_Configuration] = []
        for configuration in self._frontier:
            state, done, hidden = configuration
            if done & bit:
                done_already[(state, done & ~bit, hidden)] = None
                continue
            if hidden & bit:
                done_already[(state, done, hidden & ~bit)] = None
            behind.append(configuration)
        found = self._driven(behind, bit) if behind else {}
        self._leave(step, bit)
        found.update(done_already)
        return self._narrowed(self._without_dominated(self._forgotten(found, step.ended)))

    def _expire(self, step: Step) -> _Frontier:
        """An optional operation that took effect by now or never will: both are followed."""
        bit = self._slots[step.began]
        frontier = {(state, done & ~bit, hidden): None for state, done, hidden in self._frontier}
        behind = [configuration for configuration in self._frontier if not configuration[1] & bit]
        if behind:
            frontier.update(self._driven(behind, bit))
        self._leave(step, bit)
        return self._narrowed(self._without_dominated(self._forgotten(frontier, step.ended)))

    def _driven(self, behind: list[_Configuration], target: int) -> _Frontier:
        """A narrow search uses hardly more optional operations than it needs for something to be found."""
        effort, optional = self._effort, self._optional
        if effort is None or not optional:
            return self._drive(behind, target, NEVER)
        fewest = min((done & optional).bit_count() for _, done, _ in behind)
        found: _Frontier = {}
        spare = effort.spare
        for limit in range(fewest, optional.bit_count() + 1):
            found = self._drive(behind, target, limit)
            spare -= bool(found)
            if spare < 0:
                self.dropped_some = True
                break
        return found

    def _drive(self, behind: list[_Configuration], target: int, max_optional: int) -> _Frontier:
        """All configurations in which `target` has just taken effect; its bit is removed from them."""
        found: _Frontier = {}
        todo = [(state, done, hidden, False) for state, done, hidden in behind]
        seen = dict.fromkeys(todo)
        limit = NEVER if self._effort is None else len(behind) + self._effort.tries
        while todo:
            if len(seen) > limit:
                self.dropped_some = True
                break
            state, done, hidden, idle = todo.pop()
            self._budget.spend()
            full = (done & self._optional).bit_count() >= max_optional
            for equals in self._equals.values():
                bit, step = _first(equals, done)
                if not bit or (full and bit & self._optional):
                    continue
                reached = self._take(step, bit, state, done, hidden, idle, target)
                if reached is None:
                    continue
                if reached[1] & target:
                    found[(reached[0], reached[1] & ~target, reached[2])] = None
                elif reached not in seen:
                    seen[reached] = None
                    todo.append(reached)
            self._budget.room(len(seen))
        return found

    def _take(
        self, step: Step, bit: int, state: State, done: int, hidden: int, idle: bool, target: int
    ) -> tuple[State, int, int, bool] | None:
        """The configuration after one operation and the reads that then see it; None when that is of no use.

        `idle` says that the state was made by an operation that is in vain unless somebody sees it.
        """
        blind = step.kind is Kind.WRITE
        if idle and (blind or (bit == target and step.kind is Kind.ADD)):
            return None  # short cut 4
        after = apply(state, step)
        if after is None or self._above_ceiling(after, done):
            return None
        done |= bit
        hidden &= ~bit
        if blind:
            hidden = self._blind & ~done  # short cut 3
        seeing = self._readers.get(after, 0) & ~done
        done |= seeing  # short cut 1
        if done & target:
            return after, done, hidden, False
        if blind and not seeing and not self._swappers.get(after, 0) & ~done:
            return None  # short cut 4: nobody is there to see it
        in_vain = blind or step.kind is Kind.ADD or not step.must
        return after, done, hidden, in_vain and not seeing

    # --- Fewer configurations -----------------------------------------------------------------------------------------

    def _above_ceiling(self, state: State, done: int) -> bool:
        if self._ceilings is None:
            return False
        if state > self._ceiling:
            return True
        return any(value < state and mask & ~done for value, mask in self._readers.items())

    def _forgotten(self, frontier: _Frontier, now: int) -> _Frontier:
        if not self._has_writes:
            return frontier
        until = self._seen_until
        return {
            (state if until.get(state, 0) > now else FORGOTTEN, done, hidden): None for state, done, hidden in frontier
        }

    def _narrowed(self, frontier: _Frontier) -> _Frontier:
        if self._effort is None or len(frontier) <= self._effort.width:
            return frontier
        self.dropped_some = True
        optional = self._optional
        thrifty = sorted(frontier, key=lambda each: ((each[1] & optional).bit_count(), each[1].bit_count()))
        return dict.fromkeys(thrifty[: self._effort.width])

    def _without_dominated(self, frontier: _Frontier) -> _Frontier:
        if len(frontier) < 2:
            return frontier
        optional = self._optional
        alike: dict[tuple[State, int], list[tuple[int, int]]] = {}
        for state, done, hidden in frontier:
            alike.setdefault((state, done & ~optional), []).append((done & optional, hidden))
        kept: _Frontier = {}
        for (state, done), rest in alike.items():
            for used, hidden in _undominated(rest, self._budget):
                kept[(state, done | used, hidden)] = None
        return kept


def _sameness(step: Step) -> tuple[Kind, State, State, bool]:
    """What operations that do the same have in common; an optional one with an end cannot stand in for another."""
    return step.kind, step.sees, step.makes, not step.must and step.ended < NEVER


def _first(equals: list[tuple[int, Step]], done: int) -> tuple[int, Step]:
    """Of operations that do the same, the next in line (short cut 2); bit 0 when all took effect."""
    for entry in equals:
        if not entry[0] & done:
            return entry
    return 0, equals[0][1]


def _undominated(entries: list[tuple[int, int]], budget: Budget) -> list[tuple[int, int]]:
    """Of (optional used, hidden) those for which no other used a subset and hides a superset."""
    if len(entries) < 2:
        return entries
    entries.sort(key=lambda entry: (entry[0].bit_count(), -entry[1].bit_count()))
    kept: list[tuple[int, int]] = []
    for used, hidden in entries:
        budget.spend(1 + len(kept) // 8)
        if not any(other & used == other and more & hidden == hidden for other, more in kept):
            kept.append((used, hidden))
    return kept


def _seen_until(steps: Sequence[Step]) -> dict[State, int]:
    """By state of a register: the end of the last operation that looks for it."""
    until: dict[State, int] = {}
    for step in steps:
        if step.kind in (Kind.READ, Kind.CAS):
            until[step.sees] = max(until.get(step.sees, 0), step.ended)
    return until


def _only_grows(steps: Sequence[Step]) -> bool:
    return all(step.kind is Kind.READ or (step.kind is Kind.ADD and step.makes > 0) for step in steps)


def _ceilings(steps: Sequence[Step]) -> dict[int, State]:
    """By the beginning of each read: the smallest value that a read beginning later returns."""
    ceilings: dict[int, State] = {}
    lowest = NEVER
    for step in sorted(steps, key=lambda each: each.began, reverse=True):
        if step.kind is Kind.READ:
            ceilings[step.began] = lowest
            lowest = min(lowest, step.sees)
    return ceilings
