"""`@pytest.mark.simulated`: nodes, faults and clocks in virtual time; what a failure shows and leaves behind."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import redis.asyncio
import redis.exceptions

from minidist.cluster import demo
from minidist.testing.errors import NotSupported

DEMO = Path(demo.__file__).with_name("minidist.toml")


def client_of(node, **options):
    """redis-py without its own retries."""
    return redis.asyncio.Redis.from_url(node.url, socket_timeout=1, socket_connect_timeout=1, retry=None, **options)


@pytest.mark.simulated(seeds=3)
async def test_time_is_virtual_and_ttls_expire(minidist):
    async with minidist.cache(max_memory="16mb") as cache, client_of(cache) as client:
        await client.set("session", "1", ex=3600)
        began = time.monotonic()
        await asyncio.sleep(1800)
        assert time.monotonic() - began == 1800
        assert await client.ttl("session") == 1800
        cache.clock.advance(hours=1)
        assert await client.get("session") is None


@pytest.mark.simulated(seeds=5)
async def test_redis_py_sees_a_partition_times_out_and_connects_again(minidist):
    cache = await minidist.cache()
    async with client_of(cache) as client:
        await client.set("key", "1")
        with cache.faults.partition() as partition:
            with pytest.raises(redis.exceptions.TimeoutError):
                await client.get("key")
            began = minidist.now_s
            with pytest.raises(redis.exceptions.TimeoutError):
                await client.get("key")
            assert 0.9 < minidist.now_s - began < 1.5
        assert partition.fired > 0
        assert await client.get("key") == b"1"


@pytest.mark.simulated(seeds=2)
async def test_a_killed_cache_refuses_and_a_restarted_one_is_empty(minidist):
    cache = await minidist.cache()
    async with client_of(cache) as client:
        await client.set("key", "1")
        cache.kill()
        assert cache.state == "killed"
        with pytest.raises(redis.exceptions.ConnectionError):
            await client.get("key")
        await cache.restart()
        assert await client.get("key") is None


@pytest.mark.simulated(seeds=2)
async def test_pause_and_resume(minidist):
    cache = await minidist.cache()
    async with client_of(cache) as client:
        await client.set("key", "1")
        cache.pause()
        with pytest.raises(redis.exceptions.TimeoutError):
            await client.get("key")
        cache.resume()
        assert await client.get("key") == b"1"


@pytest.mark.simulated(seeds=2)
async def test_a_topology_with_httpx(minidist):
    cluster = await minidist.up(DEMO)
    async with httpx.AsyncClient(base_url=cluster["edge"].url, trust_env=False) as client:
        assert (await client.get("/product/7")).json() == {"product": "7", "price": 12}
        cluster["web-2"].kill()
        cluster["web"][2].kill()
        for number in range(20):
            assert (await client.get(f"/product/{number}")).status_code == 200
    assert len(cluster["web"]) == 3


@pytest.mark.simulated(seeds=1)
async def test_what_a_simulated_node_has_not_got_names_the_carrier(minidist):
    starting = minidist.cache()
    with pytest.raises(NotSupported, match="await"):
        _ = starting.url
    cache = await starting
    with pytest.raises(NotSupported, match="pid: not on a simulated node"):
        _ = cache.pid
    with pytest.raises(NotSupported, match="log_path: not on a simulated node"):
        _ = cache.log_path
    with pytest.raises(NotSupported, match="entry"):
        minidist.program(["python", "shop.py"])


RUNS = []


@pytest.mark.simulated(seeds=4)
async def test_each_seed_is_a_world_of_its_own(minidist):
    RUNS.append((minidist.seed, minidist.random.random()))
    await asyncio.sleep(1)


def test_the_seeds_differ_and_are_always_the_same_ones():
    assert [seed for seed, _ in RUNS] == [1, 2, 3, 4]
    assert len({drawn for _, drawn in RUNS}) == 4


# --- a user's own test run --------------------------------------------------------------------------------------------

SUITE = """
import asyncio
import pytest

@pytest.mark.simulated(seeds=20)
async def test_unlucky(minidist):
    await minidist.cache()
    await asyncio.sleep(1)
    assert minidist.seed != 3, "three is unlucky"

@pytest.mark.simulated(seeds=2)
def test_sync(minidist):
    pass

@pytest.mark.simulated(seed=2)
async def test_unknown(minidist):
    pass

@pytest.mark.simulated(seeds=1)
async def test_unhandled(minidist):
    async def fail():
        raise ValueError("nobody looks at me")
    asyncio.get_running_loop().call_later(1, lambda: 1 / 0)
    await asyncio.sleep(2)
"""


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "test_user.py").write_text(SUITE)

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *arguments]
        command += ["-p", "no:asyncio"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_failure_says_its_seed_and_leaves_a_bundle(suite, tmp_path):
    code, output = suite("-k", "unlucky")
    assert code == 1
    assert "three is unlucky" in output
    assert "simulated: seed 3 failed trace " in output
    assert "replay: pytest test_user.py::test_unlucky --minidist-seed=3" in output
    bundle = tmp_path / ".minidist" / "failures" / "test_user.py-test_unlucky"
    assert "--minidist-seed=3" in (bundle / "replay").read_text()
    assert (bundle / "report.html").read_text().startswith("<!doctype html>")
    assert json.loads((bundle / "faults.json").read_text()) == []
    assert (bundle / "scenario.py").read_text() == SUITE
    assert suite("-k", "unlucky", "--minidist-seed=4")[0] == 0
    assert suite("-k", "unlucky", "--minidist-seed=3")[0] == 1


def test_wrong_marks_and_unhandled_errors_are_said(suite):
    code, output = suite("-k", "not unlucky")
    assert code == 1
    assert "allowed: @pytest.mark.simulated on an async test" in output
    assert "simulated: given seed, allowed: seeds" in output
    assert "ZeroDivisionError" in output
    assert "3 failed" in output
