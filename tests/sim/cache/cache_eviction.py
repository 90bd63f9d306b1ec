"""A cache that is too small for what is written to it, under one family of policies in each seed.

minidist sim tests/sim/cache/cache_eviction.py --seeds 1..300 --faults random --duration 30s

What must hold in each life of the node (cache_clients.py says what that is):

* `used_memory` is never above the limit by more than one command's values, whenever one looks;
* under a volatile policy, and under noeviction, a key without a lifetime stays; under noeviction one with a lifetime
  stays until its end; under no policy is an expired or an old value read;
* reads are never refused for want of memory, and writes are not where any key may go;
* what a pipeline writes it reads back right behind it, unless that may be evicted.

The family is the seed's; within it somebody changes the policy at run time. As in cache_strings.py the fault `reply` is
left out.
"""

import asyncio
from typing import Any

from cache_clients import Client, Deed, Stage
from cache_strings_judges import lifetimes
from redis.asyncio import Redis

FAMILIES = {
    "noeviction": ("noeviction",),
    "volatile": ("volatile-lru", "volatile-lfu", "volatile-ttl", "volatile-random", "volatile-fifo"),
    "allkeys": ("allkeys-lru", "allkeys-lfu", "allkeys-random", "allkeys-fifo"),
}
CLIENTS = 5
LIMIT_BYTES = 256 * 1024
LENT_BYTES, KEPT_BYTES = (100, 8000), (100, 1500)
# Beside the value: entry, key, a larger table.
OVERHEAD_BYTES = 2048
KEPT_KEYS, LENT_KEYS = 6, 40
LOOK_EVERY_S = 0.02


class User(Client):
    """Writes values with and without a lifetime to keys of its own, reads everybody's. A value is a number, padded."""

    def __init__(self, stage: Stage, name: str, family: str) -> None:
        super().__init__(stage, name)
        self.family = family
        self.doubts = dict.fromkeys([*(f"p{n}" for n in range(KEPT_KEYS)), *(f"t{n}" for n in range(LENT_KEYS))], 0)
        self.steps = {
            self.lend: 6, self.lend_a_list: 1, self.keep: 2, self.look_at_lent: 4, self.look_at_kept: 4,
            self.write_and_read_back: 2, self.switch: 0.1,
        }  # fmt: skip

    async def step(self) -> None:
        await self.random.choices(list(self.steps), list(self.steps.values()))[0]()

    def key(self, kind: str) -> str:
        """One of this client's keys. After a write in doubt, which may come true later, it has another name."""
        short = self.random.choice([each for each in self.doubts if each.startswith(kind)])
        return f"{short}.{self.doubts[short]}-{self.name}"

    def doubt(self, key: str) -> None:
        self.doubts[key.partition(".")[0]] += 1

    def padded(self, value: int, size: tuple[int, int]) -> str:
        return f"{value} ".ljust(self.random.randint(*size), "x")

    async def lend(self) -> None:
        key, value, ms = self.key("t"), self.stage.next_value(), self.random.randint(100, 20_000)
        text = self.padded(value, LENT_BYTES)
        lent = await self.do("lend", key, lambda redis: redis.set(key, text, px=ms), (value, ms))
        if not lent.is_ok:
            self.doubt(key)

    async def lend_a_list(self) -> None:
        key, text = f"l{self.random.randrange(LENT_KEYS)}", self.padded(0, KEPT_BYTES)

        async def lend(redis: Redis) -> None:
            async with redis.pipeline(transaction=True) as pipe:
                pipe.rpush(key, text, text).pexpire(key, 20_000)
                await pipe.execute()

        await self.do("lend a list", key, lend)

    async def keep(self) -> None:
        key, value = self.key("p"), self.stage.next_value()
        text = self.padded(value, KEPT_BYTES)
        kept = await self.do("keep", key, lambda redis: redis.set(key, text), value)
        if kept.may_have_happened and not kept.is_ok:
            self.doubt(key)

    async def look(self, what: str, kind: str) -> None:
        key = self.random.choice(self.stage.clients).key(kind)

        async def get(redis: Redis) -> int | None:
            text = await redis.get(key)
            return None if text is None else int(text.split()[0])

        await self.do(what, key, get)

    async def look_at_lent(self) -> None:
        await self.look("look up", "t")

    async def look_at_kept(self) -> None:
        await self.look("look at kept", "p")

    async def write_and_read_back(self) -> None:
        key, value = f"b-{self.name}", self.stage.next_value()
        text = self.padded(value, LENT_BYTES)

        async def write_and_read(redis: Redis) -> list[Any]:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.set(key, text, px=20_000).get(key)
                return list(await pipe.execute())

        done = await self.do("write and read", key, write_and_read, value)
        done.more = text

    async def switch(self) -> None:
        policy = self.random.choice(FAMILIES[self.family])
        await self.do("switch", policy, lambda redis: redis.config_set("maxmemory-policy", policy))


