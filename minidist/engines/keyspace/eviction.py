"""Which key goes when memory is full: Redis' maxmemory policies, approximated by sampling whole tables.

Redis samples five keys at a time and keeps a pool of the best candidates. Here a sample is a run of neighbouring slots
from a random one, until it has SAMPLE_ENTRIES candidates: CRC16 scatters keys over slots, so neighbours have nothing in
common, and reading a small table is cheaper than picking single keys from it. The worst sixteenth of a sample are the
victims, in order; one sample therefore serves several evictions. A victim that was used since is passed over.

LRU and TTL read times that entries have anyway. LFU counts uses as Redis does, in a logarithmic counter of eight bits
(`count_use`) that one minute of disuse lowers by one. FIFO, which Redis lacks, goes by the time a key was made; so does
S3-FIFO, which does not sample, but keeps queues (s3fifo.py) that new keys join while it is switched on.

Everything is drawn from the injected `random.Random`, and ties are broken by slot and key: the same commands with the
same seed evict the same keys.
"""

import random
from collections.abc import Callable, Iterable
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING

from minidist.engines.keyspace import events
from minidist.engines.keyspace.database import Database
from minidist.engines.keyspace.tables import NEVER, Entry
from minidist.structures.slots import SLOTS

if TYPE_CHECKING:
    from minidist.engines.keyspace.keyspace import Keyspace

SAMPLE_ENTRIES = 64
VICTIMS_SHARE = 16


class Policy(Enum):
    """What `maxmemory-policy` says."""

    NOEVICTION = "noeviction"
    ALLKEYS_LRU = "allkeys-lru"
    VOLATILE_LRU = "volatile-lru"
    ALLKEYS_LFU = "allkeys-lfu"
    VOLATILE_LFU = "volatile-lfu"
    ALLKEYS_FIFO = "allkeys-fifo"
    VOLATILE_FIFO = "volatile-fifo"
    ALLKEYS_S3_FIFO = "allkeys-s3-fifo"
    ALLKEYS_RANDOM = "allkeys-random"
    VOLATILE_RANDOM = "volatile-random"
    VOLATILE_TTL = "volatile-ttl"

    @property
    def volatile_only(self) -> bool:
        """Only keys with a lifetime may go."""
        return self.value.startswith("volatile")

    @property
    def counts_uses(self) -> bool:
        """`Evictor.count_uses` must be called with the keys of each command."""
        return self.value.endswith("lfu") or self is Policy.ALLKEYS_S3_FIFO


# Redis' defaults: lfu-log-factor, lfu-decay-time (in ms), and what a new key starts with, so that it gets a chance.
LFU_FACTOR, LFU_DECAY_MS, LFU_START, LFU_MOST = 10, 60_000, 5, 255


