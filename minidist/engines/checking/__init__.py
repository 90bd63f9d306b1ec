"""Judging histories: is what clients saw possible? Pure.

    operations = history.read(lines)
    verdict = check(operations, "register", Budget(expired))

`check` knows the models of `MODELS`. The head of each checker's file says which algorithm it is and why it is right.
"""

from collections.abc import Sequence

from minidist.engines.checking import convergence, linearizability, listappend, log
from minidist.engines.checking.history import HistoryError
from minidist.engines.checking.models import UnsuitableError
from minidist.engines.checking.operation import Operation, Outcome
from minidist.engines.checking.verdict import Arrow, Budget, Judgement, Verdict, Violation

MODELS = (*linearizability.FUNCTIONS, listappend.MODEL, log.MODEL, convergence.MODEL)

__all__ = [
    "MODELS", "Arrow", "Budget", "HistoryError", "Judgement", "Operation", "Outcome", "UnsuitableError", "Verdict",
    "Violation", "check",
]  # fmt: skip


def check(operations: Sequence[Operation], model: str, budget: Budget | None = None) -> Verdict:
    """Judge a history by a model. Raises UnsuitableError when the history is not one of that model."""
    budget = budget or Budget()
    if model in linearizability.FUNCTIONS:
        return linearizability.check(operations, model, budget)
    return {listappend.MODEL: listappend.check, log.MODEL: log.check, convergence.MODEL: convergence.check}[model](
        operations, budget
    )
