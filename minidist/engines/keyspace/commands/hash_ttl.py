"""Lifetimes of a hash's fields: HEXPIRE and its kin of Redis 7.4, HGETEX, HSETEX and HGETDEL of Redis 8.0.

Replies have one number for each field: -2 where it is not there, -1 where it has no lifetime, 0 where a condition was
not met, 1 for done, 2 where the time has passed, which deletes the field.

Source: https://redis.io/docs/latest/commands/hexpire/ and its kin, redis 7.4 t_hash.c
"""

from dataclasses import dataclass

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import LARGEST, integer
from minidist.engines.keyspace.commands.expiry import allowed
from minidist.engines.keyspace.errors import CommandError, printable, wrong_arity
from minidist.engines.keyspace.hash_ttl import END_MS, TimedHash, with_lifetimes
from minidist.engines.keyspace.hashes import Hash
from minidist.engines.keyspace.registry import FIRST_KEY, CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.tables import NEVER
from minidist.engines.keyspace.values import find, look, make, settle
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_plain import strict_integer
from minidist.wire.resp_replies import ONE, ZERO, array, bulk
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

NO_FIELD, NO_LIFETIME, CONDITION_NOT_MET, DONE, DELETED = -2, -1, 0, 1, 2
SECOND_MS, MILLISECOND_MS = 1000, 1
CONDITIONS = (b"NX", b"XX", b"GT", b"LT")
PER_FIELD = "O(N) where N is the number of specified fields"
NO_FIELDS = "ERR Mandatory argument FIELDS is missing or not at the right position"
NOT_ABOVE_0 = "ERR Number of fields must be a positive integer"
WRONG_COUNT = "ERR The `numfields` parameter must match the number of arguments"
BAD_TIME = "ERR invalid expire time, must be >= 0"
# Of HGETEX and HSETEX: the unit, and whether the time is relative.
TIMES = {
    b"EX": (SECOND_MS, True), b"PX": (MILLISECOND_MS, True),
    b"EXAT": (SECOND_MS, False), b"PXAT": (MILLISECOND_MS, False),
}  # fmt: skip


def _fields(args: Arguments, at: int, not_above_0: str = NOT_ABOVE_0) -> Arguments:
    """What stands behind FIELDS and their number. Raises CommandError."""
    if at >= len(args) or args[at].upper() != b"FIELDS":
        raise CommandError(NO_FIELDS)
    count = strict_integer(args[at + 1]) if at + 1 < len(args) else None
    if count is None or not 0 < count <= LARGEST:
        raise CommandError(not_above_0)
    if count != len(args) - at - 2:
        raise CommandError(WRONG_COUNT)
    return args[at + 2 :]


def _time_ms(text: bytes, unit_ms: int, base_ms: int, name: bytes) -> int:
    """The service time that an argument means. Raises CommandError."""
    given = integer(text)
    if given < 0:
        raise CommandError(BAD_TIME)
    if given * unit_ms + base_ms >= END_MS:
        raise CommandError(f"ERR invalid expire time in '{printable(name).lower()}' command")
    return given * unit_ms + base_ms


def _numbers(values: list[int]) -> bytes:
    return array([integer_reply(value) for value in values])


# --- HEXPIRE and its kin ----------------------------------------------------------------------------------------------


def _expire(session: Session, args: Arguments, now_ms: int, unit_ms: int, base_ms: int) -> bytes:
    key = args[1]
    value = find(session, key, now_ms, Hash)
    expires_ms = _time_ms(args[2], unit_ms, base_ms, args[0])
    condition = args[3].upper()
    at = 4 if condition in CONDITIONS else 3
    fields = _fields(args, at, "ERR Parameter `numFields` should be greater than 0")
    if value is None:
        return _numbers([NO_FIELD] * len(fields))
    conditions = [condition] if at == 4 else []
    return _numbers(set_lifetimes(session, key, fields, expires_ms, now_ms, conditions))


def set_lifetimes(
    session: Session, key: bytes, fields: Arguments, expires_ms: int, now_ms: int, conditions: list[bytes]
) -> list[int]:
    """Give fields of a hash that is there a lifetime; what has become of each."""
    database = session.database
    entry = database.peek(key, now_ms)
    assert entry is not None
    value = with_lifetimes(database, key, entry)
    before_bytes = value.memory_bytes
    results = [_set_lifetime(value, field, expires_ms, now_ms, conditions) for field in fields]
    if DONE in results or DELETED in results:
        settle(database, key, value, before_bytes, events.HASH, b"hdel" if DELETED in results else b"hexpire")
    if DONE in results:
        database.due_at(key, value.due_ms)
    return results


def _set_lifetime(value: TimedHash, field: bytes, expires_ms: int, now_ms: int, conditions: list[bytes]) -> int:
    if field not in value:
        return NO_FIELD
    if not allowed(conditions, value.expires_ms(field), expires_ms):
        return CONDITION_NOT_MET
    if expires_ms <= now_ms:
        value.remove(field)
        return DELETED
    value.expire(field, expires_ms)
    return DONE


