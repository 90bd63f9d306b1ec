"""RESP as clients read it: replies of RESP2 and RESP3.

`ReplyReader` is hiredis' reader, which the load generator, backing stores and tests use; hiredis trusts the header of
an aggregate, so talk through it to servers you chose. `PlainReplyReader` reads the same in Python, with limits; it is
the oracle in tests and the reader where hiredis is missing.

Replies become: bulk strings, statuses and verbatim texts bytes; integers and big numbers int; doubles float; booleans
bool; nulls None; arrays and pushes list; sets list; maps dict. Errors are returned, not raised, as `ReplyError`.
"""

from collections.abc import Callable
from typing import Any

from minidist.wire.resp_plain import CRLF, ProtocolError

try:
    import hiredis
except ImportError:  # pragma: no cover - where no wheel exists
    hiredis = None  # type: ignore[assignment]

MAX_DEPTH = 64
MAX_ELEMENTS = 1024 * 1024
MAX_BULK_BYTES = 512 * 1024**2


class ReplyError(Exception):
    """An error that the server answered; the text begins with its code."""


class Nothing:
    """What `next` returns while no reply is whole; None is a reply."""

    def __repr__(self) -> str:
        return "NOTHING"


NOTHING = Nothing()


class PlainReplyReader:
    """Replies of one connection, read in Python. Raises ProtocolError for what is no reply or beyond the limits."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Any:
        """The next reply, or NOTHING until more is fed. A partial reply is read again from its start."""
        try:
            value, end = self._value(0, 0)
        except IndexError:
            return NOTHING
        del self._buffer[:end]
        return value

    @property
    def idle(self) -> bool:
        """No reply is partly received."""
        return not self._buffer

    def _line(self, at: int) -> tuple[bytes, int]:
        end = self._buffer.find(CRLF, at)
        if end < 0:
            raise IndexError
        return bytes(self._buffer[at:end]), end + 2

    def _value(self, at: int, depth: int) -> tuple[Any, int]:
        """The value at a position and where it ends. IndexError: not yet whole."""
        if depth > MAX_DEPTH:
            raise ProtocolError("reply nested too deep")
        kind = chr(self._buffer[at])
        line, end = self._line(at + 1)
        if kind in _SCALARS:
            try:
                return _SCALARS[kind](line), end
            except ValueError as error:
                raise ProtocolError(f"bad reply {kind}{line!r}") from error
        if kind not in "$=!*~>%":
            raise ProtocolError(f"unknown reply type {kind!r}")
        length = _length(line, MAX_BULK_BYTES if kind in "$=!" else MAX_ELEMENTS)
        if length < 0:
            return None, end
        if kind in "$=!":
            return self._text(kind, end, length)
        return self._aggregate(kind, end, length, depth)

    def _text(self, kind: str, at: int, length: int) -> tuple[Any, int]:
        end = at + length
        if len(self._buffer) < end + 2:
            raise IndexError
        if self._buffer[end : end + 2] != CRLF:
            raise ProtocolError("expected CRLF after bulk string")
        text = bytes(self._buffer[at:end])
        if kind == "!":
            return ReplyError(text.decode("utf-8", "backslashreplace")), end + 2
        return text[4:] if kind == "=" else text, end + 2

    def _aggregate(self, kind: str, at: int, length: int, depth: int) -> tuple[Any, int]:
        values = []
        for _ in range(length * 2 if kind == "%" else length):
            value, at = self._value(at, depth + 1)
            values.append(value)
        if kind == "%":
            return dict(zip(map(_hashable, values[::2]), values[1::2], strict=True)), at
        return values, at


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _length(line: bytes, limit: int) -> int:
    try:
        length = int(line)
    except ValueError as error:
        raise ProtocolError(f"bad length {line!r}") from error
    if not -1 <= length <= limit:
        raise ProtocolError(f"length {length} beyond the limit")
    return length


def _boolean(line: bytes) -> bool:
    if line not in (b"t", b"f"):
        raise ValueError(line)
    return line == b"t"


_SCALARS: dict[str, Callable[[bytes], Any]] = {
    "+": bytes,
    "-": lambda line: ReplyError(line.decode("utf-8", "backslashreplace")),
    ":": int,
    "(": int,
    ",": float,
    "#": _boolean,
    "_": lambda line: None,
}


class HiredisReplyReader:
    """Replies of one connection, read by hiredis. Raises ProtocolError for what is no reply."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(protocolError=ProtocolError, replyError=ReplyError, notEnoughData=NOTHING)
        self.feed: Callable[[bytes], None] = self._reader.feed

    def next(self) -> Any:
        """The next reply, or NOTHING until more is fed."""
        return self._reader.gets()


ReplyReader: type[PlainReplyReader] | type[HiredisReplyReader] = (
    PlainReplyReader if hiredis is None else HiredisReplyReader
)
