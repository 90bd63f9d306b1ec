"""All databases of a node under one memory limit, and the upkeep that nobody asks for: expiry, eviction, freeing.

Upkeep is done in bounded steps, so that none stops the loop for more than a fraction of a millisecond. `alarm_ms` says
when `maintain(now_ms)` wants to be called for the next one: commands lower it, which calls `on_alarm`, and `maintain`
sets it anew. The caller owns the timer.

`used_bytes` is what keys, values and tables take (memory.py); `limit_bytes` is `maxmemory`. Before each command the
service calls `make_room` when the limit is passed, and where one step is not enough (a large value, a limit that was
lowered) writes wait while `maintain` takes the next (`overfull`): so the limit is exceeded by one command's values at
most. Memory of flushed databases counts until it is freed, and nobody waits for that; a large value's no longer when
its key is gone, and it is freed within a moment, in steps.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minidist.engines.keyspace.database import Database
from minidist.engines.keyspace.eviction import Evictor, Policy
from minidist.engines.keyspace.memory import ENTRY_BYTES, EXPIRY_BYTES, value_bytes
from minidist.engines.keyspace.tables import EMPTY, NEVER, Table

if TYPE_CHECKING:
    from minidist.engines.keyspace.hash_ttl import FieldExpiry

NO_LIMIT = 1 << 62
# Expired keys are removed in rounds, so that one wake-up serves all of a tenth of a second.
EXPIRY_ROUND_MS = 100
# Entries freed in one step after a flush: half a millisecond, on a slow day two.
STEP_ENTRIES = 1000
# Entries looked at in one step of expiry. To remove one key for itself costs several times as much.
EXPIRY_ENTRIES = 250
# The last ones go in smaller steps: with them the allocator's arenas become empty, and each is given back in 0.1 ms.
LAST_ENTRIES = 20_000
SMALL_STEP_ENTRIES = 100
# Keys evicted in one step: half a millisecond. One is enough for most commands, as the limit is looked at before each.
STEP_EVICTIONS = 200
# Values from so many bytes on are freed in steps, so many pieces at a time: a quarter of a millisecond.
LARGE_BYTES = 256 * 1024
STEP_PIECES = 4


class Keyspace:
    """The databases of one node."""

    def __init__(self, databases: int, rng: random.Random) -> None:
        self.random = rng
        self.databases = [Database(self, number) for number in range(databases)]
        self.used_bytes = 0
        self.peak_bytes = 0
        self.limit_bytes = NO_LIMIT
        self.evictor = Evictor(self, Policy.NOEVICTION)
        self.active_expiry = True
        self.alarm_ms = NEVER  # 0 for as soon as possible
        self.on_alarm: Callable[[], object] = lambda: None
        self.hits = 0
        self.misses = 0
        self.expired_keys = 0
        self.evicted_keys = 0
        self.field_expiry: FieldExpiry | None = None  # made with the first lifetime of a hash's field
        self.notified = 0  # kinds of keyspace events that are published (events.py)
        self.on_event: Callable[[int, int, bytes, bytes], object] = lambda number, kind, event, key: None
        # Who tracks keys: called with every key that was changed, and whether nobody has asked for that (`remove`).
        self.on_change: Callable[[bytes, bool], object] | None = None
        self.on_flush: Callable[[], object] = lambda: None  # all keys of some database are others now
        self._garbage: deque[list[Table]] = deque()
        self._rubble: deque[list[Any]] = deque()  # what large values were made of
        self._garbage_slot = 0
        self.garbage_keys = 0

    # --- upkeep -----------------------------------------------------------------------------------------------------

    def maintain(self, now_ms: int) -> None:
        """One bounded step of freeing, of eviction or of active expiry; `alarm_ms` may be past again afterwards."""
        self.alarm_ms = NEVER
        if self._rubble:
            self._clear_rubble()
        elif self._garbage:
            self.free_step()
        elif self.used_bytes > self.limit_bytes and self.make_room(now_ms):
            return
        elif self.active_expiry:
            self.expire_step(now_ms)
        if self._garbage or self._rubble:
            self.set_alarm(0)
        elif self.active_expiry:
            self.wake_at(min(database.due[0][0] if database.due else NEVER for database in self.databases))

    def wake_at(self, at_ms: int) -> None:
        """Something is due then: lower the alarm to the end of that round."""
        if at_ms < self.alarm_ms:
            self.set_alarm(at_ms + EXPIRY_ROUND_MS - at_ms % EXPIRY_ROUND_MS)

    def set_alarm(self, at_ms: int) -> None:
        """Have `maintain` called at this time, or earlier if that was asked for."""
        if at_ms < self.alarm_ms:
            self.alarm_ms = at_ms
            self.on_alarm()

    def use_active_expiry(self, on: bool) -> None:
        self.active_expiry = on
        self.set_alarm(0)  # `maintain` finds out what is due

    def expire_step(self, now_ms: int) -> bool:
        """Remove expired keys, looking at EXPIRY_ENTRIES entries or a table more; whether all that is due was done."""
        looked_at = 0
        step_entries = EXPIRY_ENTRIES if self.count > LAST_ENTRIES else SMALL_STEP_ENTRIES
        for database in self.databases:
            while database.due and database.due[0][0] <= now_ms:
                if looked_at >= step_entries:
                    return False
                looked_at += database.expire_table(now_ms)
        return True

    def expire_all(self, now_ms: int) -> None:
        """Remove everything that has expired, in one go: before service time moves backwards."""
        while not self.expire_step(now_ms):
            pass

    # --- flushing ---------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        for database in self.databases:
            database.clear()
        self.on_flush()

    def observe(self, on_change: Callable[[bytes, bool], object] | None, on_flush: Callable[[], object]) -> None:
        """Tell these of changes from now on."""
        self.on_change = on_change
        self.on_flush = on_flush
        for database in self.databases:
            database.observe()

    def discard(self, tables: list[Table], count: int) -> None:
        """Take over the tables of a flushed database, to be freed in steps."""
        self._garbage.append(tables)
        self.set_alarm(0)
        self.garbage_keys += count

    def bury(self, value: Any) -> None:
        """A value has lost its key for good: a large one is taken apart in steps; at once would take long."""
        if isinstance(value, bytes | bytearray) or value.memory_bytes < LARGE_BYTES:
            return
        self.bury_pieces(value.pieces())

    def bury_pieces(self, pieces: list[list[Any]]) -> None:
        """Empty these lists in steps; nobody else uses them."""
        self._rubble += pieces
        self.set_alarm(0)

    def _clear_rubble(self) -> None:
        """Free a few pieces of large values: some hundred elements each."""
        pieces = self._rubble[0]
        del pieces[-STEP_PIECES:]
        if not pieces:
            self._rubble.popleft()

    def free_step(self) -> None:
        """Free STEP_ENTRIES keys of flushed databases, or a table more."""
        freed = 0
        step_entries = STEP_ENTRIES if self.garbage_keys > LAST_ENTRIES else SMALL_STEP_ENTRIES
        while self._garbage and freed < step_entries:
            tables = self._garbage[0]
            if self._garbage_slot == len(tables):
                self._garbage.popleft()
                self._garbage_slot = 0
                continue
            table, tables[self._garbage_slot] = tables[self._garbage_slot], EMPTY
            self._garbage_slot += 1
            if table.parts is not None:
                self._garbage.append(table.parts)
            freed += len(table)
            self._account_freed(table)

    def _account_freed(self, table: Table) -> None:
        freed_bytes = table.allocated_bytes + EXPIRY_BYTES * table.volatile + ENTRY_BYTES * len(table)
        for key, entry in table.items():
            freed_bytes += len(key) + value_bytes(entry.value)
            if entry.value.__class__ is not bytes:
                self.bury(entry.value)
        self.used_bytes -= freed_bytes
        self.garbage_keys -= len(table)

    # --- the memory limit -------------------------------------------------------------------------------------------

    def make_room(self, now_ms: int) -> bool:
        """Free memory until the limit holds, as far as the policy allows; False when nothing more may go.

        One step at most: what is left to do goes on in `maintain`, and if `overfull`, a write has to wait for it.
        """
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        for _ in range(STEP_EVICTIONS):
            if self.used_bytes <= self.limit_bytes:
                return True
            if self._garbage:
                break
            if not self.evictor.evict_one(now_ms):
                return False
        self.set_alarm(0)
        return True

    @property
    def overfull(self) -> bool:
        """The limit is passed, and not only because a flush has yet to be freed."""
        return self.used_bytes > self.limit_bytes and not self._garbage

    @property
    def is_making_room(self) -> bool:
        """Said after `maintain`: the limit is passed, and the next step may change that."""
        return self.overfull and self.alarm_ms == 0

    def limit(self, limit_bytes: int) -> None:
        """Set the memory limit; one below what is used is reached in steps, while writes wait."""
        self.limit_bytes = limit_bytes
        if self.used_bytes > limit_bytes:
            self.set_alarm(0)

    @property
    def count(self) -> int:
        """Keys in all databases."""
        return sum(database.count for database in self.databases)

    def reset_statistics(self) -> None:
        self.hits = self.misses = self.expired_keys = self.evicted_keys = 0
        self.peak_bytes = self.used_bytes
