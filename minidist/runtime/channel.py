"""Requests and messages between two processes that trust each other, over a socket pair: peer frames, no handshake.

    channel = Channel({"figures": figures}, lost=gone)
    await loop.create_connection(lambda: channel, sock=end)
    await channel.request("figures", {})      # raises ChannelLost when the other process has gone
    channel.send("decide", {...})             # not answered

A handler takes the body and returns the answer, or an awaitable of it; what it raises reaches the caller as
`ChannelError` with its text. What the handler of a message that is not answered raises is a bug, and logged as one.
Messages arrive in the order of the calls: `request` and `send` write before they return.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from minidist.wire.frames import Decoder, Encoder, Kind

Handler = Callable[[Any], Any]

# The other process has stopped reading: it hangs, and is given up.
MAX_UNREAD_BYTES = 64 * 1024**2


class ChannelError(Exception):
    """The other side's handler failed; the text is its error."""


class ChannelLost(ConnectionError):
    """The other process is gone; whether the request took effect is unknown."""


class Channel(asyncio.Protocol):
    """One end of a socket pair."""

    def __init__(self, handlers: Mapping[str, Handler], lost: Callable[[], object]) -> None:
        self.handlers = handlers
        self.lost = lost
        self.transport: asyncio.Transport | None = None
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def send(self, method: str, body: Any) -> None:
        """Tell the other side, without an answer. Nothing happens when it is gone."""
        self._write(Kind.SEND, method, body)

    def request(self, method: str, body: Any) -> "asyncio.Future[Any]":
        """The answer of the other side's handler, to be awaited. Raises ChannelError, ChannelLost."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.transport is None or self.transport.is_closing():
            answer.set_exception(ChannelLost("the other process is gone"))
            return answer
        number = next(self._ids)
        self._write(Kind.REQUEST, number, 0, method, body)
        self._waiting[number] = answer
        return answer

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    # --- the loop's side --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            self._take(Kind(frame[0]), frame[1:])

    def connection_lost(self, exc: Exception | None) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ChannelLost("the other process is gone"))
        self._waiting.clear()
        for task in self._tasks.values():
            task.cancel()
        self.lost()

    def _take(self, kind: Kind, fields: list[Any]) -> None:
        if kind is Kind.SEND:
            try:
                self.handlers[fields[0]](fields[1])
            except Exception as error:
                context = {"message": f"a message of the other process failed: {fields[0]}", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
        elif kind is Kind.REQUEST:
            self._answer(fields[0], fields[2], fields[3])
        elif kind in (Kind.REPLY, Kind.ERROR):
            answer = self._waiting.pop(fields[0], None)
            if answer is not None and not answer.done():
                if kind is Kind.REPLY:
                    answer.set_result(fields[1])
                else:
                    answer.set_exception(ChannelError(fields[2]))

    def _answer(self, number: int, method: str, body: Any) -> None:
        try:
            result = self.handlers[method](body)
        except Exception as error:
            self._write(Kind.ERROR, number, type(error).__name__, str(error))
            return
        if isinstance(result, Awaitable):
            self._tasks[number] = asyncio.ensure_future(self._answer_later(number, result))
        else:
            self._write(Kind.REPLY, number, result)

    async def _answer_later(self, number: int, result: Awaitable[Any]) -> None:
        try:
            self._write(Kind.REPLY, number, await result)
        except Exception as error:
            self._write(Kind.ERROR, number, type(error).__name__, str(error))
        finally:
            self._tasks.pop(number, None)

    def _write(self, *frame: Any) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        self.transport.write(self._encoder.encode(*frame))
        if self.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self.transport.abort()
