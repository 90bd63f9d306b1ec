"""Bits of strings: beyond what the transcript can show."""

from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace.events import ALL


def test_a_large_bitmap_is_changed_in_place(client, world):
    assert client.show("SETBIT", "b", 80_000_000, 1) == "0"
    assert client.show("STRLEN", "b") == "10000001"
    assert client.show("BITCOUNT", "b") == "1"
    assert client.show("BITPOS", "b", 1) == "80000000"
    assert client.show("BITPOS", "b", 1, 1, 79_999_999, "BIT") == "-1"
    before_bytes = world.keyspace.used_bytes
    for offset in range(0, 80_000_000, 1_000_000):
        assert client.show("SETBIT", "b", offset, 1) == "0"
    assert world.keyspace.used_bytes == before_bytes
    assert client.show("BITCOUNT", "b") == "81"
    client.send("DEL", "b")
    assert world.keyspace.used_bytes == 0


def test_events(client, world):
    events: list[tuple[bytes, bytes]] = []
    world.keyspace.notified = ALL
    world.keyspace.on_event = lambda number, kind, event, key: events.append((event, key))
    for command in (
        "SETBIT a 1 1", "BITFIELD a GET u8 0", "BITFIELD a SET u8 0 1", "BITFIELD a OVERFLOW FAIL SET u8 0 256",
        "BITOP OR b a", "BITOP OR b nope", "BITOP OR b nope",
    ):  # fmt: skip
        client.send(*command.split())
    assert events == [(b"setbit", b"a"), (b"setbit", b"a"), (b"set", b"b"), (b"del", b"b")]


def test_watches_see_changes(client, world):
    other = world.client()
    for command, aborts in (
        ("SETBIT a 1 1", True),
        ("GETBIT a 1", False),
        ("BITFIELD a INCRBY u8 0 1", True),
        ("BITFIELD a GET u8 0", False),
        ("BITOP NOT a a", True),
        ("BITOP OR b a", False),
    ):
        client.send("WATCH", "a")
        other.send(*command.split())
        client.send("MULTI")
        assert client.show("EXEC") == ("nil" if aborts else "[]"), command


OFFSETS = st.integers(0, 3000)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("SETBIT"), OFFSETS, st.integers(0, 1)),
        st.tuples(st.just("GETBIT"), OFFSETS, st.just(0)),
        st.tuples(st.just("INCRBY"), OFFSETS, st.integers(0, 255)),
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=100, deadline=None)
def test_any_order_of_commands(world_type, steps):
    world = world_type()
    client = world.client()
    model = [0] * 4000
    for name, offset, value in steps:
        if name == "SETBIT":
            assert client.show(name, "b", offset, value) == str(model[offset])
            model[offset] = value
        elif name == "GETBIT":
            assert client.show(name, "b", offset) == str(model[offset])
        else:
            text = "".join(map(str, model[offset : offset + 8]))
            after = (int(text, 2) + value) % 256
            assert client.show("BITFIELD", "b", "INCRBY", "u8", offset, value) == f"[{after}]"
            model[offset : offset + 8] = map(int, f"{after:08b}")
    assert client.show("BITCOUNT", "b") == str(sum(model))
    assert client.show("BITPOS", "b", 1) == str(model.index(1) if 1 in model else -1)
    client.send("DEL", "b")
    assert world.keyspace.used_bytes == 0
