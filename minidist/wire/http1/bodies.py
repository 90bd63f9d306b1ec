"""Body framing (RFC 9112 sections 6 and 7): readers that cut a body out of a stream of bytes, and the chunked writer.

A reader is given what arrived and returns (payload, index just past what belonged to the body). It holds no payload:
what it returns is all there is, so that a body of any size passes in constant memory. When `done` is true the rest of
the bytes belongs to the next message. `eof()` says that the peer will send no more, and raises when that is too early.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Protocol

from minidist.wire.http1.heads import read_trailers, same_as
from minidist.wire.http1.messages import CHUNKED, UNTIL_CLOSE, Field, HttpError, Limits

LAST_CHUNK = b"0\r\n\r\n"

# RFC 9112 section 7.1: 1*HEXDIG and nothing else; int(x, 16) alone would take "_", "+", "0x" and spaces.
# 15 digits stay below 2^63. Extensions are skipped, but only well-formed ones.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_EXTENSION = rb";" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
_chunk_line = re.compile(rb"([0-9A-Fa-f]{1,15})((?:" + _EXTENSION + rb")*)").fullmatch
_chunk_line_start = re.compile(rb"[0-9A-Fa-f]{1,15}(?:;[\t\x20-\x7e\x80-\xff]*)?\r?").fullmatch

#: Must not come in a trailer (RFC 9110 section 6.5.1): framing, routing, authentication, request modifiers, content.
_NOT_IN_TRAILERS = frozenset(
    b"transfer-encoding content-length content-encoding content-type content-range trailer host connection te upgrade "
    b"keep-alive proxy-connection expect max-forwards cache-control pragma range authorization proxy-authorization "
    b"proxy-authenticate www-authenticate cookie set-cookie age date expires location retry-after vary forwarded via "
    b"x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port x-forwarded-prefix x-real-ip".split()
)


class BodyReader(Protocol):
    done: bool

    def feed(self, data: bytes, start: int = 0) -> tuple[bytes, int]: ...

    def eof(self) -> None: ...

    @property
    def trailers(self) -> list[Field]: ...


class LengthReader:
    """A body of a known number of bytes."""

    __slots__ = ("done", "remaining")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.done = length == 0

    def feed(self, data: bytes, start: int = 0) -> tuple[bytes, int]:
        available = len(data) - start
        if available >= self.remaining:
            end = start + self.remaining
            self.remaining = 0
            self.done = True
            return data[start:end], end
        self.remaining -= available
        return (data[start:] if start else data), len(data)

    def eof(self) -> None:
        if not self.done:
            raise HttpError(400, f"body ended {self.remaining} bytes early")

    @property
    def trailers(self) -> list[Field]:
        return []


class CloseReader:
    """A response body that ends with the connection."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes, start: int = 0) -> tuple[bytes, int]:
        return (data[start:] if start else data), len(data)

    def eof(self) -> None:
        self.done = True

    @property
    def trailers(self) -> list[Field]:
        return []


class _Chunk(Enum):
    SIZE = "size"
    DATA = "data"
    DATA_END = "data end"
    TRAILERS = "trailers"
    DONE = "done"


class ChunkedReader:
    """A chunked body, with its trailers."""

    __slots__ = ("_extension_bytes", "_limits", "_partial", "_remaining", "_state", "done", "trailers")

    def __init__(self, limits: Limits) -> None:
        self.done = False
        self.trailers: list[Field] = []
        self._limits = limits
        self._state = _Chunk.SIZE
        self._remaining = 0  #: of the current chunk
        self._partial = b""  #: the start of a size line or trailer section, bounded by the limits
        self._extension_bytes = 0

    def feed(self, data: bytes, start: int = 0) -> tuple[bytes, int]:
        """Returns the payload of all chunks in `data`, joined. Raises HttpError(400) where framing is lost."""
        if self._partial:
            data = self._partial + data[start:]
            # What was kept belonged to this body: the caller's index must not count it.
            shift = start - len(self._partial)
            self._partial = b""
            start = 0
        else:
            shift = 0
        pieces: list[bytes] = []
        at = start
        while at < len(data) and self._state is not _Chunk.DONE:
            if self._state is _Chunk.DATA:
                end = min(len(data), at + self._remaining)
                pieces.append(data[at:end])
                self._remaining -= end - at
                at = end
                if not self._remaining:
                    self._state = _Chunk.DATA_END
                continue
            after = self._step(data, at)
            if after < 0:
                self._partial = data[at:]
                at = len(data)
                break
            at = after
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), at + shift

    def _step(self, data: bytes, at: int) -> int:
        """Read one piece of framing; index after it, or -1 when it is not complete."""
        if self._state is _Chunk.SIZE:
            return self._read_size(data, at)
        if self._state is _Chunk.DATA_END:
            if data.startswith(b"\r\n", at):
                self._state = _Chunk.SIZE
                return at + 2
            if data[at:] == b"\r":
                return -1
            raise HttpError(400, "chunk is longer than its size")
        return self._read_trailers(data, at)

    def _read_size(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at, at + self._limits.chunk_extension_bytes)
        if end < 0:
            if len(data) - at >= self._limits.chunk_extension_bytes:
                raise HttpError(400, "chunk extension is too long")
            if not _chunk_line_start(data, at):
                raise HttpError(400, "malformed chunk size")
            return -1
        match = _chunk_line(data, at, end - 1) if end > at and data[end - 1] == 13 else None
        if match is None:
            raise HttpError(400, "malformed chunk size")
        size, extension = match.groups()
        if extension:
            self._extension_bytes += len(extension)
            if self._extension_bytes > self._limits.chunk_extension_bytes:
                raise HttpError(400, "too many chunk extensions")
        self._remaining = int(size, 16)
        self._state = _Chunk.DATA if self._remaining else _Chunk.TRAILERS
        return end + 1

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self._state = _Chunk.DONE
            self.done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at, at + self._limits.trailer_bytes)
        if end < 0:
            if len(data) - at >= self._limits.trailer_bytes:
                raise HttpError(400, "trailers are too large")
            if data.count(b"\n", at) != data.count(b"\r\n", at):
                raise HttpError(400, "line feed without carriage return")
            return -1
        self.trailers = read_trailers(data[at:end], self._limits)
        self._state = _Chunk.DONE
        self.done = True
        return end + 4

    def eof(self) -> None:
        if not self.done:
            raise HttpError(400, "chunked body ended early")


def body_reader(length: int, limits: Limits) -> BodyReader:
    """The reader for a body length as heads give it: a number of bytes, CHUNKED or UNTIL_CLOSE."""
    if length == CHUNKED:
        return ChunkedReader(limits)
    if length == UNTIL_CLOSE:
        return CloseReader()
    return LengthReader(length)


def chunk(payload: bytes) -> bytes:
    """One chunk. An empty payload gives nothing: it would end the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def last_chunk(trailers: list[Field]) -> bytes:
    """The end of a chunked body, with those trailers that are allowed there (RFC 9110 section 6.5.1)."""
    lines = [field.line + b"\r\n" for field in trailers if same_as(field.name) not in _NOT_IN_TRAILERS]
    return b"0\r\n" + b"".join(lines) + b"\r\n" if lines else LAST_CHUNK
