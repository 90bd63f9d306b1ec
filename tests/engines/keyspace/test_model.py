"""Strings, lifetimes and transactions against a model that is too simple to be wrong, in any order of commands."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

KEYS = st.sampled_from([b"a", b"b", b"{a}c"])
TEXTS = st.one_of(st.sampled_from([b"", b"1", b"-7", b"abc"]), st.binary(max_size=300))
AMOUNTS = st.integers(-5, 5)


def make(world_type):
    class Machine(RuleBasedStateMachine):
        """Model: key → (value, expires_ms or None). Two clients, of which the second only disturbs."""

        def __init__(self) -> None:
            super().__init__()
            self.world = world_type()
            self.client = self.world.client()
            self.other = self.world.client()
            self.model: dict[bytes, tuple[bytes, int | None]] = {}
            self.queue: list[tuple[bytes | int, ...]] | None = None
            self.watched: set[bytes] = set()
            self.disturbed = False

        # --- the model --------------------------------------------------------------------------------------------

        def live(self, key: bytes) -> tuple[bytes, int | None] | None:
            found = self.model.get(key)
            if found is not None and found[1] is not None and found[1] <= self.world.now_ms:
                del self.model[key]
                return None
            return found

        def expected(self, name: bytes, *args: bytes | int) -> bytes:
            """What the command must answer, and its effect on the model."""
            key = args[0]
            assert isinstance(key, bytes)
            found = self.live(key)
            now_ms = self.world.now_ms
            if name == b"GET":
                return b"$-1\r\n" if found is None else b"$%d\r\n%b\r\n" % (len(found[0]), found[0])
            if name == b"SET":
                assert isinstance(args[1], bytes)
                self.model[key] = (args[1], None)
                return b"+OK\r\n"
            if name == b"PSETEX":
                assert isinstance(args[1], int)
                assert isinstance(args[2], bytes)
                self.model[key] = (args[2], now_ms + args[1])
                return b"+OK\r\n"
            if name == b"APPEND":
                assert isinstance(args[1], bytes)
                before = found or (b"", None)
                self.model[key] = (before[0] + args[1], before[1])
                return b":%d\r\n" % len(self.model[key][0])
            if name == b"INCRBY":
                assert isinstance(args[1], int)
                before = found or (b"0", None)
                try:
                    if b"%d" % int(before[0]) != before[0]:
                        raise ValueError
                except ValueError:
                    return b"-ERR value is not an integer or out of range\r\n"
                value = b"%d" % (int(before[0]) + args[1])
                self.model[key] = (value, before[1])
                return b":%b\r\n" % value
            if name == b"PTTL":
                if found is None:
                    return b":-2\r\n"
                return b":-1\r\n" if found[1] is None else b":%d\r\n" % (found[1] - now_ms)
            if name == b"PEXPIRE":
                assert isinstance(args[1], int)
                if found is None:
                    return b":0\r\n"
                if args[1] <= 0:
                    del self.model[key]
                else:
                    self.model[key] = (found[0], now_ms + args[1])
                return b":1\r\n"
            assert name == b"DEL"
            self.model.pop(key, None)
            return b":%d\r\n" % (found is not None)

        # --- steps ------------------------------------------------------------------------------------------------

        def do(self, name: bytes, *args: bytes | int) -> None:
            if self.queue is not None:
                assert self.client.send(name, *args) == b"+QUEUED\r\n"
                self.queue.append((name, *args))
            else:
                before = dict(self.model)
                expected = self.expected(name, *args)
                assert self.client.send(name, *args) == expected
                self.note_changes(before)

        def note_changes(self, before: dict[bytes, tuple[bytes, int | None]]) -> None:
            self.disturbed |= any(before.get(key) != self.model.get(key) for key in self.watched)

        @rule(key=KEYS)
        def get(self, key: bytes) -> None:
            self.do(b"GET", key)

        @rule(key=KEYS, value=TEXTS)
        def set(self, key: bytes, value: bytes) -> None:
            if key in self.watched and self.queue is None:
                self.disturbed = True  # also when it sets what was there
            self.do(b"SET", key, value)

        @rule(key=KEYS, value=TEXTS, ms=st.integers(1, 300))
        def psetex(self, key: bytes, value: bytes, ms: int) -> None:
            if key in self.watched and self.queue is None:
                self.disturbed = True
            self.do(b"PSETEX", key, ms, value)

        @rule(key=KEYS, value=TEXTS)
        def append(self, key: bytes, value: bytes) -> None:
            if key in self.watched and self.queue is None:
                self.disturbed = True
            self.do(b"APPEND", key, value)

        @rule(key=KEYS, amount=AMOUNTS)
        def incrby(self, key: bytes, amount: int) -> None:
            if key in self.watched and self.queue is None and amount == 0:
                return
            self.do(b"INCRBY", key, amount)

        @rule(key=KEYS)
        def pttl(self, key: bytes) -> None:
            self.do(b"PTTL", key)

        @rule(key=KEYS, ms=st.integers(-5, 300))
        def pexpire(self, key: bytes, ms: int) -> None:
            if key in self.watched and self.queue is None and self.live(key) is not None:
                self.disturbed = True
            self.do(b"PEXPIRE", key, ms)

        @rule(key=KEYS)
        def delete(self, key: bytes) -> None:
            self.do(b"DEL", key)

        @rule(ms=st.integers(1, 200))
        def wait(self, ms: int) -> None:
            before = {key: self.live(key) for key in self.watched}
            self.world.wait(ms)
            self.disturbed |= any(before[key] is not None and self.live(key) is None for key in self.watched)

        @rule()
        @precondition(lambda self: self.queue is None)
        def multi(self) -> None:
            assert self.client.send(b"MULTI") == b"+OK\r\n"
            self.queue = []

        @rule(key=KEYS)
        @precondition(lambda self: self.queue is None)
        def watch(self, key: bytes) -> None:
            self.live(key)
            assert self.client.send(b"WATCH", key) == b"+OK\r\n"
            self.watched.add(key)

        @rule(key=KEYS, value=TEXTS)
        def disturb(self, key: bytes, value: bytes) -> None:
            assert self.other.send(b"SET", key, value) == b"+OK\r\n"
            self.model[key] = (value, None)
            self.disturbed |= key in self.watched

        @rule()
        @precondition(lambda self: self.queue is not None)
        def exec(self) -> None:
            assert self.queue is not None
            reply = self.client.send(b"EXEC")
            if self.disturbed:
                assert reply == b"*-1\r\n"
            else:
                replies = [self.expected(name, *args) for name, *args in self.queue]  # type: ignore[arg-type]
                assert reply == b"*%d\r\n" % len(replies) + b"".join(replies)
            self.leave()

        @rule()
        @precondition(lambda self: self.queue is not None)
        def discard(self) -> None:
            assert self.client.send(b"DISCARD") == b"+OK\r\n"
            self.leave()

        def leave(self) -> None:
            self.queue = None
            self.watched = set()
            self.disturbed = False

        @invariant()
        def counts_agree(self) -> None:
            live = sum(self.live(key) is not None for key in list(self.model))
            self.world.keyspace.expire_all(self.world.now_ms)
            assert self.world.keyspace.count == live

    return Machine


def test_any_order_of_commands(world):
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(make(type(world)), settings=settings(max_examples=100, stateful_step_count=40))
