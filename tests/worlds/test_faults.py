"""The table kind × world of docs/faults.md: every kind, on a cache, with the same effect wherever it runs."""

import asyncio
import contextlib

import pytest

from minidist.testing.errors import NotSupported

SILENCE_S = 0.3
PATIENCE_S = 10

pytestmark = pytest.mark.parametrize(
    "world", ["processes", "inline", pytest.param("simulated", marks=pytest.mark.simulated(seeds=3))]
)


class Client:
    """A connection on which lines are said and heard."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def ask(self, line=b"PING"):
        self.writer.write(line + b"\r\n")
        return await self.hear()

    async def hear(self):
        async with asyncio.timeout(PATIENCE_S):
            return (await self.reader.readline()).rstrip()

    async def hears_nothing(self):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SILENCE_S):
                assert await self.reader.read(1), "closed"
                return False
        return True


@contextlib.asynccontextmanager
async def connected(cache):
    reader, writer = await asyncio.open_connection(cache.host, cache.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def cache_in(minidist, world):
    async with minidist.cache(inline=True) if world == "inline" else minidist.cache() as cache:
        yield cache


async def accepts(cache):
    try:
        async with connected(cache) as client:
            return await client.ask() == b"+PONG"
    except ConnectionRefusedError:
        return False


def now_s():
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("kind", ["partition", "hang"])
async def test_no_byte_passes_and_what_waits_comes_at_the_end(minidist, world, kind):
    async with cache_in(minidist, world) as cache, connected(cache) as client:
        assert await client.ask() == b"+PONG"
        with cache.faults.add(kind):
            client.writer.write(b"PING\r\n")
            assert await client.hears_nothing()
        assert await client.hear() == b"+PONG"


async def test_drop_of_everything(minidist, world):
    async with cache_in(minidist, world) as cache, connected(cache) as client:
        assert await client.ask() == b"+PONG"
        with cache.faults.add("drop", probability=1.0):
            client.writer.write(b"PING\r\n")
            assert await client.hears_nothing()


async def test_delay(minidist, world):
    async with cache_in(minidist, world) as cache, connected(cache) as client:
        with cache.faults.add("delay", ms=100):
            began_s = now_s()
            assert await client.ask() == b"+PONG"
            assert now_s() - began_s >= 0.1


async def test_bandwidth(minidist, world):
    async with cache_in(minidist, world) as cache, connected(cache) as client:
        with cache.faults.add("bandwidth", bytes_per_s=200_000):
            began_s = now_s()
            assert await client.ask(b"SET key " + b"x" * 60_000) == b"+OK"
            assert now_s() - began_s >= 0.2


async def test_refuse(minidist, world):
    async with cache_in(minidist, world) as cache:
        async with connected(cache) as before:
            assert await before.ask() == b"+PONG"
            with cache.faults.add("refuse"):
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection(cache.host, cache.port)
                assert await before.ask() == b"+PONG", "only new connections are refused"
        async with asyncio.timeout(PATIENCE_S):
            while not await accepts(cache):
                await asyncio.sleep(0.01)


async def test_reset(minidist, world):
    async with cache_in(minidist, world) as cache, connected(cache) as client:
        assert await client.ask() == b"+PONG"
        with cache.faults.add("reset"), pytest.raises(ConnectionResetError):
            for _ in range(100):
                if not await client.ask():
                    raise ConnectionResetError


async def test_reply(minidist, world):
    async with cache_in(minidist, world) as cache, connected(cache) as client:
        cache.faults.add("reply", match="SET", error="READONLY no", times=1)
        assert await client.ask(b"SET key 1") == b"-READONLY no"
        assert await client.ask(b"EXISTS key") == b":0", "it was not carried out"
        assert await client.ask(b"SET key 1") == b"+OK"


async def test_clock_jumps(minidist, world):
    async with cache_in(minidist, world) as cache, connected(cache) as client:
        assert await client.ask(b"SET key 1 EX 3600") == b"+OK"
        cache.faults.add("clock", by="2h")
        assert await client.ask(b"EXISTS key") == b":0"


async def test_clock_runs_faster(minidist, world):
    async with cache_in(minidist, world) as cache, connected(cache) as client:
        assert await client.ask(b"SET key 1 EX 100") == b"+OK"
        with cache.faults.add("clock", rate=1000.0):
            async with asyncio.timeout(PATIENCE_S):
                while await client.ask(b"EXISTS key") == b":1":
                    await asyncio.sleep(0.02)


async def test_kill(minidist, world):
    async with cache_in(minidist, world) as cache:
        async with connected(cache) as client:
            assert await client.ask(b"SET key 1") == b"+OK"
        host, port = cache.host, cache.port
        await cache.kill()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, port)
        await cache.restart()
        async with connected(cache) as client:
            assert await client.ask(b"EXISTS key") == b":0", "a cache forgets"


async def test_pause(minidist, world):
    async with cache_in(minidist, world) as cache, connected(cache) as client:
        assert await client.ask() == b"+PONG"
        if world == "inline":
            with pytest.raises(NotSupported):
                cache.pause()
            return
        cache.pause()
        async with asyncio.timeout(PATIENCE_S):  # a signal is on its way for a moment
            client.writer.write(b"PING\r\n")
            while not await client.hears_nothing():
                await client.hear()
                client.writer.write(b"PING\r\n")
        cache.resume()
        assert await client.hear() == b"+PONG"
