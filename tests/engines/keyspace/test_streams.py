"""Streams: the map that they are made of against a model, waiting, accounts, random commands against a real server."""

import copy as copying
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace.events import ALL, STREAM
from minidist.engines.keyspace.outputs import Release
from minidist.engines.keyspace.stream_blocks import MAP_BYTES, Account, BlockMap
from minidist.engines.keyspace.streams import Stream, Trim

IDS = st.integers(0, 700)


@given(st.lists(st.tuples(st.sampled_from(["insert", "insert", "run", "pop", "pop_first"]), IDS), max_size=60))
@settings(max_examples=150)
def test_a_block_map_is_a_sorted_map(steps):
    account = Account(0)
    blocks: BlockMap[int] = BlockMap(account)
    model: dict[int, int] = {}
    for step, at in steps:
        if step == "insert" and at not in model:
            blocks.insert(at, -at)
            model[at] = -at
        elif step == "run":
            for each in range(at, at + 150):
                if each not in model:
                    blocks.insert(each, -each)
                    model[each] = -each
        elif step == "pop":
            assert blocks.pop(at) == model.pop(at, None)
        elif step == "pop_first" and model:
            taken = blocks.pop_first(1 + at % 120)
            expected = sorted(model)[: len(taken)]
            assert taken == [model.pop(each) for each in expected]
        first, last = at, at + 130
        expected_pairs = [(each, model[each]) for each in sorted(model) if first <= each <= last]
        assert list(blocks.ascending(first, last)) == expected_pairs
        assert list(blocks.descending(last, first)) == expected_pairs[::-1]
        assert blocks.get(at) == model.get(at)
        assert (blocks.first_id, blocks.last_id) == (min(model, default=None), max(model, default=None))
        assert len(blocks) == len(model)
        assert account.bytes == blocks.memory_bytes
    for each in list(model):
        blocks.pop(each)
    assert account.bytes == MAP_BYTES
    assert not blocks.ids


def test_approximate_trimming_takes_whole_blocks():
    stream = Stream()
    for number in range(1, 1001):
        stream.add(number, [b"a", b"1"])
    assert stream.trim(Trim(max_length=950, approximate=True)) == 0
    assert stream.trim(Trim(max_length=650, approximate=True, limit=200)) == 200
    assert stream.trim(Trim(max_length=650, approximate=True)) == 100
    assert stream.trim(Trim(min_id=450, approximate=True)) == 100
    assert stream.trim(Trim(min_id=450)) == 49
    assert stream.trim(Trim(max_length=550)) == 1
    assert stream.entries.first_id == 451
    assert stream.trim(Trim(max_length=0)) == 550
    assert stream.memory_bytes == Stream().memory_bytes


def test_the_account_is_the_sum_of_what_is_there(client, world):
    rng = random.Random(1)
    used_bytes = world.keyspace.used_bytes
    for _ in range(2000):
        client.send(*random_command(rng))
        world.now_ms += rng.randrange(3)
    for name in (b"s", b"t"):
        stream = world.keyspace.databases[0].peek(name, world.now_ms).value
        copy = copying.copy(stream)
        assert copy.memory_bytes == stream.memory_bytes
        assert copy.groups
        for group in list(copy.groups):
            copy.remove_group(group)
        copy.trim(Trim(max_length=0))
        assert copy.memory_bytes == Stream().memory_bytes
    client.send("DEL", "s", "t")
    assert world.keyspace.used_bytes == used_bytes


