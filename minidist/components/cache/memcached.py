"""The cache's second listener: memcached's text protocol over the same keys.

As in server.py a client that does not read its replies is not read from, nor one whose write waits until room for it
has been made; what it has asked waits in `left`, which holds less than one read. A turn ends after COMMANDS_PER_TURN
requests or TURN_BYTES of replies.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from minidist import __version__
from minidist.engines.keyspace.errors import Postponed
from minidist.engines.keyspace.memcached import Memcached
from minidist.runtime.connection import Connection
from minidist.wire.memcached import MemcachedInspector, Refused, Request, RequestReader, only_get

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidist.components.cache.server import Cache
    from minidist.runtime.clock import ClockTimer
    from minidist.runtime.config import Address
    from minidist.runtime.endpoint import Listener

COMMANDS_PER_TURN = 256
TURN_BYTES = 64 * 1024


async def open_memcached(node: Cache, address: Address) -> Memcached:
    """Open the listener. Raises ListenError."""

    def call_at(at_ms: int, callback: Callable[[], object]) -> ClockTimer:
        def call() -> None:
            callback()
            node.perform()

        return node.clock.call_at(at_ms, call)

    memcached = Memcached(node.service, f"minidist-{__version__}", call_at)
    await node.listen(
        "memcached",
        address,
        lambda listener: MemcachedConnection(listener, node, memcached),
        inspector=MemcachedInspector(),
        outgoing=node.round,
    )
    return memcached


class MemcachedConnection(Connection):
    """One client."""

    __slots__ = ("left", "memcached", "node", "postponed", "reader")

    def __init__(self, listener: Listener[MemcachedConnection], node: Cache, memcached: Memcached) -> None:
        super().__init__(listener)
        self.node = node
        self.memcached = memcached
        self.reader = RequestReader(node.config.max_bulk)
        self.left: deque[Request | Refused | bytes] = deque()
        self.postponed = False

    def opened(self) -> None:
        self.memcached.connections += 1
        self.memcached.connections_made += 1

    def refused(self) -> bytes:
        return b"ERROR Too many open connections\r\n"

    def closed(self, error: Exception | None) -> None:
        self.memcached.connections -= 1
        self.node.waiting.pop(self, None)

    def data_received(self, data: bytes) -> None:
        self.touched = True
        if not self.left and self.reader.idle and not self.closing and (key := only_get(data)) is not None:
            round_ = self.node.round
            if not round_:
                round_.begin()
            round_.append((self, self.memcached.get(key, round_.now_ms)))
            return
        self.left.extend(self.reader.feed(data))
        if not self.postponed:
            self.go_on()

    def go_on(self) -> None:
        """Answer what is left until nothing is, until the client does not read, or until a write has to wait."""
        if self.postponed:
            self.postponed = False
            if not self.write_paused and not self.closing:
                self.transport.resume_reading()
        while self.left and not self.write_paused and not self.closing and not self.postponed:
            replies, leaves = self._turn()
            self.write(b"".join(replies))
            if leaves:
                self.close()
                return
            self.node.perform()

    def _turn(self) -> tuple[list[bytes], bool]:
        """The replies of one turn, and whether the connection ends with them."""
        replies: list[bytes] = []
        size = 0
        while self.left and len(replies) < COMMANDS_PER_TURN and size < TURN_BYTES:
            request = self.left.popleft()
            if isinstance(request, Request):
                try:
                    reply = self.memcached.run(request, self.node.clock.now_ms())
                except Postponed:
                    self.left.appendleft(request)
                    self._wait()
                    break
                if reply is None:
                    return replies, True
            else:
                reply = request if isinstance(request, bytes) else request.reply
            replies.append(reply)
            size += len(reply)
            if isinstance(request, Refused) and request.fatal:
                return replies, True
        return replies, False

    def _wait(self) -> None:
        """`Signal.RESUME` goes on."""
        self.postponed = True
        self.node.waiting[self] = None
        self.transport.pause_reading()

    def mid_request(self) -> bool:
        return not self.reader.idle

    def answer_instead(self, reply: bytes) -> None:
        self.left.append(reply)
        if not self.postponed:
            self.go_on()

    def resume_writing(self) -> None:
        if self.postponed:
            self.write_paused = False  # and reading stays paused
            return
        super().resume_writing()
        self.go_on()
