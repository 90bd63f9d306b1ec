"""What a conflict of a register, counter or set says, for people: one headline, the steps of the argument, arrows.

Each sentence is true of the operations it names, by their beginnings and ends; a reader can check the argument against
the history with nothing else. The operations named are the evidence.
"""

from collections.abc import Sequence

from minidist.engines.checking import counters, plain, registers, sets
from minidist.engines.checking.models import FORGOTTEN, Kind, State, Step, Values
from minidist.engines.checking.operation import Operation, Outcome
from minidist.engines.checking.shrink import Rest
from minidist.engines.checking.values import Key, canonical, printable, show
from minidist.engines.checking.verdict import Arrow, Budget, GaveUpError, Violation
from minidist.engines.checking.words import Words, count, joined

LINEARIZABILITY = "linearizability"
#: Additions shown as operations; the others are summed up.
MAX_ADDITIONS = 4
#: Operations and configurations up to which an order is looked for, to be shown.
MAX_ORDER_STEPS = 60
MAX_ORDER_CONFIGURATIONS = 50_000


def _violation(
    name: str, key: Key | None, headline: str, reasons: list[str], operations: Sequence[Operation | None]
) -> Violation:
    known = {each.began: each for each in operations if each is not None}
    evidence = [known[began] for began in sorted(known)]
    return Violation(name, LINEARIZABILITY, headline, reasons, evidence, key)


def _arrow(violation: Violation, tail: Operation, head: Operation, label: str) -> None:
    """An arrow between two of the evidence."""
    places = {each.began: place for place, each in enumerate(violation.evidence)}
    violation.arrows.append(Arrow(places[tail.began], places[head.began], label))


def _mark(violation: Violation, *operations: Operation) -> None:
    begins = [each.began for each in operations]
    violation.marked = [place for place, each in enumerate(violation.evidence) if each.began in begins]


def _about(key: Key | None) -> str:
    return "" if key is None else f"key {show(key)}: "


# --- Registers --------------------------------------------------------------------------------------------------------


def of_register(
    key: Key | None, found: registers.Conflict, operations: Sequence[Operation], values: Values, words: Words
) -> Violation:
    """A register with unique values."""
    if found.trouble is registers.Trouble.NEVER_WRITTEN:
        return _never_written(key, found, operations, words)
    if found.trouble is registers.Trouble.NOT_YET_WRITTEN:
        violation = _not_yet_written(key, found, words)
    else:
        violation = _two_orders(key, found, values, words)
    if _other_writes(found, operations):
        violation.reasons.append("No other write of these values can be the one that was read.")
    return violation


def _other_writes(found: registers.Conflict, operations: Sequence[Operation]) -> bool:
    """Whether the values were written by more than the evidence shows, which the shrinking left out as irrelevant."""
    writes = [step.operation for step in (found.write, found.newer_write) if step is not None]
    shown = [each.began for each in writes]
    values = [_written(each) for each in writes]
    return any(
        each.f != "read" and each.may_have_happened and each.began not in shown and _written(each) in values
        for each in operations
    )


def _written(operation: Operation) -> object:
    """What a write or compare-and-set leaves."""
    return canonical(operation.argument[1] if operation.f == "cas" else operation.argument)


def _never_written(
    key: Key | None, found: registers.Conflict, operations: Sequence[Operation], words: Words
) -> Violation:
    read = found.read.operation
    value = canonical(read.result)
    failed = [
        each for each in operations if each.outcome is Outcome.FAIL and each.f != "read" and _written(each) == value
    ]
    headline = f"{_about(key)}{words.read(read)}, which was never written"
    if not failed:
        violation = _violation("phantom read", key, headline, ["No operation wrote this value."], [read])
    else:
        reasons = [
            f"{words.of(each)} failed: it certainly had no effect ({printable(each.error or 'no error text')})."
            for each in failed
        ]
        violation = _violation(
            "read of a failed write", key, headline, [*reasons, "Nobody else wrote this value."], [read, *failed]
        )
        for each in failed:
            _arrow(violation, each, read, "failed, yet was read")
    _mark(violation, read)
    return violation


def _not_yet_written(key: Key | None, found: registers.Conflict, words: Words) -> Violation:
    assert found.write is not None
    read, write = found.read.operation, found.write.operation
    headline = f"{_about(key)}{words.read(read)}, before the write of that value began"
    violation = _violation(
        "read from the future", key, headline, [f"{words.ended_before(read, write)}."], [read, write]
    )
    _arrow(violation, read, write, "had ended before")
    _mark(violation, read)
    return violation


