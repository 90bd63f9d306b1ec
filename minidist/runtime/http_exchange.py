"""One HTTP request, one response, one connection: for health checks and for talking to admin ports.

It goes over a `Dialler`, so that a node's faults also hit its health checks.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from minidist.runtime.config import Address
from minidist.runtime.connection import Connection
from minidist.runtime.endpoint import DialError, Dialler
from minidist.wire.http1 import HttpError, Response, ResponseReader


class ExchangeError(OSError):
    """No whole answer came: the connection failed, ended early, took too long, or spoke no HTTP."""

    is_ours = False  #: as in DialError


class _Exchange(Connection):
    __slots__ = ("_answer", "_payload", "_reader")

    def __init__(self, dialler: "Dialler[_Exchange]", method: str, payload: bytes, max_body_bytes: int) -> None:
        super().__init__(dialler)
        self._payload = payload
        self._reader = ResponseReader(max_body_bytes=max_body_bytes)
        self._reader.expect(method)
        self._answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def opened(self) -> None:
        self.transport.write(self._payload)

    def data_received(self, data: bytes) -> None:
        self.touched = True
        self._take(lambda: next(iter(self._reader.feed(data)), None))

    def eof_received(self) -> None:
        self._take(self._reader.eof)

    def _take(self, read: Callable[[], Response | None]) -> None:
        if self._answer.done():
            return
        try:
            response = read()
        except HttpError as error:
            self._fail(str(error))
        else:
            if response is not None:
                self._answer.set_result(response)

    def closed(self, error: Exception | None) -> None:
        if not self._answer.done():
            self._fail(f"connection ended before the answer ({error or 'closed'})")

    def _fail(self, reason: str) -> None:
        self._answer.set_exception(ExchangeError(reason))
        self._answer.exception()  # nobody waits for it when time was up in the moment of connecting: not an error

    async def answer(self) -> Response:
        return await self._answer


async def exchange(
    dialler: Dialler[Any],
    address: Address,
    method: str,
    payload: bytes,
    *,
    timeout_s: float,
    max_body_bytes: int = 16 * 1024 * 1024,
) -> Response:
    """Send `payload` (a whole request, see wire.http1.request) and wait for its response. Raises ExchangeError.

    `timeout_s` is loop time and covers connecting, too.
    """
    try:
        async with asyncio.timeout(timeout_s):
            connection: _Exchange = await dialler.dial(
                address, lambda via: _Exchange(via, method, payload, max_body_bytes), timeout_s=timeout_s
            )
            try:
                return await connection.answer()
            finally:
                connection.close()
    except TimeoutError as error:
        raise ExchangeError(f"no answer from {address} within {timeout_s:g} s") from error
    except DialError as error:
        failure = ExchangeError(str(error))
        failure.is_ours = error.is_ours
        raise failure from error
