"""XREAD and XREADGROUP: new entries of several streams, waiting for them if there are none.

Both parse their arguments alike, check every key before anything is read, and answer a list of keys with their entries.
"""

from dataclasses import dataclass, field

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import LARGEST, integer
from minidist.engines.keyspace.commands.streams import entries_reply, entry_reply
from minidist.engines.keyspace.errors import SYNTAX, CommandError, printable
from minidist.engines.keyspace.registry import CommandTable, Keys
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.stream_groups import Consumer, Group
from minidist.engines.keyspace.streams import LAST_ID, Stream, id_text, parse_id
from minidist.engines.keyspace.values import look
from minidist.engines.keyspace.waiting import Block
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import array, bulk, map_header, null_array

TABLE = CommandTable()
command = TABLE.command

MEANINGLESS_LAST = (
    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by "
    "specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set."
)
NEW_WITHOUT_GROUP = (
    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option."
)


class StreamKeys(Keys):
    """The first half of what follows the word STREAMS."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return True

    def spans(self, args: Arguments) -> list[range]:
        for at, word in enumerate(args):
            if word.upper() == b"STREAMS":
                return [range(at + 1, at + 1 + (len(args) - at - 1) // 2)]
        return []


@dataclass(slots=True)
class _Read:
    """The arguments of both commands."""

    name: str
    streams_at: int = 0  # the first key
    keys: list[bytes] = field(default_factory=list)
    ids: list[bytes] = field(default_factory=list)
    count: int = 0  # 0 for all
    block_ms: int | None = None
    group: bytes | None = None
    consumer: bytes = b""
    acknowledge: bool = True


def _parse(args: Arguments, name: str, now_ms: int) -> _Read:
    """Raises CommandError."""
    read = _Read(name)
    at = 1
    while at < len(args):
        word, more = args[at].upper(), len(args) - at - 1
        if word == b"STREAMS" and more:
            read.streams_at = at + 1
            break
        if word == b"BLOCK" and more:
            read.block_ms = _timeout_ms(args[at + 1], now_ms)
            at += 2
        elif word == b"COUNT" and more:
            read.count = max(integer(args[at + 1]), 0)
            at += 2
        elif (word == b"GROUP" and more >= 2) or word == b"NOACK":
            if name == "XREAD":
                option = word.decode()
                raise CommandError(
                    f"ERR The {option} option is only supported by XREADGROUP. You called XREAD instead."
                )
            if word == b"NOACK":
                read.acknowledge = False
                at += 1
            else:
                read.group, read.consumer = args[at + 1 : at + 3]
                at += 3
        else:
            raise CommandError(SYNTAX)
    _take_streams(read, args)
    return read


def _take_streams(read: _Read, args: Arguments) -> None:
    if not read.streams_at:
        raise CommandError(SYNTAX)
    names = args[read.streams_at :]
    if len(names) % 2:
        symbol = "$" if read.name == "XREAD" else ">"
        raise CommandError(
            f"ERR Unbalanced '{read.name.lower()}' list of streams: for each stream key an ID or '{symbol}' "
            "must be specified."
        )
    if read.name == "XREADGROUP" and read.group is None:
        raise CommandError("ERR Missing GROUP option for XREADGROUP")
    read.keys = list(names[: len(names) // 2])
    read.ids = list(names[len(names) // 2 :])


def _timeout_ms(text: bytes, now_ms: int) -> int:
    timeout_ms = integer(text, "ERR timeout is not an integer or out of range")
    if timeout_ms < 0:
        raise CommandError("ERR timeout is negative")
    if timeout_ms > LARGEST - now_ms:
        raise CommandError("ERR timeout is out of range")
    return timeout_ms


def _reply(session: Session, found: list[tuple[bytes, bytes]]) -> bytes:
    """Keys with their encoded entries: a map, or for RESP2 an array of pairs."""
    if session.resp3:
        return map_header(len(found), True) + b"".join([bulk(key) + entries for key, entries in found])
    return array([b"*2\r\n" + bulk(key) + entries for key, entries in found])


@command(
    "XREAD", arity=-4, flags="readonly blocking movablekeys", keys=StreamKeys(), since="5.0.0", group="stream",
    summary="Returns messages from multiple streams with IDs greater than the ones requested. Blocks until a message "
    "is available otherwise.",
    complexity="O(log N + M) for each stream, with N being its entries and M the number returned",
)  # fmt: skip
def xread(session: Session, args: Arguments, now_ms: int) -> bytes:
    read = _parse(args, "XREAD", now_ms)
    streams = [look(session, key, now_ms, Stream) for key in read.keys]
    after = []
    for stream, text in zip(streams, read.ids, strict=True):
        if text == b">":
            raise CommandError(NEW_WITHOUT_GROUP)
        if text == b"$":
            after.append(stream.last_id if stream is not None else 0)
        else:
            after.append(parse_id(text))
    found = [
        (key, entries_reply(stream, entry_id + 1, LAST_ID, read.count))
        for key, stream, entry_id in zip(read.keys, streams, after, strict=True)
        if stream is not None and entry_id < (stream.entries.last_id or 0)
    ]
    if found:
        return _reply(session, found)
    nothing = null_array(session.resp3)
    if read.block_ms is None:
        return nothing
    # What `$` means now, for when this is run again.
    fixed = (*args[: read.streams_at], *read.keys, *[id_text(entry_id) for entry_id in after])
    raise Block(read.keys, Stream, read.block_ms, nothing, again=fixed)


@command(
    "XREADGROUP", arity=-7, flags="write blocking movablekeys", keys=StreamKeys(), since="5.0.0", group="stream",
    summary="Returns new or historical messages from a stream for a consumer in a group. Blocks until a message is "
    "available otherwise.",
    complexity="O(M) for each stream, with M being the number of messages returned",
)  # fmt: skip
def xreadgroup(session: Session, args: Arguments, now_ms: int) -> bytes:
    read = _parse(args, "XREADGROUP", now_ms)
    assert read.group is not None
    places: list[tuple[bytes, Stream, Group, int]] = []
    for key, text in zip(read.keys, read.ids, strict=True):
        stream = look(session, key, now_ms, Stream)
        group = stream.groups.get(read.group) if stream is not None else None
        if stream is None or group is None:
            names = f"key '{printable(key)}' or consumer group '{printable(read.group)}'"
            raise CommandError(f"NOGROUP No such {names} in XREADGROUP with GROUP option")
        if text == b"$":
            raise CommandError(MEANINGLESS_LAST)
        places.append((key, stream, group, LAST_ID if text == b">" else parse_id(text)))
    found = []
    nothing = null_array(session.resp3)
    for key, stream, group, after in places:
        before_bytes = stream.memory_bytes
        consumer = consumer_of(session, key, group, read.consumer, now_ms)
        if after != LAST_ID:
            found.append((key, _history(stream, consumer, after, read.count, nothing, now_ms)))
        elif group.last_id < (stream.entries.last_id or 0):
            found.append((key, _deliver(stream, group, consumer, read, now_ms)))
        weigh(session, stream, before_bytes)
    if found:
        return _reply(session, found)
    if read.block_ms is None:
        return nothing
    raise Block(read.keys, Stream, read.block_ms, nothing, at_any_change=True)


def weigh(session: Session, stream: Stream, before_bytes: int) -> None:
    """Account for what changed in groups. Unlike `settle`, it is no change of the key: WATCH does not see it."""
    session.database.keyspace.used_bytes += stream.memory_bytes - before_bytes


def consumer_of(session: Session, key: bytes, group: Group, name: bytes, now_ms: int) -> Consumer:
    """The consumer of this name, who has now been seen; a new one if there is none."""
    consumer = group.consumers.get(name)
    if consumer is None:
        consumer = group.add_consumer(name, now_ms)
        session.database.notify(events.STREAM, b"xgroup-createconsumer", key)
    consumer.seen_ms = now_ms
    return consumer


def _deliver(stream: Stream, group: Group, consumer: Consumer, read: _Read, now_ms: int) -> bytes:
    """The next entries of the group for one of its consumers."""
    replies = []
    for entry_id, body in stream.entries.ascending(group.last_id + 1, LAST_ID):
        stream.advance(group, entry_id)
        if read.acknowledge:
            group.deliver(entry_id, consumer, now_ms)
            consumer.active_ms = now_ms
        replies.append(entry_reply(entry_id, body))
        if len(replies) == read.count:
            break
    return array(replies)


def _history(stream: Stream, consumer: Consumer, after: int, count: int, gone: bytes, now_ms: int) -> bytes:
    """What is pending for a consumer, behind an id; `gone` stands for the fields of a deleted entry."""
    replies = []
    for entry_id, pending in consumer.pending.ascending(after + 1, LAST_ID):
        body = stream.entries.get(entry_id)
        if body is None:
            replies.append(entry_reply(entry_id, gone))
        else:
            pending.delivered_ms = now_ms
            pending.deliveries += 1
            replies.append(entry_reply(entry_id, body))
        if len(replies) == count:
            break
    return array(replies)