def _two_orders(key: Key | None, found: registers.Conflict, values: Values, words: Words) -> Violation:
    assert found.newer_seen is not None
    assert found.order is not None
    read, seen = found.read.operation, found.newer_seen.operation
    newer = show(values.value(found.newer_write.makes if found.newer_write else 0))
    if seen.f == "read":
        although = f"although {words.who(seen)} had already read the newer {newer}"
    else:
        although = f"although the write of {newer} by {words.who(seen)} had completed"
    headline = f"{_about(key)}{words.read(read)} {although} before the read began ({words.at(read.began_ns)})"
    name = "stale read" if seen.f != "read" else "reads go back"
    violation = _violation(name, key, headline, [], [each.operation for each in found.evidence])
    violation.reasons = [
        _why_older(found, values, words),
        f"But {words.ended_before(seen, read)}.",
    ]
    first, second = found.order
    if first is not None and first is not found.newer_seen:
        _arrow(violation, first.operation, second.operation, "had ended before")
    _arrow(violation, seen, read, "had ended before")
    _mark(violation, read)
    return violation


def _why_older(found: registers.Conflict, values: Values, words: Words) -> str:
    assert found.order is not None
    first, second = found.order
    older, newer = show(values.value(found.read.sees)), show(values.value(_value(second)))
    if first is None:
        return f"{older} is what the key held before anything was written, so it was there before {newer}."
    return f"{words.ended_before(first.operation, second.operation)}, so {older} was there before {newer}."


def _value(step: Step) -> State:
    return step.sees if step.kind is Kind.READ else step.makes


# --- Counters ---------------------------------------------------------------------------------------------------------


def of_counter(key: Key | None, found: counters.Conflict, words: Words) -> Violation:
    """A counter whose bounds are violated."""
    read = found.read.operation
    if found.trouble is counters.Trouble.WENT_BACK:
        assert found.earlier is not None
        earlier = found.earlier.operation
        headline = (
            f"{_about(key)}{words.read(read)}, although {words.who(earlier)} had already read "
            f"{found.bound} before the read began ({words.at(read.began_ns)}) and nothing was ever subtracted"
        )
        violation = _violation(
            "counter goes back", key, headline, [f"{words.ended_before(earlier, read)}."], [earlier, read]
        )
        _arrow(violation, earlier, read, "had ended before")
        _mark(violation, read)
        return violation
    low = found.trouble is counters.Trouble.TOO_LOW
    bound = f"{'at least' if low else 'at most'} {found.bound}"
    name = "lost addition" if low else "addition applied twice, or never made"
    headline = f"{_about(key)}{words.read(read)}, but it had to be {bound}"
    shown = [step.operation for step in found.additions[-MAX_ADDITIONS:]]
    when = "had ended before the read began" if low else "had begun before the read ended"
    reasons = [f"{count(len(found.additions), 'addition')} that {when} come to {found.bound}."]
    if any(step.makes < 0 for step in found.additions):
        more = "may have taken effect by then" if low else "certainly had by then"
        reasons.append(f"Subtractions are counted where they {more}.")
    violation = _violation(name, key, headline, reasons, [*shown, read])
    left_out = found.additions[:-MAX_ADDITIONS]
    if left_out:
        rest = sum(step.makes for step in left_out)
        violation.before = f"Not shown: {count(len(left_out), 'earlier addition')}, which come to {rest}"
    _mark(violation, read)
    return violation


# --- Sets -------------------------------------------------------------------------------------------------------------


def of_set(key: Key | None, found: sets.Conflict, operations: Sequence[Operation], words: Words) -> Violation:
    """A set that lost, invented or reordered elements."""
    later, element = found.later, found.elements[0]
    reader = f"{_about(key)}{words.who(later)}"
    additions = [
        each for each in operations if each.f == "add" and canonical(each.argument) in map(canonical, found.elements)
    ]
    if found.trouble is sets.Trouble.TWICE:
        headline = f"{reader} read the element {show(element)} twice at {words.end(later)}"
        violation = _violation("duplicate element", key, headline, ["A set has each element once."], [later])
    elif found.trouble is sets.Trouble.NEVER_ADDED:
        headline = f"{reader} read the element {show(element)} at {words.end(later)}, which was never added"
        reasons = [f"{words.of(each)} failed: it certainly had no effect." for each in additions]
        violation = _violation(
            "phantom element", key, headline, reasons or ["No operation added it."], [later, *additions]
        )
    elif found.trouble is sets.Trouble.TWO_ORDERS:
        violation = _incomparable(key, found, additions, words)
    else:
        violation = _against_time(key, found, additions, words)
    _mark(violation, later)
    return violation


