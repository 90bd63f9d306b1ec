"""String commands. GET and SET, which are most of what a cache is asked, look into the tables themselves.

For pipelines of one of them there is a loop besides (`_get_columns`, `_set_columns`), which saves a call and its checks
for each command, a third of the work; tests hold it equal to running them one by one.

All other commands go through `Database`, whose methods say what a command means to do: `read` to answer with the value,
`find` to change it, `put` to store a new one. Values that are not plain bytes (texts.py) are left to slower branches.
"""

import re
from binascii import crc_hqx
from collections.abc import Sequence

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import expiry_ms, integer, option
from minidist.engines.keyspace.database import Database
from minidist.engines.keyspace.errors import SYNTAX, WRONG_TYPE, CommandError
from minidist.engines.keyspace.registry import ALL_KEYS, EVERY_OTHER_KEY, FIRST_KEY, CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.tables import NEVER
from minidist.engines.keyspace.texts import change, check_length, is_string, text, text_slice
from minidist.structures.slots import OPENING_BRACE, SLOT_MASK, key_slots, tagged_slot
from minidist.wire.resp_plain import CRLF
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import BULK_HEADERS, EMPTY_BULK, OK, ONE, ZERO, bulk
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

USUAL_BULKS = len(BULK_HEADERS)
BULK_LENGTHS = [header.removesuffix(CRLF) for header in BULK_HEADERS]
USUAL_UNITS_MS = {b"EX": 1000, b"ex": 1000, b"PX": 1, b"px": 1}
LIFETIME = re.compile(rb"[1-9][0-9]{0,9}").fullmatch
LIFETIMES = (b"EX", b"PX", b"EXAT", b"PXAT")


def _get_columns(session: Session, columns: Sequence[Sequence[bytes]], now_ms: int) -> tuple[int, bytes]:
    """GETs of a pipeline, up to the first that is not there or no short plain string."""
    database, keys = session.database, columns[1]
    tables = database.tables
    lines: list[bytes] = []
    for key, slot in zip(keys, key_slots(keys), strict=True):
        entry = tables[slot].get(key)
        if entry is None or entry.expires_ms <= now_ms:
            break
        value = entry.value
        if value.__class__ is not bytes or len(value) >= USUAL_BULKS:
            break
        entry.touched_ms = now_ms
        lines += BULK_LENGTHS[len(value)], value
    done = len(lines) // 2
    database.keyspace.hits += done
    lines.append(b"")
    return done, CRLF.join(lines)


def _set_columns(session: Session, columns: Sequence[Sequence[bytes]], now_ms: int) -> tuple[int, bytes]:
    """SETs without options of a pipeline, up to the first that needs a look at memory or at another type, or that
    somebody watches."""
    database, keyspace, (_, keys, values) = session.database, session.database.keyspace, columns
    watches = database.watches
    if keyspace.notified:
        return 0, b""
    done = 0
    for key, slot, value in zip(keys, key_slots(keys), values, strict=True):
        entry = database.tables[slot].get(key)
        if keyspace.used_bytes > keyspace.limit_bytes or (watches and key in watches):
            break
        if entry is None:
            database.put(key, value, now_ms)
        else:
            if entry.value.__class__ is not bytes or entry.expires_ms != NEVER:
                break
            keyspace.used_bytes += len(value) - len(entry.value)
            entry.value = value
            entry.touched_ms = now_ms
        done += 1
    return done, OK * done


@command(
    "GET", arity=2, flags="readonly fast", keys=FIRST_KEY, since="1.0.0", group="string",
    summary="Returns the string value of a key.", run_columns=_get_columns,
)  # fmt: skip
def get(session: Session, args: Arguments, now_ms: int) -> bytes:
    key = args[1]
    database = session.database
    slot = (tagged_slot(key) if OPENING_BRACE in key else crc_hqx(key, 0)) & SLOT_MASK
    entry = database.tables[slot].get(key)
    if entry is None or entry.expires_ms <= now_ms:
        database.read(key, now_ms)  # removes what has expired, and counts
        return session.null
    value = entry.value
    if value.__class__ is not bytes:
        value = text(entry)
    entry.touched_ms = now_ms
    database.keyspace.hits += 1
    length = len(value)
    if length < USUAL_BULKS:
        return BULK_HEADERS[length] + value + CRLF
    return b"$%d\r\n%b\r\n" % (length, value)


