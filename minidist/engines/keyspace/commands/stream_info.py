"""XINFO: a stream, its groups and their consumers, described."""

from minidist.engines.keyspace.arguments import integer
from minidist.engines.keyspace.commands.stream_groups import bad_subcommand, no_group
from minidist.engines.keyspace.commands.streams import entries_reply, entry_reply
from minidist.engines.keyspace.errors import NO_SUCH_KEY, CommandError
from minidist.engines.keyspace.registry import CommandTable, Keys
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.stream_blocks import BlockMap
from minidist.engines.keyspace.stream_groups import Consumer, Group, Pending
from minidist.engines.keyspace.streams import LAST_ID, Stream, id_text
from minidist.engines.keyspace.values import look
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import array, bulk, map_header
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

SECOND_ARGUMENT = Keys(2, 2, 1)
USUAL_COUNT = 10

TABLE.container("XINFO", since="5.0.0", group="stream", summary="A container for stream introspection commands.")


def _map(session: Session, pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A map of names to encoded replies."""
    return map_header(len(pairs), session.resp3) + b"".join([bulk(name) + reply for name, reply in pairs])


def _number(session: Session, value: int | None) -> bytes:
    return session.null if value is None else integer_reply(value)


def _existing(session: Session, args: Arguments, now_ms: int) -> Stream:
    stream = look(session, args[2], now_ms, Stream)
    if stream is None:
        raise CommandError(NO_SUCH_KEY)
    return stream


@command(
    "XINFO STREAM", arity=-3, flags="readonly", keys=SECOND_ARGUMENT, since="5.0.0", group="stream",
    summary="Returns information about a stream.", complexity="O(1), with FULL O(N) for the entries shown",
)  # fmt: skip
def xinfo_stream(session: Session, args: Arguments, now_ms: int) -> bytes:
    stream = _existing(session, args, now_ms)
    blocks = len(stream.entries.ids)
    pairs = [
        (b"length", integer_reply(len(stream))),
        (b"radix-tree-keys", integer_reply(blocks)),
        (b"radix-tree-nodes", integer_reply(blocks + 1)),
        (b"last-generated-id", bulk(id_text(stream.last_id))),
        (b"max-deleted-entry-id", bulk(id_text(stream.max_deleted_id))),
        (b"entries-added", integer_reply(stream.entries_added)),
        (b"recorded-first-entry-id", bulk(id_text(stream.entries.first_id or 0))),
    ]
    if len(args) == 3:
        pairs += [
            (b"groups", integer_reply(len(stream.groups))),
            (b"first-entry", _entry(session, stream, stream.entries.first_id)),
            (b"last-entry", _entry(session, stream, stream.entries.last_id)),
        ]
        return _map(session, pairs)
    count = _full_count(args)
    pairs += [
        (b"entries", entries_reply(stream, 0, LAST_ID, count)),
        (b"groups", array([_full_group(session, stream, group, count) for group in stream.sorted_groups()])),
    ]
    return _map(session, pairs)


def _full_count(args: Arguments) -> int:
    """How many entries FULL shows, 0 for all. Raises CommandError."""
    if len(args) not in (4, 6) or args[3].upper() != b"FULL":
        raise bad_subcommand("XINFO", args[1])
    if len(args) == 4:
        return USUAL_COUNT
    if args[4].upper() != b"COUNT":
        raise bad_subcommand("XINFO", args[1])
    count = integer(args[5])
    return count if count >= 0 else USUAL_COUNT


def _entry(session: Session, stream: Stream, entry_id: int | None) -> bytes:
    body = None if entry_id is None else stream.entries.get(entry_id)
    return session.null if entry_id is None or body is None else entry_reply(entry_id, body)


def _full_group(session: Session, stream: Stream, group: Group, count: int) -> bytes:
    consumers = [_full_consumer(session, consumer, count) for consumer in group.sorted_consumers()]
    pairs = [
        (b"name", bulk(group.name)),
        (b"last-delivered-id", bulk(id_text(group.last_id))),
        (b"entries-read", _number(session, group.entries_read)),
        (b"lag", _number(session, stream.lag(group))),
        (b"pel-count", integer_reply(len(group.pending))),
        (b"pending", _pending(group.pending, count, named=True)),
        (b"consumers", array(consumers)),
    ]
    return _map(session, pairs)


def _full_consumer(session: Session, consumer: Consumer, count: int) -> bytes:
    active_ms = -1 if consumer.active_ms is None else consumer.active_ms
    pairs = [
        (b"name", bulk(consumer.name)),
        (b"seen-time", integer_reply(consumer.seen_ms)),
        (b"active-time", integer_reply(active_ms)),
        (b"pel-count", integer_reply(len(consumer.pending))),
        (b"pending", _pending(consumer.pending, count, named=False)),
    ]
    return _map(session, pairs)


def _pending(entries: BlockMap[Pending], count: int, *, named: bool) -> bytes:
    shown = []
    for entry_id, pending in entries.ascending(0, LAST_ID):
        parts = [bulk(id_text(entry_id)), integer_reply(pending.delivered_ms), integer_reply(pending.deliveries)]
        if named:
            parts.insert(1, bulk(pending.consumer.name))
        shown.append(array(parts))
        if len(shown) == count:
            break
    return array(shown)


@command(
    "XINFO GROUPS", arity=3, flags="readonly", keys=SECOND_ARGUMENT, since="5.0.0", group="stream",
    summary="Returns a list of the consumer groups of a stream.",
)  # fmt: skip
def xinfo_groups(session: Session, args: Arguments, now_ms: int) -> bytes:
    stream = _existing(session, args, now_ms)
    groups = [
        _map(
            session,
            [
                (b"name", bulk(group.name)),
                (b"consumers", integer_reply(len(group.consumers))),
                (b"pending", integer_reply(len(group.pending))),
                (b"last-delivered-id", bulk(id_text(group.last_id))),
                (b"entries-read", _number(session, group.entries_read)),
                (b"lag", _number(session, stream.lag(group))),
            ],
        )
        for group in stream.sorted_groups()
    ]
    return array(groups)


@command(
    "XINFO CONSUMERS", arity=4, flags="readonly", keys=SECOND_ARGUMENT, since="5.0.0", group="stream",
    summary="Returns a list of the consumers in a consumer group.",
)  # fmt: skip
def xinfo_consumers(session: Session, args: Arguments, now_ms: int) -> bytes:
    stream = _existing(session, args, now_ms)
    group = stream.groups.get(args[3])
    if group is None:
        raise no_group(args[3], args[2])
    consumers = [
        _map(
            session,
            [
                (b"name", bulk(consumer.name)),
                (b"pending", integer_reply(len(consumer.pending))),
                (b"idle", integer_reply(max(now_ms - consumer.seen_ms, 0))),
                (b"inactive", integer_reply(-1 if consumer.active_ms is None else now_ms - consumer.active_ms)),
            ],
        )
        for consumer in group.sorted_consumers()
    ]
    return array(consumers)
