"""Requests to a server and their answers, over connections that are kept: one request at a time on each.

A connection goes back to the others only if its answer was whole, well-formed, and nothing came after it. What else the
server does (closes early, says more than it was asked, takes too long) costs it the connection and is a BackingError,
which says whether the request may have taken effect: not if it was never sent.

A write that took too long may still be carried out. Its connection lingers until the server has answered or closed, or
for LINGER_S: `BackingError.ended` tells when, so that no newer write of the same key overtakes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from minidist.components.cache.backing.store import BackingError
from minidist.runtime.config import Address
from minidist.runtime.connection import Connection
from minidist.runtime.endpoint import DialError, Dialler

# A server that has not carried out a request after so long is taken to have lost it.
LINGER_S = 60.0


class AnswerReader(Protocol):
    """Reads the answer to one request. Its methods raise ValueError for what is none."""

    @property
    def persistent(self) -> bool:
        """Whether the connection may be used again after this answer."""

    def feed(self, data: bytes) -> Any:
        """The answer, or None until it is whole."""

    def eof(self) -> Any:
        """The answer, if it ends with the connection."""


class ExchangeConnection(Connection):
    """One connection to the store."""

    __slots__ = ("_answer", "_ended", "_reader")

    def __init__(self, dialler: Dialler[ExchangeConnection]) -> None:
        super().__init__(dialler)
        self._reader: AnswerReader | None = None
        self._answer: asyncio.Future[Any] | None = None
        self._ended: asyncio.Future[None] | None = None  # while it lingers

    async def ask(self, payload: bytes, reader: AnswerReader) -> Any:
        """Raises BackingError."""
        if self.closing:
            raise BackingError("connection closed", happened=False)
        self._reader = reader
        self._answer = asyncio.get_running_loop().create_future()
        self.write(payload)
        return await self._answer

    def finish(self) -> None:
        """The answer was taken; what comes now was not asked for."""
        self._answer = self._reader = None

    def linger(self) -> asyncio.Future[None]:
        """Nobody waits for the answer any more; done when it has come, or never will."""
        loop = asyncio.get_running_loop()
        self._ended = ended = loop.create_future()
        timer = loop.call_later(LINGER_S, self.abort, "no answer")
        ended.add_done_callback(lambda _: timer.cancel())
        return ended

    def data_received(self, data: bytes) -> None:
        self.touched = True
        if self._reader is None:
            self.abort("spoke without being asked")
            return
        self._take(self._reader.feed, data)

    def eof_received(self) -> None:
        self.closing = True
        if self._reader is not None:
            self._take(self._reader.eof)

    def closed(self, error: Exception | None) -> None:
        self._fail(f"connection lost before the answer was whole ({error or 'closed'})")
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _take(self, read: Callable[..., Any], *data: bytes) -> None:
        try:
            answer = read(*data)
        except ValueError as error:
            self._fail(f"answered wrongly: {error}")
            self.abort("answered wrongly")
            return
        if answer is not None and self._ended is not None:
            self.close()  # `closed` tells
        elif answer is not None and self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _fail(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(BackingError(reason, happened=True))


class Exchanges:
    """The connections to one server. `prepare` greets on a new one."""

    def __init__(
        self,
        dialler: Dialler[ExchangeConnection],
        address: Address,
        prepare: Callable[[ExchangeConnection], Awaitable[None]] | None = None,
    ) -> None:
        self._dialler = dialler
        self._address = address
        self._prepare = prepare
        self._idle: list[ExchangeConnection] = []

    async def exchange(
        self, payload: bytes, make_reader: Callable[[], AnswerReader], *, until_s: float, writes: bool
    ) -> Any:
        """The answer. Raises BackingError, at the latest at loop time `until_s`."""
        connection = self._kept() or await self._new(until_s)
        reader = make_reader()
        try:
            async with asyncio.timeout_at(until_s):
                answer = await connection.ask(payload, reader)
        except TimeoutError:
            if writes and not connection.closing:
                raise BackingError("timed out", happened=True, ended=connection.linger()) from None
            connection.abort("took too long")
            raise BackingError("timed out", happened=True) from None
        except BaseException:
            connection.abort("no answer")
            raise
        connection.finish()
        if reader.persistent and not connection.closing:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def _kept(self) -> ExchangeConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closing:
                return connection
        return None

    async def _new(self, until_s: float) -> ExchangeConnection:
        left_s = until_s - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise BackingError("timed out")
        try:
            connection = await self._dialler.dial(self._address, ExchangeConnection, timeout_s=left_s)
        except DialError as error:
            raise BackingError(str(error)) from error
        if self._prepare is not None:
            try:
                async with asyncio.timeout_at(until_s):
                    await self._prepare(connection)
                connection.finish()
            except TimeoutError:
                connection.abort("took too long")
                raise BackingError("timed out") from None
            except BackingError as error:
                connection.abort("greeting failed")
                raise BackingError(error.reason) from None  # the request itself was never sent
            except BaseException:
                connection.abort("no answer")
                raise
        return connection

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()
