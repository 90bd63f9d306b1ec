"""Commands on keys whatever their type: existence, names, copies, and walking over all of them.

Only KEYS and RANDOMKEY walk the whole database in one go, as in Redis; SCAN goes by slots (scanning.py). RENAME, MOVE
and COPY hand the value itself to its new key, and its lifetime with it.
"""

import copy as copying

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import integer, option
from minidist.engines.keyspace.database import Database
from minidist.engines.keyspace.errors import NO_SUCH_KEY, NOT_AN_INTEGER, SYNTAX, CommandError
from minidist.engines.keyspace.registry import ALL_KEYS, FIRST_KEY, TWO_KEYS, CommandTable
from minidist.engines.keyspace.scanning import scan_step
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.tables import Entry
from minidist.engines.keyspace.values import placed
from minidist.structures.glob import glob_matcher
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_plain import strict_integer
from minidist.wire.resp_replies import OK, ONE, ZERO, array, bulk, bulks, simple
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command


def type_name(entry: Entry) -> str:
    """What TYPE answers."""
    if isinstance(entry.value, bytes | bytearray):
        return "string"
    return str(entry.value.type_name)


@command(
    "DEL", arity=-2, flags="write", keys=ALL_KEYS, since="1.0.0", group="generic",
    summary="Deletes one or more keys.", complexity="O(N) where N is the number of keys",
)  # fmt: skip
def delete(session: Session, args: Arguments, now_ms: int) -> bytes:
    deleted = 0
    for key in args[1:]:
        if session.database.delete(key, now_ms):
            deleted += 1
            session.database.notify(events.GENERIC, b"del", key)
    return integer_reply(deleted)


command(
    "UNLINK", arity=-2, flags="write fast", keys=ALL_KEYS, since="4.0.0", group="generic",
    summary="Asynchronously deletes one or more keys.", complexity="O(N) where N is the number of keys",
)(delete)  # fmt: skip


@command(
    "EXISTS", arity=-2, flags="readonly fast", keys=ALL_KEYS, since="1.0.0", group="generic",
    summary="Determines whether one or more keys exist.", complexity="O(N) where N is the number of keys",
)  # fmt: skip
def exists(session: Session, args: Arguments, now_ms: int) -> bytes:
    return integer_reply(sum(session.database.read(key, now_ms) is not None for key in args[1:]))


@command(
    "TOUCH", arity=-2, flags="readonly fast", keys=ALL_KEYS, since="3.2.1", group="generic",
    summary="Returns the number of existing keys after updating the time they were last accessed.",
    complexity="O(N) where N is the number of keys",
)  # fmt: skip
def touch(session: Session, args: Arguments, now_ms: int) -> bytes:
    return exists(session, args, now_ms)


@command(
    "TYPE", arity=2, flags="readonly fast", keys=FIRST_KEY, since="1.0.0", group="generic",
    summary="Determines the type of value stored at a key.",
)  # fmt: skip
def type_(session: Session, args: Arguments, now_ms: int) -> bytes:
    entry = session.database.peek(args[1], now_ms)
    return simple("none" if entry is None else type_name(entry))


