"""The strategies against a model: clients, a store that answers in any order or fails, keys that are evicted.

A request has two moments, drawn apart from each other: the store carries it out, and the answer arrives. Values are
numbered, so that a read says how old it is.
"""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from minidist.engines.caching.loads import Lifetimes
from minidist.engines.caching.requests import Failure, Found, Load
from minidist.engines.caching.strategy import Mode, Strategy
from minidist.engines.caching.write_behind import WriteBehind
from minidist.engines.keyspace.commands import all_commands
from minidist.engines.keyspace.outputs import Release
from minidist.engines.keyspace.service import Service
from minidist.engines.keyspace.tables import NEVER

KEYS = (b"a", b"b", b"c")
CLIENTS = 4
START_MS = 1_700_000_000_000


class Carrier:
    peer = local = "here"


class World(RuleBasedStateMachine):
    """What both machines have in common."""

    mode: Mode

    @initialize(seed=st.integers(0, 100), negative_ms=st.sampled_from([0, 50]), stale=st.booleans())
    def begin(self, seed, negative_ms, stale):
        self.service = Service(all_commands(), 2, random.Random(seed))
        behind = None
        if self.mode is Mode.WRITE_BEHIND:
            behind = WriteBehind(lag_ms=20, limit_bytes=1 << 20, at_once=2, rng=random.Random(seed))
        lifetimes = Lifetimes(100 if stale else 0, negative_ms, 10, 100 if stale else 0, 20 if stale else 0)
        self.strategy = Strategy(
            self.service, "store", self.mode, lifetimes, load_limit=100, behind=behind, rng=random.Random(seed)
        )
        self.sessions = [self.service.open(Carrier(), START_MS) for _ in range(CLIENTS)]
        self.now_ms = 0
        self.store = {}
        self.asked = []  # not carried out
        self.answered = []  # (request, answer), carried out
        self.late = []  # given up, and still on their way
        self.number = 0
        self.history()
        self.doing = dict.fromkeys(self.sessions)  # what each client waits for: a function of its reply

    # --- doing ------------------------------------------------------------------------------------------------------

    def step(self):
        """Replies that were released, and new requests."""
        while self.service.outbox:
            outputs, self.service.outbox = self.service.outbox, []
            for output in outputs:
                if isinstance(output, Release):
                    check, self.doing[output.session] = self.doing[output.session], None
                    check(output.reply)
        self.asked += self.strategy.take(self.now_ms)

    def run_command(self, session, words, check):
        done, reply = self.service.run(session, [words], START_MS + self.now_ms)
        assert done == 1
        if session.wait is None:
            check(reply)
        else:
            assert reply == b""
            self.doing[session] = check
        self.step()

    def idle(self):
        return [session for session in self.sessions if session.wait is None]

    @precondition(lambda self: self.idle())
    @rule(data=st.data(), key=st.sampled_from(KEYS))
    def read(self, data, key):
        session = data.draw(st.sampled_from(range(len(self.idle()))))
        self.run_command(self.idle()[session], (b"GET", key), self.reader([key], lambda reply: [value_of(reply)]))

    @precondition(lambda self: self.idle())
    @rule(data=st.data(), keys=st.permutations(KEYS))
    def read_several(self, data, keys):
        session = data.draw(st.sampled_from(range(len(self.idle()))))
        self.run_command(self.idle()[session], (b"MGET", *keys), self.reader(keys, values_of))

    @precondition(lambda self: self.idle())
    @rule(data=st.data(), key=st.sampled_from(KEYS), deletes=st.booleans())
    def write(self, data, key, deletes):
        session = self.idle()[data.draw(st.sampled_from(range(len(self.idle()))))]
        self.number += 1
        value = None if deletes else b"%d" % self.number
        words = (b"DEL", key) if deletes else (b"SET", key, value)
        self.run_command(session, words, self.writer(key, value))

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), outcome=st.sampled_from(["well", "well", "well", "refused", "lost", "late"]))
    def carry_out(self, data, outcome):
        request = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1)))
        if outcome == "late" and self.mode is Mode.WRITE_THROUGH and not isinstance(request, Load):
            self.answered.append((request, Failure("timed out", True, lingers=True)))
            self.late.append(request)
            return
        if outcome == "refused":
            self.answered.append((request, Failure("refused")))
            return
        answer = self.effect(request)
        self.answered.append((request, Failure("lost", True) if outcome == "lost" else answer))

    def effect(self, request):
        if isinstance(request, Load):
            value = self.store.get(request.key)
            return None if value is None else Found(value)
        if request.value is None:
            self.store.pop(request.key, None)
        else:
            self.store[request.key] = request.value
        return None

    @precondition(lambda self: self.given_up())
    @rule(data=st.data(), takes_effect=st.booleans())
    def end_late(self, data, takes_effect):
        request = data.draw(st.sampled_from(self.given_up()))
        self.late.remove(request)
        if takes_effect:
            self.effect(request)
        self.strategy.ended(request, START_MS + self.now_ms)
        self.step()

    def given_up(self):
        told = [request for request, _ in self.answered]
        return [request for request in self.late if request not in told]

    @precondition(lambda self: self.answered)
    @rule(data=st.data())
    def arrive(self, data):
        request, answer = self.answered.pop(data.draw(st.integers(0, len(self.answered) - 1)))
        if isinstance(request, Load):
            self.strategy.loaded(request, answer, START_MS + self.now_ms)
        else:
            self.strategy.stored(request, answer, self.now_ms, START_MS + self.now_ms)
        self.step()

    @rule(key=st.sampled_from(KEYS))
    def evict(self, key):
        self.strategy.database.remove(key, lost=True)

    @precondition(lambda self: self.idle())
    @rule()
    def flush(self):
        self.run_command(self.idle()[0], (b"FLUSHALL",), lambda reply: None)

    @rule(by_ms=st.sampled_from([1, 30, 120]))
    def wait(self, by_ms):
        self.now_ms += by_ms
        self.step()

    # --- judging ----------------------------------------------------------------------------------------------------

    @invariant()
    def nobody_waits_for_nothing(self):
        if hasattr(self, "sessions") and not self.asked and not self.answered and not self.late:
            assert len(self.idle()) == CLIENTS

    def settle(self):
        """Everything ends well."""
        for _ in range(10_000):
            self.step()
            if not self.asked and not self.answered and not self.late and not self.strategy.unwritten:
                return
            self.now_ms += 1
            self.answered += [(request, self.effect(request)) for request in self.asked]
            self.asked = []
            for request in self.given_up():
                self.late.remove(request)
                self.effect(request)
                self.strategy.ended(request, START_MS + self.now_ms)
            answered, self.answered = self.answered, []
            for request, answer in answered:
                if isinstance(request, Load):
                    self.strategy.loaded(request, answer, START_MS + self.now_ms)
                else:
                    self.strategy.stored(request, answer, self.now_ms, START_MS + self.now_ms)
        raise AssertionError("does not come to an end")

    def teardown(self):
        if not hasattr(self, "sessions"):
            return
        self.settle()
        assert len(self.idle()) == CLIENTS
        assert self.strategy.loading == 0
        assert not self.service.waiting.count
        self.judge()


