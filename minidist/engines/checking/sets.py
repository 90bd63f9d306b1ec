"""Sets that only grow: linearizability in the time it takes to compare the reads, with a proof when violated.

What a set contained is a position in the order of things: an element is there in every read after its addition and in
none before. So the reads must form a chain, each containing the one before (otherwise two elements were each added
first), and with it everything has a place: reads with k different smaller ones in place 2k + 1, an element first seen
in those in place 2k, an element that nobody saw after all reads. Equal places may be ordered freely. A legal order
exists exactly when real time agrees: no operation ended before another began that has a smaller place.

An element that was added several times is placed by the addition that began first; the others change nothing and fit
anywhere from there on. An indeterminate addition whose element was seen happened; one whose element was not seen may
as well not have.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

from minidist.engines.checking.models import NEVER, UnsuitableError
from minidist.engines.checking.operation import Operation
from minidist.engines.checking.values import canonical
from minidist.engines.checking.verdict import Budget


class Trouble(Enum):
    """How a set can fail."""

    TWICE = "one element twice in one read"
    NEVER_ADDED = "an element that was never added"
    TWO_ORDERS = "two elements, each there before the other"
    REAL_TIME = "an order that contradicts real time"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why there is no order.

    TWICE, NEVER_ADDED: `later` is the read, `elements` the element. TWO_ORDERS: `earlier` has the first of `elements`
    and not the second, `later` has the second and not the first. REAL_TIME: `earlier` ended before `later` began, and
    yet `earlier` comes after `later`, for the reason that `elements` and `because` give: an element seen by the one and
    not by the other, or, between two additions, `because` is a read that has `later`'s element without `earlier`'s.
    """

    trouble: Trouble
    later: Operation
    elements: tuple[Any, ...]
    earlier: Operation | None = None
    because: Operation | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    operation: Operation
    elements: frozenset[Hashable]


def conflict(operations: Sequence[Operation], budget: Budget) -> Conflict | None:
    """The first conflict found among one set's operations; None when they are linearizable."""
    adds: dict[Hashable, list[Operation]] = {}
    reads: list[_Read] = []
    for operation in operations:
        if operation.f == "add":
            if operation.may_have_happened:
                adds.setdefault(canonical(operation.argument), []).append(operation)
        elif operation.is_ok:
            elements = _elements(operation)
            if isinstance(elements, Conflict):
                return elements
            reads.append(_Read(operation, elements))
    reads.sort(key=lambda read: len(read.elements))
    return _never_added(reads, adds) or _two_orders(reads, budget) or _real_time(reads, adds)


def _elements(operation: Operation) -> frozenset[Hashable] | Conflict:
    """What a read returned; null is the empty set."""
    values = [] if operation.result is None else operation.result
    if not isinstance(values, list):
        raise UnsuitableError(operation, f"a set's read with the value {values!r}, allowed: a list of elements")
    elements: frozenset[Hashable] = frozenset(map(canonical, values))
    if len(elements) == len(values):
        return elements
    seen: set[Hashable] = set()
    for value in values:
        if canonical(value) in seen:
            return Conflict(Trouble.TWICE, operation, (value,))
        seen.add(canonical(value))
    raise AssertionError("more values than elements, and yet no value twice")


def _never_added(reads: Sequence[_Read], adds: dict[Hashable, list[Operation]]) -> Conflict | None:
    for read in reads:
        if not read.elements <= adds.keys():
            for value in read.operation.result:
                if canonical(value) not in adds:
                    return Conflict(Trouble.NEVER_ADDED, read.operation, (value,))
    return None


def _two_orders(reads: Sequence[_Read], budget: Budget) -> Conflict | None:
    """Neighbours of a chain contain each other; so do all then."""
    for smaller, larger in pairwise(reads):
        budget.spend(1 + len(smaller.elements) // 100)
        if not smaller.elements <= larger.elements:
            first = _missing(smaller.operation, larger.elements)
            if smaller.operation.began > larger.operation.began:
                smaller, larger, first = larger, smaller, _missing(larger.operation, smaller.elements)
            second = _missing(larger.operation, smaller.elements)
            return Conflict(Trouble.TWO_ORDERS, larger.operation, (first, second), smaller.operation)
    return None


def _missing(read: Operation, elements: frozenset[Hashable]) -> Any:
    """The first value of the read that is not among the elements."""
    return next(value for value in read.result if canonical(value) not in elements)


def _real_time(reads: Sequence[_Read], adds: dict[Hashable, list[Operation]]) -> Conflict | None:
    """Walks through time, with the largest place of what has ended; nothing that begins may lie below it."""
    places, loose = _places(reads, adds)
    timeline = [(each.operation.began, each) for each in places]
    timeline += [(each.ended, each) for each in places if each.ended < NEVER]
    highest: _Place | None = None
    for moment, each in sorted(timeline, key=lambda entry: entry[0]):
        if moment == each.operation.began:
            if highest is not None and highest.place > each.place:
                if each.operation.began not in loose:
                    return _contradiction(highest.operation, each.operation, reads)
                each.place = highest.place
        elif highest is None or each.place > highest.place:
            highest = each
    return None


@dataclass(slots=True)
class _Place:
    place: int
    operation: Operation
    ended: int


def _places(reads: Sequence[_Read], adds: dict[Hashable, list[Operation]]) -> tuple[list[_Place], frozenset[int]]:
    """Everything with its place, and (by beginning) the additions whose place is only a lower bound."""
    places: list[_Place] = []
    loose: list[int] = []
    first_seen: dict[Hashable, int] = {}
    groups, before = 0, -1
    known: frozenset[Hashable] = frozenset()
    for read in reads:
        if len(read.elements) != before:
            groups, before = groups + 1, len(read.elements)
            first_seen |= dict.fromkeys(read.elements - known, 2 * groups)
            known = read.elements
        places.append(_Place(2 * groups + 1, read.operation, _end(read.operation)))
    for element, additions in adds.items():
        place = first_seen.get(element, 2 * groups + 2)
        for number, operation in enumerate(additions):
            if operation.is_ok or (element in first_seen and number == 0):
                places.append(_Place(place, operation, _end(operation)))
                if number:
                    loose.append(operation.began)
    return places, frozenset(loose)


def _end(operation: Operation) -> int:
    return operation.ended if operation.is_ok and operation.ended is not None else NEVER


def _contradiction(earlier: Operation, later: Operation, reads: Sequence[_Read]) -> Conflict:
    """Why `earlier`, which ended before `later` began, has the larger place."""
    if later.f == "add":
        element = later.argument
        if earlier.f == "read":
            return Conflict(Trouble.REAL_TIME, later, (element,), earlier)
        named = canonical(element)
        because = next(
            each.operation
            for each in reads
            if named in each.elements and canonical(earlier.argument) not in each.elements
        )
        return Conflict(Trouble.REAL_TIME, later, (earlier.argument, element), earlier, because)
    if earlier.f == "add":
        return Conflict(Trouble.REAL_TIME, later, (earlier.argument,), earlier)
    present = frozenset(map(canonical, later.result or ()))
    return Conflict(Trouble.REAL_TIME, later, (_missing(earlier, present),), earlier)
