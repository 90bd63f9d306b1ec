"""RESP pub/sub: channels, shard channels, patterns. Who listens to what is kept by publishing.py.

Each channel of SUBSCRIBE and its kin is answered by a message of its own. A node is a single shard, so shard channels
are merely channels of another kind.
"""

from collections.abc import Callable, Iterable

from minidist.engines.keyspace.errors import CommandError, printable
from minidist.engines.keyspace.publishing import Publishing, Sessions, confirmation
from minidist.engines.keyspace.registry import ALL_KEYS, FIRST_KEY, CommandTable
from minidist.engines.keyspace.session import Session
from minidist.structures.glob import glob_matcher
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import array, bulk, bulks, integer

TABLE = CommandTable()
command = TABLE.command

LISTENING = "pubsub noscript loading stale"
Change = Callable[[Publishing, Session, bytes], None]


def _confirmed(session: Session, kind: bytes, names: Iterable[bytes], change: Change) -> bytes:
    """Change the subscriptions, one name after another, each with its confirmation."""
    replies = []
    for name in names:
        change(session.service.publishing, session, name)
        replies.append(confirmation(kind, name, _count(session, kind), session))
    session.regate()
    return b"".join(replies) or confirmation(kind, None, _count(session, kind), session)


def _count(session: Session, kind: bytes) -> int:
    """Shard channels are counted apart."""
    subscriptions = session.subscriptions
    return len(subscriptions.shard_channels) if kind in (b"ssubscribe", b"sunsubscribe") else subscriptions.count


