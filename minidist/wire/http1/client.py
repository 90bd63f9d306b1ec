"""The client's side: bytes from a server in, whole responses out.

    reader = ResponseReader()
    reader.expect("GET")                    # once per request sent, in order
    for response in reader.feed(data): ...
    last = reader.eof()                     # a body that ended with the connection

`reader.persistent` says whether the connection may be used again. Interim (1xx) responses are skipped; after 101 the
connection belongs to another protocol, and what followed the head is in `reader.rest`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from minidist.wire.http1.bodies import BodyReader, body_reader
from minidist.wire.http1.heads import ResponseParser
from minidist.wire.http1.messages import Fields, HttpError, Limits, ResponseHead


@dataclass(slots=True)
class Response:
    status: int
    reason: str
    fields: Fields
    body: bytes
    body_bytes: int  #: also counted when bodies are not kept

    def header(self, name: str) -> str | None:
        value = self.fields.get(name.lower().encode("latin-1"))
        return None if value is None else value.decode("latin-1")


class ResponseReader:
    """Reads the responses of one connection, pipelined or not."""

    def __init__(
        self,
        *,
        parser: ResponseParser | None = None,
        max_body_bytes: int = 64 * 1024 * 1024,
        keep_body: bool = True,
    ) -> None:
        """`parser` may be shared between connections. Without `keep_body` bodies are only counted."""
        self.persistent = True
        self.rest = b""
        self._parser = parser or ResponseParser(Limits())
        self._max_body_bytes = max_body_bytes
        self._keep_body = keep_body
        self._methods: deque[bytes] = deque()
        self._head: ResponseHead | None = None
        self._body: BodyReader | None = None
        self._pieces: list[bytes] = []
        self._body_bytes = 0

    @property
    def outstanding(self) -> int:
        """Requests whose response is not complete."""
        return len(self._methods)

    def expect(self, method: str) -> None:
        self._methods.append(method.encode())

    def feed(self, data: bytes) -> list[Response]:
        """Raises HttpError(502) when the server broke the protocol, or spoke without being asked."""
        if self.rest:
            data = self.rest + data
            self.rest = b""
        responses: list[Response] = []
        at = 0
        while at < len(data):
            if self._body is None:
                if not self._methods:
                    raise HttpError(502, "response without a request")
                parsed = self._parser.parse(data, at)
                if parsed is None:
                    self.rest = data[at:]
                    break
                head, at = parsed
                if head.status < 200 and head.status != 101:
                    continue
                self._start(head)
                if head.status == 101:
                    self.rest = data[at:]
                    self.persistent = False
                    responses.append(self._finish())
                    break
            assert self._body is not None
            at = self._read_body(data, at)
            if self._body.done:
                responses.append(self._finish())
        return responses

    def _start(self, head: ResponseHead) -> None:
        self._head = head
        self._body = body_reader(head.body_length(self._methods[0]), self._parser.limits)

    def _read_body(self, data: bytes, at: int) -> int:
        assert self._body is not None
        try:
            payload, at = self._body.feed(data, at)
        except HttpError as error:
            raise HttpError(502, error.text) from None
        self._body_bytes += len(payload)
        if self._keep_body and payload:
            if self._body_bytes > self._max_body_bytes:
                raise HttpError(502, f"body is larger than {self._max_body_bytes} bytes")
            self._pieces.append(payload)
        return at

    def _finish(self) -> Response:
        assert self._head is not None
        head = self._head
        self.persistent = self.persistent and head.persistent
        self._methods.popleft()
        body = b"".join(self._pieces)
        response = Response(head.status, head.reason.decode("latin-1"), head.fields, body, self._body_bytes)
        self._head = self._body = None
        self._pieces = []
        self._body_bytes = 0
        return response

    def eof(self) -> Response | None:
        """The connection ended. Returns the response that ended with it; HttpError(502) when one was cut short."""
        self.persistent = False
        if self._body is not None:
            try:
                self._body.eof()
            except HttpError as error:
                raise HttpError(502, error.text) from None
            return self._finish()
        if self.rest:
            raise HttpError(502, "head ended early")
        return None
