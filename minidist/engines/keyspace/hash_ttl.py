"""Hashes whose fields have lifetimes of their own: HEXPIRE and its kin (commands/hash_ttl.py).

A hash becomes a `TimedHash` with its first field that has a lifetime, and a plain `Hash` again when it is used after
the last one; hashes without lifetimes have nothing of this, nor do their commands ask. Times are kept as a sorted set
of the fields, with the time of expiry as the score, so the next field to go is the first one.

A field is gone from the moment it expires: whoever looks a hash up for a command (values.py) gets `current`, which
removes all that is due. That is a millisecond for some hundred fields, and a long step where a hundred thousand are due
at once and somebody asks for the hash before they have gone in steps. For those nobody asks for, the table that the
hash is in is due when its first field is (database.py), and `FieldExpiry.expire`, made with the first lifetime, removes
STEP_FIELDS in one step.
"""

from minidist.engines.keyspace import events
from minidist.engines.keyspace.database import Database
from minidist.engines.keyspace.hashes import Hash
from minidist.engines.keyspace.keyspace import Keyspace
from minidist.engines.keyspace.sortedsets import ScoreRange, SortedSet
from minidist.engines.keyspace.tables import NEVER, Entry, Table

STEP_FIELDS = 500
# Times of expiry, in milliseconds since 1970, are below this: 2200 years, as in Redis.
END_MS = 1 << 46


class TimedHash(Hash):
    """A hash of which some fields expire."""

    __slots__ = ("times",)

    def __init__(self) -> None:
        super().__init__()
        self.times = SortedSet()
        self.memory_bytes += self.times.memory_bytes

    @classmethod
    def of(cls, plain: Hash) -> "TimedHash":
        """Takes over what a hash is made of; nobody uses that one any more."""
        made = cls()
        _hand_over(plain, made)
        made.memory_bytes = plain.memory_bytes + made.times.memory_bytes
        return made

    def plain(self) -> Hash:
        """The same without lifetimes; nobody uses this one any more."""
        made = Hash()
        _hand_over(self, made)
        made.memory_bytes = self.memory_bytes - self.times.memory_bytes
        return made

    def __copy__(self) -> "TimedHash":
        copy = super().__copy__()
        copy.times = self.times.__copy__()
        copy.memory_bytes += copy.times.memory_bytes - self.times.memory_bytes
        return copy

    def pieces(self) -> list[list[object]]:
        return [*super().pieces(), *self.times.pieces()]

    @property
    def encoding(self) -> str:
        return "listpackex" if super().encoding == "listpack" else "hashtable"

    # --- lifetimes --------------------------------------------------------------------------------------------------

    @property
    def due_ms(self) -> int:
        """When the first field expires."""
        return int(self.times.order[0][0]) if self.times else NEVER

    def expires_ms(self, field: bytes) -> int:
        """When a field expires; NEVER if it does not."""
        score = self.times.score(field)
        return NEVER if score is None else int(score)

    def expire(self, field: bytes, expires_ms: int) -> None:
        """Give a field that is there a lifetime."""
        before_bytes = self.times.memory_bytes
        self.times.put(field, expires_ms)
        self.memory_bytes += self.times.memory_bytes - before_bytes

    def persist(self, field: bytes) -> bool:
        """Take the lifetime of a field away; whether it had one."""
        before_bytes = self.times.memory_bytes
        had_one = self.times.remove(field)
        self.memory_bytes += self.times.memory_bytes - before_bytes
        return had_one

    def remove_due(self, now_ms: int, most: int) -> int:
        """Remove fields that have expired, so many at most; how many."""
        before_bytes = self.times.memory_bytes
        _, stop = self.times.positions(ScoreRange(0, now_ms))
        removed = self.times.remove_positions(0, min(stop, most))
        self.memory_bytes += self.times.memory_bytes - before_bytes
        for _, field in removed:
            super().remove(field)
        return len(removed)

    def current(self, database: Database, key: bytes, entry: Entry, now_ms: int) -> Hash | None:
        """For a command: without what has expired, and plain if nothing will; None if nothing is left."""
        if self.due_ms <= now_ms:
            field_expiry(database.keyspace).remove_due(database, key, self, now_ms, self.times.count)
            if not self.count:
                return None
        if self.times:
            return self
        plain = self.plain()
        database.keyspace.used_bytes += plain.memory_bytes - self.memory_bytes
        entry.value = plain
        return plain

    # --- changing fields --------------------------------------------------------------------------------------------

    def set(self, field: bytes, value: bytes) -> bool:
        if field in self.times:
            self.persist(field)
        return super().set(field, value)

    def change(self, field: bytes, value: bytes) -> bool:
        return super().set(field, value)

    def remove(self, field: bytes) -> bool:
        if field in self.times:
            self.persist(field)
        return super().remove(field)


def _hand_over(old: Hash, new: Hash) -> None:
    new.whole, new.parts, new.mask, new.count = old.whole, old.parts, old.mask, old.count


def with_lifetimes(database: Database, key: bytes, entry: Entry) -> TimedHash:
    """The hash under a key, ready for lifetimes."""
    value = entry.value
    if isinstance(value, TimedHash):
        return value
    made = TimedHash.of(value)
    database.keyspace.used_bytes += made.memory_bytes - value.memory_bytes
    entry.value = made
    field_expiry(database.keyspace)
    return made


class FieldExpiry:
    """What a keyspace knows of fields that expire."""

    def __init__(self) -> None:
        self.expired = 0

    def join(self, database: Database, table: Table) -> None:
        """These keys have got into other tables: say when they are due."""
        for key, entry in table.items():
            if entry.value.__class__ is TimedHash:
                database.due_at(key, entry.value.due_ms)

    def expire(self, database: Database, table: Table, now_ms: int) -> tuple[int, int]:
        """Remove STEP_FIELDS of a table's fields that have expired: when the next one does, how many were removed."""
        next_ms, left = NEVER, STEP_FIELDS
        for key, entry in list(table.items()):
            value = entry.value
            if value.__class__ is not TimedHash or entry.expires_ms <= now_ms:
                continue
            if left and value.due_ms <= now_ms:
                left -= self.remove_due(database, key, value, now_ms, left)
            if value.due_ms < next_ms:
                next_ms = value.due_ms
        return next_ms, STEP_FIELDS - left

    def remove_due(self, database: Database, key: bytes, value: TimedHash, now_ms: int, most: int) -> int:
        """Remove fields that have expired, and the key if none is left; how many."""
        before_bytes = value.memory_bytes
        removed = value.remove_due(now_ms, most)
        self.expired += removed
        database.resized(key, value.memory_bytes - before_bytes)
        database.notify(events.HASH, b"hexpired", key)
        if not value:
            database.remove(key)
            database.notify(events.GENERIC, b"del", key)
        return removed


def field_expiry(keyspace: Keyspace) -> FieldExpiry:
    if keyspace.field_expiry is None:
        keyspace.field_expiry = FieldExpiry()
    return keyspace.field_expiry
