"""Streams: entries that are only ever added at the end, each under an id greater than all before.

The fields and values of an entry are kept as the bytes that a reply gives them in, one object per entry: that is both
the smallest and the fastest form, as entries are never changed. Entries stand in blocks (stream_blocks.py).

A stream also counts what was ever added and remembers the greatest id that was deleted. From these a group's lag is
derived, wherever no deletion can stand between (`entries_read_at`). A stream without entries stays, unlike other types:
its last id must not be forgotten.

Source: https://redis.io/docs/latest/develop/data-types/streams/
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from minidist.engines.keyspace.errors import CommandError
from minidist.engines.keyspace.memory import BYTES_OBJECT
from minidist.engines.keyspace.stream_blocks import Account, BlockMap
from minidist.engines.keyspace.stream_groups import Group
from minidist.wire.resp_replies import bulks

SEQUENCE_BITS = 64
LAST_SEQUENCE = (1 << SEQUENCE_BITS) - 1
LAST_ID = (1 << 2 * SEQUENCE_BITS) - 1
INVALID_ID = "ERR Invalid stream ID specified as stream command argument"
LONGEST_ID_TEXT = 127
# As C's strtoull reads numbers, which is what Redis asks in the end.
ID_TEXT = re.compile(rb"\s*\+?(\d+)(?:-(?:\s*\+?(\d+)|(\*)))?").fullmatch

# Measured: the objects of a stream, and what an entry takes besides its contents and its place: an id, a bytes object.
STREAM_BYTES = 200
ENTRY_BYTES = 48 + BYTES_OBJECT


def parse_id(text: bytes, missing_sequence: int = 0) -> int:
    """An id, `5-3` or `5`. Raises CommandError, for `-`, `+` and `5-*` too."""
    found = ID_TEXT(text) if len(text) <= LONGEST_ID_TEXT else None
    if found is None or found[3]:
        raise CommandError(INVALID_ID)
    sequence = missing_sequence if found[2] is None else int(found[2])
    return _joined(int(found[1]), sequence)


def parse_new_id(text: bytes) -> tuple[int, bool]:
    """The id of an entry to add, and whether its sequence number is left open (`5-*`). Raises CommandError."""
    found = ID_TEXT(text) if len(text) <= LONGEST_ID_TEXT else None
    if found is None:
        raise CommandError(INVALID_ID)
    return _joined(int(found[1]), int(found[2] or 0)), found[3] is not None


def parse_bound(text: bytes, missing_sequence: int = 0) -> int:
    """An id, or `-` or `+` for the smallest and the greatest. Raises CommandError."""
    if text in (b"-", b"+"):
        return 0 if text == b"-" else LAST_ID
    return parse_id(text, missing_sequence)


def _joined(ms: int, sequence: int) -> int:
    if ms > LAST_SEQUENCE or sequence > LAST_SEQUENCE:
        raise CommandError(INVALID_ID)
    return ms << SEQUENCE_BITS | sequence


def parse_start(text: bytes) -> int:
    """The least id of an interval; `(5-3` begins after that id. Raises CommandError."""
    if len(text) == 1 or not text.startswith(b"("):
        return parse_bound(text)
    start = parse_id(text[1:]) + 1
    if start > LAST_ID:
        raise CommandError("ERR invalid start ID for the interval")
    return start


def parse_end(text: bytes) -> int:
    """The greatest id of an interval; `(5-3` ends before that id. Raises CommandError."""
    if len(text) == 1 or not text.startswith(b"("):
        return parse_bound(text, LAST_SEQUENCE)
    end = parse_id(text[1:], LAST_SEQUENCE) - 1
    if end < 0:
        raise CommandError("ERR invalid end ID for the interval")
    return end


def id_text(entry_id: int) -> bytes:
    return b"%d-%d" % (entry_id >> SEQUENCE_BITS, entry_id & LAST_SEQUENCE)


@dataclass(frozen=True, slots=True)
class Trim:
    """What to remove from the beginning: all but `max_length` entries, or what is before `min_id`.

    An approximate one takes whole blocks only, and never more than `limit` entries unless that is 0.
    """

    max_length: int | None = None
    min_id: int = 0
    approximate: bool = False
    limit: int = 0


class Stream:
    """Entries by id, and the groups that read them."""

    __slots__ = ("account", "entries", "entries_added", "groups", "last_id", "max_deleted_id")
    type_name: ClassVar[str] = "stream"
    encoding = "stream"

    def __init__(self) -> None:
        self.account = Account(STREAM_BYTES)
        self.entries: BlockMap[bytes] = BlockMap(self.account)
        self.last_id = 0
        self.entries_added = 0
        self.max_deleted_id = 0
        self.groups: dict[bytes, Group] = {}

    def pieces(self) -> list[list[Any]]:
        return [self.entries.ids, self.entries.values]

    def __len__(self) -> int:
        return len(self.entries)

    def __bool__(self) -> bool:
        return True  # the key stays when all entries are gone

    def __copy__(self) -> "Stream":
        copy = Stream()
        copy.entries.fill(self.entries)
        groups_bytes = sum(group.memory_bytes for group in self.groups.values())
        copy.account.bytes = self.account.bytes - groups_bytes
        copy.last_id = self.last_id
        copy.entries_added = self.entries_added
        copy.max_deleted_id = self.max_deleted_id
        copy.groups = {name: group.copy(copy.account) for name, group in self.groups.items()}
        return copy

    @property
    def memory_bytes(self) -> int:
        return self.account.bytes

    # --- entries ----------------------------------------------------------------------------------------------------

    def next_id(self, now_ms: int) -> int:
        """The id for an entry that is added now: the time, or after the last id if that is not over."""
        return max(now_ms << SEQUENCE_BITS, self.last_id + 1)

    def next_id_within(self, entry_id: int) -> int | None:
        """The next id with the milliseconds of this one; None if there is none."""
        if entry_id >> SEQUENCE_BITS != self.last_id >> SEQUENCE_BITS:
            return entry_id
        return self.last_id + 1 if self.last_id & LAST_SEQUENCE != LAST_SEQUENCE else None

    def add(self, entry_id: int, fields: Sequence[bytes]) -> None:
        """Add an entry, field and value in turns, with an id greater than the last."""
        body = bulks(fields)
        self.entries.append(entry_id, body)
        self.account.bytes += ENTRY_BYTES + len(body)
        self.entries_added += 1
        self.last_id = entry_id

    def delete(self, entry_id: int) -> bool:
        """Remove an entry; whether it was there."""
        body = self.entries.pop(entry_id)
        if body is None:
            return False
        self.account.bytes -= ENTRY_BYTES + len(body)
        self.max_deleted_id = max(self.max_deleted_id, entry_id)
        return True

    def trim(self, trim: Trim) -> int:
        """Remove entries from the beginning: how many. O(removed), by blocks."""
        removed = 0
        while self.entries:
            ids = self.entries.ids[0]
            if trim.max_length is not None:
                surplus = min(len(self) - trim.max_length, len(ids))
            else:
                surplus = len(ids) if ids[-1] < trim.min_id else sum(entry_id < trim.min_id for entry_id in ids)
            whole = surplus == len(ids)
            if surplus <= 0 or (trim.approximate and not whole) or (trim.limit and removed + len(ids) > trim.limit):
                break
            bodies = self.entries.pop_first(surplus)
            self.account.bytes -= ENTRY_BYTES * len(bodies) + sum(map(len, bodies))
            removed += surplus
            if not whole:
                break
        return removed

    # --- groups -----------------------------------------------------------------------------------------------------

    def sorted_groups(self) -> list[Group]:
        """In the order of their names, as Redis lists them."""
        return [self.groups[name] for name in sorted(self.groups)]

    def add_group(self, name: bytes, last_id: int, entries_read: int | None) -> bool:
        """A new group; False if there is one of this name."""
        if name in self.groups:
            return False
        self.groups[name] = Group(name, last_id, entries_read, self.account)
        return True

    def remove_group(self, name: bytes) -> bool:
        """Forget a group with all that is pending; whether there was one."""
        group = self.groups.pop(name, None)
        if group is None:
            return False
        self.account.bytes -= group.memory_bytes
        return True

    def deleted_since(self, entry_id: int) -> bool:
        """Whether an entry at or after this id may have been deleted, so that counting on from here would be wrong."""
        return bool(self.entries) and self.max_deleted_id >= max(entry_id, 1)

    def entries_read_at(self, entry_id: int) -> int | None:
        """How many entries were added up to this id, where that is certain."""
        if not self.entries_added:
            return 0
        if not self.entries and entry_id <= self.last_id:
            return self.entries_added
        if 0 < entry_id < self.max_deleted_id:
            return None
        if entry_id == self.last_id:
            return self.entries_added
        first_id = self.entries.first_id or 0
        if entry_id > first_id or self.max_deleted_id >= first_id:
            return None
        return self.entries_added - len(self) + (entry_id == first_id)

    def advance(self, group: Group, entry_id: int) -> None:
        """A group has read up to this entry, the first after those that it had read."""
        at = group.last_id
        if group.entries_read is not None and at >= (self.entries.first_id or 0) and not self.deleted_since(at):
            group.entries_read += 1
        elif self.entries_added:
            group.entries_read = self.entries_read_at(entry_id)
        group.last_id = entry_id

    def lag(self, group: Group) -> int | None:
        """How many entries a group has yet to read, where that is certain."""
        first_id = self.entries.first_id
        if not self.entries_added or first_id is None:
            return 0
        if max(group.last_id, self.max_deleted_id) < first_id:
            return len(self)
        read = group.entries_read
        if read is None or self.deleted_since(group.last_id):
            read = self.entries_read_at(group.last_id)
        return None if read is None else self.entries_added - read