@command(
    "HEXPIRE", arity=-6, flags="write denyoom fast", keys=FIRST_KEY, since="7.4.0", group="hash",
    summary="Set expiry for hash field using relative time to expire (seconds).", complexity=PER_FIELD,
)  # fmt: skip
def hexpire(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _expire(session, args, now_ms, SECOND_MS, now_ms)


@command(
    "HPEXPIRE", arity=-6, flags="write denyoom fast", keys=FIRST_KEY, since="7.4.0", group="hash",
    summary="Set expiry for hash field using relative time to expire (milliseconds).", complexity=PER_FIELD,
)  # fmt: skip
def hpexpire(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _expire(session, args, now_ms, MILLISECOND_MS, now_ms)


@command(
    "HEXPIREAT", arity=-6, flags="write denyoom fast", keys=FIRST_KEY, since="7.4.0", group="hash",
    summary="Set expiry for hash field using an absolute Unix timestamp (seconds).", complexity=PER_FIELD,
)  # fmt: skip
def hexpireat(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _expire(session, args, now_ms, SECOND_MS, 0)


@command(
    "HPEXPIREAT", arity=-6, flags="write denyoom fast", keys=FIRST_KEY, since="7.4.0", group="hash",
    summary="Set expiry for hash field using an absolute Unix timestamp (milliseconds).", complexity=PER_FIELD,
)  # fmt: skip
def hpexpireat(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _expire(session, args, now_ms, MILLISECOND_MS, 0)


@command(
    "HPERSIST", arity=-5, flags="write fast", keys=FIRST_KEY, since="7.4.0", group="hash",
    summary="Removes the expiration time for each specified field.", complexity=PER_FIELD,
)  # fmt: skip
def hpersist(session: Session, args: Arguments, now_ms: int) -> bytes:
    value = find(session, args[1], now_ms, Hash)
    fields = _fields(args, 2)
    if value is None:
        return _numbers([NO_FIELD] * len(fields))
    return _numbers(_persist(session, args[1], value, fields))


def _persist(session: Session, key: bytes, value: Hash, fields: Arguments) -> list[int]:
    if not isinstance(value, TimedHash):
        return [NO_LIFETIME if field in value else NO_FIELD for field in fields]
    before_bytes = value.memory_bytes
    results = []
    for field in fields:
        done = value.persist(field)
        results.append(DONE if done else NO_LIFETIME if field in value else NO_FIELD)
    if DONE in results:
        settle(session.database, key, value, before_bytes, events.HASH, b"hpersist")
    return results


# --- HTTL and its kin -------------------------------------------------------------------------------------------------


def _lifetimes(session: Session, args: Arguments, now_ms: int, unit_ms: int, base_ms: int) -> bytes:
    value = look(session, args[1], now_ms, Hash)
    fields = _fields(args, 2)
    if value is None:
        return _numbers([NO_FIELD] * len(fields))
    found = []
    for field in fields:
        expires_ms = value.expires_ms(field) if isinstance(value, TimedHash) else NEVER
        if field not in value:
            found.append(NO_FIELD)
        elif expires_ms == NEVER:
            found.append(NO_LIFETIME)
        else:
            found.append((expires_ms - base_ms + unit_ms - 1) // unit_ms)
    return _numbers(found)


@command(
    "HTTL", arity=-5, flags="readonly fast", keys=FIRST_KEY, since="7.4.0", group="hash",
    summary="Returns the TTL in seconds of a hash field.", complexity=PER_FIELD,
)  # fmt: skip
def httl(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _lifetimes(session, args, now_ms, SECOND_MS, now_ms)


@command(
    "HPTTL", arity=-5, flags="readonly fast", keys=FIRST_KEY, since="7.4.0", group="hash",
    summary="Returns the TTL in milliseconds of a hash field.", complexity=PER_FIELD,
)  # fmt: skip
def hpttl(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _lifetimes(session, args, now_ms, MILLISECOND_MS, now_ms)


@command(
    "HEXPIRETIME", arity=-5, flags="readonly fast", keys=FIRST_KEY, since="7.4.0", group="hash",
    summary="Returns the expiration time of a hash field as a Unix timestamp, in seconds.", complexity=PER_FIELD,
)  # fmt: skip
def hexpiretime(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _lifetimes(session, args, now_ms, SECOND_MS, 0)


@command(
    "HPEXPIRETIME", arity=-5, flags="readonly fast", keys=FIRST_KEY, since="7.4.0", group="hash",
    summary="Returns the expiration time of a hash field as a Unix timestamp, in msec.", complexity=PER_FIELD,
)  # fmt: skip
def hpexpiretime(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _lifetimes(session, args, now_ms, MILLISECOND_MS, 0)


# --- values with lifetimes --------------------------------------------------------------------------------------------


def _values(session: Session, value: Hash | None, fields: Arguments) -> bytes:
    found = [None if value is None else value.get(field) for field in fields]
    return array([session.null if text is None else bulk(text) for text in found])


@command(
    "HGETDEL", arity=-5, flags="write fast", keys=FIRST_KEY, since="8.0.0", group="hash",
    summary="Returns the value of a field and deletes it from the hash.", complexity=PER_FIELD,
)  # fmt: skip
def hgetdel(session: Session, args: Arguments, now_ms: int) -> bytes:
    key = args[1]
    value = find(session, key, now_ms, Hash)
    fields = _fields(args, 2)
    if value is None:
        return _values(session, None, fields)
    before_bytes, before_count = value.memory_bytes, value.count
    found = []
    for field in fields:  # one that is named twice is there once
        text = value.get(field)
        found.append(session.null if text is None else bulk(text))
        value.remove(field)
    if value.count < before_count:
        settle(session.database, key, value, before_bytes, events.HASH, b"hdel")
    return array(found)


@command(
    "HGETEX", arity=-5, flags="write fast", keys=FIRST_KEY, since="8.0.0", group="hash",
    summary="Get the value of one or more fields of a given hash key, and optionally set their expiration.",
    complexity=PER_FIELD,
)  # fmt: skip
def hgetex(session: Session, args: Arguments, now_ms: int) -> bytes:
    key = args[1]
    value = find(session, key, now_ms, Hash)
    word, at, expires_ms = args[2].upper(), 2, None
    if word in TIMES:
        unit_ms, relative = TIMES[word]
        expires_ms = _time_ms(args[3], unit_ms, now_ms if relative else 0, args[0])
        at = 4
    elif word == b"PERSIST":
        at = 3
    fields = _fields(args, at)
    reply = _values(session, value, fields)
    if value is not None and expires_ms is not None:
        set_lifetimes(session, key, fields, expires_ms, now_ms, [])
    elif value is not None and word == b"PERSIST":
        _persist(session, key, value, fields)
    return reply


@dataclass(slots=True)
class _Setting:
    """What HSETEX was asked for."""

    pairs: Arguments = ()
    expires_ms: int | None = None
    keeps: bool = False
    condition: bytes = b""


def _read_setting(args: Arguments, now_ms: int) -> _Setting:
    """Raises CommandError."""
    setting = _Setting()
    at = 2
    while at < len(args):
        word = args[at].upper()
        if word == b"FIELDS":
            setting.pairs = _pairs(args, at)
            return setting
        if word in TIMES or word == b"KEEPTTL":
            if setting.keeps or setting.expires_ms is not None:
                raise CommandError("ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified")
            setting.keeps = word == b"KEEPTTL"
            if word in TIMES:
                at += 1
                if at == len(args):
                    raise CommandError("ERR missing expire time")
                unit_ms, relative = TIMES[word]
                setting.expires_ms = _time_ms(args[at], unit_ms, now_ms if relative else 0, args[0])
        elif word in (b"FNX", b"FXX"):
            if setting.condition:
                raise CommandError("ERR Only one of FXX or FNX arguments can be specified")
            setting.condition = word
        else:
            raise CommandError(f"ERR unknown argument: {printable(args[at])}")
        at += 1
    raise wrong_arity("hsetex")


def _pairs(args: Arguments, at: int) -> Arguments:
    """Fields and values in turns, behind FIELDS and how many there are. Raises CommandError."""
    if at >= len(args) - 3:
        raise wrong_arity("hsetex")
    count = strict_integer(args[at + 1])
    if count is None or not 0 < count < 1 << 31:
        raise CommandError("ERR invalid number of fields")
    pairs = args[at + 2 :]
    if len(pairs) != 2 * count:
        raise wrong_arity("hsetex")
    return pairs


@command(
    "HSETEX", arity=-6, flags="write denyoom fast", keys=FIRST_KEY, since="8.0.0", group="hash",
    summary="Set the value of one or more fields of a given hash key, and optionally set their expiration.",
    complexity="O(N) where N is the number of fields being set.",
)  # fmt: skip
def hsetex(session: Session, args: Arguments, now_ms: int) -> bytes:
    setting = _read_setting(args, now_ms)
    key, fields = args[1], setting.pairs[::2]
    value = find(session, key, now_ms, Hash)
    if setting.condition:
        there = [value is not None and field in value for field in fields]
        if any(there) if setting.condition == b"FNX" else not all(there):
            return ZERO
    value = make(session, key, now_ms, Hash)
    before_bytes = value.memory_bytes
    store = value.change if setting.keeps else value.set
    for field, text in zip(fields, setting.pairs[1::2], strict=True):
        store(field, text)
    settle(session.database, key, value, before_bytes, events.HASH, b"hset")
    if setting.expires_ms is not None:
        set_lifetimes(session, key, fields, setting.expires_ms, now_ms, [])
    return ONE
