"""S3-FIFO: which key goes, by three queues that are only ever appended to and taken from.

Source: J. Yang et al., FIFO queues are all you need for cache eviction, SOSP 2023, algorithm 1.

A new key enters the small queue, which holds a tenth of all keys. At its end, a key that was used more than once since
moves to the main queue; any other is evicted, and remembered for a while as a ghost. A new key that has a ghost enters
the main queue at once. At the end of the main queue a key that was used goes in again, with one use less; any other is
evicted. So what is asked for once, by a scan say, passes through the small queue and leaves the main one alone.

An entry's `mark` says that it stands in a queue, and how often it was used since, up to three: see `marked`. Which
queue it is in shows when its turn comes. A key that was deleted or has expired stays in its queue until its turn, or
until there are as many of those as of living ones: then each new key clears one block of them.

Ghosts are kept in two generations: together they are at most as many as the paper has, nine tenths of the keys, and
half of that at least. When the policy is switched on, keys that are there already are put into the main queue, some
with each eviction, since all at once would stop the loop. For the same reason a search ends after MOST_MOVES keys that
stay or have gone; then a sample decides (eviction.py).
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minidist.engines.keyspace.sets import Set
from minidist.engines.keyspace.tables import Entry

if TYPE_CHECKING:
    from minidist.engines.keyspace.database import Database

SMALL_PART = 10  # the small queue holds one key of so many
PROMOTING_USES, MOST_USES = 2, 3
MOST_MOVES = 2000
FILL_KEYS = 500  # that were there before the policy, with each eviction
BLOCK_WORDS = 512  # a key and an entry take two
PAIR_BYTES = 18  # two references, and what lists keep free

Pair = tuple[bytes, Entry]


def marked(life: int, uses: int) -> int:
    """The mark of an entry that stands in the queues of a certain life of the policy."""
    return -1 - life * (MOST_USES + 1) - uses


class Queue:
    """First in, first out. `length` counts those that have gone, too."""

    __slots__ = ("_blocks", "_head", "_swept", "length")

    def __init__(self) -> None:
        self._blocks: deque[list[Any]] = deque()
        self._head = 0  # words of the first block that were taken
        self._swept = 0
        self.length = 0

    def push(self, key: bytes, entry: Entry) -> None:
        blocks = self._blocks
        if not blocks or len(blocks[-1]) >= BLOCK_WORDS:
            blocks.append([])
        blocks[-1] += key, entry
        self.length += 1

    def pop(self) -> Pair:
        """The oldest; there must be one."""
        block, head = self._blocks[0], self._head
        key, entry = block[head], block[head + 1]
        block[head] = block[head + 1] = None
        self._head += 2
        if self._head == len(block):
            self._blocks.popleft()
            self._head = 0
        self.length -= 1
        return key, entry

    def sweep(self, lives: Callable[[bytes, Entry], bool]) -> None:
        """Forget those of the next block that do not live any more."""
        if not self._blocks:
            return
        at = self._swept = (self._swept + 1) % len(self._blocks)
        block = self._blocks[at]
        words = iter(block[self._head if at == 0 else 0 :])
        kept = [word for pair in zip(words, words, strict=True) if lives(*pair) for word in pair]
        self.length -= (len(block) - (self._head if at == 0 else 0) - len(kept)) // 2
        if at == 0:
            self._head = 0
        if kept:
            self._blocks[at] = kept
        else:
            del self._blocks[at]

    def pieces(self) -> list[list[Any]]:
        """To be emptied in steps; the queue is not used any more."""
        return [list(self._blocks)]


class Queues:
    """The queues of one database, in one life of the policy: from when it was switched on, or from a flush."""

    def __init__(self, life: int) -> None:
        self.life = life
        self.small, self.main = Queue(), Queue()
        self._young, self._old = Set(), Set()
        self._fill_from: tuple[int, int] | None = (0, 0)  # slot and part from which on keys may stand in no queue yet
        self.counted_bytes = 0

    def _count(self, database: "Database") -> None:
        """Queues and ghosts are paid for like keys."""
        pairs = self.small.length + self.main.length
        taken_bytes = pairs * PAIR_BYTES + self._young.memory_bytes + self._old.memory_bytes
        database.keyspace.used_bytes += taken_bytes - self.counted_bytes
        self.counted_bytes = taken_bytes

    def pieces(self) -> list[list[Any]]:
        """To be emptied in steps; nobody uses this any more."""
        return [piece for part in (self.small, self.main, self._young, self._old) for piece in part.pieces()]

    # --- keys come and are used -------------------------------------------------------------------------------------

    def join(self, database: "Database", key: bytes, entry: Entry) -> None:
        """A new key."""
        entry.mark = marked(self.life, 0)
        if self._young.remove(key) or self._old.remove(key):
            self.main.push(key, entry)
        else:
            self.small.push(key, entry)
        if self.small.length + self.main.length > 2 * database.count + BLOCK_WORDS:
            for queue in (self.small, self.main):
                queue.sweep(lambda key, entry: database.table(key).get(key) is entry)
        self._count(database)

    @staticmethod
    def leave(entry: Entry) -> None:
        """A key has gone. Its entry stays in its queue until its turn, and must not keep the value in memory."""
        entry.value = b""

    def use(self, entry: Entry) -> None:
        """A key is about to be used."""
        uses = self._uses(entry)
        if 0 <= uses < MOST_USES:
            entry.mark = marked(self.life, uses + 1)

    def _uses(self, entry: Entry) -> int:
        """How often, since it entered its queue; -1 if it stands in none."""
        uses = marked(self.life, 0) - entry.mark
        return uses if 0 <= uses <= MOST_USES else -1

    # --- keys go ----------------------------------------------------------------------------------------------------

    def next_victim(self, database: "Database") -> Pair | None:
        """The key that has to go, taken out of its queue; None when the search was too long, or all is empty."""
        self._fill(database)
        found = self._search(database)
        self._count(database)
        return found

    def _search(self, database: "Database") -> Pair | None:
        small, main = self.small, self.main
        for _ in range(MOST_MOVES):
            from_small = small.length * SMALL_PART >= small.length + main.length
            queue = small if from_small else main
            if not queue.length:
                break
            key, entry = queue.pop()
            if database.table(key).get(key) is not entry:
                continue
            uses = self._uses(entry)
            if uses >= (PROMOTING_USES if from_small else 1):
                entry.mark = marked(self.life, 0 if from_small else uses - 1)
                main.push(key, entry)
                continue
            if from_small:
                self._remember(database, key)
            return key, entry
        return None

    def _remember(self, database: "Database", key: bytes) -> None:
        """A ghost more."""
        keys = self.small.length + self.main.length
        if len(self._young) * 2 * SMALL_PART >= keys * (SMALL_PART - 1):
            database.keyspace.bury(self._old)
            self._old, self._young = self._young, Set()
        self._young.add(key)

    def _fill(self, database: "Database") -> None:
        """Queue some of the keys that were there before this life began."""
        if self._fill_from is None:
            return
        queued = 0
        for slot, part, table in database.filled(*self._fill_from):
            if queued >= FILL_KEYS:
                self._fill_from = slot, part
                return
            for key, entry in table.items():
                if self._uses(entry) < 0:
                    entry.mark = marked(self.life, 0)
                    self.main.push(key, entry)
            queued += len(table)
        self._fill_from = None