@command(
    "SET", arity=-3, flags="write denyoom", keys=FIRST_KEY, since="1.0.0", group="string",
    summary="Sets the string value of a key, ignoring its type. The key is created if it doesn't exist.",
    run_columns=_set_columns,
)  # fmt: skip
def set_(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) != 3:
        return _set_with_options(session, args, now_ms)
    _, key, value = args
    database = session.database
    slot = (tagged_slot(key) if OPENING_BRACE in key else crc_hqx(key, 0)) & SLOT_MASK
    entry = database.tables[slot].get(key)
    if entry is None or entry.value.__class__ is not bytes or entry.expires_ms != NEVER:
        database.put(key, value, now_ms)
        if database.keyspace.notified:
            database.notify(events.STRING, b"set", key)
        return OK
    growth = len(value) - len(entry.value)
    if growth:
        database.keyspace.used_bytes += growth
    entry.value = value
    entry.touched_ms = now_ms
    if database.watches:
        database.changed(key)
    if database.keyspace.notified:
        database.notify(events.STRING, b"set", key)
    return OK


def _notify_set(database: Database, key: bytes, *, expires: bool) -> None:
    """A key was set, and with it a lifetime or none."""
    if database.keyspace.notified:
        database.notify(events.STRING, b"set", key)
        if expires:
            database.notify(events.GENERIC, b"expire", key)


def _set_with_options(session: Session, args: Arguments, now_ms: int) -> bytes:
    key, value = args[1], args[2]
    database = session.database
    if len(args) == 5 and args[3] in USUAL_UNITS_MS and LIFETIME(args[4]):
        database.put(key, value, now_ms, now_ms + int(args[4]) * USUAL_UNITS_MS[args[3]])  # as most options are
        _notify_set(database, key, expires=True)
        return OK
    words, expires_ms = _set_options(args, now_ms)
    entry = database.read(key, now_ms) if b"GET" in words else database.find(key, now_ms)
    before = session.null
    if b"GET" in words and entry is not None:
        before = bulk(text(entry))
    if (b"NX" in words and entry is not None) or (b"XX" in words and entry is None):
        return before if b"GET" in words else session.null
    expires = expires_ms != NEVER
    if b"KEEPTTL" in words and entry is not None:
        expires_ms = entry.expires_ms
    database.put(key, value, now_ms, expires_ms)
    _notify_set(database, key, expires=expires)
    return before if b"GET" in words else OK


def _set_options(args: Arguments, now_ms: int) -> tuple[set[bytes], int]:
    """The option words of SET, and when the value expires. Raises CommandError for words that exclude each other."""
    words: set[bytes] = set()
    expires_ms = NEVER
    lifetime: tuple[bytes, bytes] | None = None
    at = 3
    while at < len(args):
        word = option(args[at], (b"NX", b"XX", b"GET", b"KEEPTTL", *LIFETIMES))
        if word in LIFETIMES:
            if lifetime or b"KEEPTTL" in words or at + 1 == len(args):
                raise CommandError(SYNTAX)
            at += 1
            lifetime = (word, args[at])
        elif word == b"KEEPTTL" and lifetime:
            raise CommandError(SYNTAX)
        words.add(word)
        if {b"NX", b"XX"} <= words:
            raise CommandError(SYNTAX)
        at += 1
    if lifetime:
        expires_ms = expiry_ms(lifetime[1], lifetime[0], "set", now_ms)
    return words, expires_ms


@command(
    "SETNX", arity=3, flags="write denyoom fast", keys=FIRST_KEY, since="1.0.0", group="string",
    summary="Set the string value of a key only when the key doesn't exist.",
)  # fmt: skip
def setnx(session: Session, args: Arguments, now_ms: int) -> bytes:
    if session.database.find(args[1], now_ms) is not None:
        return ZERO
    session.database.put(args[1], args[2], now_ms)
    _notify_set(session.database, args[1], expires=False)
    return ONE


@command(
    "SETEX", arity=4, flags="write denyoom", keys=FIRST_KEY, since="2.0.0", group="string",
    summary="Sets the string value and expiration time of a key. Creates the key if it doesn't exist.",
)  # fmt: skip
def setex(session: Session, args: Arguments, now_ms: int) -> bytes:
    session.database.put(args[1], args[3], now_ms, expiry_ms(args[2], b"EX", "setex", now_ms))
    _notify_set(session.database, args[1], expires=True)
    return OK


