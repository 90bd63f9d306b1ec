"""Unmodified clients inside the simulation: redis-py and httpx with our nodes, under delay, partitions and crashes."""

import asyncio
import random
import time

import httpx
import pytest
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from minidist.components import node_type
from minidist.runtime.config import from_table
from minidist.sim.host import Crash
from minidist.sim.loop import Policy
from minidist.sim.network import Rule
from minidist.sim.world import World


def start_node(host, component, **options):
    """The component's own node, as its daemon would start it."""

    async def serve():
        kind = node_type(component)
        table = {"admin": f"{host.ip}:9000", "name": host.name, "seed": 1, **options}
        await kind(from_table(kind.config_type, table), host.ports()).start()
        await asyncio.get_running_loop().create_future()

    return host.start(serve())


def start_cache(host):
    return start_node(host, "cache", listen=f"{host.ip}:6379")


async def web(host, requests):
    """A small HTTP/1.1 program on asyncio streams."""

    async def answer(reader, writer):
        try:
            while line := await reader.readline():
                length = 0
                while (header := await reader.readline()).strip():
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                body = await reader.readexactly(length)
                requests.append(line.split()[1].decode())
                text = host.name.encode() + b" " + line.split()[1] + b" " + body
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()

    server = await asyncio.start_server(answer, host.ip, 8000)
    await server.serve_forever()


def cut(world, *sides):
    rule = Rule("partition", *(frozenset([side]) for side in sides))
    world.network.add_rule(rule)
    return rule


async def settled():
    """Long enough for a node to be up."""
    await asyncio.sleep(0.5)


# --- redis-py ---------------------------------------------------------------------------------------------------------


def test_redis_py_against_the_cache(world):
    cache, client = world.host("cache"), world.host("client")
    start_cache(cache)

    async def use():
        await settled()
        async with redis.Redis(host="cache", protocol=3, decode_responses=True) as server:
            assert await server.set("key", "value", ex=10)
            assert await server.get("key") == "value"
            async with server.pipeline(transaction=True) as pipe:
                for number in range(100):
                    pipe.incrby("sum", number)
                assert (await pipe.execute())[-1] == 4950
            assert await server.ttl("key") == 10
            await asyncio.sleep(10.001)
            assert await server.get("key") is None
            got = await asyncio.gather(*(server.incr("shared") for _ in range(50)))
            assert sorted(got) == list(range(1, 51))
            return (await server.info("server"))["process_id"]

    assert world.run(client.start(use())) == 1001
    assert not world.errors


def test_redis_py_sees_a_partition_times_out_and_reconnects(world):
    cache, client = world.host("cache"), world.host("client")
    start_cache(cache)
    seen = {}

    async def use():
        await settled()
        once = Retry(NoBackoff(), 0)
        server = redis.Redis(host="cache", socket_timeout=2, socket_connect_timeout=1, retry=once)
        await server.set("key", 1)
        rule = cut(world, "cache", "client")
        for attempt in ("answer", "connect"):
            started_s = time.monotonic()
            with pytest.raises(RedisTimeoutError):
                await server.incr("key")
            seen[attempt] = time.monotonic() - started_s
        world.network.remove_rule(rule)
        await asyncio.sleep(1)
        seen["after"] = await server.incr("key")
        await server.aclose()

    started_s = time.monotonic()
    world.run(client.start(use()))
    assert time.monotonic() - started_s < 10
    assert seen["answer"] == pytest.approx(2, abs=0.1)
    assert seen["connect"] == pytest.approx(1, abs=0.1)
    assert seen["after"] == 3  # the one whose answer was cut off had taken effect
    assert not world.errors


def test_redis_py_and_a_cache_that_is_killed_and_comes_back(world):
    cache, client = world.host("cache"), world.host("client")
    start_cache(cache)

    async def use():
        await settled()
        server = redis.Redis(host="cache", socket_timeout=1, retry=Retry(NoBackoff(), 0))
        await server.set("key", 1)
        cache.crash()
        with pytest.raises(RedisConnectionError):
            await server.get("key")
        cache.revive()
        start_cache(cache)
        await settled()
        assert await server.get("key") is None
        await server.set("key", 2)
        cache.crash(Crash.POWER)
        with pytest.raises(RedisTimeoutError):
            await server.get("key")
        cache.revive()
        start_cache(cache)
        await settled()
        assert await server.get("key") is None
        await server.aclose()

    world.run(client.start(use()))
    assert not world.errors


def test_publish_and_subscribe_and_a_blocked_reader_over_a_slow_link(world):
    client, other = world.host("client"), world.host("other")
    cache = world.host("cache")
    start_cache(cache)
    world.network.add_rule(Rule("delay", None, None, {"ms": 40.0, "jitter_ms": 30.0}))

    async def use(name, count):
        await settled()
        async with redis.Redis(host="cache") as server:
            for number in range(count):
                await server.set(f"{name}:{number}", number)
            return await server.mget([f"{name}:{number}" for number in range(count)])

    async def main():
        return await asyncio.gather(client.start(use("a", 20)), other.start(use("b", 20)))

    expected = [b"%d" % number for number in range(20)]
    assert world.run(main()) == [expected, expected]
    assert world.now_s > 20 * 0.04


