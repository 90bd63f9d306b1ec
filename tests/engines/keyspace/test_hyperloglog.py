"""PFADD, PFCOUNT and PFMERGE: beyond what the transcript can show."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace.events import ALL
from minidist.structures.hyperloglog import DENSE_BYTES, dense, is_hyperloglog, registers

# What redis-server 7.0 stored for PFADD key a b c: sparse.
OF_REDIS = b"HYLL\x01" + bytes(10) + b"\x80\x60\xf3\x80P\xb1\x84K\xfb\x80BZ"


def value_of(client, key: str) -> bytes:
    reply: bytes = client.send("GET", key)
    return reply.partition(b"\r\n")[2][:-2]


def test_a_value_can_go_from_server_to_server(client):
    client.send("PFADD", "ours", "a", "b", "c")
    ours = value_of(client, "ours")
    assert is_hyperloglog(ours)
    assert registers(ours) == registers(OF_REDIS)
    client.send("SET", "theirs", OF_REDIS)
    assert client.show("PFCOUNT", "theirs") == "3"
    assert client.show("PFADD", "theirs", "a") == "0"
    assert client.show("PFADD", "theirs", "d") == "1"
    assert client.show("PFCOUNT", "theirs") == "4"
    assert len(value_of(client, "theirs")) == DENSE_BYTES
    client.send("SET", "again", ours)
    assert client.show("PFADD", "again", "a", "d") == "1"
    assert registers(value_of(client, "again")) == registers(value_of(client, "theirs"))


def test_the_estimate_is_kept_in_the_header_until_something_changes(client):
    client.send("PFADD", "p", *range(100))
    assert value_of(client, "p")[15] == 0x80
    assert client.show("PFCOUNT", "p") == "100"
    assert value_of(client, "p")[8:16] == (100).to_bytes(8, "little")
    assert client.show("PFADD", "p", 5) == "0"
    assert value_of(client, "p")[15] == 0
    assert client.show("PFADD", "p", "new") == "1"
    assert value_of(client, "p")[15] == 0x80
    assert client.show("PFCOUNT", "p") == "101"


@pytest.mark.parametrize("count", [1000, 30_000])
def test_error(client, count):
    for first in range(0, count, 1000):
        client.send("PFADD", "p", *range(first, first + 1000))
    assert abs(int(client.show("PFCOUNT", "p")) - count) <= 3 * 0.0081 * count
    client.send("PFADD", "q", *range(count - 500, count + 500))
    assert abs(int(client.show("PFCOUNT", "p", "q")) - count - 500) <= 3 * 0.0081 * count
    client.send("PFMERGE", "p", "q")
    assert abs(int(client.show("PFCOUNT", "p")) - count - 500) <= 3 * 0.0081 * count


def test_a_failed_merge_changes_nothing(client, world):
    client.send("PFADD", "p", "a")
    client.send("SET", "text", "x")
    before = value_of(client, "p")
    for command in ("PFMERGE p text", "PFMERGE text p", "PFMERGE new p text"):
        assert client.show(*command.split()).startswith("!WRONGTYPE")
    assert client.show("EXISTS", "new") == "0"
    assert value_of(client, "p") == before


def test_registers_that_no_element_fills(client):
    client.send("SET", "full", dense(b"\x3f" * 16384))
    assert client.show("PFCOUNT", "full") == str((1 << 63) - 1)


def test_events_and_memory(client, world):
    events: list[tuple[bytes, bytes]] = []
    world.keyspace.notified = ALL
    world.keyspace.on_event = lambda number, kind, event, key: events.append((event, key))
    for command in ("PFADD p a", "PFADD p a", "PFADD q", "PFCOUNT p", "PFMERGE q p", "PFADD q x"):
        client.send(*command.split())
    assert events == [(b"pfadd", b"p"), (b"pfadd", b"q"), (b"pfadd", b"q"), (b"pfadd", b"q")]
    world.keyspace.notified = 0
    client.send("DEL", "p", "q")
    assert world.keyspace.used_bytes == 0


KEYS = st.sampled_from(["p", "q"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("PFADD"), KEYS, st.lists(st.integers(0, 30), max_size=3)),
        st.tuples(st.just("PFMERGE"), KEYS, st.lists(KEYS, max_size=1)),
        st.tuples(st.just("PFCOUNT"), KEYS, st.lists(KEYS, max_size=1)),
    ),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_any_order_of_commands(world_type, steps):
    """Few elements, each with a register of its own, so that estimates are exact."""
    world = world_type()
    client = world.client()
    model: dict[str, set[int]] = {}
    for name, key, args in steps:
        if name == "PFADD":
            changed = key not in model or not model[key].issuperset(args)
            model.setdefault(key, set()).update(args)
            wanted = str(int(changed))
        elif name == "PFMERGE":
            model.setdefault(key, set()).update(*(model.get(each, ()) for each in args))
            wanted = "OK"
        else:
            wanted = str(len(set().union(*(model.get(each, ()) for each in [key, *args]))))
        assert client.show(name, key, *args) == wanted
    client.send("DEL", "p", "q")
    assert world.keyspace.used_bytes == 0
