"""Linearizability of a history: each key by itself, the cheapest checker that can judge it, the evidence made small.

A history is linearizable exactly when that of each object is (Herlihy and Wing's locality), so every key is checked
alone: that is P-compositionality (Horn and Kroening, "Faster Linearizability Checking via P-Compositionality", 2015).
Registers with unique values and sets are decided directly (registers.py, sets.py), counters first by their bounds
(counters.py); the rest is searched (search.py) and its evidence made small (shrink.py). The budget is for the whole
history; a key that is given up does not keep the others from a judgement.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from minidist.engines.checking import counters, explain, registers, sets
from minidist.engines.checking.models import (
    Step,
    UnsuitableError,
    Values,
    counter_steps,
    observable,
    register_steps,
)
from minidist.engines.checking.operation import Operation
from minidist.engines.checking.search import Stuck, search
from minidist.engines.checking.shrink import Rest, smallest, smallest_of_counter
from minidist.engines.checking.values import Key, show
from minidist.engines.checking.verdict import Budget, GaveUpError, Verdict, Violation, verdict_for
from minidist.engines.checking.words import Words, words_for

#: The functions that each model knows.
FUNCTIONS = {
    "register": ("read", "write"),
    "cas-register": ("read", "write", "cas"),
    "counter": ("read", "add"),
    "set": ("read", "add"),
}
#: Violated keys for which evidence is worked out; the others are only counted.
MAX_EVIDENCE = 5


def check(operations: Sequence[Operation], model: str, budget: Budget) -> Verdict:
    """Judge a history by one of the models above. Raises UnsuitableError for an operation that the model lacks."""
    verdict = verdict_for(model, operations)
    words = words_for(operations)
    failures = []
    for key, part in by_key(operations, model):
        verdict.keys += 1
        try:
            failure = _FIND[model](key, part, budget)
        except GaveUpError as gave_up:
            verdict.gave_up.append(f"key {show(key)}: {gave_up} ({len(part)} operations)")
            continue
        if failure is not None:
            failures.append(failure)
    verdict.found = len(failures)
    if len(failures) > MAX_EVIDENCE:
        verdict.notes.append(f"{len(failures)} keys are violated; evidence is given for the first {MAX_EVIDENCE}")
    verdict.violations = sorted(
        (failure.violation(budget, words) for failure in failures[:MAX_EVIDENCE]), key=lambda each: len(each.evidence)
    )
    return verdict


def by_key(operations: Sequence[Operation], model: str) -> Iterator[tuple[Key | None, list[Operation]]]:
    """The operations of each key, keys in the order of their first appearance."""
    parts: dict[Key | None, list[Operation]] = {}
    allowed = FUNCTIONS[model]
    for operation in operations:
        if operation.f not in allowed:
            raise UnsuitableError(operation, f"the model {model} has no {operation.f}, allowed: {', '.join(allowed)}")
        parts.setdefault(operation.key, []).append(operation)
    yield from parts.items()


@dataclass(slots=True)
class _Failure:
    """A violated key: what was found, and how to make it evidence."""

    key: Key | None
    operations: list[Operation]
    conflict: registers.Conflict | counters.Conflict | sets.Conflict | None
    values: Values | None = None
    steps: list[Step] = field(default_factory=list)
    stuck: Stuck | None = None

    def violation(self, budget: Budget, words: Words) -> Violation:
        """The evidence, explained. Takes what time is left to make it small."""
        found: Any = self.conflict
        if isinstance(found, sets.Conflict):
            return explain.of_set(self.key, found, self.operations, words)
        if isinstance(found, counters.Conflict):
            return explain.of_counter(self.key, found, words)
        if isinstance(found, registers.Conflict):
            return explain.of_register(self.key, found, self.operations, self._values(), words)
        rest = self._rest(budget)
        if self.values is None:
            return explain.of_search(self.key, rest, None, words)
        return self._smaller_register(rest, self.values, words)

    def _rest(self, budget: Budget) -> Rest:
        def violates(steps: Sequence[Step], initial: tuple[int, ...]) -> bool:
            return search(steps, budget, initial) is not None

        assert self.stuck is not None
        if self.values is None:
            return smallest_of_counter(self.steps, violates)
        try:
            stuck = search(self.steps, budget, trail=True) or self.stuck
        except GaveUpError:
            stuck = self.stuck
        return smallest(self.steps, stuck, violates)

    def _values(self) -> Values:
        assert self.values is not None
        return self.values

    def _smaller_register(self, rest: Rest, values: Values, words: Words) -> Violation:
        """What is left of a searched register often has unique values, and then a simple proof."""
        if not rest.summed and registers.has_unique_values(rest.steps):
            found = registers.conflict(rest.steps)
            if found is not None and rest.is_smallest:
                return explain.of_register(self.key, found, self.operations, values, words)
        return explain.of_search(self.key, rest, values, words)


def _register(key: Key | None, operations: list[Operation], budget: Budget) -> _Failure | None:
    values = Values()
    steps = register_steps(operations, values)
    budget.spend(len(steps))
    if registers.has_unique_values(steps):
        found = registers.conflict(steps)
        return None if found is None else _Failure(key, operations, found, values)
    steps = observable(steps)
    stuck = search(steps, budget)
    if stuck is None:
        return None
    return _Failure(key, operations, None, values, steps, stuck)


def _counter(key: Key | None, operations: list[Operation], budget: Budget) -> _Failure | None:
    steps = counter_steps(operations)
    budget.spend(len(steps))
    found = counters.conflict(steps)
    if found is not None:
        return _Failure(key, operations, found)
    stuck = search(steps, budget)
    if stuck is None:
        return None
    return _Failure(key, operations, None, None, steps, stuck)


def _set(key: Key | None, operations: list[Operation], budget: Budget) -> _Failure | None:
    found = sets.conflict(operations, budget)
    return None if found is None else _Failure(key, operations, found)


_FIND = {"register": _register, "cas-register": _register, "counter": _counter, "set": _set}