def random_command(rng: random.Random) -> list[bytes]:
    """Any command whose reply does not depend on the time, on two streams, two groups and three consumers."""
    key, group = rng.choice([b"s", b"s", b"t"]), rng.choice([b"g", b"h"])
    consumer = rng.choice([b"alice", b"bob", b"carol"])
    at = rng.choice([b"%d" % rng.randrange(80), b"%d-%d" % (rng.randrange(80), rng.randrange(3)), b"-", b"+"])
    other = b"%d" % rng.randrange(120)
    count = b"%d" % rng.choice([0, 1, 2, 5, 50])
    new = rng.choice([b"%d-*" % rng.randrange(200), b"%d" % rng.randrange(200)])
    trim = rng.choice([[], [], [b"MAXLEN", b"%d" % rng.randrange(60)], [b"MINID", b"~", other]])
    field = [b"f%d" % rng.randrange(3), b"v" * rng.randrange(40)]
    choices = [
        *[[b"XADD", key, *trim, new, *field]] * 6,
        [b"XLEN", key],
        [b"XRANGE", key, at, other],
        [b"XREVRANGE", key, other, at, b"COUNT", count],
        [b"XDEL", key, other, at],
        [b"XTRIM", key, b"MAXLEN", b"%d" % rng.randrange(100)],
        [b"XGROUP", b"CREATE", key, group, rng.choice([at, b"$", b"0"]), b"MKSTREAM"],
        [b"XGROUP", b"SETID", key, group, other, b"ENTRIESREAD", count],
        [b"XREAD", b"COUNT", count, b"STREAMS", key, b"t", other, b"0"],
        *[[b"XREADGROUP", b"GROUP", group, consumer, b"COUNT", count, b"STREAMS", key, b">"]] * 4,
        [b"XREADGROUP", b"GROUP", group, consumer, b"NOACK", b"COUNT", b"2", b"STREAMS", key, b">"],
        [b"XREADGROUP", b"GROUP", group, consumer, b"COUNT", count, b"STREAMS", key, other],
        [b"XACK", key, group, other, at, b"5", b"6", b"7"],
        [b"XPENDING", key, group],
        [b"XCLAIM", key, group, consumer, b"0", other, b"5", b"6", *rng.choice([[], [b"FORCE"], [b"JUSTID"]])],
        [b"XAUTOCLAIM", key, group, consumer, b"0", other, b"COUNT", b"3"],
        [b"XINFO", b"GROUPS", key],
    ]
    if rng.random() < 0.03:
        choices = [
            [b"DEL", b"t"],
            [b"XGROUP", b"DESTROY", key, group],
            [b"XGROUP", b"DELCONSUMER", key, group, consumer],
            [b"COPY", b"s", b"t", b"REPLACE"],
            [b"XSETID", key, b"300", b"ENTRIESADDED", b"1000"],
        ]
    return rng.choice(choices)


@pytest.mark.parametrize("seed", range(4))
def test_as_a_real_server(seed, client, redis_client):
    real = redis_client()
    rng = random.Random(seed)
    played = []
    for _ in range(1500):
        command = random_command(rng)
        played.append(command)
        ours, theirs = client.show(*command), real.show(*command)
        if command[0] == b"XINFO":  # 7.2 makes a consumer also where there is nothing to read, and knows more lags
            ours, theirs = undisputed(ours), undisputed(theirs)
        assert ours == theirs, (command, played[-12:])


def undisputed(shown: str) -> str:
    return re.sub(r'"consumers", \d+|"entries-read".*?("lag", [^]]*)', "", shown)


@pytest.mark.parametrize("seed", range(6))
def test_the_lag_is_what_is_left_to_read(seed, client):
    rng = random.Random(seed)
    known = 0
    for number in range(1500):
        command = random_command(rng)
        if command[0] == b"XSETID" or command[:2] == [b"XGROUP", b"SETID"]:
            continue
        client.send(*command)
        for group in ("g", "h"):
            if number % 5 or f'"{group}"' not in (shown := client.show("XINFO", "GROUPS", "s")):
                continue
            pattern = rf'"{group}", .*?"last-delivered-id", "([^"]*)", "entries-read", \S+, "lag", ([^]]+)'
            last_id, lag = re.search(pattern, shown).groups()  # type: ignore[union-attr]
            if lag != "nil":
                left = client.send("XRANGE", "s", "(" + last_id, "+")
                assert left.startswith(b"*%d\r\n" % int(lag)), (command, last_id, lag)
                known += 1
    assert known


