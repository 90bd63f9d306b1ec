"""Strategies in the simulated world: the store crashes, is cut off and comes back, from a seed."""

import asyncio

import pytest
import redis.asyncio
import redis.exceptions

KEYS = 8


class Things:
    """A store that keeps what it has acknowledged, crash or not: an HTTP server on a host of its own."""

    def __init__(self):
        self.values = {}

    async def serve(self, env):
        server = await asyncio.start_server(self.connected, "127.0.0.1", int(env["PORT"]))
        await server.serve_forever()

    async def connected(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                writer.write(await self.answer(head.decode(), reader))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(self, head, reader):
        method, target, _ = head.split(" ", 2)
        key = target.rpartition("/")[2]
        if method == "PUT":
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            self.values[key] = await reader.readexactly(length)
        elif method == "DELETE":
            self.values.pop(key, None)
        elif key in self.values:
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(self.values[key]), self.values[key])
        else:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        return b"HTTP/1.1 204 No Content\r\n\r\n"


async def stage(sim, **options):
    things = Things()
    store = await sim.program(things.serve, name="store")
    cache = await sim.cache(backing=f"{store.url}/things", backing_timeout="500ms", **options)
    return things, store, cache, redis.asyncio.Redis.from_url(cache.url, socket_timeout=5, retry=None)


async def trouble(sim, store, cache):
    """What befalls the store, at moments that the seed chooses."""
    for _ in range(3):
        await asyncio.sleep(sim.random.uniform(0.1, 1))
        if sim.random.random() < 0.5:
            store.kill()
            await asyncio.sleep(sim.random.uniform(0.1, 3))
            await store.restart()
        else:
            with cache.faults.partition(peer=store):
                await asyncio.sleep(sim.random.uniform(0.1, 3))


@pytest.mark.simulated(seeds=6)
async def test_write_behind_loses_nothing_that_was_acknowledged(minidist):
    things, store, cache, client = await stage(minidist, strategy="write-behind", write_behind_lag="50ms")
    troubled = asyncio.create_task(trouble(minidist, store, cache))
    expected = {}
    number = 0
    while not troubled.done():
        number += 1
        key = f"k{minidist.random.randrange(KEYS)}"
        if minidist.random.random() < 0.2:
            await client.delete(key)
            expected.pop(key, None)
        else:
            await client.set(key, number)
            expected[key] = b"%d" % number
        await asyncio.sleep(minidist.random.uniform(0, 0.05))
    await troubled
    await minidist.until(lambda: things.values == expected, what="the store has the last value of each key")
    assert (await client.info("backing"))["backing_queue_keys"] == 0
    await client.aclose()


@pytest.mark.simulated(seeds=6)
async def test_a_stop_writes_what_was_acknowledged(minidist):
    things, _, cache, client = await stage(minidist, strategy="write-behind", write_behind_lag="1h")
    for number in range(100):
        await client.set(f"k{number}", number)
    assert not things.values
    await client.aclose()
    await cache.stop()
    assert things.values == {f"k{number}": b"%d" % number for number in range(100)}


@pytest.mark.simulated(seeds=6)
async def test_write_through_is_never_older_than_what_was_acknowledged(minidist):
    """Each key has one writer, and a reader who looks at the same time."""
    things, store, cache, client = await stage(minidist, strategy="write-through", negative_ttl="0", max_memory="20kb")
    acknowledged = dict.fromkeys((f"k{n}" for n in range(KEYS)), 0)
    failures = set()

    async def write(key):
        number = 0
        while not troubled.done():
            number += 1
            try:
                await client.set(key, f"{number:01000}")
            except (redis.exceptions.ResponseError, redis.exceptions.TimeoutError) as error:
                failures.add(str(error).partition(" ")[0])
            else:
                acknowledged[key] = number
                assert int(things.values[key]) == number
            await asyncio.sleep(minidist.random.uniform(0, 0.1))

    async def read(key):
        while not troubled.done():
            before = acknowledged[key]
            try:
                value = await client.get(key)
            except (redis.exceptions.ResponseError, redis.exceptions.TimeoutError):
                await asyncio.sleep(0.05)
                continue
            assert int(value or 0) >= before
            await asyncio.sleep(minidist.random.uniform(0, 0.1))

    troubled = asyncio.create_task(trouble(minidist, store, cache))
    await asyncio.gather(*(part(key) for key in acknowledged for part in (write, read)))
    await troubled
    assert failures <= {"ERR", "UNKNOWN", "backing", "outcome:"}
    await client.aclose()
