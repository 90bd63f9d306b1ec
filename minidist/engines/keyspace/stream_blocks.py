"""Values by stream id, in the order of the ids: what a stream's entries and its lists of pending entries are kept in.

They stand in blocks of about BLOCK_ENTRIES, so that nothing ever moves more than one block and the list of blocks: a
million ids are 10,000 blocks. Ids come nearly always in order: appending is O(1), all else is two binary searches and
a memmove within a block. `firsts` are lower bounds of the blocks, exact when a block begins; they may stay lower once
its first id is gone.

An id is one integer, milliseconds << 64 | sequence number, which compares as Redis compares ids.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, TypeVar

V = TypeVar("V")

# As Redis' `stream-node-max-entries`, so that approximate trimming, which takes whole blocks, removes the same entries.
BLOCK_ENTRIES = 100
# What the parts take, measured: an empty map, each block of it, and each of its places.
MAP_BYTES = 330
BLOCK_BYTES = 230
PLACE_BYTES = 17


class Account:
    """Memory of one stream with all its parts, in bytes."""

    __slots__ = ("bytes",)

    def __init__(self, own_bytes: int) -> None:
        self.bytes = own_bytes


class BlockMap(Generic[V]):
    """A map from ids to values. It books its own memory on `account`; values and ids are booked by its owner."""

    __slots__ = ("account", "count", "firsts", "ids", "values")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.count = 0
        self.firsts: list[int] = []
        self.ids: list[list[int]] = []
        self.values: list[list[V]] = []
        account.bytes += MAP_BYTES

    def __len__(self) -> int:
        return self.count

    @property
    def memory_bytes(self) -> int:
        """What the map itself has booked."""
        return MAP_BYTES + BLOCK_BYTES * len(self.ids) + PLACE_BYTES * self.count

    def fill(self, other: "BlockMap[V]") -> None:
        """Take over the ids and values of another map, into an empty one."""
        self.count = other.count
        self.firsts = other.firsts[:]
        self.ids = [ids[:] for ids in other.ids]
        self.values = [values[:] for values in other.values]
        self.account.bytes += self.memory_bytes - MAP_BYTES

    # --- looking up -------------------------------------------------------------------------------------------------

    @property
    def first_id(self) -> int | None:
        return self.ids[0][0] if self.ids else None

    @property
    def last_id(self) -> int | None:
        return self.ids[-1][-1] if self.ids else None

    def get(self, entry_id: int) -> V | None:
        block = bisect_right(self.firsts, entry_id) - 1
        if block < 0:
            return None
        ids = self.ids[block]
        at = bisect_left(ids, entry_id)
        return self.values[block][at] if at < len(ids) and ids[at] == entry_id else None

    def ascending(self, first: int, last: int) -> Iterator[tuple[int, V]]:
        """What lies from `first` to `last`, both included. The map must not change meanwhile."""
        block = max(bisect_right(self.firsts, first) - 1, 0)
        for number in range(block, len(self.ids)):
            ids, values = self.ids[number], self.values[number]
            at = bisect_left(ids, first) if number == block else 0
            if ids[-1] > last:
                end = bisect_right(ids, last)
                yield from zip(ids[at:end], values[at:end], strict=True)
                return
            yield from zip(ids[at:], values[at:], strict=True)

    def descending(self, last: int, first: int) -> Iterator[tuple[int, V]]:
        """The same from `last` down to `first`."""
        block = bisect_right(self.firsts, last) - 1
        for number in range(block, -1, -1):
            ids, values = self.ids[number], self.values[number]
            for at in range((bisect_right(ids, last) if number == block else len(ids)) - 1, -1, -1):
                if ids[at] < first:
                    return
                yield ids[at], values[at]

    # --- changing ---------------------------------------------------------------------------------------------------

    def append(self, entry_id: int, value: V) -> None:
        """Add an id greater than all that are there."""
        if not self.ids or len(self.ids[-1]) >= BLOCK_ENTRIES:
            self.firsts.append(entry_id)
            self.ids.append([])
            self.values.append([])
            self.account.bytes += BLOCK_BYTES
        self.ids[-1].append(entry_id)
        self.values[-1].append(value)
        self.count += 1
        self.account.bytes += PLACE_BYTES

    def insert(self, entry_id: int, value: V) -> None:
        """Add an id that is not there, anywhere."""
        if not self.ids or entry_id > self.ids[-1][-1]:
            self.append(entry_id, value)
            return
        block = max(bisect_right(self.firsts, entry_id) - 1, 0)
        self.firsts[block] = min(self.firsts[block], entry_id)
        ids, values = self.ids[block], self.values[block]
        at = bisect_left(ids, entry_id)
        ids.insert(at, entry_id)
        values.insert(at, value)
        self.count += 1
        self.account.bytes += PLACE_BYTES
        if len(ids) >= 2 * BLOCK_ENTRIES:
            self._split(block)

    def _split(self, block: int) -> None:
        ids, values = self.ids[block], self.values[block]
        self.firsts.insert(block + 1, ids[BLOCK_ENTRIES])
        self.ids[block : block + 1] = [ids[:BLOCK_ENTRIES], ids[BLOCK_ENTRIES:]]
        self.values[block : block + 1] = [values[:BLOCK_ENTRIES], values[BLOCK_ENTRIES:]]
        self.account.bytes += BLOCK_BYTES

    def pop(self, entry_id: int) -> V | None:
        """Take an id out: its value, None if it is not there."""
        block = bisect_right(self.firsts, entry_id) - 1
        if block < 0:
            return None
        ids = self.ids[block]
        at = bisect_left(ids, entry_id)
        if at == len(ids) or ids[at] != entry_id:
            return None
        del ids[at]
        value = self.values[block].pop(at)
        if not ids:
            self._drop(block)
        self.count -= 1
        self.account.bytes -= PLACE_BYTES
        return value

    def pop_first(self, count: int) -> list[V]:
        """Take the first ids of the first block out, or the whole block if it has no more: their values."""
        values = self.values[0][:count]
        del self.ids[0][:count]
        del self.values[0][:count]
        if not self.ids[0]:
            self._drop(0)
        self.count -= len(values)
        self.account.bytes -= PLACE_BYTES * len(values)
        return values

    def _drop(self, block: int) -> None:
        del self.firsts[block]
        del self.ids[block]
        del self.values[block]
        self.account.bytes -= BLOCK_BYTES
