"""Clients of a simulated cache, on redis-py, and what they leave for the judges.

**Lives.** A cache keeps nothing: with its process it loses every key. So nothing can be said about a key as such, only
about a key in one *life* of the node, and that is what the judges do: whatever is recorded belongs to the life of the
connection that carried it, told by `run_id`, and histories name a key `r1@2` in the second life. This is stricter than
to record a crash as a write of nothing to every key: a value of one life must not be seen in the next, also if its
write was in doubt. What nobody can say is whether an operation in doubt took effect just before a crash; it does not
matter, since its effect died with the rest. For the record to be right a connection must belong to one life: a `Link`
connects once, and whoever finds it broken opens another.

**Time.** A lifetime runs on the node's clock, which jumps and drifts. The judges see it as the node does: a `Mark` is a
moment with what the clock showed, and `ServiceTime` knows the highest time between two marks. What has expired at that
time must be gone, since going backwards un-expires nothing; what has not must be there.

**Deeds.** Every operation leaves a `Deed` with its outcome by the one rule of docs/checking.md; those that a checker
judges are in the history too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Connection, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError, WatchError

from minidist.engines.checking import Outcome, answers
from minidist.sim.links import RETRANSMISSION_S

THINK_S = (0.02, 0.2)
TIMEOUT_S = 2.0
RETRY_S = (0.1, 0.5)
LAST_WORDS_S = 5.0
# Without a fault whatever is sent has arrived, and been answered, after so long; a few milliseconds is usual.
CALM_S = 0.1
# When these end, what they held back is tried again within TCP's least retransmission timeout.
AFTERMATH_S = {"partition": RETRANSMISSION_S}
OVER = "this connection is over"
# What redis-py says when EXEC answered nil; a connection that broke after WATCH is a WatchError, too.
ABORTED = "Watched variable changed."


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment: its place in the order of all moments, virtual seconds, the node's service time, jumps back so far.

    By `arrives_s` everything that has been sent has arrived, unless a partition holds it up or a process stands still.
    """

    at: int
    s: float
    ms: int
    jumps: int
    arrives_s: float


class ServiceTime:
    """What the clock of a node has shown."""

    def __init__(self, sim: Any, node: Any) -> None:
        self.world = sim.world
        self.host = node.host
        self.before_jumps: list[int] = []  # what it showed just before each jump back
        self._clock: Any = None
        self._marks = 0

    def mark(self) -> Mark:
        if self.host.clock is not self._clock:  # each life has a new one
            self._clock = self.host.clock
            self._clock.before_backward(self.before_jumps.append)
        self._marks += 1
        ms = self.host.wall_ms() + self.host.clock.offset_ms
        now_s = self.world.now_s
        arrives_s = max(now_s, self.world.network.links.latest_s)
        return Mark(self._marks, now_s, ms, len(self.before_jumps), arrives_s)

    def highest_ms(self, first: Mark, last: Mark) -> int:
        return max(first.ms, last.ms, *self.before_jumps[first.jumps : last.jumps])

    def lowest_ms(self, first: Mark, last: Mark) -> int:
        """A lower bound: after a jump back nobody knows how low it was."""
        return min(first.ms, last.ms) if first.jumps == last.jumps else 0


@dataclass(slots=True, eq=False)
class Deed:
    """What one client did."""

    who: str
    what: str
    key: str
    value: Any
    life: int
    began: Mark
    ended: Mark
    outcome: Outcome = Outcome.INFO
    result: Any = None
    error: str = ""
    more: Any = None

    @property
    def is_ok(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def may_have_happened(self) -> bool:
        return self.outcome is not Outcome.FAIL

    def before(self, other: "Deed") -> bool:
        return self.ended.at < other.began.at

    def __str__(self) -> str:
        result = f" → {self.result}" if self.is_ok else f" ({self.outcome.value}: {self.error})"
        told = f"{self.who} {self.what} {self.key} {'' if self.value is None else self.value}{result}"
        return f"{told} in life {self.life}, {self.began.s:.6f} s to {self.ended.s:.6f} s"


class Refused(Exception):
    """The client itself saw that there is nothing to do, and sent nothing that could have an effect."""


class Once(Connection):
    """Connects once: what was asked of it over a second connection might be asked of another life of the node."""

    over = False

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        if self.is_connected:
            return
        if self.over:
            raise RedisConnectionError(OVER)
        self.over = True
        await super().connect_check_health(check_health, retry_socket_connect)


class Link:
    """One connection to one life of the node; `redis` is redis-py's client on it."""

    def __init__(self, node: Any, timeout_s: float, protocol: int) -> None:
        self.pool = ConnectionPool(
            connection_class=Once, host=node.endpoint.host, port=node.endpoint.port, max_connections=1,
            socket_timeout=timeout_s, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 0), protocol=protocol,
            decode_responses=True,
        )  # fmt: skip
        self.redis = Redis(connection_pool=self.pool)
        self.life = 0

    async def close(self) -> None:
        await self.pool.disconnect()