def _incomparable(key: Key | None, found: sets.Conflict, additions: Sequence[Operation], words: Words) -> Violation:
    assert found.earlier is not None
    one, other = map(show, found.elements)
    headline = (
        f"{_about(key)}{words.who(found.earlier)} saw {one} without {other}, and {words.who(found.later)} saw {other} "
        f"without {one}"
    )
    reasons = [
        f"Nothing is ever removed, so by the read at {words.end(found.earlier)} {one} was added first, and by the read "
        f"at {words.end(found.later)} {other} was."
    ]
    violation = _violation("two orders", key, headline, reasons, [found.earlier, found.later, *additions])
    _arrow(violation, found.earlier, found.later, f"{one} first; {other} first")
    return violation


def _against_time(key: Key | None, found: sets.Conflict, additions: Sequence[Operation], words: Words) -> Violation:
    assert found.earlier is not None
    earlier, later, about = found.earlier, found.later, show(found.elements[0])
    operations = [earlier, later, *additions]
    fact = f"{words.ended_before(earlier, later)}."
    if later.f == "add" and earlier.f == "read":
        name, headline = "read from the future", f"{words.who(earlier)} saw {about} before its addition began"
    elif later.f == "add":
        assert found.because is not None
        second = show(found.elements[1])
        operations.append(found.because)
        name = "lost element"
        headline = f"{words.who(found.because)} saw {second} without {about}, which had been added before it"
    else:
        by = "had been added" if earlier.f == "add" else f"{words.who(earlier)} had already seen"
        name = "lost element"
        headline = (
            f"{words.who(later)} did not see {about} at {words.end(later)}, although it {by} before the read began"
        )
        if earlier.f == "read":
            headline = (
                f"{words.who(later)} did not see {about} at {words.end(later)}, although {words.who(earlier)} had "
                "already seen it before the read began"
            )
    violation = _violation(name, key, _about(key) + headline, [fact], operations)
    _arrow(violation, earlier, later, "had ended before")
    return violation


# --- What was searched ------------------------------------------------------------------------------------------------


def of_search(key: Key | None, rest: Rest, values: Values | None, words: Words) -> Violation:
    """A rest of operations without a legal order: the order that gets furthest, and where it ends."""

    def held(states: tuple[State, ...]) -> str:
        named = [show(values.value(state) if values else state) for state in states if state != FORGOTTEN]
        return joined(named + ["a value that nobody reads later"] * (FORGOTTEN in states), "or")

    evidence = [step.operation for step in rest.steps]
    violation = _violation("not linearizable", key, "", [], evidence)
    violation.is_smallest = rest.is_smallest
    if rest.from_any:
        violation.before = f"Whatever the key held after the {count(rest.summed, 'operation')} before these"
    elif rest.summed:
        before = f"Whatever the order of the {count(rest.summed, 'operation')} before these"
        violation.before = f"{before}, the key then held {held(rest.initial)}"
    tried = _tried(rest)
    if tried is None:
        violation.headline = f"{_about(key)}no order of {count(len(evidence), 'operation')} explains what was seen"
        return violation
    if tried.order:
        order = "; ".join(words.of(step.operation) for step in tried.order)
        begin = f", beginning with {held((tried.initial,))}" if rest.summed else ""
        violation.reasons.append(f"The order that gets furthest{begin}: {order}.")
    wrong = [step.operation for step in tried.impossible]
    named = joined([words.of(each) for each in wrong], "or")
    violation.headline = f"{_about(key)}no order of {count(len(evidence), 'operation')} explains {named}"
    spans = joined([f"{words.of(each)} ({words.span(each)})" for each in wrong], "or")
    violation.reasons.append(
        f"Then the key holds {held((tried.state,))}, and what has to come next is impossible there: {spans}."
    )
    _mark(violation, *wrong)
    return violation


def _tried(rest: Rest) -> plain.Attempt | None:
    if len(rest.steps) > MAX_ORDER_STEPS:
        return None
    budget = Budget(max_configurations=MAX_ORDER_CONFIGURATIONS)
    try:
        tried = plain.attempt(rest.steps, budget, rest.initial)
    except GaveUpError:
        return None
    return tried if tried.impossible else None


def table(violation: Violation, words: Words) -> list[str]:
    """The evidence as lines of text: lines of the history, times, process, what, outcome."""
    rows = []
    for each in violation.evidence:
        lines = str(each.began) if each.ended is None else f"{each.began}-{each.ended}"
        error = f" ({printable(each.error)})" if each.error else ""
        rows.append(
            (f"line {lines}", words.span(each), words.who(each), violation.what(each), each.outcome.value + error)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[4]]) for row in rows]
