"""Snapshots of a keyspace as files in Redis' RDB format: written in steps while commands run, read in pieces.

A snapshot is fuzzy: each key is as it was at some moment between the beginning and the end, not all at the same one,
and a key that is renamed meanwhile may be missed. That is what a cache needs to be warm after a restart. Whoever needs
one moment of all keys stops commands, or replays what happened meanwhile.

A step serialises about STEP_BYTES, some tenths of a millisecond. A large value is serialised over several steps, in
memory, and from the beginning again if it changes meanwhile; one that keeps changing is copied the third time, which
takes some twenty milliseconds for a million elements, where serialising it at once would take a second.

The file is one that Redis 7.0 and later load, and what they write (`dump.rdb`), we load. Redis' own checksum (CRC-64)
would take minutes in Python, so it is left out, as Redis allows (eight zeros), and an auxiliary field of ours, which
Redis skips, has a CRC-32 of everything before it. A checksum of Redis' is not verified. How long a key was idle, or how
often it was used, goes along, so that eviction knows what it knew.

Source: https://github.com/redis/redis/blob/7.2/src/rdb.c
"""

from collections.abc import Iterator
from copy import copy
from itertools import islice
from typing import Protocol
from zlib import crc32

from minidist.engines.keyspace.database import Database
from minidist.engines.keyspace.eviction import LFU_MOST, uses
from minidist.engines.keyspace.keyspace import LARGE_BYTES, Keyspace
from minidist.engines.keyspace.rdb_strings import Malformed, Reader, Truncated, length_bytes, string_bytes
from minidist.engines.keyspace.serialisation import LAST_VERSION, STRING, WRITTEN_VERSION, parts_of, read_value
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.tables import NEVER, Entry
from minidist.engines.keyspace.texts import Flagged
from minidist.engines.keyspace.values import placed

MAGIC = b"REDIS"
HEADER_BYTES = len(MAGIC) + 4
FUNCTIONS, IDLE, FREQUENCY, AUX, RESIZE, EXPIRES_MS, EXPIRES_S, DATABASE, END = (
    0xF5, 0xF8, 0xF9, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF,
)  # fmt: skip
FIRST_OPCODE = 0xF4
CHECKED = b"minidist-checked"  # at the beginning: there is a checksum at the end
CHECKSUM = b"minidist-crc32"
FLAGS = b"minidist-flags"  # of the next key: what a memcached client stored with it
LONGEST_FLAGS = 10  # digits
NO_CHECKSUM = bytes(8)

STEP_BYTES = 64 * 1024
STEP_ENTRIES = 200
STEP_ELEMENTS = 500
SLICE_BYTES = 1024 * 1024
MOST_TRIES = 3


class Snapshots(Protocol):
    """Where a node's snapshots go, as its service sees it."""

    def start(self, session: Session | None = None) -> bool:
        """Begin one; False when one is under way. The session waits, and is released when it is written."""
        ...

    def information(self) -> dict[str, object]:
        """For INFO persistence."""
        ...


# --- writing ----------------------------------------------------------------------------------------------------------


