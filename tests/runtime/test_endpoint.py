"""Listeners, diallers, connections over real sockets, on both loops: limits, sweeps, back-pressure, draining, ends."""

import asyncio
import gc
import os
import socket
import sys
import weakref

import pytest
from line_server import LineConnection

from minidist.runtime import sockets
from minidist.runtime.config import Address
from minidist.runtime.connection import Connection
from minidist.runtime.endpoint import BACKLOG, DialError, Dialler, EndpointState, Limits, Listener, ListenError

LOOPBACK = Address("127.0.0.1", 0)


class Echo(Connection):
    """Echoes; keeps what happened to it."""

    def __init__(self, endpoint):
        super().__init__(endpoint)
        self.happened = []
        self.received = 0

    def opened(self):
        self.happened.append("opened")

    def data_received(self, data):
        self.touched = True
        self.received += len(data)
        self.transport.write(data)

    def closed(self, error):
        self.happened.append("closed")
        self.last_peer = self.peer


@pytest.fixture
async def listen():
    """A factory of started listeners, which keep every connection they made in `.made`."""
    listeners = []

    async def start(address=LOOPBACK, factory=Echo, **options):
        def make(listener):
            listener.made.append(factory(listener))
            return listener.made[-1]

        listener = Listener("test", address, make, **options)
        listener.made = []
        listeners.append(listener)
        await listener.start()
        return listener

    yield start
    for listener in listeners:
        listener.close()
        await listener.wait_empty(5)


@pytest.fixture
async def dial():
    """A factory of stream clients; they are closed after the test."""
    writers = []

    async def connect(listener):
        address = listener.address
        opened = (
            asyncio.open_unix_connection(address.path)
            if address.path
            else asyncio.open_connection("127.0.0.1" if address.host == "localhost" else address.host, address.port)
        )
        reader, writer = await opened
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.transport.abort()
        try:
            await writer.wait_closed()
        except OSError:
            pass


async def ask(client, data):
    reader, writer = client
    writer.write(data)
    return await reader.readexactly(len(data))


async def never_reads(client):
    """The client stops reading, and its kernel takes little."""
    client[1].transport.pause_reading()


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
async def test_port_0_is_any_free_port(listen, dial, host):
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("no IPv6")
    listener = await listen(Address(host, 0))
    assert listener.address.port > 0
    assert listener.address.host == host
    client = await dial(listener)
    assert await ask(client, b"x") == b"x"
    (connection,) = listener.connections
    assert connection.local == str(Address("127.0.0.1" if host == "localhost" else host, listener.address.port))
    assert connection.peer == sockets_name(client)


def sockets_name(client):
    host, port = client[1].get_extra_info("sockname")[:2]
    return str(Address(host, port))


async def test_unix_socket(listen, dial, tmp_path):
    listener = await listen(Address("", 0, str(tmp_path / "s")))
    assert await ask(await dial(listener), b"x") == b"x"
    (connection,) = listener.connections
    assert (connection.peer, connection.local) == ("unix", "unix")
    connection.reset()  # has no RST; must not fail
    listener.close()
    assert not (tmp_path / "s").exists()


