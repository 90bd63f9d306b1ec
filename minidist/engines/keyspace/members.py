"""What hashes and sets are made of: members, each with something attached, of which a collection may have millions.

Up to PART_MEMBERS they are in one dict, `whole`, in the order in which they came. A dict of a million would stall the
loop for tens of milliseconds whenever it grows, so what is larger is cut into `parts` by linear hashing (Litwin, 1980):
the lowest bits of a member's CRC-32 say which part it belongs to, and whenever there are PART_MEMBERS members for each
part on average, one part, the next in turn, is divided in two. Removing members takes that back, part by part. So no
step moves more than some hundred members, and a collection that was large once is not slow for ever.

A scan goes through the members in the order of their CRC-32 with its bits reversed. Each part holds a range of that
order, however many parts there are; a division cuts the range in two. So a cursor, which is a place in that order,
stays true while the parts change: a member that is there from the first step to the last is returned, and it is
returned twice only if parts were put together in between.

`memory_bytes` is kept exact by whatever changes members; see memory.py.
"""

from collections.abc import Iterator
from itertools import chain, islice
from random import Random
from typing import Any, Generic, Self, TypeVar
from zlib import crc32

from minidist.engines.keyspace.memory import BYTES_OBJECT

PART_MEMBERS = 256
SPARSE_MEMBERS = PART_MEMBERS // 4
# Random choice picks a part, then a place below this, and tries again where that part has none: four times on average.
LONGEST_PART = 4 * PART_MEMBERS
PICKS = 100
# The bits of CRC-32, and how many places there are in the order of a scan.
ORDER_BITS = 32
ORDER_END = 1 << ORDER_BITS

# A dict's header for the garbage collector, and rounding; its `__sizeof__` is all the rest.
DICT_OBJECT = 24
# The collection itself: five slots, a header, and an integer for `memory_bytes`.
MEMBERS_OBJECT = 112

V = TypeVar("V")


