"""Hashes, sets, sorted sets and streams against a model of each, with one writer and many readers per key.

minidist sim tests/sim/cache/cache_types.py --seeds 1..300 --faults random --duration 30s

A writer knows what its key holds after each of its operations (some of them two commands in a transaction), so the
states of a key are a list. What must hold in each life of the node (cache_clients.py says what that is):

* the writer is answered as its model says: how many fields were new, which number came out;
* whoever reads the whole key sees one of the states: not one from before an operation that had ended when the read
  began, not one that was not asked for yet, and not an older one than a read before it saw.

After an operation in doubt the writer takes a new key. The fault `reply` is left out, as in cache_strings.py.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from cache_clients import Client, Deed, Stage

WRITERS, READERS = 4, 3
MEMBERS = 8
State = Any
# One write: what is sent (through a pipeline), what the server should say, and the state afterwards.
Write = tuple[Callable[[Any], Any], Any, State]


class Model:
    """The values of one type: writes that a writer draws, and reads of the whole. The states are plain Python."""

    empty: ClassVar[State] = {}

    def __init__(self, rng: Any) -> None:
        self.random = rng

    def member(self) -> str:
        return f"m{self.random.randrange(MEMBERS)}"

    def draw(self, key: str, state: State, value: int) -> Write:
        raise NotImplementedError

    @staticmethod
    async def read(redis: Any, key: str) -> State:
        raise NotImplementedError


class Hashes(Model):
    def draw(self, key: str, state: State, value: int) -> Write:
        field, after = self.member(), dict(state)
        chance = self.random.random()
        if chance < 0.4:
            other = self.member()
            after |= {field: str(value), other: str(value)}
            return lambda r: r.hset(key, mapping={field: value, other: value}), len(after) - len(state), after
        if chance < 0.7:
            after[field] = str(int(state.get(field, 0)) + value)
            return lambda r: r.hincrby(key, field, value), int(after[field]), after
        after.pop(field, None)
        return lambda r: r.hdel(key, field), len(state) - len(after), after

    @staticmethod
    async def read(redis: Any, key: str) -> State:
        return await redis.hgetall(key)


class Sets(Model):
    def draw(self, key: str, state: State, value: int) -> Write:
        members = {self.member(), self.member()}
        if self.random.random() < 0.55:
            after = sorted({*state, *members})
            return lambda r: r.sadd(key, *sorted(members)), len(after) - len(state), after
        after = sorted({*state} - members)
        return lambda r: r.srem(key, *sorted(members)), len(state) - len(after), after

    empty: ClassVar[State] = []

    @staticmethod
    async def read(redis: Any, key: str) -> State:
        return sorted(await redis.smembers(key))


class SortedSets(Model):
    def draw(self, key: str, state: State, value: int) -> Write:
        member, after = self.member(), dict(state)
        chance = self.random.random()
        if chance < 0.4:
            other = self.member()
            after |= {member: float(value % 7), other: float(value % 7)}
            mapping = {member: value % 7, other: value % 7}
            return lambda r: r.zadd(key, mapping), len(after) - len(state), after
        if chance < 0.7:
            after[member] = state.get(member, 0.0) + 1
            return lambda r: r.zincrby(key, 1, member), after[member], after
        after.pop(member, None)
        return lambda r: r.zrem(key, member), len(state) - len(after), after

    @staticmethod
    async def read(redis: Any, key: str) -> State:
        pairs = [(score, member) for member, score in await redis.zrange(key, 0, -1, withscores=True)]
        if pairs != sorted(pairs):
            raise AssertionError(f"{key} is not sorted: {pairs}")
        return {member: score for score, member in pairs}


class Streams(Model):
    """The state is the values of the entries; ids are the server's, and checked to grow."""

    empty: ClassVar[State] = []

    def draw(self, key: str, state: State, value: int) -> Write:
        if self.random.random() < 0.8:
            return lambda r: r.xadd(key, {"e": value}), None, [*state, str(value)]
        most = self.random.randrange(1, 6)
        after = state[-most:]
        return lambda r: r.xtrim(key, maxlen=most, approximate=False), len(state) - len(after), after

    @staticmethod
    async def read(redis: Any, key: str) -> State:
        entries = await redis.xrange(key)
        ids = [tuple(map(int, entry_id.split("-"))) for entry_id, _ in entries]
        if ids != sorted(set(ids)):
            raise AssertionError(f"the ids of {key} do not grow: {ids}")
        return [fields["e"] for _, fields in entries]


