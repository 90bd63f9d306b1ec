"""Strings as arrays of bits: SETBIT, GETBIT, BITCOUNT, BITPOS, BITOP. BITFIELD is in bitfields.py."""

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import integer, option
from minidist.engines.keyspace.errors import SYNTAX, WRONG_TYPE, CommandError
from minidist.engines.keyspace.registry import FIRST_KEY, CommandTable, Keys
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.tables import Entry
from minidist.engines.keyspace.texts import LONGEST_STRING_BYTES, change, is_string
from minidist.structures.bits import Bytes, combine, count_bits, find_bit, get_bit
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_plain import strict_integer
from minidist.wire.resp_replies import ONE, ZERO
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

BAD_OFFSET = "ERR bit offset is not an integer or out of range"
MINUS_ONE = integer_reply(-1)


def bit_offset(text: bytes) -> int:
    """A place in a string of the greatest length. Raises CommandError."""
    offset = strict_integer(text)
    if offset is None or not 0 <= offset < 8 * LONGEST_STRING_BYTES:
        raise CommandError(BAD_OFFSET)
    return offset


def bits_of(entry: Entry | None) -> Bytes:
    """The string itself, not to be changed. Raises CommandError for other types."""
    if entry is None:
        return b""
    if not is_string(entry):
        raise CommandError(WRONG_TYPE)
    bits: Bytes = entry.value
    return bits


@command(
    "SETBIT", arity=4, flags="write denyoom", keys=FIRST_KEY, since="2.2.0", group="bitmap",
    summary="Sets or clears the bit at offset of the string value. Creates the key if it doesn't exist.",
)  # fmt: skip
def setbit(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, key, place, given = args
    offset = bit_offset(place)
    if given not in (b"0", b"1"):
        raise CommandError("ERR bit is not an integer or out of range")
    database = session.database
    entry = database.find(key, now_ms)
    bits = bits_of(entry)
    before = get_bit(bits, offset)
    if entry is not None and offset < 8 * len(bits) and bool(before) == (given == b"1"):
        return ONE if before else ZERO  # nothing changes, also for those who watch the key
    at, mask = offset >> 3, 0x80 >> (offset & 7)
    byte = bits[at] if at < len(bits) else 0
    byte = byte | mask if given == b"1" else byte & ~mask
    if entry is None:
        entry = database.put(key, b"", now_ms)
    change(database, key, entry, at, bytes((byte,)))
    database.notify(events.STRING, b"setbit", key)
    return ONE if before else ZERO


@command(
    "GETBIT", arity=3, flags="readonly fast", keys=FIRST_KEY, since="2.2.0", group="bitmap",
    summary="Returns a bit value by offset.",
)  # fmt: skip
def getbit(session: Session, args: Arguments, now_ms: int) -> bytes:
    offset = bit_offset(args[2])
    return ONE if get_bit(bits_of(session.database.read(args[1], now_ms)), offset) else ZERO


def _range(length: int, start: int, end: int) -> tuple[int, int]:
    """A range, both ends included, with negative numbers counted from the end; empty if the first is larger."""
    start = max(start + length, 0) if start < 0 else start
    end = max(end + length, 0) if end < 0 else end
    return start, min(end, length - 1)


def _unit(args: Arguments, at: int) -> int:
    """How many bits BYTE or BIT, or its absence, means."""
    return 1 if len(args) > at and option(args[at], (b"BIT", b"BYTE")) == b"BIT" else 8


@command(
    "BITCOUNT", arity=-2, flags="readonly", keys=FIRST_KEY, since="2.6.0", group="bitmap",
    summary="Counts the number of set bits (population counting) in a string.", complexity="O(N)",
)  # fmt: skip
def bitcount(session: Session, args: Arguments, now_ms: int) -> bytes:
    entry = session.database.read(args[1], now_ms)
    bits = bits_of(entry)
    if entry is None:
        return ZERO  # whatever else was said: Redis looks at it only since 7.4 (redis#11734)
    start, end, unit = 0, -1, 8
    if len(args) == 3 or len(args) > 5:
        raise CommandError(SYNTAX)
    if len(args) > 3:
        start, end = integer(args[2]), integer(args[3])
        unit = _unit(args, 4)
    if start < 0 and end < 0 and start > end:
        return ZERO
    start, end = _range(len(bits) * 8 // unit, start, end)
    return integer_reply(count_bits(bits, start * unit, end * unit + unit - 1)) if start <= end else ZERO


@command(
    "BITPOS", arity=-3, flags="readonly", keys=FIRST_KEY, since="2.8.7", group="bitmap",
    summary="Finds the first set (1) or clear (0) bit in a string.", complexity="O(N)",
)  # fmt: skip
def bitpos(session: Session, args: Arguments, now_ms: int) -> bytes:
    wanted = integer(args[2])
    if wanted not in (0, 1):
        raise CommandError("ERR The bit argument must be 1 or 0.")
    entry = session.database.read(args[1], now_ms)
    bits = bits_of(entry)
    if entry is None:
        return MINUS_ONE if wanted else ZERO
    if len(args) > 6:
        raise CommandError(SYNTAX)
    start = integer(args[3]) if len(args) > 3 else 0
    end = integer(args[4]) if len(args) > 4 else -1
    unit = _unit(args, 5)
    start, end = _range(len(bits) * 8 // unit, start, end)
    if start > end:
        return MINUS_ONE
    found = find_bit(bits, wanted, start * unit, end * unit + unit - 1)
    if found < 0 and not wanted and len(args) < 5:
        found = 8 * len(bits)  # without an end, the string goes on with zeros
    return integer_reply(found)


@command(
    "BITOP", arity=-4, flags="write denyoom", keys=Keys(2, -1, 1), since="2.6.0", group="bitmap",
    summary="Performs bitwise operations on multiple strings, and stores the result.", complexity="O(N)",
)  # fmt: skip
def bitop(session: Session, args: Arguments, now_ms: int) -> bytes:
    operation = option(args[1], (b"AND", b"OR", b"XOR", b"NOT"))
    if operation == b"NOT" and len(args) != 4:
        raise CommandError("ERR BITOP NOT must be called with a single source key.")
    database, target = session.database, args[2]
    result = combine(operation, [bits_of(database.read(key, now_ms)) for key in args[3:]])
    if result:
        database.put(target, bytes(result), now_ms)
        database.notify(events.STRING, b"set", target)
    elif database.delete(target, now_ms):
        database.notify(events.GENERIC, b"del", target)
    return integer_reply(len(result))
