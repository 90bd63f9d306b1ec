"""Relays over real sockets, on asyncio and on uvloop: every byte, both ends, back-pressure, faults, descriptors."""

import asyncio
import contextlib
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from minidist.runtime.clock import Clock
from minidist.runtime.config import Address
from minidist.runtime.connection import Connection
from minidist.runtime.endpoint import Dialler, Limits, Listener
from minidist.runtime.events import EventLog
from minidist.runtime.faults import FaultSet
from minidist.runtime.logs import NodeLog
from minidist.runtime.ports import Ports
from minidist.runtime.relay import Mode, Relay, RelayBroken, flow, kernel, relay, relay_exactly

MIB = 1024**2
Eventually = Callable[[Callable[[], bool]], Awaitable[None]]

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


@pytest.fixture(autouse=True)
def splice_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge a flow as bulk after a few reads, so that short tests see the change of mode."""
    monkeypatch.setattr(flow, "BULK_READ_BYTES", 1024)
    monkeypatch.setattr(flow, "BULK_READS", 4)
    monkeypatch.setattr(flow, "BULK_BYTES", 4096)


@pytest.fixture
def no_splice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "CAN_SPLICE", False)


def pipes_and_sockets() -> int:
    names = []
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            names.append(os.readlink(f"/proc/self/fd/{each}"))
    return sum(name.startswith(("pipe:", "socket:")) for name in names)


async def no_disk() -> Any:
    raise AssertionError("a relay needs no disk")


class Kept(Connection):
    """Keeps what it is given; `gone` is set at its end."""

    def __init__(self, endpoint: Any) -> None:
        super().__init__(endpoint)
        self.kept = b""
        self.gone = asyncio.Event()
        self.error: Exception | None = None
        self.when_open: asyncio.Future[Kept] | None = None

    def opened(self) -> None:
        if self.when_open is not None:
            self.when_open.set_result(self)

    def data_received(self, data: bytes) -> None:
        self.touched = True
        self.kept += data

    def closed(self, error: Exception | None) -> None:
        self.error = error
        self.gone.set()


class Outside:
    """One end of a relayed connection as its user has it: a plain blocking-free socket on asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def end(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class World:
    """Two outside ends and the two connections between which bytes are relayed."""

    def __init__(self, path: str, limits: Limits | None, tls: ssl.SSLContext | None) -> None:
        address = Address("", 0, path) if path else Address("127.0.0.1", 0)
        ports = Ports(Clock(), random.Random(7), no_disk)
        self.faults = FaultSet("relay-1", ports, EventLog("relay-1", NodeLog("relay-1"), ports.clock.wall))
        self.accepted: asyncio.Future[Kept] = asyncio.get_running_loop().create_future()
        self.listener = Listener("in", address, self.accept, limits=limits, faults=self.faults, tls=tls)
        self.dialler: Dialler[Kept] = Dialler("out", limits=limits, faults=self.faults)

    def accept(self, listener: Listener[Kept]) -> Kept:
        connection = Kept(listener)
        connection.when_open = self.accepted
        return connection

    async def open(self, client_tls: ssl.SSLContext | None) -> None:
        await self.listener.start()
        accepted: asyncio.Future[Outside] = asyncio.get_running_loop().create_future()
        upstream = await asyncio.start_server(
            lambda reader, writer: accepted.set_result(Outside(reader, writer)), "127.0.0.1", 0
        )
        if self.listener.address.path:
            opened = await asyncio.open_unix_connection(self.listener.address.path)
        else:
            opened = await asyncio.open_connection(
                self.listener.address.host, self.listener.address.port, ssl=client_tls
            )
        self.left = Outside(*opened)
        self.b = await self.dialler.dial(Address("127.0.0.1", upstream.sockets[0].getsockname()[1]), Kept, timeout_s=5)
        self.right = await accepted
        upstream.close()
        self.a = await self.accepted

    async def close(self) -> None:
        self.listener.close()
        self.dialler.close()
        await self.left.close()
        await self.right.close()
        await self.a.gone.wait()
        await self.b.gone.wait()


@pytest_asyncio.fixture
async def no_descriptor_left(eventually: Eventually) -> AsyncIterator[None]:
    before = pipes_and_sockets()
    yield
    await eventually(lambda: pipes_and_sockets() <= before)


@pytest_asyncio.fixture
async def world(no_descriptor_left: None) -> AsyncIterator[Callable[..., Awaitable[World]]]:
    worlds = []

    async def make(path: str = "", limits: Limits | None = None, tls: Any = None, client_tls: Any = None) -> World:
        worlds.append(World(path, limits, tls))
        await worlds[-1].open(client_tls)
        return worlds[-1]

    yield make
    for each in worlds:
        await each.close()


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def test_a_dialogue_passes_and_half_closes_travel(world: Any) -> None:
    w = await world()
    over = relay(w.a, w.b)
    await w.left.send(b"question")
    assert await w.right.reader.readexactly(8) == b"question"
    w.left.end()
    assert await w.right.reader.read() == b""
    await w.right.send(b"answer after the end of the question")
    w.right.end()
    assert await w.left.reader.read() == b"answer after the end of the question"
    await over
    assert (over.forward.carried, over.backward.carried, over.error) == (8, 36, None)
    await w.a.gone.wait()
    await w.b.gone.wait()
    assert (w.a.error, w.b.error) == (None, None)
    assert w.a.kept == w.b.kept == b""


async def both_ways(w: World, size: int) -> Relay:
    """Push noise through both directions at once, check it, end both; the relay afterwards."""
    over = relay(w.a, w.b)
    there, back = noise(size), noise(size + 1)

    async def push(end: Outside, data: bytes) -> None:
        await end.send(data)
        end.end()

    _, _, got_there, got_back = await asyncio.gather(
        push(w.left, there), push(w.right, back), w.right.reader.read(), w.left.reader.read()
    )
    assert (got_there == there, got_back == back) == (True, True)
    await over
    assert (over.forward.carried, over.backward.carried, over.error) == (size, size + 1, None)
    return over


@pytest.mark.parametrize("size", [1, 1023, 100_000, 20 * MIB])
async def test_every_byte_arrives_in_order_both_ways(world: Any, size: int) -> None:
    await both_ways(await world(), size)


async def test_unix_sockets(world: Any, tmp_path: Any) -> None:
    await both_ways(await world(path=str(tmp_path / "socket")), 5 * MIB)


@pytest.mark.usefixtures("no_splice")
async def test_copying_gives_the_same(world: Any) -> None:
    await both_ways(await world(), 5 * MIB)


async def test_bulk_is_spliced_and_a_dialogue_is_not(world: Any, eventually: Eventually) -> None:
    w = await world()
    over = relay(w.a, w.b)
    for _ in range(20):
        await w.left.send(b"small")
        await w.right.reader.readexactly(5)
    assert over.forward.mode is Mode.COPYING
    sending = asyncio.create_task(w.left.send(bytes(5 * MIB)))
    await w.right.reader.readexactly(5 * MIB)
    await sending
    assert over.forward.mode is Mode.SPLICING
    assert over.backward.mode is Mode.COPYING
    await w.left.send(b"and again something small")
    assert await w.right.reader.readexactly(25) == b"and again something small"
    await w.right.send(b"answer")
    assert await w.left.reader.readexactly(6) == b"answer"


@pytest.mark.parametrize("size", [100, 5 * MIB])
@pytest.mark.parametrize("mode", ["splice", "copy"])
async def test_a_sink_that_does_not_read_stops_the_source(
    world: Any, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, mode: str, size: int
) -> None:
    monkeypatch.setattr(kernel, "CAN_SPLICE", mode == "splice")
    w = await world()
    w.right.writer.transport.pause_reading()
    over = relay(w.a, w.b)
    sent = 0
    w.left.writer.transport.set_write_buffer_limits(high=0)
    while True:  # until nothing moves any more
        w.left.writer.write(bytes(MIB))
        sent += MIB
        before = -1
        while w.left.writer.transport.get_write_buffer_size() not in (0, before):
            before = w.left.writer.transport.get_write_buffer_size()
            await asyncio.sleep(0.01)
        if before > 0 and w.left.writer.transport.get_write_buffer_size() == before:
            break
    held = w.b.transport.get_write_buffer_size()
    assert held < 2 * MIB
    assert sent > over.forward.carried
    w.right.writer.transport.resume_reading()
    assert await w.right.reader.readexactly(sent) == bytes(sent)


@pytest.mark.parametrize("volume", [0, 3 * MIB])
async def test_a_reset_is_passed_on_as_a_reset(world: Any, volume: int) -> None:
    w = await world()
    over = relay(w.a, w.b)
    sending = asyncio.create_task(w.left.send(bytes(volume)))
    await w.right.reader.readexactly(volume)
    await sending
    w.left.reset()
    with pytest.raises(ConnectionResetError):
        await w.right.reader.read()
    await over
    assert over.error is not None
    assert over.error.source_lost
    await w.a.gone.wait()
    await w.b.gone.wait()


async def test_a_reset_of_the_sink_while_bytes_flow_reaches_the_source(world: Any) -> None:
    w = await world()
    over = relay(w.a, w.b)
    sending = asyncio.create_task(w.left.send(bytes(50 * MIB)))
    await w.right.reader.readexactly(4 * MIB)
    w.right.reset()
    with pytest.raises(ConnectionError):
        await sending
    await over
    assert isinstance(over.error, RelayBroken)


async def test_closing_one_connection_ourselves_closes_the_other(world: Any) -> None:
    w = await world()
    over = relay(w.a, w.b)
    ended = []
    over.when_over(ended.append)
    w.a.close()
    assert await w.right.reader.read() == b""
    assert await w.left.reader.read() == b""
    await over
    await w.b.gone.wait()
    assert ended == [over]


async def test_a_relay_of_a_connection_that_is_gone_ends_at_once(world: Any) -> None:
    w = await world()
    w.b.abort("test")
    await w.b.gone.wait()
    over = relay(w.a, w.b)
    await over
    assert over.error is not None
    assert await w.left.reader.read() == b""


async def test_idle_relays_are_closed_and_traffic_one_way_keeps_both_sides(world: Any) -> None:
    w = await world(limits=Limits(idle_timeout_s=0.2))
    over = relay(w.a, w.b)
    loop = asyncio.get_running_loop()
    started = loop.time()
    while loop.time() < started + 0.6:
        await w.right.send(b"x")
        assert await w.left.reader.readexactly(1) == b"x"
        await asyncio.sleep(0.01)
    assert not w.a.closing
    assert await w.left.reader.read() == b""
    await over


# --- where the kernel must not be asked -----------------------------------------------------------------------------

CERTIFICATE = Path(__file__).with_name("localhost.pem")


async def test_tls_is_copied(world: Any) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(CERTIFICATE)
    w = await world(tls=server, client_tls=ssl.create_default_context(cafile=str(CERTIFICATE)))
    over = relay(w.a, w.b)
    data = noise(3 * MIB)
    sending = asyncio.create_task(w.left.send(data))
    assert await w.right.reader.readexactly(len(data)) == data
    await sending
    await w.right.send(data)
    assert await w.left.reader.readexactly(len(data)) == data
    assert (over.forward.mode, over.backward.mode) == (Mode.COPYING, Mode.COPYING)
    w.right.end()  # TLS has no half-close here: the end of one direction closes the connection
    assert await w.left.reader.read() == b""
    await w.left.close()
    await over


async def spliced(w: World) -> tuple[Relay, "Stream"]:
    """A relay whose forward direction splices, and a stream through it that goes on."""
    over = relay(w.a, w.b)
    stream = Stream(w)
    await stream.more(2 * MIB)
    assert over.forward.mode is Mode.SPLICING
    return over, stream


class Stream:
    """Noise from left to right, compared as it arrives."""

    def __init__(self, w: World) -> None:
        self.w = w
        self.sending = asyncio.create_task(self.send())

    async def send(self) -> None:
        source = random.Random(5)
        while True:
            await self.w.left.send(source.randbytes(100_000))

    async def more(self, size: int) -> None:
        if not hasattr(self, "expected"):
            self.expected, self.ahead = random.Random(5), b""
        got = await self.w.right.reader.readexactly(size)
        while len(self.ahead) < size:
            self.ahead += self.expected.randbytes(100_000)
        assert got == self.ahead[:size]
        self.ahead = self.ahead[size:]

    async def forever(self) -> None:
        while True:
            await self.more(1000)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Read on until it holds: bytes that nobody takes fill the buffers on the way, and then nothing moves."""
        while not condition():
            await self.more(100_000)

    async def stop(self) -> None:
        self.sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await self.sending


async def test_a_fault_set_while_bytes_are_spliced_takes_hold_and_loses_none(world: Any) -> None:
    w = await world()
    over, stream = await spliced(w)
    for _ in range(3):
        fault = w.faults.add({"kind": "delay", "ms": 1})
        await stream.more(3 * MIB)
        assert over.forward.mode is Mode.COPYING
        w.faults.remove(fault)
        await stream.more(3 * MIB)
        await stream.until(lambda: over.forward.mode is Mode.SPLICING)
    await stream.stop()


async def test_a_partition_stops_spliced_bytes_until_it_heals(world: Any) -> None:
    w = await world()
    over, stream = await spliced(w)
    partition = w.faults.add({"kind": "partition"})
    with pytest.raises(TimeoutError):  # what was on its way still arrives, then nothing
        await asyncio.wait_for(stream.forever(), 0.3)
    carried = over.forward.carried
    await asyncio.sleep(0.05)
    assert over.forward.carried == carried
    w.faults.remove(partition)
    await stream.more(3 * MIB)
    await stream.stop()


async def test_a_reset_fault_ends_a_spliced_relay_on_both_sides(world: Any) -> None:
    w = await world()
    over, stream = await spliced(w)
    w.faults.add({"kind": "reset"})
    await over
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await stream.forever()
    await stream.stop()
    await w.a.gone.wait()
    await w.b.gone.wait()


# --- a known number of bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 1000, 4095, 4096, 3 * MIB])
@pytest.mark.parametrize("mode", ["splice", "copy"])
async def test_exactly_so_many_bytes_pass_and_the_rest_is_the_sources_own(
    world: Any, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, mode: str, count: int
) -> None:
    monkeypatch.setattr(kernel, "CAN_SPLICE", mode == "splice")
    w = await world()
    data = noise(count)
    order: list[str] = []
    future = relay_exactly(w.a, w.b, count, lambda error: order.append(f"end {error} {w.a.kept!r}"))
    sending = asyncio.create_task(w.left.send(data + b"the next message"))
    assert await w.right.reader.readexactly(count) == data
    await sending
    assert await future == count
    await eventually(lambda: w.a.kept == b"the next message")
    assert order == ["end None b''"]
    assert w.a.transport.get_protocol() is w.a
    assert w.b.transport.get_protocol() is w.b
    # Both are themselves again, and can be relayed again.
    await w.right.send(b"up")
    await eventually(lambda: w.b.kept == b"up")
    again = relay_exactly(w.a, w.b, 5)
    await w.left.send(b"again")
    assert await w.right.reader.readexactly(5) == b"again"
    assert await again == 5


async def test_a_body_each_way_at_once(world: Any) -> None:
    w = await world()
    up, down = noise(3 * MIB), noise(2 * MIB)
    futures = [relay_exactly(w.a, w.b, len(up)), relay_exactly(w.b, w.a, len(down))]
    sending = [asyncio.create_task(w.left.send(up)), asyncio.create_task(w.right.send(down))]
    assert await w.right.reader.readexactly(len(up)) == up
    assert await w.left.reader.readexactly(len(down)) == down
    await asyncio.gather(*sending)
    assert await asyncio.gather(*futures) == [len(up), len(down)]
    assert w.a.transport.get_protocol() is w.a


async def test_nothing_to_pass_is_over_at_once(world: Any) -> None:
    w = await world()
    assert await relay_exactly(w.a, w.b, 0) == 0


@pytest.mark.parametrize("count", [1000, 3 * MIB])
async def test_a_source_that_ends_early_breaks_the_relay(world: Any, count: int) -> None:
    w = await world()
    future = relay_exactly(w.a, w.b, count)
    await w.left.send(b"x" * 999)
    w.left.end()
    with pytest.raises(RelayBroken, match="source lost after 999 bytes") as caught:
        await future
    assert (caught.value.source_lost, caught.value.carried) == (True, 999)
    assert await w.right.reader.readexactly(999) == b"x" * 999


@pytest.mark.parametrize("count", [100 * MIB])
async def test_a_sink_that_is_lost_breaks_the_relay(world: Any, count: int) -> None:
    w = await world()
    future = relay_exactly(w.a, w.b, count)
    sending = asyncio.create_task(w.left.send(bytes(count)))
    await w.right.reader.readexactly(MIB)
    w.right.reset()
    with pytest.raises(RelayBroken, match="sink lost") as caught:
        await future
    assert not caught.value.source_lost
    w.a.abort("test")
    with pytest.raises(ConnectionError):
        await sending


async def test_cancelling_gives_the_connections_back(world: Any, eventually: Eventually) -> None:
    w = await world()
    future = relay_exactly(w.a, w.b, 3 * MIB)
    await w.left.send(b"some")
    assert await w.right.reader.readexactly(4) == b"some"
    future.cancel()
    await eventually(lambda: w.a.transport.get_protocol() is w.a)
    await w.left.send(b"rest")
    await eventually(lambda: w.a.kept == b"rest")