@command(
    "RENAME", arity=3, flags="write", keys=TWO_KEYS, since="1.0.0", group="generic",
    summary="Renames a key and overwrites the destination.",
)  # fmt: skip
def rename(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, source, destination = args
    entry = session.database.find(source, now_ms)
    if entry is None:
        raise CommandError(NO_SUCH_KEY)
    if source != destination:
        _rename(session.database, source, destination, entry)
    return OK


@command(
    "RENAMENX", arity=3, flags="write fast", keys=TWO_KEYS, since="1.0.0", group="generic",
    summary="Renames a key only when the target key name doesn't exist.",
)  # fmt: skip
def renamenx(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, source, destination = args
    entry = session.database.find(source, now_ms)
    if entry is None:
        raise CommandError(NO_SUCH_KEY)
    if session.database.peek(destination, now_ms) is not None:
        return ZERO
    _rename(session.database, source, destination, entry)
    return ONE


def _rename(database: Database, source: bytes, destination: bytes, entry: Entry) -> None:
    move(database, source, database, destination, entry)
    database.notify(events.GENERIC, b"rename_from", source)
    database.notify(events.GENERIC, b"rename_to", destination)


def move(source: Database, key: bytes, destination: Database, new_key: bytes, entry: Entry) -> None:
    """Take a value with its lifetime from one key to another, overwriting what is there."""
    value, touched_ms, expires_ms = entry.value, entry.touched_ms, entry.expires_ms
    source.remove(key, moved=True)
    destination.remove(new_key)
    destination.put(new_key, value, touched_ms, expires_ms)
    placed(destination, new_key, value)


@command(
    "MOVE", arity=3, flags="write fast", keys=FIRST_KEY, since="1.0.0", group="generic",
    summary="Moves a key to another database.",
)  # fmt: skip
def move_(session: Session, args: Arguments, now_ms: int) -> bytes:
    target = some_database(session, args[2])
    if target is session.database:
        raise CommandError("ERR source and destination objects are the same")
    entry = session.database.find(args[1], now_ms)
    if entry is None or target.peek(args[1], now_ms) is not None:
        return ZERO
    move(session.database, args[1], target, args[1], entry)
    session.database.notify(events.GENERIC, b"move_from", args[1])
    target.notify(events.GENERIC, b"move_to", args[1])
    return ONE


def some_database(session: Session, text: bytes) -> Database:
    """The database that an argument names. Raises CommandError."""
    number = integer(text)
    databases = session.service.keyspace.databases
    if not 0 <= number < len(databases):
        raise CommandError("ERR DB index is out of range")
    return databases[number]


@command(
    "COPY", arity=-3, flags="write denyoom", keys=TWO_KEYS, since="6.2.0", group="generic",
    summary="Copies the value of a key to a new key.", complexity="O(N) where N is the number of nested items",
)  # fmt: skip
def copy(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, source, destination = args[:3]
    target, replace = session.database, False
    at = 3
    while at < len(args):
        word = option(args[at], (b"DB", b"REPLACE"))
        if word == b"REPLACE":
            replace = True
        elif at + 1 < len(args):
            at += 1
            target = some_database(session, args[at])
        else:
            raise CommandError(SYNTAX)
        at += 1
    if target is session.database and source == destination:
        raise CommandError("ERR source and destination objects are the same")
    entry = session.database.find(source, now_ms)
    if entry is None or (target.peek(destination, now_ms) is not None and not replace):
        return ZERO
    value, expires_ms = copying.copy(entry.value), entry.expires_ms
    target.remove(destination)
    target.put(destination, value, now_ms, expires_ms)
    placed(target, destination, value)
    target.notify(events.GENERIC, b"copy_to", destination)
    return ONE


@command(
    "KEYS", arity=2, flags="readonly", since="1.0.0", group="generic",
    summary="Returns all key names that match a pattern.", complexity="O(N) where N is the number of keys",
)  # fmt: skip
def keys(session: Session, args: Arguments, now_ms: int) -> bytes:
    matches = glob_matcher(args[1])
    found = [
        bulk(key)
        for *_, table in session.database.filled()
        for key, entry in table.items()
        if entry.expires_ms > now_ms and matches(key)
    ]
    return array(found)


@command(
    "SCAN", arity=-2, flags="readonly", since="2.8.0", group="generic",
    summary="Iterates over the key names in the database.",
    complexity="O(1) for every call. O(N) for a complete iteration",
)  # fmt: skip
def scan(session: Session, args: Arguments, now_ms: int) -> bytes:
    cursor = strict_integer(args[1])
    if cursor is None or cursor < 0:
        raise CommandError("ERR invalid cursor")
    matches, count, kind = None, 10, ""
    for at in range(2, len(args), 2):
        word = option(args[at], (b"MATCH", b"COUNT", b"TYPE"))
        if at + 1 == len(args):
            raise CommandError(SYNTAX)
        if word == b"MATCH":
            matches = None if args[at + 1] == b"*" else glob_matcher(args[at + 1])
        elif word == b"COUNT":
            count = integer(args[at + 1], NOT_AN_INTEGER)
            if count < 1:
                raise CommandError(SYNTAX)
        else:
            kind = args[at + 1].decode("latin-1").lower()
    cursor, entries = scan_step(session.database, cursor, count, now_ms)
    found = [
        key for key, entry in entries if (matches is None or matches(key)) and (not kind or type_name(entry) == kind)
    ]
    return b"*2\r\n" + bulk(b"%d" % cursor) + bulks(found)


@command(
    "RANDOMKEY", arity=1, flags="readonly", since="1.0.0", group="generic",
    summary="Returns a random key name from the database.",
)  # fmt: skip
def randomkey(session: Session, args: Arguments, now_ms: int) -> bytes:
    key = random_key(session.database, now_ms)
    return session.null if key is None else bulk(key)


def random_key(database: Database, now_ms: int) -> bytes | None:
    """A live key, each with the same probability. Expired ones that are met are removed."""
    while database.count:
        at = database.keyspace.random.randrange(database.count)
        for *_, table in database.filled():
            if at < len(table):
                key = list(table)[at]
                if database.peek(key, now_ms) is not None:
                    return key
                break
            at -= len(table)
    return None
