"""What stands between the loop's transport and a connection while a fault is set on it.

To the loop the shim is the protocol, to the connection it is the transport. Each direction is a `Pipe`: bytes enter,
wait as long as the faults say, and leave in order. When the last fault has gone and both pipes are empty, the shim
takes itself out again, so that a stream without faults costs nothing.

    loop's transport ⇄ Shim (protocol | transport) ⇄ Connection

End of file and loss of the connection travel through the incoming pipe behind the bytes before them: a partitioned node
does not learn that its peer has gone. What the node itself does (close after everything was sent, abort) is immediate.
"""

import asyncio
import collections
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from minidist.runtime.connection import Connection
from minidist.runtime.faults.spec import Direction, Fault, Kind

if TYPE_CHECKING:
    from minidist.runtime.faults.faultset import FaultSet

# A pipe that holds more pauses its source: the sender sees back-pressure, as of a full socket buffer.
PIPE_LIMIT_BYTES = 1 << 20
# What a lost segment costs a stream: the retransmission time-out of RFC 6298 as Linux sets it at least.
RETRANSMISSION_S = 0.2
# Bandwidth is made of slices, so that a trickle arrives as a trickle.
SLICES_PER_S = 20
# A request of which so much has come without an end is let through unseen.
LONGEST_REQUEST_BYTES = 1 << 20

Item = bytes | Callable[[], None]


