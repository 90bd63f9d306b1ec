"""Pipelines: what runs many commands in one go does the same as one by one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.wire.resp import CommandReader, Pipeline, encode_command

KEYS = [b"a", b"b", b"{b}c", b"timed", b"long", b"other"]
GETS = st.tuples(st.just(b"GET"), st.sampled_from(KEYS))
SETS = st.tuples(st.just(b"SET"), st.sampled_from(KEYS), st.sampled_from([b"", b"v", b"w" * 300, b"x" * 5000]))
ANY = st.one_of(GETS, SETS, st.just((b"get", b"a")), st.just((b"SET", b"a", b"1", b"NX")), st.just((b"INCR", b"a")))
FIELDS = st.sampled_from([b"f", b"g", b"h" * 100])
SCORES = st.sampled_from([b"1", b"-2.5", b"+3", b"inf", b"nan", b"x", b""])
# Those that are run by column, each with keys of its own and with one of another type.
OWN_KEYS = [b"h", b"l", b"s", b"z", b"n", b"{n}", b"timed"]
COLLECTING = [
    st.tuples(st.just(b"HSET"), st.sampled_from([b"h", b"{n}", *OWN_KEYS]), FIELDS, st.sampled_from([b"", b"v" * 70])),
    st.tuples(st.just(b"LPUSH"), st.sampled_from([b"l", *OWN_KEYS]), FIELDS),
    st.tuples(st.just(b"RPUSH"), st.sampled_from([b"l", *OWN_KEYS]), FIELDS),
    st.tuples(st.just(b"SADD"), st.sampled_from([b"s", *OWN_KEYS]), FIELDS),
    st.tuples(st.just(b"ZADD"), st.sampled_from([b"z", *OWN_KEYS]), SCORES, FIELDS),
    st.tuples(st.just(b"INCR"), st.sampled_from([b"n", b"a", b"nine", *OWN_KEYS])),
]
BATCHES = st.lists(
    st.one_of(
        *[st.lists(each, min_size=4, max_size=12) for each in (GETS, SETS, *COLLECTING)],
        st.lists(st.one_of(ANY, *COLLECTING), max_size=8),
        st.lists(st.tuples(st.sampled_from([b"DEL", b"EXISTS"]), st.sampled_from(KEYS + OWN_KEYS)), max_size=3),
    ),
    max_size=6,
)
CONTENTS = {
    b"hash": (b"HGETALL",), b"list": (b"LRANGE", b"0", b"-1"), b"set": (b"SMEMBERS",), b"string": (b"GET",),
    b"zset": (b"ZRANGE", b"0", b"-1", b"WITHSCORES"),
}  # fmt: skip


def prepared(world_type, limit: int, watching: bool):
    world = world_type()
    client = world.client()
    client.send("SET", "timed", "v", "EX", 1)
    client.send("SET", "long", "x" * 5000)
    client.send("APPEND", "other", "y" * 300)
    client.send("APPEND", "other", "z")
    client.send("SET", "nine", "99999999999999999")
    world.keyspace.limit_bytes = limit
    if watching:
        world.client().send("WATCH", "a")
        world.client().send("WATCH", "h")
    return world, client


def contents(world, client):
    """Everything that is there, as replies."""
    found = {}
    for key in [*KEYS, *OWN_KEYS, b"nine"]:
        kind = client.send("TYPE", key).strip(b"+\r\n")
        name, *rest = CONTENTS.get(kind, (b"EXISTS",))
        found[key] = (
            kind,
            client.send(name, key, *rest),
            client.send("PTTL", key),
            client.send("OBJECT", "IDLETIME", key),
        )
    return found


@given(BATCHES, st.sampled_from([1 << 62, 9000]), st.booleans())
@settings(max_examples=250)
def test_the_same_as_one_by_one(world_type, batches, limit, watching):
    world, client = prepared(world_type, limit, watching)
    again, single = prepared(world_type, limit, watching)
    for batch in batches:
        left, _ = CommandReader().feed(b"".join(map(encode_command, batch)))
        replies = b""
        while left:
            done, some = world.service.run(client.session, left, world.now_ms)
            replies += some
            left = left[done:]
        assert replies == b"".join([single.send(*command) for command in batch])
        world.wait(400)
        again.wait(400)
    assert contents(world, client) == contents(again, single)
    for name in ("used_bytes", "hits", "misses", "expired_keys"):
        assert getattr(world.keyspace, name) == getattr(again.keyspace, name)
    assert world.service.commands_run == again.service.commands_run
    for key in (b"a", b"h"):
        assert [watch.changed for watch in world.keyspace.databases[0].watches.get(key, [])] == [
            watch.changed for watch in again.keyspace.databases[0].watches.get(key, [])
        ]


def test_a_pipeline_is_run_in_one_go(world, client):
    pipeline = Pipeline([b"SET"] * 5, [b"k"] * 5, [b"%d" % number for number in range(5)])
    assert world.service.run(client.session, pipeline, world.now_ms) == (5, b"+OK\r\n" * 5)
    assert pipeline._commands is None, "nobody asked for the single commands"
    assert client.show("GET", "k") == '"4"'
