"""The objects a history may be of, as sequential specifications, and what a search may know about them.

`apply(state, step)` is the whole specification: the state after, or `None` when the step's result is impossible there.
The rest says which short cuts are sound for the model; a model that claims nothing is searched without any.

Operations are compiled to `Step`s first: values become small integers (equal JSON values get equal numbers), so that
states are cheap to compare, and the operations that cannot matter are left out: those that failed, and reads whose
answer nobody saw.
"""

from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from typing import Any

import msgspec

from minidist.engines.checking.operation import Operation
from minidist.engines.checking.values import canonical

State = int
#: The state of a register whose value nobody will look at any more.
FORGOTTEN = -1


class Kind(Enum):
    """What a step does to the state."""

    READ = "read"
    WRITE = "write"
    CAS = "cas"
    ADD = "add"


class Step(msgspec.Struct, frozen=True, eq=False):
    """An operation as a model sees it.

    `sees` is the state it needs (READ, CAS), `makes` the state it leaves (WRITE, CAS) or what it adds (ADD). `must`
    says that it certainly happened, before `ended`; otherwise it happened before `ended`, if at all (`NEVER`, mostly).
    """

    operation: Operation
    kind: Kind
    sees: State
    makes: State
    must: bool
    began: int
    ended: int


#: Later than every line of a history.
NEVER = 2**62


def apply(state: State, step: Step) -> State | None:
    """The sequential specification of all four models; sets have a checker of their own (sets.py)."""
    kind = step.kind
    if kind is Kind.WRITE:
        return step.makes
    if kind is Kind.ADD:
        return state + step.makes
    if state != step.sees:
        return None
    return step.makes if kind is Kind.CAS else state


class UnsuitableError(Exception):
    """The history is not one of this model: which operation, and why."""

    def __init__(self, operation: Operation, problem: str) -> None:
        line = operation.ended if operation.f == "read" and operation.ended is not None else operation.began
        super().__init__(f"line {line}: {problem}")
        self.operation = operation


class Values:
    """Numbers for the values of one key. Zero is null: what a key holds that was never written."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, State] = {None: 0}
        self._values: list[Any] = [None]

    def number(self, value: Any) -> State:
        name = canonical(value)
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._values)
            self._values.append(value)
        return number

    def value(self, number: State) -> Any:
        return self._values[number]


def register_steps(operations: Sequence[Operation], values: Values) -> list[Step]:
    """Steps of a register's reads, writes and compare-and-sets."""
    steps = []
    for operation in operations:
        if operation.f == "read":
            if operation.is_ok:
                steps.append(_step(operation, Kind.READ, values.number(operation.result), 0))
        elif operation.may_have_happened:
            if operation.f == "write":
                steps.append(_step(operation, Kind.WRITE, 0, values.number(operation.argument)))
            else:
                old, new = operation.argument
                steps.append(_step(operation, Kind.CAS, values.number(old), values.number(new)))
    return steps


def counter_steps(operations: Sequence[Operation]) -> list[Step]:
    """Steps of a counter's reads and additions. A counter that is not there reads null, and is 0."""
    steps = []
    for operation in operations:
        if operation.f == "read":
            if operation.is_ok:
                steps.append(_step(operation, Kind.READ, _number(operation, operation.result or 0), 0))
        elif operation.may_have_happened:
            amount = _number(operation, operation.argument)
            if amount:
                steps.append(_step(operation, Kind.ADD, 0, amount))
    return steps


def _number(operation: Operation, value: Any) -> int:
    if type(value) is not int:
        raise UnsuitableError(operation, f"a counter's {operation.f} with the value {value!r}, allowed: an integer")
    return value


def _step(operation: Operation, kind: Kind, sees: State, makes: State) -> Step:
    must = operation.is_ok
    ended = operation.ended if must and operation.ended is not None else NEVER
    return Step(operation, kind, sees, makes, must, operation.began, ended)


def observable(steps: Sequence[Step]) -> list[Step]:
    """The steps of a register without the optional ones whose value nobody can have seen.

    An optional write (or cas) of v that no later-ending step sees can be taken out of any order that has it: whatever
    followed did not look. Sound both ways, since an optional step need not happen.
    """
    while True:
        seen_until: dict[State, int] = {}
        for step in steps:
            if step.kind in (Kind.READ, Kind.CAS):
                seen_until[step.sees] = max(seen_until.get(step.sees, 0), step.ended)
        kept = [each for each in steps if each.must or seen_until.get(each.makes, 0) > each.began]
        if len(kept) == len(steps):
            return kept
        steps = kept


Compile = Callable[[Sequence[Operation]], list[Step]]