class Pipe:
    """One direction of one connection: a queue of items with the loop time at which each may leave."""

    def __init__(self, shim: "Shim", direction: Direction, deliver: Callable[[bytes], None]) -> None:
        self.shim = shim
        self.direction = direction
        self.deliver = deliver
        self.faults: list[Fault] = []
        self.queue: collections.deque[tuple[float, Item]] = collections.deque()
        self.size = 0
        self.passed_bytes = 0
        self._free_at_s = 0.0  # when the line of a bandwidth fault is free again
        self._last_at_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.held = False  # the receiving side asked for a pause

    def put(self, data: bytes) -> None:
        for piece in self._slices(data):
            self._put(self._due_s(len(piece)), piece)
        self.run()

    def put_last(self, end: Callable[[], None]) -> None:
        """An end of file or a loss, behind everything that was put before."""
        self._put(self._last_at_s, end)
        self.run()

    def _put(self, at_s: float, item: Item) -> None:
        self._last_at_s = max(self._last_at_s, at_s)
        self.queue.append((self._last_at_s, item))
        if isinstance(item, bytes):
            self.size += len(item)

    def _slices(self, data: bytes) -> list[bytes]:
        rates = [fault.number("bytes_per_s") for fault in self.faults if fault.kind is Kind.BANDWIDTH]
        if not rates:
            return [data]
        size = max(1, int(min(rates) / SLICES_PER_S))
        return [data[start : start + size] for start in range(0, len(data), size)]

    def _due_s(self, size: int) -> float:
        """When a piece of so many bytes that comes now may leave."""
        now_s = self.shim.loop.time()
        due_s = now_s
        for fault in self.faults:
            if fault.kind is Kind.BANDWIDTH:
                self.shim.faultset.fired(fault)
                rate = max(fault.number("bytes_per_s"), 1e-9)
                self._free_at_s = max(self._free_at_s, now_s) + size / rate
                due_s = max(due_s, self._free_at_s)
            elif fault.kind is Kind.DELAY and self.shim.faultset.hits(fault):
                spread = fault.number("jitter_ms") * self.shim.faultset.random_of(fault).uniform(-1, 1)
                due_s += max(0.0, fault.number("ms") + spread) / 1000
            elif fault.kind is Kind.DROP:
                stall_s = RETRANSMISSION_S
                while stall_s < 60 and self.shim.faultset.hits(fault):
                    due_s += stall_s
                    stall_s *= 2
                    if fault.probability >= 1:
                        return float("inf")  # every retransmission is lost too
        return due_s

    def _blocked(self) -> bool:
        """Nothing passes: a partition, or a hang whose bytes are used up."""
        for fault in self.faults:
            if fault.kind is Kind.PARTITION:
                return True
            if fault.kind is Kind.HANG and self.passed_bytes >= fault.number("after_bytes"):
                return True
        return False

    def _reset_after(self) -> float | None:
        """How many more bytes may pass before a reset fault strikes; None without one."""
        left = [fault.number("after_bytes") - self.passed_bytes for fault in self.faults if fault.kind is Kind.RESET]
        return max(0.0, min(left)) if left else None

    def run(self) -> None:
        """Let out what is due; arm a timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = self.shim.loop
        while self.queue and not self.held:
            if self._blocked():
                self._note_blocking()
                return
            at_s, item = self.queue[0]
            if at_s > loop.time():
                if at_s != float("inf"):
                    self._timer = loop.call_at(at_s, self.run)
                return
            self.queue.popleft()
            if not isinstance(item, bytes):
                item()
                continue
            self.size -= len(item)
            left = self._reset_after()
            if left is not None and left < len(item):
                self.shim.struck(Kind.RESET)
                return
            self.passed_bytes += len(item)
            self.deliver(item)
        self.shim.settled()

    def _note_blocking(self) -> None:
        for fault in self.faults:
            if fault.kind in (Kind.PARTITION, Kind.HANG) and self.size:
                self.shim.faultset.fired_on(fault, self.shim.connection)

    def hurry(self) -> None:
        """Nothing slows the pipe any more: what waits may leave now."""
        self.queue = collections.deque((0.0, item) for _, item in self.queue)
        self._last_at_s = 0.0

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.queue.clear()
        self.size = 0


class Shim(asyncio.Transport, asyncio.Protocol):
    """Protocol towards the loop's transport, transport towards the connection."""

    def __init__(self, faultset: "FaultSet", connection: Connection, *, new: bool = False) -> None:
        super().__init__()
        self.faultset = faultset
        self.connection = connection
        self.real = connection.transport
        # Where events go: the connection, or what stands in for it (relay.py).
        self.protocol = cast(asyncio.Protocol, self.real.get_protocol())
        self.loop = asyncio.get_running_loop()
        self.incoming = Pipe(self, Direction.IN, self._arrived)
        self.outgoing = Pipe(self, Direction.OUT, self._leaves)
        self.counted: list[str] = []  # ids of the faults that have counted this connection
        self._requests = b""  # the start of a request, while a reply fault waits for its end
        # As the protocol left it: it may have paused reading, and have been told to pause writing.
        # (uvloop's transports begin to read only after connection_made.)
        self._reading = new or self.real.is_reading()
        self.incoming.held = not self._reading
        self._told_pause = self.outgoing.held = connection.write_paused
        self._wants_close = False
        self.real.set_protocol(self)
        connection.transport = self

    def apply(self, faults: list[Fault]) -> None:
        """These faults hold from now on; with none, what still waits goes out and the shim leaves."""
        for pipe in (self.incoming, self.outgoing):
            before = pipe.faults
            pipe.faults = [fault for fault in faults if fault.acts_on(pipe.direction)]
            if before and not pipe.faults:
                pipe.hurry()
        if not self._replies() and self._requests:
            rest, self._requests = self._requests, b""
            self.protocol.data_received(rest)
        strikes = [f for f in faults if f.kind is Kind.RESET and not f.number("after_bytes")]
        if strikes:
            self.struck(Kind.RESET)
            return
        self.incoming.run()
        self.outgoing.run()

    def struck(self, kind: Kind) -> None:
        """A reset fault has used up its bytes."""
        for fault in self.faultset.of_kind(self.connection, kind):
            self.faultset.fired(fault)
        self.incoming.stop()
        self.outgoing.stop()
        Connection.reset(self.connection)

    def settled(self) -> None:
        """A pipe ran empty: tell the writer it may go on, close if that was asked for, leave if nothing holds us."""
        if self._told_pause and self.outgoing.size <= PIPE_LIMIT_BYTES // 4:
            self._told_pause = False
            self.protocol.resume_writing()
        if self._reading and self.incoming.size <= PIPE_LIMIT_BYTES // 4 and not self.real.is_closing():
            self.real.resume_reading()
        if self._wants_close and not self.outgoing.queue:
            self.real.close()
        idle = not (self.incoming.queue or self.outgoing.queue or self.incoming.faults or self.outgoing.faults)
        if idle and self.connection.transport is self and not self._requests and not self.real.is_closing():
            self.real.set_protocol(self.protocol)
            self.connection.transport = self.real
            self.faultset.detached(self.connection)
            if self._told_pause:
                self.protocol.resume_writing()

    # --- incoming ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.incoming.put(data)
        if self.incoming.size > PIPE_LIMIT_BYTES:
            self.real.pause_reading()

    def eof_received(self) -> bool:
        self.incoming.put_last(self._eof)
        return True

    def _eof(self) -> None:
        if not self.protocol.eof_received():
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.connection.closing:
            self._lost(exc)
        else:
            self.incoming.put_last(lambda: self._lost(exc))

    def _lost(self, exc: Exception | None) -> None:
        self.incoming.stop()
        self.outgoing.stop()
        self.faultset.detached(self.connection)
        self.protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self.outgoing.held = True

    def resume_writing(self) -> None:
        self.outgoing.held = False
        self.outgoing.run()

    def _replies(self) -> list[Fault]:
        return [fault for fault in self.incoming.faults if fault.kind is Kind.REPLY and not fault.spent]

    def _arrived(self, data: bytes) -> None:
        """Bytes reach the connection; requests that a reply fault chooses are answered here instead."""
        inspector = self.connection.endpoint.inspector
        if not self._replies() or inspector is None:
            self.protocol.data_received(data)
            return
        buffer = self._requests + data
        start = 0
        for name, key, end in inspector.requests(buffer):
            fault = next((f for f in self._replies() if f.matches_request(name, key) and self.faultset.hits(f)), None)
            if fault is None:
                self.protocol.data_received(buffer[start:end])
            else:
                self.write(inspector.error_reply(buffer[start:end], str(fault.parameters["error"])))
            start = end
        self._requests = buffer[start:]
        if len(self._requests) > LONGEST_REQUEST_BYTES or (self._requests and not self._replies()):
            rest, self._requests = self._requests, b""
            self.protocol.data_received(rest)

    # --- outgoing: the transport that the connection sees -----------------------------------------------------------

    def write(self, data: Any) -> None:
        if data:
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
        self.outgoing.put_last(lambda: None if self.real.is_closing() else self.real.write_eof())

    def can_write_eof(self) -> bool:
        return self.real.can_write_eof()

    def close(self) -> None:
        self._wants_close = True
        self.outgoing.run()
        if not self.outgoing.queue:
            self.real.close()

    def abort(self) -> None:
        self.real.abort()

    def is_closing(self) -> bool:
        return self._wants_close or self.real.is_closing()

    def pause_reading(self) -> None:
        self._reading = False
        self.incoming.held = True
        self.real.pause_reading()

    def resume_reading(self) -> None:
        self._reading = True
        self.incoming.held = False
        self.incoming.run()
        if self.incoming.size <= PIPE_LIMIT_BYTES and not self.real.is_closing():
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
