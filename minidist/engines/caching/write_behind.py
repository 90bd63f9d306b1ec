"""Write-behind: writes are acknowledged at once and reach the store a little later, the last one of each key.

    add(key, value)    the key's newest value (None: deleted); it replaces one that waits (coalescing)
    take(now)          what to send now, each key to one request at a time; `alarm_ms` says when to ask again
    done(store, …)     how a request ended; what failed is sent again, unless something newer waits by then

A key is due `lag_ms` after the first change that the store does not have. After a failure the key waits longer each
time, and so does the queue as a whole until something succeeds: a store that is down is not stormed, and a key that it
refuses does not hold up the others. Nothing is given up; beyond `limit_bytes` writes have to be refused (`is_full`).

Times are loop time. `add` is called where none is known: what it adds gets its times from the next `take`.
"""

import heapq
import itertools
import random
from collections import OrderedDict

from minidist.engines.caching.requests import Failure, Store
from minidist.engines.keyspace.tables import NEVER

# What a queued write takes besides its key and value.
QUEUED_BYTES = 400
FIRST_PAUSE_MS = 50
LONGEST_PAUSE_MS = 5000
# Instead of a place in the heap: due, but an older value of its key is under way.
PARKED = 0


class Queued:
    """The newest value of a key that the store does not have yet."""

    __slots__ = ("attempts", "due_ms", "number", "since_ms", "store")

    def __init__(self, store: Store) -> None:
        self.store = store
        self.attempts = 0
        self.since_ms = self.due_ms = -1  # not known yet
        self.number = PARKED  # its place in the heap; an older one is stale

    @property
    def held_bytes(self) -> int:
        return QUEUED_BYTES + len(self.store.key) + len(self.store.value or b"")


class WriteBehind:
    """The queue. `take` is O(log n) for each write that it gives out."""

    def __init__(self, *, lag_ms: int, limit_bytes: int, at_once: int, rng: random.Random) -> None:
        self.lag_ms = lag_ms
        self.limit_bytes = limit_bytes
        self.at_once = at_once  # requests under way at the same time
        self.queued_bytes = 0
        self.coalesced = 0
        self.retries = 0
        self.written = 0
        self.flushing = False
        self.last_failure = ""
        self._random = rng
        self._queued: OrderedDict[bytes, Queued] = OrderedDict()  # by the time of the first change
        self._under_way: dict[bytes, Queued] = {}
        self._fresh: list[Queued] = []
        self._due: list[tuple[int, int, Queued]] = []
        self._numbers = itertools.count(1)
        self._failures = 0  # in a row
        self._paused_until_ms = 0

    def __len__(self) -> int:
        """Keys that the store does not have yet."""
        return len(self._queued) + sum(key not in self._queued for key in self._under_way)

    @property
    def is_full(self) -> bool:
        return self.queued_bytes >= self.limit_bytes

    def add(self, store: Store) -> None:
        """The newest value of a key."""
        before = self._queued.get(store.key)
        if before is not None:
            self.queued_bytes -= before.held_bytes
            before.store = store
            self.queued_bytes += before.held_bytes
            self.coalesced += 1
            return
        queued = self._queued[store.key] = Queued(store)
        self.queued_bytes += queued.held_bytes
        self._fresh.append(queued)

    def newest(self, key: bytes) -> Store | None:
        """What is to be the key's value in the store, if it does not have it yet: newer than what the store says."""
        queued = self._queued.get(key) or self._under_way.get(key)
        return None if queued is None else queued.store

    def take(self, now_ms: int) -> list[Store]:
        """The writes to send now."""
        for queued in self._fresh:
            if queued.since_ms < 0:
                queued.since_ms = now_ms
            self._wait(queued, now_ms + self.lag_ms)
        self._fresh.clear()
        taken: list[Store] = []
        while self._due and len(self._under_way) < self.at_once and self._is_due(self._due[0][0], now_ms):
            _, number, queued = heapq.heappop(self._due)
            if queued.number != number:
                continue
            if queued.store.key in self._under_way:
                queued.number = PARKED
                continue
            del self._queued[queued.store.key]
            self._under_way[queued.store.key] = queued
            taken.append(queued.store)
        return taken

    def _is_due(self, due_ms: int, now_ms: int) -> bool:
        return now_ms >= self._paused_until_ms and (due_ms <= now_ms or self.flushing)

    def _wait(self, queued: Queued, until_ms: int) -> None:
        queued.due_ms, queued.number = until_ms, next(self._numbers)
        heapq.heappush(self._due, (until_ms, queued.number, queued))

    def done(self, store: Store, failure: Failure | None, now_ms: int) -> None:
        """A request has ended. Call `take` afterwards."""
        queued = self._under_way.get(store.key)
        if queued is None or queued.store is not store:
            return  # of before `clear`
        del self._under_way[store.key]
        newer = self._queued.get(store.key)
        if newer is not None and newer.number == PARKED and newer.since_ms >= 0:
            self._wait(newer, newer.due_ms)
        if failure is None:
            self._failures = self._paused_until_ms = 0
            self.written += 1
            self.queued_bytes -= queued.held_bytes
        else:
            self._failed(queued, newer, failure, now_ms)

    def _failed(self, queued: Queued, newer: Queued | None, failure: Failure, now_ms: int) -> None:
        self._failures += 1
        self.retries += 1
        self.last_failure = failure.reason
        self._paused_until_ms = now_ms + self._pause_ms(self._failures)
        if newer is None:
            queued.attempts += 1
            self._queued[queued.store.key] = queued
            self._wait(queued, now_ms + self._pause_ms(queued.attempts))
        else:
            self.queued_bytes -= queued.held_bytes
            self.coalesced += 1
            newer.since_ms = queued.since_ms
        self._queued.move_to_end(queued.store.key, last=False)

    def _pause_ms(self, failures: int) -> int:
        """Doubled with each failure, less a random half, so that several caches do not come back as one."""
        longest_ms = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS << min(failures - 1, 16))
        return longest_ms - int(longest_ms * self._random.random() / 2)

    @property
    def alarm_ms(self) -> int:
        """When to call `take` again: 0 for at once, NEVER when there is nothing to wait for but ends of requests."""
        if len(self._under_way) >= self.at_once:
            return NEVER
        if self._fresh:
            return 0
        while self._due and self._due[0][2].number != self._due[0][1]:
            heapq.heappop(self._due)
        if not self._due:
            return NEVER
        return max(0 if self.flushing else self._due[0][0], self._paused_until_ms)

    def lag_now_ms(self, now_ms: int) -> int:
        """How long the oldest change waits that the store does not have."""
        oldest = [each.since_ms for each in self._under_way.values()]
        if self._queued:
            oldest.append(next(iter(self._queued.values())).since_ms)
        return max((now_ms - since_ms for since_ms in oldest if since_ms >= 0), default=0)

    def clear(self) -> None:
        """Forget what waits; what is under way ends as it will."""
        self._queued.clear()
        self._under_way.clear()
        self._fresh.clear()
        self._due.clear()
        self.queued_bytes = self._failures = self._paused_until_ms = 0
