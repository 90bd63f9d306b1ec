"""Simulated TCP connections: the socket in a host's kernel, and asyncio's transport on top.

A connection is two directions (directions.py) between two `SimTransport`s. The transport is the process's side: the
user-space buffer, `pause_writing`, reading into a protocol, exactly in asyncio's order (selector_events.py): every call
of a protocol comes from the loop.

How a connection can end, as Linux does it:
  closed with everything read        end-of-file for the peer; what it sends after that is answered with a reset
  closed with unread data, or with SO_LINGER (on, 0)     a reset
  process killed                     as closed, but what was in the user-space buffer is lost
  machine without power              silence; retransmissions end in ETIMEDOUT, or in a reset by the restarted machine
A reset is not retransmitted: one that runs into a partition is lost, and the peer learns of it when it sends.
"""

import asyncio
import collections
import contextvars
import errno
import os
import socket
from typing import TYPE_CHECKING, Any

from minidist.sim.directions import Direction, Mark
from minidist.sim.host import Host
from minidist.sim.sockets import SimSocket, SocketAddress

if TYPE_CHECKING:
    from minidist.sim.network import Network
    from minidist.sim.servers import SimServer

HIGH_WATER_BYTES = 64 * 1024
READ_BYTES = 256 * 1024  # of one recv


