"""What stands between the loop's transport and a connection while a fault is set on it.

To the loop the shim is the protocol, to the connection it is the transport. Each direction is a `Pipe`. When the last
fault has gone and both pipes are empty, the shim takes itself out again, so that a stream without faults costs nothing.

    loop's transport ⇄ Shim (protocol | transport) ⇄ Connection

End of file and loss of the connection travel through the incoming pipe behind the bytes before them: a partitioned node
does not learn that its peer has gone. What the node itself does (close after everything was sent, abort) is immediate.

The connection may be a stand-in (relay): events go to whatever protocol the transport had, and has at the end.
"""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from minidist.runtime.connection import Connection
from minidist.runtime.faults.pipe import Pipe
from minidist.runtime.faults.spec import Direction, Fault, Kind

if TYPE_CHECKING:
    from minidist.runtime.faults.faultset import FaultSet

# A pipe that holds more pauses its source (the sender sees back-pressure, as of a full socket buffer) until it holds
# a quarter of it.
PIPE_LIMIT_BYTES = 1 << 20
LOW_WATER_BYTES = PIPE_LIMIT_BYTES // 4
# A request of which so much has come without an end is let through unseen.
LONGEST_REQUEST_BYTES = 1 << 20


class Shim(asyncio.Transport, asyncio.Protocol):
    """Protocol towards the loop's transport, transport towards the connection."""

    def __init__(self, faultset: "FaultSet", connection: Connection, new: bool) -> None:
        super().__init__()
        self.faultset = faultset
        self.connection = connection
        self.real = connection.transport
        # Where events go: the connection, or what stands in for it (relay).
        self.protocol = cast(asyncio.Protocol, self.real.get_protocol())
        self.loop = asyncio.get_running_loop()
        self.incoming = Pipe(faultset, connection, Direction.IN, self._arrived, self.struck, self._settle_soon)
        self.outgoing = Pipe(faultset, connection, Direction.OUT, self._leaves, self.struck, self._settle_soon)
        self.counted: list[str] = []  # ids of the faults that have counted this connection
        self._requests = b""  # the start of a request, while a reply fault waits for its end
        self._at_request = True  # whether the next byte begins a request, as far as anybody knows
        self._unopened = new  # the protocol cannot be asked yet: nothing has arrived for it
        # As the protocol left it: it may have paused reading, and have been told to pause writing. (uvloop begins to
        # read a new connection only after connection_made.)
        self._reading = new or self.real.is_reading()
        self.incoming.held = not self._reading
        self._told_pause = self.outgoing.held = connection.write_paused
        self._full = False  # the incoming pipe has paused the loop's transport
        self._ended = False  # the peer's end of file has come
        self._wants_close = False
        self._lost: tuple[Exception | None] | None = None  # the loop's transport is gone, with this error
        self._gone = False  # … and the protocol knows, or the shim has left
        self._settling = False
        self.real.set_protocol(self)
        connection.transport = self

    def apply(self, faults: list[Fault], hurry: bool) -> None:
        """These faults hold from now on; with none, what still waits goes out and the shim leaves."""
        had_replies = bool(self._replies())
        for pipe in (self.incoming, self.outgoing):
            pipe.apply([fault for fault in faults if fault.acts_on(pipe.direction)], hurry)
        if self._replies() and not had_replies:
            self._at_request = self._unopened or not self.connection.mid_request()
        elif had_replies and not self._replies():
            self.incoming.put_back(self._requests)
            self._requests = b""
        self._unopened = False
        for fault in faults:
            if fault.kind is Kind.RESET and not fault.number("after_bytes") and not fault.spent:
                self.struck(fault)
                return

    def struck(self, fault: Fault) -> None:
        """A reset fault has used up its bytes."""
        self.faultset.fired(fault)
        self.incoming.drop_data()
        self.outgoing.drop_data()
        Connection.reset(self.connection)

    def _settle_soon(self) -> None:
        if not self._settling:
            self._settling = True
            self.loop.call_soon(self._settle)

    def _settle(self) -> None:
        """A pipe ran: who was paused may go on, close if that was asked for, leave if nothing holds us."""
        self._settling = False
        if self._gone:
            return
        if self._told_pause and not self.outgoing.held and self.outgoing.size <= LOW_WATER_BYTES:
            self._told_pause = False
            self.protocol.resume_writing()
        if self._full and self.incoming.size <= LOW_WATER_BYTES:
            self._full = False
            self._resume_real()
        if self._wants_close and not self.outgoing.queue:
            self.real.close()
        if self._idle():
            self.real.set_protocol(self.protocol)
            self.end()

    def _idle(self) -> bool:
        busy = self.incoming.queue or self.outgoing.queue or self._requests or self.outgoing.held or self._full
        faults = self.incoming.faults or self.outgoing.faults
        return not (busy or faults or self._told_pause or self.real.is_closing())

    def end(self) -> None:
        """Take the shim out: the connection is on the loop's transport again."""
        self._gone = True
        self.connection.transport = self.real
        self.faultset.detached(self.connection)
        self.incoming.close()
        self.outgoing.close()

    # --- incoming: the protocol that the loop's transport sees ------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._wants_close:
            return
        self.incoming.put(data)
        if self.incoming.size > PIPE_LIMIT_BYTES and not self._full and not self.real.is_closing():
            self._full = True
            self.real.pause_reading()

    def eof_received(self) -> bool:
        if not self._ended:  # some transports say it again when reading is resumed
            self._ended = True
            self.incoming.put_last(self._eof)
        # A TLS transport cannot stay half open, and warns when asked to.
        return self.real.get_extra_info("sslcontext") is None

    def _eof(self) -> None:
        if not self.protocol.eof_received():
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = (exc,)
        if self._wants_close or self.connection.closing:
            self._tell_lost()
        else:
            self.incoming.put_last(self._tell_lost)

    def _tell_lost(self) -> None:
        if not self._gone and self._lost is not None:
            self.end()
            self.protocol.connection_lost(self._lost[0])

    def pause_writing(self) -> None:
        self.outgoing.held = True

    def resume_writing(self) -> None:
        self.outgoing.held = False
        self.outgoing.run()

    # --- requests, for reply faults ---------------------------------------------------------------------------------

    def _replies(self) -> list[Fault]:
        return [fault for fault in self.incoming.faults if fault.kind is Kind.REPLY and not fault.spent]

    def _arrived(self, data: bytes) -> None:
        """Bytes reach the connection; requests that a reply fault chooses are answered instead."""
        inspector = self.connection.endpoint.inspector
        if inspector is None or not self._replies():
            self.protocol.data_received(data)
        elif not self._at_request:
            self.protocol.data_received(data)
            self._at_request = not self.connection.mid_request()
        else:
            buffer, self._requests = self._requests + data, b""
            self._requests = self._answered(buffer)
            if self._requests and (len(self._requests) > LONGEST_REQUEST_BYTES or not self._replies()):
                rest, self._requests = self._requests, b""
                self._at_request = False
                self.protocol.data_received(rest)

    def _answered(self, buffer: bytes) -> bytes:
        """Pass on or answer every whole request; what is left of the buffer."""
        inspector = self.connection.endpoint.inspector
        assert inspector is not None
        start = 0
        for name, key, end in inspector.requests(buffer):
            if self._wants_close or self.real.is_closing():
                return b""
            if self.incoming.held:
                self.incoming.put_back(buffer[start:])
                return b""
            fault = next((f for f in self._replies() if f.matches_request(name, key) and self.faultset.hits(f)), None)
            if fault is None:
                self.protocol.data_received(buffer[start:end])
            else:
                self.connection.answer_instead(inspector.error_reply(buffer[start:end], str(fault.parameters["error"])))
            start = end
        return buffer[start:]

    # --- outgoing: the transport that the connection sees -----------------------------------------------------------

    def write(self, data: Any) -> None:
        if data and not self._wants_close and self._lost is None:
            self.outgoing.put(bytes(data))
            if self.outgoing.size > PIPE_LIMIT_BYTES and not self._told_pause:
                self._told_pause = True
                self.protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def _leaves(self, data: bytes) -> None:
        if not self.real.is_closing():
            self.real.write(data)

    def write_eof(self) -> None:
        self.outgoing.put_last(self._leaves_eof)

    def _leaves_eof(self) -> None:
        if not self.real.is_closing():
            self.real.write_eof()

    def can_write_eof(self) -> bool:
        return self.real.can_write_eof()

    def close(self) -> None:
        self._wants_close = True
        self.incoming.drop_data()
        if self._lost is not None:
            self.loop.call_soon(self._tell_lost)
        elif not self.outgoing.queue:
            self.real.close()

    def abort(self) -> None:
        self._wants_close = True
        self.incoming.drop_data()
        self.outgoing.drop_data()
        if self._lost is not None:
            self.loop.call_soon(self._tell_lost)
        self.real.abort()

    def is_closing(self) -> bool:
        return self._wants_close or self.real.is_closing()

    def pause_reading(self) -> None:
        self._reading = False
        self.incoming.held = True
        if not self.real.is_closing():
            self.real.pause_reading()

    def resume_reading(self) -> None:
        self._reading = True
        self.incoming.held = False
        self.incoming.run_soon()
        self._resume_real()

    def _resume_real(self) -> None:
        if self._reading and not self._full and not self._ended and not self.real.is_closing():
            self.real.resume_reading()

    def is_reading(self) -> bool:
        return self._reading

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.real.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self.outgoing.size + self.real.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.real.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self.real.get_write_buffer_limits()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol
