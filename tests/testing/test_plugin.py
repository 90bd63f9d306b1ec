"""The plugin's fixtures and handles, as a user's test would use them: with redis-py and real processes."""

import os

import pytest
import redis
import redis.asyncio

from minidist.testing.errors import MinidistError, NotSupported, UsageError


def client(cache):
    return redis.Redis.from_url(cache.url, retry=None)


def test_checkout(minidist):
    cache = minidist.cache(max_memory="16mb")
    with client(cache) as r:
        r.set("cart:1", "3 apples", ex=3600)
        cache.clock.advance(hours=1)
        assert r.get("cart:1") is None

        cache.faults.reply(match="GET", error="ERR busy", times=1)
        with pytest.raises(redis.ResponseError, match="busy"):
            r.get("cart:1")
        assert r.get("cart:1") is None


def test_kill_and_restart(minidist):
    cache = minidist.cache()
    pid, address = cache.pid, cache.address
    cache.kill()
    assert cache.state == "killed"
    with client(cache) as r, pytest.raises(redis.ConnectionError, match="refused"):
        r.ping()
    cache.restart()
    assert cache.address == address
    assert cache.pid != pid
    with client(cache) as r:
        assert r.ping()


async def test_asyncio_clients(minidist):
    async with minidist.cache() as cache:
        r = redis.asyncio.Redis.from_url(cache.url)
        await r.set("a", 1)
        assert await r.get("a") == b"1"
        await r.aclose()


async def test_inline(minidist):
    async with minidist.cache(inline=True) as cache:
        assert cache.pid == os.getpid()
        r = redis.asyncio.Redis.from_url(cache.url, retry=None)
        await r.set("a", 1, ex=60)
        cache.clock.advance(minutes=2)
        assert await r.get("a") is None
        with cache.faults.reply(match="GET", error="ERR busy"), pytest.raises(redis.ResponseError):
            await r.get("a")
        with pytest.raises(NotSupported, match=r"pause.*inline"):
            cache.pause()
        await cache.restart()
        await r.aclose()


def test_a_wrong_option_is_named(minidist):
    with pytest.raises(UsageError, match=r"max_memory: given 'lots', allowed: a size"):
        minidist.cache(max_memory="lots")
    with pytest.raises(UsageError, match="colour"):
        minidist.cache(colour="red")


def test_one_of_a_session_is_new_for_each_test_1(minidist_cache):
    with client(minidist_cache) as r:
        assert r.dbsize() == 0
        r.set("left", "over")
        minidist_cache.kill()


def test_one_of_a_session_is_new_for_each_test_2(minidist_cache):
    with client(minidist_cache) as r:
        assert r.dbsize() == 0


def test_two_of_a_kind(minidist):
    first, second = minidist.cache(), minidist.cache()
    assert (first.name, second.name) == ("cache", "cache2")
    with client(first) as a, client(second) as b:
        a.set("x", 1)
        assert b.get("x") is None


def test_a_group_of_several(minidist):
    caches = minidist.cache(replicas=3)
    assert len(caches) == 3
    assert [node.name for node in caches] == ["cache-1", "cache-2", "cache-3"]
    assert caches.bootstrap == ",".join(node.address for node in caches)
    caches[1].kill()
    assert [node.state for node in caches] == ["running", "killed", "running"]
    assert caches.env["CACHE_2_ADDRESS"] == caches[1].address


WEB = """
import os, http.server, socketserver
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"hello from {os.getpid()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer): daemon_threads = True
Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def test_a_program_of_ones_own_behind_the_balancer(minidist):
    import httpx

    web = minidist.program(["python", "-c", WEB], name="web", replicas=2, ready="http:/")
    edge = minidist.balancer(upstream=web)
    with httpx.Client(base_url=edge.url) as http:
        answers = {http.get("/").text for _ in range(10)}
    assert answers == {f"hello from {node.pid}" for node in web}


def test_a_topology(minidist, tmp_path):
    file = tmp_path / "minidist.toml"
    file.write_text('[groups.a]\ncomponent = "cache"\n[groups.b]\ncomponent = "cache"\nreplicas = 2\n')
    with minidist.up(file) as cluster:
        with client(cluster["a"]) as r:
            r.set("x", 1)
        assert len(cluster["b"]) == 2
        assert cluster["b-2"].state == "running"
        assert "A_URL" in cluster.env
    with pytest.raises(MinidistError):
        cluster["a"].kill()


def test_without_pytest():
    import minidist.testing

    with minidist.testing.cache() as cache, client(cache) as r:
        assert r.ping()
