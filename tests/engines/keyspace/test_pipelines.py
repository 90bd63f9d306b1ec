"""Pipelines: what runs many commands in one go does the same as one by one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.wire.resp import CommandReader, Pipeline, encode_command

KEYS = [b"a", b"b", b"{b}c", b"timed", b"long", b"other"]
GETS = st.tuples(st.just(b"GET"), st.sampled_from(KEYS))
SETS = st.tuples(st.just(b"SET"), st.sampled_from(KEYS), st.sampled_from([b"", b"v", b"w" * 300, b"x" * 5000]))
ANY = st.one_of(GETS, SETS, st.just((b"get", b"a")), st.just((b"SET", b"a", b"1", b"NX")), st.just((b"INCR", b"a")))
BATCHES = st.lists(
    st.one_of(
        st.lists(GETS, min_size=4, max_size=12), st.lists(SETS, min_size=4, max_size=12), st.lists(ANY, max_size=8)
    ),
    max_size=6,
)


def prepared(world_type, limit: int, watching: bool):
    world = world_type()
    client = world.client()
    client.send("SET", "timed", "v", "EX", 1)
    client.send("SET", "long", "x" * 5000)
    client.send("APPEND", "other", "y" * 300)
    client.send("APPEND", "other", "z")
    world.keyspace.limit_bytes = limit
    if watching:
        world.client().send("WATCH", "a")
    return world, client


@given(BATCHES, st.sampled_from([1 << 62, 9000]), st.booleans())
@settings(max_examples=150)
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
    assert {key: entry.value for *_, table in world.keyspace.databases[0].filled() for key, entry in table.items()} == {
        key: entry.value for *_, table in again.keyspace.databases[0].filled() for key, entry in table.items()
    }
    for name in ("used_bytes", "hits", "misses", "expired_keys"):
        assert getattr(world.keyspace, name) == getattr(again.keyspace, name)
    assert world.service.commands_run == again.service.commands_run
    assert [w.changed for w in world.keyspace.databases[0].watches.get(b"a", [])] == [
        w.changed for w in again.keyspace.databases[0].watches.get(b"a", [])
    ]


def test_a_pipeline_is_run_in_one_go(world, client):
    pipeline = Pipeline([b"SET"] * 5, [b"k"] * 5, [b"%d" % number for number in range(5)])
    assert world.service.run(client.session, pipeline, world.now_ms) == (5, b"+OK\r\n" * 5)
    assert pipeline._commands is None, "nobody asked for the single commands"
    assert client.show("GET", "k") == '"4"'
