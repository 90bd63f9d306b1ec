"""The client's side of the data path: one request after another, each to an upstream and its answer back.

A request is read, an upstream is picked, the request is written to it, and its answer is passed on: nothing here waits,
each method takes what there is and returns. When an attempt fails before its answer has begun, and another one cannot
do harm (state.py), it goes to another upstream. The connection as such (its states, deadline, what was read ahead) is
client_stream.py; the upstream's side is upstream.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidist.components.balancer.client_stream import ClientState, ClientStream
from minidist.components.balancer.state import may_send_again
from minidist.components.balancer.upload import Upload
from minidist.components.balancer.upstream import (
    AnswerState,
    Origin,
    UpstreamConnection,
    allow_reading,
    hold_reading,
)
from minidist.runtime.relay import relay
from minidist.runtime.stopwatch import now_s as stopwatch_s
from minidist.wire.http1 import HttpError, RequestHead, ResponseHead, error_response, response

if TYPE_CHECKING:
    from minidist.components.balancer.data import DataHalf
    from minidist.runtime.endpoint import Listener

REFUSED_METHODS = (b"CONNECT", b"TRACE")  # no forward proxy; TRACE would show clients what we add


class ClientConnection(ClientStream):
    """One client with its requests."""

    __slots__ = (
        "about_host", "about_lines", "answer_begun", "attempts", "bytes_out", "client_ip", "head", "keep", "origin",
        "sent", "started_s", "status", "tried", "upload", "upstream", "was_sent",
    )  # fmt: skip

    def __init__(self, listener: Listener[ClientConnection], data: DataHalf) -> None:
        super().__init__(listener, data)
        self.head: RequestHead | None = None
        self.upload: Upload | None = None  #: the body of the request; None when all of it was read
        self.origin: Origin | None = None
        self.upstream: UpstreamConnection | None = None
        self.attempts = 0
        self.tried: list[Origin] = []
        self.sent: bytes | None = None  #: the request as far as it was written, while it is short enough to be repeated
        self.was_sent = False  #: some of it was written to some upstream: it may have had an effect
        self.answer_begun = False
        self.keep = True  #: another request may follow this answer
        self.started_s = 0.0  #: by the stopwatch
        self.bytes_out = 0
        self.status = 0
        self.client_ip = b""
        self.about_host: bytes | None = None  #: the host that `about_lines` are for
        self.about_lines = b""

    # --- reading requests -------------------------------------------------------------------------------------------

    def opened(self) -> None:
        name = self.transport.get_extra_info("peername")
        self.client_ip = name[0].encode() if isinstance(name, tuple) else b"unknown"
        self._become_idle(self.data.now_s())

    def refused(self) -> bytes:
        return error_response(503, "too many connections")

    def data_received(self, data: bytes) -> None:
        self.touched = True
        state = self.state
        if state is ClientState.IDLE and not self.write_paused and not self.queued:
            self._read_head(self.buffer + data if self.buffer else data)
        elif state is ClientState.EXCHANGE and self.upload is not None:
            self._send_body(data)
        elif state is ClientState.LINGERING:
            self._throw_away(data)
        else:
            self._read_ahead(data)

    def _read_head(self, data: bytes) -> None:
        try:
            parsed = self.data.request_parser.parse(data)
        except HttpError as error:
            self.data.count("bad_requests")
            self._refuse(error.status, error.text)
            return
        if parsed is None:
            if not self.buffer and data:
                self.deadline_s = self.data.now_s() + self.data.head_timeout_s
            self.buffer = data
            return
        head, end = parsed
        self.buffer = data[end:]
        self._begin(head)

    def _read_pipelined(self) -> None:
        if self.state is ClientState.IDLE and not self.closing and not self.write_paused:
            allow_reading(self)
            self._read_head(self._take_buffered())

    def _begin(self, head: RequestHead) -> None:
        data = self.data
        self.head = head
        data.requests += 1
        self.started_s = stopwatch_s()
        self.attempts = 0
        self.sent = None
        self.was_sent = False
        self.answer_begun = False
        self.bytes_out = 0
        self.keep = head.persistent and not self.drop_after
        try:
            if head.method in REFUSED_METHODS:
                raise HttpError(405, "method is not served here")
            self.upload = Upload(head.length, data.limits, data.max_body_bytes) if head.length else None
        except HttpError as error:
            self._refuse(error.status, error.text)
            return
        self._become(ClientState.WAITING)
        self._try(data.upstreams.pick())

    # --- choosing an upstream ---------------------------------------------------------------------------------------

    def _try(self, origin: Origin | None) -> None:
        """Send the request to this upstream: on a kept connection if there is one."""
        if origin is None:
            self._answer_error(503, "no upstream is up")
            return
        self.origin = origin
        self.attempts += 1
        origin.active += 1
        origin.requests += 1
        assert self.head is not None
        # To look costs a system call: a twentieth of a short exchange.
        look_first = origin.talkative or not may_send_again(self.head, was_sent=True)
        idle = origin.idle
        while idle:
            connection = idle.pop()
            if not (connection.closing or (look_first and connection.has_unread())):
                self.begin_exchange(connection)
                return
        if origin.open < self.data.upstream_connections:
            self.data.dial(origin, self)
        else:
            self.data.count("saturated")
            self.attempt_failed("has no connection free")

    def waits_for(self, origin: Origin) -> bool:
        return self.state is ClientState.WAITING and self.origin is origin

    def _release_origin(self) -> None:
        assert self.origin is not None
        self.origin.active -= 1
        self.origin = None

    def attempt_failed(self, why: str) -> None:
        """An attempt is over without an answer: another one, or the error."""
        head, origin = self.head, self.origin
        assert head is not None
        assert origin is not None
        self._release_origin()
        repeatable = self.sent is not None or not self.was_sent
        if self.attempts <= self.data.retries and repeatable and may_send_again(head, self.was_sent):
            self.data.count("retries")
            self._become(ClientState.WAITING)
            self.tried = [*self.tried, origin] if self.attempts > 1 else [origin]
            self._try(self.data.upstreams.pick_again(self.tried))
            return
        # 503 tells the client that certainly nothing has happened; after 502 it cannot know.
        self._answer_error(502 if self.was_sent else 503, f"upstream {origin.name}: {why}")

    # --- sending the request ----------------------------------------------------------------------------------------

    def begin_exchange(self, connection: UpstreamConnection) -> None:
        """Send the request on an open connection."""
        self.upstream = connection
        self.was_sent = True
        connection.begin(self)
        if self.upload is None:
            self._become(ClientState.EXCHANGE, self.data.response_timeout_s)
            if self.sent is None:
                self.sent = self._request_head()
            connection.send(self.sent)
            return
        self._become(ClientState.EXCHANGE, self.data.stream_timeout_s, extend=True)
        if self.sent is None:
            self.sent = b""
            self._send_body(self._take_buffered(), self._request_head())
        else:
            connection.write(self.sent)
            self._send_body(self._take_buffered())
        if not connection.write_paused:
            allow_reading(self)

    def _request_head(self) -> bytes:
        head, data, origin = self.head, self.data, self.origin
        assert head is not None
        assert origin is not None
        if not data.static_about_client or head.host != self.about_host:
            self.about_lines = data.about_client(self, head)
            self.about_host = head.host
        host = head.host or origin.host
        return data.forwarding.request(head, host, self.about_lines, data.forwarding.upgrade_of(head))

    def _send_body(self, data: bytes, before: bytes = b"") -> None:
        """Pass on what arrived of the request body, after `before`; what is left belongs to the next request."""
        upload, upstream = self.upload, self.upstream
        assert upload is not None
        assert upstream is not None
        try:
            wire, end = upload.take(data)
        except HttpError as error:
            self.data.count("bad_requests")
            self._give_up(error.status, error.text)
            return
        wire = before + wire
        if wire:
            upstream.write(wire)
        if self.sent is not None:
            self.sent = self.sent + wire if len(self.sent) + len(wire) <= self.data.retry_bytes else None
        if upload.done:
            self.buffer = data[end:]
            self._request_complete()
        elif upload.is_bulk:
            self.sent = None
            upload.hand_over(self, upstream, self._request_complete)

    def _request_complete(self) -> None:
        self.upload = None
        if not self.answer_begun:
            self._become(ClientState.EXCHANGE, self.data.response_timeout_s)

    def _drop_upstream(self, reason: str) -> None:
        """Give up the exchange from our side; the upstream connection cannot be used again."""
        upstream, self.upstream = self.upstream, None
        if self.upload is not None:
            self.upload.stop()
        if upstream is not None:
            upstream.cancel(reason)
        if self.origin is not None:
            self._release_origin()

    # --- passing the answer -----------------------------------------------------------------------------------------

    def interim(self, head: ResponseHead) -> None:
        """A 1xx response came; HTTP/1.0 has none (RFC 9110 section 15.2)."""
        if self.head is not None and self.head.minor:
            self.write(self.data.forwarding.interim(head))

    def response_head(self, head: ResponseHead, length: int, ends_with_connection: bool) -> bytes:
        """The final head has come: the bytes for the client. From here on there is no retry."""
        request, origin = self.head, self.origin
        assert request is not None
        assert origin is not None
        self.answer_begun = True
        self.status = head.status
        if self.upload is not None or ends_with_connection or self.drop_after:
            # An answer before the end of the request: who knows whether the rest will still come.
            self.keep = False
        self.extend_s = self.data.stream_timeout_s
        self.data.answer_came(origin, self.started_s)
        return self.data.forwarding.response(head, request, length, self.keep)

    def write_answer(self, data: bytes, *, whole: bool = False) -> None:
        """Pass on an answer, or a piece of one."""
        self.bytes_out += len(data)
        if whole:
            self.send(data)
        else:
            self.write(data)

    def answered(self) -> None:
        """The answer is complete and written."""
        upstream = self.upstream
        assert upstream is not None
        self.upstream = None
        whole = self.upload is None
        if self.upload is not None:
            self.upload.stop()
        now_s = self.data.done(self)
        self._release_origin()
        upstream.finish()
        if upstream.write_paused:
            allow_reading(self)
        if whole and upstream.persistent:
            self.data.release(upstream, now_s)
        else:
            upstream.close()
        self._next(whole, now_s)

    def _next(self, whole: bool, now_s: float) -> None:
        """After an answer: the next request, or the end of the connection."""
        if not whole:
            self._linger()
        elif self.keep and not self.drop_after:
            self.head = None
            self._become_idle(now_s)
            if self.buffer and not self.write_paused:
                # Not at once: many pipelined requests with answers of our own would nest.
                self.data.loop.call_soon(self._read_pipelined)
        else:
            self._become(ClientState.CLOSING, self.data.stream_timeout_s)
            self.close()

    def upgraded(self, head: ResponseHead, rest: bytes) -> None:
        """The upstream agreed to switch protocols: from here on bytes just pass."""
        request, upstream = self.head, self.upstream
        assert request is not None
        assert upstream is not None
        protocol = self.data.forwarding.upgrade_of(request)
        if not protocol or head.fields.upgrade != protocol:
            self.upstream_failed("switched to a protocol nobody asked for")
            return
        self.answer_begun = True
        self.keep = False
        self.status = 101
        self._become(ClientState.TUNNEL, self.data.tunnel_timeout_s, extend=True)
        self.data.answer_came(self.origin, self.started_s)
        self.write_answer(self.data.forwarding.switching(head, protocol) + rest)
        if self.buffer:
            upstream.write(self._take_buffered())
        upstream.state = AnswerState.HANDED
        relay(self, upstream)

    # --- when it goes wrong -----------------------------------------------------------------------------------------

    def upstream_failed(self, why: str) -> None:
        """The upstream ended or spoiled the exchange."""
        upstream, origin = self.upstream, self.origin
        assert upstream is not None
        assert origin is not None
        if self.state is ClientState.TUNNEL:
            self._tunnel_ended()
            return
        # A kept connection that closes before it says anything was closed under our hands: nobody's failure.
        if not (upstream.reused and not upstream.spoke and upstream.state is AnswerState.CLOSED):
            self.data.outcome(origin, False, why)
        self.upstream = None
        if self.upload is not None:
            self.upload.stop()
        upstream.cancel(why)
        if self.answer_begun:
            self._cut_short("truncated")
        else:
            self.attempt_failed(why)

    def _cut_short(self, why: str) -> None:
        """The client must see that its answer is not whole: a reset, since closing may look like the end of a body."""
        self.data.count(why)
        self.data.done(self)
        self._drop_upstream(why)
        self._become(ClientState.CLOSING)
        self.reset()

    def _give_up(self, status: int, text: str) -> None:
        """The client's fault: end the exchange under way, and tell if that is still possible."""
        if self.answer_begun:
            self._cut_short("client_faults")
        else:
            self._drop_upstream(text)
            self._refuse(status, text)

    def expired(self) -> None:
        """The deadline has passed."""
        if self.state is ClientState.IDLE:
            if self.buffer:
                self._refuse(408, "the head took too long")
            else:
                self.close()
        elif self.state is not ClientState.EXCHANGE:
            self.abort("silent for too long")
        elif self.answer_begun:
            self._cut_short("stalled")
        elif self.upload is not None and not self._upstream_lags():
            self._give_up(408, "the body took too long")
        else:
            assert self.origin is not None
            name, what = self.origin.name, "did not answer in time" if self.upload is None else "did not take the body"
            self.data.outcome(self.origin, False, what)
            self._drop_upstream(what)
            self._answer_error(504, f"upstream {name} {what}")

    def _upstream_lags(self) -> bool:
        """Whether the upstream has not taken yet what was written to it."""
        upstream = self.upstream
        assert upstream is not None
        return upstream.untaken_bytes() > 0

    def _answer_error(self, status: int, text: str) -> None:
        """An answer of our own; the connection goes on if the whole request was read."""
        head = self.head
        assert head is not None
        self.data.count_error(status)
        self.status = status
        self.keep = self.keep and self.upload is None
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        if self.keep and not head.minor:
            headers.append(("Connection", "keep-alive"))
        body = f"{text}\n".encode()
        message = response(status, headers, body, close=not self.keep)
        self.write_answer(message[: len(message) - len(body)] if head.method == b"HEAD" else message)
        self._next(self.upload is None, self.data.done(self))

    def _refuse(self, status: int, text: str) -> None:
        """Answer what cannot be read any further, and end."""
        self.data.count_error(status)
        self.status = status
        self.write_answer(error_response(status, text))
        if self.head is not None:
            self.data.done(self)
        self._linger()

    # --- the loop's side --------------------------------------------------------------------------------------------

    def mid_request(self) -> bool:
        return self.upload is not None or super().mid_request()

    def pause_writing(self) -> None:
        """The client does not take the answer as fast as it comes."""
        self.write_paused = True
        if self.upstream is not None:
            hold_reading(self.upstream)
        self.endpoint.stalled(self)

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.closing:
            return
        if self.upstream is not None:
            allow_reading(self.upstream)
        elif self.state is ClientState.IDLE and self.buffer:
            self._read_pipelined()

    def eof_received(self) -> None:
        """The client is gone or has given up: half-closing is how most of them say so. The base closes."""
        super().eof_received()

    def closed(self, error: Exception | None) -> None:
        before = self.state
        self._become(ClientState.CLOSED)
        self.buffer = b""
        if before is ClientState.TUNNEL:
            self._tunnel_ended()
        elif before in (ClientState.WAITING, ClientState.EXCHANGE):
            self.data.count("client_aborts")
            self.status = self.status or 499  # nginx's number for it
            self.data.done(self)
            self._drop_upstream("the client has gone")

    def _tunnel_ended(self) -> None:
        """Either side of a tunnel has closed; the relay closes the other. Called for both, counted once."""
        if self.upstream is not None:
            self.upstream.client = None
            self.upstream = None
            self.data.done(self)
            self._release_origin()
