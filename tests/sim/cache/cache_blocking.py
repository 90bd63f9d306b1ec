"""Queues and messages of a cache whose clients wait, give up, are cut off: BLPOP and its kin, streams, pub/sub.

minidist sim tests/sim/cache/cache_blocking.py --seeds 1..300 --faults random --duration 30s

What must hold in each life of the node (cache_clients.py says what that is):

* an element is given to one taker at most, and only if it was pushed;
* in the last life, which ends with everything read out: exactly once, but for elements whose taker was cut off. Such a
  taker accounts for the elements of one reply at most, and only for such as there were while the node could not know
  yet that he had gone: while the end of his connection, or the reply to him, was on its way. (That is the window which
  TCP leaves: a reply that was written is gone. BLMOVE and consumer groups close it: there nothing may be missing.)
* who has waited longer for a key is served before who came later;
* a wait ends when its time is over by the node's clock: not before, and without faults not more than 0.1 s later;
* ids of a stream grow; messages of a publisher come in their order, once, without a gap while a subscription lasts.
"""

import asyncio
from typing import Any

from cache_blocking_judges import DONE, GROUP, QUEUES, SORTED, STREAM, elements_of, judge
from cache_clients import TIMEOUT_S, Client, Deed, Stage
from redis.asyncio import Redis
from redis.exceptions import RedisError

PRODUCERS, CONSUMERS, PUBLISHERS, SUBSCRIBERS = 3, 5, 2, 2
CHANNELS = ("news-0", "news-1")
WAIT_S = (0.3, 3.0)
# Beyond the longest wait: who then has no answer gives up.
PATIENCE_S = WAIT_S[1] + TIMEOUT_S
GIVES_UP = 0.15
SILENCE_S = 3.0
CALM_END_S = 5.0


class Producer(Client):
    """Pushes numbers that nobody has pushed before."""

    think_s = (0.05, 0.5)

    async def step(self) -> None:
        elements = [self.stage.next_value() for _ in range(self.random.choice((1, 1, 2, 3)))]
        key = self.random.choice((*QUEUES, *QUEUES, SORTED, STREAM))

        async def push(redis: Redis) -> Any:
            if key == SORTED:
                return await redis.zadd(key, {str(each): each for each in elements})
            if key == STREAM:
                return await redis.xadd(key, {"e": elements[0]})
            return await (redis.rpush if self.random.random() < 0.5 else redis.lpush)(key, *elements)

        await self.do("push", key, push, elements[:1] if key == STREAM else elements)


class Consumer(Client):
    """Waits for elements; sometimes it gives up and goes."""

    think_s = (0.0, 0.2)
    timeout_s = PATIENCE_S

    async def step(self) -> None:
        await self.random.choice((self.pop, self.pop, self.pop, self.move, self.pop_lowest, self.read_as_a_group))()

    async def take(self, keys: tuple[str, ...], wait_s: float, call: Any, most: int = 1) -> Deed:
        patience_s = self.random.uniform(0, wait_s) if self.random.random() < GIVES_UP else None
        taken = await self.do("take", keys[0], call, (keys, wait_s, most), patience_s=patience_s)
        if taken.is_ok:
            taken.more = elements_of(taken.result)
        return taken

    def wait_s(self) -> float:
        return round(self.random.uniform(*WAIT_S), 3)

    async def pop(self) -> None:
        keys = tuple(self.random.sample(QUEUES, self.random.choice((1, 1, 2))))
        wait_s, name = self.wait_s(), self.random.choice(("blpop", "brpop", "blmpop"))

        async def pop(redis: Redis) -> Any:
            if name == "blmpop":
                return await redis.blmpop(wait_s, len(keys), *keys, direction="LEFT", count=2)
            return await getattr(redis, name)(keys, wait_s)

        await self.take(keys, wait_s, pop, most=2 if name == "blmpop" else 1)

    async def move(self) -> None:
        source, wait_s = self.random.choice(QUEUES), self.wait_s()
        await self.take((source, DONE), wait_s, lambda redis: redis.blmove(source, DONE, wait_s, "LEFT", "RIGHT"))

    async def pop_lowest(self) -> None:
        wait_s = self.wait_s()
        await self.take((SORTED,), wait_s, lambda redis: redis.bzpopmin(SORTED, wait_s))

    async def read_as_a_group(self) -> None:
        wait_s = self.wait_s()

        def read(redis: Redis) -> Any:
            return redis.xreadgroup(GROUP, self.name, {STREAM: ">"}, count=1, block=round(wait_s * 1000))

        taken = await self.take((STREAM,), wait_s, read)
        if "NOGROUP" in taken.error and self.link is not None:
            await self.do("found", STREAM, lambda redis: redis.xgroup_create(STREAM, GROUP, "0", mkstream=True))