def value_of(reply):
    """The value, None, or an Exception for an error."""
    if reply.startswith(b"-"):
        return ValueError(reply)
    return None if reply == b"$-1\r\n" else reply.split(b"\r\n")[1]


def values_of(reply):
    if reply.startswith(b"-"):
        return None
    values, rest = [], reply.partition(b"\r\n")[2]
    while rest:
        if rest.startswith(b"$-1\r\n"):
            values.append(None)
            rest = rest[5:]
        else:
            _, value, rest = rest.split(b"\r\n", 2)
            values.append(value)
    return values


class WriteThroughWorld(World):
    """A read is never older than the last write that was acknowledged before it began."""

    mode = Mode.WRITE_THROUGH

    def history(self):
        self.acknowledged = dict.fromkeys(KEYS, 0)  # number of the last one
        self.deletes = {key: [0] for key in KEYS}

    def reader(self, keys, values):
        bounds = {key: self.acknowledged[key] for key in keys}

        def check(reply):
            for key, value in zip(keys, values(reply) or (), strict=False):
                if isinstance(value, ValueError):
                    continue
                age = max(self.deletes[key]) if value is None else int(value)
                assert age >= bounds[key], f"{key} is of {age}, and {bounds[key]} was acknowledged before"

        return check

    def writer(self, key, value):
        number = self.number
        if value is None:
            self.deletes[key].append(number)

        def check(reply):
            if not reply.startswith(b"-"):
                assert self.store.get(key) == value
                self.acknowledged[key] = max(self.acknowledged[key], number)

        return check

    def judge(self):
        for key in KEYS:
            entry = self.strategy.database.peek(key, START_MS + self.now_ms)
            assert entry is None or entry.value == self.store.get(key)


class WriteBehindWorld(World):
    """A read sees the last write; the store has the last write of each key in the end."""

    mode = Mode.WRITE_BEHIND

    def history(self):
        self.current = {}

    def reader(self, keys, values):
        def check(reply):
            found = values(reply)
            if found is None or isinstance(found[0], ValueError):
                return
            assert found == [self.current.get(key) for key in keys]

        return check

    def writer(self, key, value):
        self.current[key] = value

        def check(reply):
            assert not reply.startswith(b"-")

        return check

    @invariant()
    def what_waits_is_accounted_for(self):
        if hasattr(self, "sessions"):
            behind = self.strategy.behind
            queues = (behind._queued, behind._under_way)
            assert behind.queued_bytes == sum(each.held_bytes for queue in queues for each in queue.values())
            assert len(behind._under_way) <= behind.at_once

    def judge(self):
        assert self.store == {k: v for k, v in self.current.items() if v}
        assert self.strategy.behind.queued_bytes == 0
        assert self.strategy.alarm_ms == NEVER


TestWriteThrough = WriteThroughWorld.TestCase
TestWriteThrough.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestWriteBehind = WriteBehindWorld.TestCase
TestWriteBehind.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_what_there_is_no_room_for_is_not_remembered_for_renewal():
    """Its client has left, so nobody drops the key later."""
    service = Service(all_commands(), 1, random.Random(1))
    lifetimes = Lifetimes(load_ttl_ms=1000, ahead_percent=20)
    strategy = Strategy(
        service, "store", Mode.READ_THROUGH, lifetimes, load_limit=10, behind=None, rng=random.Random(1)
    )
    session = service.open(Carrier(), START_MS)
    service.keyspace.limit(1)
    service.run(session, [(b"GET", b"k")], START_MS)
    service.close(session)
    (load,) = strategy.take(0)
    strategy.database.put(b"other", b"x", START_MS)
    strategy.loaded(load, Found(b"value"), START_MS)
    assert strategy.database.peek(b"k", START_MS) is None
    assert not strategy.loads.renewals