# --- httpx ------------------------------------------------------------------------------------------------------------


def test_httpx_keeps_and_replaces_its_connections(world):
    server, client = world.host("web"), world.host("client")
    requests = []
    server.start(web(server, requests))

    async def use():
        await settled()
        async with httpx.AsyncClient(base_url="http://web:8000", timeout=2, trust_env=False) as http:
            for number in range(10):
                response = await http.post(f"/{number}", content=b"x" * number * 1000)
                assert response.text == f"web /{number} " + "x" * number * 1000
            connections = len(world.network.transports)
            got = await asyncio.gather(*(http.get(f"/many/{number}") for number in range(20)))
            assert [response.text for response in got] == [f"web /many/{number} " for number in range(20)]
            server.crash()
            server.revive()
            server.start(web(server, requests))
            await settled()  # idle connections have been closed: select.poll tells httpcore
            assert (await http.get("/after")).text == "web /after "
            return connections

    assert world.run(client.start(use())) == 2
    assert len(requests) == 31
    assert not world.errors


def test_httpx_times_out_behind_a_partition(world):
    server, client = world.host("web"), world.host("client")
    server.start(web(server, []))
    seen = []

    async def use():
        await settled()
        async with httpx.AsyncClient(base_url="http://web:8000", timeout=3, trust_env=False) as http:
            await http.get("/")
            rule = cut(world, "web", "client")
            for kind in (httpx.ReadTimeout, httpx.ConnectTimeout):
                started_s = time.monotonic()
                with pytest.raises(kind):
                    await http.get("/")
                seen.append(time.monotonic() - started_s)
            world.network.remove_rule(rule)
            await asyncio.sleep(1)
            assert (await http.get("/again")).status_code == 200
            server.crash()
            await asyncio.sleep(0.1)
            with pytest.raises(httpx.ConnectError):
                await http.get("/")

    world.run(client.start(use()))
    assert seen == pytest.approx([3, 3], abs=0.1)
    assert not world.errors


def test_httpx_through_the_balancer_while_web_programs_come_and_go(world):
    balancer, client = world.host("balancer"), world.host("client")
    webs = [world.host(f"web-{number}") for number in range(3)]
    for each in webs:
        each.start(web(each, []))
    upstreams = ",".join(f"{each.ip}:8000" for each in webs)
    start_node(balancer, "balancer", listen=f"{balancer.ip}:80", upstream=upstreams)
    answered, refused = [], []

    async def use():
        await settled()
        async with httpx.AsyncClient(base_url="http://balancer", timeout=5, trust_env=False) as http:
            while time.monotonic() < 30:
                try:
                    response = await http.get("/page")
                    (answered if response.status_code == 200 else refused).append(response.text.split()[0])
                except httpx.TransportError as error:
                    refused.append(type(error).__name__)
                await asyncio.sleep(0.05)

    async def main():
        using = client.start(use())
        await asyncio.sleep(5)
        webs[0].crash()
        await asyncio.sleep(5)
        webs[0].revive()
        webs[0].start(web(webs[0], []))
        rule = cut(world, "web-1", "balancer")
        await asyncio.sleep(5)
        world.network.remove_rule(rule)
        await using

    world.run(main(), time_limit_s=120)
    assert {each: answered.count(each) > 50 for each in set(answered)} == dict.fromkeys([w.name for w in webs], True)
    assert len(refused) <= 5, refused
    assert not world.errors


# --- everything at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", list(Policy))
def test_counters_under_random_faults_lie_between_what_was_acknowledged_and_what_was_sent(policy, seed):
    rng = random.Random(seed)
    with World(rng.randrange(1 << 32), policy=policy) as world:
        cache = world.host("cache")
        start_cache(cache)
        counts = {}

        async def use(host):
            acknowledged = unknown = 0
            server = redis.Redis(
                host="cache", socket_timeout=0.5, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 0)
            )
            while world.now_s < 60:
                try:
                    await server.incr(host.name)
                    acknowledged += 1
                except (RedisError, OSError):
                    unknown += 1
                await asyncio.sleep(random.random() / 20)
            await asyncio.sleep(5)
            final = int(await server.get(host.name))
            counts[host.name] = acknowledged, final, acknowledged + unknown
            await server.aclose()

        async def main():
            using = [host.start(use(host)) for host in [world.host(f"client-{number}") for number in range(3)]]
            while world.now_s < 55:
                await asyncio.sleep(rng.random() * 2)
                if rng.random() < 0.3:
                    cache.pause()
                    await asyncio.sleep(rng.random() * 2)
                    cache.resume()
                else:
                    rule = cut(world, *rng.sample(["cache", f"client-{rng.randrange(3)}"], 2))
                    await asyncio.sleep(rng.random() * 2)
                    world.network.remove_rule(rule)
            await asyncio.gather(*using)

        world.run(main(), time_limit_s=200)
        assert not world.errors
    for least, final, most in counts.values():
        assert 200 < least <= final <= most
    assert sum(most - least for least, _, most in counts.values()) > 10
