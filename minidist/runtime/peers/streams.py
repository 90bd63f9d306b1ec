"""Streams over a link: ordered bytes both ways, each direction held back by what the reader has taken.

The writer starts with a credit of `WINDOW_BYTES` and stops when it is used up; the reader gives credit back as it takes
bytes, in steps of half a window. So a stream that nobody reads holds one window of memory, whatever is sent, and a
stream on a shared link puts at most one window in front of the link's other messages.

A direction ends with END; RESET ends both at once. The dialler of the connection numbers the streams it opens with odd
numbers, the acceptor with even ones.
"""

import asyncio
import collections
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from minidist.runtime.peers.errors import LinkLost, PeerFailure, RequestFailed, StreamReset
from minidist.runtime.peers.requests import report_bug
from minidist.wire.frames import Frame, Kind

if TYPE_CHECKING:
    from minidist.runtime.peers.link import Link

# Half a window per round trip: 256 KiB carry 1 Gbit/s at 1 ms, and delay other messages by a millisecond or two.
WINDOW_BYTES = 256 * 1024
CHUNK_BYTES = 64 * 1024


StreamHandler = Callable[[str, Any, "Stream"], Awaitable[None]]
"""`await handler(peer, body, stream)`; when it returns, what it wrote is ended, when it raises, the stream is reset."""


class ProtocolBroken(Exception):
    """The peer sent what it was not allowed to: the link must be dropped."""


class Stream:
    """One end of a stream. One task may read while another writes; the stream is over when both directions are."""

    __slots__ = (
        "_chunks",
        "_credit",
        "_ended",
        "_failure",
        "_link",
        "_owed",
        "_reader",
        "_sent_end",
        "_uncredited",
        "_writer",
        "id",
    )

    def __init__(self, link: "Link", number: int) -> None:
        self.id = number
        self._link = link
        self._chunks: collections.deque[bytes] = collections.deque()
        self._uncredited = 0  # bytes received whose credit was not given back …
        self._owed = 0  # … and how many of them our reader has taken
        self._credit = WINDOW_BYTES  # what we may still send
        self._ended = False  # the peer has sent END
        self._sent_end = False
        self._failure: PeerFailure | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    @property
    def peer(self) -> str:
        return self._link.peer_name

    async def write(self, data: bytes) -> None:
        """Send bytes; returns when they are on their way, having waited for credit. Raises StreamReset, LinkLost."""
        assert not self._sent_end, "written after end()"
        view = memoryview(data)
        while view:
            if self._failure is not None:
                raise self._failure
            size = min(len(view), self._credit, CHUNK_BYTES)
            if size:
                self._credit -= size
                self._link.post(Kind.CHUNK, self.id, bytes(view[:size]))
                view = view[size:]
            else:
                self._writer = asyncio.get_running_loop().create_future()
                await self._writer
        if self._failure is not None:
            raise self._failure

    async def read(self) -> bytes:
        """The next bytes, as they come; b"" after the end. Raises StreamReset, LinkLost."""
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        chunk = self._chunks.popleft()
        self._owed += len(chunk)
        if self._owed >= WINDOW_BYTES // 2 and not self._ended and self._failure is None:
            self._link.post(Kind.CREDIT, self.id, self._owed)
            self._uncredited -= self._owed
            self._owed = 0
        return chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    def end(self) -> None:
        """No more will be written; reading goes on."""
        if not self._sent_end and self._failure is None:
            self._sent_end = True
            self._link.post(Kind.END, self.id)
            self._settle()

    def reset(self, code: str, reason: str) -> None:
        """Give the stream up in both directions; both sides then raise StreamReset with this code."""
        if self._failure is None and not (self._ended and self._sent_end):
            self._link.post(Kind.RESET, self.id, code, reason)
            self.fail(StreamReset(self.peer, code, reason))

    # --- the link's side --------------------------------------------------------------------------------------------

    def chunk_received(self, data: bytes) -> None:
        self._uncredited += len(data)
        if not data or self._ended or self._uncredited > WINDOW_BYTES:
            raise ProtocolBroken(f"stream {self.id}: a chunk of {len(data)} bytes that was not allowed")
        self._chunks.append(data)
        _wake(self._reader)

    def credit_received(self, count: int) -> None:
        if self._credit + count > WINDOW_BYTES:
            raise ProtocolBroken(f"stream {self.id}: credit beyond the window")
        self._credit += count
        _wake(self._writer)

    def end_received(self) -> None:
        self._ended = True
        _wake(self._reader)
        self._settle()

    def fail(self, failure: PeerFailure) -> None:
        """Over in both directions: reset, or the link is gone."""
        if self._failure is None:
            self._failure = failure
            _wake(self._reader)
            _wake(self._writer)
            self._link.streams.over(self)

    def _settle(self) -> None:
        if self._ended and self._sent_end:
            self._link.streams.over(self)


class Streams:
    """All streams of one link."""

    __slots__ = ("_limit", "_link", "_next_id", "_open")

    def __init__(self, link: "Link", dialled: bool, limit: int) -> None:
        self._link = link
        self._limit = limit
        self._next_id = 1 if dialled else 2
        self._open: dict[int, Stream] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, method: str, body: Any) -> Stream:
        stream = Stream(self._link, self._next_id)
        self._next_id += 2
        self._open[stream.id] = stream
        try:
            self._link.send_frame(Kind.OPEN, stream.id, method, body)
        except BaseException:
            del self._open[stream.id]
            raise
        return stream

    def opened(self, frame: Frame) -> None:
        """The peer opens a stream: its handler gets a task of its own."""
        _, number, method, body = frame
        handler = self._link.peers.stream_handlers.get(method)
        if number in self._open or number % 2 == self._next_id % 2:
            raise ProtocolBroken(f"stream {number} cannot be opened")
        if handler is None:
            self._link.post(Kind.RESET, number, "unknown-method", f"no stream is called {method[:64]!r}")
        elif len(self._open) >= self._limit:
            self._link.post(Kind.RESET, number, "busy", f"{self._limit} streams are open already")
        else:
            stream = self._open[number] = Stream(self._link, number)
            self._link.peers.start_task(self._run(handler, stream, body))

    async def _run(self, handler: StreamHandler, stream: Stream, body: Any) -> None:
        try:
            await handler(stream.peer, body, stream)
            stream.end()
        except RequestFailed as failure:
            stream.reset(failure.code, failure.reason)
        except PeerFailure:
            stream.reset("gone", "the other side is gone")
        except Exception as error:
            stream.reset("internal", "the handler failed")
            report_bug(error, f"stream handler of {stream.peer} failed")

    def received(self, frame: Frame) -> None:
        """CHUNK, CREDIT, END or RESET. Frames for a stream that is over were on their way when it ended."""
        kind, number = frame[0], frame[1]
        stream = self._open.get(number)
        if stream is None:
            return
        if kind == Kind.CHUNK:
            stream.chunk_received(frame[2])
        elif kind == Kind.CREDIT:
            stream.credit_received(frame[2])
        elif kind == Kind.END:
            stream.end_received()
        else:
            stream.fail(StreamReset(stream.peer, frame[2], frame[3]))

    def over(self, stream: Stream) -> None:
        self._open.pop(stream.id, None)
        self._link.settled()

    def lost(self, reason: str) -> None:
        for stream in list(self._open.values()):
            stream.fail(LinkLost(stream.peer, reason))


def _wake(waiter: "asyncio.Future[None] | None") -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
