"""The cache's second listener: memcached's text protocol over the same keys.

As in server.py a client that does not read its replies is not read from; what it has asked waits in `left`, which holds
less than one read. A turn ends after COMMANDS_PER_TURN requests or TURN_BYTES of replies.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from minidist import __version__
from minidist.engines.keyspace.memcached import Memcached
from minidist.runtime.connection import Connection
from minidist.wire.memcached import MemcachedInspector, Refused, Request, RequestReader

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
    )
    return memcached


class MemcachedConnection(Connection):
    """One client."""

    __slots__ = ("left", "memcached", "node", "reader")

    def __init__(self, listener: Listener[MemcachedConnection], node: Cache, memcached: Memcached) -> None:
        super().__init__(listener)
        self.node = node
        self.memcached = memcached
        self.reader = RequestReader(node.config.max_bulk)
        self.left: deque[Request | Refused | bytes] = deque()

    def refused(self) -> bytes:
        return b"ERROR Too many open connections\r\n"

    def data_received(self, data: bytes) -> None:
        self.touched = True
        self.left.extend(self.reader.feed(data))
        self.go_on()

    def go_on(self) -> None:
        """Answer what is left until nothing is, or until the client does not read."""
        while self.left and not self.write_paused and not self.closing:
            replies: list[bytes] = []
            size = 0
            while self.left and len(replies) < COMMANDS_PER_TURN and size < TURN_BYTES:
                reply = self._answer(self.left.popleft())
                if reply is None:
                    self.write(b"".join(replies))
                    self.close()
                    return
                replies.append(reply)
                size += len(reply)
            self.write(b"".join(replies))
            self.node.perform()

    def _answer(self, request: Request | Refused | bytes) -> bytes | None:
        """The reply; None to close."""
        if isinstance(request, bytes):
            return request
        if isinstance(request, Refused):
            if request.fatal:
                self.write(request.reply)
                return None
            return request.reply
        return self.memcached.run(request, self.node.clock.now_ms())

    def mid_request(self) -> bool:
        return not self.reader.idle

    def answer_instead(self, reply: bytes) -> None:
        self.left.append(reply)
        self.go_on()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.go_on()