# --- waiting ----------------------------------------------------------------------------------------------------------


def released(world) -> list[bytes]:
    """The replies that waiting clients have got since."""
    replies = [each.reply for each in world.service.outbox if isinstance(each, Release)]
    world.service.outbox.clear()
    return replies


def test_xread_waits_for_what_comes_after_the_call(world):
    reader, writer = world.client(), world.client()
    writer.send("XADD", "s", "5", "a", "1")
    assert reader.send("XREAD", "BLOCK", "0", "STREAMS", "s", "$") == b""
    writer.send("XDEL", "s", "5")
    assert released(world) == []
    writer.send("XADD", "s", "6", "a", "1")
    writer.send("XADD", "s", "7", "a", "1")
    assert released(world) == [b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n6-0\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n"]


def test_all_readers_get_the_entry_but_one_consumer_does(world):
    readers = [world.client() for _ in range(3)]
    consumers = [world.client() for _ in range(3)]
    writer = world.client()
    writer.send("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
    for number, reader in enumerate(readers):
        assert reader.send("XREAD", "BLOCK", "0", "STREAMS", "nope", "s", "0", "$") == b""
        assert consumers[number].send("XREADGROUP", "GROUP", "g", number, "BLOCK", "0", "STREAMS", "s", ">") == b""
    writer.send("XADD", "s", "6", "a", "1")
    assert len(released(world)) == 4
    assert writer.show("XPENDING", "s", "g") == '[1, "6-0", "6-0", [["0", "1"]]]'
    writer.send("XADD", "s", "7", "a", "1")
    assert len(released(world)) == 1
    assert consumers[1].session.wait is None
    assert consumers[2].session.wait is not None


def test_a_reader_gives_up(world):
    reader = world.client()
    assert reader.send("XREAD", "BLOCK", "100", "STREAMS", "s", "0") == b""
    world.wait(99)
    assert released(world) == []
    world.wait(1)
    assert released(world) == [b"*-1\r\n"]


@pytest.mark.parametrize(
    ("change", "reply"),
    [
        (["XGROUP", "DESTROY", "s", "g"], b"-NOGROUP No such key 's' or consumer group 'g'"),
        (["DEL", "s"], b"-NOGROUP No such key 's' or consumer group 'g'"),
        (["FLUSHALL"], b"-NOGROUP No such key 's' or consumer group 'g'"),
        (["RENAME", "s", "other"], b"-NOGROUP No such key 's' or consumer group 'g'"),
        (["SET", "s", "x"], b"-WRONGTYPE"),
    ],
)
def test_a_consumer_hears_that_its_group_is_gone(world, change, reply):
    consumer, other = world.client(), world.client()
    other.send("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
    assert consumer.send("XREADGROUP", "GROUP", "g", "c", "BLOCK", "0", "STREAMS", "s", ">") == b""
    other.send(*change)
    (got,) = released(world)
    assert got.startswith(reply)
    assert consumer.session.wait is None


def test_a_reader_does_not_mind_that_the_key_is_gone(world):
    reader, other = world.client(), world.client()
    other.send("XADD", "s", "5", "a", "1")
    reader.send("XREAD", "BLOCK", "0", "STREAMS", "s", "$")
    for change in (["DEL", "s"], ["LPUSH", "s", "x"], ["DEL", "s"], ["XADD", "s", "4", "a", "1"]):
        other.send(*change)
        assert released(world) == []
    other.send("XADD", "s", "6", "a", "1")
    assert len(released(world)) == 1


def test_acknowledging_is_no_change_of_the_key_for_watch(world):
    client, other = world.client(), world.client()
    other.send("XADD", "s", "5", "a", "1")
    other.send("XGROUP", "CREATE", "s", "g", "0")
    client.send("WATCH", "s")
    other.send("XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">")
    other.send("XACK", "s", "g", "5")
    client.send("MULTI")
    assert client.send("EXEC") == b"*0\r\n"
    client.send("WATCH", "s")
    other.send("XADD", "s", "6", "a", "1")
    client.send("MULTI")
    assert client.send("EXEC") == b"*-1\r\n"


def test_an_empty_stream_stays(client):
    client.send("XADD", "s", "5", "a", "1")
    client.send("XDEL", "s", "5")
    assert client.show("EXISTS", "s") == "1"
    assert client.show("XADD", "s", "5", "a", "1").startswith("!ERR The ID specified in XADD is equal or smaller")


def test_events(client, world):
    told = []
    world.keyspace.notified = ALL
    world.keyspace.on_event = lambda database, kind, event, key: told.append((kind == STREAM, event.decode()))

    def events(*command: str) -> list[str]:
        told.clear()
        client.send(*command)
        assert all(of_stream for of_stream, _ in told)
        return [event for _, event in told]

    assert events("XADD", "s", "1", "a", "1") == ["xadd"]
    assert events("XADD", "s", "MAXLEN", "1", "2", "a", "1") == ["xadd", "xtrim"]
    assert events("XADD", "s", "2", "a", "1") == []
    assert events("XTRIM", "s", "MAXLEN", "1") == []
    assert events("XGROUP", "CREATE", "s", "g", "0") == ["xgroup-create"]
    assert events("XGROUP", "CREATE", "s", "g", "0") == []
    assert events("XREADGROUP", "GROUP", "g", "alice", "STREAMS", "s", ">") == ["xgroup-createconsumer"]
    assert events("XREADGROUP", "GROUP", "g", "alice", "STREAMS", "s", ">") == []
    assert events("XCLAIM", "s", "g", "bob", "0", "2") == ["xgroup-createconsumer"]
    assert events("XACK", "s", "g", "2") == []
    assert events("XGROUP", "CREATECONSUMER", "s", "g", "carol") == ["xgroup-createconsumer"]
    assert events("XGROUP", "DELCONSUMER", "s", "g", "carol") == ["xgroup-delconsumer"]
    assert events("XGROUP", "SETID", "s", "g", "0") == ["xgroup-setid"]
    assert events("XGROUP", "DESTROY", "s", "g") == ["xgroup-destroy"]
    assert events("XDEL", "s", "2") == ["xdel"]
    assert events("XDEL", "s", "2") == []
    assert events("XSETID", "s", "9") == ["xsetid"]


# --- memory -----------------------------------------------------------------------------------------------------------

PROGRAM = """
from minidist.engines.keyspace.streams import Stream
from minidist.engines.keyspace.streams import LAST_ID

size, value_bytes, consumers = arguments
number = now = 0
def load(until):
    global number, now
    database = keyspace.databases[0]
    while keyspace.used_bytes < until:
        number += 1
        if number % 50 == 1:
            now = 1_700_000_000_000 + number // 50
        stream = Stream()
        for _ in range(size):
            stream.add(stream.next_id(now), [b"field", bytes(rng.randint(1, value_bytes * 2))])
        if consumers:
            stream.add_group(b"g:%d" % number, 0, None)
            group = stream.groups[b"g:%d" % number]
            team = [group.add_consumer(b"c:%d:%d" % (number, each), now) for each in range(consumers)]
            for entry_id, _ in stream.entries.ascending(0, LAST_ID):
                group.deliver(entry_id, rng.choice(team), now)
        database.put(b"key:%012d" % number, stream, now)
"""


@pytest.mark.parametrize(
    ("size", "value_bytes", "consumers"),
    [(5, 20, 0), (100_000, 64, 0), (5, 20, 2), (20_000, 20, 3), (0, 0, 1)],
    ids=["5 entries", "100,000 entries", "5 pending", "20,000 pending", "empty with a consumer"],
)
def test_within_15_percent_of_the_growth_of_the_process(check_account, size, value_bytes, consumers):
    check_account(PROGRAM, size, value_bytes, consumers)
