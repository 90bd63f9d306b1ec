"""What a cache is used for, by redis-py, in the three worlds: lifetimes, queues, transactions, messages, scripts."""

import asyncio
import contextlib
import importlib.util

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import WatchError

PATIENCE_S = 10

pytestmark = pytest.mark.parametrize(
    "world", ["processes", "inline", pytest.param("simulated", marks=pytest.mark.simulated(seeds=5))]
)


@contextlib.asynccontextmanager
async def cache_in(minidist, world, **options):
    """A cache, and how to get clients of it."""
    async with contextlib.AsyncExitStack() as stack:
        starting = minidist.cache(inline=True, **options) if world == "inline" else minidist.cache(**options)
        cache = await stack.enter_async_context(starting)

        async def connect():
            client = redis.asyncio.Redis.from_url(
                cache.url, retry=None, socket_timeout=PATIENCE_S, decode_responses=True
            )
            return await stack.enter_async_context(client)

        yield cache, connect


async def until(condition):
    """Wait for a condition that a coroutine function tells."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.01)


async def blocked(client, count):
    await until(lambda: _blocked(client, count))


async def _blocked(client, count):
    return (await client.info("clients"))["blocked_clients"] == count


async def test_every_type_of_value(minidist, world):
    async with cache_in(minidist, world) as (_, connect):
        client = await connect()
        async with client.pipeline(transaction=False) as pipe:
            pipe.set("string", "1").incrby("string", 41).rpush("list", "a", "b", "c").lrange("list", 0, -1)
            pipe.hset("hash", mapping={"f": "1", "g": "2"}).hgetall("hash").sadd("set", "x").smembers("set")
            pipe.zadd("zset", {"low": 1, "high": 2}).zrange("zset", 0, -1).xadd("stream", {"f": "v"}, id="1-1")
            pipe.xrange("stream").pfadd("hll", "a", "b").pfcount("hll")
            answers = await pipe.execute()
        assert answers == [
            True, 42, 3, ["a", "b", "c"], 2, {"f": "1", "g": "2"}, 1, {"x"}, 2, ["low", "high"], "1-1",
            [("1-1", {"f": "v"})], 1, 2,
        ]  # fmt: skip


async def test_lifetimes_run_on_a_clock_that_moves(minidist, world):
    async with cache_in(minidist, world) as (cache, connect):
        client = await connect()
        await client.set("session", "1", ex=3600)
        async with client.pipeline() as pipe:
            await pipe.watch("session")
            cache.clock.advance(hours=2)
            pipe.multi()
            pipe.set("seen", "1")
            with pytest.raises(WatchError):
                await pipe.execute()
        assert await client.exists("session", "seen") == 0


async def test_who_waits_first_is_served_first(minidist, world):
    async with cache_in(minidist, world) as (_, connect):
        client, waiting = await connect(), []
        for number in range(3):
            waiting.append(asyncio.ensure_future((await connect()).blpop(["queue", "other"], 0)))
            await blocked(client, number + 1)
        await client.rpush("queue", "a", "b")
        await client.rpush("other", "c")
        assert [list(await each) for each in waiting] == [["queue", "a"], ["queue", "b"], ["other", "c"]]


async def test_a_wait_ends_with_its_time(minidist, world):
    async with cache_in(minidist, world) as (cache, connect):
        client, waiter = await connect(), await connect()
        waiting = asyncio.ensure_future(waiter.bzpopmin("scores", 5))
        await blocked(client, 1)
        cache.clock.advance(seconds=6)
        assert await waiting is None


async def test_who_has_gone_takes_nothing_along(minidist, world):
    async with cache_in(minidist, world) as (_, connect):
        client, waiter = await connect(), await connect()
        waiting = asyncio.ensure_future(waiter.blmove("queue", "done", 0))
        await blocked(client, 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await blocked(client, 0)
        await client.rpush("queue", "a")
        assert (await client.lrange("queue", 0, -1), await client.exists("done")) == (["a"], 0)


async def test_a_queue_of_a_group(minidist, world):
    async with cache_in(minidist, world) as (_, connect):
        client, worker = await connect(), await connect()
        await client.xgroup_create("jobs", "workers", mkstream=True)
        waiting = asyncio.ensure_future(worker.xreadgroup("workers", "ann", {"jobs": ">"}, block=0))
        await blocked(client, 1)
        job = await client.xadd("jobs", {"do": "this"})
        assert await waiting
        assert (await client.xpending("jobs", "workers"))["pending"] == 1
        assert await worker.xack("jobs", "workers", job) == 1


async def test_transactions_are_all_or_nothing(minidist, world):
    async with cache_in(minidist, world) as (_, connect):
        one, other = await connect(), await connect()
        await one.mset({"a": 100, "b": 0})

        async def move(client):
            async with client.pipeline() as pipe:
                while True:
                    try:
                        await pipe.watch("a", "b")
                        a, b = map(int, await pipe.mget("a", "b"))
                        pipe.multi()
                        pipe.mset({"a": a - 1, "b": b + 1})
                        return await pipe.execute()
                    except WatchError:
                        continue

        await asyncio.gather(*(move(client) for client in (one, other) for _ in range(10)))
        assert await one.mget("a", "b") == ["80", "20"]


async def test_messages_reach_who_listens(minidist, world):
    async with cache_in(minidist, world) as (_, connect):
        client = await connect()
        async with (await connect()).pubsub() as by_name, (await connect()).pubsub() as by_pattern:
            await by_name.subscribe("news")
            await by_pattern.psubscribe("n*")
            for listener, kind in ((by_name, "subscribe"), (by_pattern, "psubscribe")):
                assert (await listener.get_message(timeout=PATIENCE_S))["type"] == kind
            for number in range(5):
                assert await client.publish("news", number) == 2
            for listener in (by_name, by_pattern):
                heard = [await listener.get_message(timeout=PATIENCE_S) for _ in range(5)]
                assert [each["data"] for each in heard] == ["0", "1", "2", "3", "4"]


@pytest.mark.skipif(importlib.util.find_spec("lupa") is None, reason="Lua is not installed")
async def test_scripts(minidist, world):
    async with cache_in(minidist, world) as (_, connect):
        client = await connect()
        add = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
        assert [await add(["sum"], [number]) for number in (1, 2, 3)] == [1, 3, 6]
        lock = client.lock("lock", timeout=10)
        assert await lock.acquire()
        await lock.release()  # a script, too
        assert await client.get("lock") is None


async def test_memory_is_bounded(minidist, world):
    async with cache_in(minidist, world, max_memory="1mb", eviction="allkeys-lru") as (_, connect):
        client = await connect()
        for start in range(0, 400, 50):
            async with client.pipeline(transaction=False) as pipe:
                for number in range(start, start + 50):
                    pipe.set(f"key:{number}", "x" * 5000)
                await pipe.execute()
        about = await client.info()
        assert about["used_memory"] <= 1024**2 + 6000
        assert about["evicted_keys"] > 0
        assert await client.get("key:399") is not None


async def test_a_crash_empties_it(minidist, world):
    async with cache_in(minidist, world) as (cache, connect):
        client, waiter = await connect(), await connect()
        await client.set("key", "value")
        waiting = asyncio.ensure_future(waiter.blpop("queue", 0))
        await blocked(client, 1)
        await cache.kill()
        with pytest.raises(RedisConnectionError):
            await waiting
        await cache.restart()
        assert await (await connect()).dbsize() == 0
