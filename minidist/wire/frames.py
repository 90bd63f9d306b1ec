"""Peer frames: what travels between the nodes of a cluster. The reference page is docs/peers.md.

A frame is a length (4 bytes, unsigned, big-endian) and that many bytes of msgpack: one array whose first element is
the frame's kind. `SHAPES` is the table of kinds; a frame that does not fit its row exactly is refused, so what comes
out of a `Decoder` can be used without looking at it again. Bodies are plain data: nil, booleans, integers, floats,
text, bytes, arrays, and maps with text or bytes as keys.

Nothing is allocated on the word of the sender: a length above the limit is refused from its four bytes, before any of
the payload is kept, and an array or map may claim at most `max_items` elements, which bounds what nested headers can
reserve. Framing cannot be found again after an error, so a decoder that has raised must be dropped with its link.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Any

import msgpack

# What an append of many log entries or a page of keys needs, far below what would stall a loop (16 MiB: about 10 ms).
MAX_FRAME_BYTES = 16 * 1024**2
# msgpack reserves 8 bytes per claimed element, up to 1024 levels deep: 512 MiB of address space at the very worst.
MAX_ITEMS = 65_536

LENGTH = Struct(">I")

Frame = list[Any]
"""A kind, then its fields as `SHAPES` says."""


class Kind(IntEnum):
    """The first element of a frame."""

    HELLO = 0
    CHALLENGE = 1
    PROOF = 2
    WELCOME = 3
    REFUSED = 4
    PING = 5
    PONG = 6
    REQUEST = 7
    REPLY = 8
    ERROR = 9
    SEND = 10
    OPEN = 11
    CHUNK = 12
    CREDIT = 13
    END = 14
    RESET = 15


# Field types. COUNT is a non-negative integer; BODY is anything msgpack has, except extension types.
COUNT, TEXT, BYTES, MAP, BODY = int, str, bytes, dict, object


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of frame: its fields in order, and what it says."""

    fields: tuple[tuple[str, type], ...]
    meaning: str


SHAPES: dict[Kind, Shape] = {
    Kind.HELLO: Shape(
        (("magic", TEXT), ("version_min", COUNT), ("version_max", COUNT), ("identity", MAP)),
        "the dialler says who it is and which protocol versions it speaks",
    ),
    Kind.CHALLENGE: Shape((("version", COUNT), ("identity", MAP)), "the acceptor chooses a version and says who it is"),
    Kind.PROOF: Shape((("mac", BYTES),), "the dialler proves that it knows the cluster secret"),
    Kind.WELCOME: Shape((("mac", BYTES),), "the acceptor proves it too; the link is up"),
    Kind.REFUSED: Shape((("code", TEXT), ("reason", TEXT)), "the sender closes the link, and why"),
    Kind.PING: Shape((("token", COUNT),), "are you there?"),
    Kind.PONG: Shape((("token", COUNT),), "yes"),
    Kind.REQUEST: Shape(
        (("id", COUNT), ("timeout_ms", COUNT), ("method", TEXT), ("body", BODY)),
        "asks for a REPLY or ERROR with the same id; the sender stops waiting after timeout_ms",
    ),
    Kind.REPLY: Shape((("id", COUNT), ("body", BODY)), "the result of a request"),
    Kind.ERROR: Shape((("id", COUNT), ("code", TEXT), ("reason", TEXT)), "a request was refused or failed"),
    Kind.SEND: Shape((("method", TEXT), ("body", BODY)), "a message that is not answered"),
    Kind.OPEN: Shape((("stream", COUNT), ("method", TEXT), ("body", BODY)), "opens a stream of bytes both ways"),
    Kind.CHUNK: Shape((("stream", COUNT), ("data", BYTES)), "the next bytes of a stream, within the credit given"),
    Kind.CREDIT: Shape((("stream", COUNT), ("bytes", COUNT)), "that many more bytes may be sent"),
    Kind.END: Shape((("stream", COUNT),), "no more bytes in this direction"),
    Kind.RESET: Shape(
        (("stream", COUNT), ("code", TEXT), ("reason", TEXT)), "the stream is over in both directions, and why"
    ),
}

# What _checked compares with: per kind the exact type of each element, None where any will do.
_TYPES: dict[int, tuple[Any, ...]] = {
    int(kind): (int, *(None if wanted is BODY else wanted for _, wanted in shape.fields))
    for kind, shape in SHAPES.items()
}


class FrameError(Exception):
    """The peer does not speak this protocol; its link must be closed."""


