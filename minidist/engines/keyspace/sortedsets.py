"""Sorted sets: members, each with a score, in the order of score and then member.

A pair of score and member is one tuple, which stands in two places: attached to the member (members.py, which also says
how a million of them are kept without long steps), and in `order`. Up to SHORT_MEMBERS the order is a plain list, where
a bisection and a move of some bytes are all there is to a change; beyond, it is a SortedList, a list of lists of at
most two thousand, whose index of positions is made anew, in 0.2 ms for a million, after one of them was divided.

Every range, by rank, by score or by member, is first made a range of positions, `start` to `stop` (not included), by
bisection; whatever is done with it is written once.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, nextafter
from operator import itemgetter
from random import Random
from typing import Any, ClassVar

from sortedcontainers import SortedList

from minidist.engines.keyspace.members import Members

# Redis keeps a sorted set up to these sizes in one piece, and says so in OBJECT ENCODING.
SHORT_MEMBERS = 128
COMPACT_BYTES = 64

# A tuple of two with the collector's header, a float, and a place in the order with its share of the list's slack.
PAIR_BYTES = 80 + 32 + 12
# The list of a short order, and what a SortedList has besides its places.
SHORT_BYTES = 88
LONG_BYTES = 600

Pair = tuple[float, bytes]


class Short(list[Pair]):
    """Few pairs in order: as much of SortedList as is used here, for a fraction of its memory."""

    __slots__ = ()

    def add(self, pair: Pair) -> None:
        insort(self, pair)

    def remove(self, pair: Pair) -> None:
        del self[bisect_left(self, pair)]

    def bisect_left(self, pair: Any) -> int:
        return bisect_left(self, pair)

    def bisect_right(self, pair: Pair) -> int:
        return bisect_right(self, pair)


@dataclass(frozen=True, slots=True)
class ScoreRange:
    """Scores from `low` to `high`; either may be left out itself."""

    low: float
    high: float
    without_low: bool = False
    without_high: bool = False


@dataclass(frozen=True, slots=True)
class MemberRange:
    """Members from `low` to `high` in the order of bytes; None is beyond every member (`+`), b"" below any (`-`)."""

    low: bytes | None
    high: bytes | None
    without_low: bool = False
    without_high: bool = False


class SortedSet(Members[Pair]):
    """Members with scores, which are never NaN."""

    __slots__ = ("order",)

    type_name: ClassVar[str] = "zset"

    def __init__(self) -> None:
        super().__init__()
        self.order: Any = Short()  # or a SortedList of pairs
        self.memory_bytes += SHORT_BYTES

    def pieces(self) -> list[list[Any]]:
        ordered = [] if isinstance(self.order, Short) else [self.order._lists]  # SortedList's own pieces
        return [*super().pieces(), *ordered]

    @classmethod
    def of(cls, scores: Iterable[tuple[bytes, float]]) -> "SortedSet":
        made = cls()
        for member, score in scores:
            made.put(member, score)
        return made

    def __copy__(self) -> "SortedSet":
        copy = super().__copy__()
        copy.order = self.order.__class__(self.order)
        return copy

    @property
    def encoding(self) -> str:
        """The name that Redis would give to a sorted set that was written like this at once."""
        if self.count > SHORT_MEMBERS or max(map(len, self)) > COMPACT_BYTES:
            return "skiplist"
        return "listpack"

    # --- looking ----------------------------------------------------------------------------------------------------

    def score(self, member: bytes) -> float | None:
        pair = (self.part(member) if self.whole is None else self.whole).get(member)
        return None if pair is None else pair[0]

    def rank(self, member: bytes) -> int | None:
        """How many stand before a member. O(log N)."""
        pair = self.part(member).get(member)
        return None if pair is None else int(self.order.bisect_left(pair))

    def positions(self, limits: ScoreRange | MemberRange) -> tuple[int, int]:
        """Where a range starts and stops; start is not before stop where it is empty. O(log N).

        A range of members supposes that all have one score. Where they have not, the order by score is searched as if
        it were one of members, as Redis does.
        """
        if isinstance(limits, ScoreRange):
            return self._above(limits.low, limits.without_low), self._above(limits.high, not limits.without_high)
        start = self._member_position(limits.low, after=limits.without_low)
        return start, self._member_position(limits.high, after=not limits.without_high)

    def _above(self, score: float, after: bool) -> int:
        """The position of the first with this score or a higher one; `after` those with this score."""
        if after:
            if score == inf:
                return self.count
            score = nextafter(score, inf)
        return int(self.order.bisect_left((score,)))

    def _member_position(self, member: bytes | None, after: bool) -> int:
        if member is None or not self.count:
            return self.count
        score = self.order[0][0]
        if self.order[-1][0] != score:
            by_member = bisect_right if after else bisect_left
            return by_member(self.order, member, key=itemgetter(1))
        return int(self.order.bisect_right((score, member)) if after else self.order.bisect_left((score, member)))

    def pairs(self, start: int, stop: int, backward: bool = False) -> list[Pair]:
        """The pairs of a range of positions, in order. O(log N + count)."""
        found: list[Pair] = self.order[start:stop] if start < stop else []
        if backward:
            found.reverse()
        return found

    def choose_pair(self, rng: Random) -> Pair:
        """Any pair, each with the same probability. O(log N)."""
        pair: Pair = self.order[rng.randrange(self.count)]
        return pair

    def scan(self, cursor: int, count: int) -> tuple[int, list[tuple[bytes, Pair]]]:
        """As `Members.scan`; a short set comes whole and in order."""
        if self.order.__class__ is Short:
            return 0, [(pair[1], pair) for pair in self.order]
        return super().scan(cursor, count)

    # --- changing ---------------------------------------------------------------------------------------------------

    def put(self, member: bytes, score: float) -> float | None:
        """Give a member a score; the one that it had before, or None. O(log N)."""
        part = self.part(member) if self.whole is None else self.whole
        before = part.get(member)
        score += 0.0  # which makes -0 a 0
        if before is None:
            pair = (score, member)
            self._insert(part, member, pair, PAIR_BYTES)
            self.order.add(pair)
            if self.count == SHORT_MEMBERS + 1 and self.order.__class__ is Short:
                self.order = SortedList(self.order)
                self.memory_bytes += LONG_BYTES - SHORT_BYTES
            return None
        if before[0] != score:
            pair = (score, before[1])  # the member that is there: one object, not two that are equal
            part[member] = pair
            self.order.remove(before)
            self.order.add(pair)
        return before[0]

    def remove(self, member: bytes) -> bool:
        """Whether the member was there. O(log N)."""
        pair = self.part(member).pop(member, None)
        if pair is None:
            return False
        self.order.remove(pair)
        self._removed(member, PAIR_BYTES)
        return True

    def remove_positions(self, start: int, stop: int) -> list[Pair]:
        """Remove a range of positions; the pairs that were there, in order. O(log N + count)."""
        removed = self.pairs(start, stop)
        if removed:
            del self.order[start:stop]
        for _, member in removed:
            del self.part(member)[member]
            self._removed(member, PAIR_BYTES)
        return removed
