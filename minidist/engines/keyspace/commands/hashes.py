"""Hashes: fields and values under one key.

HSET of one field and HGET, which are most of what a hash is asked, look into the tables themselves, as GET and SET do.
"""

from binascii import crc_hqx
from collections.abc import Sequence

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import LARGEST, SMALLEST, decimal, integer, option
from minidist.engines.keyspace.commands.counters import add_decimals
from minidist.engines.keyspace.errors import SYNTAX, CommandError, wrong_arity
from minidist.engines.keyspace.hashes import Hash
from minidist.engines.keyspace.member_arguments import repeatable_count, scan_reply
from minidist.engines.keyspace.registry import FIRST_KEY, CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.values import changing, find, look, make, settle
from minidist.structures.slots import OPENING_BRACE, SLOT_MASK, tagged_slot
from minidist.wire.resp_plain import CRLF
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import (
    BULK_HEADERS,
    EMPTY_ARRAY,
    OK,
    ONE,
    ZERO,
    array,
    bulk,
    bulks,
    map_header,
)
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

USUAL_BULKS = len(BULK_HEADERS)


def _hset_columns(session: Session, columns: Sequence[Sequence[bytes]], now_ms: int) -> tuple[int, bytes]:
    """HSETs of one field in a pipeline."""
    _, keys, fields, values = columns
    replies = [
        ONE if value.set(field, content) else ZERO
        for value, field, content in zip(changing(session, keys, now_ms, Hash), fields, values, strict=False)
    ]
    return len(replies), b"".join(replies)


@command(
    "HSET", arity=-4, flags="write denyoom fast", keys=FIRST_KEY, since="2.0.0", group="hash",
    summary="Creates or modifies the value of a field in a hash.",
    complexity="O(1) for each field-value pair added", run_columns=_hset_columns,
)  # fmt: skip
def hset(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) != 4:
        return integer_reply(_set_fields(session, args, now_ms))
    _, key, field, value = args
    database = session.database
    slot = (tagged_slot(key) if OPENING_BRACE in key else crc_hqx(key, 0)) & SLOT_MASK
    entry = database.tables[slot].get(key)
    if entry is None or entry.expires_ms <= now_ms or entry.value.__class__ is not Hash:
        return integer_reply(_set_fields(session, args, now_ms))
    entry.touched_ms = now_ms
    fields = entry.value
    before_bytes = fields.memory_bytes
    added = fields.set(field, value)
    keyspace = database.keyspace
    keyspace.used_bytes += fields.memory_bytes - before_bytes
    if database.watches:
        database.changed(key)
    if keyspace.notified:
        database.notify(events.HASH, b"hset", key)
    return ONE if added else ZERO


def _set_fields(session: Session, args: Arguments, now_ms: int) -> int:
    """Set all fields that the arguments name; how many are new."""
    if len(args) % 2:
        raise wrong_arity(args[0].decode().lower())
    key = args[1]
    fields = make(session, key, now_ms, Hash)
    before_bytes, before_count = fields.memory_bytes, len(fields)
    for at in range(2, len(args), 2):
        fields.set(args[at], args[at + 1])
    settle(session.database, key, fields, before_bytes, events.HASH, b"hset")
    return len(fields) - before_count


@command(
    "HMSET", arity=-4, flags="write denyoom fast", keys=FIRST_KEY, since="2.0.0", group="hash",
    summary="Sets the values of multiple fields.", complexity="O(N) where N is the number of fields being set",
)  # fmt: skip
def hmset(session: Session, args: Arguments, now_ms: int) -> bytes:
    _set_fields(session, args, now_ms)
    return OK


