"""A client's connection as such: its states, its one deadline, and what it sends before its turn.

    IDLE        between requests, or reading a head
    WAITING     a head was read; a connection to the upstream is being made
    EXCHANGE    the request is with an upstream; bodies pass in both directions
    TUNNEL      upgraded: bytes pass both ways, the relay moves them
    LINGERING   the last answer is written; what the client still sends is thrown away, so that the kernel does not
                reset the connection before the client has read it (RFC 9112 section 9.6)
    CLOSING     the last answer is written and goes out
    CLOSED

One deadline, looked at by the data half's sweep, replaces timers: `deadline_s` is loop time, and traffic moves it on by
`extend_s` (0: it stays).

Pipelined requests are read while an answer is under way and begun after it; what is read ahead is bounded.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from minidist.components.balancer.upstream import allow_reading, hold_reading
from minidist.runtime.connection import Connection

if TYPE_CHECKING:
    from minidist.components.balancer.data import DataHalf
    from minidist.runtime.endpoint import Listener

READ_AHEAD_BYTES = 64 * 1024  # of pipelined requests, or of a body whose upstream is not connected yet
LINGER_S = 2.0
BUSY_S, GRACE_S = 1.0, 0.1  # when the node drains: who counts as busy, and how long a request is waited for
LINGER_BYTES = 1024 * 1024  # a client that goes on uploading after its answer is cut off


class ClientState(Enum):
    IDLE = "idle"
    WAITING = "waiting"
    EXCHANGE = "exchange"
    TUNNEL = "tunnel"
    LINGERING = "lingering"
    CLOSING = "closing"
    CLOSED = "closed"


class ClientStream(Connection):
    """What a client is besides its requests; those are its subclass' `data_received`."""

    __slots__ = ("buffer", "data", "deadline_s", "drop_after", "extend_s", "lingered_bytes", "queued", "state")

    def __init__(self, listener: Listener[Any], data: DataHalf) -> None:
        super().__init__(listener)
        self.data = data
        self.state = ClientState.IDLE
        self.buffer = b""  #: an incomplete head, or what was read ahead
        self.queued: list[list[bytes]] = []  #: replies of faults, each with what the client sent after that request
        self.drop_after = False  #: the node drains
        self.deadline_s = 0.0
        self.extend_s = 0.0
        self.lingered_bytes = 0

    # --- states -----------------------------------------------------------------------------------------------------

    def _become(self, state: ClientState, within_s: float = 0.0, *, extend: bool = False) -> None:
        """The state, and how long it may last (0: others watch over it); with `extend`, without traffic."""
        self.state = state
        self.extend_s = within_s if extend else 0.0
        self.deadline_s = self.data.now_s() + within_s if within_s else 0.0

    def _become_idle(self, now_s: float) -> None:
        """As `_become`, for the hot path, which knows the time."""
        self.state = ClientState.IDLE
        self.extend_s = 0.0
        self.deadline_s = now_s + self.data.idle_timeout_s
        while self.queued and not self.buffer:
            reply, self.buffer = self.queued.pop(0)
            self.send(reply)

    def _linger(self) -> None:
        self._become(ClientState.LINGERING, LINGER_S)
        self.buffer = b""
        if self.transport.can_write_eof():
            self.endpoint.outgoing.flush()
            self.transport.write_eof()
            allow_reading(self)
        else:
            self.close()

    def _throw_away(self, data: bytes) -> None:
        self.lingered_bytes += len(data)
        if self.lingered_bytes > LINGER_BYTES:
            self.abort("kept sending after the last answer")

    def draining(self) -> None:
        """A client that has just been busy may have its next request on the way: it is waited for, for a moment."""
        self.drop_after = True
        if self.state is not ClientState.IDLE or self.buffer:
            return
        now_s = self.data.now_s()
        idle_s = now_s + self.data.idle_timeout_s - self.deadline_s
        if idle_s > BUSY_S:
            self.close()
        else:
            self.deadline_s = now_s + GRACE_S

    # --- reading ahead ----------------------------------------------------------------------------------------------

    def _read_ahead(self, data: bytes) -> None:
        """Keep what came before its turn."""
        if self.queued:
            self.queued[-1][1] += data
        else:
            self.buffer += data
        if len(self.queued[-1][1] if self.queued else self.buffer) > READ_AHEAD_BYTES:
            hold_reading(self)

    def _take_buffered(self) -> bytes:
        data, self.buffer = self.buffer, b""
        return data

    def mid_request(self) -> bool:
        return bool(self.buffer)

    def answer_instead(self, reply: bytes) -> None:
        """A fault answers a request: after the answers to those before it, before the answers to those behind it."""
        if self.state is ClientState.IDLE and not self.buffer and not self.queued:
            self.send(reply)
        else:
            self.queued.append([reply, b""])
