"""From a file to a connection: by sendfile where the kernel may, else read and written."""

import asyncio
import os

from minidist.runtime.connection import Connection
from minidist.runtime.disk.port import File
from minidist.runtime.relay.ends import End, RelayBroken
from minidist.runtime.relay.kernel import WAKE_UP_BYTES, drained, duplicate, is_plain_socket, restore_buffer_limits

COPY_BYTES = 256 * 1024


class FileTooShort(Exception):
    """The file ended before `count` bytes: what was promised to the peer cannot be kept, so close the connection."""


async def send_file(connection: Connection, file: File, offset: int, count: int) -> None:
    """Send `count` bytes of a file from `offset`, after what was written before; nobody else may write meanwhile.

    Returns when the last byte has left for the kernel (sendfile) or for the transport's buffer (copying). Raises
    FileTooShort, RelayBroken when the connection is lost, and DiskError when a copied read fails.
    """
    flow = _FileFlow(connection)
    try:
        sent = await flow.send(file, offset, count)
        while sent < count:
            data = await file.read_at(offset + sent, min(COPY_BYTES, count - sent))
            if not data:
                raise FileTooShort(f"{file.path!r} ended {count - sent} bytes early")
            await flow.write(data)
            sent += len(data)
    finally:
        flow.release()


class _FileFlow:
    """From a file to a connection."""

    __slots__ = ("_connection", "_resumed")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._resumed: asyncio.Future[None] | None = None
        if connection.transport.is_closing():
            raise RelayBroken(False, 0, None)
        end = End.of(connection)
        assert end.sink_of is None, "the connection is being written to already"
        end.sink_of = self

    def release(self) -> None:
        end = self._connection.transport.get_protocol()
        if isinstance(end, End) and end.sink_of is self:
            end.sink_of = None
            end.release()

    async def send(self, file: File, offset: int, count: int) -> int:
        """Send what can be sent by sendfile; the rest, if the result is less than `count`, must be copied."""
        descriptor = file.descriptor()
        if descriptor is None or not is_plain_socket(self._connection):
            return 0
        loop = asyncio.get_running_loop()
        transport = self._connection.transport
        source, sink = os.dup(descriptor), duplicate(self._connection)
        try:
            if not drained(self._connection):
                await self._taken()
            sent = 0
            while sent < count and self._connection.transport is transport:
                try:
                    step = os.sendfile(sink, source, offset + sent, min(WAKE_UP_BYTES, count - sent))
                except BlockingIOError:
                    step = -1
                except OSError as error:
                    raise RelayBroken(False, sent, error) from error
                if step == 0:
                    raise FileTooShort(f"{file.path!r} ended {count - sent} bytes early")
                if step > 0:
                    sent += step
                    self._connection.touched = True
                if sent < count:
                    loop.add_writer(sink, self.sink_resumed)
                    await self._taken()
                    loop.remove_writer(sink)
            return sent
        finally:
            loop.remove_writer(sink)
            os.close(sink)
            os.close(source)
            if not transport.is_closing():
                restore_buffer_limits(self._connection)

    async def write(self, data: bytes) -> None:
        if self._connection.transport.is_closing():
            raise RelayBroken(False, 0, None)
        self._connection.transport.write(data)
        self._connection.touched = True
        if self._connection.write_paused:
            await self._taken()

    async def _taken(self) -> None:
        """Until the connection takes bytes again. Raises RelayBroken when it is lost instead."""
        if self._connection.transport.is_closing():
            raise RelayBroken(False, 0, None)
        self._resumed = asyncio.get_running_loop().create_future()
        try:
            await self._resumed
        finally:
            self._resumed = None

    def sink_paused(self) -> None:
        """Nothing to pause: each step asks first."""

    def sink_resumed(self) -> None:
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    def lost(self, source_lost: bool, error: Exception | None) -> None:
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_exception(RelayBroken(source_lost, 0, error))
