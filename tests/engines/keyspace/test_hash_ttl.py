"""Lifetimes of fields where a transcript does not reach: nobody asks, keys move, memory is counted, events are told."""

import random

import pytest

from minidist.engines.keyspace.hash_ttl import STEP_FIELDS, TimedHash
from minidist.engines.keyspace.hashes import Hash
from minidist.engines.keyspace.memory import ENTRY_BYTES
from minidist.engines.keyspace.outputs import Push


def value_of(world, key: bytes = b"h", number: int = 0) -> Hash | None:
    entry = world.keyspace.databases[number].table(key).get(key)
    return None if entry is None else entry.value


def exact(world) -> bool:
    """Whether the books say what there is."""
    account = 0
    for database in world.keyspace.databases:
        for _, _, table in database.filled():
            account += table.allocated_bytes
            account += sum(ENTRY_BYTES + len(key) + entry.value.memory_bytes for key, entry in table.items())
    return account == world.keyspace.used_bytes


def test_fields_go_when_nobody_asks(world, client):
    client.send("HSET", "h", "a", 1, "b", 2, "c", 3)
    client.send("HPEXPIRE", "h", 1000, "FIELDS", 1, "a")
    client.send("HPEXPIRE", "h", 3000, "FIELDS", 1, "b")
    world.wait(1100)
    assert list(value_of(world)) == [b"b", b"c"]
    world.wait(2000)
    assert list(value_of(world)) == [b"c"]
    assert world.keyspace.field_expiry.expired == 2
    client.send("HPEXPIRE", "h", 50, "FIELDS", 1, "c")
    world.wait(200)
    assert value_of(world) is None
    assert world.keyspace.used_bytes == 0


def test_many_fields_go_in_steps(world, client):
    count = 10 * STEP_FIELDS
    for start in range(0, count, 500):
        names = [f"f{at}" for at in range(start, start + 500)]
        client.send("HSET", "h", *[word for name in names for word in (name, "v")])
        client.send("HPEXPIREAT", "h", world.now_ms + 10, "FIELDS", 500, *names)
    client.send("HSET", "h", "stays", "v")
    assert exact(world)
    world.now_ms += 200
    steps, before = 0, count + 1
    while world.keyspace.alarm_ms <= world.now_ms:
        world.service.wake(world.now_ms)
        left = len(value_of(world))
        assert before - left <= 3 * STEP_FIELDS
        before, steps = left, steps + 1
    assert before == 1
    assert steps >= 4
    assert exact(world)


def test_what_was_restored_expires_where_no_field_ever_had_a_lifetime(world, client, world_type):
    client.send("HSET", "h", "f", "v")
    client.send("HPEXPIRE", "h", 5000, "FIELDS", 1, "f")
    payload = client.send("DUMP", "h").partition(b"\r\n")[2][:-2]
    other = world_type()
    assert other.client().show("RESTORE", "h", 0, payload) == "OK"
    other.wait(10_000)
    assert other.keyspace.count == 0


@pytest.mark.parametrize("how", ["RENAME", "COPY", "MOVE", "SWAPDB", "RESTORE", "crowd"])
def test_lifetimes_go_where_the_key_goes(world, client, how):
    client.send("HSET", "{t}h", "a", 1, "b", 2)
    client.send("HPEXPIRE", "{t}h", 1000, "FIELDS", 1, "a")
    key, number = b"{t}h", 0
    if how == "RENAME":
        client.send("RENAME", "{t}h", "other")
        key = b"other"
    elif how == "COPY":
        client.send("COPY", "{t}h", "other")
        client.send("DEL", "{t}h")
        key = b"other"
    elif how in ("MOVE", "SWAPDB"):
        client.send(how, *(["{t}h", 1] if how == "MOVE" else [0, 1]))
        number = 1
    elif how == "RESTORE":
        payload = client.send("DUMP", "{t}h").partition(b"\r\n")[2][:-2]
        client.send("FLUSHALL")
        assert client.show("RESTORE", "{t}h", 0, payload) == "OK"
    else:
        for at in range(5000):
            client.send("SET", f"{{t}}{at}", "v")
        assert world.keyspace.databases[0].table(key) is not None
    assert list(value_of(world, key, number)) == [b"a", b"b"]
    world.wait(900)
    assert list(value_of(world, key, number)) == [b"a", b"b"]
    world.wait(200)
    assert list(value_of(world, key, number)) == [b"b"]


