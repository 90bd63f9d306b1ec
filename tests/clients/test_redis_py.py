"""An unmodified redis-py 8, with its defaults, against a daemon: sync, both protocols, pipelines, locks of its own."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import redis


@pytest.fixture(params=["defaults", 2, 3])
def r(request, port) -> Iterator[redis.Redis]:
    options = {} if request.param == "defaults" else {"protocol": request.param}
    with redis.Redis(port=port, decode_responses=True, **options) as client:
        client.flushall()
        yield client


class TestCommands:
    def test_strings(self, r):
        assert r.set("k", "v")
        assert r.get("k") == "v"
        assert r.set("k", "w", get=True) == "v"
        assert r.set("k", "x", nx=True) is None
        assert r.set("k", "y", ex=10, xx=True)
        assert r.ttl("k") == 10
        assert r.getex("k", persist=True) == "y"
        assert r.ttl("k") == -1
        assert r.append("k", "z") == 2
        assert (r.strlen("k"), r.getrange("k", 0, 0), r.setrange("k", 1, "!")) == (2, "y", 2)
        assert r.getdel("k") == "y!"
        assert (r.incr("n"), r.incrby("n", 9), r.decr("n"), r.incrbyfloat("f", 0.5)) == (1, 10, 9, 0.5)
        assert r.mset({"a": 1, "b": 2})
        assert r.mget("a", "b", "c") == ["1", "2", None]
        assert r.msetnx({"c": 3, "a": 4}) is False
        assert r.execute_command("SETNX", "c", 1) == 1
        assert r.execute_command("SETEX", "t", 5, "v") in (True, "OK")
        assert r.execute_command("PSETEX", "t", 5000, "v") in (True, "OK")
        assert r.execute_command("GETSET", "t", "w") == "v"
        r.mset({"one": "ohmytext", "two": "mynewtext"})
        assert r.lcs("one", "two") == "mytext"
        assert r.lcs("one", "two", len=True) == 6

    def test_keys(self, r):
        r.mset({f"key:{number}": number for number in range(500)})
        assert sorted(r.scan_iter("key:1*", count=50)) == sorted(f"key:{n}" for n in range(500) if str(n)[0] == "1")
        assert len(r.keys()) == r.dbsize() == 500
        assert r.exists("key:1", "key:2", "nope") == 2
        assert r.type("key:1") == "string"
        assert r.rename("key:1", "renamed")
        assert r.renamenx("renamed", "key:2") is False
        assert r.copy("key:2", "copied") is True
        assert r.touch("copied", "nope") == 1
        assert r.unlink("copied") == 1
        assert r.delete("key:2", "key:3") == 2
        assert r.randomkey().startswith(("key:", "renamed"))

    def test_lifetimes(self, r):
        r.set("k", "v")
        assert r.expire("k", 100)
        assert not r.expire("k", 50, gt=True)
        assert r.pexpire("k", 99_000, lt=True)
        assert 98_000 < r.pttl("k") <= 99_000
        assert r.expireat("k", 99_999_999_999)
        assert r.expiretime("k") == 99_999_999_999
        assert r.persist("k")
        assert r.pexpiretime("k") == -1

    def test_server(self, r):
        assert r.ping()
        assert r.echo("hi") == "hi"
        assert r.info()["redis_version"].startswith("7.2")
        assert r.info("keyspace") == {}
        assert r.config_get("maxmemory") == {"maxmemory": "1073741824"}
        assert r.config_set("timeout", 0)
        assert r.config_resetstat()
        assert r.command_count() > 60
        assert r.command()["get"]["arity"] == 2
        assert len(r.time()) == 2
        assert r.object("encoding", "nope") is None
        r.set("k", "v")
        assert r.object("idletime", "k") == 0
        assert r.memory_usage("k") > 0
        assert r.latency_latest() == []
        assert r.role()[0] in ("master", b"master")

    def test_clients(self, r):
        assert r.client_setname("me")
        assert r.client_getname() == "me"
        me = r.client_info()
        assert me["name"] == "me"
        assert me["lib-name"].startswith("redis-py")
        assert me["id"] == r.client_id()
        assert me["id"] in [int(each["id"]) for each in r.client_list()]
        assert r.client_no_evict("ON")
        assert r.client_no_touch("OFF")
        assert r.client_unpause()
        assert r.client_trackinginfo()

    def test_databases(self, r, port):
        with redis.Redis(port=port, db=3, decode_responses=True) as other:
            other.set("k", "three")
            assert r.get("k") is None
            assert r.swapdb(0, 3)
            assert r.get("k") == "three"
            assert other.flushdb()
        assert r.flushall(asynchronous=True)

    def test_errors_are_redis_own(self, r):
        r.set("k", "v")
        with pytest.raises(redis.ResponseError, match="value is not an integer"):
            r.incr("k")
        with pytest.raises(redis.ResponseError, match="unknown command 'NOSUCH'"):
            r.execute_command("NOSUCH")
        with pytest.raises(redis.ResponseError, match="cluster support disabled"):
            r.execute_command("CLUSTER", "SLOTS")

    def test_binary_values(self, port):
        with redis.Redis(port=port) as client:
            value = bytes(range(256)) * 1000
            client.set(b"\x00\r\n\xff", value)
            assert client.get(b"\x00\r\n\xff") == value


class TestPipelines:
    def test_multi_and_exec(self, r):
        with r.pipeline() as pipe:
            assert pipe.set("a", 1).incr("a").get("a").execute() == [True, 2, "2"]

    def test_without_a_transaction(self, r):
        with r.pipeline(transaction=False) as pipe:
            for number in range(10_000):
                pipe.set(f"key:{number}", number)
            assert pipe.execute() == [True] * 10_000
        assert r.dbsize() == 10_000

    def test_one_failing_command(self, r):
        r.set("text", "abc")
        with r.pipeline() as pipe:
            pipe.set("a", 1).incr("text").set("b", 2)
            with pytest.raises(redis.ResponseError, match=r"Command # 2 "):
                pipe.execute()
        assert r.get("b") == "2"

    def test_watch(self, r):
        r.set("n", 1)
        with r.pipeline() as pipe:
            pipe.watch("n")
            r.set("n", 5)
            pipe.multi()
            pipe.set("n", 6)
            with pytest.raises(redis.WatchError):
                pipe.execute()

    def test_transactions_do_not_lose_updates(self, r, port):
        def add_many() -> None:
            def add(pipe: redis.client.Pipeline) -> None:
                value = int(pipe.get("n") or 0)
                pipe.multi()
                pipe.set("n", value + 1)

            with redis.Redis(port=port) as client:
                for _ in range(50):
                    client.transaction(add, "n")

        threads = [threading.Thread(target=add_many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert r.get("n") == "200"


class TestAsyncio:
    """redis.asyncio, which has a client of its own."""

    @pytest.mark.parametrize("options", [{}, {"protocol": 2}, {"protocol": 3}], ids=["defaults", "resp2", "resp3"])
    async def test_commands_and_pipelines(self, port, options):
        import redis.asyncio

        async with redis.asyncio.Redis(port=port, decode_responses=True, **options) as client:
            await client.flushall()
            assert await client.set("k", "v", px=60_000)
            assert await client.get("k") == "v"
            async with client.pipeline() as pipe:
                assert await pipe.incr("n").incr("n").execute() == [1, 2]
            async with client.pipeline() as pipe:
                await pipe.watch("n")
                await client.set("n", 9)
                pipe.multi()
                pipe.set("n", 10)
                with pytest.raises(redis.WatchError):
                    await pipe.execute()
            assert [key async for key in client.scan_iter("k*")] == ["k"]
            assert "minidist_version" in await client.info()

    async def test_many_at_once(self, port):
        import asyncio

        import redis.asyncio

        async with redis.asyncio.Redis(port=port) as client:
            await client.delete("n")
            await asyncio.gather(*(client.incr("n") for _ in range(50)))
            assert await client.get("n") == b"50"


def test_passwords(tmp_path):
    (tmp_path / "auth").write_text("default:secret\nann:pw\n")
    command = [
        sys.executable,
        "-m",
        "minidist",
        "cache",
        "--listen",
        "127.0.0.1:0",
        "--auth-file",
        str(tmp_path / "auth"),
    ]
    with subprocess.Popen([*command, "--log-level", "error"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(json.loads(process.stdout.readline())["address"].rsplit(":", 1)[1])
            for options in ({"password": "secret"}, {"username": "ann", "password": "pw", "protocol": 2}):
                with redis.Redis(port=port, **options) as client:
                    assert client.ping()
            with (
                redis.Redis(port=port, password="wrong", retry=None) as client,
                pytest.raises(redis.AuthenticationError),
            ):
                client.ping()
            with redis.Redis(port=port, protocol=2, retry=None) as client, pytest.raises(redis.AuthenticationError):
                client.ping()
        finally:
            process.kill()
