"""Eventual convergence: once nothing is written any more and the network is whole, all nodes answer alike.

"Eventually" names its condition here: the *final* reads of a key are those that began after its last write had ended
(an indeterminate write never ends, so what counts is its beginning) and after `quiet_ns`, the time of the last heal, or
later by as long as the nodes may take. Of each node the last such read counts. It holds when for each key all nodes
that were read return the same value, and that value is one that was written: neither null after an acknowledged write,
nor from nowhere. Which of the concurrent writes won is for the store to decide; that all nodes agree is not.
"""

from collections.abc import Sequence

from minidist.engines.checking.models import UnsuitableError
from minidist.engines.checking.operation import Operation, Outcome
from minidist.engines.checking.values import Key, canonical, show
from minidist.engines.checking.verdict import Budget, Verdict, Violation, verdict_for
from minidist.engines.checking.words import Words, words_for

MODEL = "convergence"
FUNCTIONS = ("read", "write", "cas", "add", "append")


def check(operations: Sequence[Operation], budget: Budget, quiet_ns: int | None = None) -> Verdict:
    """Judge the final reads. `quiet_ns` is on the history's clock. Raises UnsuitableError."""
    verdict = verdict_for(MODEL, operations)
    words = words_for(operations)
    parts: dict[Key | None, list[Operation]] = {}
    for operation in operations:
        budget.spend()
        if operation.f not in FUNCTIONS:
            allowed = ", ".join(FUNCTIONS)
            raise UnsuitableError(operation, f"the model {MODEL} has no {operation.f}, allowed: {allowed}")
        parts.setdefault(operation.key, []).append(operation)
    verdict.keys = len(parts)
    unread = 0
    for key, part in parts.items():
        final = _final_reads(part, quiet_ns)
        unread += len(final) < 2
        violation = _disagreement(key, final, words) or _from_nowhere(key, part, final, words)
        if violation is not None:
            verdict.violations.append(violation)
    verdict.found = len(verdict.violations)
    if unread:
        verdict.notes.append(f"{unread} of {len(parts)} keys have final reads of fewer than two nodes")
    return verdict


def _final_reads(part: Sequence[Operation], quiet_ns: int | None) -> list[Operation]:
    """The last final read of each node."""
    written = [each for each in part if each.f != "read" and each.may_have_happened]
    last = max((each.ended if each.is_ok and each.ended is not None else each.began for each in written), default=0)
    final: dict[str | None, Operation] = {}
    for each in part:
        late = quiet_ns is None or each.began_ns >= quiet_ns
        if each.f == "read" and each.is_ok and each.began > last and late:
            final[each.node] = each
    return list(final.values())


def _disagreement(key: Key | None, final: Sequence[Operation], words: Words) -> Violation | None:
    for place, other in enumerate(final[1:], 1):
        if canonical(other.result) != canonical(final[0].result):
            headline = (
                f"key {show(key)}: after the last write {words.read(final[0])}, and {words.read(other)}: the nodes did "
                "not converge"
            )
            return Violation("divergence", "eventual convergence", headline, [], list(final), key, marked=[0, place])
    return None


def _from_nowhere(
    key: Key | None, part: Sequence[Operation], final: Sequence[Operation], words: Words
) -> Violation | None:
    """Only of registers: what a counter, set or list should hold is another model's question."""
    writes = [each for each in part if each.f in ("write", "cas") and each.outcome is not Outcome.FAIL]
    if not final or not writes or any(each.f in ("add", "append") for each in part):
        return None
    values = [canonical(each.argument[1] if each.f == "cas" else each.argument) for each in writes]
    if not any(each.is_ok for each in writes):
        values.append(None)
    if canonical(final[0].result) in values:
        return None
    headline = f"key {show(key)}: after the last write all nodes returned {show(final[0].result)}, which nobody wrote"
    return Violation("lost write", "eventual convergence", headline, [], [*writes[-1:], *final], key, marked=[1])
