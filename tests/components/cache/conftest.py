"""A cache in the test's own loop, and a client that sends and reads raw RESP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

from minidist.components.cache.config import CacheConfig
from minidist.components.cache.server import Cache
from minidist.runtime.config import from_table
from minidist.runtime.ports import real_ports
from minidist.wire.resp import encode_command
from minidist.wire.resp_client import NOTHING, ReplyReader

PATIENCE_S = 10.0


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The product runs on uvloop and falls back to asyncio."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@dataclass
class RawClient:
    """One connection. `ask` sends a command and reads its reply."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def __post_init__(self) -> None:
        self.replies = ReplyReader()

    def send(self, *words: bytes | str | int) -> None:
        self.send_raw(encode_command([w if isinstance(w, bytes) else str(w).encode() for w in words]))

    def send_raw(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self) -> Any:
        """The next reply; EOFError when the server has closed."""
        async with asyncio.timeout(PATIENCE_S):
            while (reply := self.replies.next()) is NOTHING:
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self.replies.feed(data)
        return reply

    async def ask(self, *words: bytes | str | int) -> Any:
        self.send(*words)
        return await self.read()

    async def closed(self) -> bool:
        """Whether the server closes without saying anything more."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


@dataclass
class Place:
    """A running cache."""

    node: Cache
    clients: list[RawClient]

    async def client(self) -> RawClient:
        address = self.node.address
        if address.path:
            streams = await asyncio.open_unix_connection(address.path)
        else:
            streams = await asyncio.open_connection(address.host, address.port)
        client = RawClient(*streams)
        self.clients.append(client)
        return client


Start = Callable[..., Awaitable[Place]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start(max_memory="1mb")`: a cache on a free port; stopped after the test."""
    places: list[Place] = []

    async def start(**options: Any) -> Place:
        config = from_table(CacheConfig, {"listen": "127.0.0.1:0", "log_level": "error", **options})
        node = Cache(config, real_ports(config.data_dir, 1))
        place = Place(node, [])
        places.append(place)
        await node.start()
        return place

    yield start
    for place in places:
        for client in place.clients:
            client.writer.close()
        await place.node.stop()


@pytest.fixture
async def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Wait for a condition."""

    async def until(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.002)

    return until
