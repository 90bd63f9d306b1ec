"""Consumer groups: making and destroying them, and the life of pending entries. Reading is in stream_reads.py.

What only concerns a group is no change of the key, as in Redis: WATCH does not see it, and clients that wait for
entries are not tried again. Such commands account for memory by `weigh` instead of `settle`. Destroying a group is the
exception: whoever waits for its entries is told so.
"""

from collections.abc import Callable
from dataclasses import dataclass

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import LARGEST, integer
from minidist.engines.keyspace.commands.stream_reads import consumer_of, weigh
from minidist.engines.keyspace.commands.streams import entry_reply
from minidist.engines.keyspace.errors import SYNTAX, CommandError, printable
from minidist.engines.keyspace.registry import FIRST_KEY, CommandTable, Keys
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.stream_groups import Consumer, Group, Pending
from minidist.engines.keyspace.streams import (
    LAST_ID,
    Stream,
    id_text,
    parse_bound,
    parse_end,
    parse_id,
    parse_start,
)
from minidist.engines.keyspace.values import find, look, make
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import EMPTY_ARRAY, OK, ONE, ZERO, array, bulk, bulks, null_array
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

SECOND_ARGUMENT = Keys(2, 2, 1)
NO_KEY = (
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option "
    "to create an empty stream automatically."
)
# XAUTOCLAIM looks at so many pending entries for each that it may claim.
ATTEMPTS_PER_ENTRY = 10
MOST_AUTOCLAIMED = LARGEST // 16

TABLE.container(
    "XGROUP", since="5.0.0", group="stream", summary="A container for consumer groups commands.",
)  # fmt: skip


# --- XGROUP -----------------------------------------------------------------------------------------------------------


def bad_subcommand(container: str, given: bytes) -> CommandError:
    """A subcommand has options that it does not know."""
    what = f"unknown subcommand or wrong number of arguments for '{printable(given)[:128]}'"
    return CommandError(f"ERR {what}. Try {container} HELP.")


def no_group(name: bytes, key: bytes) -> CommandError:
    return CommandError(f"NOGROUP No such consumer group '{printable(name)}' for key name '{printable(key)}'")


def no_key_or_group(key: bytes, name: bytes) -> CommandError:
    return CommandError(f"NOGROUP No such key '{printable(key)}' or consumer group '{printable(name)}'")


def _xgroup_options(args: Arguments, *, of_create: bool) -> tuple[bool, int | None]:
    """MKSTREAM and ENTRIESREAD, None for unknown. Raises CommandError."""
    make_stream, entries_read = False, None
    at = 5
    while at < len(args):
        word = args[at].upper()
        if word == b"MKSTREAM" and of_create:
            make_stream = True
        elif word == b"ENTRIESREAD" and at + 1 < len(args):
            at += 1
            given = integer(args[at])
            if given < -1:
                raise CommandError("ERR value for ENTRIESREAD must be positive or -1")
            entries_read = None if given == -1 else given
        else:
            raise bad_subcommand("XGROUP", args[1])
        at += 1
    return make_stream, entries_read


def _existing_stream(session: Session, args: Arguments, now_ms: int) -> Stream:
    stream = find(session, args[2], now_ms, Stream)
    if stream is None:
        raise CommandError(NO_KEY)
    return stream


def _existing_group(session: Session, args: Arguments, now_ms: int) -> tuple[Stream, Group]:
    stream = _existing_stream(session, args, now_ms)
    group = stream.groups.get(args[3])
    if group is None:
        raise no_group(args[3], args[2])
    return stream, group


@command(
    "XGROUP CREATE", arity=-5, flags="write denyoom", keys=SECOND_ARGUMENT, since="5.0.0", group="stream",
    summary="Creates a consumer group.",
)  # fmt: skip
def xgroup_create(session: Session, args: Arguments, now_ms: int) -> bytes:
    key, name, last = args[2:5]
    make_stream, entries_read = _xgroup_options(args, of_create=True)
    stream = find(session, key, now_ms, Stream)
    if stream is None and not make_stream:
        raise CommandError(NO_KEY)
    if len(args) > 8:
        raise bad_subcommand("XGROUP", args[1])
    last_id = (stream.last_id if stream is not None else 0) if last == b"$" else parse_id(last)
    if stream is None:
        stream = make(session, key, now_ms, Stream)
    before_bytes = stream.memory_bytes
    if not stream.add_group(name, last_id, entries_read):
        raise CommandError("BUSYGROUP Consumer Group name already exists")
    weigh(session, stream, before_bytes)
    session.database.notify(events.STREAM, b"xgroup-create", key)
    return OK


