"""BITFIELD: integers of any width, up to 64 bits, anywhere in a string.

All operations are read and checked before the first is done. If one of them may write, the string is made long enough
for all that write, as Redis does, even if overflow then keeps each from it.
"""

import re
from dataclasses import dataclass

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import integer
from minidist.engines.keyspace.commands.bitmaps import BAD_OFFSET, bit_offset, bits_of
from minidist.engines.keyspace.errors import SYNTAX, CommandError
from minidist.engines.keyspace.registry import FIRST_KEY, CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.texts import LONGEST_STRING_BYTES, change
from minidist.structures.bits import get_field, with_field
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_plain import strict_integer
from minidist.wire.resp_replies import array
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

BAD_TYPE = "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
TYPE = re.compile(rb"[iu][1-9][0-9]?").fullmatch
OVERFLOWS = (b"WRAP", b"SAT", b"FAIL")


@dataclass(frozen=True, slots=True)
class Field:
    """Where an integer is, in bits, and how to read it."""

    offset: int
    width: int
    signed: bool

    @property
    def least(self) -> int:
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def most(self) -> int:
        return (1 << (self.width - self.signed)) - 1

    def fitted(self, value: int, overflow: bytes) -> int | None:
        """A value as it is stored; None if it does not fit and overflow is to fail."""
        if self.least <= value <= self.most:
            return value
        if overflow == b"WRAP":
            return (value - self.least) % (1 << self.width) + self.least
        if overflow == b"SAT":
            return self.least if value < self.least else self.most
        return None


@dataclass(frozen=True, slots=True)
class Operation:
    """GET, SET or INCRBY of one field."""

    name: bytes
    field: Field
    value: int
    overflow: bytes


def _field(kind: bytes, place: bytes) -> Field:
    """From a type such as u8 and an offset such as 100 or #3. Raises CommandError."""
    if not TYPE(kind):
        raise CommandError(BAD_TYPE)
    width, signed = int(kind[1:]), kind[:1] == b"i"
    if width > (64 if signed else 63):
        raise CommandError(BAD_TYPE)
    if not place.startswith(b"#"):
        return Field(bit_offset(place), width, signed)
    number = strict_integer(place[1:])
    if number is None or not 0 <= number * width < 8 * LONGEST_STRING_BYTES:
        raise CommandError(BAD_OFFSET)
    return Field(number * width, width, signed)


def _operations(args: Arguments) -> list[Operation]:
    """Raises CommandError."""
    found: list[Operation] = []
    overflow = b"WRAP"
    at = 2
    while at < len(args):
        name, rest = args[at].upper(), len(args) - at - 1
        if name == b"OVERFLOW" and rest >= 1:
            overflow = args[at + 1].upper()
            if overflow not in OVERFLOWS:
                raise CommandError("ERR Invalid OVERFLOW type specified")
            at += 2
            continue
        if not (name == b"GET" and rest >= 2) and not (name in (b"SET", b"INCRBY") and rest >= 3):
            raise CommandError(SYNTAX)
        field = _field(args[at + 1], args[at + 2])
        value = 0 if name == b"GET" else integer(args[at + 3])
        if name == b"SET" and not field.signed:
            value %= 1 << 64  # so that a negative number is too large, not too small
        found.append(Operation(name, field, value, overflow))
        at += 3 if name == b"GET" else 4
    return found


@command(
    "BITFIELD", arity=-2, flags="write denyoom", keys=FIRST_KEY, since="3.2.0", group="bitmap",
    summary="Performs arbitrary bitfield integer operations on strings.",
    complexity="O(1) for each subcommand specified",
)  # fmt: skip
def bitfield(session: Session, args: Arguments, now_ms: int) -> bytes:
    operations = _operations(args)
    writes = [each for each in operations if each.name != b"GET"]
    if not writes:
        return _read(session, args[1], operations, now_ms)
    database, key = session.database, args[1]
    entry = database.find(key, now_ms)
    length = max((each.field.offset + each.field.width + 7) >> 3 for each in writes)
    missing = length - len(bits_of(entry))
    if entry is None:
        entry = database.put(key, b"", now_ms)
    if missing > 0:
        change(database, key, entry, length - 1, b"\0")
    replies, changes = [], 0
    for each in operations:
        field = each.field
        before = get_field(entry.value, field.offset, field.width, field.signed)
        if each.name == b"GET":
            replies.append(integer_reply(before))
            continue
        after = field.fitted(before + each.value if each.name == b"INCRBY" else each.value, each.overflow)
        if after is None:
            replies.append(session.null)
            continue
        change(database, key, entry, *with_field(entry.value, field.offset, field.width, after))
        changes += 1
        replies.append(integer_reply(after if each.name == b"INCRBY" else before))
    if changes:
        database.notify(events.STRING, b"setbit", key)
    return array(replies)


def _read(session: Session, key: bytes, operations: list[Operation], now_ms: int) -> bytes:
    bits = bits_of(session.database.read(key, now_ms))
    fields = [each.field for each in operations]
    return array([integer_reply(get_field(bits, each.offset, each.width, each.signed)) for each in fields])


@command(
    "BITFIELD_RO", arity=-2, flags="readonly fast", keys=FIRST_KEY, since="6.0.0", group="bitmap",
    summary="Performs arbitrary read-only bitfield integer operations on strings.",
    complexity="O(1) for each subcommand specified",
)  # fmt: skip
def bitfield_ro(session: Session, args: Arguments, now_ms: int) -> bytes:
    operations = _operations(args)
    if any(each.name != b"GET" for each in operations):
        raise CommandError("ERR BITFIELD_RO only supports the GET subcommand")
    return _read(session, args[1], operations, now_ms)
