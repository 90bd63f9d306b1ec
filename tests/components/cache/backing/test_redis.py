"""A cache before a server that speaks Redis' protocol: another cache of ours, and a real Redis where there is one."""

import asyncio
import shutil
import socket
import subprocess

import pytest
import redis.asyncio


async def pair(start, **options):
    """A cache before another one."""
    store = await start()
    place = await start(backing=f"redis://{store.node.address}/3", **options)
    client, direct = await place.client(), await store.client()
    await direct.ask("SELECT", 3)
    return place, client, direct


async def test_values_and_lifetimes_both_ways(start):
    place, client, direct = await pair(start, strategy="write-through", ttl_jitter=0)
    await direct.ask("SET", "a", "1", "EX", 100)
    assert await client.ask("GET", "a") == b"1"
    assert 99 <= await client.ask("TTL", "a") <= 100
    assert await client.ask("SET", "b", "2", "EX", 50) == b"OK"
    assert 49 <= await direct.ask("TTL", "b") <= 50
    assert await client.ask("PERSIST", "b") == 1
    assert await direct.ask("TTL", "b") == -1
    assert await client.ask("DEL", "a", "b") == 2
    assert await direct.ask("DBSIZE") == 0
    assert place.node.unexpected_count == 0


async def test_other_types_in_the_store_are_an_error(start):
    _, client, direct = await pair(start)
    await direct.ask("RPUSH", "l", 1)
    assert "WRONGTYPE" in str(await client.ask("GET", "l"))


async def test_passwords(start, tmp_path):
    users = tmp_path / "users"
    users.write_text("default:secret\nann:s3cr@t\n")
    store = await start(auth_file=str(users))
    for login, answer in (("", "NOAUTH"), (":wrong@", "WRONGPASS"), (":secret@", ""), ("ann:s3cr%40t@", "")):
        place = await start(backing=f"redis://{login}{store.node.address}/0")
        client = await place.client()
        reply = await client.ask("GET", "k")
        assert (answer in str(reply)) if answer else reply is None
        assert "s3cr" not in str(reply)


async def test_the_store_restarts(start, until):
    store = await start()
    address = store.node.address
    place = await start(backing=f"redis://{address}", strategy="write-behind", write_behind_lag="1ms")
    client = await place.client()
    await client.ask("SET", "k", 1)
    await until(lambda: not place.node.backing.strategy.unwritten)
    await store.node.stop()
    assert await client.ask("SET", "k", 2) == b"OK"
    await until(lambda: place.node.backing.strategy.behind.retries)
    again = await start(listen=str(address))
    await until(lambda: not place.node.backing.strategy.unwritten)
    direct = await again.client()
    assert await direct.ask("GET", "k") == b"2"
    names = [event["event"] for event in place.node.events.since()]
    assert names.count("backing-failed") == names.count("backing-recovered") == 1


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"$5\r\nab\r\n:0\r\n", "answered wrongly"),
        (b"$-1\r\n:-2\r\n+more\r\n", "more replies than commands"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "answered wrongly"),
        (b":1\r\n:1\r\n", "answered wrongly"),
        (b"-LOADING wait\r\n-LOADING wait\r\n", "LOADING wait"),
        (b"$9000000\r\n" + b"x" * 3_000_000, "too large"),
        (b"", "connection closed"),
    ],
)
async def test_a_lying_store(start, answer, text):
    writers = []

    async def lie(reader, writer):
        writers.append(writer)
        await reader.read(100)
        writer.write(answer)
        if not answer:
            writer.close()

    server = await asyncio.start_server(lie, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    place = await start(backing=f"redis://127.0.0.1:{port}", backing_timeout="200ms", max_bulk="1mb")
    client = await place.client()
    reply = str(await client.ask("GET", "k"))
    assert reply.startswith(f"ERR backing redis://127.0.0.1:{port}/0: ")
    assert text in reply
    assert place.node.unexpected_count == 0
    server.close()
    for writer in writers:
        writer.transport.abort()


async def test_faults_strike_the_way_to_the_store(start):
    place, client, direct = await pair(start, strategy="write-through", backing_timeout="200ms")
    store = place.node.config.backing.removeprefix("redis://").partition("/")[0]
    await direct.ask("SET", "k", 1)
    fault = place.node.faults.add({"kind": "partition", "peer": store})
    assert "took longer" in str(await client.ask("GET", "k"))
    place.node.faults.remove(fault)
    assert await client.ask("GET", "k") == b"1"
    place.node.faults.add({"kind": "hang", "peer": store})
    assert "UNKNOWN outcome" in str(await client.ask("SET", "k", 2))
    place.node.faults.clear()
    assert await client.ask("GET", "k") in (b"1", b"2")
    assert place.node.unexpected_count == 0


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server")
async def test_redis_py_with_a_real_redis_behind(start, until):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL
    )
    try:
        real = redis.asyncio.Redis(port=port, retry=redis.asyncio.retry.Retry(redis.backoff.ConstantBackoff(0.05), 100))
        await real.set("a", "1", ex=100)
        place = await start(backing=f"redis://127.0.0.1:{port}/0", strategy="write-through", ttl_jitter=0)
        cache = redis.asyncio.Redis(port=place.node.address.port)
        assert await cache.get("a") == b"1"
        assert 99 <= await cache.ttl("a") <= 100
        async with cache.pipeline() as pipe:
            pipe.set("b", "2", px=60_000).incr("n").append("s", "xyz").delete("a")
            assert await pipe.execute() == [True, 1, 3, 1]
        assert await real.mget("a", "b", "n", "s") == [None, b"2", b"1", b"xyz"]
        assert 59_000 <= await real.pttl("b") <= 60_000
        await asyncio.gather(*(cache.incr("n") for _ in range(50)))
        assert await real.get("n") == b"51"
        await cache.aclose()
        await real.aclose()
    finally:
        process.terminate()
        process.wait()