class MalformedFrame(FrameError):
    """Not msgpack, or not of a known shape."""


class FrameTooLarge(FrameError):
    """A frame above the limit, received or about to be sent."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"frame of {size_bytes} bytes, allowed are {limit_bytes}")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class Encoder:
    """Turns frames into bytes. One per link: the packer's buffer is reused and must not be shared between threads."""

    __slots__ = ("_pack", "max_frame_bytes")

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._pack = msgpack.Packer(buf_size=4096).pack

    def encode(self, *frame: Any) -> bytes:
        """`encode(Kind.PING, 7)`. Raises FrameTooLarge, and TypeError or OverflowError for what msgpack has not."""
        payload: bytes = self._pack(frame)
        size = len(payload)
        if size > self.max_frame_bytes:
            raise FrameTooLarge(size, self.max_frame_bytes)
        return LENGTH.pack(size) + payload


class Decoder:
    """Turns bytes, cut anywhere, into frames. Holds less than one frame plus what was fed last."""

    __slots__ = ("_buffer", "_needed", "max_frame_bytes", "max_items")

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES, max_items: int = MAX_ITEMS) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.max_items = max_items
        self._buffer = bytearray()
        self._needed = LENGTH.size

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that `data` completes; iterate to the end, or drop the decoder.

        Raises FrameError at the first bad frame, after the good ones before it. The limits may be changed between
        feeds: a handshake starts with small ones.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                self._check_length()
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        view = memoryview(data)
        start, end = 0, len(data)
        while end - start >= LENGTH.size:
            size = LENGTH.unpack_from(data, start)[0]
            if size > self.max_frame_bytes:
                raise FrameTooLarge(size, self.max_frame_bytes)
            stop = start + LENGTH.size + size
            if stop > end:
                break
            yield _checked(self._unpack(view[start + LENGTH.size : stop]))
            start = stop
        if start < end:
            self._buffer += view[start:]
            self._check_length()
        else:
            self._needed = LENGTH.size

    def _check_length(self) -> None:
        """Find how long the buffered frame will be, so that its pieces are joined once and not at each feed."""
        if len(self._buffer) < LENGTH.size:
            self._needed = LENGTH.size
            return
        size = LENGTH.unpack_from(self._buffer)[0]
        if size > self.max_frame_bytes:
            raise FrameTooLarge(size, self.max_frame_bytes)
        self._needed = LENGTH.size + size

    def _unpack(self, payload: memoryview) -> Any:
        try:
            return msgpack.unpackb(
                payload,
                ext_hook=_no_extensions,
                timestamp=2,  # msgpack's own extension becomes an integer, so that bodies hold plain types only
                max_array_len=self.max_items,
                max_map_len=self.max_items,
            )
        except (ValueError, OverflowError) as error:  # all of msgpack's own errors are ValueErrors
            raise MalformedFrame(f"not msgpack: {error or type(error).__name__}") from error


def _no_extensions(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code}")


def _checked(frame: Any) -> Frame:
    """The frame when it fits its row of the table exactly, else MalformedFrame."""
    if type(frame) is not list or not frame or type(frame[0]) is not int:
        raise MalformedFrame("not an array that starts with a frame kind")
    types = _TYPES.get(frame[0])
    if types is None:
        raise MalformedFrame(f"unknown frame kind {frame[0]}")
    if len(frame) != len(types):
        raise MalformedFrame(f"{Kind(frame[0]).name} has {len(frame) - 1} fields, not {len(types) - 1}")
    for place, wanted in enumerate(types):
        value = frame[place]
        if wanted is not None and (type(value) is not wanted or (wanted is int and value < 0)):
            kind = Kind(frame[0])
            name = SHAPES[kind].fields[place - 1][0]
            raise MalformedFrame(f"{kind.name}: {name} is {type(value).__name__}, not {type_name(wanted)}")
    return frame


def type_name(wanted: type) -> str:
    """How the reference page and error messages name a field's type."""
    return {COUNT: "count", TEXT: "text", BYTES: "bytes", MAP: "map", BODY: "any"}[wanted]


def reference() -> str:
    """The table of kinds as Markdown, for docs/peers.md."""
    rows = ["| kind | name | fields | meaning |", "|---|---|---|---|"]
    for kind, shape in SHAPES.items():
        fields = ", ".join(f"{name} ({type_name(wanted)})" for name, wanted in shape.fields)
        rows.append(f"| {int(kind)} | {kind.name} | {fields} | {shape.meaning} |")
    return "\n".join(rows) + "\n"
