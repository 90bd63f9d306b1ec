"""What connections send in one round of the loop goes out at its end, and in order with what is written at once."""

import asyncio

from minidist.runtime.config import Address
from minidist.runtime.connection import Connection
from minidist.runtime.endpoint import Listener


class Talker(Connection):
    """Does with each line what it says: `send X`, `write X`, `close`, `abort`."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self.touched = True
        for line in data.decode().splitlines():
            verb, _, text = line.partition(" ")
            if text:
                getattr(self, verb)(text.encode())
            elif verb == "abort":
                self.abort("asked to")
            else:
                self.close()


async def said(order: bytes, *, half_close: bool = False) -> bytes:
    """What a client gets for some lines, until the connection ends."""
    listener = Listener("talk", Address("127.0.0.1", 0), Talker)
    await listener.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.address.port)
    writer.write(order)
    if half_close:
        writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()
        await listener.drain(1)


async def test_in_the_order_of_the_calls():
    assert await said(b"send a\nsend b\nwrite c\nsend d\nwrite e\nsend f\nclose\n") == b"abcdef"


async def test_an_abort_drops_what_was_sent():
    try:
        assert await said(b"send a\nabort\n") == b""
    except ConnectionResetError:
        pass


async def test_a_client_that_sends_no_more_gets_its_answer():
    assert await said(b"send a\nsend b\n", half_close=True) == b"ab"


async def test_one_flush_for_the_connections_of_a_round():
    listener = Listener("talk", Address("127.0.0.1", 0), Talker)
    await listener.start()
    clients = [await asyncio.open_connection("127.0.0.1", listener.address.port) for _ in range(3)]
    while len(listener.connections) < 3:
        await asyncio.sleep(0)
    first, second, third = listener.connections
    for connection in (first, second, third, first):
        connection.send(b"x")
    assert [connection for connection, _ in listener.outgoing] == [first, second, third, first]
    second.reset()
    await asyncio.sleep(0)
    assert not listener.outgoing
    for (reader, writer), expected in zip(clients, (b"xx", None, b"x"), strict=True):
        if expected is not None:
            assert await reader.readexactly(len(expected)) == expected
        writer.close()
    await listener.drain(1)
