"""Sorted sets as a structure: against a dict that is sorted anew each time, and in memory."""

import json
import random
import subprocess
import sys
from copy import copy
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace.sortedsets import SHORT_MEMBERS, MemberRange, ScoreRange, SortedSet


def numbered(count: int) -> SortedSet:
    return SortedSet.of((b"m%d" % number, float(number)) for number in range(count))


# --- the structure ----------------------------------------------------------------------------------------------------


def check(value: SortedSet, model: dict[bytes, float]) -> None:
    """All that can be asked agrees with a dict."""
    ordered = sorted((score, member) for member, score in model.items())
    assert len(value) == len(model)
    assert value.pairs(0, len(value)) == list(value.order) == ordered
    assert sorted(value.values()) == ordered
    for position in range(0, len(ordered), max(len(ordered) // 50, 1)):
        score, member = ordered[position]
        assert value.score(member) == score
        assert value.rank(member) == position
    assert value.score(b"nobody") is None
    assert value.rank(b"nobody") is None


def change(value: SortedSet, model: dict[bytes, float], rng: random.Random, members: int) -> None:
    """Something at random, with its result."""
    member = b"m%d" % rng.randrange(members)
    kind = rng.random()
    if kind < 0.7:
        score = rng.choice([-inf, inf, 0.0, 0.5, float(rng.randrange(100)), rng.random()])
        assert value.put(member, score) == model.get(member)
        model[member] = score
    elif kind < 0.9:
        assert value.remove(member) == (model.pop(member, None) is not None)
    else:
        start = rng.randrange(len(model) + 1)
        stop = start + rng.randrange(len(model) // 4 + 2)
        ordered = sorted((score, member) for member, score in model.items())
        assert value.remove_positions(start, stop) == ordered[start:stop]
        for _, each in ordered[start:stop]:
            del model[each]


@pytest.mark.parametrize(("members", "steps"), [(6, 500), (150, 1000), (600, 1000), (5000, 8000)])
def test_any_order_of_changes(members, steps):
    rng = random.Random(members)
    value = numbered(members // 2)
    model = {b"m%d" % number: float(number) for number in range(members // 2)}
    for step in range(steps):
        change(value, model, rng, members)
        if step % (steps // 10) == 0:
            check(value, model)
            check(copy(value), model)
    for member in list(model):
        value.remove(member)
    assert not value
    assert list(value.order) == []


def test_a_copy_shares_nothing():
    for count in (5, 1000):
        value = numbered(count)
        other = copy(value)
        other.put(b"m1", 7.5)
        other.remove(b"m2")
        check(value, {b"m%d" % number: float(number) for number in range(count)})
        assert len(other) == count - 1


SCORES = st.sampled_from([-inf, -1.5, -0.0, 0.0, 0.25, 1.0, 3.0, inf])


@given(st.dictionaries(st.binary(max_size=2), SCORES), SCORES, SCORES, st.booleans(), st.booleans())
@settings(max_examples=200)
def test_ranges_by_score(model, low, high, without_low, without_high):
    value = SortedSet.of(model.items())
    wanted = [
        score
        for score in sorted(model.values())
        if (score > low if without_low else score >= low) and (score < high if without_high else score <= high)
    ]
    start, stop = value.positions(ScoreRange(low, high, without_low, without_high))
    assert [score for score, _ in value.pairs(start, stop)] == wanted


MEMBERS = st.one_of(st.none(), st.binary(max_size=2))


@given(st.sets(st.binary(max_size=2)), MEMBERS, MEMBERS, st.booleans(), st.booleans())
@settings(max_examples=200)
def test_ranges_by_member(members, low, high, without_low, without_high):
    value = SortedSet.of((member, 2.5) for member in members)
    wanted = [
        member
        for member in sorted(members)
        if low is not None
        and (member > low if without_low else member >= low)
        and (high is None or (member < high if without_high else member <= high))
    ]
    start, stop = value.positions(MemberRange(low, high, without_low, without_high))
    assert [member for _, member in value.pairs(start, stop)] == wanted


def test_encoding():
    assert numbered(SHORT_MEMBERS).encoding == "listpack"
    assert numbered(SHORT_MEMBERS + 1).encoding == "skiplist"
    assert SortedSet.of([(b"x" * 64, 1.0)]).encoding == "listpack"
    assert SortedSet.of([(b"x" * 65, 1.0)]).encoding == "skiplist"


@pytest.mark.parametrize("count", [5, 1000])
def test_memory_is_the_same_however_a_set_came_to_be(count):
    value = numbered(count)
    grown_bytes = value.memory_bytes
    for number in range(count):
        value.put(b"m%d" % number, 0.5)
    assert value.memory_bytes == grown_bytes
    assert abs(copy(value).memory_bytes - grown_bytes) <= grown_bytes * 0.1
    for number in range(count):
        value.remove(b"m%d" % number)
        value.put(b"m%d" % number, 1.0)
    # The dicts have grown for a moment; all else is as it was.
    assert value.memory_bytes - value._dict_bytes() == grown_bytes - numbered(count)._dict_bytes()


def test_a_member_is_kept_once():
    """An update keeps the object that is there, so that what was received twice does not take memory twice."""
    value = SortedSet()
    first, second = b"member 1", bytes(bytearray(b"member 1"))
    assert first is not second
    value.put(first, 1.0)
    value.put(second, 2.0)
    assert next(iter(value)) is first
    assert value.order[0][1] is first


# --- memory -----------------------------------------------------------------------------------------------------------

# Run in a process of its own, whose growth is nothing but the data.
PROGRAM = """
import gc, json, random, sys
from minidist.engines.keyspace.keyspace import Keyspace
from minidist.engines.keyspace.sortedsets import SortedSet

def rss_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

members, member_bytes = json.loads(sys.argv[1])
rng = random.Random(1)
keyspace = Keyspace(16, rng)
gc.disable()
number = 0
def load(until):
    global number
    while keyspace.used_bytes < until:
        number += 1
        value = SortedSet()
        for at in range(members):
            value.put(b"%0*d" % (member_bytes, rng.randrange(10**9)), rng.random())
        keyspace.databases[0].put(b"%012d" % number, value, 1_700_000_000_000)
load(20_000_000)
before, accounted = rss_bytes(), keyspace.used_bytes
load(80_000_000)
print(json.dumps([rss_bytes() - before, keyspace.used_bytes - accounted]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("members", "member_bytes"), [(5, 10), (100, 30), (1000, 12), (100_000, 16)])
def test_memory_within_15_percent_of_the_growth_of_the_process(members, member_bytes):
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([members, member_bytes])], capture_output=True, text=True, check=True
    )
    grown, accounted = json.loads(run.stdout)
    assert 0.85 <= accounted / grown <= 1.15, f"{accounted / grown:.3f}: accounted {accounted}, grown by {grown}"
