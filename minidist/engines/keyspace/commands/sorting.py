"""SORT and SORT_RO: the elements of a list, a set or a sorted set in order, or by what other keys hold.

A pattern (BY, GET) names one key for each element: its first `*` stands for the element, and `->field` behind it means
a field of a hash. What a pattern without `*` means: BY one, that nothing is sorted; GET one, nothing, unless it is `#`,
the element itself. Equal scores are ordered by element, so that replies are the same in every run.
"""

import math
from dataclasses import dataclass, field

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import decimal, integer, option
from minidist.engines.keyspace.database import Database
from minidist.engines.keyspace.errors import SYNTAX, WRONG_TYPE, CommandError, printable
from minidist.engines.keyspace.hashes import Hash
from minidist.engines.keyspace.lists import List
from minidist.engines.keyspace.registry import FIRST_KEY, CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.sets import Set
from minidist.engines.keyspace.sortedsets import SortedSet
from minidist.engines.keyspace.texts import is_string, text
from minidist.engines.keyspace.values import store, variant
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import array, bulk
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

NOT_A_SCORE = "ERR One or more scores can't be converted into double"
ELEMENT = b"#"
# How many arguments follow each option.
OPTIONS = {b"ASC": 0, b"DESC": 0, b"ALPHA": 0, b"LIMIT": 2, b"BY": 1, b"GET": 1, b"STORE": 1}


@dataclass(slots=True)
class Order:
    """What the arguments of a SORT ask for."""

    descending: bool = False
    alphabetic: bool = False
    offset: int = 0
    count: int = -1  # negative: all
    by: bytes | None = None
    get: list[bytes] = field(default_factory=list)
    destination: bytes | None = None

    @property
    def unsorted(self) -> bool:
        return self.by is not None and b"*" not in self.by


def _order(args: Arguments, choices: tuple[bytes, ...]) -> Order:
    """Raises CommandError."""
    order, at = Order(), 2
    while at < len(args):
        word = option(args[at], choices)
        if at + OPTIONS[word] >= len(args):
            raise CommandError(SYNTAX)
        if word in (b"ASC", b"DESC"):
            order.descending = word == b"DESC"
        elif word == b"ALPHA":
            order.alphabetic = True
        elif word == b"LIMIT":
            order.offset, order.count = max(integer(args[at + 1]), 0), integer(args[at + 2])
        elif word == b"BY":
            order.by = args[at + 1]
        elif word == b"GET":
            order.get.append(args[at + 1])
        else:
            order.destination = args[at + 1]
        at += 1 + OPTIONS[word]
    return order


def _look_up(database: Database, pattern: bytes, element: bytes, now_ms: int) -> bytes | None:
    """What a pattern means for an element; None where there is nothing, or nothing that is a string."""
    if pattern == ELEMENT:
        return element
    before, star, after = pattern.partition(b"*")
    if not star:
        return None
    name, arrow, hash_field = after.partition(b"->")
    if not hash_field:
        name, arrow = after, b""  # an arrow at the end belongs to the name
    entry = database.read(before + element + name, now_ms)
    if entry is None:
        return None
    if arrow:
        fields = entry.value if entry.value.__class__ is Hash else None
        if fields is None and isinstance(entry.value, Hash):
            fields = variant(database, before + element + name, entry, Hash, now_ms)
        return None if fields is None else fields.get(hash_field)
    return text(entry) if is_string(entry) else None


def _score(value: bytes | None) -> float:
    """As C's strtod reads it, over the whole text: blanks before it, hexadecimal; nothing at all is 0."""
    value = (value or b"").lstrip(b" \t\n\v\f\r").lower()
    try:
        if b"x" in value:
            score = float.fromhex(value.decode("latin-1"))
        else:
            score = decimal(value, NOT_A_SCORE) if value else 0.0
    except (ValueError, OverflowError):
        raise CommandError(NOT_A_SCORE) from None
    if math.isinf(score) and b"inf" not in value:
        raise CommandError(NOT_A_SCORE)  # too large for a double
    return score


def _sorted(database: Database, elements: list[bytes], order: Order, now_ms: int) -> list[bytes]:
    """Raises CommandError for a score that is no number."""
    by = order.by or ELEMENT
    if order.alphabetic:
        values = {each: _look_up(database, by, each, now_ms) for each in elements}
        return sorted(elements, key=lambda each: (values[each] is not None, values[each]), reverse=order.descending)
    scores = {each: _score(_look_up(database, by, each, now_ms)) for each in elements}
    return sorted(elements, key=lambda each: (scores[each], each), reverse=order.descending)


def _elements(session: Session, key: bytes, order: Order, now_ms: int) -> list[bytes]:
    """The elements in the order asked for, without those beyond LIMIT. Raises CommandError."""
    entry = session.database.read(key, now_ms)
    if entry is None:
        return []
    value = entry.value
    if not isinstance(value, List | Set | SortedSet):
        raise CommandError(WRONG_TYPE)
    if isinstance(value, SortedSet):
        elements = [member for _, member in value.pairs(0, len(value))]
    else:
        elements = list(value)
    if not order.unsorted:
        elements = _sorted(session.database, elements, order, now_ms)
    elif isinstance(value, Set) and (order.destination is not None or session.executing):
        elements.sort()  # as Redis, for effects that are the same wherever they are repeated
    elif order.descending and not isinstance(value, Set):
        elements.reverse()
    return elements[order.offset :] if order.count < 0 else elements[order.offset : order.offset + order.count]


def _sort(session: Session, args: Arguments, choices: tuple[bytes, ...], now_ms: int) -> bytes:
    order = _order(args, choices)
    if session.user.restricted and (order.get or (order.by is not None and b"*" in order.by)):
        _check_rights(session, args, order)
    found: list[bytes | None] = [
        _look_up(session.database, pattern, element, now_ms)
        for element in _elements(session, args[1], order, now_ms)
        for pattern in order.get or (ELEMENT,)
    ]
    if order.destination is None:
        return array([session.null if each is None else bulk(each) for each in found])
    value = List()
    for each in found:
        value.push_right(each or b"")
    store(session.database, order.destination, value, events.LIST, b"sortstore", now_ms)
    return integer_reply(value.length)


def _check_rights(session: Session, args: Arguments, order: Order) -> None:
    """Patterns may lead to any key. Raises CommandError unless the user may read them all."""
    from minidist.engines.keyspace.acl import reads_every_key

    row = session.service.table.find(args[0])
    assert row is not None
    if not reads_every_key(session.user, row, args):
        first = next(word for word in args[2:] if word.upper() in (b"BY", b"GET"))
        raise CommandError(f"ERR {printable(first.upper())} option of SORT denied due to insufficient ACL permissions.")


@command(
    "SORT", arity=-2, flags="write denyoom movablekeys", keys=FIRST_KEY, since="1.0.0", group="generic",
    summary="Sorts the elements in a list, a set, or a sorted set, optionally storing the result.",
    complexity="O(N+M*log(M)) where N is the number of elements and M the number of returned elements",
)  # fmt: skip
def sort(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _sort(session, args, tuple(OPTIONS), now_ms)


@command(
    "SORT_RO", arity=-2, flags="readonly movablekeys", keys=FIRST_KEY, since="7.0.0", group="generic",
    summary="Returns the sorted elements of a list, a set, or a sorted set.",
    complexity="O(N+M*log(M)) where N is the number of elements and M the number of returned elements",
)  # fmt: skip
def sort_ro(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _sort(session, args, tuple(word for word in OPTIONS if word != b"STORE"), now_ms)
