"""The memcached listener: the order of its replies, and writes that wait until room for them has been made."""

import asyncio
from contextlib import closing

PATIENCE_S = 10.0
LIMIT_BYTES = 4_000_000
VALUE = b"y" * 500_000


async def connect(place):
    address = place.node.listeners["memcached"].address
    return await asyncio.open_connection(address.host, address.port)


async def test_the_last_complaint_comes_after_the_replies_before_it(start):
    place = await start(memcached="127.0.0.1:0")
    reader, writer = await connect(place)
    with closing(writer):
        writer.write(b"version\r\nget nothing\r\n\x80binary")
        async with asyncio.timeout(PATIENCE_S):
            replies = (await reader.read(-1)).split(b"\r\n")
    assert replies[0].startswith(b"VERSION ")
    assert replies[1] == b"END"
    assert replies[2].startswith(b"SERVER_ERROR the binary protocol")


async def test_its_clients_are_counted(start, until):
    place = await start(memcached="127.0.0.1:0")
    reader, writer = await connect(place)
    other = (await connect(place))[1]
    with closing(writer):
        writer.write(b"version\r\n")
        await reader.readline()
        other.close()
        await until(lambda: len(place.node.listeners["memcached"].connections) == 1)
        writer.write(b"stats\r\n")
        async with asyncio.timeout(PATIENCE_S):
            figures = await reader.readuntil(b"END\r\n")
    assert b"STAT curr_connections 1\r\n" in figures
    assert b"STAT total_connections 2\r\n" in figures


async def test_a_write_waits_until_enough_small_keys_have_gone(start):
    """What one step evicts is much less than what one command brings."""
    place = await start(memcached="127.0.0.1:0", max_memory=str(LIMIT_BYTES))
    keyspace = place.node.service.keyspace
    database, now_ms = keyspace.databases[0], place.node.clock.now_ms()
    while keyspace.used_bytes < LIMIT_BYTES:
        database.put(b"small:%d" % database.count, b"x", now_ms)
    reader, writer = await connect(place)
    with closing(writer):
        for number in range(12):
            writer.write(b"set large:%d 0 0 %d noreply\r\n%b\r\n" % (number, len(VALUE), VALUE))
            writer.write(b"get large:%d\r\n" % number)
        async with asyncio.timeout(PATIENCE_S):
            for number in range(12):
                assert await reader.readline() == b"VALUE large:%d 0 %d\r\n" % (number, len(VALUE))
                await reader.readexactly(len(VALUE) + 2)
                assert await reader.readline() == b"END\r\n"
    assert keyspace.peak_bytes <= LIMIT_BYTES + len(VALUE) + 10_000


async def test_the_limit_is_the_nodes(start):
    place = await start(memcached="127.0.0.1:0")
    reader, writer = await connect(place)
    with closing(writer):
        writer.write(b"cache_memlimit 64\r\n")
        assert await reader.readline() == b"OK\r\n"
    assert place.node.config.max_memory == place.node.service.keyspace.limit_bytes == 64 * 1024**2
