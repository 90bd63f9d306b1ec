"""A tiny component for tests of the floor: a line server that answers each line with its upper case."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from minidist.runtime.clock import Clock
from minidist.runtime.config import Address, Config
from minidist.runtime.connection import Connection
from minidist.runtime.node import Node
from minidist.runtime.ports import Ports

# What depends on how a loop's transports behave is tested on both loops.
ON_BOTH_LOOPS = ("test_faults.py", "test_relay.py", "test_send_file.py", "test_links.py")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    return factories | {"uvloop": uvloop.new_event_loop} if item.path.name in ON_BOTH_LOOPS else factories


class LineInspector:
    """Each line is a request whose name is its first word and whose key is its second."""

    def requests(self, buffer: bytes) -> list[tuple[str, str, int]]:
        found, start = [], 0
        while (end := buffer.find(b"\n", start)) >= 0:
            words = buffer[start:end].decode().split()
            found.append((words[0] if words else "", words[1] if len(words) > 1 else "", end + 1))
            start = end + 1
        return found

    def error_reply(self, request: bytes, text: str) -> bytes:
        return f"!{text}\n".encode()


class LineConnection(Connection):
    __slots__ = ("buffer",)

    def opened(self) -> None:
        self.buffer = b""

    def refused(self) -> bytes:
        return b"!too many\n"

    def data_received(self, data: bytes) -> None:
        self.touched = True
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            if line.startswith(b"name "):
                self.named(line[5:].decode())
        self.transport.write(b"".join(line.upper() + b"\n" for line in lines))


@dataclass(frozen=True, kw_only=True)
class LineConfig(Config):
    component = "line"


class LineServer(Node):
    config_type = LineConfig

    async def open_data(self) -> None:
        await self.listen("line", self.config.listen, LineConnection, inspector=LineInspector())


async def no_disk() -> Any:
    raise AssertionError("this node needs no disk")


def make_node(node_type: type[Node] = LineServer, **options: Any) -> Node:
    ports = Ports(Clock(), random.Random(7), no_disk)
    return node_type(node_type.config_type(listen=Address("127.0.0.1", 0), **options), ports)


@pytest_asyncio.fixture
async def start_node() -> AsyncIterator[Callable[..., Awaitable[Node]]]:
    """A factory of started nodes; all are stopped after the test."""
    nodes: list[Node] = []

    async def start(node_type: type[Node] = LineServer, **options: Any) -> Node:
        node = make_node(node_type, **options)
        nodes.append(node)
        await node.start()
        return node

    yield start
    for node in nodes:
        await node.stop()


class Client:
    """A line client on streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, line: str) -> str:
        self.writer.write(line.encode() + b"\n")
        return await self.line()

    async def line(self) -> str:
        return (await self.reader.readline()).decode().rstrip("\n")


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Callable[[Node], Awaitable[Client]]]:
    """A factory of clients of a node; all are closed after the test."""
    clients: list[Client] = []

    async def start(node: Node) -> Client:
        clients.append(Client(*await asyncio.open_connection(node.address.host, node.address.port)))
        return clients[-1]

    yield start
    for client in clients:
        client.writer.close()
        try:
            await client.writer.wait_closed()
        except OSError:
            pass


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds; the test's own time limit ends a wait without end."""
    while not condition():
        await asyncio.sleep(0.001)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    return eventually
