"""Pub/sub: who listens to which channel or pattern, and what a message looks like to them.

A message is encoded at most once for each protocol, whatever the number of its receivers; those of a channel are one
`Push` output. Patterns are found by the text they begin with (`news.` of `news.*`): publishing looks up as many
beginnings of the channel as there are different lengths of such texts, and tries only the patterns under those.

A channel's own subscribers get a message before those of patterns, patterns with the shorter beginning first. Somebody
who publishes to itself (RESP3 only) finds the message before the reply of its command.

Keyspace notifications are messages on channels like any others (`tell`), made only while somebody listens at all.

Source: https://redis.io/docs/latest/develop/interact/pubsub/
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minidist.engines.keyspace import events
from minidist.structures.glob import Matcher, glob_matcher
from minidist.wire.resp_replies import bulk, bulks, push_header

if TYPE_CHECKING:
    from minidist.engines.keyspace.session import Session

# Patterns are told apart by at most this much of their beginning, so that a channel is cut at few places.
LONGEST_BEGINNING = 32
LITERAL = re.compile(rb"[^*?\[\\]*")

Sessions = dict["Session", None]
Deliver = Callable[[list["Session"], bytes], None]


class Subscriptions:
    """What one session listens to, in the order in which it asked; each dict is used as an ordered set."""

    __slots__ = ("channels", "patterns", "shard_channels")

    def __init__(self) -> None:
        self.channels: dict[bytes, None] = {}
        self.patterns: dict[bytes, None] = {}
        self.shard_channels: dict[bytes, None] = {}

    @property
    def count(self) -> int:
        """What replies of SUBSCRIBE and PSUBSCRIBE count; SSUBSCRIBE's count shard channels alone."""
        return len(self.channels) + len(self.patterns)

    def __bool__(self) -> bool:
        return bool(self.channels or self.patterns or self.shard_channels)


@dataclass(slots=True, eq=False)
class Pattern:
    """A pattern that somebody listens to."""

    text: bytes
    matches: Matcher
    sessions: Sessions


NO_PATTERNS: dict[bytes, Pattern] = {}


class Patterns:
    """All patterns, by what they begin with."""

    def __init__(self) -> None:
        self.by_text: dict[bytes, Pattern] = {}
        self._by_beginning: dict[int, dict[bytes, dict[bytes, Pattern]]] = {}

    def add(self, text: bytes, session: "Session") -> None:
        pattern = self.by_text.get(text)
        if pattern is None:
            pattern = self.by_text[text] = Pattern(text, glob_matcher(text), {})
            beginning = beginning_of(text)
            by_text = self._by_beginning.setdefault(len(beginning), {}).setdefault(beginning, {})
            by_text[text] = pattern
        pattern.sessions[session] = None

    def remove(self, text: bytes, session: "Session") -> None:
        pattern = self.by_text[text]
        del pattern.sessions[session]
        if pattern.sessions:
            return
        del self.by_text[text]
        beginning = beginning_of(text)
        of_length = self._by_beginning[len(beginning)]
        del of_length[beginning][text]
        if not of_length[beginning]:
            del of_length[beginning]
        if not of_length:
            del self._by_beginning[len(beginning)]

    def matching(self, channel: bytes) -> list[Pattern]:
        """Those that a channel matches. O(different lengths of beginnings + patterns with its beginnings)."""
        candidates = [
            pattern
            for length in sorted(self._by_beginning)
            for pattern in self._by_beginning[length].get(channel[:length], NO_PATTERNS).values()
        ]
        return [pattern for pattern in candidates if pattern.matches(channel)]


def beginning_of(pattern: bytes) -> bytes:
    """The bytes that whatever matches begins with, as far as patterns are told apart by them."""
    literal = LITERAL.match(pattern)
    assert literal is not None
    return literal.group()[:LONGEST_BEGINNING]


