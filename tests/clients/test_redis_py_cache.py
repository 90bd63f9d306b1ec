"""redis-py's own client-side cache, unmodified, with a daemon that tells it what has changed."""

import time
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.cache import CacheConfig


@pytest.fixture(scope="module")
def daemon_options() -> list[str]:
    """redis-py takes it for a server that it may cache."""
    return ["--redis-version", "7.4.0"]


@pytest.fixture
def other(port) -> Iterator[redis.Redis]:
    with redis.Redis(port=port, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture(params=["pool", "one connection"])
def cached(port, other, request) -> Iterator[redis.Redis]:
    with redis.Redis(
        port=port,
        protocol=3,
        decode_responses=True,
        cache_config=CacheConfig(),
        single_connection_client=request.param == "one connection",
    ) as client:
        yield client


def hears(read: Callable[[], object], expected: object) -> bool:
    """A client reads this, at the latest when the message has come that tells it of a change."""
    deadline_s = time.monotonic() + 10
    while read() != expected and time.monotonic() < deadline_s:
        pass
    return read() == expected


def asked(other: redis.Redis, command: str) -> int:
    """How often a command has reached the server."""
    return int(other.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_a_second_read_is_not_asked_for(cached, other):
    other.set("k", "v")
    before = asked(other, "get")
    assert [cached.get("k") for _ in range(5)] == ["v"] * 5
    assert asked(other, "get") == before + 1
    assert cached.get_cache().size == 1


@pytest.mark.parametrize("change", [("SET", "k", "new"), ("APPEND", "k", "new"), ("DEL", "k"), ("EXPIRE", "k", "100")])
def test_changes_are_heard_of(cached, other, change):
    other.set("k", "v")
    assert cached.get("k") == "v"
    other.execute_command(*change)
    assert hears(lambda: cached.ttl("k"), other.ttl("k"))
    assert hears(lambda: cached.get("k"), other.get("k"))


def test_own_changes(cached, other):
    cached.set("k", "v")
    for number in range(20):
        cached.set("k", number)
        assert cached.get("k") == str(number)
        assert cached.get("k") == str(number)


def test_flushed(cached, other):
    other.mset({"a": 1, "b": 2})
    assert cached.mget("a", "b") == ["1", "2"]
    other.flushall()
    assert hears(lambda: cached.mget("a", "b"), [None, None])


def test_collections(cached, other):
    other.hset("h", mapping={"f": "v"})
    other.zadd("z", {"a": 1})
    for _ in range(2):
        assert cached.hgetall("h") == {"f": "v"}
        assert cached.zrange("z", 0, -1) == ["a"]
    other.hset("h", "g", "w")
    other.zadd("z", {"b": 2})
    assert hears(lambda: cached.hgetall("h"), {"f": "v", "g": "w"})
    assert hears(lambda: cached.zrange("z", 0, -1), ["a", "b"])


def test_transactions_and_pipelines(cached, other):
    other.set("k", "v")
    assert cached.get("k") == "v"
    with cached.pipeline() as pipe:
        pipe.get("k").set("k", "w").get("k")
        assert pipe.execute() == ["v", True, "w"]
    assert hears(lambda: cached.get("k"), "w")
    other.set("k", "x")
    assert hears(lambda: cached.get("k"), "x")


def test_the_server_counts_who_tracks(cached, other):
    cached.get("k")
    assert other.info("clients")["tracking_clients"] >= 1
    assert other.info("stats")["tracking_total_keys"] >= 1
    assert other.config_get("tracking-table-max-keys") == {"tracking-table-max-keys": "1000000"}
    other.config_set("tracking-table-max-keys", 1)
    cached.get("l")
    assert other.info("stats")["tracking_total_keys"] == 1
    other.config_set("tracking-table-max-keys", 1000000)
