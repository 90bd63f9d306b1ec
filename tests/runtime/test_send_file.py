"""Files to connections, on asyncio and on uvloop: by sendfile where the kernel may, copied everywhere else."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from minidist.runtime.clock import Clock
from minidist.runtime.config import Address
from minidist.runtime.connection import Connection
from minidist.runtime.disk.local import LocalDisk
from minidist.runtime.disk.port import Disk, File
from minidist.runtime.endpoint import Listener
from minidist.runtime.events import EventLog
from minidist.runtime.faults import FaultSet
from minidist.runtime.logs import NodeLog
from minidist.runtime.ports import Ports
from minidist.runtime.relay import FileTooShort, RelayBroken, kernel, send_file

SIZE = 8 * 1024**2
DATA = random.Random(1).randbytes(SIZE)


class Server(Connection):
    """The first thing it hears is a greeting; what comes later is kept."""

    def __init__(self, endpoint: Any) -> None:
        super().__init__(endpoint)
        self.when_greeted: asyncio.Future[Server] | None = None
        self.received = b""

    def data_received(self, data: bytes) -> None:
        if self.when_greeted is not None and not self.when_greeted.done():
            self.when_greeted.set_result(self)
        else:
            self.received += data


class World:
    def __init__(self, disk: Disk, file: File) -> None:
        self.disk, self.file = disk, file
        ports = Ports(Clock(), random.Random(7), no_disk)
        self.faults = FaultSet("log-1", ports, EventLog("log-1", NodeLog("log-1"), ports.clock.wall))
        self.accepted: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
        self.listener = Listener("in", Address("127.0.0.1", 0), self.accept, faults=self.faults)

    def accept(self, listener: Listener[Server]) -> Server:
        connection = Server(listener)
        connection.when_greeted = self.accepted
        return connection

    async def open(self) -> None:
        await self.listener.start()
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.listener.address.port)
        self.writer.write(b"hello")
        self.connection = await self.accepted


async def no_disk() -> Any:
    raise AssertionError


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "segment").write_bytes(DATA)
    disk = await LocalDisk.open_root(str(tmp_path))
    w = World(disk, await disk.open("segment"))
    await w.open()
    yield w
    w.writer.close()
    w.listener.close()
    await disk.close()


@pytest.fixture(params=["sendfile", "copy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "CAN_SPLICE", request.param == "sendfile")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("offset", "count"), [(0, SIZE), (5, 1), (1000, 300_000), (SIZE - 7, 7), (3, 0)])
async def test_a_piece_of_a_file_follows_what_was_written_before(world: World, offset: int, count: int) -> None:
    head = bytes(3_000_000)  # more than a socket takes at once: it must leave first
    world.connection.transport.write(head)
    sending = asyncio.create_task(send_file(world.connection, world.file, offset, count))
    assert await world.reader.readexactly(len(head) + count) == head + DATA[offset : offset + count]
    await sending
    world.connection.transport.write(b"after")
    assert await world.reader.readexactly(5) == b"after"


@pytest.mark.usefixtures("way")
async def test_requests_are_still_read_while_a_file_is_sent(
    world: World, eventually: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    sending = asyncio.create_task(send_file(world.connection, world.file, 0, SIZE))
    await world.reader.readexactly(1)
    assert not sending.done() or sending.result() is None
    await world.reader.readexactly(SIZE - 1)
    await sending
    world.writer.write(b"next")
    await eventually(lambda: world.connection.received == b"next")
    assert world.connection.transport.get_protocol() is world.connection


@pytest.mark.usefixtures("way")
async def test_a_file_that_ends_early_is_an_error(world: World) -> None:
    sending = asyncio.create_task(send_file(world.connection, world.file, 10, SIZE))
    await world.reader.readexactly(SIZE - 10)
    with pytest.raises(FileTooShort, match="'segment' ended 10 bytes early"):
        await sending


@pytest.mark.usefixtures("way")
async def test_a_peer_that_goes_away_breaks_it(world: World) -> None:
    for _ in range(4):
        world.connection.transport.write(DATA)
    sending = asyncio.create_task(send_file(world.connection, world.file, 0, SIZE))
    await world.reader.readexactly(1000)
    world.writer.transport.abort()
    with pytest.raises(RelayBroken):
        await sending
    with pytest.raises(RelayBroken):
        await send_file(world.connection, world.file, 0, SIZE)


async def test_a_fault_on_the_way_has_it_copied(world: World) -> None:
    sending = asyncio.create_task(send_file(world.connection, world.file, 0, SIZE))
    got = await world.reader.readexactly(1000)
    world.faults.add({"kind": "bandwidth", "bytes_per_s": 100_000_000})
    got += await world.reader.readexactly(SIZE - 1000)
    assert got == DATA
    await sending


async def test_cancelling_leaves_the_connection_usable(world: World) -> None:
    sending = asyncio.create_task(send_file(world.connection, world.file, 0, SIZE))
    await world.reader.readexactly(1)
    if sending.cancel():
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert world.connection.transport.get_protocol() is world.connection
