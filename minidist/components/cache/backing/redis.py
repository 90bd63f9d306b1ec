"""A server that speaks Redis' protocol as backing store: GET with PTTL, SET with PX, DEL.

An error reply fails the request; unless it says UNKNOWN (another minidist's word for it), it had no effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidist.components.cache.backing.exchanges import ExchangeConnection, Exchanges
from minidist.components.cache.backing.store import BackingError
from minidist.engines.caching.requests import Found
from minidist.engines.keyspace.tables import NEVER
from minidist.wire.resp import encode_command
from minidist.wire.resp_client import NOTHING, ReplyError, ReplyReader
from minidist.wire.resp_plain import ProtocolError

if TYPE_CHECKING:
    from minidist.components.cache.backing.places import RedisPlace
    from minidist.runtime.clock import Clock
    from minidist.runtime.endpoint import Dialler

# What replies take besides a value.
OVERHEAD_BYTES = 64 * 1024


class Replies:
    """Reads so many replies, the answer to commands that were sent together."""

    persistent = True

    def __init__(self, count: int, longest_bytes: int) -> None:
        self._reader = ReplyReader()
        self._count = count
        self._left_bytes = longest_bytes + OVERHEAD_BYTES
        self._replies: list[Any] = []

    def feed(self, data: bytes) -> list[Any] | None:
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise ValueError("the answer is too large")
        try:
            self._reader.feed(data)
            while (reply := self._reader.next()) is not NOTHING:
                self._replies.append(reply)
        except ProtocolError as error:
            raise ValueError(str(error)) from None
        if len(self._replies) > self._count:
            raise ValueError("more replies than commands")
        return self._replies if len(self._replies) == self._count else None

    def eof(self) -> None:
        raise ValueError("connection closed before the answer")


class RedisStore:
    """Implements BackingStore."""

    def __init__(self, place: RedisPlace, dialler: Dialler, clock: Clock, longest_bytes: int, at_once: int) -> None:  # type: ignore[type-arg]
        self.at_once = at_once
        self._place = place
        self._clock = clock
        self._longest_bytes = longest_bytes
        self._exchanges = Exchanges(dialler, place.address, self._greet)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        self._exchanges.close()

    async def _greet(self, connection: ExchangeConnection) -> None:
        place = self._place
        commands = []
        if place.password:
            words = [place.username, place.password] if place.username else [place.password]
            commands.append([b"AUTH", *(word.encode() for word in words)])
        if place.database:
            commands.append([b"SELECT", b"%d" % place.database])
        if commands:
            payload = b"".join(map(encode_command, commands))
            for reply in await connection.ask(payload, Replies(len(commands), 0)):
                if reply != b"OK":
                    raise BackingError(f"answered {_shown(reply)}")

    async def load(self, key: bytes, until_s: float) -> Found | None:
        value, ttl_ms = await self._ask(until_s, [b"GET", key], [b"PTTL", key])
        for reply in (value, ttl_ms):
            if isinstance(reply, ReplyError):
                raise BackingError(f"answered {reply}")
        if value is None:
            return None
        if not isinstance(value, bytes) or not isinstance(ttl_ms, int):
            raise BackingError(f"answered wrongly: {_shown(value)} and {_shown(ttl_ms)}")
        # -1: no lifetime; -2: its lifetime has ended between the two commands.
        return Found(value, NEVER if ttl_ms == -1 else self._clock.now_ms() + max(ttl_ms, 1))

    async def store(self, key: bytes, value: bytes, ttl_ms: int | None, until_s: float) -> None:
        lifetime = [] if ttl_ms is None else [b"PX", b"%d" % ttl_ms]
        (reply,) = await self._ask(until_s, [b"SET", key, value, *lifetime])
        if reply != b"OK":
            raise _refused(reply)

    async def delete(self, key: bytes, until_s: float) -> None:
        (reply,) = await self._ask(until_s, [b"DEL", key])
        if not isinstance(reply, int):
            raise _refused(reply)

    async def _ask(self, until_s: float, *commands: list[bytes]) -> list[Any]:
        payload = b"".join(map(encode_command, commands))
        replies: list[Any] = await self._exchanges.exchange(
            payload,
            lambda: Replies(len(commands), self._longest_bytes),
            until_s=until_s,
            writes=commands[0][0] != b"GET",
        )
        return replies


def _refused(reply: object) -> BackingError:
    certain = isinstance(reply, ReplyError) and not str(reply).startswith("UNKNOWN")
    return BackingError(f"answered {_shown(reply)}", happened=not certain)


def _shown(reply: object) -> str:
    return str(reply) if isinstance(reply, ReplyError) else repr(reply)[:100]