class Publishing:
    """All subscriptions of a node. `deliver(sessions, message)` takes encoded messages on their way."""

    def __init__(self, deliver: Deliver) -> None:
        self.channels: dict[bytes, Sessions] = {}
        self.shard_channels: dict[bytes, Sessions] = {}
        self.patterns = Patterns()
        self.events = 0  # which keyspace events are told, and where (events.py)
        self._deliver = deliver

    # --- subscribing ------------------------------------------------------------------------------------------------

    def subscribe(self, session: "Session", channel: bytes) -> None:
        self.channels.setdefault(channel, {})[session] = None
        session.subscriptions.channels[channel] = None

    def subscribe_shard(self, session: "Session", channel: bytes) -> None:
        self.shard_channels.setdefault(channel, {})[session] = None
        session.subscriptions.shard_channels[channel] = None

    def subscribe_pattern(self, session: "Session", pattern: bytes) -> None:
        self.patterns.add(pattern, session)
        session.subscriptions.patterns[pattern] = None

    def unsubscribe(self, session: "Session", channel: bytes) -> None:
        if channel in session.subscriptions.channels:
            del session.subscriptions.channels[channel]
            _leave(self.channels, channel, session)

    def unsubscribe_shard(self, session: "Session", channel: bytes) -> None:
        if channel in session.subscriptions.shard_channels:
            del session.subscriptions.shard_channels[channel]
            _leave(self.shard_channels, channel, session)

    def unsubscribe_pattern(self, session: "Session", pattern: bytes) -> None:
        if pattern in session.subscriptions.patterns:
            del session.subscriptions.patterns[pattern]
            self.patterns.remove(pattern, session)

    def leave(self, session: "Session") -> None:
        """A client is gone, or starts anew."""
        subscriptions = session.subscriptions
        for channel in list(subscriptions.channels):
            self.unsubscribe(session, channel)
        for channel in list(subscriptions.shard_channels):
            self.unsubscribe_shard(session, channel)
        for pattern in list(subscriptions.patterns):
            self.unsubscribe_pattern(session, pattern)

    # --- publishing -------------------------------------------------------------------------------------------------

    def publish(self, channel: bytes, message: bytes) -> int:
        """Send a message to all who listen; how many times it was sent (once for each subscription that matches)."""
        receivers = 0
        sessions = self.channels.get(channel)
        if sessions is not None:
            receivers = self._send(sessions, (b"message", channel, message))
        if self.patterns.by_text:
            for pattern in self.patterns.matching(channel):
                receivers += self._send(pattern.sessions, (b"pmessage", pattern.text, channel, message))
        return receivers

    def publish_shard(self, channel: bytes, message: bytes) -> int:
        """The same for shard channels, which have no patterns."""
        sessions = self.shard_channels.get(channel)
        return 0 if sessions is None else self._send(sessions, (b"smessage", channel, message))

    def _send(self, sessions: Iterable["Session"], words: tuple[bytes, ...]) -> int:
        by_protocol: tuple[list[Session], list[Session]] = ([], [])
        for session in sessions:
            by_protocol[session.resp3].append(session)
        body = b"".join(map(bulk, words))
        for resp3, receivers in enumerate(by_protocol):
            if receivers:
                self._deliver(receivers, push_header(len(words), bool(resp3)) + body)
        return len(by_protocol[0]) + len(by_protocol[1])

    def tell(self, number: int, kind: int, event: bytes, key: bytes) -> None:
        """A keyspace event of a database, by its number. The keyspace asks for kinds that are wanted only."""
        if not self.channels and not self.patterns.by_text:
            return
        if self.events & events.KEYSPACE:
            self.publish(b"__keyspace@%d__:%b" % (number, key), event)
        if self.events & events.KEYEVENT:
            self.publish(b"__keyevent@%d__:%b" % (number, event), key)


def _leave(channels: dict[bytes, Sessions], channel: bytes, session: "Session") -> None:
    sessions = channels[channel]
    del sessions[session]
    if not sessions:
        del channels[channel]


def confirmation(kind: bytes, name: bytes | None, count: int, session: "Session") -> bytes:
    """What answers each channel of SUBSCRIBE and its kin: what was done, to which channel, how many there are now."""
    shown = session.null if name is None else bulk(name)
    return push_header(3, session.resp3) + bulk(kind) + shown + b":%d\r\n" % count


def pong(words: tuple[bytes, ...]) -> bytes:
    """What PING answers to a subscriber that speaks RESP2, in the shape of a message."""
    return bulks([b"pong", words[0] if words else b""])