class Members(Generic[V]):
    """Members and what is attached to each. Subclasses know what that is and what it weighs."""

    __slots__ = ("count", "mask", "memory_bytes", "parts", "whole")

    def __init__(self) -> None:
        self.whole: dict[bytes, V] | None = {}
        self.parts: list[dict[bytes, V]] = NO_PARTS
        self.mask = 0  # the bits of a checksum that tell the parts apart
        self.count = 0
        self.memory_bytes = MEMBERS_OBJECT + DICT_OBJECT + self.whole.__sizeof__()

    def pieces(self) -> list[list[Any]]:
        return [] if self.parts is NO_PARTS else [self.parts]

    def __len__(self) -> int:
        return self.count

    def __copy__(self) -> Self:
        copy = self.__class__()
        copy.whole = None if self.whole is None else self.whole.copy()
        copy.parts = [part.copy() for part in self.parts] if self.parts else NO_PARTS
        copy.mask = self.mask
        copy.count = self.count
        copy.memory_bytes = self.memory_bytes + copy._dict_bytes() - self._dict_bytes()
        return copy

    # --- looking ----------------------------------------------------------------------------------------------------

    def part(self, member: bytes) -> dict[bytes, V]:
        """The dict that a member is in, or would be."""
        if self.whole is not None:
            return self.whole
        at = crc32(member) & self.mask  # `part_number`, without a call
        return self.parts[at if at < len(self.parts) else at & (self.mask >> 1)]

    def part_number(self, checksum: int) -> int:
        """Which part the members with this CRC-32 belong to."""
        at = checksum & self.mask
        return at if at < len(self.parts) else at & (self.mask >> 1)

    def __contains__(self, member: bytes) -> bool:
        return member in (self.part(member) if self.whole is None else self.whole)

    def dicts(self) -> list[dict[bytes, V]]:
        """All that there is, in the order of replies."""
        return self.parts if self.whole is None else [self.whole]

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(self.dicts())

    def items(self) -> Iterator[tuple[bytes, V]]:
        return chain.from_iterable(each.items() for each in self.dicts())

    def values(self) -> Iterator[V]:
        return chain.from_iterable(each.values() for each in self.dicts())

    # --- changing ---------------------------------------------------------------------------------------------------

    def _insert(self, part: dict[bytes, V], member: bytes, attached: V, weight_bytes: int) -> None:
        """Add a new member to its part; `weight_bytes` is what comes with it besides the member."""
        before_bytes = part.__sizeof__()
        part[member] = attached
        self.memory_bytes += len(member) + BYTES_OBJECT + weight_bytes + part.__sizeof__() - before_bytes
        self.count += 1
        if self.count > PART_MEMBERS and self.count > len(self.parts) * PART_MEMBERS:
            self._divide()

    def _divide(self) -> None:
        """Cut the next part in two."""
        if self.whole is not None:
            self.parts = [self.whole]
            self.whole = None
            self.memory_bytes += self.parts.__sizeof__()
        parts = self.parts
        level = len(parts).bit_length() - 1
        at, bit = len(parts) - (1 << level), 1 << level
        divided, staying, leaving = parts[at], dict[bytes, V](), dict[bytes, V]()
        for member, attached in divided.items():
            (leaving if crc32(member) & bit else staying)[member] = attached
        list_bytes = parts.__sizeof__()
        parts[at] = staying
        parts.append(leaving)
        self.mask = part_mask(len(parts))
        self.memory_bytes += staying.__sizeof__() + leaving.__sizeof__() - divided.__sizeof__() + DICT_OBJECT
        self.memory_bytes += parts.__sizeof__() - list_bytes

    def _removed(self, member: bytes, weight_bytes: int) -> None:
        """A member was taken out of its part."""
        self.memory_bytes -= len(member) + BYTES_OBJECT + weight_bytes
        self.count -= 1
        if self.whole is None and self.count < len(self.parts) * SPARSE_MEMBERS:
            self._unite()

    def _unite(self) -> None:
        """Take back the last division."""
        parts = self.parts
        list_bytes = parts.__sizeof__()
        last = parts.pop()
        self.mask = part_mask(len(parts))
        at = len(parts) - (1 << (len(parts).bit_length() - 1))
        freed_bytes = last.__sizeof__() + parts[at].__sizeof__() + DICT_OBJECT + list_bytes
        parts[at] = parts[at] | last
        self.memory_bytes += parts[at].__sizeof__() + parts.__sizeof__() - freed_bytes
        if len(parts) == 1:
            self.memory_bytes -= parts.__sizeof__()
            self.whole = parts[0]
            self.parts = NO_PARTS

    def _dict_bytes(self) -> int:
        """What dicts and lists take, without the members."""
        of_parts = self.parts.__sizeof__() if self.parts else 0
        return of_parts + sum(each.__sizeof__() + DICT_OBJECT for each in self.dicts())

    # --- walking and choosing ---------------------------------------------------------------------------------------

    def scan(self, cursor: int, count: int) -> tuple[int, list[tuple[bytes, V]]]:
        """One step of a scan from a cursor, of at least `count` items; the next cursor, or 0 at the end."""
        if self.whole is not None:
            return 0, list(self.whole.items())
        found: list[tuple[bytes, V]] = []
        while cursor < ORDER_END:
            if len(found) >= count:
                return cursor, found
            number = self.part_number(reversed_bits(cursor))
            found += self.parts[number].items()
            width = 1 << (ORDER_BITS - part_bits(number, len(self.parts)))
            cursor = (cursor // width + 1) * width
        return 0, found

    def choose(self, rng: Random) -> bytes:
        """A member, each with the same probability. There must be one."""
        if self.whole is not None:
            return nth(self.whole, rng.randrange(self.count))
        parts = self.parts
        for _ in range(PICKS):
            at = int(rng.random() * len(parts) * LONGEST_PART)
            part = parts[at // LONGEST_PART]
            if at % LONGEST_PART < len(part):
                return nth(part, at % LONGEST_PART)
        at = rng.randrange(self.count)
        for part in parts:
            if at < len(part):
                return nth(part, at)
            at -= len(part)
        raise AssertionError("count is the sum of the parts")

    def sample(self, rng: Random, count: int) -> list[bytes]:
        """So many different members; `count` must be less than there are. O(count), or O(N) for a third of them."""
        if count * 3 > self.count:
            return rng.sample(list(self), count)
        chosen: dict[bytes, None] = {}
        while len(chosen) < count:
            chosen[self.choose(rng)] = None
        return list(chosen)

    def choose_again_and_again(self, rng: Random, count: int) -> list[bytes]:
        """So many members, each chosen from all. There must be one. O(count), or O(N) for a third of them."""
        if count * 3 > self.count:
            return rng.choices(list(self), k=count)
        return [self.choose(rng) for _ in range(count)]


NO_PARTS: list[dict[bytes, Any]] = []  # shared by all that are whole; never changed


def part_mask(parts: int) -> int:
    """The bits of a checksum that number so many parts; the highest counts only where there is a part for it."""
    return (1 << (parts - 1).bit_length()) - 1


def part_bits(number: int, parts: int) -> int:
    """How many of the lowest bits of the CRC-32 all members of a part share."""
    bits = (parts - 1).bit_length()
    half = 1 << (bits - 1)
    return bits if number >= half or number + half < parts else bits - 1


def reversed_bits(value: int) -> int:
    """A 32-bit number with its bits in the opposite order."""
    return int(f"{value:032b}"[::-1], 2)


def nth(part: dict[bytes, V], at: int) -> bytes:
    return next(islice(part, at, None))
