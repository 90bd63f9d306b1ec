"""One connection between two nodes: greets, then carries frames both ways until it is down.

    GREETING    the handshake (handshake.py), under a small frame limit and a time limit
    WELCOMED    acceptor only: the peer is proven and has been welcomed, its first frame is awaited, so that a link is
                up on one side only when the other side knows
    UP          frames are dispatched by kind
    DOWN        for good; a new link is a new object

All frames of one wake-up leave in one write: while received frames are being handled everything is kept back until the
last one, and what is sent outside of that waits for the end of the loop's turn.

Unlike other connections a link goes on reading while its own writes are held up: two nodes that wait for each other to
read would never get out of it. What the peer does not take is bounded by `max_buffered_bytes`, beyond which the link is
dropped. A peer from which nothing was heard for so many ticks, though it was pinged, and which did not take any of what
waits for it either, is taken for dead.
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from minidist.runtime.config import Address
from minidist.runtime.connection import Connection
from minidist.runtime.peers.errors import NotConnected, PeerRefused, PeerTooSlow
from minidist.runtime.peers.handshake import (
    MAX_HANDSHAKE_BYTES,
    MAX_HANDSHAKE_ITEMS,
    NONCE_BYTES,
    Handshake,
    Identity,
    Purpose,
    Refusal,
    Step,
)
from minidist.runtime.peers.requests import Answers, Requests
from minidist.runtime.peers.streams import ProtocolBroken, Streams
from minidist.wire.frames import MAX_ITEMS, Decoder, Encoder, Frame, FrameError, Kind

if TYPE_CHECKING:
    from minidist.runtime.endpoint import Endpoint
    from minidist.runtime.peers.peers import Peers


class LinkState(Enum):
    """See the module's text; the `become_*` methods move between them."""

    GREETING = "greeting"
    WELCOMED = "welcomed"
    UP = "up"
    DOWN = "down"


