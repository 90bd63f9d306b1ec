"""Connections, on asyncio's own loop and on the simulated one: whatever a protocol can see must be the same."""

import asyncio
import contextvars
import socket
import struct
import sys

import pytest

MEGABYTE = 1 << 20
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

knows_what_was_acknowledged = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="Linux says it")


class Recorder(asyncio.Protocol):
    """Notes what it is told."""

    keep_open = False

    def __init__(self, made=lambda self: None) -> None:
        self.calls = []
        self.data = bytearray()
        self.error = None
        self.transport = None
        self._made = made

    def connection_made(self, transport):
        self.calls.append("made")
        self.transport = transport
        self._made(self)

    def data_received(self, data):
        assert data, "an empty read is never told"
        if self.calls[-1] != "data":
            self.calls.append("data")
        self.data += data

    def eof_received(self):
        self.calls.append("eof")
        return self.keep_open

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, exc):
        self.calls.append("lost")
        self.error = exc


class HalfOpen(Recorder):
    keep_open = True


async def pair(net, ours=Recorder, theirs=Recorder):
    """A connection: the client's protocol and the server's."""
    accepted = []

    def accept():
        accepted.append(theirs())
        return accepted[-1]

    port = await net.serve(accept)
    _, client = await net.connect(ours, port)
    await net.until(lambda: accepted and accepted[0].calls)
    return client, accepted[0]


def test_both_ends_agree_on_who_they_are(play):
    async def main(net):
        client, server = await pair(net)
        assert client.transport.get_extra_info("peername") == server.transport.get_extra_info("sockname")
        assert client.transport.get_extra_info("sockname") == server.transport.get_extra_info("peername")
        raw = client.transport.get_extra_info("socket")
        assert raw.family == socket.AF_INET
        assert raw.type == socket.SOCK_STREAM
        assert raw.getpeername() == client.transport.get_extra_info("peername")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert raw.fileno() > 0
        assert raw.gettimeout() == 0
        assert client.transport.get_extra_info("sslcontext") is None
        assert client.transport.get_extra_info("nothing", 7) == 7
        client.transport.close()
        await net.until(lambda: "lost" in client.calls)
        assert raw.fileno() == -1

    play(main)


def test_bytes_arrive_in_order_and_whole(play):
    async def main(net):
        client, server = await pair(net)
        sent = bytearray()
        for number in range(500):
            data = bytes([number % 251]) * (number * 37 % 4000 + 1)
            client.transport.write(data)
            sent += data
        client.transport.writelines([b"a", b"", b"bc"])
        await net.until(lambda: len(server.data) == len(sent) + 3)
        assert server.data == sent + b"abc"
        assert server.calls == ["made", "data"]

    play(main)


def test_an_end_of_file_closes_unless_the_protocol_keeps_the_other_half(play):
    async def main(net):
        client, server = await pair(net)
        client.transport.write_eof()
        await net.until(lambda: "lost" in server.calls and "lost" in client.calls)
        assert server.calls == ["made", "eof", "lost"]
        assert client.calls == ["made", "eof", "lost"]
        assert client.error is server.error is None

    play(main)


def test_half_closed_the_other_half_goes_on(play):
    async def main(net):
        client, server = await pair(net, theirs=HalfOpen)
        assert client.transport.can_write_eof()
        client.transport.write(b"question")
        client.transport.write_eof()
        client.transport.write_eof()  # once more is nothing
        with pytest.raises(RuntimeError):
            client.transport.write(b"more")
        await net.until(lambda: "eof" in server.calls)
        server.transport.write(b"x" * MEGABYTE)
        server.transport.close()
        await net.until(lambda: "lost" in client.calls and "lost" in server.calls)
        assert (server.data, len(client.data)) == (b"question", MEGABYTE)
        assert client.calls[-2:] == ["eof", "lost"]
        assert client.error is server.error is None

    play(main)


