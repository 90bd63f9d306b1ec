"""What an HTTP/1.x message is once it has been believed: validated heads, their framing facts, and the error if not.

Everything here is immutable and carries bytes as they travelled, except that surrounding white space is gone and names
are also kept in lower case. A `Fields` is shared between all messages whose field block was byte for byte the same.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Body lengths that are no number of bytes (RFC 9112 section 6.3).
CHUNKED = -1
UNTIL_CLOSE = -2


class HttpError(ValueError):
    """The peer broke the protocol. `status` is what to answer (a response that is broken is always 502); then close."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer may make us hold."""

    head_bytes: int = 32 * 1024  # nginx takes 4 × 8 kB, HAProxy 16 kB: large cookies and tokens pass
    target_bytes: int = 8 * 1024  # RFC 9112 section 3 asks for 8,000 at least
    fields: int = 100  # nginx and httpd have 100; each costs a table look-up
    trailer_bytes: int = 8 * 1024
    chunk_extension_bytes: int = 4 * 1024  # of a whole body: nobody uses them, attackers pad with them


class Field:
    """One validated field line."""

    __slots__ = ("framing", "line", "name", "value")

    def __init__(self, name: bytes, value: bytes, line: bytes, framing: bool) -> None:
        self.name = name  #: lower case
        self.value = value  #: without surrounding white space
        self.line = line  #: as it is written again: name as received, ": ", value
        self.framing = framing  #: has a meaning for this hop: framing, connection, routing

    def __repr__(self) -> str:
        return f"Field({self.line!r})"


class Fields:
    """A validated block of field lines, and what it says about this hop (RFC 9110 section 7.6.1)."""

    __slots__ = (
        "chunked",
        "close",
        "content_length",
        "end_to_end",
        "expect_continue",
        "host",
        "items",
        "keep_alive",
        "te_trailers",
        "upgrade",
    )

    def __init__(self, items: tuple[Field, ...]) -> None:
        self.items = items
        self.content_length: int | None = None
        self.chunked = False
        self.close = False  #: Connection: close
        self.keep_alive = False  #: Connection: keep-alive
        self.upgrade = b""  #: the offered protocols, lower case; only when Connection names upgrade
        self.te_trailers = False
        self.expect_continue = False
        self.host: bytes | None = None
        #: The lines for the next hop, each with its CRLF: without Host, framing, hop-by-hop and dropped fields.
        self.end_to_end = b""

    def get(self, name: bytes) -> bytes | None:
        """Value of the first field of this (lower case) name."""
        for field in self.items:
            if field.name == name:
                return field.value
        return None

    def get_all(self, name: bytes) -> list[bytes]:
        return [field.value for field in self.items if field.name == name]


class RequestHead:
    """A believed request head. `target` is in origin form, or "*", or an authority for CONNECT."""

    __slots__ = ("fields", "host", "length", "method", "minor", "persistent", "target")

    def __init__(
        self, method: bytes, target: bytes, minor: int, host: bytes, fields: Fields, length: int, persistent: bool
    ) -> None:
        self.method = method
        self.target = target
        self.minor = minor  #: HTTP/1.minor
        self.host = host  #: of an absolute target, else of Host; empty only in HTTP/1.0
        self.fields = fields
        self.length = length  #: body bytes, or CHUNKED
        self.persistent = persistent  #: the client wants to send another request on this connection

    def __repr__(self) -> str:
        return f"RequestHead({self.method!r}, {self.target!r}, host={self.host!r}, length={self.length})"


class ResponseHead:
    """A believed response head. Its body length also depends on the request: `body_length`."""

    __slots__ = ("fields", "minor", "persistent", "reason", "status")

    def __init__(self, status: int, reason: bytes, minor: int, fields: Fields, persistent: bool) -> None:
        self.status = status
        self.reason = reason
        self.minor = minor
        self.fields = fields
        self.persistent = persistent

    def __repr__(self) -> str:
        return f"ResponseHead({self.status}, {self.reason!r})"

    def body_length(self, method: bytes) -> int:
        """Bytes of the body that follows, or CHUNKED, or UNTIL_CLOSE, in answer to `method` (RFC 9112 section 6.3)."""
        status = self.status
        if method == b"HEAD" or status == 204 or status == 304 or status < 200:
            return 0
        if method == b"CONNECT" and status < 300:
            return 0
        fields = self.fields
        if fields.chunked:
            return CHUNKED
        if fields.content_length is not None:
            return fields.content_length
        return UNTIL_CLOSE
