"""A list of byte strings: what LPUSH and its kin change.

The elements stand in blocks, plain Python lists of at most BLOCK_ELEMENTS. Both ends are pushed to and popped from in
constant time (an insert at the front of a block moves 2 kB at most), growing and shrinking never copies more than one
block and the list of blocks, and an index is found by walking the blocks from the nearer end: for a million elements
that is 2,000 steps at most, a tenth of a millisecond. A small list is one block, and costs little.

Blocks are never empty. One that shrinks in the middle joins its neighbour when both fit into half a block, so that
removing elements cannot leave many small blocks behind.

`memory_bytes` is a sum of lengths and constants, like the account of keys (memory.py).
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any, ClassVar

from minidist.engines.keyspace.memory import BYTES_OBJECT

BLOCK_ELEMENTS = 256
MOST_JOINED_BLOCKS = 16  # when more of them have shrunk, all are made anew
# The object, its list of blocks, and the rounding of small allocations.
LIST_BYTES = 160
# A block: the list object with the collector's header, and its place in the list of blocks.
BLOCK_BYTES = 88
# An element: its object, its place in a block, and what a block keeps free to grow.
ELEMENT_BYTES = BYTES_OBJECT + 9
# Beyond this many bytes Redis keeps a list in several nodes (list-max-listpack-size -2), each element with a header.
LISTPACK_BYTES = 8192
LISTPACK_ELEMENT_BYTES = 2


class List:
    """Indexes count from 0, and lie within the list, unless a method says otherwise."""

    type_name: ClassVar[str] = "list"
    __slots__ = ("_blocks", "length", "memory_bytes")

    def __init__(self) -> None:
        self._blocks: list[list[bytes]] = []
        self.length = 0
        self.memory_bytes = LIST_BYTES

    def pieces(self) -> list[list[Any]]:
        return [self._blocks]

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(self._blocks)

    def __reversed__(self) -> Iterator[bytes]:
        return chain.from_iterable(map(reversed, reversed(self._blocks)))

    def __copy__(self) -> "List":
        copy = List()
        copy._blocks = [block[:] for block in self._blocks]
        copy.length = self.length
        copy.memory_bytes = self.memory_bytes
        return copy

    @property
    def encoding(self) -> str:
        content_bytes = self.memory_bytes - LIST_BYTES - len(self._blocks) * BLOCK_BYTES - self.length * ELEMENT_BYTES
        small = content_bytes + self.length * LISTPACK_ELEMENT_BYTES <= LISTPACK_BYTES
        return "listpack" if small else "quicklist"

    # --- at the ends ------------------------------------------------------------------------------------------------

    def push_left(self, element: bytes) -> None:
        blocks = self._blocks
        if blocks and len(blocks[0]) < BLOCK_ELEMENTS:
            blocks[0].insert(0, element)
        else:
            blocks.insert(0, [element])
            self.memory_bytes += BLOCK_BYTES
        self.length += 1
        self.memory_bytes += len(element) + ELEMENT_BYTES

    def push_right(self, element: bytes) -> None:
        blocks = self._blocks
        if blocks and len(blocks[-1]) < BLOCK_ELEMENTS:
            blocks[-1].append(element)
        else:
            blocks.append([element])
            self.memory_bytes += BLOCK_BYTES
        self.length += 1
        self.memory_bytes += len(element) + ELEMENT_BYTES

    def pop_left(self) -> bytes:
        """Take the first element; there must be one."""
        block = self._blocks[0]
        element = block.pop(0)
        if not block:
            del self._blocks[0]
            self.memory_bytes -= BLOCK_BYTES
        self.length -= 1
        self.memory_bytes -= len(element) + ELEMENT_BYTES
        return element

    def pop_right(self) -> bytes:
        """Take the last element; there must be one."""
        block = self._blocks[-1]
        element = block.pop()
        if not block:
            del self._blocks[-1]
            self.memory_bytes -= BLOCK_BYTES
        self.length -= 1
        self.memory_bytes -= len(element) + ELEMENT_BYTES
        return element

    # --- by index ---------------------------------------------------------------------------------------------------

    def _place(self, index: int) -> tuple[int, int]:
        """The block that an index lies in, and the index inside of it."""
        if 2 * index < self.length:
            at = 0
            for block in self._blocks:
                if index < len(block):
                    break
                index -= len(block)
                at += 1
            return at, index
        at, index = len(self._blocks), index - self.length
        for block in reversed(self._blocks):
            at -= 1
            index += len(block)
            if index >= 0:
                break
        return at, index

    def __getitem__(self, index: int) -> bytes:
        at, inner = self._place(index)
        return self._blocks[at][inner]

    def __setitem__(self, index: int, element: bytes) -> None:
        at, inner = self._place(index)
        block = self._blocks[at]
        self.memory_bytes += len(element) - len(block[inner])
        block[inner] = element

    def between(self, start: int, stop: int) -> list[bytes]:
        """The elements from `start` up to, and without, `stop`, which may be the length."""
        found: list[bytes] = []
        if start >= stop:
            return found
        at, inner = self._place(start)
        missing = stop - start
        while missing:
            part = self._blocks[at][inner : inner + missing]
            found += part
            missing -= len(part)
            at, inner = at + 1, 0
        return found

    def insert(self, index: int, element: bytes) -> None:
        """Put an element before the one that is at an index."""
        at, inner = self._place(index)
        block = self._blocks[at]
        if len(block) >= BLOCK_ELEMENTS:
            half = BLOCK_ELEMENTS // 2
            self._blocks[at : at + 1] = [block[:half], block[half:]]
            self.memory_bytes += BLOCK_BYTES
            at, inner = (at, inner) if inner < half else (at + 1, inner - half)
        self._blocks[at].insert(inner, element)
        self.length += 1
        self.memory_bytes += len(element) + ELEMENT_BYTES

    def index(self, element: bytes) -> int:
        """The first index of an element, or -1."""
        before = 0
        for block in self._blocks:
            if element in block:
                return before + block.index(element)
            before += len(block)
        return -1

    # --- many at once -----------------------------------------------------------------------------------------------

    def remove(self, element: bytes, most: int) -> int:
        """Remove the first `most` elements that are equal to this one, or the last -`most`, or with 0 all of them; how
        many there were. O(n)."""
        blocks = self._blocks
        missing = abs(most) or self.length
        removed = 0
        order = range(len(blocks) - 1, -1, -1) if most < 0 else range(len(blocks))
        shrunk: list[int] = []
        for at in order:
            count = blocks[at].count(element)
            if not count:
                continue
            taken = min(count, missing)
            blocks[at] = _without(blocks[at], element, taken, from_end=most < 0)
            shrunk.append(at)
            removed += taken
            missing -= taken
            if not missing:
                break
        self.length -= removed
        self.memory_bytes -= removed * (len(element) + ELEMENT_BYTES)
        self._tidy(shrunk)
        return removed

    def _tidy(self, shrunk: list[int]) -> None:
        """Drop blocks that became empty, and join small ones with their neighbours."""
        if len(shrunk) > MOST_JOINED_BLOCKS:
            self._rebuild()
            return
        for at in sorted(shrunk, reverse=True):
            self._join(at)
            if at:
                self._join(at - 1)
        if not self.length and self._blocks:
            self._rebuild()

    def _join(self, at: int) -> None:
        """Join a block and the next one when both fit into half a block."""
        blocks = self._blocks
        if at + 1 >= len(blocks):
            return
        size = len(blocks[at]) + len(blocks[at + 1])
        if size <= BLOCK_ELEMENTS // 2 or size in (len(blocks[at]), len(blocks[at + 1])):
            blocks[at] += blocks.pop(at + 1)
            self.memory_bytes -= BLOCK_BYTES

    def _rebuild(self) -> None:
        """Put all elements into full blocks."""
        before = len(self._blocks)
        elements = list(self)
        self._blocks = [elements[at : at + BLOCK_ELEMENTS] for at in range(0, len(elements), BLOCK_ELEMENTS)]
        self.memory_bytes += (len(self._blocks) - before) * BLOCK_BYTES

    def trim(self, start: int, stop: int) -> None:
        """Keep the elements from `start` up to, and without, `stop`. O(1) for each element that goes."""
        if start >= stop:
            self._blocks.clear()
            self.length, self.memory_bytes = 0, LIST_BYTES
            return
        blocks = self._blocks
        last, surplus = len(blocks), self.length - stop
        while surplus >= len(blocks[last - 1]):
            last -= 1
            surplus -= len(blocks[last])
        first, missing = 0, start
        while missing >= len(blocks[first]):
            missing -= len(blocks[first])
            first += 1
        for block in (*blocks[:first], *blocks[last:]):
            self.length -= len(block)
            self.memory_bytes -= BLOCK_BYTES + len(block) * ELEMENT_BYTES + sum(map(len, block))
        del blocks[last:]
        del blocks[:first]
        for _ in range(surplus):
            self.pop_right()
        for _ in range(missing):
            self.pop_left()


def _without(block: list[bytes], element: bytes, count: int, *, from_end: bool) -> list[bytes]:
    """A block without so many of an element."""
    if count == block.count(element):
        return [each for each in block if each != element]
    kept = block[::-1] if from_end else block[:]
    for _ in range(count):
        kept.remove(element)
    return kept[::-1] if from_end else kept
