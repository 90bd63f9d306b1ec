"""One topology, three worlds: the same tests of cache, balancer and a user's program, wherever they run."""

import asyncio
from pathlib import Path

import httpx
import pytest
import redis.asyncio
import redis.exceptions

TOPOLOGY = Path(__file__).with_name("shop.toml")
PATIENCE_S = 10

pytestmark = pytest.mark.parametrize(
    "world", ["processes", "inline", pytest.param("simulated", marks=pytest.mark.simulated(seeds=5))]
)


def up(minidist, world):
    return minidist.up(TOPOLOGY, inline=True) if world == "inline" else minidist.up(TOPOLOGY)


def http(node):
    return httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=5)


def resp(node):
    return redis.asyncio.Redis.from_url(node.url, socket_timeout=2, socket_connect_timeout=2, retry=None)


async def until(condition):
    """Wait for a condition that a coroutine function tells."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_products_come_from_the_database_then_from_the_cache(minidist, world):
    async with up(minidist, world) as cluster, http(cluster["edge"]) as client:
        first, second = [await client.get("/product/7") for _ in range(2)]
        assert first.json() == second.json() == {"product": "7", "price": 12}
        assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")


async def test_a_dead_web_server_is_left_out_and_comes_back(minidist, world):
    async with up(minidist, world) as cluster, http(cluster["edge"]) as client:
        await cluster["web-2"].kill()

        async def answered(times=6):
            return all([(await client.get("/product/1")).status_code == 200 for _ in range(times)])

        await until(answered)
        await cluster["web-2"].restart()
        await until(answered)
        async with http(cluster["web-2"]) as direct:
            assert (await direct.get("/healthz")).text == "ok"


async def test_without_the_cache_the_shop_goes_on_without(minidist, world):
    async with up(minidist, world) as cluster, http(cluster["edge"]) as client:
        await cluster["cache"].kill()
        answer = await client.get("/product/3")
        assert answer.json() == {"product": "3", "price": 8}
        assert answer.headers["x-cache"] == "off"
        await cluster["cache"].restart()

        async def cached():
            return (await client.get("/product/3")).headers["x-cache"] == "hit"

        await until(cached)


async def test_the_cache_counts_lifetimes_on_a_clock_that_moves(minidist, world):
    async with up(minidist, world) as cluster, resp(cluster["cache"]) as client:
        await client.set("session", "1", ex=3600)
        cluster["cache"].clock.advance(minutes=59)
        assert 0 < await client.ttl("session") <= 60
        cluster["cache"].clock.advance(minutes=2)
        assert await client.get("session") is None


async def test_faults_speak_the_protocol(minidist, world):
    async with up(minidist, world) as cluster, resp(cluster["cache"]) as client:
        await client.set("key", "1")
        fault = cluster["cache"].faults.add("reply", match="GET", error="ERR busy", times=2)
        for _ in range(2):
            with pytest.raises(redis.exceptions.ResponseError, match="busy"):
                await client.get("key")
        assert await client.get("key") == b"1"
        del fault
        with cluster["cache"].faults.add("hang"), pytest.raises(redis.exceptions.TimeoutError):
            await client.get("key")
        assert await client.get("key") == b"1"


async def test_a_slow_upstream_is_still_a_right_one(minidist, world):
    async with up(minidist, world) as cluster, http(cluster["edge"]) as client:
        cluster["edge"].faults.add("delay", ms=30)
        began = asyncio.get_running_loop().time()
        assert (await client.get("/product/9")).json() == {"product": "9", "price": 14}
        assert asyncio.get_running_loop().time() - began >= 0.03
