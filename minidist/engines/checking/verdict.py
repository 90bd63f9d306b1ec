"""What a check says: whether the history holds, and if not, the evidence in operations, arrows and words.

A violation is **evidence that stands alone**: its operations are some of the history's, and no correct system could
have produced these, whatever else happened around them. How it is drawn (picture.py) and printed is for others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from minidist.engines.checking.operation import Operation, Outcome, describe
from minidist.engines.checking.values import Key, show, to_json


class Judgement(Enum):
    """The three answers. `UNKNOWN`: the budget was spent before one of the other two was certain."""

    HOLDS = "holds"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


class GaveUpError(Exception):
    """The budget is spent: time, or room for configurations."""


class Budget:
    """How long a check may take.

    `expired` is asked now and then and says whether time is up (checkers have no clock of their own);
    `max_configurations` bounds what is remembered at a time, 200 to 400 bytes each.
    """

    #: Steps between two questions: about a millisecond.
    PERIOD = 1_000

    def __init__(self, expired: Callable[[], bool] = lambda: False, max_configurations: int = 1_000_000) -> None:
        self._expired = expired
        self._steps = 0
        self.max_configurations = max_configurations

    def spend(self, steps: int = 1) -> None:
        """Raises GaveUpError when time is up."""
        self._steps += steps
        if self._steps >= self.PERIOD:
            self._steps = 0
            if self._expired():
                raise GaveUpError("time is up")

    def room(self, configurations: int) -> None:
        """Raises GaveUpError when there are too many."""
        if configurations > self.max_configurations:
            raise GaveUpError(f"more than {self.max_configurations} configurations to follow at once")


@dataclass(frozen=True, slots=True)
class Arrow:
    """From one operation of the evidence to another (their indices there), with what the first is to the second."""

    tail: int
    head: int
    label: str


@dataclass(slots=True)
class Violation:
    """One proof that the history does not hold.

    `name` is the field's word for it, `breaks` the weakest promise that excludes it. `headline` is one sentence,
    `reasons` are the steps of the argument. `marked` are the indices of the evidence that the argument ends in.
    `before` says what is known of the time before the evidence, where something was left out there. `names` are what
    the sentences call the operations, where they do (`T1`).
    """

    name: str
    breaks: str
    headline: str
    reasons: list[str]
    evidence: list[Operation]
    key: Key | None = None
    arrows: list[Arrow] = field(default_factory=list)
    marked: list[int] = field(default_factory=list)
    before: str = ""
    names: list[str] = field(default_factory=list)
    is_smallest: bool = True

    def what(self, operation: Operation) -> str:
        """What an operation did and saw, with its key where the violation is not about one key."""
        told = describe(operation)
        return told if operation.key is None or self.key is not None else f"{show(operation.key)}: {told}"

    def to_json(self) -> dict[str, Any]:
        """As `minidist check --json` prints it; `evidence` has the numbers of the lines in the history."""
        return {
            "name": self.name,
            "breaks": self.breaks,
            "key": to_json(self.key),
            "headline": self.headline,
            "reasons": self.reasons,
            "before": self.before,
            "smallest": self.is_smallest,
            "evidence": [
                {
                    "name": name,
                    "lines": [each.began] if each.ended is None else [each.began, each.ended],
                    "began_ns": each.began_ns,
                    "ended_ns": each.ended_ns,
                    "process": each.process,
                    "node": each.node,
                    "outcome": each.outcome.value,
                    "what": self.what(each),
                }
                for each, name in zip(self.evidence, self.names or [""] * len(self.evidence), strict=True)
            ],
        }


@dataclass(slots=True)
class Verdict:
    """The judgement of one history by one model."""

    model: str
    operations: int
    outcomes: dict[str, int]
    violations: list[Violation] = field(default_factory=list)
    #: Why it is not known whether the rest holds, for each part of the history that was given up.
    gave_up: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    keys: int = 0
    #: Violations found; of them only the first few are in `violations`.
    found: int = 0

    @property
    def judgement(self) -> Judgement:
        if self.violations:
            return Judgement.VIOLATED
        return Judgement.UNKNOWN if self.gave_up else Judgement.HOLDS

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "judgement": self.judgement.value,
            "operations": self.operations,
            "outcomes": self.outcomes,
            "keys": self.keys,
            "found": self.found,
            "violations": [each.to_json() for each in self.violations],
            "gave_up": self.gave_up,
            "notes": self.notes,
        }


def verdict_for(model: str, operations: Sequence[Operation]) -> Verdict:
    """A verdict without violations, the operations counted."""
    counts = dict.fromkeys((each.value for each in Outcome), 0)
    for operation in operations:
        counts[operation.outcome.value] += 1
    return Verdict(model, len(operations), counts)
