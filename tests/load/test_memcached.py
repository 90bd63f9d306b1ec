"""The memcached driver, against the cache's own listener and against memcached where it is installed."""

import contextlib
import shutil
import socket
import subprocess
import time

import pytest

from minidist.engines.checking import Budget, check
from minidist.engines.checking.history import read
from minidist.load.command import main
from minidist.load.driver import driver_for
from minidist.load.plan import LoadError, Plan
from minidist.load.runner import run
from minidist.testing.inline import InlineNode


@contextlib.contextmanager
def memcached():
    """The port of a memcached of our own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(["memcached", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", "nobody"])
    try:
        deadline_s = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline_s
        yield port
    finally:
        server.kill()
        server.wait()


@pytest.fixture(params=["ours", "memcached"])
async def url(request):
    if request.param == "ours":
        async with InlineNode("cache", "cache-1", {"memcached": "127.0.0.1:0"}, 1) as node:
            yield f"memcached://{node.listeners['memcached']}"
    elif shutil.which("memcached"):
        with memcached() as port:
            yield f"memcached://127.0.0.1:{port}"
    else:
        pytest.skip("memcached is not installed")


def load(url, **changes):
    return run(Plan(url=url, **{"duration_ms": 200, "concurrency": 3} | changes))


async def test_the_default_is_a_mix_of_get_and_set(url):
    report = await load(url, options={"ratio": (1, 1), "keys": 5})
    assert report.workload == "get-set"
    assert report.total.errors == {}
    assert report.total.ok > 50
    assert 0 < report.total.hits + report.total.misses < report.total.ok
    assert report.total.hit_ratio > 0.5


async def test_reads_miss_what_was_not_written_and_find_what_was(url):
    assert (await load(url, workload="get")).total.hit_ratio == 0
    options = {"preload": True, "keys": 1000, "value_size": "1-3000", "pipeline": 16}
    report = await load(url, workload="get", options=options)
    assert report.total.errors == {}
    assert report.total.hit_ratio == 1
    assert report.total.bytes_in > 500 * report.total.ok


async def test_counters_are_there_before_they_are_counted(url):
    for _ in range(2):
        report = await load(url, workload="incr", options={"keys": 10})
        assert report.total.errors == {}
        assert report.total.ok > 50


async def test_values_that_are_too_large_are_errors(url):
    report = await load(url, workload="set", concurrency=1, options={"value_size": "2mb", "keys": 1})
    if report.total.errors:  # ours takes them unless --max-bulk says otherwise
        assert set(report.total.errors) == {"SERVER_ERROR"}
    assert report.total.offered == report.total.ok + report.total.failed


@pytest.mark.parametrize(("workload", "model"), [("get-set", "register"), ("incr", "counter")])
async def test_histories(url, tmp_path, workload, model):
    path = tmp_path / "h.jsonl"
    options = {"keys": 5, "ratio": (1, 1), "key_pattern": "zipf", "value_size": "20-200"}
    report = await load(url, workload=workload, history=str(path), options=options)
    operations = read(path.read_text().splitlines())
    assert len(operations) == report.total.ok > 50
    assert len({operation.f for operation in operations}) == 2
    assert check(operations, model, Budget()).judgement.value == "holds"


@pytest.mark.parametrize(
    ("f", "error", "outcome"),
    [
        ("add", "NOT_FOUND", "fail"), ("write", "CLIENT_ERROR bad data chunk", "fail"),
        ("write", "SERVER_ERROR out of memory storing object", "info"), ("read", "SERVER_ERROR busy", "fail"),
    ],
)  # fmt: skip
def test_what_an_error_says_of_the_effect(f, error, outcome):
    assert driver_for(Plan(url="memcached://h")).outcome(f, error).value == outcome


async def test_lifetimes_are_whole_seconds(url):
    report = await load(url, workload="set", options={"ttl": 60_000})
    assert report.total.errors == {}


async def test_who_is_not_memcached_is_found_out():
    async with InlineNode("cache", "cache-1", {}, 1) as node:
        with pytest.raises(LoadError, match="preload"):
            await load(f"memcached://{node.url.partition('://')[2].partition('/')[0]}", options={"preload": True})


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["memcached://h/0"], "URL: given 'memcached://h/0', allowed: memcached://HOST:PORT, without a path"),
        (["memcached://u:p@h"], "URL: given 'memcached://u:***@h', allowed: memcached://HOST:PORT"),
        (["memcached://h", "--ttl", "1500ms"], "--ttl: given 1500, allowed: whole seconds, at most 30d"),
        (["memcached://h", "--ttl", "31d"], "--ttl: given 2678400000, allowed: whole seconds, at most 30d"),
        (["memcached://h", "--workload", "mset"], "--workload: given 'mset', allowed: one of get-set, get, set, incr"),
        (["memcached://h", "--tls-ca", "f"], "--tls-ca: given 'f', allowed: not with a memcached URL"),
        (["memcached://h", "--history", "f", "--pipeline", "2"], "--pipeline: given 2, allowed: 1 with --history"),
    ],
)
def test_wrong_usage_is_exit_2(capsys, arguments, complaint):
    assert main(arguments) == 2
    assert complaint in capsys.readouterr().err