@command(
    "PSETEX", arity=4, flags="write denyoom", keys=FIRST_KEY, since="2.6.0", group="string",
    summary="Sets both string value and expiration time in milliseconds of a key.",
)  # fmt: skip
def psetex(session: Session, args: Arguments, now_ms: int) -> bytes:
    session.database.put(args[1], args[3], now_ms, expiry_ms(args[2], b"PX", "psetex", now_ms))
    _notify_set(session.database, args[1], expires=True)
    return OK


@command(
    "GETSET", arity=3, flags="write denyoom fast", keys=FIRST_KEY, since="1.0.0", group="string",
    summary="Returns the previous string value of a key after setting it to a new value.",
)  # fmt: skip
def getset(session: Session, args: Arguments, now_ms: int) -> bytes:
    entry = session.database.read(args[1], now_ms)
    before = session.null if entry is None else bulk(text(entry))
    session.database.put(args[1], args[2], now_ms)
    _notify_set(session.database, args[1], expires=False)
    return before


@command(
    "GETDEL", arity=2, flags="write fast", keys=FIRST_KEY, since="6.2.0", group="string",
    summary="Returns the string value of a key after deleting the key.",
)  # fmt: skip
def getdel(session: Session, args: Arguments, now_ms: int) -> bytes:
    entry = session.database.read(args[1], now_ms)
    if entry is None:
        return session.null
    before = bulk(text(entry))
    session.database.remove(args[1])
    session.database.notify(events.GENERIC, b"del", args[1])
    return before


@command(
    "GETEX", arity=-2, flags="write fast", keys=FIRST_KEY, since="6.2.0", group="string",
    summary="Returns the string value of a key after setting its expiration time.",
)  # fmt: skip
def getex(session: Session, args: Arguments, now_ms: int) -> bytes:
    expires_ms = None
    if len(args) > 2:
        word = option(args[2], (b"PERSIST", *LIFETIMES))
        if len(args) != (3 if word == b"PERSIST" else 4):
            raise CommandError(SYNTAX)
        expires_ms = NEVER if word == b"PERSIST" else expiry_ms(args[3], word, "getex", now_ms)
    entry = session.database.read(args[1], now_ms)
    if entry is None:
        return session.null
    reply = bulk(text(entry))
    database, key = session.database, args[1]
    if expires_ms is None:
        return reply
    if expires_ms <= now_ms:
        database.remove(key)
        database.notify(events.GENERIC, b"del", key)
    elif expires_ms != entry.expires_ms:
        database.set_expiry(key, entry, expires_ms)
        database.changed(key)
        database.notify(events.GENERIC, b"persist" if expires_ms == NEVER else b"expire", key)
    return reply


@command(
    "STRLEN", arity=2, flags="readonly fast", keys=FIRST_KEY, since="2.2.0", group="string",
    summary="Returns the length of a string value.",
)  # fmt: skip
def strlen(session: Session, args: Arguments, now_ms: int) -> bytes:
    entry = session.database.read(args[1], now_ms)
    if entry is None:
        return ZERO
    if not is_string(entry):
        raise CommandError(WRONG_TYPE)
    return integer_reply(len(entry.value))


