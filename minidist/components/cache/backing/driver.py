"""Carries what the strategy asks to the store, and the answers back.

So many requests are under way at once as the store allows (`--backing-connections`); others wait in a queue, which the
strategy bounds (`--load-limit`, `--write-behind-limit`, and one command for each client). Each has the same time in
all, waiting included, so no client waits longer than `--backing-timeout` for one request.

When the node stops, what is queued by write-behind is written first, as long as `--drain-timeout` allows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from minidist.components.cache.backing.places import HttpPlace, Place, RedisPlace, parse_place
from minidist.components.cache.backing.store import BackingError, BackingStore
from minidist.engines.caching.loads import Lifetimes
from minidist.engines.caching.requests import Failure, Found, Load, Request, Store
from minidist.engines.caching.strategy import Mode, Strategy
from minidist.engines.caching.write_behind import WriteBehind
from minidist.engines.keyspace.tables import NEVER
from minidist.runtime.endpoint import Limits

if TYPE_CHECKING:
    from minidist.components.cache.config import CacheConfig
    from minidist.components.cache.server import Cache


class Backing:
    """The backing store of one cache."""

    def __init__(self, node: Cache) -> None:
        self._node = node
        config = node.config
        place = parse_place(config.backing)
        self._timeout_s = config.backing_timeout / 1000
        self._store = make_store(node, place)
        self._most_workers = self._store.at_once
        self.strategy = make_strategy(node, place, self._store.at_once)
        self.strategy.loop_ms = self._loop_ms
        self._queue: deque[tuple[float, Request]] = deque()
        self._workers: dict[asyncio.Task[None], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._failing = False
        self._closed = False
        self._written: asyncio.Event | None = None  # while somebody waits for all writes

    async def open(self) -> None:
        """Raises ConfigError."""
        await self._store.open()

    @staticmethod
    def _loop_ms() -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    # --- requests ---------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Take what the strategy asks for now, and come again when it says so."""
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._timeout_s
        self._queue.extend((until_s, request) for request in self.strategy.take(self._loop_ms()))
        for _ in range(min(len(self._queue), self._most_workers - len(self._workers))):
            self._workers[loop.create_task(self._serve())] = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        alarm_ms = self.strategy.alarm_ms
        if alarm_ms != NEVER:
            # One millisecond late, since loop time is cut to whole ones.
            self._timer = loop.call_at((alarm_ms + 1) / 1000, self.work)
        if self._written is not None and not self.strategy.unwritten:
            self._written.set()

    async def _serve(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        try:
            while self._queue:
                until_s, request = self._queue.popleft()
                await self._carry(request, until_s)
        finally:
            del self._workers[worker]

    def _tell(self, request: Request, answer: Found | Failure | None) -> None:
        if self._closed:
            return
        self._note(answer)
        now_ms = self._node.clock.now_ms()
        if isinstance(request, Load):
            self.strategy.loaded(request, answer, now_ms)
        else:
            failure = answer if isinstance(answer, Failure) else None
            self.strategy.stored(request, failure, self._loop_ms(), now_ms)
        self._node.perform()

    async def _carry(self, request: Request, until_s: float) -> None:
        try:
            self._tell(request, await self._ask(request, until_s))
        except BackingError as error:
            self._failed(request, error)

    def _failed(self, request: Request, error: BackingError) -> None:
        """Tell of a failure; write-behind, where nobody waits, hears of one that lingers when it has ended."""
        ended = error.ended
        if ended is None or isinstance(request, Load):
            self._tell(request, Failure(error.reason, error.happened))
        elif self.strategy.behind is not None:
            ended.add_done_callback(lambda _: self._tell(request, Failure(error.reason, error.happened)))
        else:
            self._tell(request, Failure(error.reason, error.happened, lingers=True))
            ended.add_done_callback(lambda _: self._ended(request))

    def _ended(self, store: Store) -> None:
        self.strategy.ended(store, self._node.clock.now_ms())
        self._node.perform()

    async def _ask(self, request: Request, until_s: float) -> Found | Failure | None:
        """Raises BackingError."""
        try:
            if asyncio.get_running_loop().time() >= until_s:
                raise BackingError("timed out")  # others took all the time
            if isinstance(request, Load):
                return await self._store.load(request.key, until_s)
            await self._write(request, until_s)
        except BackingError:
            raise
        except Exception as error:  # a bug of ours: it costs this request, not the clients that wait for it
            self._node.log.error("backing request failed", exc_info=error)
            return Failure("internal error", happened=True)
        return None

    async def _write(self, store: Store, until_s: float) -> None:
        ttl_ms = None if store.expires_ms == NEVER else store.expires_ms - self._node.clock.now_ms()
        if store.value is None or (ttl_ms is not None and ttl_ms <= 0):
            await self._store.delete(store.key, until_s)
        else:
            await self._store.store(store.key, store.value, ttl_ms, until_s)

    def _note(self, answer: object) -> None:
        """Tell when the store begins to fail, and when it works again."""
        failing = isinstance(answer, Failure)
        if failing == self._failing:
            return
        self._failing = failing
        if isinstance(answer, Failure):
            self._node.events.emit("backing-failed", backing=self.strategy.name, reason=answer.reason)
        else:
            self._node.events.emit("backing-recovered", backing=self.strategy.name)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> None:
        """Write what is queued; what is left when the time is over is lost, and the log says so."""
        self._written = asyncio.Event()
        self.strategy.flush()
        self.work()
        try:
            async with asyncio.timeout(timeout_s):
                await self._written.wait()
        except TimeoutError:
            acknowledged = self._node.config.strategy == "write-behind"
            what = "acknowledged writes are lost" if acknowledged else "the outcome of writes under way is unknown"
            self._node.log.error(what, backing=self.strategy.name, keys=self.strategy.unwritten)

    async def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for worker in list(self._workers):
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)
        await self._store.close()


def make_store(node: Cache, place: Place) -> BackingStore:
    """What talks to the store; nothing is opened yet."""
    config = node.config
    if isinstance(place, HttpPlace | RedisPlace):
        # Beside those in use, some may still be closing.
        dialler = node.dialler("backing", Limits(max_connections=4 * config.backing_connections))
        if isinstance(place, HttpPlace):
            from minidist.components.cache.backing.http import HttpStore

            return HttpStore(place, dialler, node.clock, config.max_bulk, config.backing_connections)
        from minidist.components.cache.backing.redis import RedisStore

        return RedisStore(place, dialler, node.clock, config.max_bulk, config.backing_connections)
    from minidist.components.cache.backing.sqlite import SqliteStore

    return SqliteStore(place, node.clock, config.max_bulk, config.backing_timeout)


def make_strategy(node: Cache, place: Place, at_once: int) -> Strategy:
    """The decisions, in front of the service's database 0."""
    config: CacheConfig = node.config
    mode = Mode(config.strategy or Mode.READ_THROUGH.value)
    behind = None
    if mode is Mode.WRITE_BEHIND:
        behind = WriteBehind(
            lag_ms=config.write_behind_lag,
            limit_bytes=config.write_behind_limit,
            at_once=at_once,
            rng=node.random,
        )
    lifetimes = Lifetimes(
        load_ttl_ms=config.load_ttl,
        negative_ttl_ms=config.negative_ttl,
        jitter_percent=config.ttl_jitter,
        stale_ms=config.stale_ttl,
        ahead_percent=config.refresh_ahead,
    )
    return Strategy(
        node.service, place.shown, mode, lifetimes, load_limit=config.load_limit, behind=behind, rng=node.random
    )