class Publisher(Client):
    """Numbers its messages. After one in doubt, which may still come, it goes on under another name."""

    think_s = (0.02, 0.3)

    def __init__(self, stage: Stage, name: str) -> None:
        super().__init__(stage, name)
        self.doubts = self.count = 0

    async def step(self) -> None:
        self.count += 1
        channel, message = self.random.choice(CHANNELS), (f"{self.name}.{self.doubts}", self.count)
        done = await self.do(
            "publish", channel, lambda redis: redis.publish(channel, f"{message[0]} {message[1]}"), message
        )
        self.doubts += not done.is_ok


class Subscriber(Client):
    """Listens for a while, then subscribes anew."""

    async def step(self) -> None:
        assert self.link is not None
        pubsub = self.link.redis.pubsub(ignore_subscribe_messages=True)
        by_pattern, until_s = self.random.random() < 0.5, self.sim.now_s + self.random.uniform(3, 12)

        async def subscribe(redis: Redis) -> None:
            await (pubsub.psubscribe("news-*") if by_pattern else pubsub.subscribe(*CHANNELS))

        done = await self.do("subscribe", "news", subscribe)
        done.more = []
        heard_s = self.sim.now_s
        while done.is_ok and self.stage.working and self.sim.now_s < min(until_s, heard_s + SILENCE_S):
            try:
                message = await pubsub.get_message(timeout=0.5)
            except (RedisError, OSError, TimeoutError):
                break
            if message is not None:
                who, count = message["data"].split()
                done.more.append((who, int(count), self.stage.time.mark()))
                self.sim.history.count(self.process, "ok")
                heard_s = self.sim.now_s
        await self.drop()


class Heir(Client):
    """Reads out what is left at the end."""

    async def read_out(self) -> dict[str, Any]:
        while not await self.linked():
            await asyncio.sleep(0.1)
        assert self.link is not None
        redis = self.link.redis
        left: dict[str, Any] = {key: await redis.lrange(key, 0, -1) for key in (*QUEUES, DONE)}
        left[SORTED] = await redis.zrange(SORTED, 0, -1)
        left[STREAM] = {entry_id: fields["e"] for entry_id, fields in await redis.xrange(STREAM)}
        left["pending"] = []
        if await redis.xinfo_groups(STREAM) if left[STREAM] else ():
            pending = await redis.xpending_range(STREAM, GROUP, "-", "+", 100_000)
            left["pending"] = [(each["message_id"], each["consumer"]) for each in pending]
        left["life"] = self.link.life
        await self.drop()
        return left


async def scenario(sim: Any) -> None:
    stage = Stage(sim, await sim.cache())
    for kind, count in (
        (Producer, PRODUCERS), (Consumer, CONSUMERS), (Publisher, PUBLISHERS), (Subscriber, SUBSCRIBERS),
    ):  # fmt: skip
        for _ in range(count):
            stage.add(kind)
    await sim.trial()
    await asyncio.sleep(CALM_END_S)
    await stage.stop()
    judge(stage, await Heir(stage, "heir").read_out())