@command(
    "APPEND", arity=3, flags="write denyoom fast", keys=FIRST_KEY, since="2.0.0", group="string",
    summary="Appends a string to the value of a key. Creates the key if it doesn't exist.",
)  # fmt: skip
def append(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, key, suffix = args
    entry = session.database.find(key, now_ms)
    length = len(suffix)
    if entry is None:
        session.database.put(key, suffix, now_ms)
    elif not is_string(entry):
        raise CommandError(WRONG_TYPE)
    else:
        length = change(session.database, key, entry, len(entry.value), suffix)
    session.database.notify(events.STRING, b"append", key)
    return integer_reply(length)


@command(
    "SETRANGE", arity=4, flags="write denyoom", keys=FIRST_KEY, since="2.2.0", group="string",
    summary="Overwrites a part of a string value with another by an offset. Creates the key if it doesn't exist.",
)  # fmt: skip
def setrange(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, key, given, data = args
    offset = integer(given)
    if offset < 0:
        raise CommandError("ERR offset is out of range")
    entry = session.database.find(key, now_ms)
    if entry is not None and not is_string(entry):
        raise CommandError(WRONG_TYPE)
    if not data:
        return integer_reply(0 if entry is None else len(entry.value))
    if entry is None:
        check_length(offset + len(data))
        entry = session.database.put(key, b"", now_ms)
    length = change(session.database, key, entry, offset, data)
    session.database.notify(events.STRING, b"setrange", key)
    return integer_reply(length)


@command(
    "GETRANGE", arity=4, flags="readonly", keys=FIRST_KEY, since="2.4.0", group="string",
    summary="Returns a substring of the string stored at a key.", complexity="O(N) where N is the length returned",
)  # fmt: skip
def getrange(session: Session, args: Arguments, now_ms: int) -> bytes:
    start, end = integer(args[2]), integer(args[3])
    entry = session.database.read(args[1], now_ms)
    if entry is None:
        return EMPTY_BULK
    if not is_string(entry):
        raise CommandError(WRONG_TYPE)
    length = len(entry.value)
    if start < 0 and end < 0 and start > end:
        return EMPTY_BULK
    start = max(start + length, 0) if start < 0 else start
    end = max(end + length, 0) if end < 0 else end
    return bulk(text_slice(entry, start, end + 1)) if start <= end else EMPTY_BULK


command(
    "SUBSTR", arity=4, flags="readonly", keys=FIRST_KEY, since="1.0.0", group="string",
    summary="Returns a substring from a string value.", complexity="O(N) where N is the length returned",
)(getrange)  # fmt: skip


@command(
    "MGET", arity=-2, flags="readonly fast", keys=ALL_KEYS, since="1.0.0", group="string",
    summary="Atomically returns the string values of one or more keys.",
    complexity="O(N) where N is the number of keys",
)  # fmt: skip
def mget(session: Session, args: Arguments, now_ms: int) -> bytes:
    database, keys = session.database, args[1:]
    tables = database.tables
    lines = [b"*%d" % len(keys)]
    for key, slot in zip(keys, key_slots(keys), strict=True):
        entry = tables[slot].get(key)
        if entry is None or entry.expires_ms <= now_ms:
            database.read(key, now_ms)  # removes what has expired, and counts
            lines.append(session.null[:-2])
            continue
        entry.touched_ms = now_ms
        database.keyspace.hits += 1
        value = entry.value
        if value.__class__ is bytes and len(value) < USUAL_BULKS:
            lines += BULK_LENGTHS[len(value)], value
        elif is_string(entry):
            lines += b"$%d" % len(value), value
        else:
            lines.append(session.null[:-2])
    lines.append(b"")
    return CRLF.join(lines)


@command(
    "MSET", arity=-3, flags="write denyoom", keys=EVERY_OTHER_KEY, since="1.0.1", group="string",
    summary="Atomically creates or modifies the string values of one or more keys.",
    complexity="O(N) where N is the number of keys",
)  # fmt: skip
def mset(session: Session, args: Arguments, now_ms: int) -> bytes:
    _check_pairs(args, "mset")
    _put_pairs(session.database, args, now_ms)
    return OK


@command(
    "MSETNX", arity=-3, flags="write denyoom", keys=EVERY_OTHER_KEY, since="1.0.1", group="string",
    summary="Atomically modifies the string values of one or more keys only when all keys don't exist.",
    complexity="O(N) where N is the number of keys",
)  # fmt: skip
def msetnx(session: Session, args: Arguments, now_ms: int) -> bytes:
    _check_pairs(args, "msetnx")
    if any(session.database.find(key, now_ms) is not None for key in args[1::2]):
        return ZERO
    _put_pairs(session.database, args, now_ms)
    return ONE


def _put_pairs(database: Database, args: Arguments, now_ms: int) -> None:
    notified = database.keyspace.notified
    for at in range(1, len(args), 2):
        database.put(args[at], args[at + 1], now_ms)
        if notified:
            database.notify(events.STRING, b"set", args[at])


def _check_pairs(args: Arguments, name: str) -> None:
    if len(args) % 2 == 0:
        raise CommandError(f"ERR wrong number of arguments for '{name}' command")