class Stage:
    """One cache with its clients, and all that they did."""

    def __init__(self, sim: Any, cache: Any) -> None:
        self.sim = sim
        self.node = cache.sim_nodes[0]
        self.time = ServiceTime(sim, self.node)
        self.deeds: list[Deed] = []
        self.clients: list[Client] = []
        self.working = True  # clients go on while it is
        self._lives: dict[str, int] = {}
        self._values = 0

    def add(self, client: "type[Client]", **options: Any) -> "Client":
        made = client(self, f"client-{len(self.clients) + 1}", **options)
        self.clients.append(made)
        self.sim.client(made.work(), name=made.name)
        return made

    def life(self, run_id: str) -> int:
        return self._lives.setdefault(run_id, len(self._lives) + 1)

    def next_value(self) -> int:
        """A number that nobody has written before."""
        self._values += 1
        return self._values

    async def stop(self) -> None:
        """Clients finish what they are at."""
        self.working = False
        await asyncio.sleep(LAST_WORDS_S)

    def done(self, *whats: str) -> list[Deed]:
        return [deed for deed in self.deeds if deed.what in whats]

    # --- faults as the judges see them ------------------------------------------------------------------------------

    def spans(self, kinds: Collection[str]) -> list[tuple[float, float]]:
        """From when to when faults of these kinds were on, in virtual seconds, in order."""
        return sorted(
            (fault.began_s, (fault.ended_s if fault.ended_s >= 0 else self.sim.now_s) + AFTERMATH_S.get(fault.kind, 0))
            for fault in self.sim.schedule.faults
            if fault.kind in kinds and fault.began_s >= 0
        )

    def calm(self, from_s: float, to_s: float, kinds: Collection[str]) -> bool:
        """Whether no fault of these kinds was on between two moments."""
        return not any(began_s <= to_s and ended_s >= from_s for began_s, ended_s in self.spans(kinds))

    def noticed_s(self, mark: Mark) -> float:
        """By when the node has noticed that a connection was closed at this moment."""
        moment_s = mark.arrives_s + CALM_S
        for began_s, ended_s in self.spans(("partition", "hang", "pause")):
            if began_s <= moment_s and ended_s >= mark.s:
                moment_s = max(moment_s, ended_s + CALM_S)
        return moment_s


class Client:
    """Works until told to stop; `step` is one thing it does. Never has more than one operation under way."""

    think_s = THINK_S
    timeout_s = TIMEOUT_S

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage = stage
        self.sim = stage.sim
        self.name = name
        self.random = self.sim.world.streams.of(name)
        self.process = self.sim.history.process(name)
        self.protocol = self.random.choice((2, 3))
        self.link: Link | None = None

    async def work(self) -> None:
        while self.stage.working:
            if await self.linked():
                await self.step()
                await asyncio.sleep(self.random.uniform(*self.think_s))
            else:
                await asyncio.sleep(self.random.uniform(*RETRY_S))
        await self.drop()

    async def step(self) -> None:
        raise NotImplementedError

    async def linked(self) -> bool:
        """Whether there is a connection; one is made if there was none."""
        if self.link is not None:
            return True
        link = Link(self.stage.node, self.timeout_s, self.protocol)
        try:
            link.life = self.stage.life((await link.redis.info("server"))["run_id"])
        except (RedisError, OSError, TimeoutError):
            await link.close()
            return False
        self.link = link
        return True

    async def drop(self) -> None:
        link, self.link = self.link, None
        if link is not None:
            await link.close()

    async def do(
        self,
        what: str,
        key: str,
        call: Callable[[Redis], Awaitable[Any]],
        value: Any = None,
        *,
        f: str = "",
        patience_s: float | None = None,
    ) -> Deed:
        """One operation. `f`: it is in the history under that name. Without an answer the connection is given up."""
        assert self.link is not None
        history, link = self.sim.history, self.link
        token = history.invoke(self.process, f, f"{key}@{link.life}", value, self.stage.node.name) if f else None
        mark = self.stage.time.mark()
        deed = Deed(self.name, what, key, value, link.life, mark, mark)
        self.stage.deeds.append(deed)
        try:
            async with asyncio.timeout(patience_s):
                deed.result = await call(link.redis)
            deed.outcome = Outcome.OK
        except (RedisError, OSError, TimeoutError, Refused) as error:
            await self._not_done(deed, error, f or what)
        deed.ended = self.stage.time.mark()
        if token is None:
            history.count(self.process, deed.outcome.value)
        elif deed.is_ok:
            history.ok(token, deed.result if f == "read" else None)
        else:
            (history.info if deed.outcome is Outcome.INFO else history.fail)(token, deed.error)
        return deed

    async def _not_done(self, deed: Deed, error: Exception, f: str) -> None:
        deed.error = f"{type(error).__name__}: {error}"
        if isinstance(error, Refused) or (isinstance(error, WatchError) and str(error) == ABORTED):
            deed.outcome = Outcome.FAIL
        elif isinstance(error, ResponseError) or getattr(error, "status_code", None):
            deed.outcome = answers.after_error(f, getattr(error, "status_code", None) or str(error))
        else:
            deed.outcome = answers.after_silence(f, sent=OVER not in str(error))
            await self.drop()


def number(text: str | None) -> int | None:
    return None if text is None else int(text)