class Meter:
    """Looks at the memory from outside, again and again."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.highest_bytes = self.looks = 0
        self.evicted: dict[int, int] = {}  # by life

    async def watch(self) -> None:
        while self.stage.working:
            node = self.stage.node
            if node.node is not None and node.host.alive:
                keyspace = node.node.service.keyspace
                self.highest_bytes = max(self.highest_bytes, keyspace.used_bytes)
                self.evicted[node.host.incarnation] = keyspace.evicted_keys
            self.looks += 1
            await asyncio.sleep(LOOK_EVERY_S)


async def scenario(sim: Any) -> None:
    family = sim.random.choice(list(FAMILIES))
    policy = sim.random.choice(FAMILIES[family])
    stage = Stage(sim, await sim.cache(max_memory=str(LIMIT_BYTES), eviction=policy))
    meter = Meter(stage)
    sim.client(meter.watch(), name="meter")
    for _ in range(CLIENTS):
        stage.add(User, family=family)
    await sim.trial(without=("reply",))
    await stage.stop()
    for problem in (
        *memory(meter, family), *kept(stage, family), *refused(stage, family), *read_back(stage, family),
        *lifetimes(stage, evicts=family != "noeviction"),
    ):  # fmt: skip
        sim.fail(f"{problem} ({family})")


# --- what must hold ---------------------------------------------------------------------------------------------------


def memory(meter: Meter, family: str) -> list[str]:
    most_bytes = LIMIT_BYTES + LENT_BYTES[1] + OVERHEAD_BYTES
    problems = []
    if meter.highest_bytes > most_bytes:
        problems.append(f"{meter.highest_bytes} bytes were in use, at most {most_bytes} may be")
    if (sum(meter.evicted.values()) > 0) != (family != "noeviction"):
        problems.append(f"{sum(meter.evicted.values())} keys were evicted")
    return problems


def kept(stage: Stage, family: str) -> list[str]:
    """Keys without a lifetime: the value that was written last, or nothing where any key may go."""
    written: dict[tuple[str, int], list[Deed]] = {}
    for deed in stage.done("keep"):
        if deed.may_have_happened:
            written.setdefault((deed.key, deed.life), []).append(deed)
    problems = []
    for look in stage.done("look at kept"):
        if look.is_ok and (look.result is not None or family != "allkeys"):
            writes = written.get((look.key, look.life), [])
            last = next((each for each in reversed(writes) if each.is_ok and each.before(look)), None)
            later = writes[writes.index(last) + 1 :] if last is not None else writes
            possible = {None if last is None else last.value, *(each.value for each in later if not look.before(each))}
            if look.result not in possible:
                problems.append(f"a key without a lifetime is not as it was left: {last}; {look}")
    return problems


def refused(stage: Stage, family: str) -> list[str]:
    """OOM is for writes, and not where any key may go."""
    writes = ("lend", "lend a list", "keep", "write and read") if family != "allkeys" else ()
    return [f"refused: {deed}" for deed in stage.deeds if "OutOfMemory" in deed.error and deed.what not in writes]


def read_back(stage: Stage, family: str) -> list[str]:
    done = [deed for deed in stage.done("write and read") if deed.is_ok]
    problems = [
        f"a pipeline did not read what it had written: {deed.who} {deed.key} {deed.began.s:.6f} s"
        for deed in done
        if deed.result[1] != deed.more and (deed.result[1] is not None or family == "noeviction")
    ]
    missed = sum(deed.result[1] is None for deed in done)
    if len(done) >= 50 and missed * 2 > len(done):
        problems.append(f"of {len(done)} keys that were read back at once {missed} were gone")
    return problems
