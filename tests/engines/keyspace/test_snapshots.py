"""What a snapshot holds comes back, whatever happened while it was written; Redis reads ours, and we read Redis'."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace import snapshots
from minidist.engines.keyspace.eviction import Policy
from minidist.engines.keyspace.keyspace import Keyspace
from minidist.engines.keyspace.memcached import Memcached
from minidist.engines.keyspace.rdb_strings import Malformed
from minidist.engines.keyspace.serialisation import dump
from minidist.engines.keyspace.snapshots import SnapshotReader, SnapshotWriter
from minidist.wire.memcached import Request

KEYS = [f"k{number}" for number in range(12)]
COMMANDS = [
    ("SET", "value"), ("SET", "12345"), ("SET", "x" * 300), ("APPEND", "y" * 300), ("RPUSH", "a", "b", "3"),
    ("SADD", "a", "1", "2"), ("HSET", "f", "v", "g", "w"), ("ZADD", "1.5", "a", "-inf", "b"), ("XADD", "1-1", "f", "v"),
    ("PEXPIRE", "100000"), ("PEXPIRE", "50"), ("DEL",), ("SETBIT", "7", "1"), ("PFADD", "a"),
]  # fmt: skip
MOVES = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(COMMANDS), st.booleans()), max_size=40)


def written(world, functions=(), between=lambda: None):
    writer = SnapshotWriter(world.keyspace, {b"redis-ver": b"7.0.0"}, list(functions), world.now_ms)
    pieces = []
    while (piece := writer.step(world.now_ms)) is not None:
        pieces.append(piece)
        between()
    return b"".join(pieces)


def read(data, now_ms, *, piece_bytes=1 << 20, databases=16):
    keyspace = Keyspace(databases, random.Random(1))
    reader = SnapshotReader(keyspace)
    for at in range(0, len(data), piece_bytes):
        reader.feed(data[at : at + piece_bytes], now_ms)
    reader.end(now_ms)
    return keyspace, reader


def shown(keyspace):
    """Everything that is there, to be compared."""
    return {
        (database.number, key): (dump(entry.value), entry.expires_ms, getattr(entry.value, "flags", 0))
        for database in keyspace.databases
        for *_, table in database.filled()
        for key, entry in table.items()
    }


def play(client, moves):
    for key, (name, *words), second in moves:
        client.send("SELECT", "1" if second else "0")
        client.send(name, key, *words)


def test_fields_of_hashes_that_come_back_expire_though_nobody_asks(world_type):
    world = world_type()
    client = world.client()
    client.send("HSET", "k", "f", "v")
    client.send("HPEXPIRE", "k", 5000, "FIELDS", 1, "f")
    keyspace, _ = read(written(world), world.now_ms)
    assert keyspace.count == 1
    world.now_ms += 10_000
    assert keyspace.alarm_ms <= world.now_ms
    keyspace.maintain(world.now_ms)
    assert keyspace.count == 0


@given(MOVES, st.sampled_from([1, 7, 1 << 20]))
@settings(max_examples=100, deadline=None)
def test_comes_back_as_it_was(world_type, moves, piece_bytes):
    world = world_type()
    play(world.client(), moves)
    world.now_ms += 60
    for database in world.keyspace.databases:
        for key in [key for *_, table in database.filled() for key in table]:
            database.peek(key, world.now_ms)  # what has expired goes
    data = written(world, [b"#!lua name=one\n"])
    keyspace, reader = read(data, world.now_ms, piece_bytes=piece_bytes)
    assert shown(keyspace) == shown(world.keyspace)
    assert keyspace.used_bytes == pytest.approx(world.keyspace.used_bytes, rel=0.3, abs=3000)
    assert (reader.functions, reader.complete, reader.at) == ([b"#!lua name=one\n"], True, len(data))


@given(st.integers(0, 2**32), st.data())
@settings(max_examples=60, deadline=None)
def test_keys_that_stay_are_in_it_whatever_happens_meanwhile(world_type, seed, data):
    """Commands run between steps of two entries: what nobody touches is there once, other keys as before or after."""
    world, rng = world_type(), random.Random(seed)
    client = world.client()
    for number in range(30):
        client.send("SET", f"stays:{number}", number)
    play(client, data.draw(MOVES))
    client.send("SELECT", "0")

    def between():
        key, (name, *words) = rng.choice(KEYS), rng.choice(COMMANDS)
        client.send(name, key, *words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "STEP_ENTRIES", 2)
        image = written(world, between=between)
    keyspace, _ = read(image, world.now_ms)
    assert all(keyspace.databases[0].peek(b"stays:%d" % number, world.now_ms) for number in range(30))


def test_after_a_flush_nothing_more_is_written(world, client, monkeypatch):
    monkeypatch.setattr(snapshots, "STEP_ENTRIES", 5)
    for number in range(500):
        client.send("SET", f"key:{number}", number)
    steps = iter(range(10_000))
    data = written(world, between=lambda: client.send("FLUSHALL") if next(steps) == 3 else None)
    keyspace, _ = read(data, world.now_ms)
    assert keyspace.count < 30


FILLERS = {
    "hash": lambda client, at, n: client.send("HSET", "big", *[x for i in range(at, n) for x in (f"f{i}", "v" * 40)]),
    "set": lambda client, at, n: client.send("SADD", "big", *[f"member:{i}" for i in range(at, n)]),
    "list": lambda client, at, n: client.send("RPUSH", "big", *[f"element:{i}" for i in range(at, n)]),
    "zset": lambda client, at, n: client.send("ZADD", "big", *[x for i in range(at, n) for x in (str(i), f"m{i}")]),
    "string": lambda client, at, n: client.send("SETRANGE", "big", str(at * 100), "x" * (n - at) * 100),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILLERS)
@pytest.mark.parametrize("changes", [0, 1, 100])
def test_a_large_value_is_whole_also_when_it_changes(world, client, kind, changes):
    """After `changes` changes it is left alone; one that always changes is copied in the end."""
    FILLERS[kind](client, 0, 12_000)
    done = 0

    def between():
        nonlocal done
        if done < changes:
            done += 1
            FILLERS[kind](client, 12_000 + done, 12_001 + done)

    data = written(world, between=between)
    keyspace, _ = read(data, world.now_ms)
    entry = keyspace.databases[0].peek(b"big", world.now_ms)
    now = world.keyspace.databases[0].peek(b"big", world.now_ms)
    assert len(entry.value) >= 12_000
    if not changes or (changes == 1 and kind != "string"):
        assert shown(keyspace) == shown(world.keyspace)
    assert not world.keyspace.databases[0].watches
    assert len(now.value) >= len(entry.value)


def test_a_large_value_that_goes_is_left_out(world, client):
    FILLERS["hash"](client, 0, 12_000)
    client.send("SET", "other", "there")
    steps = iter(range(10_000))
    data = written(world, between=lambda: client.send("DEL", "big") if next(steps) == 4 else None)
    keyspace, _ = read(data, world.now_ms)
    assert [key for *_, table in keyspace.databases[0].filled() for key in table] == [b"other"]


def test_what_eviction_knows_goes_along(world, client):
    client.send("SET", "old", "v")
    world.now_ms += 100_000
    client.send("SET", "new", "v")
    keyspace, _ = read(written(world), world.now_ms)
    old, new = (keyspace.databases[0].peek(key, world.now_ms) for key in (b"old", b"new"))
    assert (old.touched_ms, new.touched_ms) == (world.now_ms - 100_000, world.now_ms)
    world.service.evict_by(Policy.ALLKEYS_LFU)
    for _ in range(50):
        client.send("GET", "new")
    used = world.keyspace.databases[0].peek(b"new", world.now_ms).mark
    keyspace, _ = read(written(world), world.now_ms)
    assert keyspace.databases[0].peek(b"new", world.now_ms).mark == used > 5


def test_what_has_expired_meanwhile_does_not_come_back(world, client):
    client.send("SET", "short", "v", "PX", "1000")
    client.send("SET", "long", "v", "PX", "5000")
    keyspace, reader = read(written(world), world.now_ms + 2000)
    assert (keyspace.count, reader.keys, reader.expired) == (1, 1, 1)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damage_is_found(world_type, data):
    world = world_type()
    play(world.client(), [(key, command, False) for key, command in zip(KEYS, COMMANDS, strict=False)])
    image = bytearray(written(world))
    at = data.draw(st.integers(0, len(image) - 9))
    if data.draw(st.booleans()):
        image[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del image[at:]
    with pytest.raises(Malformed):
        read(bytes(image), world.now_ms)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ends too early, in what begins at byte 0"),
        (b"hello, world", "does not begin like an RDB file"),
        (b"REDIS0099" + bytes(20), "version 99"),
        (b"REDIS0010\xfe\x20", "database 32"),
        (b"REDIS0010\x63\x00\x00", "unknown type 99, at byte 9"),
    ],
)
def test_what_is_no_snapshot_is_refused_in_words(data, words):
    with pytest.raises(Malformed, match=words):
        read(data, 0)


def test_redis_loads_ours_and_we_load_what_redis_saves(world, client, tmp_path, redis_of):
    play(client, [(key, command, False) for key, command in zip(KEYS, COMMANDS, strict=False)])
    client.send("SELECT", "0")
    FILLERS["zset"](client, 0, 3000)
    client.send("SET", "later", "v", "PXAT", "4000000000000")
    Memcached(world.service, "x", lambda at_ms, callback: None).run(
        Request([b"set", b"flagged", b"7", b"0", b"1"], b"v"), world.now_ms
    )
    theirs = redis_of(written(world, [b"#!lua name=one\nredis.register_function('f', function() return 1 end)"]))
    queries = [("TYPE",), ("PEXPIRETIME",), ("OBJECT", "IDLETIME")]
    for key in [*KEYS, "big", "later", "flagged"]:
        for name, *words in queries:
            found = theirs.show(*map(str.encode, [name, *words, key]))
            assert found == client.show(name, *words, key), key
    for name, *words in (
        ("ZRANGE", "big", "0", "-1", "WITHSCORES"),
        ("GET", "k0"),
        ("HGETALL", "k6"),
        ("GET", "flagged"),
    ):
        assert theirs.show(name.encode(), *map(str.encode, words)) == client.show(name, *words)
    assert theirs.show(b"FCALL", b"f", b"0") == "1"
    assert theirs.show(b"SAVE") == "OK"
    keyspace, reader = read((tmp_path / "dump.rdb").read_bytes(), world.now_ms)
    assert {key for _, key in shown(keyspace)} == {key for _, key in shown(world.keyspace)}
    assert len(reader.functions) == 1
