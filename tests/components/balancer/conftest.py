"""A balancer in the test's own loop, upstreams that follow a script, and a client that sends what it is told.

Upstreams read requests with h11, client answers are read with h11: so the balancer's output is judged by a strict
parser that is not its own.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import h11
import pytest
import uvloop

from minidist.components.balancer.config import BalancerConfig
from minidist.components.balancer.server import Balancer
from minidist.runtime.config import Address, from_table
from minidist.runtime.ports import real_ports

PATIENCE_S = 10.0


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The product runs on uvloop and falls back to asyncio; their transports differ where it matters here."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if item.path.name != "test_streaming.py":  # there the balancer is a process, on uvloop
        factories["asyncio"] = asyncio.new_event_loop
    return factories


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)


@dataclass
class Seen:
    """A request as an upstream read it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    connection: int = 0

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


@dataclass
class Turn:
    """One request at an upstream: what was read so far, and the streams to answer on."""

    seen: Seen
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    rest: bytes = b""

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Serve = Callable[[Turn], Awaitable[bool | None]]


def answering(data: bytes) -> Serve:
    async def serve(turn: Turn) -> None:
        await turn.write(data)

    return serve


class Upstream:
    """An HTTP server on a free port. `serve(turn)` answers one request; True as its result ends the connection."""

    def __init__(self, serve: Serve | None = None, *, head_only: bool = False) -> None:
        self.serve = serve or answering(OK)
        self.head_only = head_only  #: serve as soon as the head is there, before the body
        self.requests: list[Seen] = []
        self.connections = 0
        self.ended = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> "Upstream":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        self.connections += 1
        number = self.connections
        self._writers.append(writer)
        with contextlib.suppress(ConnectionError, h11.RemoteProtocolError, asyncio.CancelledError):
            rest = b""
            while True:
                turn = await self._read(reader, writer, rest, number)
                if turn is None or await self.serve(turn):
                    break
                rest = turn.rest
        writer.close()
        self.ended += 1

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rest: bytes, number: int
    ) -> Turn | None:
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(rest) if rest else None
        seen: Seen | None = None
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(65536)
                if not data:
                    return None
                parser.receive_data(data)
            elif isinstance(event, h11.Request):
                headers = [(key.decode(), value.decode()) for key, value in event.headers]
                seen = Seen(event.method.decode(), event.target.decode(), headers, connection=number)
                if seen.header("x-check") is None and seen.header("user-agent") != "minidist-check":
                    self.requests.append(seen)
                if self.head_only:
                    return Turn(seen, reader, writer, parser.trailing_data[0])
            elif isinstance(event, h11.Data):
                assert seen is not None
                seen.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert seen is not None
                seen.trailers = [(key.decode(), value.decode()) for key, value in event.headers]
                return Turn(seen, reader, writer, parser.trailing_data[0])
            else:
                return Turn(seen, reader, writer, parser.trailing_data[0]) if seen else None

    async def kill(self) -> None:
        """As kill -9: connections are reset, the port refuses. `start` brings it back on the same port."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]]
    interim: list[int]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


class Client:
    """One connection to the balancer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._rest = b""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, method: str = "GET") -> Answer:
        """The next response, read by h11. Raises h11.RemoteProtocolError when it is cut short or malformed."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(self._rest) if self._rest else None
        answer: Answer | None = None
        interim: list[int] = []
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await self.reader.read(65536))
            elif isinstance(event, h11.InformationalResponse):
                interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                headers = [(key.decode(), value.decode()) for key, value in event.headers]
                answer = Answer(event.status_code, headers, b"", [], interim)
            elif isinstance(event, h11.Data):
                assert answer is not None
                answer.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert answer is not None
                answer.trailers = [(key.decode(), value.decode()) for key, value in event.headers]
                self._rest = parser.trailing_data[0]
                return answer
            else:
                raise AssertionError(f"unexpected {event}")

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        await self.send(data)
        return await self.answer(method)

    async def rest(self) -> bytes:
        """What still comes until the balancer closes."""
        data = self._rest + await self.reader.read()
        self._rest = b""
        return data

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class World:
    """What a test builds: upstreams, balancers, clients; all of it ends with the test."""

    def __init__(self) -> None:
        self.stack = contextlib.AsyncExitStack()

    async def upstream(self, serve: Serve | None = None, *, head_only: bool = False) -> Upstream:
        upstream = await Upstream(serve, head_only=head_only).start()
        self.stack.push_async_callback(upstream.kill)
        return upstream

    async def balancer(self, *upstreams: Upstream | str, **options: Any) -> Balancer:
        """Checks are off unless a test asks for them, so that upstreams see the test's requests only."""
        table = {
            "listen": "127.0.0.1:0",
            "upstream": [each if isinstance(each, str) else each.name for each in upstreams],
            "check": "off",
        } | options
        node = Balancer(from_table(BalancerConfig, table), real_ports("", seed=1))
        self.stack.push_async_callback(node.stop)
        await node.start()
        return node

    async def client(self, node: Balancer) -> Client:
        reader, writer = await asyncio.open_connection(node.address.host, node.address.port, limit=2**20)
        client = Client(reader, writer)
        self.stack.push_async_callback(client.close)
        return client


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    async with asyncio.timeout(60), world.stack:
        yield world


def get(target: str = "/", *fields: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {target} HTTP/{version}", "Host: shop.example", *fields, "", ""]).encode()


def post(body: bytes, *fields: str, target: str = "/") -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: shop.example", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def unused_address() -> Address:
    """An address that refuses: bound by nobody, since the socket that had it is closed."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return Address("127.0.0.1", taken.getsockname()[1])