def uses(entry: Entry, now_ms: int) -> int:
    """The counter of an LFU policy, 0 to 255, lowered by the minutes since the last use."""
    counter = entry.mark if 0 <= entry.mark <= LFU_MOST else LFU_START
    return max(counter - max(now_ms - entry.touched_ms, 0) // LFU_DECAY_MS, 0)


def count_use(entry: Entry, now_ms: int, rng: random.Random) -> None:
    """One use more: the counter grows the more rarely the higher it is, and tells a million uses from a thousand.

    To be called before the use itself sets `touched_ms`.
    """
    counter = uses(entry, now_ms)
    if counter < LFU_MOST and rng.random() * (max(counter - LFU_START, 0) * LFU_FACTOR + 1) < 1:
        counter += 1
    entry.mark = counter


Rank = Callable[[Entry, int, random.Random], tuple[float, ...]]
"""The entry with the lowest rank goes first, given the time."""


def _least_recent(entry: Entry, now_ms: int, rng: random.Random) -> tuple[float, ...]:
    return (entry.touched_ms,)


def _least_frequent(entry: Entry, now_ms: int, rng: random.Random) -> tuple[float, ...]:
    return uses(entry, now_ms), entry.touched_ms


def _oldest(entry: Entry, now_ms: int, rng: random.Random) -> tuple[float, ...]:
    return (entry.mark,)


def _any(entry: Entry, now_ms: int, rng: random.Random) -> tuple[float, ...]:
    return (rng.random(),)


def _soonest(entry: Entry, now_ms: int, rng: random.Random) -> tuple[float, ...]:
    return (entry.expires_ms,)


RANKS: dict[Policy, Rank] = {
    Policy.ALLKEYS_LRU: _least_recent,
    Policy.VOLATILE_LRU: _least_recent,
    Policy.ALLKEYS_LFU: _least_frequent,
    Policy.VOLATILE_LFU: _least_frequent,
    Policy.ALLKEYS_FIFO: _oldest,
    Policy.VOLATILE_FIFO: _oldest,
    Policy.ALLKEYS_RANDOM: _any,
    Policy.VOLATILE_RANDOM: _any,
    Policy.VOLATILE_TTL: _soonest,
    Policy.ALLKEYS_S3_FIFO: _least_recent,  # where its queues are of no help
}

Victim = tuple[Database, bytes, Entry, int]
"""Database, key, the entry as it was, and when it was last touched."""


class Evictor:
    """Chooses and removes keys, one at a time."""

    def __init__(self, keyspace: "Keyspace", policy: Policy) -> None:
        self._keyspace = keyspace
        self.policy = policy
        self.counts_uses = policy.counts_uses
        self._victims: list[Victim] = []  # the next one last
        self._lives = 0  # of the queues of S3-FIFO

    def use(self, policy: Policy) -> None:
        """Switch the policy, at any time."""
        self.policy = policy
        self.counts_uses = policy.counts_uses
        self._victims.clear()
        for database in self._keyspace.databases:
            self.renew_queues(database)

    def renew_queues(self, database: Database) -> None:
        """The policy was switched, or the database is empty: what stood in its queues stands there no more."""
        if database.queues is not None:
            self._keyspace.used_bytes -= database.queues.counted_bytes
            self._keyspace.bury_pieces(database.queues.pieces())
            database.queues = None
        if self.policy is Policy.ALLKEYS_S3_FIFO:
            from minidist.engines.keyspace.s3fifo import Queues  # few will ask for it

            self._lives += 1
            database.queues = Queues(self._lives)

    def count_uses(self, database: Database, keys: Iterable[bytes], now_ms: int) -> None:
        """These keys are about to be used; to be called while `counts_uses`."""
        queues = database.queues
        for key in keys:
            entry = database.peek(key, now_ms)
            if entry is None:
                continue
            if queues is not None:
                queues.use(entry)
            else:
                count_use(entry, now_ms, self._keyspace.random)

    def evict_one(self, now_ms: int) -> bool:
        """Remove one key; False when the policy finds none that may go."""
        if self.policy is Policy.NOEVICTION:
            return False
        if self.policy is Policy.ALLKEYS_S3_FIFO and self._evict_from_queues(now_ms):
            return True
        while self._victims or self._sample(now_ms):
            database, key, entry, touched_ms = self._victims.pop()
            if database.table(key).get(key) is entry and entry.touched_ms == touched_ms:
                self._evict(database, key, entry, now_ms)
                return True
        return False

    def _evict(self, database: Database, key: bytes, entry: Entry, now_ms: int) -> None:
        database.remove(key, lost=True)
        if entry.expires_ms <= now_ms:
            self._keyspace.expired_keys += 1
            database.notify(events.EXPIRED, b"expired", key)
        else:
            self._keyspace.evicted_keys += 1
            database.notify(events.EVICTED, b"evicted", key)

    def _evict_from_queues(self, now_ms: int) -> bool:
        for database in self._databases():
            assert database.queues is not None
            found = database.queues.next_victim(database)
            if found is not None:
                self._evict(database, *found, now_ms)
                return True
        return False

    def _sample(self, now_ms: int) -> bool:
        """Refill the victims; False when there is no candidate at all."""
        rng, rank = self._keyspace.random, RANKS[self.policy]
        for database in self._databases():
            candidates = self._candidates(database, rng.randrange(SLOTS))
            if candidates:
                candidates.sort(key=lambda each: (rank(each[1], now_ms, rng), each[0]), reverse=True)
                worst = candidates[-max(1, len(candidates) // VICTIMS_SHARE) :]
                self._victims = [(database, key, entry, entry.touched_ms) for key, entry in worst]
                return True
        return False

    def _databases(self) -> list[Database]:
        """The databases with keys that may go: first one drawn in proportion to its keys, then the others."""
        volatile_only = self.policy.volatile_only
        filled = [each for each in self._keyspace.databases if (each.volatile if volatile_only else each.count)]
        if len(filled) > 1:
            drawn = self._keyspace.random.choices(filled, [each.count for each in filled])[0]
            filled.sort(key=lambda each: each is not drawn)
        return filled

    def _candidates(self, database: Database, start: int) -> list[tuple[bytes, Entry]]:
        volatile_only = self.policy.volatile_only
        found: list[tuple[bytes, Entry]] = []
        tables = database.tables
        for at in range(start, start + SLOTS):
            table = tables[at & (SLOTS - 1)]
            if table.parts is not None:
                table = self._keyspace.random.choice([part for part in table.parts if part])
            if not table or (volatile_only and not table.volatile):
                continue
            skipped = 0
            if len(table) > 4 * SAMPLE_ENTRIES:
                skipped = self._keyspace.random.randrange(len(table) - SAMPLE_ENTRIES)
            for key, entry in islice(table.items(), skipped, skipped + 2 * SAMPLE_ENTRIES):
                if not volatile_only or entry.expires_ms != NEVER:
                    found.append((key, entry))
            if len(found) >= SAMPLE_ENTRIES:
                break
        return found
