"""Streams: adding, counting, reading by range, removing. What waits is in stream_reads.py.

Commands only parse, call and reply; streams.py does the work. XADD and XTRIM share their options (`_options`). Entries
are kept as they are replied, so that a range is answered by joining bytes (`entries_reply`).
"""

from dataclasses import dataclass, replace

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import integer
from minidist.engines.keyspace.errors import NO_SUCH_KEY, SYNTAX, CommandError, wrong_arity
from minidist.engines.keyspace.registry import FIRST_KEY, CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.stream_blocks import BLOCK_ENTRIES
from minidist.engines.keyspace.streams import (
    LAST_ID,
    Stream,
    Trim,
    id_text,
    parse_end,
    parse_id,
    parse_new_id,
    parse_start,
)
from minidist.engines.keyspace.values import find, look, make, settle
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import EMPTY_ARRAY, OK, ZERO, array, bulk, null_array
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

# Entries that one approximate trimming removes at most, if no LIMIT is given.
USUAL_LIMIT = 100 * BLOCK_ENTRIES
TWO_STRATEGIES = "ERR syntax error, MAXLEN and MINID options at the same time are not compatible"


def entry_reply(entry_id: int, body: bytes) -> bytes:
    """An entry as every command shows it: its id, and its fields and values."""
    return b"*2\r\n" + bulk(id_text(entry_id)) + body


@dataclass(slots=True)
class _Options:
    """What stands before the id of XADD, and all of XTRIM's arguments."""

    at: int  # the argument behind them
    trim: Trim | None = None
    make: bool = True
    limited: bool = False


def _options(args: Arguments, of_add: bool) -> _Options:
    """Raises CommandError."""
    found = _Options(2)
    limit = 0
    while found.at < len(args):
        word, more = args[found.at].upper(), len(args) - found.at - 1
        if word in (b"MAXLEN", b"MINID") and more:
            if found.trim is not None:
                raise CommandError(TWO_STRATEGIES)
            approximate = more >= 2 and args[found.at + 1] == b"~"
            found.at += 1 + (more >= 2 and args[found.at + 1] in (b"~", b"="))
            found.trim = _trim(word, args[found.at], approximate)
        elif word == b"LIMIT" and more:
            found.at += 1
            limit = integer(args[found.at])
            if limit < 0:
                raise CommandError("ERR The LIMIT argument must be >= 0.")
            found.limited = True
        elif of_add and word == b"NOMKSTREAM":
            found.make = False
        elif of_add:
            break
        else:
            raise CommandError(SYNTAX)
        found.at += 1
    if found.trim is None and (limit or not of_add):
        what = "XTRIM must be called with a" if not limit else "LIMIT cannot be used without specifying a"
        raise CommandError(f"ERR syntax error, {what} trimming strategy")
    approximate = found.trim is not None and found.trim.approximate
    if found.limited and not approximate:
        raise CommandError("ERR syntax error, LIMIT cannot be used without the special ~ option")
    if found.trim is not None and approximate:
        found.trim = replace(found.trim, limit=limit if found.limited else USUAL_LIMIT)
    return found


def _trim(strategy: bytes, text: bytes, approximate: bool) -> Trim:
    if strategy == b"MINID":
        return Trim(min_id=parse_id(text), approximate=approximate)
    length = integer(text)
    if length < 0:
        raise CommandError("ERR The MAXLEN argument must be >= 0.")
    return Trim(max_length=length, approximate=approximate)


@command(
    "XADD", arity=-5, flags="write denyoom fast", keys=FIRST_KEY, since="5.0.0", group="stream",
    summary="Appends a new message to a stream. Creates the key if it doesn't exist.",
    complexity="O(1) when adding a new entry, O(N) when trimming where N being the number of entries evicted.",
)  # fmt: skip
def xadd(session: Session, args: Arguments, now_ms: int) -> bytes:
    key = args[1]
    options = _Options(2) if args[2] == b"*" else _options(args, of_add=True)
    at = options.at
    given, open_sequence = None, False
    if at < len(args) and args[at] != b"*":
        given, open_sequence = parse_new_id(args[at])
    if len(args) - at < 3 or (len(args) - at) % 2 == 0:
        raise wrong_arity("xadd")
    if given == 0 and not open_sequence:
        raise CommandError("ERR The ID specified in XADD must be greater than 0-0")
    stream = make(session, key, now_ms, Stream) if options.make else find(session, key, now_ms, Stream)
    if stream is None:
        return session.null
    entry_id = _id_to_add(stream, given, open_sequence, now_ms)
    before_bytes = stream.memory_bytes
    stream.add(entry_id, args[at + 1 :])
    trimmed = stream.trim(options.trim) if options.trim is not None else 0
    settle(session.database, key, stream, before_bytes, events.STREAM, b"xadd")
    if trimmed:
        session.database.notify(events.STREAM, b"xtrim", key)
    return bulk(id_text(entry_id))


def _id_to_add(stream: Stream, given: int | None, open_sequence: bool, now_ms: int) -> int:
    if stream.last_id == LAST_ID:
        raise CommandError("ERR The stream has exhausted the last possible ID, unable to add more items")
    if given is None:
        return stream.next_id(now_ms)
    entry_id = stream.next_id_within(given) if open_sequence else given
    if entry_id is None or entry_id <= stream.last_id:
        raise CommandError("ERR The ID specified in XADD is equal or smaller than the target stream top item")
    return entry_id


