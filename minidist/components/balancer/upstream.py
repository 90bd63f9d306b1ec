"""The upstream's side of the data path: an origin with its pool, and a connection that reads answers.

A connection serves one client at a time (`client`), whole exchanges only; between them it waits in its origin's pool.
It goes back there only if its answer was complete, well-formed, wanted to persist, and nothing came after it: whatever
else an upstream says costs it the connection, so that no later request can be given a wrong answer.

    IDLE        in the pool: anything it says now was not asked for
    AWAIT       a request was written, the head of the answer is outstanding
    BODY        the body passes, piece by piece
    HANDED      the relay moves the bytes (a long body, a tunnel)
    CLOSED
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from minidist.components.balancer.state import chunked_out, ends_with_connection
from minidist.engines.balancing import Upstream
from minidist.runtime.config import Address
from minidist.runtime.connection import Connection
from minidist.runtime.relay import RelayBroken, relay_exactly
from minidist.runtime.relay.flow import BULK_BYTES
from minidist.runtime.sockets import unread_probe
from minidist.wire.http1 import (
    UNTIL_CLOSE,
    BodyReader,
    HttpError,
    LengthReader,
    ResponseHead,
    body_reader,
    chunk,
    last_chunk,
)

if TYPE_CHECKING:
    from minidist.components.balancer.data import DataHalf
    from minidist.components.balancer.downstream import ClientConnection
    from minidist.runtime.endpoint import Dialler


def hold_reading(connection: Connection) -> None:
    """Read no more for now. A transport that is closing (the peer has ended) would complain."""
    if not connection.transport.is_closing():
        connection.transport.pause_reading()


def allow_reading(connection: Connection) -> None:
    if not connection.transport.is_closing():
        connection.transport.resume_reading()


def host_of(address: Address) -> str:
    """What Host says where nobody has named one."""
    return "localhost" if address.path else str(address)


class Origin(Upstream):
    """An upstream with its connections. The newest idle connection is used first, so that the others can go."""

    __slots__ = ("address", "gone", "host", "idle", "open", "talkative")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.address = Address.parse(name)
        self.host = host_of(self.address).encode()
        self.idle: list[UpstreamConnection] = []
        self.open = 0  #: connections, idle ones and those being made included
        self.gone = False  #: removed: connections are not kept any more
        self.talkative = False  #: has said something unasked: its kept connections are looked at before they are used


class AnswerState(Enum):
    IDLE = "idle"
    AWAIT = "await"
    BODY = "body"
    HANDED = "handed"
    CLOSED = "closed"


class UpstreamConnection(Connection):
    """One connection to an upstream."""

    __slots__ = (
        "buffer", "chunking", "client", "data", "expires_s", "origin", "persistent", "reader", "reused", "spoke",
        "state", "unread_probe",
    )  # fmt: skip

    def __init__(self, dialler: Dialler[UpstreamConnection], data: DataHalf, origin: Origin) -> None:
        super().__init__(dialler)
        self.data = data
        self.origin = origin
        self.client: ClientConnection | None = None
        self.state = AnswerState.IDLE
        self.buffer = b""  #: an incomplete head
        self.reader: BodyReader | None = None
        self.chunking = False  #: the body goes to the client in chunks
        self.persistent = True
        self.reused = False  #: has answered before: it may have been closed under our request
        self.spoke = False  #: a byte of the present answer has come
        self.unread_probe: Callable[[], object] | None = None  #: made when it is first needed
        self.expires_s = 0.0  #: loop time at which it has waited in the pool too long

    # --- exchanges --------------------------------------------------------------------------------------------------

    def has_unread(self) -> bool:
        """Whether bytes or an end of file wait in it (it must not be closing): then it serves nobody any more.

        The loop is about to read them, unasked; sent a request now, they would be taken for its answer.
        """
        if self.unread_probe is None:
            self.unread_probe = unread_probe(self.transport.get_extra_info("socket"))
        return bool(self.unread_probe())

    def begin(self, client: ClientConnection) -> None:
        """Serve this client until `finish` or `cancel`."""
        self.client = client
        self.state = AnswerState.AWAIT
        self.spoke = False

    def finish(self) -> None:
        """The answer is complete."""
        client, self.client = self.client, None
        self.reader = None
        self.reused = True
        if self.state is not AnswerState.CLOSED:
            self.state = AnswerState.IDLE
            if client is not None and client.write_paused:
                allow_reading(self)

    def cancel(self, reason: str) -> None:
        """Nobody waits for this answer any more."""
        self.client = None
        if self.state is not AnswerState.CLOSED:
            self.state = AnswerState.IDLE
            self.abort(reason)

    # --- bytes ------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.touched = True
        client = self.client
        if client is None:
            self.data.count("unasked")
            self.origin.talkative = True
            self.abort("spoke without being asked")
            return
        client.touched = True
        try:
            if self.state is AnswerState.AWAIT:
                self._read_heads(client, self.buffer + data if self.buffer else data)
            else:
                self._read_body(client, data)
        except HttpError as error:
            client.upstream_failed(f"broke the protocol: {error.text}")

    def _read_heads(self, client: ClientConnection, data: bytes) -> None:
        self.spoke = True
        at = 0
        while True:
            parsed = self.data.response_parser.parse(data, at)
            if parsed is None:
                self.buffer = data[at:]
                return
            head, at = parsed
            if head.status >= 200:
                break
            if head.status == 101:
                self.buffer = b""
                client.upgraded(head, data[at:])
                return
            client.interim(head)
        self.buffer = b""
        self._answer(client, head, data, at)

    def _answer(self, client: ClientConnection, head: ResponseHead, data: bytes, at: int) -> None:
        request = client.head
        assert request is not None
        length = head.body_length(request.method)
        # A 204 that speaks of a body may be followed by one, whatever RFC 9110 section 15.3.5 says.
        bodiless_lie = head.status == 204 and (head.fields.chunked or head.fields.content_length)
        self.persistent = head.persistent and length != UNTIL_CLOSE and not bodiless_lie
        head_bytes = client.response_head(head, length, ends_with_connection(length, request))
        rest = len(data) - at
        if 0 <= length <= rest:  # the whole answer is here: nearly always
            if rest > length:
                self._said_too_much()
                data = data[: at + length]
            client.write_answer(head_bytes + data[at:], whole=True)
            client.answered()
            return
        if length - rest >= BULK_BYTES:
            client.write_answer(head_bytes + data[at:])
            self._hand_over(client, length - rest)
            return
        self.state = AnswerState.BODY
        self.chunking = chunked_out(length, request)
        self.reader = LengthReader(length) if length > 0 else body_reader(length, self.data.limits)
        self._read_body(client, data, at, head_bytes)

    def _read_body(self, client: ClientConnection, data: bytes, at: int = 0, before: bytes = b"") -> None:
        reader = self.reader
        assert reader is not None
        payload, end = reader.feed(data, at)
        if self.chunking:
            payload = chunk(payload)
            if reader.done:
                payload += last_chunk(reader.trailers)
        if before:
            payload = before + payload
        if payload:
            client.write_answer(payload)
        if reader.done:
            if end < len(data):
                self._said_too_much()
            client.answered()

    def _said_too_much(self) -> None:
        """After its answer came more, which nobody asked for."""
        self.persistent = False
        self.origin.talkative = True

    def _hand_over(self, client: ClientConnection, count: int) -> None:
        self.state = AnswerState.HANDED
        client.bytes_out += count

        def ended(error: RelayBroken | None) -> None:
            if self.client is not client:
                return  # one of the two was closed, and has said so
            if error is None:
                client.answered()
                return
            client.bytes_out -= count - error.carried
            if error.source_lost:
                client.upstream_failed(f"answer ended {count - error.carried} bytes early")
            else:  # the kernel knew before the transport; no fault of the upstream
                client.abort("the client has gone")

        relay_exactly(self, client, count, on_end=ended)

    # --- the loop's side --------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The upstream does not take the request body as fast as it comes."""
        self.write_paused = True
        if self.client is not None:
            hold_reading(self.client)
        self.endpoint.stalled(self)

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.client is not None and not self.client.closing:
            allow_reading(self.client)

    def eof_received(self) -> None:
        """The end of a body without length, or of the connection; the base closes either way."""
        super().eof_received()
        client, reader = self.client, self.reader
        if client is None or self.state is not AnswerState.BODY or reader is None:
            return
        try:
            reader.eof()
        except HttpError:
            return  # closed() says that the answer was cut short
        if self.chunking:
            client.write_answer(last_chunk([]))
        client.answered()

    def closed(self, error: Exception | None) -> None:
        self.state = AnswerState.CLOSED
        self.data.forget(self)
        if self.client is not None:
            self.client.upstream_failed(f"closed the connection ({error or 'end of file'})")