def test_a_copy_shares_nothing(world, client):
    client.send("HSET", "h", "a", 1, "b", 2)
    client.send("HEXPIRE", "h", 10, "FIELDS", 1, "a")
    client.send("COPY", "h", "other")
    assert exact(world)
    client.send("HPERSIST", "other", "FIELDS", 1, "a")
    client.send("HEXPIRE", "h", 20, "FIELDS", 1, "b")
    assert client.show("HTTL", "h", "FIELDS", 2, "a", "b") == "[10, 20]"
    assert client.show("HTTL", "other", "FIELDS", 2, "a", "b") == "[-1, -1]"
    assert exact(world)


def test_a_hash_is_plain_again_when_no_field_has_a_lifetime(world, client):
    client.send("HSET", "h", "a", 1, "b", 2)
    assert value_of(world).__class__ is Hash
    client.send("HEXPIRE", "h", 10, "FIELDS", 2, "a", "b")
    assert value_of(world).__class__ is TimedHash
    client.send("HSET", "h", "a", 1)
    client.send("HPERSIST", "h", "FIELDS", 1, "b")
    assert client.show("HGET", "h", "a") == '"1"'
    assert value_of(world).__class__ is Hash
    assert exact(world)


def test_hashes_without_lifetimes_have_nothing_of_this(world, client):
    client.send("HSET", "h", "a", 1)
    client.send("HTTL", "h", "FIELDS", 1, "a")
    client.send("HPERSIST", "h", "FIELDS", 1, "a")
    client.send("HEXPIRE", "none", 10, "FIELDS", 1, "a")
    assert world.keyspace.field_expiry is None
    assert value_of(world).__class__ is Hash


def test_payloads_of_redis_7_4(client):
    """As rdb.c of 7.4 writes a large hash and a small one: TTLs count from the earliest, or are times of expiry."""
    from minidist.engines.keyspace.serialisation import with_footer

    at_ms = 1_700_000_005_000
    earliest = at_ms.to_bytes(8, "little")
    large = b"\x18" + earliest + b"\x03" + b"\x00\x01a\x011" + b"\x01\x01b\x012" + b"\x43\xe9\x01c\x013"
    assert client.show("RESTORE", "large", 0, with_footer(large, 12)) == "OK"
    assert client.show("HPTTL", "large", "FIELDS", 3, "a", "b", "c") == "[-1, 5000, 6000]"
    elements = b"\x81a\x02\x811\x02\x00\x01" + b"\x81b\x02\x812\x02\xf4" + earliest + b"\x09"
    listpack = (len(elements) + 7).to_bytes(4, "little") + (6).to_bytes(2, "little") + elements + b"\xff"
    small = b"\x19" + earliest + bytes((len(listpack),)) + listpack
    assert client.show("RESTORE", "small", 0, with_footer(small, 12)) == "OK"
    assert client.show("HPTTL", "small", "FIELDS", 2, "a", "b") == "[-1, 5000]"
    twice = b"\x18" + earliest + b"\x02" + b"\x00\x01a\x011" * 2
    for bad in (twice, large[:-1], b"\x18" + b"\xff" * 8 + large[9:], b"\x18" + earliest + b"\x00"):
        assert client.show("RESTORE", "bad", 0, with_footer(bad, 12)) == "!ERR Bad data format"


def test_what_expires_meanwhile_is_not_dumped(world, client):
    client.send("HSET", "h", "a", 1, "b", 2)
    plain = client.send("HSET", "p", "b", 2) and client.send("DUMP", "p")
    client.send("HPEXPIRE", "h", 10, "FIELDS", 1, "a")
    world.now_ms += 20
    assert client.send("DUMP", "h") == plain


def test_watches_see_a_field_expire(world, client):
    client.send("HSET", "h", "a", 1, "b", 2)
    client.send("HPEXPIRE", "h", 10, "FIELDS", 1, "a")
    client.send("WATCH", "h")
    world.wait(200)
    client.send("MULTI")
    client.send("HGET", "h", "b")
    assert client.show("EXEC") == "nil"


