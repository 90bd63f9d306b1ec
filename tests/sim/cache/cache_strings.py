"""Registers, counters, locks, lifetimes and transactions of a cache that crashes and whose clock jumps.

minidist sim tests/sim/cache/cache_strings.py --seeds 1..300 --faults random --duration 30s

What must hold in each life of the node (cache_clients.py says what that is):

* registers, with compare-and-set through WATCH: linearizable; the counter: linearizable, no number is given twice;
* a value with a lifetime is never read at or after its end by the node's clock, not lost before, never an old one;
* a lock (SET NX PX) has one holder at a time, by the node's clock; fencing numbers grow from holder to holder;
* transfers between accounts (WATCH … EXEC, and MULTI without it) never change the sum, whoever looks;
* EXEC is refused when the watched key had expired, and only then.

The fault `reply` is left out: it answers a MULTI, or a command behind it, with an error in the cache's place, so what
comes after it runs without the transaction.
"""

import asyncio
from typing import Any

from cache_clients import Client, Deed, Refused, Stage, number
from cache_strings_judges import ACCOUNTS, COUNTER, FENCE, LOCK, OPENING, REGISTERS, judge
from redis.asyncio import Redis
from redis.exceptions import RedisError

CLIENTS = 6
LIFETIME_MS = (30, 3000)


