"""An unmodified redis-py's pub/sub, monitor and slow log against a daemon: sync and asyncio, both protocols."""

import asyncio
from collections.abc import Iterator

import pytest
import redis
import redis.asyncio

PATIENCE_S = 10.0


@pytest.fixture(params=[2, 3])
def protocol(request) -> int:
    return request.param


@pytest.fixture
def r(port, protocol) -> Iterator[redis.Redis]:
    with redis.Redis(port=port, decode_responses=True, protocol=protocol) as client:
        client.flushall()
        yield client


def next_message(pubsub) -> dict:
    message = pubsub.get_message(timeout=PATIENCE_S)
    assert message is not None
    return message


def parts(message: dict) -> tuple:
    return message["type"], message["pattern"], message["channel"], message["data"]


class TestSync:
    def test_channels_and_patterns(self, r):
        with r.pubsub() as pubsub:
            pubsub.subscribe("news", "other")
            pubsub.psubscribe("n*")
            assert [parts(next_message(pubsub)) for _ in range(3)] == [
                ("subscribe", None, "news", 1),
                ("subscribe", None, "other", 2),
                ("psubscribe", None, "n*", 3),
            ]
            assert r.publish("news", "hello") == 2
            assert parts(next_message(pubsub)) == ("message", None, "news", "hello")
            assert parts(next_message(pubsub)) == ("pmessage", "n*", "news", "hello")
            assert sorted(r.pubsub_channels()) == ["news", "other"]
            assert r.pubsub_numsub("news", "none") == [("news", 1), ("none", 0)]
            assert r.pubsub_numpat() == 1
            pubsub.unsubscribe()
            pubsub.punsubscribe()
            last = [next_message(pubsub) for _ in range(3)]
            assert last[-1]["data"] == 0
            assert not pubsub.subscribed

    def test_ping(self, port, protocol):
        # Not decoded: redis-py takes RESP3's answer apart only where it is bytes.
        with redis.Redis(port=port, protocol=protocol) as r, r.pubsub() as pubsub:
            pubsub.subscribe("c")
            next_message(pubsub)
            pubsub.ping("hi")
            assert parts(next_message(pubsub)) == ("pong", None, None, b"hi")

    def test_shard_channels(self, r):
        with r.pubsub() as pubsub:
            pubsub.ssubscribe("{s}")
            assert parts(next_message(pubsub)) == ("ssubscribe", None, "{s}", 1)
            assert r.spublish("{s}", "m") == 1
            assert parts(next_message(pubsub)) == ("smessage", None, "{s}", "m")
            assert r.pubsub_shardchannels() == ["{s}"]
            assert r.pubsub_shardnumsub("{s}") == [("{s}", 1)]

    def test_handlers_in_a_thread(self, r):
        received = []
        pubsub = r.pubsub()
        pubsub.subscribe(c=received.append)
        thread = pubsub.run_in_thread(sleep_time=0.01)
        while r.publish("c", "m") == 0 or not received:
            pass
        thread.stop()
        thread.join(PATIENCE_S)
        assert received[0]["data"] == "m"

    def test_keyspace_notifications(self, r):
        r.config_set("notify-keyspace-events", "KEA")
        with r.pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.psubscribe("__key*@0__:*")
            assert pubsub.get_message(timeout=PATIENCE_S) is None
            r.set("k", "v", ex=100)
            assert [parts(next_message(pubsub))[2:] for _ in range(4)] == [
                ("__keyspace@0__:k", "set"),
                ("__keyevent@0__:set", "k"),
                ("__keyspace@0__:k", "expire"),
                ("__keyevent@0__:expire", "k"),
            ]
        r.config_set("notify-keyspace-events", "")

    def test_monitor(self, r):
        with r.monitor() as monitor:
            r.set("k", 'a "quoted" word\n')
            while (command := monitor.next_command())["command"].split()[0] != "SET":
                pass
            assert command["db"] == 0
            assert command["client_address"] == "127.0.0.1"
            assert command["command"] == 'SET k a "quoted" word\\n'

    def test_slow_log(self, r):
        r.config_set("slowlog-log-slower-than", 0)
        r.slowlog_reset()
        r.get("k")
        commands = [entry["command"] for entry in r.slowlog_get()]
        assert b"GET k" in commands or "GET k" in commands
        assert r.slowlog_len() >= 2
        r.config_set("slowlog-log-slower-than", 10_000)
        assert r.slowlog_reset()

    def test_latency(self, r):
        assert r.latency_latest() == []
        assert r.latency_history("command") == []
        assert r.latency_reset() == 0


class TestAsyncio:
    async def test_channels_and_patterns(self, port, protocol):
        async with redis.asyncio.Redis(port=port, decode_responses=True, protocol=protocol) as r, r.pubsub() as pubsub:
            await pubsub.subscribe("a")
            await pubsub.psubscribe("a*")
            received = []
            async with asyncio.timeout(PATIENCE_S):
                async for message in pubsub.listen():
                    received.append(parts(message))
                    if len(received) == 2:
                        assert await r.publish("a", "m") == 2
                    if len(received) == 4:
                        break
            assert received == [
                ("subscribe", None, "a", 1),
                ("psubscribe", None, "a*", 2),
                ("message", None, "a", "m"),
                ("pmessage", "a*", "a", "m"),
            ]

    async def test_monitor(self, port, protocol):
        async with redis.asyncio.Redis(port=port, protocol=protocol) as r, r.monitor() as monitor:
            await r.ping()
            async with asyncio.timeout(PATIENCE_S):
                while (await monitor.next_command())["command"] != "PING":
                    pass
