"""The body of a request on its way from client to upstream.

What the client sends is checked, counted, framed anew and handed back to be written: nothing is held. The rest of a
long body of known length is left to the relay, which moves it inside the kernel.
"""

import asyncio
from collections.abc import Callable

from minidist.runtime.connection import Connection
from minidist.runtime.relay import RelayBroken, relay_exactly
from minidist.runtime.relay.flow import BULK_BYTES
from minidist.wire.http1 import CHUNKED, HttpError, LengthReader, Limits, body_reader, chunk, last_chunk


class Upload:
    """One request body."""

    __slots__ = ("bytes_in", "chunking", "max_bytes", "reader", "relay")

    def __init__(self, length: int, limits: Limits, max_bytes: int) -> None:
        """`length` as heads give it; `max_bytes` 0 for any. Raises HttpError(413)."""
        self.chunking = length == CHUNKED
        self.reader = body_reader(length, limits)
        self.max_bytes = max_bytes
        self.bytes_in = 0
        self.relay: asyncio.Future[int] | None = None
        self._check(max(length, 0))

    def _check(self, size: int) -> None:
        if self.max_bytes and size > self.max_bytes:
            raise HttpError(413, f"body is larger than {self.max_bytes} bytes")

    @property
    def done(self) -> bool:
        return self.reader.done

    def take(self, data: bytes) -> tuple[bytes, int]:
        """What to write for these bytes, and the index just past those of the body. Raises HttpError(400), (413)."""
        payload, end = self.reader.feed(data)
        self.bytes_in += len(payload)
        self._check(self.bytes_in)
        if self.chunking:
            payload = chunk(payload)
            if self.reader.done:
                payload += last_chunk(self.reader.trailers)
        return payload, end

    @property
    def is_bulk(self) -> bool:
        """So much is still to come, and so plainly, that the relay does it better."""
        return isinstance(self.reader, LengthReader) and self.reader.remaining >= BULK_BYTES

    def hand_over(self, client: Connection, upstream: Connection, complete: Callable[[], object]) -> None:
        """Let the relay move the rest, then call `complete`; if it breaks, the connections' own ends tell."""
        assert isinstance(self.reader, LengthReader)

        def ended(error: RelayBroken | None) -> None:
            if error is None and self.relay is not None:
                complete()

        self.relay = relay_exactly(client, upstream, self.reader.remaining, on_end=ended)

    def stop(self) -> None:
        """Move no more."""
        if self.relay is not None:
            relay, self.relay = self.relay, None
            relay.cancel()