class SnapshotWriter:
    """One snapshot under way. What `step` returns, in order, is the file. `about` are Redis' auxiliary fields."""

    def __init__(self, keyspace: Keyspace, about: dict[bytes, bytes], functions: list[bytes], now_ms: int) -> None:
        self.keys = 0
        self._keyspace = keyspace
        self._now_ms = now_ms
        self._checksum = 0
        self._pieces = self._file(about, functions)

    def step(self, now_ms: int) -> bytes | None:
        """The next bytes of the file, perhaps none yet; None when it is complete."""
        self._now_ms = now_ms
        pieces: list[bytes] = []
        written = 0
        for piece in islice(self._pieces, STEP_ENTRIES):
            pieces.append(piece)
            written += len(piece)
            if written >= STEP_BYTES or not piece:
                break
        if not pieces:
            return None
        data = b"".join(pieces)
        self._checksum = crc32(data, self._checksum)
        return data

    def _file(self, about: dict[bytes, bytes], functions: list[bytes]) -> Iterator[bytes]:
        """All of it, in pieces; an empty one ends a step, before which nothing was promised."""
        yield MAGIC + b"%04d" % WRITTEN_VERSION
        yield _aux(CHECKED, b"1")
        for name, value in about.items():
            yield _aux(name, value)
        for source in functions:
            yield bytes((FUNCTIONS,)) + string_bytes(source)
        for database in self._keyspace.databases:
            if database.count:
                yield bytes((DATABASE,)) + length_bytes(database.number)
                yield bytes((RESIZE,)) + length_bytes(database.count) + length_bytes(database.volatile)
                yield from self._database(database)
        yield b""  # so that the checksum is of all before
        yield _aux(CHECKSUM, b"%08x" % self._checksum)
        yield bytes((END,)) + NO_CHECKSUM

    def _database(self, database: Database) -> Iterator[bytes]:
        slot = part = 0
        # Anew for each table: the database may be flushed, or swapped with another, between two steps.
        while (found := next(database.filled(slot, part), None)) is not None:
            slot, number, table = found
            for key, entry in list(table.items()):
                if database.table(key).get(key) is not entry or entry.expires_ms <= self._now_ms:
                    continue
                if isinstance(entry.value, bytes | bytearray) or entry.value.memory_bytes < LARGE_BYTES:
                    yield from self._entry(key, entry)
                else:
                    yield from self._large_entry(database, key, entry)
            slot, part = (slot, number + 1) if number else (slot + 1, 0)

    def _entry(self, key: bytes, entry: Entry) -> Iterator[bytes]:
        value = entry.value
        self.keys += 1
        if isinstance(value, bytes) and len(value) > SLICE_BYTES:
            yield self._head(entry, STRING, key) + length_bytes(len(value))
            for at in range(0, len(value), SLICE_BYTES):
                yield value[at : at + SLICE_BYTES]
            return
        kind, parts = parts_of(value)
        yield self._head(entry, kind, key) + b"".join(parts)

    def _large_entry(self, database: Database, key: bytes, entry: Entry) -> Iterator[bytes]:
        """A large collection, if it stays long enough."""
        for left in range(MOST_TRIES - 1, -1, -1):
            if database.table(key).get(key) is not entry:
                return
            kind, parts = parts_of(entry.value if left else copy(entry.value))
            written = [self._head(entry, kind, key)]
            elements = iter(parts)
            watch = database.watch(key, self._now_ms)
            try:
                while some := b"".join(islice(elements, STEP_ELEMENTS)):
                    written.append(some)
                    yield b""
                    if watch.changed and left:
                        break
                else:
                    self.keys += 1
                    yield from written
                    return
            finally:
                database.unwatch(key, watch)

    def _head(self, entry: Entry, kind: int, key: bytes) -> bytes:
        """What stands before a value."""
        head = b""
        if isinstance(entry.value, Flagged):
            head += _aux(FLAGS, b"%d" % entry.value.flags)
        if entry.expires_ms != NEVER:
            head += bytes((EXPIRES_MS,)) + entry.expires_ms.to_bytes(8, "little", signed=True)
        if self._keyspace.evictor.policy.value.endswith("lfu"):
            head += bytes((FREQUENCY, uses(entry, self._now_ms)))
        elif (idle_s := (self._now_ms - entry.touched_ms) // 1000) > 0:
            head += bytes((IDLE,)) + length_bytes(idle_s)
        return head + bytes((kind,)) + string_bytes(key)


def _aux(name: bytes, value: bytes) -> bytes:
    return bytes((AUX,)) + string_bytes(name) + string_bytes(value)


# --- reading ----------------------------------------------------------------------------------------------------------


class SnapshotReader:
    """A snapshot, or a file of Redis', in pieces, into a keyspace. `at` is how much of it was understood."""

    def __init__(self, keyspace: Keyspace) -> None:
        self.at = 0
        self.keys = 0
        self.expired = 0
        self.complete = False
        self.functions: list[bytes] = []
        self._keyspace = keyspace
        self._database = keyspace.databases[0]
        self._pieces: list[bytes] = []  # joined when they are enough: a long value comes in thousands of them
        self._held_bytes = 0
        self._data = b""
        self._enough_bytes = HEADER_BYTES
        self._unchecked = False  # there is a checksum, and it has not come yet
        self._start = 0  # in `_data`, of what is being read
        self._summed = 0  # in `_data`, where the part that is not in the checksum yet starts
        self._checksum = 0
        self._forget()

    def _forget(self) -> None:
        """What was said of a key was of one key."""
        self._expires_ms = NEVER
        self._idle_ms = 0
        self._uses: int | None = None
        self._flags = 0

    def feed(self, data: bytes, now_ms: int) -> None:
        """Take the next piece of the file. Raises Malformed: what is wrong, and where; what was read before stays."""
        self._pieces.append(data)
        self._held_bytes += len(data)
        if self.complete or self._held_bytes < self._enough_bytes:
            return
        self._data = b"".join(self._pieces)
        reader = Reader(self._data)
        self._start = self._summed = 0
        try:
            if not self.at:
                self._read_header(reader)
            more = True
            while more:
                self._start = reader.at
                more = self._read_item(reader, now_ms)
            self._start = reader.at
            self.complete = True
        except Truncated:
            # A long value is not tried again with every piece that comes.
            self._enough_bytes = 2 * (len(self._data) - self._start)
        except Malformed as problem:
            raise Malformed(f"{problem}, at byte {self.at + self._start}") from None
        self._sum_up()
        self.at += self._start
        self._pieces = [self._data[self._start :]]
        self._held_bytes = len(self._pieces[0])

    def end(self, now_ms: int) -> None:
        """The file has ended. Raises Malformed when it should not have."""
        self._enough_bytes = 0
        self.feed(b"", now_ms)
        if not self.complete:
            raise Malformed(f"it ends too early, in what begins at byte {self.at}")
        if self._held_bytes:
            raise Malformed(f"it goes on after its end at byte {self.at}")

    def _sum_up(self) -> None:
        """Bring the checksum up to where the present item starts."""
        self._checksum = crc32(memoryview(self._data)[self._summed : self._start], self._checksum)
        self._summed = self._start

    def _read_header(self, reader: Reader) -> None:
        header = reader.take(HEADER_BYTES)
        version = header[len(MAGIC) :]
        if not header.startswith(MAGIC) or not version.isdigit():
            raise Malformed("it does not begin like an RDB file")
        if int(version) > LAST_VERSION:
            raise Malformed(
                f"it has version {int(version)} of the format; {LAST_VERSION} is the last that is read here"
            )

    def _read_item(self, reader: Reader, now_ms: int) -> bool:
        """A key with its value, or one of the things that stand between keys; False for the end."""
        kind = reader.byte()
        if kind < FIRST_OPCODE:
            key = reader.string()
            self._put(key, read_value(kind, reader), now_ms)
        elif kind == EXPIRES_MS:
            self._expires_ms = reader.little(8)
        elif kind == EXPIRES_S:
            self._expires_ms = reader.little(4) * 1000
        elif kind == IDLE:
            self._idle_ms = reader.length() * 1000
        elif kind == FREQUENCY:
            self._uses = reader.byte()
        elif kind == AUX:
            self._read_aux(reader.string(), reader.string())
        elif kind == FUNCTIONS:
            self.functions.append(reader.string())
        elif kind == RESIZE:
            reader.length(), reader.length()
        elif kind == DATABASE:
            self._choose_database(reader.length())
        elif kind == END:
            reader.take(len(NO_CHECKSUM))
            if self._unchecked:
                raise Malformed("its checksum is missing")
            return False
        else:
            raise Malformed(f"unknown part {kind}")
        return True

    def _read_aux(self, name: bytes, value: bytes) -> None:
        if name == FLAGS:
            if not value.isdigit() or len(value) > LONGEST_FLAGS:
                raise Malformed("flags that are no number")
            self._flags = int(value)
        elif name == CHECKED:
            self._unchecked = True
        elif name == CHECKSUM:
            self._unchecked = False
            self._sum_up()
            if value != b"%08x" % self._checksum:
                raise Malformed("its checksum does not match its content")

    def _choose_database(self, number: int) -> None:
        databases = self._keyspace.databases
        if number >= len(databases):
            raise Malformed(f"it has a database {number}, and there are {len(databases)} here (--databases)")
        self._database = databases[number]

    def _put(self, key: bytes, value: object, now_ms: int) -> None:
        if self._expires_ms <= now_ms:
            self.expired += 1
        else:
            if isinstance(value, bytes):
                value = Flagged.of(value, self._flags)
            entry = self._database.put(key, value, now_ms, self._expires_ms)
            placed(self._database, key, value)
            entry.touched_ms = max(now_ms - self._idle_ms, 0)
            if entry.mark >= 0:
                entry.mark = entry.touched_ms if self._uses is None else min(self._uses, LFU_MOST)
            self.keys += 1
        self._forget()
