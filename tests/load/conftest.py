"""Small servers for the load generator to talk to, whose behaviour a test decides request by request.

A server is given `answer(number, request) -> bytes | None`: what to send for its number-th request (from 0); None
sends nothing. `server.hold()` and `server.release()` keep answers back, as a stall does. The fixtures run servers on
the test's loop; `elsewhere` runs one on a thread of its own, for tests of the command, which runs a loop itself.
"""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import hiredis
import pytest

from minidist.runtime.loop import loop_factory

# What depends on how a loop's transports behave is tested on asyncio's own as well.
ON_BOTH_LOOPS = ("test_http.py", "test_run.py")

Answer = Callable[[int, bytes], bytes | None]
OK_HTTP = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories = {"product": loop_factory()}
    return factories | {"asyncio": asyncio.new_event_loop} if item.path.name in ON_BOTH_LOOPS else factories


class Connection(asyncio.Protocol):
    def __init__(self, server: "Server") -> None:
        self.server = server
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.server.open.append(self)
        self.server.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.open.remove(self)

    def data_received(self, data: bytes) -> None:
        requests = list(self.requests(data))
        self.server.largest_batch = max(self.server.largest_batch, len(requests))
        for request in requests:
            self.server.take(self, request)

    def requests(self, data: bytes) -> Iterator[bytes]:
        raise NotImplementedError


class HttpConnection(Connection):
    def requests(self, data: bytes) -> Iterator[bytes]:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            _, named, length = head.lower().partition(b"content-length: ")
            size = int(length.split(b"\r\n")[0]) if named else 0
            if len(rest) < size:
                return
            self.buffer = rest[size:]
            yield head + b"\r\n\r\n" + rest[:size]


class RespConnection(Connection):
    """A request is its words, joined by blanks."""

    def __init__(self, server: "Server") -> None:
        super().__init__(server)
        self.reader = hiredis.Reader()

    def requests(self, data: bytes) -> Iterator[bytes]:
        self.reader.feed(data)
        while (command := self.reader.gets()) is not False:
            yield b" ".join(command)


class Server:
    def __init__(self, connection: type[Connection], answer: Answer) -> None:
        self.connection = connection
        self.answer = answer
        self.requests: list[bytes] = []
        self.open: list[Connection] = []
        self.accepted = 0
        self.largest_batch = 0
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self._held: list[tuple[Connection, bytes]] | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: self.connection(self), "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._listener.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Refuse connections, reset those there are."""
        if self._listener:
            self._listener.close()
        for connection in self.open:
            connection.transport.abort()

    async def stopped(self) -> None:
        self.stop()
        while self.open:
            await asyncio.sleep(0)

    def take(self, connection: Connection, request: bytes) -> None:
        self.requests.append(request)
        answer = self.answer(len(self.requests) - 1, request)
        if answer is None:
            return
        if self._held is not None:
            self._held.append((connection, answer))
        else:
            connection.transport.write(answer)

    def hold(self) -> None:
        self._held = []

    def release(self) -> None:
        held, self._held = self._held or [], None
        for connection, answer in held:
            connection.transport.write(answer)


StartServer = Callable[..., Awaitable[Server]]


@pytest.fixture
async def http_server() -> AsyncIterator[StartServer]:
    async for start in _starting(HttpConnection, lambda number, request: OK_HTTP):
        yield start


@pytest.fixture
async def resp_server() -> AsyncIterator[StartServer]:
    async for start in _starting(RespConnection, lambda number, request: b"+OK\r\n"):
        yield start


async def _starting(connection: type[Connection], default: Answer) -> AsyncIterator[StartServer]:
    servers = []

    async def start(answer: Answer = default, tls: ssl.SSLContext | None = None) -> Server:
        server = Server(connection, answer)
        server.tls = tls
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stopped()


@pytest.fixture
def elsewhere() -> Iterator[Callable[..., Server]]:
    """Starts an HTTP server on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers = []

    def start(answer: Answer = lambda number, request: OK_HTTP) -> Server:
        server = Server(HttpConnection, answer)
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        servers.append(server)
        return server

    yield start
    for server in servers:
        asyncio.run_coroutine_threadsafe(server.stopped(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
