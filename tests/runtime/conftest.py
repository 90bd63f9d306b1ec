"""Nodes of a tiny component (line_server.py) and their clients, for tests of the floor."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from minidist.runtime.clock import Clock
from minidist.runtime.config import Address
from minidist.runtime.node import Halves, Node
from minidist.runtime.ports import Ports

sys.path.insert(0, str(Path(__file__).parent))  # worker processes import line_server from there

from line_server import LineServer

# What depends on how a loop's transports behave is tested on both loops.
ON_BOTH_LOOPS = (
    "test_endpoint.py",
    "test_faults.py",
    "test_links.py",
    "test_relay.py",
    "test_send_file.py",
    "test_tls.py",
)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    return factories | {"uvloop": uvloop.new_event_loop} if item.path.name in ON_BOTH_LOOPS else factories


async def no_disk() -> Any:
    raise AssertionError("this node needs no disk")


def make_node(node_type: type[Node] = LineServer, **options: Any) -> Node:
    ports = Ports(Clock(), random.Random(7), no_disk)
    config = node_type.config_type(**{"listen": Address("127.0.0.1", 0)} | options)
    return node_type(config, ports, Halves.CONTROL if options.get("workers", 1) > 1 else Halves.BOTH)


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
        if node.address.path:
            streams = await asyncio.open_unix_connection(node.address.path)
        else:
            streams = await asyncio.open_connection(node.address.host, node.address.port)
        clients.append(Client(*streams))
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
