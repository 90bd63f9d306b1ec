"""Hashes: large ones in parts, scans while they change, their memory, and any order of commands against a model."""

import copy
import random
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace.events import ALL
from minidist.engines.keyspace.hashes import Hash
from minidist.engines.keyspace.members import PART_MEMBERS, part_bits, part_mask, reversed_bits


def filled(count: int) -> Hash:
    fields = Hash()
    for number in range(count):
        fields.set(b"field:%d" % number, b"%d" % number)
    return fields


def recount(fields: Hash) -> int:
    """`memory_bytes` of the same fields, summed up anew."""
    fresh = Hash()
    members = sum(len(field) + len(value) + 82 for field, value in fields.items())
    return fresh.memory_bytes - fresh._dict_bytes() + fields._dict_bytes() + members


@pytest.mark.parametrize("count", [0, 1, PART_MEMBERS, PART_MEMBERS + 1, 1000, 20_000])
def test_finds_its_fields_at_any_size_and_weighs_right(count):
    fields = filled(count)
    assert len(fields) == count
    assert all(fields.get(b"field:%d" % number) == b"%d" % number for number in range(count))
    assert fields.get(b"field:%d" % count) is None
    assert sorted(fields) == sorted(b"field:%d" % number for number in range(count))
    assert fields.memory_bytes == recount(fields)


def test_small_hashes_keep_the_order_in_which_fields_came():
    fields = filled(PART_MEMBERS)
    fields.set(b"field:0", b"again")
    assert list(fields) == [b"field:%d" % number for number in range(PART_MEMBERS)]