@command(
    "XTRIM", arity=-4, flags="write", keys=FIRST_KEY, since="5.0.0", group="stream",
    summary="Deletes messages from the beginning of a stream.",
    complexity="O(N), with N being the number of evicted entries, by blocks.",
)  # fmt: skip
def xtrim(session: Session, args: Arguments, now_ms: int) -> bytes:
    options = _options(args, of_add=False)
    assert options.trim is not None
    stream = find(session, args[1], now_ms, Stream)
    if stream is None:
        return ZERO
    before_bytes = stream.memory_bytes
    removed = stream.trim(options.trim)
    if removed:
        settle(session.database, args[1], stream, before_bytes, events.STREAM, b"xtrim")
    return integer_reply(removed)


@command(
    "XDEL", arity=-3, flags="write fast", keys=FIRST_KEY, since="5.0.0", group="stream",
    summary="Returns the number of messages after removing them from a stream.",
    complexity="O(log N) for each ID, with N being the number of entries",
)  # fmt: skip
def xdel(session: Session, args: Arguments, now_ms: int) -> bytes:
    stream = find(session, args[1], now_ms, Stream)
    if stream is None:
        return ZERO
    ids = [parse_id(text) for text in args[2:]]
    before_bytes = stream.memory_bytes
    deleted = sum(stream.delete(entry_id) for entry_id in ids)
    if deleted:
        settle(session.database, args[1], stream, before_bytes, events.STREAM, b"xdel")
    return integer_reply(deleted)


@command(
    "XLEN", arity=2, flags="readonly fast", keys=FIRST_KEY, since="5.0.0", group="stream",
    summary="Return the number of messages in a stream.",
)  # fmt: skip
def xlen(session: Session, args: Arguments, now_ms: int) -> bytes:
    stream = look(session, args[1], now_ms, Stream)
    return ZERO if stream is None else integer_reply(len(stream))


@command(
    "XRANGE", arity=-4, flags="readonly", keys=FIRST_KEY, since="5.0.0", group="stream",
    summary="Returns the messages from a stream within a range of IDs.",
    complexity="O(log N + M) with N being the number of entries and M the number returned",
)  # fmt: skip
def xrange(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _range(session, args, now_ms, args[2], args[3], backwards=False)


@command(
    "XREVRANGE", arity=-4, flags="readonly", keys=FIRST_KEY, since="5.0.0", group="stream",
    summary="Returns the messages from a stream within a range of IDs in reverse order.",
    complexity="O(log N + M) with N being the number of entries and M the number returned",
)  # fmt: skip
def xrevrange(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _range(session, args, now_ms, args[3], args[2], backwards=True)


def _range(session: Session, args: Arguments, now_ms: int, start: bytes, end: bytes, *, backwards: bool) -> bytes:
    first, last = parse_start(start), parse_end(end)
    count = None
    for at in range(4, len(args), 2):
        if args[at].upper() != b"COUNT" or at + 1 == len(args):
            raise CommandError(SYNTAX)
        count = integer(args[at + 1])
    stream = look(session, args[1], now_ms, Stream)
    if stream is None:
        return EMPTY_ARRAY
    if count is not None and count <= 0:
        return null_array(session.resp3)
    return entries_reply(stream, first, last, count or 0, backwards=backwards)


def entries_reply(stream: Stream, first: int, last: int, count: int, *, backwards: bool = False) -> bytes:
    """The entries of an interval of ids, at most `count` unless that is 0."""
    entries = stream.entries
    found = entries.descending(last, first) if backwards else entries.ascending(first, last)
    if count:
        return array([entry_reply(entry_id, body) for (entry_id, body), _ in zip(found, range(count), strict=False)])
    return array([entry_reply(entry_id, body) for entry_id, body in found])


@command(
    "XSETID", arity=-3, flags="write denyoom fast", keys=FIRST_KEY, since="5.0.0", group="stream",
    summary="An internal command for replicating stream values.",
)  # fmt: skip
def xsetid(session: Session, args: Arguments, now_ms: int) -> bytes:
    entry_id, added, deleted_id = parse_id(args[2]), None, 0
    for at in range(3, len(args), 2):
        word = args[at].upper()
        if word not in (b"ENTRIESADDED", b"MAXDELETEDID") or at + 1 == len(args):
            raise CommandError(SYNTAX)
        if word == b"ENTRIESADDED":
            added = integer(args[at + 1])
            if added < 0:
                raise CommandError("ERR entries_added must be positive")
        else:
            deleted_id = parse_id(args[at + 1])
            if entry_id < deleted_id:
                raise CommandError("ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id")
    stream = find(session, args[1], now_ms, Stream)
    if stream is None:
        raise CommandError(NO_SUCH_KEY)
    if entry_id < stream.max_deleted_id:
        raise CommandError("ERR The ID specified in XSETID is smaller than current max_deleted_entry_id")
    if stream.entries and entry_id < (stream.entries.last_id or 0):
        raise CommandError("ERR The ID specified in XSETID is smaller than the target stream top item")
    if stream.entries and added is not None and added < len(stream):
        raise CommandError("ERR The entries_added specified in XSETID is smaller than the target stream length")
    stream.last_id = entry_id
    stream.entries_added = stream.entries_added if added is None else added
    stream.max_deleted_id = deleted_id or stream.max_deleted_id
    session.database.notify(events.STREAM, b"xsetid", args[1])
    return OK
