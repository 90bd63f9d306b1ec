"""Judging histories: is what clients saw possible? Pure.

    operations = history.read(lines)
    verdict = check(operations, "register", Budget(expired))

`check` knows the models of `MODELS`. Each checker says at the head of its file which algorithm it is and why it is
right.
"""

from collections.abc import Sequence

from minidist.engines.checking import linearizability
from minidist.engines.checking.operation import Operation
from minidist.engines.checking.verdict import Budget, Verdict

MODELS = (*linearizability.FUNCTIONS,)


def check(operations: Sequence[Operation], model: str, budget: Budget) -> Verdict:
    return linearizability.check(operations, model, budget)
