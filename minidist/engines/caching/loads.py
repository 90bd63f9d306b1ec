"""Loads of missing keys: one at a time for each key, whoever asks, and none that overwrites something newer.

Each load has a lease, a number (the lease tokens of "Scaling Memcache at Facebook", NSDI 2013, section 3.2.1). Whatever
changes the key meanwhile (a write, a delete, a flush) revokes it; an answer without a valid lease is dropped, since the
store may have made it before the change. So a slow load cannot bring back what a newer write or invalidation replaced.

A key that the store does not have is remembered as absent for `negative_ttl_ms` (RFC 2308 has the idea for DNS): asking
for it costs the store nothing. Lifetimes of what is loaded are shortened by a random part, so that keys that were
loaded together do not expire together.

A loaded key may be served for `stale_ms` beyond its lifetime while one load renews it (stale-while-revalidate, RFC
5861), and renewed when it is read in the last `ahead_percent` of its lifetime (refresh-ahead). All times are service
time.
"""

import random
from collections import OrderedDict
from dataclasses import dataclass

from minidist.engines.caching.requests import Load
from minidist.engines.keyspace.tables import NEVER

# Keys that are not there are remembered up to this number and length: 10 MB at most.
ABSENT_KEYS = 10_000
ABSENT_KEY_BYTES = 1024
# After a renewal that failed the next one waits so long.
RENEW_AGAIN_MS = 1000


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long what the store says is believed. 0 for `load_ttl_ms`: as long as the store says, or for ever."""

    load_ttl_ms: int = 0
    negative_ttl_ms: int = 0
    jitter_percent: int = 0
    stale_ms: int = 0
    ahead_percent: int = 0


class Loads:
    """The loads under way, the keys known to be absent, and when loaded keys are to be renewed. All O(1)."""

    def __init__(self, lifetimes: Lifetimes, rng: random.Random) -> None:
        self.lifetimes = lifetimes
        self.started = 0
        self.absent_hits = 0
        self.stale_hits = 0
        self.revoked = 0
        self._random = rng
        self._lease = 0
        self._leases: dict[bytes, int] = {}
        self._absent: OrderedDict[bytes, int] = OrderedDict()
        self.renewals: dict[bytes, tuple[int, int]] = {}  # renew from, stale from

    def __len__(self) -> int:
        """Loads whose answers count."""
        return len(self._leases)

    def is_under_way(self, key: bytes) -> bool:
        return key in self._leases

    def begin(self, key: bytes) -> Load | None:
        """The load to make; None when one is under way."""
        if key in self._leases:
            return None
        self._lease += 1
        self._leases[key] = self._lease
        self.started += 1
        return Load(key, self._lease)

    def revoke(self, key: bytes) -> bool:
        """The key was changed: whatever is on its way, or known, is of the past. Whether a load was under way."""
        self._absent.pop(key, None)
        self.renewals.pop(key, None)
        if self._leases.pop(key, None) is None:
            return False
        self.revoked += 1
        return True

    def revoke_all(self) -> list[bytes]:
        """The keys that had a load under way."""
        keys = list(self._leases)
        self.revoked += len(keys)
        self._leases.clear()
        self._absent.clear()
        self.renewals.clear()
        return keys

    def redeem(self, load: Load) -> bool:
        """A load has ended: whether its answer counts."""
        if self._leases.get(load.key) != load.lease:
            return False
        del self._leases[load.key]
        return True

    # --- what is not there ------------------------------------------------------------------------------------------

    def is_absent(self, key: bytes, now_ms: int) -> bool:
        """Whether the store is known not to have this key."""
        until_ms = self._absent.get(key)
        if until_ms is None:
            return False
        if until_ms <= now_ms:
            del self._absent[key]
            return False
        self.absent_hits += 1
        return True

    def note_absent(self, key: bytes, now_ms: int) -> None:
        """The store does not have it. The oldest such note goes when there are too many."""
        self.renewals.pop(key, None)
        ttl_ms = self._shortened(self.lifetimes.negative_ttl_ms)
        if not ttl_ms or len(key) > ABSENT_KEY_BYTES:
            return
        if len(self._absent) >= ABSENT_KEYS:
            self._absent.popitem(last=False)
        self._absent[key] = now_ms + ttl_ms

    @property
    def absent_keys(self) -> int:
        return len(self._absent)

    # --- how long what is there is believed -------------------------------------------------------------------------

    def expiry_ms(self, key: bytes, store_expires_ms: int, now_ms: int) -> int:
        """When a key that was loaded now leaves the cache; notes when to renew it."""
        lifetimes = self.lifetimes
        ttl_ms = store_expires_ms - now_ms if store_expires_ms != NEVER else NEVER
        if lifetimes.load_ttl_ms:
            ttl_ms = min(ttl_ms, lifetimes.load_ttl_ms)
        if ttl_ms == NEVER:
            return NEVER
        ttl_ms = max(self._shortened(ttl_ms), 1)
        if lifetimes.stale_ms or lifetimes.ahead_percent:
            renew_ms = now_ms + ttl_ms * (100 - lifetimes.ahead_percent) // 100
            self.renewals[key] = (renew_ms, now_ms + ttl_ms)
        return min(now_ms + ttl_ms + lifetimes.stale_ms, store_expires_ms)

    def _shortened(self, ttl_ms: int) -> int:
        """By up to `jitter_percent`: never longer than was promised."""
        return ttl_ms - int(ttl_ms * self.lifetimes.jitter_percent * self._random.random() / 100)

    def renew(self, key: bytes, now_ms: int) -> Load | None:
        """A key that is there was read: the load that renews it, if it is time for one."""
        renewal = self.renewals.get(key)
        if renewal is None or now_ms < renewal[0]:
            return None
        self.stale_hits += now_ms >= renewal[1]
        return self.begin(key)

    def renewal_failed(self, key: bytes, now_ms: int) -> None:
        """What is there stays until its time is over."""
        renewal = self.renewals.get(key)
        if renewal is not None:
            self.renewals[key] = (now_ms + RENEW_AGAIN_MS, renewal[1])

    def forget_renewal(self, key: bytes) -> None:
        """The key has left the cache."""
        self.renewals.pop(key, None)