class SimTransport(asyncio.Transport):
    """One end of a connection: asyncio's selector transport, with the kernel's socket behind it."""

    out: Direction
    into: Direction

    def __init__(
        self,
        network: "Network",
        host: Host,
        local: SocketAddress,
        peer: SocketAddress,
        context: contextvars.Context,
        server: "SimServer | None" = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.host = host
        self.context = context
        self.server = server
        self.protocol: Any = None
        self._buffered_protocol = False
        # The process's side.
        self.pending = bytearray()  # written, and not yet taken by the kernel
        self._opened = False
        self._closing = False
        self._lost = False  # connection_lost was called or is about to be
        self._reading_paused = False
        self._read_scheduled = False
        self._eof_written = False
        self._eof_told = False
        self._writing_paused = False
        self._high, self._low = HIGH_WATER_BYTES, HIGH_WATER_BYTES // 4
        # The kernel's side.
        self.open = True  # the socket exists
        self.forgotten = False  # the machine has lost its power: it knows nothing of this connection
        self.has_reset = False
        self.received: collections.deque[bytes] = collections.deque()
        self.peer_ended = False
        self.error: OSError | None = None
        self._end_sent = False
        self.sock = SimSocket(network.loop.next_number(), socket.SOCK_STREAM, local, peer)
        self.sock.readable = self._readable
        self.sock.bytes_acknowledged = lambda: self.out.acknowledged
        network.opened(self)

    def __repr__(self) -> str:
        (here, port), (there, peer_port) = self.sock.local, self.sock.peer or ("?", 0)
        return f"<SimTransport {self.host.name} {here}:{port} – {there}:{peer_port}>"

    def _readable(self) -> bool:
        return bool(self.received) or self.peer_ended or self.error is not None

    # --- the kernel -------------------------------------------------------------------------------------------------

    def marked(self, mark: Mark) -> None:
        """Something other than bytes has arrived."""
        if mark is Mark.OPENED:
            self.network.accept(self)
        elif mark is Mark.END:
            self.peer_ended = True
        else:  # tcp(7): a reset after the peer's end is EPIPE
            code = errno.EPIPE if self.peer_ended else errno.ECONNRESET
            self.failed(OSError(code, os.strerror(code)))

    def failed(self, error: OSError) -> None:
        """The connection exists no more. The process finds out by reading, or by writing."""
        if self.open and self.error is None:
            self.error = error
            self.out.stop()
            if self.pending:
                self.network.loop.call_soon(self.write_ready, context=self.context)
            self.wake_reader()

    def close_socket(self, *, power_lost: bool = False) -> None:
        """The process has closed its socket, or has ended."""
        if not self.open:
            self.forgotten = self.forgotten or power_lost
            return
        self.open = self.sock.open = False
        self._closing = self._lost = True
        self.forgotten = power_lost
        self.pending.clear()
        self.network.closed(self)
        if self.error is None and not power_lost:
            if self.received or self.sock.resets_on_close:
                self.has_reset = True
                self.out.mark(Mark.RESET)
            elif not self._end_sent:
                self.out.mark(Mark.END)
        self.received.clear()

    # --- reading ----------------------------------------------------------------------------------------------------

    def begin(self, protocol: Any) -> None:
        """Runs as code of this host, once: the connection is there."""
        self.set_protocol(protocol)
        if not self.open:
            return  # the connect was given up, and the policy ran that first
        self._opened = True
        self._call("connection_made", self)
        if self._readable():
            self._read_soon()

    def wake_reader(self) -> None:
        """Something has arrived: the selector finds the socket readable."""
        if self._wants_to_read() and not self._read_scheduled:
            if self.host.paused:
                self._read_soon()
            else:
                self.context.run(self._read_ready)

    def _wants_to_read(self) -> bool:
        return self._opened and not (self._closing or self._reading_paused or self._eof_told) and self._readable()

    def _read_soon(self) -> None:
        if not self._read_scheduled:
            self._read_scheduled = True
            self.network.loop.call_soon(self._read_scheduled_now, context=self.context)

    def _read_scheduled_now(self) -> None:
        self._read_scheduled = False
        self._read_ready()

    def _read_ready(self) -> None:
        """One recv and what follows from it."""
        if not self._wants_to_read():
            return
        if self.received:
            if self._buffered_protocol:
                self._read_into_protocol()
            else:
                self._guarded("data_received", self._take(READ_BYTES))
        elif self.peer_ended:
            self._eof_told = True
            keep_open = self._guarded("eof_received")
            if not keep_open:
                self.close()
        elif self.error is not None:
            self._fail(self.error)
        if self._wants_to_read():
            self._read_soon()

    def _take(self, limit: int) -> bytes:
        received = self.received
        data = received.popleft() if len(received) == 1 else b"".join(received)
        received.clear()
        if len(data) > limit:
            received.append(data[limit:])
            data = data[:limit]
        self.into.read(len(data))
        return data

    def _read_into_protocol(self) -> None:
        buffer = self._guarded("get_buffer", -1)
        if self._closing:
            return
        if not len(buffer):
            self._fail(RuntimeError("get_buffer() returned an empty buffer"))
            return
        data = self._take(len(buffer))
        memoryview(buffer).cast("B")[: len(data)] = data
        self._guarded("buffer_updated", len(data))

    def _guarded(self, name: str, *args: Any) -> Any:
        """A protocol that fails here loses its connection, as in asyncio."""
        try:
            return getattr(self.protocol, name)(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail(error, f"Fatal error: protocol.{name}() call failed.")
            return None

    def _call(self, name: str, *args: Any) -> None:
        """A protocol that fails here keeps its connection, as in asyncio."""
        try:
            getattr(self.protocol, name)(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._report(error, f"protocol.{name}() failed")

    def _report(self, error: BaseException, message: str) -> None:
        self.network.loop.call_exception_handler(
            {"message": message, "exception": error, "transport": self, "protocol": self.protocol}
        )

    def pause_reading(self) -> None:
        if not self._closing:
            self._reading_paused = True

    def resume_reading(self) -> None:
        if self._reading_paused and not self._closing:
            self._reading_paused = False
            if self._wants_to_read():
                self._read_soon()

    def is_reading(self) -> bool:
        return not self._closing and not self._reading_paused

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._lost:
            return
        data = bytes(data)
        if not self.pending:
            if self.error is not None:
                self._fail(self.error)
                return
            room = self.out.room
            if len(data) <= room:
                self.out.send(data)
                return
            if room > 0:
                self.out.send(data[:room])
                data = data[room:]
        self.pending += data
        self._maybe_pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_ready(self) -> None:
        """The socket takes more, or has failed."""
        if self._lost or not self.open:
            return
        if self.error is not None:
            self._fail(self.error)
            return
        room = self.out.room
        if room > 0 and self.pending:
            data = bytes(self.pending[:room])
            del self.pending[:room]
            self.out.send(data)
        self._maybe_resume_writing()
        if not self.pending:
            if self._closing and not self._lost:
                self._lost = True
                self._connection_lost(None)
            elif self._eof_written:
                self._send_end()

    def write_eof(self) -> None:
        if not self._closing and not self._eof_written:
            self._eof_written = True
            if not self.pending:
                self._send_end()

    def _send_end(self) -> None:
        if not self._end_sent and self.error is None:
            self._end_sent = True
            self.out.mark(Mark.END)

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return len(self.pending)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._maybe_pause_writing()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def _maybe_pause_writing(self) -> None:
        if not self._writing_paused and len(self.pending) > self._high:
            self._writing_paused = True
            self._call("pause_writing")

    def _maybe_resume_writing(self) -> None:
        if self._writing_paused and len(self.pending) <= self._low:
            self._writing_paused = False
            self._call("resume_writing")

    # --- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self.pending:
                self._lose(None)

    def abort(self) -> None:
        self._force_close(None)

    def is_closing(self) -> bool:
        return self._closing

    def _fail(self, error: BaseException, message: str = "Fatal error on transport") -> None:
        """asyncio's `_fatal_error`: what the network does is no news, a bug in a protocol is."""
        if not isinstance(error, OSError):
            self._report(error, message)
        self._force_close(error)

    def _force_close(self, error: BaseException | None) -> None:
        if not self._lost:
            self.pending.clear()
            self._closing = True
            self._lose(error)

    def _lose(self, error: BaseException | None) -> None:
        self._lost = True
        self.network.loop.call_soon(self._connection_lost, error, context=self.context)

    def _connection_lost(self, error: BaseException | None) -> None:
        try:
            if self._opened:
                self.protocol.connection_lost(error)
        finally:
            self.close_socket()
            if self.server is not None:
                self.server.detach(self)

    # --- who is there -----------------------------------------------------------------------------------------------

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol
        self._buffered_protocol = isinstance(protocol, asyncio.BufferedProtocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"socket": self.sock, "peername": self.sock.peer, "sockname": self.sock.local}
        return known.get(name, default)
