"""Sorted-set commands: against a real server, against a model, one by one, and while others wait."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace import events
from minidist.engines.keyspace.outputs import Release

# --- any of them, in any order ---------------------------------------------------------------------------------------

KEYS = st.sampled_from([b"a", b"b"])
NAMES = st.sampled_from([b"x", b"y", b"z", b"", b"\xff"])
NUMBERS = st.sampled_from([b"-inf", b"-2", b"0", b"0.5", b"1", b"2", b"3.25", b"inf"])
LIMITS = st.one_of(NUMBERS, NUMBERS.map(lambda text: b"(" + text))
INDEXES = st.integers(-7, 7).map(lambda number: b"%d" % number)
BOUNDS = st.one_of(
    st.sampled_from([b"-", b"+"]), st.builds(lambda *each: b"".join(each), st.sampled_from([b"(", b"["]), NAMES)
)
PAIRS = st.lists(st.tuples(NUMBERS, NAMES), min_size=1, max_size=4).map(
    lambda pairs: [x for pair in pairs for x in pair]
)
WORDS = st.lists(st.sampled_from([b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"]), max_size=2)
PAGE = st.one_of(st.just([]), st.tuples(st.just(b"LIMIT"), INDEXES, INDEXES).map(list))
WITH = st.sampled_from([[], [b"WITHSCORES"]])


def words(name: bytes, *parts: Any) -> st.SearchStrategy[list[bytes]]:
    """Commands made of words and of lists of words."""
    joined = st.tuples(*[part if isinstance(part, st.SearchStrategy) else st.just(part) for part in parts])
    return joined.map(
        lambda each: [name, *[word for part in each for word in (part if isinstance(part, list) else [part])]]
    )


SOURCES = st.lists(st.sampled_from([b"a", b"b", b"same", b"set", b"nope"]), min_size=1, max_size=3)
COUNTED = SOURCES.map(lambda keys: [b"%d" % len(keys), *keys])
WEIGHED = st.one_of(
    COUNTED,
    SOURCES.flatmap(
        lambda keys: st.tuples(
            st.lists(NUMBERS, min_size=len(keys), max_size=len(keys)), st.sampled_from([b"SUM", b"MIN", b"MAX"])
        ).map(lambda each: [b"%d" % len(keys), *keys, b"WEIGHTS", *each[0], b"AGGREGATE", each[1]])
    ),
)
COMMANDS = st.one_of(
    words(b"ZADD", KEYS, WORDS, PAIRS),
    words(b"ZADD", b"same", b"0", NAMES),
    words(b"SADD", b"set", NAMES),
    words(b"ZINCRBY", KEYS, NUMBERS, NAMES),
    words(b"ZREM", KEYS, NAMES, NAMES),
    words(b"ZSCORE", KEYS, NAMES),
    words(b"ZMSCORE", KEYS, NAMES, NAMES),
    words(b"ZRANK", KEYS, NAMES),
    words(b"ZREVRANK", KEYS, NAMES),
    words(b"ZCARD", KEYS),
    words(b"ZCOUNT", KEYS, LIMITS, LIMITS),
    words(b"ZLEXCOUNT", b"same", BOUNDS, BOUNDS),
    words(b"ZRANGE", KEYS, INDEXES, INDEXES, st.sampled_from([[], [b"REV"]]), WITH),
    words(b"ZRANGE", KEYS, LIMITS, LIMITS, b"BYSCORE", st.sampled_from([[], [b"REV"]]), WITH, PAGE),
    words(b"ZRANGE", b"same", BOUNDS, BOUNDS, b"BYLEX", st.sampled_from([[], [b"REV"]]), PAGE),
    words(b"ZREVRANGE", KEYS, INDEXES, INDEXES, WITH),
    words(b"ZRANGEBYSCORE", KEYS, LIMITS, LIMITS, WITH, PAGE),
    words(b"ZREVRANGEBYSCORE", KEYS, LIMITS, LIMITS, WITH, PAGE),
    words(b"ZRANGEBYLEX", b"same", BOUNDS, BOUNDS, PAGE),
    words(b"ZREVRANGEBYLEX", b"same", BOUNDS, BOUNDS, PAGE),
    words(b"ZRANGESTORE", KEYS, KEYS, INDEXES, INDEXES),
    words(b"ZRANGESTORE", KEYS, KEYS, LIMITS, LIMITS, b"BYSCORE", PAGE),
    words(b"ZREMRANGEBYRANK", KEYS, INDEXES, INDEXES),
    words(b"ZREMRANGEBYSCORE", KEYS, LIMITS, LIMITS),
    words(b"ZREMRANGEBYLEX", b"same", BOUNDS, BOUNDS),
    words(b"ZPOPMIN", KEYS, INDEXES),
    words(b"ZPOPMAX", KEYS),
    words(b"ZMPOP", COUNTED, st.sampled_from([b"MIN", b"MAX"]), b"COUNT", INDEXES),
    words(b"ZUNION", WEIGHED, WITH),
    words(b"ZINTER", WEIGHED, WITH),
    words(b"ZDIFF", COUNTED, WITH),
    words(b"ZUNIONSTORE", KEYS, WEIGHED),
    words(b"ZINTERSTORE", KEYS, WEIGHED),
    words(b"ZDIFFSTORE", KEYS, COUNTED),
    words(b"ZINTERCARD", COUNTED),
    words(b"EXISTS", KEYS),
)  # fmt: skip


@pytest.fixture(scope="module")
def redis(redis_client):
    """A client of a real server, for all examples."""
    return redis_client()


@given(st.lists(COMMANDS, max_size=40), st.booleans())
@settings(max_examples=200, deadline=None)
def test_replies_are_those_of_a_real_server(redis, world_type, commands, crowded):
    """`crowded` sets hold so much besides that neither server keeps them in one piece.

    A score of -0 becomes 0 in our sets, and in Redis' small ones; its large ones keep it.
    """
    client = world_type().client()
    redis.show(b"FLUSHALL")
    fillers = [word for number in range(200) for word in (b"%d" % (number // 8), b"f%03d" % number)]
    before = [[b"ZADD", b"a", *fillers], [b"ZADD", b"b", *fillers[:300]]] if crowded else []
    for command in [*before, *commands]:
        ours, theirs = client.show(*command), redis.show(*command)
        if crowded:
            ours, theirs = ours.replace('"-0"', '"0"'), theirs.replace('"-0"', '"0"')
        assert ours == theirs, command


@given(st.lists(COMMANDS, max_size=60))
@settings(max_examples=100, deadline=None)
def test_the_account_is_exact_when_all_is_gone(world_type, commands):
    world = world_type()
    client = world.client()
    for command in commands:
        client.send(*command)
    for key in (b"a", b"b", b"same", b"set"):
        client.send(b"ZREMRANGEBYRANK", key, 0, -1)
    client.send(b"DEL", b"set")
    assert world.keyspace.count == 0
    assert world.keyspace.used_bytes == 0


@given(
    st.lists(st.tuples(st.sampled_from(["add", "remove", "increment", "pop"]), NAMES, st.integers(-3, 3)), max_size=40)
)
@settings(max_examples=100, deadline=None)
def test_a_leaderboard(world_type, steps):
    client = world_type().client()
    model: dict[bytes, int] = {}
    for what, name, points in steps:
        known = name in model
        if what == "add":
            model[name] = points
            assert client.show("ZADD", "board", points, name) == str(int(not known))
        elif what == "increment":
            model[name] = model.get(name, 0) + points
            assert client.show("ZINCRBY", "board", points, name) == f'"{model[name]}"'
        elif what == "remove":
            model.pop(name, None)
            assert client.show("ZREM", "board", name) == str(int(known))
        elif model:
            highest = max(model, key=lambda each: (model[each], each))
            reply = client.send("ZPOPMAX", "board")
            assert reply == b"*2\r\n$%d\r\n%b\r\n$%d\r\n%d\r\n" % (
                len(highest), highest, len(str(model[highest])), model.pop(highest),
            )  # fmt: skip
        order = sorted(model, key=lambda each: (model[each], each))
        reply = b"*%d\r\n" % len(order) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in order)
        assert client.send("ZRANGE", "board", 0, -1) == reply


# --- commands, one by one ---------------------------------------------------------------------------------------------


def test_rank_with_score_as_in_72(client):
    client.send("ZADD", "z", "1.5", "a", "2", "b")
    assert client.show("ZRANK", "z", "b", "WITHSCORE") == '[1, "2"]'
    assert client.show("ZREVRANK", "z", "b", "withscore") == '[0, "2"]'
    assert client.send("ZRANK", "z", "c", "WITHSCORE") == b"*-1\r\n"
    assert client.send("ZRANK", "nope", "c", "WITHSCORE") == b"*-1\r\n"
    assert client.show("ZRANK", "z", "a", "FOO") == "!ERR syntax error"
    assert client.show("ZRANK", "z", "a", "WITHSCORE", "x") == "!ERR wrong number of arguments for 'zrank' command"
    client.session.speak(True)
    assert client.send("ZRANK", "z", "a", "WITHSCORE") == b"*2\r\n:0\r\n,1.5\r\n"
    assert client.send("ZRANK", "z", "c", "WITHSCORE") == b"_\r\n"


def test_random_members(client):
    client.send("ZADD", "z", *[word for number in range(300) for word in (number, number)])
    assert client.show("ZRANDMEMBER", "z").strip('"').isdigit()
    distinct = client.show("ZRANDMEMBER", "z", 100).strip("[]").split(", ")
    assert len(set(distinct)) == 100
    assert len(client.show("ZRANDMEMBER", "z", 1000).split(", ")) == 300
    repeated = client.show("ZRANDMEMBER", "z", -1000).strip("[]").split(", ")
    assert len(repeated) == 1000
    assert len(set(repeated)) > 200
    paired = client.show("ZRANDMEMBER", "z", 50, "WITHSCORES").strip("[]").split(", ")
    assert paired[::2] == paired[1::2]
    assert client.show("ZRANDMEMBER", "z", -(10**12)) == "!ERR value is out of range"


def scanned(client, *options: object) -> Iterator[list[bytes]]:
    """The steps of a ZSCAN of `z`: members only."""
    cursor = b"0"
    while True:
        lines = client.send("ZSCAN", "z", cursor, *options).split(b"\r\n")
        cursor = lines[2]
        yield lines[5::4]
        if cursor == b"0":
            return


def test_a_scan_misses_nothing_that_is_there_throughout(client):
    rng = random.Random(1)
    for number in range(3000):
        client.send("ZADD", "z", number, f"keep{number}")
    found: set[bytes] = set()
    steps = 0
    for members in scanned(client, "COUNT", 50):
        found.update(members)
        steps += 1
        for number in rng.sample(range(20_000), 400):
            client.send("ZADD", "z", rng.random(), f"other{number}")
        for number in rng.sample(range(20_000), 300):
            client.send("ZREM", "z", f"other{number}")
        for number in rng.sample(range(3000), 20):
            client.send("ZADD", "z", rng.random(), f"keep{number}")  # elsewhere in the order, but not in the scan
    assert {b"keep%d" % number for number in range(3000)} <= found
    assert steps > 10
    assert {name for step in scanned(client, "MATCH", "keep1?") for name in step} == {
        b"keep1%d" % at for at in range(10)
    }


def test_events(client, world):
    heard: list[tuple[int, bytes, bytes]] = []
    world.keyspace.notified = events.ALL
    world.keyspace.on_event = lambda number, kind, event, key: heard.append((kind, event, key))
    for command in (
        "ZADD z 1 a 2 b 3 c 4 d 5 e 6 f", "ZADD z 1 a", "ZADD z XX 1 nope", "ZINCRBY z 1 a", "ZINCRBY z 0 a",
        "ZADD z INCR 2 a", "ZREM z a", "ZREM z a", "ZREMRANGEBYRANK z 0 0", "ZREMRANGEBYSCORE z 3 3",
        "ZREMRANGEBYSCORE z 3 3", "ZPOPMIN z", "ZPOPMAX z", "ZPOPMAX z 0", "ZRANGESTORE y z 0 -1",
        "ZUNIONSTORE x 1 y", "ZINTERSTORE x 2 x nope", "ZDIFFSTORE x 1 nope", "ZMPOP 1 z MAX", "BZPOPMIN y 0",
    ):  # fmt: skip
        client.send(*command.split())
    kinds = {kind for kind, event, _ in heard if event != b"del"}
    assert kinds == {events.SORTED_SET}
    assert [(event, key) for _, event, key in heard] == [
        (b"zadd", b"z"), (b"zincr", b"z"), (b"zincr", b"z"), (b"zrem", b"z"), (b"zremrangebyrank", b"z"),
        (b"zremrangebyscore", b"z"), (b"zpopmin", b"z"), (b"zpopmax", b"z"), (b"zrangestore", b"y"),
        (b"zunionstore", b"x"), (b"del", b"x"), (b"zpopmax", b"z"), (b"del", b"z"), (b"zpopmin", b"y"), (b"del", b"y"),
    ]  # fmt: skip


def test_nothing_changes_when_a_command_fails(client, world):
    client.send("ZADD", "z", "inf", "a")
    client.send("SET", "text", "x")
    used_bytes = world.keyspace.used_bytes
    for command in (
        "ZADD z 1 b x c", "ZADD new x a", "ZADD new NX XX 1 a", "ZINCRBY z -inf a", "ZINCRBY new nan a",
        "ZUNIONSTORE z 2 z text", "ZINTERSTORE text 2 z text", "ZRANGESTORE z text 0 -1", "ZRANGESTORE text z 0 x",
        "ZREMRANGEBYSCORE z 0 x", "ZMPOP 2 text z MIN", "ZPOPMIN z x",
    ):  # fmt: skip
        assert client.show(*command.split()).startswith("!"), command
    assert client.show("ZRANGE", "z", 0, -1, "WITHSCORES") == '["a", "inf"]'
    assert client.show("GET", "text") == '"x"'
    assert client.show("DBSIZE") == "2"
    assert world.keyspace.used_bytes == used_bytes


def test_watches_see_changes_and_only_those(world):
    one, two = world.client(), world.client()
    two.send("ZADD", "z", 1, "a", 2, "b")
    for command, changed in (
        ("ZADD z 1 a", False), ("ZADD z XX 1 c", False), ("ZREM z c", False), ("ZRANGE z 0 -1", False),
        ("ZREMRANGEBYRANK z 5 6", False), ("ZADD z 3 a", True), ("ZPOPMIN z", True), ("ZRANGESTORE z z 0 -1", True),
    ):  # fmt: skip
        one.send("WATCH", "z")
        two.send(*command.split())
        one.send("MULTI")
        one.send("PING")
        assert (one.show("EXEC") == "nil") is changed, command


# --- waiting ----------------------------------------------------------------------------------------------------------


def released(world) -> list[tuple[Any, bytes]]:
    found = [(each.session, each.reply) for each in world.service.outbox if isinstance(each, Release)]
    world.service.outbox.clear()
    return found


def test_who_waits_longest_gets_the_first(world):
    first, second, third, other = (world.client() for _ in range(4))
    assert first.send("BZPOPMIN", "z", 0) == b""
    assert second.send("BZPOPMAX", "y", "z", 0) == b""
    assert third.send("BZMPOP", 0, 2, "y", "z", "MIN", "COUNT", 2) == b""
    assert other.show("ZADD", "z", 1, "a", 2, "b", 3, "c", 4, "d", 5, "e") == "5"
    assert released(world) == [
        (first.session, b"*3\r\n$1\r\nz\r\n$1\r\na\r\n$1\r\n1\r\n"),
        (second.session, b"*3\r\n$1\r\nz\r\n$1\r\ne\r\n$1\r\n5\r\n"),
        (third.session, b"*2\r\n$1\r\nz\r\n*2\r\n*2\r\n$1\r\nb\r\n$1\r\n2\r\n*2\r\n$1\r\nc\r\n$1\r\n3\r\n"),
    ]
    assert other.show("ZRANGE", "z", 0, -1) == '["d"]'


@pytest.mark.parametrize(
    "command",
    [
        "ZADD z 1 a",
        "ZINCRBY z 1 a",
        "ZUNIONSTORE z 1 source",
        "ZRANGESTORE z source 0 -1",
        "COPY source z",
        "RENAME source z",
    ],
)
def test_whatever_fills_the_key_wakes(world, command):
    waiting, other = world.client(), world.client()
    waiting.session.speak(True)
    other.send("ZADD", "source", 1, "a")
    waiting.send("BZPOPMIN", "z", 0)
    other.send(*command.split())
    assert released(world) == [(waiting.session, b"*3\r\n$1\r\nz\r\n$1\r\na\r\n,1\r\n")]
    assert other.show("EXISTS", "z") == "0"


def test_other_types_do_not_wake_and_time_runs_out(world):
    waiting, other = world.client(), world.client()
    assert waiting.send("BZPOPMIN", "z", "1.5") == b""
    other.send("SET", "z", "x")
    other.send("DEL", "z")
    world.wait(1499)
    assert released(world) == []
    world.wait(1)
    assert released(world) == [(waiting.session, b"*-1\r\n")]
    other.send("ZADD", "z", 1, "a")
    assert released(world) == []
    assert other.show("ZCARD", "z") == "1"


def test_a_transaction_is_served_when_it_is_over(world):
    waiting, other = world.client(), world.client()
    waiting.send("BZPOPMAX", "z", 0)
    for command in ("MULTI", "ZADD z 1 a", "ZADD z 2 b", "ZREM z b", "EXEC"):
        assert released(world) == []
        other.send(*command.split())
    assert released(world) == [(waiting.session, b"*3\r\n$1\r\nz\r\n$1\r\na\r\n$1\r\n1\r\n")]


TIMEOUTS = dict.fromkeys(("x", "", "nan", "1 "), "not a float or out of range")
TIMEOUTS |= dict.fromkeys(("-1", "-.5", "-inf"), "negative")
TIMEOUTS |= dict.fromkeys(("inf", "1e300"), "out of range")


@pytest.mark.parametrize("text", TIMEOUTS)
def test_timeouts_that_are_none(client, text):
    problem = f"!ERR timeout is {TIMEOUTS[text]}"
    assert client.show("BZPOPMIN", "z", text) == problem
    assert client.show("BZMPOP", text, 1, "z", "MIN") == problem
