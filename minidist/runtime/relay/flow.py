"""One direction of a relay: copies, and changes to splicing when that pays.

    COPYING    data_received → transport.write of the other side. Best for small reads, and always right.
    DRAINING   many large reads in a row: reading is paused until what was written has left the buffer of the sink …
    SPLICING   … then bytes go from socket to socket inside the kernel (kernel.py).

A flow splices only between plain sockets of a real loop. TLS, faults (the transport is then a shim), other systems
than Linux and the simulation stay with copying. A shim that is put in while a flow splices takes it back to copying
before another byte is read, because each step looks whether `connection.transport` is still the one it took over.
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import cast

from minidist.runtime.connection import Connection
from minidist.runtime.relay.ends import End, RelayBroken
from minidist.runtime.relay.kernel import Splice, drained, is_plain_socket, restore_buffer_limits

# A flow is worth a pipe when it reads this much at a time, so many times in a row (2 MiB: below, set-up costs more).
BULK_READ_BYTES = 32 * 1024
BULK_READS = 64
# The same judgement for a flow whose length is known.
BULK_BYTES = BULK_READ_BYTES * BULK_READS


class Mode(Enum):
    COPYING = "copying"
    DRAINING = "draining"
    SPLICING = "splicing"
    ENDED = "ended"


class Flow:
    """One direction. `on_end(flow, error)` is called once: error None after the last byte or end-of-file."""

    __slots__ = ("_bulk_reads", "_splice", "carried", "left", "mode", "on_end", "sink", "source")

    def __init__(
        self,
        source: Connection,
        sink: Connection,
        left: int | None,
        on_end: "Callable[[Flow, RelayBroken | None], None]",
    ) -> None:
        self.source = source
        self.sink = sink
        self.left = left  # bytes still to come; None: until end-of-file
        self.carried = 0
        self.on_end = on_end
        self.mode = Mode.COPYING
        self._bulk_reads = 0
        self._splice: Splice | None = None
        if source.transport.is_closing() or sink.transport.is_closing():
            asyncio.get_running_loop().call_soon(self.lost, source.transport.is_closing(), None)
            return
        source_end, sink_end = End.of(source), End.of(sink)
        assert source_end.source_of is None, "the source is being relayed already"
        assert sink_end.sink_of is None, "the sink is being written to already"
        source_end.source_of = sink_end.sink_of = self
        if sink.write_paused:
            source.transport.pause_reading()
        else:
            source.transport.resume_reading()
        if left is not None and left >= BULK_BYTES:
            self._try_splice()

    # --- copying ----------------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        rest = b""
        if self._splice is not None:  # a fault's shim has begun to read: what is in the pipe goes first
            self.back_to_copying(self._splice.take_held())
            if self.mode is Mode.ENDED:
                self._hand_over(data)
                return
        if self.left is not None:
            if len(data) > self.left:
                data, rest = data[: self.left], data[self.left :]
            self.left -= len(data)
        self.touch(len(data))
        self.sink.transport.write(data)
        if self.left == 0:
            self.end(None)
            if rest:
                self._hand_over(rest)
        elif len(data) < BULK_READ_BYTES:
            self._bulk_reads = 0
        else:
            self._bulk_reads += 1
            if self._bulk_reads >= BULK_READS:
                self._bulk_reads = 0
                self._try_splice()

    def _hand_over(self, data: bytes) -> None:
        """What came after the last byte belongs to whoever reads the source now."""
        if not self.source.closing:
            cast(asyncio.Protocol, self.source.transport.get_protocol()).data_received(data)

    def touch(self, count: int) -> None:
        self.carried += count
        self.source.touched = self.sink.touched = True

    def sink_paused(self) -> None:
        if self.mode is Mode.COPYING:
            self.source.transport.pause_reading()

    def sink_resumed(self) -> None:
        if self.mode is Mode.DRAINING:
            self._start_splice()
        elif self.mode is Mode.COPYING:
            self.source.transport.resume_reading()

    # --- splicing ---------------------------------------------------------------------------------------------------

    def _try_splice(self) -> None:
        if not (is_plain_socket(self.source) and is_plain_socket(self.sink)):
            return
        self.mode = Mode.DRAINING
        self.source.transport.pause_reading()
        if drained(self.sink):
            self._start_splice()

    def _start_splice(self) -> None:
        restore_buffer_limits(self.sink)
        if not (is_plain_socket(self.source) and is_plain_socket(self.sink)):  # a fault was set meanwhile
            self.back_to_copying(b"")
            return
        try:
            self._splice = Splice(self)
        except OSError:  # no descriptor or pipe to be had: copying needs none
            self.back_to_copying(b"")
        else:
            self.mode = Mode.SPLICING

    def back_to_copying(self, held: bytes) -> None:
        """Carry on through the transports, first with what was in the pipe."""
        self._stop_splice()
        self.mode = Mode.COPYING
        if held:
            self.sink.transport.write(held)
        if self.left == 0:
            self.end(None)
        elif not self.sink.write_paused:
            self.source.transport.resume_reading()

    def _stop_splice(self) -> None:
        if self._splice is not None:
            self._splice.close()
            self._splice = None

    # --- ends -------------------------------------------------------------------------------------------------------

    def source_ended(self) -> None:
        """End-of-file at the source. Some transports tell it again when reading is resumed."""
        if self.left is None:
            self.end(None)
        else:
            self.lost(source_lost=True, error=None)

    def lost(self, source_lost: bool, error: Exception | None) -> None:
        self.end(RelayBroken(source_lost, self.carried, error))

    def end(self, error: RelayBroken | None) -> None:
        """Give both connections back to themselves, then tell.

        After an end-of-file they stay with the relay: all that is left for them is to be closed.
        """
        if self.mode is Mode.ENDED:
            return
        self._stop_splice()
        if self.mode is Mode.DRAINING and not self.sink.transport.is_closing():
            restore_buffer_limits(self.sink)
        self.mode = Mode.ENDED
        if self.left is not None:
            self._give_back()
        self.on_end(self, error)

    def _give_back(self) -> None:
        for connection in (self.source, self.sink):
            end = connection.transport.get_protocol()
            if isinstance(end, End):
                end.source_of = None if end.source_of is self else end.source_of
                end.sink_of = None if end.sink_of is self else end.sink_of
                end.release()
        if not self.source.closing and not self.source.write_paused:
            self.source.transport.resume_reading()