class Link(Connection):
    """A dialled link knows whom it dials; an accepted one learns who it is."""

    __slots__ = (
        "_by_kind",
        "_corked",
        "_decoder",
        "_draining",
        "_encoder",
        "_flush_due",
        "_handshake",
        "_out",
        "_out_bytes",
        "_silent_ticks",
        "_taken",
        "_timer",
        "_written",
        "answers",
        "dials",
        "down",
        "down_reason",
        "heard",
        "identity",
        "loop",
        "peers",
        "purpose",
        "ready",
        "requests",
        "state",
        "streams",
    )

    def __init__(
        self, endpoint: "Endpoint[Any]", peers: "Peers", dials: str = "", purpose: Purpose = Purpose.LINK
    ) -> None:
        super().__init__(endpoint)
        limits = peers.limits
        self.peers = peers
        self.loop = asyncio.get_running_loop()
        self.dials = dials
        self.purpose = purpose
        self.state = LinkState.GREETING
        self.identity: Identity | None = None
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.down: asyncio.Future[None] = self.loop.create_future()
        self.down_reason = ""
        self.heard = True
        self.requests = Requests(self)
        self.answers = Answers(self, limits.max_waiting_requests)
        self.streams = Streams(self, bool(dials), limits.max_streams)
        self._decoder = Decoder(MAX_HANDSHAKE_BYTES, MAX_HANDSHAKE_ITEMS)
        self._encoder = Encoder(limits.max_frame_bytes)
        self._handshake: Handshake | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._corked = False
        self._flush_due = False
        self._silent_ticks = 0
        self._written = 0  # bytes given to the transport …
        self._taken = 0  # … and how many of them had left it at the last tick
        self._draining = False
        self._timer: asyncio.TimerHandle | None = None
        self._by_kind: dict[int, Callable[[Frame], None]] = {}

    @property
    def is_up(self) -> bool:
        return self.state is LinkState.UP

    # --- life -------------------------------------------------------------------------------------------------------

    def opened(self) -> None:
        objection = self.peers.greets(self)
        if objection is not None:
            self._refuse(objection)
            return
        self._handshake = Handshake(
            self.peers.me,
            self.peers.token(NONCE_BYTES),
            dials=self.dials,
            purpose=self.purpose,
            loopback=_is_loopback(self.transport.get_extra_info("peername")),
        )
        self._timer = self.loop.call_later(self.peers.limits.handshake_timeout_s, self._greeted_too_long)
        if self.dials:
            self._enqueue(self._encoder.encode(*self._handshake.hello()))

    def refused(self) -> bytes:
        return self._encoder.encode(Kind.REFUSED, "busy", "too many connections")

    def closed(self, error: Exception | None) -> None:
        self.become_down(str(error) if error else "closed by the other side")

    def draining(self) -> None:
        """Close when nothing is under way any more."""
        self._draining = True
        self.settled()

    def settled(self) -> None:
        """A request, an answer or a stream is over: was it the last that kept the link?"""
        idle = not (self.requests or self.answers or self.streams)
        if idle and self.is_up and (self._draining or self.purpose is Purpose.STREAM):
            self.become_down("no longer needed")
            self.close()

    def close(self) -> None:
        if not self.closing:
            self._write_out()
        super().close()

    def drop(self, reason: str) -> None:
        """Take the link down at once."""
        self.become_down(reason)
        if not self.closing:
            self.abort(reason)

    def become_welcomed(self) -> None:
        self.state = LinkState.WELCOMED
        self._decoder.max_frame_bytes = self.peers.limits.max_frame_bytes
        self._decoder.max_items = MAX_ITEMS
        self._by_kind = {
            Kind.PING: self._on_ping,
            Kind.PONG: self._on_pong,
            Kind.REQUEST: self.answers.asked,
            Kind.REPLY: self.requests.answered,
            Kind.ERROR: self.requests.answered,
            Kind.SEND: self.answers.told,
            Kind.OPEN: self.streams.opened,
            Kind.CHUNK: self.streams.received,
            Kind.CREDIT: self.streams.received,
            Kind.END: self.streams.received,
            Kind.RESET: self.streams.received,
            Kind.REFUSED: self._on_refused,
        }

    def become_up(self) -> None:
        self.state = LinkState.UP
        self._stop_timer()
        if not self.ready.done():
            self.ready.set_result(None)
        self.peers.link_up(self)

    def become_down(self, reason: str, refusal: Refusal | None = None) -> None:
        """Everything that waits for this link learns that it is gone."""
        if self.state is LinkState.DOWN:
            return
        was_up = self.is_up
        self.state = LinkState.DOWN
        self.down_reason = reason
        self._stop_timer()
        self.requests.lost(reason)
        self.streams.lost(reason)
        if not self.ready.done():
            failure = PeerRefused(self.dials, refusal.code, reason) if refusal else NotConnected(self.dials, reason)
            self.ready.set_exception(failure)
            self.ready.exception()  # an accepted link has nobody who waits for it
        if not self.down.done():
            self.down.set_result(None)
        self.peers.link_down(self, was_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- bytes in ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.touched = self.heard = True
        if self.down.done():
            return
        self._corked = True
        try:
            for frame in self._decoder.feed(data):
                if self.state is LinkState.UP:
                    self._by_kind.get(frame[0], self._misplaced)(frame)
                elif self.state is LinkState.DOWN:
                    return
                else:
                    self._greet(frame)
        except FrameError as error:
            self._broken(f"bad frame: {error}")
        except ProtocolBroken as error:
            self._broken(f"protocol broken: {error}")
        finally:
            self._corked = False
            self._flush()

    def _broken(self, reason: str) -> None:
        """The peer does not keep the protocol; it is told, and the link goes."""
        self._refuse(Refusal("protocol", reason))

    def _misplaced(self, frame: Frame) -> None:
        raise ProtocolBroken(f"{Kind(frame[0]).name} on a link that is {self.state.value}")

    def _greet(self, frame: Frame) -> None:
        if self.state is LinkState.GREETING:
            assert self._handshake is not None
            self._follow(self._handshake.received(frame))
            return
        if frame[0] != Kind.REFUSED and frame[0] in self._by_kind:
            self.become_up()
        self._by_kind.get(frame[0], self._misplaced)(frame)

    def _on_refused(self, frame: Frame) -> None:
        """The other side has found a fault with us: the handshake knows how to read it."""
        assert self._handshake is not None
        self._follow(self._handshake.received(frame))

    def _follow(self, step: Step) -> None:
        for frame in step.send:
            self._enqueue(self._encoder.encode(*frame))
        if step.refusal is not None:
            self._refused(step.refusal)
        elif step.identity is not None:
            self._proven(step.identity)

    def _proven(self, identity: Identity) -> None:
        assert self._handshake is not None
        self.identity = identity
        self.purpose = identity.purpose
        if self.dials:
            self.become_welcomed()
            self.become_up()
            self.post(Kind.PING, 0)  # the acceptor's sign that the welcome has arrived
            return
        refusal = self.peers.objection(identity)
        if refusal is not None:
            self._refuse(refusal)
            return
        self.named(identity.name)
        if self.closing:
            self.become_down("refused by a fault")
            return
        self.become_welcomed()
        self._enqueue(self._encoder.encode(*self._handshake.welcome()))

    def _refuse(self, refusal: Refusal) -> None:
        if self.state is not LinkState.DOWN:
            self._enqueue(self._encoder.encode(*refusal.frame))
            self._refused(refusal)

    def _refused(self, refusal: Refusal) -> None:
        self.peers.refused(self, refusal)
        self.become_down(refusal.reason, refusal)
        self.close()

    def _greeted_too_long(self) -> None:
        self._refuse(Refusal("slow", f"no handshake within {self.peers.limits.handshake_timeout_s:g} s"))

    # --- bytes out --------------------------------------------------------------------------------------------------

    def send_frame(self, kind: Kind, *fields: Any) -> None:
        """Queue a frame. Raises NotConnected, PeerTooSlow, FrameTooLarge, TypeError: then it was certainly not sent."""
        if self.state is not LinkState.UP:
            raise NotConnected(self.peer_name, self.down_reason or "the link is not up")
        data = self._encoder.encode(kind, *fields)
        if not self._enqueue(data):
            raise PeerTooSlow(self.peer_name, self.down_reason)

    def post(self, kind: Kind, *fields: Any) -> None:
        """Queue a frame if the link is up; for answers, about which nobody can be told that they were not sent."""
        if self.state is LinkState.UP:
            self._enqueue(self._encoder.encode(kind, *fields))

    def _enqueue(self, data: bytes) -> bool:
        """False when the peer has let too much pile up: the link is down then."""
        waiting = self._out_bytes + len(data)
        if self.write_paused:
            waiting += self.transport.get_write_buffer_size()
        if waiting > self.peers.limits.max_buffered_bytes:
            self.peers.counters.overflows += 1
            self.drop(f"too slow: {waiting} bytes were waiting for it")
            return False
        self._out.append(data)
        self._out_bytes += len(data)
        if not self._corked and not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)
        return True

    def _flush(self) -> None:
        self._flush_due = False
        if not self.write_paused and not self.closing:
            self._write_out()

    def _write_out(self) -> None:
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            self._written += len(data)
            self.transport.write(data)

    def pause_writing(self) -> None:
        self.write_paused = True
        self.endpoint.stalled(self)

    def resume_writing(self) -> None:
        self.write_paused = False
        self._flush()

    # --- is it there? -----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Called at every heartbeat interval: who was not heard is pinged, who stays silent is dropped."""
        taken = self._written - self.transport.get_write_buffer_size()
        if self.heard or (self.write_paused and taken > self._taken):
            self.heard = False
            self._taken = taken
            self._silent_ticks = 0
            return
        self._silent_ticks += 1
        limits = self.peers.limits
        if self._silent_ticks * limits.heartbeat_s >= limits.silence_limit_s:
            self.drop(f"silent for {limits.silence_limit_s:g} s")
        else:
            self.post(Kind.PING, self._silent_ticks)

    def _on_ping(self, frame: Frame) -> None:
        self.post(Kind.PONG, frame[1])

    def _on_pong(self, frame: Frame) -> None:
        """It was heard: that is all a ping is for."""


def _is_loopback(peername: Any) -> bool:
    """Unix sockets count; an IPv4 address may come in IPv6 clothes (::ffff:127.0.0.1)."""
    return not isinstance(peername, tuple) or Address(peername[0].removeprefix("::ffff:"), 0).is_loopback
