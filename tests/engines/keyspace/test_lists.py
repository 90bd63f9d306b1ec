"""The list of blocks against a plain Python list; its memory; commands in any order against a model."""

import copy
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from minidist.engines.keyspace import lists
from minidist.engines.keyspace.lists import BLOCK_BYTES, ELEMENT_BYTES, LIST_BYTES, List

ELEMENTS = st.sampled_from([b"a", b"b", b"cc", b"", b"d" * 50])
INDEXES = st.floats(0, 1, exclude_max=True)


@pytest.fixture
def small_blocks(monkeypatch):
    """Short lists then have many blocks."""
    monkeypatch.setattr(lists, "BLOCK_ELEMENTS", 4)
    monkeypatch.setattr(lists, "MOST_JOINED_BLOCKS", 3)


class Machine(RuleBasedStateMachine):
    """The same operations on a List and on a list."""

    def __init__(self) -> None:
        super().__init__()
        self.list = List()
        self.model: list[bytes] = []

    def index(self, fraction: float) -> int:
        return int(fraction * len(self.model))

    @rule(elements=st.lists(ELEMENTS, max_size=12), left=st.booleans())
    def push(self, elements, left):
        for each in elements:
            if left:
                self.list.push_left(each)
                self.model.insert(0, each)
            else:
                self.list.push_right(each)
                self.model.append(each)

    @rule(count=st.integers(1, 5), left=st.booleans())
    def pop(self, count, left):
        for _ in range(min(count, len(self.model))):
            if left:
                assert self.list.pop_left() == self.model.pop(0)
            else:
                assert self.list.pop_right() == self.model.pop()

    @rule(at=INDEXES, element=ELEMENTS)
    def replace(self, at, element):
        if self.model:
            index = self.index(at)
            assert self.list[index] == self.model[index]
            self.list[index] = self.model[index] = element

    @rule(at=INDEXES, element=ELEMENTS)
    def insert(self, at, element):
        if self.model:
            self.list.insert(self.index(at), element)
            self.model.insert(self.index(at), element)

    @rule(element=ELEMENTS, most=st.integers(-3, 3))
    def remove(self, element, most):
        positions = [at for at, each in enumerate(self.model) if each == element]
        chosen = positions[most:] if most < 0 else positions[: most or None]
        assert self.list.remove(element, most) == len(chosen)
        self.model = [each for at, each in enumerate(self.model) if at not in chosen]

    @rule(start=INDEXES, stop=INDEXES)
    def trim(self, start, stop):
        start, stop = self.index(start), self.index(stop) + 1
        if self.model:
            self.list.trim(start, stop)
            self.model = self.model[start:stop] if start < stop else []

    @rule(start=INDEXES, stop=INDEXES, element=ELEMENTS)
    def look(self, start, stop, element):
        start, stop = self.index(start), self.index(stop)
        assert self.list.between(start, stop) == self.model[start:stop]
        assert self.list.index(element) == (self.model.index(element) if element in self.model else -1)

    @rule()
    def copy(self):
        before, self.list = self.list, copy.copy(self.list)
        before.push_right(b"only here")

    @invariant()
    def agrees(self):
        blocks = self.list._blocks
        assert len(self.list) == len(self.model)
        assert list(self.list) == self.model
        assert list(reversed(self.list)) == self.model[::-1]
        assert all(0 < len(block) <= 4 for block in blocks)
        weight = sum(map(len, self.model)) + ELEMENT_BYTES * len(self.model) + BLOCK_BYTES * len(blocks) + LIST_BYTES
        assert self.list.memory_bytes == weight


@pytest.mark.usefixtures("small_blocks")
def test_like_a_plain_list():
    run_state_machine_as_test(Machine, settings=settings(max_examples=100, stateful_step_count=40))


@pytest.mark.usefixtures("small_blocks")
def test_few_small_blocks_after_removing_one_by_one():
    value = List()
    for number in range(400):
        value.push_right(b"%d" % (number % 4 and number))
    for number in range(400):
        if number % 4:
            value.remove(b"%d" % number, 1)
    assert len(value) == 100
    assert len(value._blocks) <= 51


def test_encoding():
    value = List()
    for _ in range(100):
        value.push_right(b"x" * 40)
    assert value.encoding == "listpack"
    value.push_right(b"x" * 5000)
    assert value.encoding == "quicklist"


COMMANDS = st.one_of(
    st.tuples(st.sampled_from([b"LPUSH", b"RPUSH", b"LPUSHX", b"RPUSHX"]), st.sampled_from(b"k l".split()), ELEMENTS),
    st.tuples(st.sampled_from([b"LPOP", b"RPOP", b"LLEN"]), st.sampled_from(b"k l".split())),
    st.tuples(
        st.just(b"LMOVE"),
        *[st.sampled_from(b"k l".split())] * 2,
        *[st.sampled_from([b"LEFT", b"RIGHT"])] * 2,
    ),
    st.tuples(st.just(b"LRANGE"), st.sampled_from(b"k l".split()), *[st.integers(-9, 9)] * 2),
    st.tuples(st.just(b"LTRIM"), st.sampled_from(b"k l".split()), st.integers(-9, 4), st.integers(-3, 9)),
    st.tuples(st.just(b"LREM"), st.sampled_from(b"k l".split()), st.integers(-2, 2), ELEMENTS),
    st.tuples(st.just(b"LINSERT"), st.just(b"k"), st.sampled_from([b"BEFORE", b"AFTER"]), ELEMENTS, ELEMENTS),
)


