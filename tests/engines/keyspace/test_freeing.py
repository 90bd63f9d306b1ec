"""Large values are freed in steps, whatever made them go; a value that only moved stays whole."""

import pytest

from minidist.engines.keyspace.eviction import Policy

ELEMENTS = 60_000
FILLERS = {
    "list": ("RPUSH", lambda at: [f"element:{at}"]),
    "hash": ("HSET", lambda at: [f"field:{at}", f"value:{at}"]),
    "set": ("SADD", lambda at: [f"member:{at}"]),
    "zset": ("ZADD", lambda at: [str(at), f"member:{at}"]),
}


def fill(client, key: str, kind: str) -> None:
    name, words = FILLERS[kind]
    for start in range(0, ELEMENTS, 1000):
        client.send(name, key, *[word for at in range(start, start + 1000) for word in words(at)])
    client.world.service.outbox.clear()


def fill_stream(client, key: str) -> None:
    for at in range(ELEMENTS // 4):
        client.send("XADD", key, "*", "field", f"value:{at}")


@pytest.mark.parametrize("kind", [*FILLERS, "stream"])
@pytest.mark.parametrize("how", ["DEL", "UNLINK", "SET", "expiry", "eviction"])
def test_in_steps(world, client, kind, how):
    fill_stream(client, "big") if kind == "stream" else fill(client, "big", kind)
    keyspace = world.keyspace
    if how == "expiry":
        client.send("PEXPIRE", "big", "1")
        world.now_ms += 2
        client.send("EXISTS", "big")
    elif how == "eviction":
        world.service.evict_by(Policy.ALLKEYS_RANDOM)
        keyspace.limit(10_000)
        client.send("SET", "small", "v")
    else:
        client.send(how, "big", *(["v"] if how == "SET" else []))
    pieces = sum(map(len, keyspace._rubble))
    assert pieces > 20
    assert keyspace.alarm_ms == 0, "the rest is to be done as soon as possible"
    steps = 0
    while keyspace._rubble:
        before = sum(map(len, keyspace._rubble))
        world.service.wake(world.now_ms)
        assert before - sum(map(len, keyspace._rubble)) <= 4
        steps += 1
    assert steps >= pieces // 4
    assert keyspace.used_bytes < 20_000


@pytest.mark.parametrize("kind", FILLERS)
def test_what_is_renamed_or_moved_stays(world, client, kind):
    fill(client, "big", kind)
    client.send("RENAME", "big", "other")
    client.send("MOVE", "other", "1")
    assert not world.keyspace._rubble
    client.send("SELECT", "1")
    count = {"list": "LLEN", "hash": "HLEN", "set": "SCARD", "zset": "ZCARD"}[kind]
    assert client.show(count, "other") == str(ELEMENTS)


def test_a_copy_and_a_result_do_not_share_what_is_freed(world, client):
    for kind, command in (("set", "SUNIONSTORE"), ("zset", "ZUNIONSTORE")):
        fill(client, kind, kind)
        client.send("COPY", kind, "copy")
        client.send(command, "result", *(["1"] if kind == "zset" else []), kind)
        client.send(command, kind, *(["1"] if kind == "zset" else []), kind)
        client.send("DEL", kind)
        while world.keyspace._rubble:
            world.service.wake(world.now_ms)
        count = "SCARD" if kind == "set" else "ZCARD"
        assert client.show(count, "copy") == client.show(count, "result") == str(ELEMENTS)
        assert (
            len(client.send("SMEMBERS" if kind == "set" else "ZRANGE", "copy", *([] if kind == "set" else ["0", "-1"])))
            > ELEMENTS
        )
        client.send("DEL", "copy", "result")


def test_small_values_go_at_once(world, client):
    client.send("RPUSH", "k", *range(100))
    client.send("DEL", "k")
    assert not world.keyspace._rubble


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
def test_flushing_a_keyspace_with_one_large_value(world, client, command):
    for start in range(0, 200_000, 1000):
        client.send("HSET", "big", *[word for at in range(start, start + 1000) for word in (f"field:{at}", "value")])
    client.send("SET", "small", "v")
    keyspace = world.keyspace
    used_bytes = keyspace.used_bytes
    assert client.show(command) == "OK"
    assert keyspace.used_bytes == used_bytes, "nothing is freed before the reply"
    steps = pieces = 0
    while keyspace.alarm_ms == 0:
        before = sum(map(len, keyspace._rubble))
        world.service.wake(world.now_ms)
        after = sum(map(len, keyspace._rubble))
        pieces = max(pieces, after)
        assert before - after <= 4
        steps += 1
    assert pieces > 700
    assert steps > pieces // 4
    assert keyspace.used_bytes == 0
    assert not keyspace._rubble