class User(Client):
    """Does a bit of everything."""

    def __init__(self, stage: Stage, name: str) -> None:
        super().__init__(stage, name)
        self.doubts = 0
        self.steps = {
            self.write: 3, self.read: 3, self.swap: 2, self.increment: 2, self.count: 1, self.write_for_a_while: 2,
            self.read_what_expires: 4, self.use_the_lock: 2, self.transfer: 2, self.transfer_blindly: 1,
            self.add_up: 3, self.watch_an_expiry: 1,
        }  # fmt: skip

    async def step(self) -> None:
        await self.random.choices(list(self.steps), list(self.steps.values()))[0]()

    # --- registers and the counter ----------------------------------------------------------------------------------

    async def write(self) -> None:
        key, value = self.random.choice(REGISTERS), self.stage.next_value()
        await self.do("write", key, lambda redis: redis.set(key, value), value, f="write")

    async def read(self) -> None:
        key = self.random.choice(REGISTERS)

        async def get(redis: Redis) -> int | None:
            return number(await redis.get(key))

        await self.do("read", key, get, f="read")

    async def swap(self) -> None:
        key, new = self.random.choice(REGISTERS), self.stage.next_value()
        seen = await self.do("look", key, lambda redis: redis.get(key))
        if not seen.is_ok or seen.result is None:
            return

        async def swap(redis: Redis) -> None:
            async with redis.pipeline() as pipe:
                await pipe.watch(key)
                if await pipe.get(key) != seen.result:
                    raise Refused("it holds something else")
                pipe.multi()
                pipe.set(key, new)
                await pipe.execute()

        await self.do("swap", key, swap, [number(seen.result), new], f="cas")

    async def increment(self) -> None:
        await self.do("increment", COUNTER, lambda redis: redis.incr(COUNTER), 1, f="add")

    async def count(self) -> None:
        async def get(redis: Redis) -> int:
            return number(await redis.get(COUNTER)) or 0

        await self.do("count", COUNTER, get, f="read")

    # --- lifetimes --------------------------------------------------------------------------------------------------

    def own(self, kind: str) -> str:
        """A key that only this client writes. After a write in doubt, which may come true later, it takes another."""
        return f"{kind}-{self.name}-{self.doubts}"

    async def lend(self, key: str, ms: int) -> Deed:
        value = self.stage.next_value()
        lent = await self.do("lend", key, lambda redis: redis.set(key, value, px=ms), (value, ms))
        self.doubts += not lent.is_ok
        return lent

    async def write_for_a_while(self) -> None:
        await self.lend(self.own("t"), self.random.randint(*LIFETIME_MS))

    async def read_what_expires(self) -> None:
        key = self.random.choice(self.stage.clients).own("t")

        async def get(redis: Redis) -> int | None:
            return number(await redis.get(key))

        await self.do("look up", key, get)

    # --- the lock ---------------------------------------------------------------------------------------------------

    async def use_the_lock(self) -> None:
        token, ms = f"{self.name}/{self.stage.next_value()}", self.random.choice((100, 500, 2000))
        got = await self.do("lock", LOCK, lambda redis: redis.set(LOCK, token, nx=True, px=ms), (token, ms))
        if not (got.is_ok and got.result):
            return
        fence = await self.do("fence", FENCE, lambda redis: redis.incr(FENCE), token)
        await asyncio.sleep(self.random.uniform(0, 0.3))
        if fence.is_ok and self.random.random() < 0.7:

            async def release(redis: Redis) -> None:
                async with redis.pipeline() as pipe:
                    await pipe.watch(LOCK)
                    if await pipe.get(LOCK) != token:
                        raise Refused("it is somebody else's")
                    pipe.multi()
                    pipe.delete(LOCK)
                    await pipe.execute()

            await self.do("unlock", LOCK, release, (token, ms))

    # --- accounts ---------------------------------------------------------------------------------------------------

    async def transfer(self) -> None:
        source, target = self.random.sample(ACCOUNTS, 2)
        amount = self.random.randint(1, 30)

        async def transfer(redis: Redis) -> None:
            async with redis.pipeline() as pipe:
                await pipe.watch(source, target)
                balances = await pipe.mget(source, target)
                if None in balances:
                    raise Refused("there are no accounts")
                pipe.multi()
                pipe.set(source, int(balances[0]) - amount)
                pipe.set(target, int(balances[1]) + amount)
                await pipe.execute()

        if (await self.do("transfer", f"{source}→{target}", transfer, amount)).error.startswith("Refused"):
            await self.open_accounts()

    async def open_accounts(self) -> None:
        """All of them or none."""
        await self.do("open", "accounts", lambda redis: redis.msetnx(dict.fromkeys(ACCOUNTS, OPENING)))

    async def transfer_blindly(self) -> None:
        source, target = self.random.sample(ACCOUNTS, 2)
        amount = self.random.randint(1, 30)
        if (await self.do("look", source, lambda redis: redis.exists(source))).result != 1 or self.link is None:
            return

        async def transfer(redis: Redis) -> None:
            async with redis.pipeline(transaction=True) as pipe:
                pipe.decrby(source, amount).incrby(target, amount)
                await pipe.execute()

        await self.do("transfer", f"{source}→{target}", transfer, amount)

    async def add_up(self) -> None:
        """Twice in a pipeline, between whose commands others may come; or once in a transaction of GETs."""

        async def look(redis: Redis) -> list[Any]:
            if self.random.random() < 0.5:
                async with redis.pipeline(transaction=False) as pipe:
                    pipe.mget(ACCOUNTS).mget(ACCOUNTS)
                    return list(await pipe.execute())
            async with redis.pipeline(transaction=True) as pipe:
                for account in ACCOUNTS:
                    pipe.get(account)
                return [await pipe.execute()]

        await self.do("add up", "accounts", look)

    # --- a watched key expires --------------------------------------------------------------------------------------

    async def watch_an_expiry(self) -> None:
        key = self.own("e")
        lent = await self.lend(key, self.random.randint(200, 800))
        if not lent.is_ok or self.link is None:
            return

        try:
            async with self.link.redis.pipeline() as pipe:
                await self.watch_and_execute(pipe, lent)
        except (RedisError, OSError):
            await self.drop()  # not even UNWATCH, which redis-py sends at the end, came through

    async def watch_and_execute(self, pipe: Any, lent: Deed) -> None:
        async def watch(redis: Redis) -> str | None:
            await pipe.watch(lent.key)
            return await pipe.get(lent.key)

        async def execute(redis: Redis) -> None:
            pipe.multi()
            pipe.set(f"m-{self.name}", lent.value[0])
            await pipe.execute()

        watched = await self.do("watch", lent.key, watch)
        if watched.is_ok and watched.result is not None:
            await asyncio.sleep(self.random.uniform(0, 1.5))
            done = await self.do("execute", lent.key, execute)
            done.more = lent


async def scenario(sim: Any) -> None:
    stage = Stage(sim, await sim.cache())
    for _ in range(CLIENTS):
        stage.add(User)
    await sim.trial(without=("reply",))
    await stage.stop()
    judge(stage)