TYPES: dict[str, type[Model]] = {"hash": Hashes, "set": Sets, "zset": SortedSets, "stream": Streams}


class Writer(Client):
    """Writes to keys of its own, one of each type; all its operations are in `deeds`, with the state after it."""

    def __init__(self, stage: Stage, name: str) -> None:
        super().__init__(stage, name)
        self.models = {name: kind(self.random) for name, kind in TYPES.items()}
        self.doubts = dict.fromkeys(TYPES, 0)
        self.states: dict[tuple[str, int], State] = {}  # by key and life

    def key(self, kind: str) -> str:
        return f"{kind}-{self.name}-{self.doubts[kind]}"

    async def step(self) -> None:
        assert self.link is not None
        kind = self.random.choice(list(TYPES))
        key, model = self.key(kind), self.models[kind]
        before = self.states.get((key, self.link.life), model.empty)
        writes = [model.draw(key, before, self.stage.next_value())]
        if self.random.random() < 0.3:
            writes.append(model.draw(key, writes[0][2], self.stage.next_value()))

        async def write(redis: Any) -> list[Any]:
            if len(writes) == 1:
                return [await writes[0][0](redis)]
            async with redis.pipeline(transaction=True) as pipe:
                for send, _, _ in writes:
                    send(pipe)
                return list(await pipe.execute())

        after = writes[-1][2]
        done = await self.do("write", key, write, copy.copy(after))
        expected = [answer for _, answer, _ in writes]
        if done.is_ok:
            self.states[key, done.life] = after
            given = [None if answer is None else reply for answer, reply in zip(expected, done.result, strict=True)]
            if given != expected:
                self.sim.fail(f"answered {given} instead of {expected}: {done}")
        elif done.may_have_happened:
            self.doubts[kind] += 1


class Reader(Client):
    """Reads whole keys of all writers."""

    think_s = (0.0, 0.1)

    async def step(self) -> None:
        writer = self.random.choice([each for each in self.stage.clients if isinstance(each, Writer)])
        kind = self.random.choice(list(TYPES))
        key = writer.key(kind)
        await self.do("read", key, lambda redis: TYPES[kind].read(redis, key))


def prefix_consistent(writes: list[Deed], reads: list[Deed], empty: State) -> Iterator[str]:
    """One key in one life. Each read is given the earliest state that it can have seen; without one it is wrong."""
    states = [empty, *(write.value for write in writes)]
    seen: list[tuple[int, int]] = []  # when a read had ended, and which state it saw at least
    for read in sorted(reads, key=lambda each: each.began.at):
        least = sum(write.is_ok and write.before(read) for write in writes)
        most = sum(not read.before(write) for write in writes)
        floor = max([least, *(state for ended, state in seen if ended < read.began.at)])
        found = next((at for at in range(floor, most + 1) if states[at] == read.result), None)
        if found is None:
            possible = states[floor : most + 1]
            yield f"{read}: possible would have been {possible}"
        else:
            seen.append((read.ended.at, found))


async def scenario(sim: Any) -> None:
    stage = Stage(sim, await sim.cache())
    for kind, count in ((Writer, WRITERS), (Reader, READERS)):
        for _ in range(count):
            stage.add(kind)
    await sim.trial(without=("reply",))
    await stage.stop()
    groups: dict[tuple[str, int], tuple[list[Deed], list[Deed]]] = {}
    for deed in stage.deeds:
        writes, reads = groups.setdefault((deed.key, deed.life), ([], []))
        if deed.what == "write" and deed.may_have_happened:
            writes.append(deed)
        elif deed.what == "read" and deed.is_ok:
            reads.append(deed)
    for (key, _), (writes, reads) in groups.items():
        for problem in prefix_consistent(writes, reads, TYPES[key.partition("-")[0]].empty):
            sim.fail(problem)
