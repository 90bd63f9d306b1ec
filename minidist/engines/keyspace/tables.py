"""Entries, and the small tables that hold them.

One dict of a million keys is a trap: an insert that makes it grow stalls the loop for 60 to 154 ms, and it cannot be
scanned by a cursor. So a database has a table for each of the 16,384 hash slots: a million keys are 61 to a table, and
whatever looks at a whole table takes microseconds. Slots without keys share one table, EMPTY, that nobody writes to.

Keys with the same hash tag (`{user:7}:…`) share a slot, whatever their number. A table that passes CROWDED_KEYS is
replaced by a `Crowd`: PARTS tables, chosen by another hash of the whole key. Looking a key up works the same on both;
whoever changes or walks tables looks at `parts` first and works on the part, so that again no step sees many keys.

A table knows a lower bound of its earliest expiry, how many of its entries expire at all, and its dict's memory.
"""

from typing import Any
from zlib import crc32

from minidist.structures.slots import SLOTS

NEVER = 1 << 62
CROWDED_KEYS = 4096
PARTS = 256

Value = Any
"""bytes or bytearray for strings; other types are classes with `type_name` and `memory_bytes`."""


class Entry:
    """What is stored under a key: 64 bytes, besides the value.

    `mark` belongs to the eviction policy: under LFU the logarithmic counter of uses, up to 255; otherwise (and until an
    LFU policy sees the entry used) the time at which the key was made; below 0 it is S3-FIFO's (s3fifo.py).
    """

    __slots__ = ("expires_ms", "mark", "touched_ms", "value")

    def __init__(self, value: Value, touched_ms: int, expires_ms: int) -> None:
        self.value = value
        self.touched_ms = self.mark = touched_ms
        self.expires_ms = expires_ms


class Table(dict[bytes, Entry]):
    """The keys of one slot, or of a part of a crowded one."""

    __slots__ = ("allocated_bytes", "due_ms", "parts", "volatile")

    def __init__(self) -> None:
        self.due_ms = NEVER  # nothing in here expires earlier
        self.volatile = 0  # entries that expire at all
        self.allocated_bytes = 0  # the dict's own memory, as accounted
        self.parts: list[Table] | None = None  # of a Crowd only


EMPTY = Table()
NO_TABLES = [EMPTY] * SLOTS


class Crowd(Table):
    """Stands where the table of a crowded slot stood. Its own dict is empty; `filled` parts have keys."""

    __slots__ = ("filled",)

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Table] = [EMPTY] * PARTS
        self.filled = 0

    def get(self, key: bytes, default: Any = None) -> Any:
        return self.parts[crc32(key) % PARTS].get(key)

    def __bool__(self) -> bool:
        return True

    @classmethod
    def of(cls, table: Table) -> "Crowd":
        """The same entries in parts, with their books."""
        crowd = cls()
        for key, entry in table.items():
            at = crc32(key) % PARTS
            part = crowd.parts[at]
            if part is EMPTY:
                part = crowd.parts[at] = Table()
                crowd.filled += 1
            part[key] = entry
            if entry.expires_ms != NEVER:
                part.volatile += 1
                part.due_ms = min(part.due_ms, entry.expires_ms)
        for part in crowd.parts:
            part.allocated_bytes = part.__sizeof__() if part else 0
        return crowd


def part_number(table: Table, key: bytes) -> int:
    """Which part of a table a key belongs to, counted from 1; 0 for a table without parts."""
    return 0 if table.parts is None else crc32(key) % PARTS + 1