@command(
    "SUBSCRIBE", arity=-2, flags=LISTENING, since="2.0.0", group="pubsub",
    summary="Listens for messages published to channels.", complexity="O(N) where N is the number of channels",
)  # fmt: skip
def subscribe(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _confirmed(session, b"subscribe", args[1:], Publishing.subscribe)


@command(
    "UNSUBSCRIBE", arity=-1, flags=LISTENING, since="2.0.0", group="pubsub",
    summary="Stops listening to messages posted to channels.", complexity="O(N) where N is the number of channels",
)  # fmt: skip
def unsubscribe(session: Session, args: Arguments, now_ms: int) -> bytes:
    names = args[1:] or tuple(session.subscriptions.channels)
    return _confirmed(session, b"unsubscribe", names, Publishing.unsubscribe)


@command(
    "PSUBSCRIBE", arity=-2, flags=LISTENING, since="2.0.0", group="pubsub",
    summary="Listens for messages published to channels that match one or more patterns.",
    complexity="O(N) where N is the number of patterns",
)  # fmt: skip
def psubscribe(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _confirmed(session, b"psubscribe", args[1:], Publishing.subscribe_pattern)


@command(
    "PUNSUBSCRIBE", arity=-1, flags=LISTENING, since="2.0.0", group="pubsub",
    summary="Stops listening to messages published to channels that match one or more patterns.",
    complexity="O(N) where N is the number of patterns",
)  # fmt: skip
def punsubscribe(session: Session, args: Arguments, now_ms: int) -> bytes:
    names = args[1:] or tuple(session.subscriptions.patterns)
    return _confirmed(session, b"punsubscribe", names, Publishing.unsubscribe_pattern)


@command(
    "SSUBSCRIBE", arity=-2, flags=LISTENING, keys=ALL_KEYS, since="7.0.0", group="pubsub",
    summary="Listens for messages published to shard channels.", complexity="O(N) where N is the number of channels",
)  # fmt: skip
def ssubscribe(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _confirmed(session, b"ssubscribe", args[1:], Publishing.subscribe_shard)


@command(
    "SUNSUBSCRIBE", arity=-1, flags=LISTENING, keys=ALL_KEYS, since="7.0.0", group="pubsub",
    summary="Stops listening to messages posted to shard channels.",
    complexity="O(N) where N is the number of channels",
)  # fmt: skip
def sunsubscribe(session: Session, args: Arguments, now_ms: int) -> bytes:
    names = args[1:] or tuple(session.subscriptions.shard_channels)
    return _confirmed(session, b"sunsubscribe", names, Publishing.unsubscribe_shard)


@command(
    "PUBLISH", arity=3, flags="pubsub loading stale fast", since="2.0.0", group="pubsub",
    summary="Posts a message to a channel.",
    complexity="O(N+M) where N is the number of subscribers and M that of patterns that may match",
)  # fmt: skip
def publish(session: Session, args: Arguments, now_ms: int) -> bytes:
    return integer(session.service.publishing.publish(args[1], args[2]))


@command(
    "SPUBLISH", arity=3, flags="pubsub loading stale fast", keys=FIRST_KEY, since="7.0.0", group="pubsub",
    summary="Posts a message to a shard channel.", complexity="O(N) where N is the number of subscribers",
)  # fmt: skip
def spublish(session: Session, args: Arguments, now_ms: int) -> bytes:
    return integer(session.service.publishing.publish_shard(args[1], args[2]))


# --- PUBSUB ---------------------------------------------------------------------------------------------------------

TABLE.container("PUBSUB", since="2.8.0", group="pubsub", summary="A container for Pub/Sub commands.")
LOOKING = "pubsub loading stale"


def _names(channels: dict[bytes, Sessions], args: Arguments) -> bytes:
    """The channels that somebody listens to, and that match the pattern if there is one."""
    if len(args) == 2:
        return bulks(channels)
    matches = glob_matcher(args[2])
    return bulks([channel for channel in channels if matches(channel)])


def _counts(channels: dict[bytes, Sessions], args: Arguments) -> bytes:
    return array([each for name in args[2:] for each in (bulk(name), integer(len(channels.get(name, ()))))])


@command(
    "PUBSUB CHANNELS", arity=-2, flags=LOOKING, since="2.8.0", group="pubsub",
    summary="Returns the active channels.", complexity="O(N) where N is the number of active channels",
)  # fmt: skip
def pubsub_channels(session: Session, args: Arguments, now_ms: int) -> bytes:
    _check_one_pattern(args)
    return _names(session.service.publishing.channels, args)


def _check_one_pattern(args: Arguments) -> None:
    if len(args) > 3:
        raise CommandError(
            f"ERR unknown subcommand or wrong number of arguments for '{printable(args[1])[:128]}'. Try PUBSUB HELP."
        )


@command(
    "PUBSUB NUMSUB", arity=-2, flags=LOOKING, since="2.8.0", group="pubsub",
    summary="Returns a count of subscribers to channels.", complexity="O(N) where N is the number of channels named",
)  # fmt: skip
def pubsub_numsub(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _counts(session.service.publishing.channels, args)


@command(
    "PUBSUB NUMPAT", arity=2, flags=LOOKING, since="2.8.0", group="pubsub",
    summary="Returns a count of unique pattern subscriptions.",
)  # fmt: skip
def pubsub_numpat(session: Session, args: Arguments, now_ms: int) -> bytes:
    return integer(len(session.service.publishing.patterns.by_text))


@command(
    "PUBSUB SHARDCHANNELS", arity=-2, flags=LOOKING, since="7.0.0", group="pubsub",
    summary="Returns the active shard channels.", complexity="O(N) where N is the number of active shard channels",
)  # fmt: skip
def pubsub_shardchannels(session: Session, args: Arguments, now_ms: int) -> bytes:
    _check_one_pattern(args)
    return _names(session.service.publishing.shard_channels, args)


@command(
    "PUBSUB SHARDNUMSUB", arity=-2, flags=LOOKING, since="7.0.0", group="pubsub",
    summary="Returns the count of subscribers of shard channels.",
    complexity="O(N) where N is the number of channels named",
)  # fmt: skip
def pubsub_shardnumsub(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _counts(session.service.publishing.shard_channels, args)
