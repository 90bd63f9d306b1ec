"""Sets: order of replies, choices at random, what is made of several, against a model."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace.events import ALL
from minidist.engines.keyspace.sets import Set, difference, intersection, union


def numbers(count: int, first: int = 0) -> Set:
    return Set.of(b"%d" % number for number in range(first, first + count))


def test_members_come_in_the_order_of_being_added():
    members = Set.of([b"c", b"a", b"b", b"a"])
    assert list(members) == [b"c", b"a", b"b"]
    assert not members.add(b"c")
    assert members.remove(b"c")
    assert not members.remove(b"c")
    assert members.add(b"c")
    assert list(members) == [b"a", b"b", b"c"]


def test_encoding():
    assert numbers(1).encoding == "intset"
    assert numbers(512).encoding == "intset"
    assert numbers(513).encoding == "hashtable"
    assert Set.of([b"1", b"x"]).encoding == "listpack"
    assert Set.of([b"1", b"x" * 65]).encoding == "hashtable"
    assert Set.of([b"01"]).encoding == "listpack"
    assert Set.of(b"x%d" % number for number in range(129)).encoding == "hashtable"


@pytest.mark.parametrize("size", [20, 3000])
def test_several_sets(size):
    one, two = numbers(size), numbers(size, size // 2)
    both = intersection([one, two])
    assert sorted(both, key=int) == [b"%d" % number for number in range(size // 2, size)]
    assert len(intersection([one, two], 7)) == 7
    assert intersection([one, None]) == []
    assert len(union([one, two, None])) == size + size // 2
    assert sorted(difference([one, two, None]), key=int) == [b"%d" % number for number in range(size // 2)]
    assert difference([None, one]) == []


def test_memory_is_given_back():
    members = Set()
    empty_bytes = members.memory_bytes
    for number in range(5000):
        members.add(b"%d" % number)
    for number in range(5000):
        members.remove(b"%d" % number)
    assert empty_bytes <= members.memory_bytes < empty_bytes + 20_000  # a dict keeps room for what was in it
    assert len(members) == 0


# --- commands ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_pops_the_same_members(world_type):
    popped = []
    for _ in range(2):
        client = world_type(seed=7).client()
        for number in range(1000):
            client.send("SADD", "s", number)
        popped.append([client.send("SPOP", "s", 3) for _ in range(50)] + [client.send("SPOP", "s")])
    assert popped[0] == popped[1]


def test_everything_is_popped_once(client, world):
    members = {f"m{number}" for number in range(2000)}
    for member in members:
        client.send("SADD", "s", member)
    popped: list[str] = []
    while client.show("EXISTS", "s") == "1":
        count = world.keyspace.random.randrange(1, 300)
        popped += client.show("SPOP", "s", count).strip("[]").replace('"', "").split(", ")
    assert len(popped) == 2000
    assert set(popped) == members
    assert world.keyspace.used_bytes == 0


def test_random_members_with_and_without_repetition(client):
    for number in range(1000):
        client.send("SADD", "s", number)
    distinct = client.show("SRANDMEMBER", "s", 300).split(", ")
    assert len(set(distinct)) == 300
    assert len(client.show("SRANDMEMBER", "s", -5000).split(", ")) == 5000
    assert client.show("SRANDMEMBER", "s", -1_000_001) == "!ERR value is out of range"


def test_large_sets_are_scanned_in_steps(client):
    for number in range(3000):
        client.send("SADD", "s", number)
    found: list[str] = []
    cursor, steps = "0", 0
    while True:
        shown = client.show("SSCAN", "s", cursor, "COUNT", 100)
        cursor, _, members = shown[2:].partition('", [')
        found += members.rstrip("]").replace('"', "").split(", ")
        steps += 1
        if cursor == "0":
            break
    assert sorted(found, key=int) == [str(number) for number in range(3000)]
    assert 5 < steps <= 30


def test_nothing_changes_when_a_type_is_wrong(client, world):
    client.send("SADD", "s", "a")
    client.send("SET", "text", "x")
    for command in (
        "SMOVE s text a", "SINTERSTORE s s text", "SUNIONSTORE s text s", "SDIFFSTORE s s text", "SADD text a",
    ):  # fmt: skip
        assert client.show(*command.split()).startswith("!WRONGTYPE")
    assert client.show("SMEMBERS", "s") == '["a"]'
    assert client.show("GET", "text") == '"x"'


def test_events(client, world):
    events: list[tuple[bytes, bytes]] = []
    world.keyspace.notified = ALL
    world.keyspace.on_event = lambda number, kind, event, key: events.append((event, key))
    for command in (
        "SADD s a b", "SADD s a", "SREM s x", "SREM s b", "SMOVE s t a", "SUNIONSTORE u t", "SINTERSTORE u t u",
        "SDIFFSTORE u t u", "SDIFFSTORE u t t", "SPOP t", "SPOP t",
    ):  # fmt: skip
        client.send(*command.split())
    assert events == [
        (b"sadd", b"s"), (b"srem", b"s"), (b"srem", b"s"), (b"del", b"s"), (b"sadd", b"t"), (b"sunionstore", b"u"),
        (b"sinterstore", b"u"), (b"del", b"u"), (b"spop", b"t"), (b"del", b"t"),
    ]  # fmt: skip


KEYS = st.sampled_from([b"a", b"b", b"c"])
MEMBERS = st.sampled_from([b"1", b"2", b"3", b"x", b""])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([b"SADD", b"SREM"]), KEYS, st.lists(MEMBERS, min_size=1, max_size=3)),
        st.tuples(st.sampled_from([b"SUNION", b"SINTER", b"SDIFF"]), KEYS, st.lists(KEYS, max_size=2)),
        st.tuples(
            st.sampled_from([b"SUNIONSTORE", b"SINTERSTORE", b"SDIFFSTORE"]),
            KEYS,
            st.lists(KEYS, min_size=1, max_size=3),
        ),
        st.tuples(st.just(b"SMOVE"), KEYS, st.tuples(KEYS, MEMBERS).map(list)),
    ),
    max_size=30,
)


def expected(model: dict[bytes, set[bytes]], name: bytes, key: bytes, args: list[bytes]) -> int | set[bytes]:
    """The reply, and its effect on the model."""
    held = model[key]
    if name in (b"SADD", b"SREM"):
        model[key] = held | set(args) if name == b"SADD" else held - set(args)
        return abs(len(model[key]) - len(held))
    if name == b"SMOVE":
        target, member = args
        if member not in held:
            return 0
        held.discard(member)
        model[target].add(member)
        return 1
    sets = [model[each] for each in (args if name.endswith(b"STORE") else [key, *args])]
    made = set(sets[0])
    for each in sets[1:]:
        made = made | each if b"UNION" in name else made & each if b"INTER" in name else made - each
    if not name.endswith(b"STORE"):
        return made
    model[key] = made
    return len(made)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_any_order_of_commands(world_type, steps):
    world = world_type()
    client = world.client()
    model: dict[bytes, set[bytes]] = {b"a": set(), b"b": set(), b"c": set()}
    for name, key, args in steps:
        reply = client.send(name, key, *args)
        wanted = expected(model, name, key, args)
        if isinstance(wanted, int):
            assert reply == b":%d\r\n" % wanted
        else:
            assert members_of(reply) == wanted
        for each, members in model.items():
            assert client.show("SCARD", each) == str(len(members))
    for each in model:
        assert members_of(client.send("SMEMBERS", each)) == model[each]
        client.send("DEL", each)
    assert world.keyspace.used_bytes == 0


def members_of(reply: bytes) -> set[bytes]:
    """The bulk strings of an array: none here contains a line end."""
    return set(reply.split(b"\r\n")[2:-1:2])


def test_choosing_from_a_set_whose_parts_are_nearly_empty():
    members = numbers(30_000)
    members.parts = [part if at == 3 else {} for at, part in enumerate(members.parts)]
    members.count = len(members.parts[3])
    assert {members.choose(random.Random(seed)) for seed in range(20)} <= set(members.parts[3])