def test_sort_and_scripts_see_what_is_there(world, client):
    client.send("RPUSH", "l", 1, 2)
    client.send("HSET", "h1", "f", 9, "g", 1)
    client.send("HSET", "h2", "f", 5)
    client.send("HPEXPIRE", "h1", 10, "FIELDS", 1, "f")
    assert client.show("SORT", "l", "BY", "h*->f", "GET", "h*->f") == '["5", "9"]'
    world.now_ms += 20
    assert client.show("SORT", "l", "BY", "h*->f", "GET", "h*->f") == '[nil, "5"]'


STEPS = [
    ("HEXPIRE h 10 FIELDS 1 a", "hexpire h"),
    ("HEXPIRE h 10 NX FIELDS 1 a", ""),
    ("HPERSIST h FIELDS 2 a b", "hpersist h"),
    ("HPERSIST h FIELDS 2 a b", ""),
    ("HGETEX h EX 10 FIELDS 1 a", "hexpire h"),
    ("HGETEX h FIELDS 1 a", ""),
    ("HGETEX h PERSIST FIELDS 1 a", "hpersist h"),
    ("HSETEX h EX 10 FIELDS 1 a 1", "hset h, hexpire h"),
    ("HSETEX h FNX FIELDS 1 a 1", ""),
    ("HGETDEL h FIELDS 1 nope", ""),
    ("HGETDEL h FIELDS 1 b", "hdel h"),
    ("HEXPIREAT h 1 FIELDS 1 a", "hdel h, del h"),
    ("HSETEX h PX 10 FIELDS 2 a 1 b 2", "new h, hset h, hexpire h"),
    ("HSETEX h EXAT 1 FIELDS 1 b 2", "hset h, hdel h"),
]


def test_events(world, client):
    client.send("HSET", "h", "a", 1, "b", 2)
    world.service.notify(0xFFFFFF)
    listener = world.client()
    listener.send("PSUBSCRIBE", "__keyevent@*")

    def told() -> str:
        pushed = [each.message for each in world.service.outbox if isinstance(each, Push)]
        world.service.outbox.clear()
        parts = [message.split(b"\r\n") for message in pushed]
        return ", ".join(f"{part[6].decode().partition(':')[2]} {part[8].decode()}" for part in parts)

    for command, expected in STEPS:
        client.send(*command.split())
        assert told() == expected, command
    world.wait(200)
    assert told() == "hexpired h, del h"
    client.send("HSETEX", "h", "PX", 10, "FIELDS", 2, "a", 1, "b", 2)
    told()
    world.now_ms += 20
    client.send("HGET", "h", "a")
    assert told().startswith("hexpired h, del h")


@pytest.mark.parametrize("seed", range(5))
def test_like_a_model(world_type, seed):
    """Random commands, against a dict of values and times."""
    world, rng = world_type(), random.Random(seed)
    client = world.client()
    model: dict[str, tuple[str, int | None]] = {}
    fields = [f"f{at}" for at in range(400)]
    for step in range(3000):
        model = {f: (v, t) for f, (v, t) in model.items() if t is None or t > world.now_ms}
        field, ms = rng.choice(fields), rng.randrange(1, 3000)
        what = rng.randrange(7)
        if what < 2:
            client.send("HSET", "h", field, step)
            model[field] = (str(step), None)
        elif what == 2:
            done = client.show("HPEXPIRE", "h", ms, "FIELDS", 1, field)
            assert done == ("[1]" if field in model else "[-2]")
            if field in model:
                model[field] = (model[field][0], world.now_ms + ms)
        elif what == 3:
            assert client.show("HDEL", "h", field) == str(int(model.pop(field, None) is not None))
        elif what == 4:
            value, time = model.get(field, ("", None))
            shown = client.show("HPTTL", "h", "FIELDS", 1, field)
            assert shown == f"[{-2 if not value else -1 if time is None else time - world.now_ms}]"
        elif what == 5:
            shown = client.show("HGET", "h", field)
            assert shown == (f'"{model[field][0]}"' if field in model else "nil")
        elif rng.random() < 0.2:
            world.wait(ms) if rng.random() < 0.5 else setattr(world, "now_ms", world.now_ms + ms)
    model = {f: (v, t) for f, (v, t) in model.items() if t is None or t > world.now_ms}
    assert client.show("HLEN", "h") == str(len(model))
    assert exact(world)
    world.wait(4000)
    assert client.show("HLEN", "h") == str(sum(t is None for _, t in model.values()))
    assert exact(world)
