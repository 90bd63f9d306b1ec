"""Sockets and pipes as the kernel sees them: the only place that touches descriptors.

splice(2) moves pages from a socket into a pipe and on into another socket without a copy through this process. Both
sockets belong to transports of the loop, which must not notice: their reading is paused, their write buffers are empty,
and the readiness callbacks sit on duplicates of the descriptors (uvloop forbids `add_reader` on a transport's own, and
has no `loop.sendfile`). Bytes in the pipe have been read from the source and are owed to the sink.
"""

import asyncio
import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from minidist.runtime.connection import Connection

if TYPE_CHECKING:
    from minidist.runtime.relay.flow import Flow

# The pipe of a flow. More gains nothing measurable; an unprivileged user's pipes may hold 64 MiB together.
PIPE_BYTES = 256 * 1024
# One direction gives way to the rest of the node after so much: less than a millisecond.
WAKE_UP_BYTES = 4 * PIPE_BYTES
# A read that brought less has emptied the source for now: asking again would be in vain.
SHORT_READ_BYTES = 32 * 1024

CAN_SPLICE = hasattr(os, "splice")
SPLICE_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE if CAN_SPLICE else 0


def is_plain_socket(connection: Connection) -> bool:
    """Whether the kernel may move this connection's bytes: a socket of a real loop with nothing between."""
    transport = connection.transport
    return (
        CAN_SPLICE
        and not transport.is_closing()
        and type(transport).__module__.partition(".")[0] in ("asyncio", "uvloop")
        and transport.get_extra_info("socket") is not None
        and transport.get_extra_info("sslcontext") is None
    )


def duplicate(connection: Connection) -> int:
    return os.dup(connection.transport.get_extra_info("socket").fileno())


def drained(connection: Connection) -> bool:
    """Whether all that was written has left for the kernel; if not, `sink_resumed` will tell when it has."""
    if connection.transport.get_write_buffer_size() == 0:
        return True
    connection.transport.set_write_buffer_limits(high=0)
    return False


def restore_buffer_limits(connection: Connection) -> None:
    connection.transport.set_write_buffer_limits(high=connection.endpoint.limits.buffer_high_water_bytes or None)


class Splice:
    """Moves one flow's bytes through a pipe, on duplicates of the two descriptors."""

    __slots__ = (
        "_flow",
        "_held",
        "_loop",
        "_pipe_in",
        "_pipe_out",
        "_sink",
        "_sink_transport",
        "_source",
        "_source_transport",
    )

    def __init__(self, flow: "Flow") -> None:
        """Raises OSError when descriptors run out."""
        self._flow = flow
        self._loop = asyncio.get_running_loop()
        self._held = 0  # bytes in the pipe
        self._source_transport, self._sink_transport = flow.source.transport, flow.sink.transport
        self._pipe_out, self._pipe_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._source = self._sink = -1
        try:
            self._source, self._sink = duplicate(flow.source), duplicate(flow.sink)
        except OSError:
            self.close()
            raise
        with contextlib.suppress(OSError):  # over the user's limit the pipe stays as small as it is
            fcntl.fcntl(self._pipe_in, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._loop.add_reader(self._source, self._readable)

    def close(self) -> None:
        if self._source >= 0:
            self._loop.remove_reader(self._source)
        if self._sink >= 0:
            self._loop.remove_writer(self._sink)
        for descriptor in (self._source, self._sink, self._pipe_in, self._pipe_out):
            if descriptor >= 0:
                os.close(descriptor)
        self._source = self._sink = -1

    def _readable(self) -> None:
        flow = self._flow
        if not self._still_ours():
            return
        moved = 0
        while moved < WAKE_UP_BYTES:
            wanted = PIPE_BYTES if flow.left is None else min(flow.left, PIPE_BYTES)
            try:
                count = os.splice(self._source, self._pipe_in, wanted, flags=SPLICE_FLAGS)
            except BlockingIOError:
                return
            except OSError as error:
                flow.lost(source_lost=True, error=error)
                return
            if count == 0:
                flow.source_ended()
                return
            self._held = count
            if flow.left is not None:
                flow.left -= count
            if not self._push():
                return
            moved += count
            if count < SHORT_READ_BYTES:
                return

    def _push(self) -> bool:
        """Empty the pipe into the sink. False when it is full (`_writable` goes on) or the flow is over."""
        flow = self._flow
        while self._held:
            try:
                count = os.splice(self._pipe_out, self._sink, self._held, flags=SPLICE_FLAGS)
            except BlockingIOError:
                self._loop.remove_reader(self._source)
                self._loop.add_writer(self._sink, self._writable)
                return False
            except OSError as error:
                flow.lost(source_lost=False, error=error)
                return False
            self._held -= count
            flow.touch(count)
        if flow.left == 0:
            flow.end(None)
            return False
        return True

    def _writable(self) -> None:
        if self._still_ours() and self._push():
            self._loop.remove_writer(self._sink)
            self._loop.add_reader(self._source, self._readable)

    def _still_ours(self) -> bool:
        """False, and the flow copies again, when a fault's shim has come between a connection and its transport."""
        flow = self._flow
        if flow.source.transport is self._source_transport and flow.sink.transport is self._sink_transport:
            return True
        flow.back_to_copying(self.take_held())
        return False

    def take_held(self) -> bytes:
        """What is in the pipe."""
        count, self._held = self._held, 0
        self._flow.touch(count)
        return os.read(self._pipe_out, count) if count else b""