@command(
    "HSETNX", arity=4, flags="write denyoom fast", keys=FIRST_KEY, since="2.0.0", group="hash",
    summary="Sets the value of a field in a hash only when the field doesn't exist.",
)  # fmt: skip
def hsetnx(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, key, field, value = args
    fields = make(session, key, now_ms, Hash)
    if field in fields:
        return ZERO
    before_bytes = fields.memory_bytes
    fields.set(field, value)
    settle(session.database, key, fields, before_bytes, events.HASH, b"hset")
    return ONE


@command(
    "HGET", arity=3, flags="readonly fast", keys=FIRST_KEY, since="2.0.0", group="hash",
    summary="Returns the value of a field in a hash.",
)  # fmt: skip
def hget(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, key, field = args
    database = session.database
    slot = (tagged_slot(key) if OPENING_BRACE in key else crc_hqx(key, 0)) & SLOT_MASK
    entry = database.tables[slot].get(key)
    if entry is None or entry.expires_ms <= now_ms or entry.value.__class__ is not Hash:
        fields = look(session, key, now_ms, Hash)  # removes what has expired, counts, refuses other types
        value = None if fields is None else fields.get(field)
        return session.null if value is None else bulk(value)
    entry.touched_ms = now_ms
    database.keyspace.hits += 1
    value = entry.value.get(field)
    if value is None:
        return session.null
    length = len(value)
    if length < USUAL_BULKS:
        return BULK_HEADERS[length] + value + CRLF
    return bulk(value)


@command(
    "HMGET", arity=-3, flags="readonly fast", keys=FIRST_KEY, since="2.0.0", group="hash",
    summary="Returns the values of all fields in a hash.",
    complexity="O(N) where N is the number of fields being requested",
)  # fmt: skip
def hmget(session: Session, args: Arguments, now_ms: int) -> bytes:
    fields = look(session, args[1], now_ms, Hash)
    null = session.null
    if fields is None:
        return array([null] * (len(args) - 2))
    found = [fields.get(field) for field in args[2:]]
    return array([null if value is None else bulk(value) for value in found])


@command(
    "HGETALL", arity=2, flags="readonly", keys=FIRST_KEY, since="2.0.0", group="hash",
    summary="Returns all fields and values in a hash.", complexity="O(N) where N is the size of the hash",
)  # fmt: skip
def hgetall(session: Session, args: Arguments, now_ms: int) -> bytes:
    fields = look(session, args[1], now_ms, Hash)
    if fields is None:
        return map_header(0, session.resp3)
    pieces = [map_header(len(fields), session.resp3)]
    pieces += [b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(text), text) for name, text in fields.items()]
    return b"".join(pieces)


@command(
    "HKEYS", arity=2, flags="readonly", keys=FIRST_KEY, since="2.0.0", group="hash",
    summary="Returns all fields in a hash.", complexity="O(N) where N is the size of the hash",
)  # fmt: skip
def hkeys(session: Session, args: Arguments, now_ms: int) -> bytes:
    return bulks(look(session, args[1], now_ms, Hash) or ())


@command(
    "HVALS", arity=2, flags="readonly", keys=FIRST_KEY, since="2.0.0", group="hash",
    summary="Returns all values in a hash.", complexity="O(N) where N is the size of the hash",
)  # fmt: skip
def hvals(session: Session, args: Arguments, now_ms: int) -> bytes:
    fields = look(session, args[1], now_ms, Hash)
    return EMPTY_ARRAY if fields is None else bulks(fields.values())


@command(
    "HDEL", arity=-3, flags="write fast", keys=FIRST_KEY, since="2.0.0", group="hash",
    summary="Deletes one or more fields and their values from a hash. Deletes the hash if no fields remain.",
    complexity="O(N) where N is the number of fields to be removed",
)  # fmt: skip
def hdel(session: Session, args: Arguments, now_ms: int) -> bytes:
    key = args[1]
    fields = find(session, key, now_ms, Hash)
    if fields is None:
        return ZERO
    before_bytes, before_count = fields.memory_bytes, len(fields)
    for field in args[2:]:
        fields.remove(field)
    deleted = before_count - len(fields)
    if deleted:
        settle(session.database, key, fields, before_bytes, events.HASH, b"hdel")
    return integer_reply(deleted)


@command(
    "HEXISTS", arity=3, flags="readonly fast", keys=FIRST_KEY, since="2.0.0", group="hash",
    summary="Determines whether a field exists in a hash.",
)  # fmt: skip
def hexists(session: Session, args: Arguments, now_ms: int) -> bytes:
    fields = look(session, args[1], now_ms, Hash)
    return ONE if fields is not None and args[2] in fields else ZERO


@command(
    "HLEN", arity=2, flags="readonly fast", keys=FIRST_KEY, since="2.0.0", group="hash",
    summary="Returns the number of fields in a hash.",
)  # fmt: skip
def hlen(session: Session, args: Arguments, now_ms: int) -> bytes:
    return integer_reply(len(look(session, args[1], now_ms, Hash) or ()))


@command(
    "HSTRLEN", arity=3, flags="readonly fast", keys=FIRST_KEY, since="3.2.0", group="hash",
    summary="Returns the length of the value of a field.",
)  # fmt: skip
def hstrlen(session: Session, args: Arguments, now_ms: int) -> bytes:
    fields = look(session, args[1], now_ms, Hash)
    return ZERO if fields is None else integer_reply(len(fields.get(args[2]) or b""))


@command(
    "HINCRBY", arity=4, flags="write denyoom fast", keys=FIRST_KEY, since="2.0.0", group="hash",
    summary="Increments the integer value of a field in a hash by a number. Uses 0 if the field doesn't exist.",
)  # fmt: skip
def hincrby(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, key, field, given = args
    amount = integer(given)
    before = _field(session, key, field, now_ms)
    value = amount if before is None else integer(before, "ERR hash value is not an integer") + amount
    if not SMALLEST <= value <= LARGEST:
        raise CommandError("ERR increment or decrement would overflow")
    _change_field(session, key, field, b"%d" % value, b"hincrby", now_ms)
    return integer_reply(value)


@command(
    "HINCRBYFLOAT", arity=4, flags="write denyoom fast", keys=FIRST_KEY, since="2.6.0", group="hash",
    summary="Increments the floating point value of a field by a number. Uses 0 if the field doesn't exist.",
)  # fmt: skip
def hincrbyfloat(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, key, field, amount = args
    if decimal(amount) in (float("inf"), float("-inf")):
        raise CommandError("ERR value is NaN or Infinity")
    before = _field(session, key, field, now_ms)
    if before is not None:
        decimal(before, "ERR hash value is not a float")
    value = add_decimals(before or b"0", amount)
    _change_field(session, key, field, value, b"hincrbyfloat", now_ms)
    return bulk(value)


def _field(session: Session, key: bytes, field: bytes, now_ms: int) -> bytes | None:
    """The value of a field that is to be changed."""
    fields = find(session, key, now_ms, Hash)
    return None if fields is None else fields.get(field)


def _change_field(session: Session, key: bytes, field: bytes, value: bytes, event: bytes, now_ms: int) -> None:
    fields = make(session, key, now_ms, Hash)
    before_bytes = fields.memory_bytes
    fields.change(field, value)
    settle(session.database, key, fields, before_bytes, events.HASH, event)


@command(
    "HRANDFIELD", arity=-2, flags="readonly", keys=FIRST_KEY, since="6.2.0", group="hash",
    summary="Returns one or more random fields from a hash.",
    complexity="O(N) where N is the number of fields returned",
)  # fmt: skip
def hrandfield(session: Session, args: Arguments, now_ms: int) -> bytes:
    rng = session.database.keyspace.random
    if len(args) == 2:
        fields = look(session, args[1], now_ms, Hash)
        return session.null if fields is None else bulk(fields.choose(rng))
    count = repeatable_count(args[2])
    if len(args) > 3:
        option(args[3], (b"WITHVALUES",))
        if len(args) > 4:
            raise CommandError(SYNTAX)
    fields = look(session, args[1], now_ms, Hash)
    if fields is None or count == 0:
        return EMPTY_ARRAY
    if count < 0:
        chosen = fields.choose_again_and_again(rng, -count)
    else:
        chosen = list(fields) if count >= len(fields) else fields.sample(rng, count)
    return bulks(chosen) if len(args) == 3 else _pairs(session, fields, chosen)


def _pairs(session: Session, fields: Hash, chosen: list[bytes]) -> bytes:
    """Fields with their values: flat, or for RESP3 each pair an array."""
    header = b"*2\r\n" if session.resp3 else b""
    pairs = [header + bulk(field) + bulk(fields.part(field)[field]) for field in chosen]
    return b"*%d\r\n%b" % (len(pairs) if session.resp3 else 2 * len(pairs), b"".join(pairs))


@command(
    "HSCAN", arity=-3, flags="readonly", keys=FIRST_KEY, since="2.8.0", group="hash",
    summary="Iterates over fields and values of a hash.",
    complexity="O(1) for every call. O(N) for a complete iteration",
)  # fmt: skip
def hscan(session: Session, args: Arguments, now_ms: int) -> bytes:
    return scan_reply(session, args, now_ms, Hash, lambda field, value: (field, value))