def test_writing_what_is_no_bytes_or_after_the_end(play):
    async def main(net):
        client, server = await pair(net)
        with pytest.raises(TypeError, match="bytes-like"):
            client.transport.write("text")
        client.transport.write(b"")
        client.transport.write(memoryview(b"abc"))
        client.transport.close()
        assert client.transport.is_closing()
        client.transport.write(b"ignored")
        client.transport.write_eof()
        client.transport.close()
        await net.until(lambda: "lost" in server.calls)
        assert server.data == b"abc"
        assert client.calls == ["made", "lost"]

    play(main)


def test_close_sends_what_is_buffered_and_then_tells(play):
    async def main(net):
        client, server = await pair(net)
        client.transport.write(b"x" * (16 * MEGABYTE))
        assert client.transport.get_write_buffer_size() > 0
        assert client.calls == ["made", "pause"]
        client.transport.close()
        assert "lost" not in client.calls
        await net.until(lambda: "lost" in client.calls and "lost" in server.calls)
        assert len(server.data) == 16 * MEGABYTE
        assert client.calls == ["made", "pause", "resume", "lost"]
        assert client.error is None

    play(main)


def test_a_reader_that_pauses_holds_the_writer(play):
    async def main(net):
        client, server = await pair(net, theirs=lambda: Recorder(lambda own: own.transport.pause_reading()))
        assert not server.transport.is_reading()
        for _ in range(160):
            client.transport.write(b"x" * (MEGABYTE // 10))
        await net.until(lambda: "pause" in client.calls)
        held = client.transport.get_write_buffer_size()
        assert held > 64 * 1024
        await asyncio.sleep(0.02)
        assert (server.data, server.calls) == (b"", ["made"])
        server.transport.pause_reading()  # once more is nothing
        server.transport.resume_reading()
        server.transport.resume_reading()
        await net.until(lambda: "resume" in client.calls)
        await net.until(lambda: len(server.data) == 160 * (MEGABYTE // 10))
        assert client.calls == ["made", "pause", "resume"]
        assert client.transport.get_write_buffer_size() == 0

    play(main)


def test_pausing_inside_data_received_stops_at_once(play):
    class Sips(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    async def main(net):
        client, server = await pair(net, theirs=Sips)
        client.transport.write(b"one")
        await net.until(lambda: server.data)
        client.transport.write(b"two")
        client.transport.write_eof()
        await asyncio.sleep(0.02)
        first = bytes(server.data)
        while "eof" not in server.calls:
            server.transport.resume_reading()
            await asyncio.sleep(0.001)
        assert b"onetwo".startswith(first)
        assert server.data == b"onetwo"

    play(main)


def test_buffer_limits(play):
    async def main(net):
        client, server = await pair(net, theirs=lambda: Recorder(lambda own: own.transport.pause_reading()))
        transport = client.transport
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        transport.set_write_buffer_limits(low=10)
        assert transport.get_write_buffer_limits() == (10, 40)
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.set_write_buffer_limits(high=1 << 30)
        transport.write(b"x" * (16 * MEGABYTE))
        assert client.calls == ["made"]
        transport.set_write_buffer_limits(high=0)
        assert client.calls == ["made", "pause"]
        server.transport.resume_reading()
        await net.until(lambda: "resume" in client.calls)
        assert transport.get_write_buffer_size() == 0

    play(main)


def test_abort_drops_what_is_buffered(play):
    async def main(net):
        client, server = await pair(net, theirs=lambda: Recorder(lambda own: own.transport.pause_reading()))
        client.transport.write(b"x" * (16 * MEGABYTE))
        client.transport.abort()
        assert client.transport.is_closing()
        assert client.calls == ["made", "pause"]  # told by the loop, never from within
        await net.until(lambda: "lost" in client.calls)
        server.transport.resume_reading()
        await net.until(lambda: "lost" in server.calls)
        assert 0 < len(server.data) < 16 * MEGABYTE
        assert client.error is None

    play(main)


def test_with_linger_zero_the_peer_sees_a_reset(play):
    async def main(net):
        client, server = await pair(net)
        raw = client.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        client.transport.abort()
        await net.until(lambda: "lost" in server.calls)
        assert isinstance(server.error, ConnectionResetError)
        assert client.error is None
        assert not net.errors

    play(main)


@knows_what_was_acknowledged
def test_closing_with_unread_data_resets(play):
    async def main(net):
        client, server = await pair(net, theirs=lambda: Recorder(lambda own: own.transport.pause_reading()))
        client.transport.write(b"never read")
        taken = client.transport.get_extra_info("socket")
        await net.until(lambda: bytes_acknowledged(taken) >= 10)
        server.transport.close()
        await net.until(lambda: "lost" in client.calls)
        assert isinstance(client.error, ConnectionResetError)

    play(main)


def bytes_acknowledged(raw):
    return int.from_bytes(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)[120:128], sys.byteorder)


def test_writing_to_a_peer_that_has_closed(play):
    async def main(net):
        client, server = await pair(net, ours=HalfOpen)
        server.transport.close()
        await net.until(lambda: "eof" in client.calls)
        client.transport.write(b"first")  # nobody knows yet that this is in vain
        assert "lost" not in client.calls
        async with asyncio.timeout(20):
            while "lost" not in client.calls:
                client.transport.write(b"more")
                await asyncio.sleep(0.001)
        assert isinstance(client.error, BrokenPipeError | ConnectionResetError)
        assert client.calls == ["made", "eof", "lost"]
        assert not net.errors  # what the network does is no bug

    play(main)


@knows_what_was_acknowledged
def test_a_reset_is_seen_by_a_paused_reader_only_when_it_reads(play):
    async def main(net):
        client, server = await pair(net, ours=lambda: Recorder(lambda own: own.transport.pause_reading()))
        server.transport.write(b"last words")
        server.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        taken = server.transport.get_extra_info("socket")
        await net.until(lambda: bytes_acknowledged(taken) >= 10)
        server.transport.abort()
        await asyncio.sleep(0.02)
        assert client.calls == ["made"]
        client.transport.resume_reading()
        await net.until(lambda: "lost" in client.calls)
        assert isinstance(client.error, ConnectionResetError)

    play(main)


@pytest.mark.parametrize("method", ["data_received", "eof_received"])
def test_a_protocol_that_fails_loses_its_connection(play, method):
    class Fails(Recorder):
        pass

    def fail(self, *args):
        raise ZeroDivisionError("a bug")

    setattr(Fails, method, fail)

    async def main(net):
        client, server = await pair(net, theirs=Fails)
        client.transport.write(b"x")
        client.transport.write_eof()
        await net.until(lambda: "lost" in server.calls)
        assert isinstance(server.error, ZeroDivisionError)
        assert [type(context["exception"]) for context in net.errors] == [ZeroDivisionError]
        net.errors.clear()

    play(main)


def test_a_protocol_that_fails_in_connection_made_is_reported_and_goes_on(play):
    class Fails(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ZeroDivisionError("a bug")

    async def main(net):
        client, server = await pair(net, theirs=Fails)
        client.transport.write(b"x")
        await net.until(lambda: server.data)
        assert [type(context["exception"]) for context in net.errors] == [ZeroDivisionError]
        net.errors.clear()

    play(main)


def test_a_factory_that_fails(play):
    async def main(net):
        if not net.simulated:
            return  # asyncio does the same, and forgets to close the socket
        port = await net.serve(Recorder)

        def fail():
            raise ZeroDivisionError("a bug")

        with pytest.raises(ZeroDivisionError):
            await net.connect(fail, port)

    play(main)


class Small(asyncio.BufferedProtocol):
    """Reads at most seven bytes at a time."""

    def __init__(self) -> None:
        self.calls = []
        self.data = bytearray()
        self.buffer = bytearray(7)
        self.sizes = set()

    def connection_made(self, transport):
        self.calls.append("made")
        self.transport = transport

    def get_buffer(self, sizehint):
        self.sizes.add(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes):
        self.data += self.buffer[:nbytes]

    def eof_received(self):
        self.calls.append("eof")

    def connection_lost(self, exc):
        self.calls.append("lost")


def test_buffered_protocol(play):
    async def main(net):
        client, server = await pair(net, theirs=Small)
        data = bytes(range(256)) * 20
        client.transport.write(data)
        client.transport.close()
        await net.until(lambda: "lost" in server.calls)
        assert server.data == data
        assert server.calls == ["made", "eof", "lost"]
        assert server.sizes == {-1}

    play(main)


def test_a_buffered_protocol_without_a_buffer_loses_its_connection(play):
    class NoBuffer(Small):
        def get_buffer(self, sizehint):
            return bytearray()

    async def main(net):
        client, server = await pair(net, theirs=NoBuffer)
        client.transport.write(b"x")
        await net.until(lambda: "lost" in server.calls)
        assert [type(context["exception"]) for context in net.errors] == [RuntimeError]
        net.errors.clear()

    play(main)


def test_another_protocol_takes_over(play):
    async def main(net):
        client, server = await pair(net)
        client.transport.write(b"first")
        await net.until(lambda: server.data == b"first")
        other = Small()
        server.transport.set_protocol(other)
        assert server.transport.get_protocol() is other
        client.transport.write(b"second")
        client.transport.close()
        await net.until(lambda: "lost" in other.calls)
        assert (server.data, other.data) == (b"first", b"second")
        assert server.calls == ["made", "data"]

    play(main)


def test_a_port_without_a_listener_refuses(play):
    async def main(net):
        port = await net.serve(Recorder)
        net.servers[0].close()
        with pytest.raises(ConnectionRefusedError, match="Connect call failed"):
            await net.connect(Recorder, port)
        with pytest.raises(ExceptionGroup) as group:
            await net.connect(Recorder, port, all_errors=True) if sys.version_info >= (3, 12) else raise_group()
        assert isinstance(group.value.exceptions[0], OSError)

    def raise_group():
        raise ExceptionGroup("3.11 has no all_errors", [OSError()])

    play(main)


def test_a_taken_port_cannot_be_listened_on(play):
    async def main(net):
        port = await net.serve(Recorder)
        with pytest.raises(OSError, match="attempting to bind"):
            await net.serve(Recorder, port)
        net.servers[0].close()
        await asyncio.sleep(0)
        assert await net.serve(Recorder, port) == port

    play(main)


def test_a_closed_server_keeps_its_connections(play):
    async def main(net):
        client, server = await pair(net)
        listening = net.servers[0]
        assert listening.is_serving()
        listening.close()
        listening.close()
        assert not listening.is_serving()
        assert listening.sockets == ()
        client.transport.write(b"still there")
        await net.until(lambda: server.data == b"still there")
        closed = asyncio.ensure_future(listening.wait_closed())
        await asyncio.sleep(0.01)
        assert closed.done() == (sys.version_info < (3, 12))
        client.transport.close()
        await closed

    play(main)


def test_serve_forever_ends_when_the_server_is_closed(play):
    async def main(net):
        await net.serve(Recorder, start_serving=False)
        server = net.servers[0]
        assert not server.is_serving()
        serving = asyncio.ensure_future(server.serve_forever())
        await net.until(server.is_serving)
        with pytest.raises(RuntimeError, match="already being awaited"):
            await server.serve_forever()
        server.close()
        with pytest.raises(asyncio.CancelledError):
            await serving
        with pytest.raises(RuntimeError, match="is closed"):
            await server.serve_forever()

    play(main)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="since Python 3.13")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_a_server_ends_its_connections(play, method):
    async def main(net):
        client, server = await pair(net)
        getattr(net.servers[0], method)()
        await net.until(lambda: "lost" in client.calls and "lost" in server.calls)

    play(main)


def test_callbacks_see_the_context_of_who_made_the_connection(play):
    name = contextvars.ContextVar("name", default="")
    seen = []

    class Looks(Recorder):
        def data_received(self, data):
            super().data_received(data)
            seen.append(name.get())

    async def main(net):
        name.set("ours")
        client, server = await pair(net, ours=Looks)
        name.set("changed")
        server.transport.write(b"x")
        await net.until(lambda: client.data)
        assert seen == ["ours"]

    play(main)


def test_a_connect_that_is_cancelled_leaves_nothing(play):
    async def main(net):
        made = []
        port = await net.serve(Recorder)
        connecting = asyncio.ensure_future(net.connect(lambda: made.append(Recorder()) or made[0], port))
        await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await asyncio.sleep(0.01)
        assert not made or made[0].calls in ([], ["made", "lost"])

    play(main)


# --- streams ----------------------------------------------------------------------------------------------------------


def test_streams_echo_lines(play):
    async def main(net):
        async def echo(reader, writer):
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()

        port = await net.serve_streams(echo)
        reader, writer = await asyncio.open_connection(net.host, port)
        for number in range(50):
            writer.write(b"line %d\n" % number)
            assert await reader.readline() == b"LINE %d\n" % number
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    play(main)


def test_streams_hold_a_fast_writer(play):
    async def main(net):
        released = asyncio.Event()
        received = []

        async def slow(reader, writer):
            await released.wait()
            while data := await reader.read(100_000):
                received.append(len(data))
            writer.close()

        port = await net.serve_streams(slow)
        _, writer = await asyncio.open_connection(net.host, port)

        async def write():
            for _ in range(160):
                writer.write(b"x" * 100_000)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        writing = asyncio.ensure_future(write())
        await net.until(lambda: writer.transport.get_write_buffer_size())
        await asyncio.sleep(0.02)
        assert not writing.done()
        released.set()
        await writing
        await net.until(lambda: sum(received) == 16_000_000)

    play(main)


def test_streams_say_when_the_peer_is_gone(play):
    async def main(net):
        async def rude(reader, writer):
            writer.write(b"half")
            writer.close()

        port = await net.serve_streams(rude)
        reader, writer = await asyncio.open_connection(net.host, port)
        with pytest.raises(asyncio.IncompleteReadError) as error:
            await reader.readexactly(10)
        assert error.value.partial == b"half"
        with pytest.raises(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.001)
        writer.close()
        with pytest.raises(ConnectionError):
            await writer.wait_closed()

    play(main)


# --- datagrams --------------------------------------------------------------------------------------------------------


class Post(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.calls = []
        self.got = []
        self.errors = []

    def connection_made(self, transport):
        self.calls.append("made")
        self.transport = transport

    def datagram_received(self, data, addr):
        self.got.append((data, addr))

    def error_received(self, exc):
        self.errors.append(exc)

    def connection_lost(self, exc):
        self.calls.append("lost")


async def post(net, factory=Post, **options):
    return await asyncio.get_running_loop().create_datagram_endpoint(factory, **options)


def test_datagrams(play):
    async def main(net):
        there, server = await net.as_server(post(net, local_addr=(net.host, 0)))
        address = there.get_extra_info("sockname")
        here, client = await post(net, remote_addr=address)
        assert here.get_extra_info("peername") == address
        with pytest.raises(TypeError):
            here.sendto("text")
        with pytest.raises(ValueError, match="Invalid address"):
            here.sendto(b"x", (net.host, 1))
        here.sendto(b"question")
        await net.until(lambda: server.got)
        data, sender = server.got[0]
        assert (data, sender) == (b"question", here.get_extra_info("sockname"))
        there.sendto(b"answer", sender)
        await net.until(lambda: client.got)
        assert client.got == [(b"answer", address)]
        here.close()
        here.close()
        assert here.is_closing()
        await net.until(lambda: "lost" in client.calls)
        assert client.calls == ["made", "lost"]
        there.close()

    play(main)


def test_a_datagram_for_nobody_comes_back_as_an_error(play):
    async def main(net):
        there, server = await net.as_server(post(net, local_addr=(net.host, 0)))
        address = there.get_extra_info("sockname")
        there.close()
        await net.until(lambda: "lost" in server.calls)
        here, client = await post(net, remote_addr=address)
        here.sendto(b"anybody?")
        await net.until(lambda: client.errors)
        assert isinstance(client.errors[0], ConnectionRefusedError)
        here.sendto(b"x" * 70_000)
        await net.until(lambda: len(client.errors) > 1)
        here.close()

    play(main)
