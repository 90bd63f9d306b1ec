"""One way of a simulated TCP connection: from the sender's kernel to the receiver's.

Bytes are cut into segments, each with a time of arrival. Times never decrease, and only the head is ever scheduled, so
nothing can reorder bytes. Arrival is the work of kernels: it happens on a paused host too, and what arrives for a
socket that exists no more is answered with a reset. What a partition or a dead machine holds back is sent again when
that has healed, until the sender gives up; except for a reset, which is sent once only.
"""

import collections
import errno
import os
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidist.sim.network import Network
    from minidist.sim.streams import SimTransport
    from minidist.sim.tasks import SimTimer

WINDOW_BYTES = 128 * 1024  # what both kernels hold for one direction before the sender's user-space buffer fills
GIVE_UP_S = 924.6  # Linux' tcp_retries2 = 15


class Mark(Enum):
    """What travels in a direction besides bytes."""

    OPENED = "opened"  # the third step of the handshake: the server may accept
    END = "end"
    RESET = "reset"


class Direction:
    """Bytes from one end of a connection to the other."""

    def __init__(self, network: "Network", source: "SimTransport", target: "SimTransport") -> None:
        self.network = network
        self.source = source
        self.target = target
        self.flight: collections.deque[tuple[float, bytes | Mark]] = collections.deque()
        # Totals of bytes: handed to the kernel, known to have arrived, read by the receiving process.
        self.sent = 0
        self.acknowledged = 0
        self.consumed = 0
        self.arrived = 0
        self.dead = False  # nothing that is sent gets anywhere any more
        self._last_s = 0.0
        self._line_free_s = 0.0
        self._timer: SimTimer | None = None
        self._giving_up: SimTimer | None = None
        self._room_told = False

    @property
    def room(self) -> int:
        """How many bytes the kernels still take."""
        return WINDOW_BYTES - self.sent + min(self.acknowledged, self.consumed)

    # --- the sender's kernel ----------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        network = self.network
        network.trace.data(data)
        self.sent += len(data)
        for piece in network.links.segments(data):
            self._put(piece, len(piece))
        self._schedule()
        if network.tap is not None:
            arrives_s = self._last_s if self.flight else None
            network.tap(self.source.host, self.target.host, self.port, arrives_s, data)

    @property
    def port(self) -> int:
        """The one that was connected to, of either direction's connection."""
        server = self.source if self.source.server is not None else self.target
        return server.sock.local[1]

    def mark(self, mark: Mark) -> None:
        self._put(mark, 0)
        self._schedule()

    def _put(self, piece: bytes | Mark, size: int) -> None:
        if not self.dead:
            at_s, self._line_free_s = self.network.links.arrival_s(
                self.source.host, self.target.host, size, self._line_free_s
            )
            self._last_s = max(self._last_s, at_s)
            self.flight.append((self._last_s, piece))

    def _schedule(self) -> None:
        """Arrange for the arrival of the head."""
        if self._timer is None and self.flight:
            self._timer = self.network.loop.at_world_time(self.flight[0][0], self._arrive)

    def _arrive(self) -> None:
        """Runs as the world's code: kernels work whatever the processes do."""
        self._timer = None
        network, source, target = self.network, self.source.host, self.target.host
        if not target.powered or network.links.cut(source, target):
            self._stall()
            return
        acknowledges = not network.links.cut(target, source)
        if acknowledges:
            self._got_through()
        else:
            self._retransmit_later()
        now_s = network.loop.now_s
        while self.flight and self.flight[0][0] <= now_s:
            _, piece = self.flight.popleft()
            if isinstance(piece, bytes):
                self.arrived += len(piece)
            if not self.target.open:
                self._nobody_there(piece)
            elif isinstance(piece, bytes):
                self.target.received.append(piece)
            else:
                self.target.marked(piece)
        if acknowledges:
            self._acknowledge()
        self.target.wake_reader()
        self._schedule()

    def _nobody_there(self, piece: bytes | Mark) -> None:
        """The socket is closed. Its kernel resets who sends to it; an end alone is fine, unless it knows of nothing."""
        if piece is Mark.RESET:
            self.stop()
        elif piece is not Mark.END or self.target.forgotten:
            self.stop()
            self.target.out.mark(Mark.RESET)

    def stop(self) -> None:
        """Nothing is on its way any more, nor will be."""
        self.dead = True
        self.flight.clear()
        self.network.stalled.pop(self, None)
        for timer in (self._timer, self._giving_up):
            if timer is not None:
                timer.cancel()
        self._timer = self._giving_up = None

    # --- partitions and dead machines -------------------------------------------------------------------------------

    def _stall(self) -> None:
        """The head was lost. A kernel that still knows the connection sends again; a reset is sent once only."""
        if self.source.forgotten or self.source.has_reset or self.flight[0][1] is Mark.RESET:
            self.stop()
        else:
            self._retransmit_later()

    def _retransmit_later(self) -> None:
        self.network.stalled[self] = None
        if self._giving_up is None:
            self._giving_up = self.network.loop.at_world_time(self.network.loop.now_s + GIVE_UP_S, self._give_up)

    def _give_up(self) -> None:
        self.stop()
        self.source.failed(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))

    def retransmit(self) -> None:
        """What was held may get through now."""
        if self.dead:
            return
        if self.network.links.cut(self.target.host, self.source.host):
            self.network.stalled[self] = None
        else:
            self._acknowledge()
            if not self.flight:
                self._got_through()
        self._schedule()

    def _got_through(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    # --- back-pressure ----------------------------------------------------------------------------------------------

    def _acknowledge(self) -> None:
        self.acknowledged = self.arrived
        self._tell_room()

    def read(self, count: int) -> None:
        """The receiving process has taken so many bytes."""
        self.consumed += count
        self._tell_room()

    def _tell_room(self) -> None:
        """If the sender waits for room: tell it, a latency later."""
        source = self.source
        if source.pending and not self._room_told and source.open and self.room > 0:
            self._room_told = True
            at_s, _ = self.network.links.arrival_s(self.target.host, source.host, 0, 0.0)
            self.network.loop.at_world_time(at_s, self._room_is_known, context=source.context)

    def _room_is_known(self) -> None:
        """Runs as code of the sending process: its socket is writable."""
        self._room_told = False
        self.source.write_ready()