def expected(model, name, key, *args):
    """The reply of a command as a Python value, and its effect on the model: key → list."""
    value = model.get(key, [])
    if name in (b"LPUSH", b"RPUSH", b"LPUSHX", b"RPUSHX"):
        if value or not name.endswith(b"X"):
            value = [args[0], *value] if name.startswith(b"L") else [*value, args[0]]
        reply = len(value)
    elif name in (b"LPOP", b"RPOP"):
        reply = (value[0] if name == b"LPOP" else value[-1]) if value else None
        value = value[1:] if name == b"LPOP" else value[:-1]
    elif name == b"LLEN":
        reply = len(value)
    elif name == b"LMOVE":
        destination, from_, to = args
        reply = (value[0] if from_ == b"LEFT" else value[-1]) if value else None
        if value:
            model[key] = value[1:] if from_ == b"LEFT" else value[:-1]
            target = model.get(destination, [])
            model[destination] = [reply, *target] if to == b"LEFT" else [*target, reply]
        return reply
    elif name == b"LINSERT":
        where, pivot, element = args
        reply = 0 if not value else -1
        if pivot in value:
            at = value.index(pivot) + (where == b"AFTER")
            value = [*value[:at], element, *value[at:]]
            reply = len(value)
    elif name == b"LREM":
        count, element = args
        at = [index for index, each in enumerate(value) if each == element]
        gone = at[count:] if count < 0 else at[: count or None]
        reply, value = len(gone), [each for index, each in enumerate(value) if index not in gone]
    else:
        start, stop = (index + len(value) * (index < 0) for index in args)
        reply = value[max(start, 0) : max(stop + 1, 0)]
        if name == b"LTRIM":
            reply, value = b"OK", reply
    model[key] = value
    return reply


@given(st.lists(COMMANDS, max_size=40))
@settings(max_examples=150)
def test_commands_in_any_order(world_type, commands):
    from minidist.wire.resp_client import ReplyReader

    world = world_type()
    client, model = world.client(), {}
    for command in commands:
        reader = ReplyReader()
        reader.feed(client.send(*command))
        assert reader.next() == expected(model, *command)
        model = {key: value for key, value in model.items() if value}
        assert world.keyspace.count == len(model)
    client.send("DEL", "k", "l")
    assert world.keyspace.used_bytes == 0


class TestEvents:
    @pytest.mark.parametrize(
        ("commands", "told"),
        [
            (["RPUSH k a b", "LPUSH k c", "RPUSHX k d"], "rpush lpush rpush"),
            (["RPUSH k a", "LPOP k"], "rpush lpop del"),
            (["RPUSH k a b", "RPOP k 1", "RPOP k 0"], "rpush rpop"),
            (["RPUSH k a b", "LMOVE k l LEFT RIGHT", "RPOPLPUSH k l"], "rpush rpush lpop lpush rpop del"),
            (["RPUSH k a", "LMOVE k k LEFT RIGHT"], "rpush rpush lpop"),
            (["RPUSH k a b", "LSET k 0 x", "LINSERT k BEFORE x y", "LINSERT k BEFORE z y"], "rpush lset linsert"),
            (["RPUSH k a b", "LREM k 0 z", "LREM k 0 a", "LREM k 0 b"], "rpush lrem lrem del"),
            (["RPUSH k a b", "LTRIM k 0 0", "LTRIM k 1 0", "LTRIM k 0 0"], "rpush ltrim ltrim del"),
            (["RPUSH k a b c", "LMPOP 1 k LEFT COUNT 2", "BLMPOP 0 1 k RIGHT"], "rpush lpop rpop del"),
            (["RPUSH k 2 1", "SORT k STORE l", "SORT nope STORE l"], "rpush sortstore del"),
        ],
        ids=lambda each: each if isinstance(each, str) else "",
    )
    def test_names(self, world, client, commands, told):
        heard = []
        world.keyspace.notified = (1 << 20) - 1
        world.keyspace.on_event = lambda number, kind, event, key: heard.append(event)
        for command in commands:
            client.send(*command.split())
        assert b" ".join(each for each in heard if each not in (b"new", b"keymiss")) == told.encode()


PROGRAM = """
from minidist.engines.keyspace.lists import List

elements, element_bytes, left = arguments
number = 0
def load(until):
    global number
    while keyspace.used_bytes < until:
        number += 1
        value = List()
        add = value.push_left if left else value.push_right
        for _ in range(elements):
            add(bytes(rng.randint(1, element_bytes * 2)))
        keyspace.databases[0].put(b"key:%012d" % number, value, 1_700_000_000_000)
"""


@pytest.mark.parametrize(
    ("elements", "element_bytes", "left"), [(1, 20, True), (5, 30, False), (100, 10, True), (100_000, 60, False)]
)
def test_memory_within_15_percent_of_the_growth_of_the_process(check_account, elements, element_bytes, left):
    check_account(PROGRAM, elements, element_bytes, left)


def test_a_million_elements_are_walked_by_blocks():
    """What a step costs, counted: blocks of a list that was pushed and popped at both ends stay few."""
    value, rng = List(), random.Random(1)
    for number in range(100_000):
        (value.push_left if rng.random() < 0.5 else value.push_right)(b"%d" % number)
        if rng.random() < 0.3:
            (value.pop_left if rng.random() < 0.5 else value.pop_right)()
    assert len(value._blocks) <= len(value) / lists.BLOCK_ELEMENTS + 2