@command(
    "XGROUP SETID", arity=-5, flags="write", keys=SECOND_ARGUMENT, since="5.0.0", group="stream",
    summary="Sets the last-delivered ID of a consumer group.",
)  # fmt: skip
def xgroup_setid(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, entries_read = _xgroup_options(args, of_create=False)
    stream, group = _existing_group(session, args, now_ms)
    if len(args) not in (5, 7):
        raise bad_subcommand("XGROUP", args[1])
    group.last_id = stream.last_id if args[4] == b"$" else parse_bound(args[4])
    group.entries_read = entries_read
    session.database.notify(events.STREAM, b"xgroup-setid", args[2])
    return OK


@command(
    "XGROUP DESTROY", arity=4, flags="write", keys=SECOND_ARGUMENT, since="5.0.0", group="stream",
    summary="Destroys a consumer group.", complexity="O(N) where N is the number of its consumers",
)  # fmt: skip
def xgroup_destroy(session: Session, args: Arguments, now_ms: int) -> bytes:
    stream = _existing_stream(session, args, now_ms)
    before_bytes = stream.memory_bytes
    if not stream.remove_group(args[3]):
        return ZERO
    session.database.resized(args[2], stream.memory_bytes - before_bytes)  # clients that wait get an error
    session.database.notify(events.STREAM, b"xgroup-destroy", args[2])
    return ONE


@command(
    "XGROUP CREATECONSUMER", arity=5, flags="write denyoom", keys=SECOND_ARGUMENT, since="6.2.0", group="stream",
    summary="Creates a consumer in a consumer group.",
)  # fmt: skip
def xgroup_createconsumer(session: Session, args: Arguments, now_ms: int) -> bytes:
    stream, group = _existing_group(session, args, now_ms)
    if args[4] in group.consumers:
        return ZERO
    before_bytes = stream.memory_bytes
    consumer_of(session, args[2], group, args[4], now_ms)
    weigh(session, stream, before_bytes)
    return ONE


@command(
    "XGROUP DELCONSUMER", arity=5, flags="write", keys=SECOND_ARGUMENT, since="5.0.0", group="stream",
    summary="Deletes a consumer from a consumer group.",
    complexity="O(N) where N is the number of its pending entries",
)  # fmt: skip
def xgroup_delconsumer(session: Session, args: Arguments, now_ms: int) -> bytes:
    stream, group = _existing_group(session, args, now_ms)
    consumer = group.consumers.get(args[4])
    if consumer is None:
        return ZERO
    before_bytes, pending = stream.memory_bytes, len(consumer.pending)
    group.remove_consumer(consumer)
    weigh(session, stream, before_bytes)
    session.database.notify(events.STREAM, b"xgroup-delconsumer", args[2])
    return integer_reply(pending)


# --- pending entries --------------------------------------------------------------------------------------------------


@command(
    "XACK", arity=-4, flags="write fast", keys=FIRST_KEY, since="5.0.0", group="stream",
    summary="Returns the number of messages that were successfully acknowledged by the consumer group member of a "
    "stream.",
    complexity="O(log N) for each message ID, with N being the number of pending entries",
)  # fmt: skip
def xack(session: Session, args: Arguments, now_ms: int) -> bytes:
    stream = find(session, args[1], now_ms, Stream)
    group = stream.groups.get(args[2]) if stream is not None else None
    if stream is None or group is None:
        return ZERO
    ids = [parse_id(text) for text in args[3:]]
    before_bytes = stream.memory_bytes
    acknowledged = sum(group.acknowledge(entry_id) for entry_id in ids)
    weigh(session, stream, before_bytes)
    return integer_reply(acknowledged)


@command(
    "XPENDING", arity=-3, flags="readonly", keys=FIRST_KEY, since="5.0.0", group="stream",
    summary="Returns the information and entries from a stream consumer group's pending entries list.",
    complexity="O(M) with M being the number of entries looked at; O(consumers) for the summary",
)  # fmt: skip
def xpending(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) != 3 and not 6 <= len(args) <= 9:
        raise CommandError(SYNTAX)
    least_idle_ms, at, first, last, count = 0, 3, 0, LAST_ID, 0
    if len(args) > 3:
        if args[3].upper() == b"IDLE":
            least_idle_ms = integer(args[4])
            if len(args) < 8:
                raise CommandError(SYNTAX)
            at = 5
        count = integer(args[at + 2])
        first, last = parse_start(args[at]), parse_end(args[at + 1])
    stream = look(session, args[1], now_ms, Stream)
    group = stream.groups.get(args[2]) if stream is not None else None
    if group is None:
        raise no_key_or_group(args[1], args[2])
    if len(args) == 3:
        return _pending_summary(session, group)
    entries = group.pending
    if at + 3 < len(args):
        consumer = group.consumers.get(args[at + 3])
        if consumer is None:
            return EMPTY_ARRAY
        entries = consumer.pending
    replies: list[bytes] = []
    for entry_id, pending in entries.ascending(first, last):
        if len(replies) >= count:
            break
        idle_ms = now_ms - pending.delivered_ms
        if not least_idle_ms or idle_ms >= least_idle_ms:
            shown = bulk(id_text(entry_id)) + bulk(pending.consumer.name)
            replies.append(b"*4\r\n" + shown + integer_reply(max(idle_ms, 0)) + integer_reply(pending.deliveries))
    return array(replies)


def _pending_summary(session: Session, group: Group) -> bytes:
    first_id, last_id = group.pending.first_id, group.pending.last_id
    if first_id is None or last_id is None:
        return array([ZERO, session.null, session.null, null_array(session.resp3)])
    consumers = [
        b"*2\r\n" + bulk(consumer.name) + bulk(b"%d" % len(consumer.pending))
        for consumer in group.sorted_consumers()
        if consumer.pending
    ]
    count = integer_reply(len(group.pending))
    return array([count, bulk(id_text(first_id)), bulk(id_text(last_id)), array(consumers)])


@dataclass(slots=True)
class _Claim:
    """XCLAIM's arguments."""

    ids: list[int]
    delivered_ms: int
    last_id: int = 0
    deliveries: int | None = None
    force: bool = False
    just_id: bool = False


def _parse_claim(args: Arguments, now_ms: int) -> _Claim:
    """Raises CommandError."""
    claim = _Claim([], now_ms)
    at = 5
    while at < len(args):
        try:
            claim.ids.append(parse_id(args[at]))
        except CommandError:
            break  # the options begin here
        at += 1
    while at < len(args):
        word, more = args[at].upper(), at + 1 < len(args)
        if word == b"FORCE":
            claim.force = True
        elif word == b"JUSTID":
            claim.just_id = True
        elif word in (b"IDLE", b"TIME", b"RETRYCOUNT") and more:
            at += 1
            value = integer(args[at], f"ERR Invalid {word.decode()} option argument for XCLAIM")
            if word == b"RETRYCOUNT":
                claim.deliveries = value if value >= 0 else None
            else:
                claim.delivered_ms = now_ms - value if word == b"IDLE" else value
        elif word == b"LASTID" and more:
            at += 1
            claim.last_id = parse_id(args[at])
        else:
            raise CommandError(f"ERR Unrecognized XCLAIM option '{printable(args[at])}'")
        at += 1
    if not 0 <= claim.delivered_ms <= now_ms:
        claim.delivered_ms = now_ms
    return claim


def _claiming_group(session: Session, args: Arguments, now_ms: int) -> tuple[Stream, Group]:
    stream = find(session, args[1], now_ms, Stream)
    group = stream.groups.get(args[2]) if stream is not None else None
    if stream is None or group is None:
        raise no_key_or_group(args[1], args[2])
    return stream, group


@command(
    "XCLAIM", arity=-6, flags="write fast", keys=FIRST_KEY, since="5.0.0", group="stream",
    summary="Changes, or acquires, ownership of a message in a consumer group, as if the message was delivered a "
    "consumer group member.",
    complexity="O(log N) for each ID, with N being the number of pending entries",
)  # fmt: skip
def xclaim(session: Session, args: Arguments, now_ms: int) -> bytes:
    stream, group = _claiming_group(session, args, now_ms)
    least_idle_ms = integer(args[4], "ERR Invalid min-idle-time argument for XCLAIM")
    claim = _parse_claim(args, now_ms)
    before_bytes = stream.memory_bytes
    group.last_id = max(group.last_id, claim.last_id)
    consumer = consumer_of(session, args[1], group, args[3], now_ms)
    shown = _shower(stream, just_id=claim.just_id)
    replies: list[bytes] = []
    for entry_id in claim.ids:
        pending = group.pending.get(entry_id)
        if stream.entries.get(entry_id) is None:
            group.acknowledge(entry_id)  # its entry was deleted
            continue
        if pending is None:
            if not claim.force:
                continue
            pending = Pending(consumer, now_ms, 1)
            group.add_pending(entry_id, pending)
        elif least_idle_ms > 0 and now_ms - pending.delivered_ms < least_idle_ms:
            continue
        _take(group, entry_id, pending, consumer, now_ms)
        pending.delivered_ms = claim.delivered_ms
        if claim.deliveries is not None:
            pending.deliveries = claim.deliveries
        elif not claim.just_id:
            pending.deliveries += 1
        replies.append(shown(entry_id))
    weigh(session, stream, before_bytes)
    return array(replies)


def _take(group: Group, entry_id: int, pending: Pending, consumer: Consumer, now_ms: int) -> None:
    group.hand_over(entry_id, pending, consumer)
    consumer.active_ms = now_ms


def _shower(stream: Stream, *, just_id: bool) -> Callable[[int], bytes]:
    """How a claimed entry is shown."""

    def show_id(entry_id: int) -> bytes:
        return bulk(id_text(entry_id))

    def show_entry(entry_id: int) -> bytes:
        return entry_reply(entry_id, stream.entries.get(entry_id) or b"")

    return show_id if just_id else show_entry


@command(
    "XAUTOCLAIM", arity=-6, flags="write fast", keys=FIRST_KEY, since="6.2.0", group="stream",
    summary="Changes, or acquires, ownership of messages in a consumer group, as if the messages were delivered to as "
    "consumer group member.",
    complexity="O(1) if COUNT is small.",
)  # fmt: skip
def xautoclaim(session: Session, args: Arguments, now_ms: int) -> bytes:
    least_idle_ms = integer(args[4], "ERR Invalid min-idle-time argument for XAUTOCLAIM")
    start = parse_start(args[5])
    count, just_id = _autoclaim_options(args)
    stream, group = _claiming_group(session, args, now_ms)
    before_bytes = stream.memory_bytes
    consumer = consumer_of(session, args[1], group, args[3], now_ms)
    shown = _shower(stream, just_id=just_id)
    taken: list[bytes] = []
    deleted: list[int] = []
    next_id = 0
    for number, (entry_id, pending) in enumerate(group.pending.ascending(start, LAST_ID)):
        if number == count * ATTEMPTS_PER_ENTRY or len(taken) + len(deleted) == count:
            next_id = entry_id
            break
        if stream.entries.get(entry_id) is None:
            deleted.append(entry_id)
        elif least_idle_ms <= 0 or now_ms - pending.delivered_ms >= least_idle_ms:
            _take(group, entry_id, pending, consumer, now_ms)
            pending.delivered_ms = now_ms
            pending.deliveries += not just_id
            taken.append(shown(entry_id))
    for entry_id in deleted:
        group.acknowledge(entry_id)
    weigh(session, stream, before_bytes)
    return array([bulk(id_text(next_id)), array(taken), bulks([id_text(entry_id) for entry_id in deleted])])


def _autoclaim_options(args: Arguments) -> tuple[int, bool]:
    """COUNT and JUSTID. Raises CommandError."""
    count, just_id = 100, False
    at = 6
    while at < len(args):
        word = args[at].upper()
        if word == b"COUNT" and at + 1 < len(args):
            at += 1
            count = integer(args[at], "ERR COUNT must be > 0")
            if not 1 <= count <= MOST_AUTOCLAIMED:
                raise CommandError("ERR COUNT must be > 0")
        elif word == b"JUSTID":
            just_id = True
        else:
            raise CommandError(SYNTAX)
        at += 1
    return count, just_id