def test_no_part_is_large_and_none_is_left_when_the_hash_is_small_again():
    fields = filled(50_000)
    assert max(map(len, fields.parts)) < 4 * PART_MEMBERS
    for number in range(49_900):
        assert fields.remove(b"field:%d" % number)
        assert len(fields.parts) <= max(1, len(fields) // 32)
    assert fields.whole is not None
    assert len(fields) == 100
    assert fields.memory_bytes == recount(fields)


def test_parts_are_named_by_the_lowest_bits_of_the_checksum():
    for parts in range(1, 70):
        fields = Hash()
        fields.parts, fields.mask = [{} for _ in range(parts)], part_mask(parts)
        numbers = [fields.part_number(checksum) for checksum in range(4096)]
        assert set(numbers) == set(range(parts))
        if parts > 1:
            for checksum, number in enumerate(numbers):
                assert checksum % (1 << part_bits(number, parts)) == number
    assert reversed_bits(1) == 1 << 31
    assert reversed_bits(0b110) == 0b11 << 29


def test_a_copy_shares_nothing():
    for count in (3, 2000):
        fields = filled(count)
        copied = copy.copy(fields)
        assert list(copied.items()) == list(fields.items())
        assert copied.memory_bytes == recount(copied)
        copied.set(b"field:0", b"changed")
        copied.remove(b"field:1")
        assert fields.get(b"field:0") == b"0"
        assert fields.get(b"field:1") == b"1"


@given(st.integers(1, 3000), st.integers(0, 5000), st.integers(0, 3000), st.integers(1, 400), st.randoms())
@settings(max_examples=25, deadline=None)
def test_a_scan_returns_whatever_is_there_throughout(count, added, removed, step, rng: random.Random):
    fields = filled(count)
    names = list(fields)
    leaving = rng.sample(names, min(removed, count))
    staying = set(names) - set(leaving)
    coming = [b"new:%d" % number for number in range(added)]
    found: list[bytes] = []
    cursor = 0
    while True:
        cursor, items = fields.scan(cursor, step)
        found += [field for field, _ in items]
        if not cursor:
            break
        for _ in range(rng.randrange(200)):
            if coming:
                fields.set(coming.pop(), b"x")
            if leaving:
                fields.remove(leaving.pop())
    assert staying <= set(found)


def test_a_scan_of_a_hash_that_does_not_shrink_returns_nothing_twice():
    fields = filled(3000)
    found: list[bytes] = []
    cursor = 0
    while True:
        cursor, items = fields.scan(cursor, 10)
        found += [field for field, _ in items]
        if not cursor:
            break
        for number in range(500):
            fields.set(b"%d:%d" % (cursor, number), b"")
    assert len(found) == len(set(found))
    assert fields.scan(1 << 40, 10) == (0, [])


def test_fields_made_to_share_a_part_only_cost_time():
    same: list[bytes] = []
    number = 0
    while len(same) < 600:
        number += 1
        if crc32(b"%d" % number) % 64 == 5:
            same.append(b"%d" % number)
    fields = Hash()
    for field in same:
        fields.set(field, b"")
    rng = random.Random(1)
    assert {fields.choose(rng) for _ in range(100)} <= set(same)


@pytest.mark.parametrize("count", [10, 2000])
def test_every_field_is_chosen_as_often(count):
    fields, rng = filled(count), random.Random(5)
    chosen: dict[bytes, int] = dict.fromkeys(fields, 0)
    for _ in range(count * 30):
        chosen[fields.choose(rng)] += 1
    # Each 30 times, give or take 5.5: none of 2000 is further away than six times that.
    assert min(chosen.values()) > 0
    assert max(chosen.values()) < 63


@pytest.mark.parametrize("count", [1, 300, 999, 1500])
def test_a_sample_has_no_field_twice(count):
    fields = filled(2000)
    sample = fields.sample(random.Random(3), count)
    assert len(sample) == len(set(sample)) == count
    assert all(field in fields for field in sample)


def test_encoding():
    assert filled(1).encoding == "listpack"
    assert filled(512).encoding == "listpack"
    assert filled(513).encoding == "hashtable"
    fields = Hash()
    fields.set(b"a", b"x" * 64)
    assert fields.encoding == "listpack"
    fields.set(b"a", b"x" * 65)
    assert fields.encoding == "hashtable"


# --- commands ---------------------------------------------------------------------------------------------------------


def test_large_hashes_are_scanned_in_steps(client, world):
    for number in range(1000):
        client.send("HSET", "h", f"f{number}", number)
    shown = client.show("HSCAN", "h", 0, "COUNT", 10)
    assert not shown.startswith('["0"')
    assert client.show("HLEN", "h") == "1000"
    assert client.show("HGET", "h", "f77") == '"77"'
    assert client.show("HDEL", "h", *(f"f{number}" for number in range(1000))) == "1000"
    assert world.keyspace.used_bytes == 0


def test_expired_hashes_are_gone(client, world):
    client.send("HSET", "h", "a", 1)
    client.send("PEXPIRE", "h", 10)
    world.now_ms += 10
    assert client.show("HGET", "h", "a") == "nil"
    client.send("HSET", "h", "b", 1)
    client.send("PEXPIRE", "h", 10)
    world.now_ms += 10
    assert client.show("HSET", "h", "c", 1) == "1"
    assert client.show("HGETALL", "h") == '["c", "1"]'
    assert client.show("PTTL", "h") == "-1"


def test_watches_see_changes_and_only_those(client, world):
    other = world.client()
    client.send("HSET", "h", "a", 1)
    for command, aborts in (
        ("HSET h a 1", True),
        ("HSETNX h a 1", False),
        ("HDEL h nope", False),
        ("HGET h a", False),
        ("HINCRBY h a 1", True),
        ("HDEL h a", True),
        ("HINCRBYFLOAT h a x", False),
    ):
        client.send("WATCH", "h")
        other.send(*command.split())
        client.send("MULTI")
        assert client.show("EXEC") == ("nil" if aborts else "[]"), command


def test_events(client, world):
    events: list[tuple[int, int, bytes, bytes]] = []
    world.keyspace.notified = ALL
    world.keyspace.on_event = lambda *event: events.append(event)
    for command in (
        "HSET h a 1", "HSET h a 1", "HSET h b 2 c 3", "HSETNX h a 1", "HSETNX h d 1", "HMSET h a 1", "HINCRBY h a 1",
        "HINCRBYFLOAT h a 1", "HDEL h x", "HDEL h a b c", "HDEL h d",
    ):  # fmt: skip
        client.send(*command.split())
    names = [event for _, _, event, _ in events]
    assert names == [
        b"hset", b"hset", b"hset", b"hset", b"hset", b"hincrby", b"hincrbyfloat", b"hdel", b"hdel", b"del"
    ]  # fmt: skip


FIELDS = st.sampled_from([b"a", b"b", b"c", b""])
VALUES = st.sampled_from([b"", b"1", b"-7", b"x", b"y" * 200])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just(b"HSET"), FIELDS, VALUES),
        st.tuples(st.just(b"HSETNX"), FIELDS, VALUES),
        st.tuples(st.just(b"HINCRBY"), FIELDS, st.sampled_from([b"1", b"-3"])),
        st.tuples(st.just(b"HDEL"), FIELDS),
        st.tuples(st.just(b"HDEL"), FIELDS, FIELDS),
        st.tuples(st.just(b"HGET"), FIELDS),
        st.tuples(st.just(b"HSTRLEN"), FIELDS),
    ),
    max_size=40,
)


def expected(model: dict[bytes, bytes], name: bytes, args: tuple[bytes, ...]) -> str:
    """The reply, and its effect on the model."""
    field = args[0]
    if name == b"HSET":
        new = field not in model
        model[field] = args[1]
        return str(int(new))
    if name == b"HSETNX":
        if field in model:
            return "0"
        model[field] = args[1]
        return "1"
    if name == b"HINCRBY":
        try:
            value = int(model.get(field, b"0")) + int(args[1])
        except ValueError:
            return "!ERR hash value is not an integer"
        model[field] = b"%d" % value
        return str(value)
    if name == b"HDEL":
        return str(sum(model.pop(each, None) is not None for each in args))
    if name == b"HSTRLEN":
        return str(len(model.get(field, b"")))
    return "nil" if field not in model else f'"{model[field].decode()}"'


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_any_order_of_commands(world_type, steps):
    world = world_type()
    client = world.client()
    model: dict[bytes, bytes] = {}
    for name, *args in steps:
        assert client.show(name, b"h", *args) == expected(model, name, tuple(args))
        assert client.show("EXISTS", "h") == str(int(bool(model)))
    pairs = ", ".join(f'"{each.decode()}"' for pair in model.items() for each in pair)
    assert client.show("HGETALL", "h") == f"[{pairs}]"
    client.send("DEL", "h")
    assert world.keyspace.used_bytes == 0