async def test_a_socket_file_of_a_crashed_process_is_no_obstacle_and_a_live_one_is(listen, dial, tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(path)
    assert os.path.exists(path)
    listener = await listen(Address("", 0, path))
    with pytest.raises(ListenError, match=f"^cannot listen on unix:{path}: Address already in use$"):
        await listen(Address("", 0, path))
    assert await ask(await dial(listener), b"x") == b"x"


async def test_a_full_backlog_is_a_live_socket(listen, tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(path)
        busy.listen(0)
        waiting.connect(path)
        with pytest.raises(ListenError, match="Address already in use"):
            await listen(Address("", 0, path))


async def test_only_its_own_socket_file_is_removed(listen, tmp_path):
    path = str(tmp_path / "s")
    listener = await listen(Address("", 0, path))
    os.unlink(path)
    other = await listen(Address("", 0, path))
    listener.close()
    assert os.path.exists(path)
    other.close()
    assert not os.path.exists(path)


async def test_what_cannot_be_listened_on_says_why(listen, tmp_path):
    taken = await listen()
    file = tmp_path / "file"
    file.write_text("not a socket")
    for address, why in (
        (taken.address, "Address already in use"),
        (Address("", 0, str(file)), "File exists"),
        (Address("", 0, str(tmp_path / "no" / "s")), "No such file or directory"),
        (Address("", 0, "/" + "x" * 200), "AF_UNIX path too long"),
    ):
        with pytest.raises(ListenError) as refused:
            await listen(address)
        assert str(refused.value) == f"cannot listen on {address}: {why}"
    with pytest.raises(ListenError, match=r"^cannot listen on no-such-host[.]invalid:0: "):
        await listen(Address("no-such-host.invalid", 0))
    assert file.read_text() == "not a socket"
    with pytest.raises(ListenError, match=r"203[.]0[.]113[.]1:0: (Cannot assign requested address|could not bind)"):
        await listen(Address("203.0.113.1", 0))


async def test_reuse_port_stands_beside_a_reserved_port(listen, dial):
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", reserved.getsockname()[1])
        with pytest.raises(ListenError):
            await listen(address)
        listener = await listen(address, reuse_port=True)
        assert await ask(await dial(listener), b"x") == b"x"


@pytest.mark.skipif(sys.platform != "linux", reason="inheritance is Linux' way")
async def test_accepted_connections_are_kept_alive(listen, dial):
    listener = await listen()
    await ask(await dial(listener), b"x")
    (connection,) = listener.connections
    raw = connection.transport.get_extra_info("socket")
    assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 300
    assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_one_client_too_many_is_told_so(listen, dial, eventually):
    class Full(Echo):
        def refused(self):
            return b"full\n"

    listener = await listen(factory=Full, limits=Limits(max_connections=2))
    clients = [await dial(listener) for _ in range(2)]
    for client in clients:
        await ask(client, b"x")
    reader, _ = await dial(listener)
    assert await reader.read() == b"full\n"
    await eventually(lambda: listener.counters.refused == 1)
    assert listener.made[2].happened == []  # neither opened nor closed
    clients[0][1].close()
    await eventually(lambda: len(listener.connections) == 1)
    assert await ask(await dial(listener), b"y") == b"y"
    assert listener.counters.opened == 3


async def test_idle_clients_are_closed_and_busy_ones_stay(listen, dial, eventually):
    listener = await listen(limits=Limits(idle_timeout_s=0.08))
    busy, idle = await dial(listener), await dial(listener)
    loop = asyncio.get_running_loop()
    connected_s = loop.time()
    reading = asyncio.ensure_future(idle[0].read())
    while not reading.done():
        assert await ask(busy, b"x") == b"x"
        await asyncio.sleep(0)
    assert await reading == b""
    assert loop.time() - connected_s >= 0.08 * 0.9
    assert listener.counters.closed_idle == 1
    assert await ask(busy, b"x") == b"x"


async def test_no_sweep_is_armed_without_need(listen, dial):
    listener = await listen()
    client = await dial(listener)
    await ask(client, b"x")
    assert (listener._idle_sweep, listener._stall_sweep) == (None, None)
    listener.apply_limits(Limits(idle_timeout_s=60))
    assert listener._idle_sweep is not None
    listener.apply_limits(Limits())
    assert listener._idle_sweep is None


async def test_a_short_stall_timeout_does_not_shorten_a_long_idle_timeout(listen, dial, eventually):
    listener = await listen(limits=Limits(idle_timeout_s=3600, stall_timeout_s=0.02))
    quiet, stalled = await dial(listener), await dial(listener)
    await ask(quiet, b"x")
    await ask(stalled, b"x")
    await never_reads(stalled)
    listener.made[1].transport.write(b"y" * 20_000_000)
    await eventually(lambda: listener.counters.closed_slow == 1)
    assert await ask(quiet, b"still here") == b"still here"
    assert listener.counters.closed_idle == 0


# --- back-pressure ----------------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_is_not_read_from(listen, dial, eventually):
    listener = await listen()
    client = await dial(listener)
    await never_reads(client)
    reader, writer = client
    size = 64 * 1024 * 1024
    writer.write(b"x" * size)
    (connection,) = listener.made
    await eventually(lambda: connection.write_paused)
    for _ in range(50):
        await asyncio.sleep(0.001)
    # What is held here is the loop's buffer and one read; what was sent is far from what was read.
    assert connection.transport.get_write_buffer_size() < 1_000_000
    assert connection.received < size / 2
    writer.transport.resume_reading()
    left = size
    while left:
        left -= len(await reader.read(1 << 20))
    assert connection.received == size
    assert not connection.write_paused


async def test_a_stalled_reader_is_cut_off_and_a_slow_one_is_not(listen, dial, eventually):
    listener = await listen(limits=Limits(stall_timeout_s=0.1))
    slow, stalled = await dial(listener), await dial(listener)
    for client in (slow, stalled):
        await ask(client, b"x")
        await never_reads(client)
    for connection in listener.made:
        connection.transport.write(b"y" * 30_000_000)
    slow_side, stalled_side = listener.made
    raw = slow[1].get_extra_info("socket").dup()
    raw.setblocking(False)
    while "closed" not in stalled_side.happened:
        try:
            raw.recv(20_000)
        except BlockingIOError:
            pass
        await asyncio.sleep(0.001)
    raw.close()
    assert listener.counters.closed_slow == 1
    assert slow_side.happened == ["opened"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much a peer has taken")
async def test_a_pushed_buffer_that_stays_full_but_moves_is_no_stall(listen, dial, eventually):
    listener = await listen(limits=Limits(stall_timeout_s=0.04))
    client = await dial(listener)
    await ask(client, b"x")
    (connection,) = listener.made
    connection.transport.write(b"y" * 30_000_000)
    await eventually(lambda: connection.write_paused)
    endpoint_sweeps = 0
    while endpoint_sweeps < 3 * 4:
        sweep = listener._stall_sweep
        connection.transport.write(b"y" * 100_000)  # never gets smaller
        await client[0].read(100_000)
        endpoint_sweeps += sweep is not listener._stall_sweep
    assert listener.counters.closed_slow == 0


async def test_more_than_the_limit_at_once_is_cut_off(listen, dial, eventually, caplog):
    listener = await listen(limits=Limits(max_buffered_bytes=1_000_000))
    client = await dial(listener)
    await never_reads(client)
    await eventually(lambda: bool(listener.made))
    listener.made[0].transport.write(b"y" * 30_000_000)
    await eventually(lambda: "closed" in listener.made[0].happened)
    assert listener.counters.closed_slow == 1
    assert "slow consumer cut off" in caplog.text


async def test_a_peer_that_does_not_take_the_last_bytes_cannot_keep_us_from_closing(listen, dial, eventually):
    listener = await listen(limits=Limits(stall_timeout_s=0.02))
    client = await dial(listener)
    await ask(client, b"x")
    await never_reads(client)
    (connection,) = listener.made
    while connection.transport.get_write_buffer_size() == 0:
        connection.transport.write(b"y" * 10_000)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not connection.write_paused
    connection.close()
    await eventually(lambda: "closed" in connection.happened)
    assert listener.counters.closed_slow == 1


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_reset_is_a_reset(listen, dial):
    listener = await listen()
    client = await dial(listener)
    await ask(client, b"x")
    listener.made[0].reset()
    with pytest.raises(ConnectionResetError):
        await client[0].read()


async def test_closing_twice_and_after_the_end_does_nothing(listen, dial, eventually):
    listener = await listen()
    await ask(await dial(listener), b"x")
    (connection,) = listener.made
    connection.close()
    connection.close()
    await eventually(lambda: "closed" in connection.happened)
    connection.close()
    connection.abort("again")
    connection.reset()
    connection.pause_writing()
    connection.resume_writing()
    assert connection.happened == ["opened", "closed"]
    assert connection.last_peer.startswith("127.0.0.1:")


async def test_draining_waits_for_what_has_begun(listen, dial, eventually):
    class Patient(Echo):
        def draining(self):
            self.happened.append("draining")

    listener = await listen(factory=Patient)
    client = await dial(listener)
    await ask(client, b"x")
    drained = asyncio.ensure_future(listener.drain(60))
    again = asyncio.ensure_future(listener.drain(60))
    await eventually(lambda: "draining" in listener.made[0].happened)
    with pytest.raises(ConnectionRefusedError):
        await dial(listener)
    assert await ask(client, b"still answered") == b"still answered"
    assert not drained.done()
    client[1].close()
    await drained
    await again
    assert listener.made[0].happened == ["opened", "draining", "closed"]
    assert listener.state is EndpointState.CLOSED


async def test_draining_gives_up_after_its_timeout(listen, dial, eventually):
    class Endless(Echo):
        def draining(self):
            pass

    listener = await listen(factory=Endless)
    client = await dial(listener)
    await ask(client, b"x")
    await listener.drain(0.01)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await client[0].readexactly(1)
    await eventually(lambda: listener.made[0].happened == ["opened", "closed"])


async def test_what_was_accepted_while_we_stopped_does_not_stay(listen, dial, eventually):
    listener = await listen()
    listener.state = EndpointState.DRAINING  # before the kernel's queue of new connections is empty
    with pytest.raises(ConnectionResetError):
        await ask(await dial(listener), b"x")
    await eventually(lambda: listener.made[0].transport.is_closing())
    assert listener.made[0].happened == []
    assert listener.connections == {}


async def test_a_bug_costs_its_connection_and_is_logged_with_its_traceback(listen, dial, eventually):
    problems = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context["exception"]))

    class Buggy(Echo):
        def data_received(self, data):
            if data == b"boom":
                raise RuntimeError("boom")
            super().data_received(data)

    listener = await listen(factory=Buggy)
    victim, other = await dial(listener), await dial(listener)
    await ask(victim, b"x")
    victim[1].write(b"boom")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await victim[0].readexactly(1)
    assert await ask(other, b"x") == b"x"
    assert [str(problem) for problem in problems] == ["boom"]
    await eventually(lambda: len(listener.connections) == 1)


async def test_a_bug_in_opened_costs_its_connection(listen, dial, eventually, caplog):
    class Buggy(Echo):
        def opened(self):
            raise RuntimeError("boom")

    listener = await listen(factory=Buggy)
    reader, _ = await dial(listener)
    try:
        assert await reader.read() == b""
    except ConnectionResetError:
        pass
    await eventually(lambda: not listener.connections)
    assert "connection failed to open" in caplog.text
    assert "RuntimeError: boom" in caplog.text


async def test_a_closed_connection_leaves_nothing_for_the_garbage_collector(listen, dial, eventually):
    """Daemons freeze what lives long, so that no cycle may hold a connection."""
    listener = await listen()
    client = await dial(listener)
    await ask(client, b"x")
    gone = weakref.ref(listener.made[0])
    gc.collect()
    gc.disable()
    try:
        listener.made.clear()
        client[1].close()
        await eventually(lambda: gone() is None)
    finally:
        gc.enable()


# --- dialling ---------------------------------------------------------------------------------------------------------


async def test_dialling(listen, tmp_path):
    dialler = Dialler("out", limits=Limits(max_connections=2))
    tcp, unix = await listen(), await listen(Address("", 0, str(tmp_path / "s")))
    for listener in (tcp, unix):
        connection = await dialler.dial(listener.address, Echo, timeout_s=5, peer_name="b")
        assert (connection.peer_name, connection.happened) == ("b", ["opened"])
    with pytest.raises(DialError, match="2 connections are open already"):
        await dialler.dial(tcp.address, Echo, timeout_s=5)
    dialler.close()
    await dialler.wait_empty(5)
    with pytest.raises(DialError, match=r"closed$"):
        await dialler.dial(tcp.address, Echo, timeout_s=5)


async def test_dials_at_once_keep_the_limit(listen):
    listener = await listen()
    dialler = Dialler("out", limits=Limits(max_connections=3))
    dials = [dialler.dial(listener.address, Echo, timeout_s=5) for _ in range(5)]
    outcomes = await asyncio.gather(*dials, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(DialError) == 2
    dialler.close()
    await dialler.wait_empty(5)


async def test_what_cannot_be_dialled_says_why(tmp_path):
    dialler = Dialler("out")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = Address("127.0.0.1", unused.getsockname()[1])
        for address, why in (
            (nobody, "Connection refused"),
            (Address("", 0, str(tmp_path / "s")), "No such file or directory"),
            (Address("a" * 70 + ".invalid", 1), "(encod|label)"),
        ):
            with pytest.raises(DialError, match=f"^cannot connect to {address}: .*{why}"):
                await dialler.dial(address, Echo, timeout_s=5)
    with socket.socket() as silent:  # a backlog that is full: the kernel does not answer
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        address = Address("127.0.0.1", silent.getsockname()[1])
        with pytest.raises(DialError, match=r"took longer than 0\.05 s"):
            for _ in range(5):
                await dialler.dial(address, Echo, timeout_s=0.05)
    dialler.close()
    await dialler.wait_empty(5)


async def test_nothing_of_a_line_is_lost_when_a_client_sends_and_half_closes(start_node, connect):
    node = await start_node()
    client = await connect(node)
    client.writer.write(b"one\ntwo\n")
    client.writer.write_eof()
    assert await client.reader.read() == b"ONE\nTWO\n"


def test_the_backlog_is_what_a_burst_needs():
    assert BACKLOG >= 512


def test_an_idle_connection_is_small():
    """The base's own part of the budget of 4 kB for an idle client."""
    assert sys.getsizeof(LineConnection.__new__(LineConnection)) < 200
    assert not hasattr(LineConnection.__new__(LineConnection), "__dict__")


def test_reasons_are_the_systems_words():
    assert sockets.reason(OSError(111, "Connect call failed ('127.0.0.1', 1)")) == "Connection refused"
    assert sockets.reason(socket.gaierror(-2, "Name or service not known")) == "Name or service not known"
    assert sockets.reason(TimeoutError()) == "TimeoutError"
