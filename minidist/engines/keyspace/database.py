"""One logical database: its keys in small tables (tables.py), their lifetimes and watches, and the books of all.

A key is gone from the moment it expires, whether or not it has been removed: every look-up goes through `peek`, `find`
or `read`, which remove what has expired (lazy expiry). For active expiry there is a heap of tables by the bound of
their earliest expiry, and `expire_table` looks at the table whose bound has passed, and at no other. `now_ms` is
service time.

Every change of a key keeps `count`, `volatile` and the keyspace's `used_bytes` exact, and tells the watches of the key
and, through `EveryKey`, whoever tracks all keys.
"""

from binascii import crc_hqx
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from minidist.engines.keyspace import events
from minidist.engines.keyspace.memory import ENTRY_BYTES, EXPIRY_BYTES, value_bytes
from minidist.engines.keyspace.tables import (
    CROWDED_KEYS,
    EMPTY,
    NEVER,
    NO_TABLES,
    Crowd,
    Entry,
    Table,
    Value,
    part_number,
)
from minidist.structures.slots import OPENING_BRACE, SLOT_MASK, SLOTS, tagged_slot

if TYPE_CHECKING:
    from minidist.engines.keyspace.keyspace import Keyspace
    from minidist.engines.keyspace.s3fifo import Queues


class Watch:
    """A key that some client watches. `changed` turns true with the first change and stays so."""

    __slots__ = ("changed", "existed")

    def __init__(self, existed: bool) -> None:
        self.existed = existed
        self.changed = False


class EveryKey(dict[bytes, list[Watch]]):
    """Stands where the watches of a database stand while somebody wants to know of all keys: as if each had one.

    Whoever changes keys looks there whether a key is watched; so nobody has to look for those who track keys, too.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return True

    def __contains__(self, key: object) -> bool:
        return True


class Database:
    """Keys and values of one SELECT number. All methods are O(1) unless they say otherwise."""

    __slots__ = ("count", "due", "keyspace", "number", "queues", "tables", "volatile", "watches")

    def __init__(self, keyspace: "Keyspace", number: int) -> None:
        self.keyspace = keyspace
        self.number = number
        self.count = 0
        self.volatile = 0  # keys that have a lifetime
        self.tables = NO_TABLES
        # Heap of (lower bound of expiry, slot, part); stale where the table says otherwise.
        self.due: list[tuple[int, int, int]] = []
        self.watches: dict[bytes, list[Watch]] = {}
        self.queues: Queues | None = None  # of the policy that has some, while it is switched on

    # --- looking up -------------------------------------------------------------------------------------------------

    def peek(self, key: bytes, now_ms: int) -> Entry | None:
        """The live entry, without any trace: for TTL, OBJECT, EXISTS and the like."""
        slot = (tagged_slot(key) if OPENING_BRACE in key else crc_hqx(key, 0)) & SLOT_MASK
        entry = self.tables[slot].get(key)
        if entry is None or entry.expires_ms > now_ms:
            return entry
        self._expired(key)
        return None

    def find(self, key: bytes, now_ms: int) -> Entry | None:
        """The live entry for a command that changes it: counts as used, but neither as a hit nor as a miss."""
        entry = self.peek(key, now_ms)
        if entry is not None:
            entry.touched_ms = now_ms
        return entry

    def read(self, key: bytes, now_ms: int) -> Entry | None:
        """The live entry for a command that reads it: counts as used, and as a hit or a miss."""
        entry = self.peek(key, now_ms)
        if entry is None:
            self.keyspace.misses += 1
            self.notify(events.MISS, b"keymiss", key)
        else:
            entry.touched_ms = now_ms
            self.keyspace.hits += 1
        return entry

    # --- changing ---------------------------------------------------------------------------------------------------

    def put(self, key: bytes, value: Value, now_ms: int, expires_ms: int = NEVER) -> Entry:
        """Store a value, new or in place of whatever was there, its lifetime included."""
        slot = (tagged_slot(key) if OPENING_BRACE in key else crc_hqx(key, 0)) & SLOT_MASK
        table = self.tables[slot]
        entry = table.get(key)
        if entry is None:
            entry = self._insert(slot, key, value, now_ms)
        elif entry.expires_ms <= now_ms:
            self._expired(key)
            return self.put(key, value, now_ms, expires_ms)
        else:
            before = entry.value
            if value.__class__ is bytes and before.__class__ is bytes:
                self.keyspace.used_bytes += len(value) - len(before)
            else:
                self.keyspace.used_bytes += value_bytes(value) - value_bytes(before)
                if before is not value:
                    self.keyspace.bury(before)
            entry.value = value
            entry.touched_ms = now_ms
        if expires_ms != entry.expires_ms:
            self._set_expiry(slot, key, entry, expires_ms)
        if self.watches:
            self.changed(key)
        return entry

    def _insert(self, slot: int, key: bytes, value: Value, now_ms: int) -> Entry:
        table = self.tables[slot]
        if table.parts is not None:
            table = self._part_for_insert(table, key)
        elif table is EMPTY:
            if self.tables is NO_TABLES:
                self.tables = NO_TABLES.copy()
            table = self.tables[slot] = Table()
        elif len(table) >= CROWDED_KEYS:
            self._split(slot, table)
            return self._insert(slot, key, value, now_ms)
        entry = table[key] = Entry(value, now_ms, NEVER)
        self.count += 1
        if self.queues is not None:
            self.queues.join(self, key, entry)
        allocated_bytes = table.__sizeof__()
        self.keyspace.used_bytes += (
            ENTRY_BYTES + len(key) + value_bytes(value) + allocated_bytes - table.allocated_bytes
        )
        table.allocated_bytes = allocated_bytes
        if self.keyspace.notified:
            self.notify(events.NEW, b"new", key)
        return entry

    @staticmethod
    def _part_for_insert(crowd: Table, key: bytes) -> Table:
        assert isinstance(crowd, Crowd)
        at = part_number(crowd, key) - 1
        if crowd.parts[at] is EMPTY:
            crowd.parts[at] = Table()
            crowd.filled += 1
        return crowd.parts[at]

    def _split(self, slot: int, table: Table) -> None:
        """Replace a crowded table by parts; less than a millisecond."""
        crowd = Crowd.of(table)
        for number, part in enumerate(crowd.parts, 1):
            self.keyspace.used_bytes += part.allocated_bytes
            if part.due_ms != NEVER:
                heappush(self.due, (part.due_ms, slot, number))
        self.keyspace.used_bytes -= table.allocated_bytes
        self.tables[slot] = crowd
        if self.keyspace.field_expiry is not None:
            self.keyspace.field_expiry.join(self, table)

    def replace(self, key: bytes, entry: Entry, value: Value) -> None:
        """Give a live entry another value; its lifetime stays."""
        self.keyspace.used_bytes += value_bytes(value) - value_bytes(entry.value)
        entry.value = value
        if self.watches:
            self.changed(key)

    def resized(self, key: bytes, by_bytes: int) -> None:
        """A mutable value was changed in place and takes so many bytes more (or less)."""
        self.keyspace.used_bytes += by_bytes
        if self.watches:
            self.changed(key)

    def set_expiry(self, key: bytes, entry: Entry, expires_ms: int) -> None:
        """Give a live entry a lifetime, or NEVER. The caller says `changed` where a client asked for it."""
        slot = (tagged_slot(key) if OPENING_BRACE in key else crc_hqx(key, 0)) & SLOT_MASK
        self._set_expiry(slot, key, entry, expires_ms)

    def _set_expiry(self, slot: int, key: bytes, entry: Entry, expires_ms: int) -> None:
        table, part = self.tables[slot], 0
        if table.parts is not None:
            part = part_number(table, key)
            table = table.parts[part - 1]
        before_ms, entry.expires_ms = entry.expires_ms, expires_ms
        if expires_ms == NEVER:
            if before_ms != NEVER:
                table.volatile -= 1
                self.volatile -= 1
                self.keyspace.used_bytes -= EXPIRY_BYTES
            return
        if before_ms == NEVER:
            table.volatile += 1
            self.volatile += 1
            self.keyspace.used_bytes += EXPIRY_BYTES
        if expires_ms < table.due_ms:
            self._lower_bound(table, slot, part, expires_ms)

    def _lower_bound(self, table: Table, slot: int, part: int, at_ms: int) -> None:
        """Something in a table expires earlier than all that was known of."""
        table.due_ms = at_ms
        heappush(self.due, (at_ms, slot, part))
        if at_ms < self.keyspace.alarm_ms:
            self.keyspace.wake_at(at_ms)

    def due_at(self, key: bytes, at_ms: int) -> None:
        """Something inside the value of a key expires then (hash_ttl.py): have its table looked at."""
        slot = (tagged_slot(key) if OPENING_BRACE in key else crc_hqx(key, 0)) & SLOT_MASK
        table, part = self.tables[slot], 0
        if table.parts is not None:
            part = part_number(table, key)
            table = table.parts[part - 1]
        if at_ms < table.due_ms:
            self._lower_bound(table, slot, part, at_ms)

    def remove(self, key: bytes, *, moved: bool = False, lost: bool = False) -> bool:
        """Delete a key, live or expired; whether it was there.

        `moved`: the value goes on under another key. `lost`: nobody has asked for it, it has expired or was evicted.
        """
        slot = (tagged_slot(key) if OPENING_BRACE in key else crc_hqx(key, 0)) & SLOT_MASK
        whole = table = self.tables[slot]
        if whole.parts is not None:
            table = whole.parts[part_number(whole, key) - 1]
        entry = table.get(key)
        if entry is None:
            return False
        del table[key]
        self.count -= 1
        freed_bytes = ENTRY_BYTES + len(key) + value_bytes(entry.value)
        if entry.expires_ms != NEVER:
            table.volatile -= 1
            self.volatile -= 1
            freed_bytes += EXPIRY_BYTES
        if not table:
            self._emptied(slot, whole, key)
            freed_bytes += table.allocated_bytes
        self.keyspace.used_bytes -= freed_bytes
        if entry.value.__class__ is not bytes and not moved:
            self.keyspace.bury(entry.value)
        if self.queues is not None:
            self.queues.leave(entry)
        if self.watches:
            self.changed(key, lost)
        return True

    def _emptied(self, slot: int, table: Table, key: bytes) -> None:
        """The table of a slot, or the part that a key was in, has lost its last key."""
        if isinstance(table, Crowd):
            table.parts[part_number(table, key) - 1] = EMPTY
            table.filled -= 1
            if table.filled:
                return
        self.tables[slot] = EMPTY  # what the heap says of it is now stale: EMPTY is never due

    def delete(self, key: bytes, now_ms: int) -> bool:
        """Delete a key for a client: an expired one counts as not there."""
        return self.peek(key, now_ms) is not None and self.remove(key)

    def _expired(self, key: bytes) -> None:
        self.remove(key, lost=True)
        self.keyspace.expired_keys += 1
        self.notify(events.EXPIRED, b"expired", key)

    def expire_table(self, now_ms: int) -> int:
        """Take the first table off the heap of `due` and remove what has expired in it; how many entries that looked
        at.

        The caller has seen that the heap's first bound has passed.
        """
        due_ms, slot, part = heappop(self.due)
        table = self.tables[slot]
        if part:
            table = table.parts[part - 1] if table.parts is not None else EMPTY
        if table.due_ms != due_ms:
            return 1  # the bound was changed since, and pushed again
        next_ms = NEVER
        expired = []
        for key, entry in table.items():
            if entry.expires_ms <= now_ms:
                expired.append(key)
            elif entry.expires_ms < next_ms:
                next_ms = entry.expires_ms
        looked_at = len(table)
        if self.keyspace.field_expiry is not None:
            due_ms, fields = self.keyspace.field_expiry.expire(self, table, now_ms)
            next_ms = min(next_ms, due_ms)
            looked_at += fields
        table.due_ms = next_ms
        if next_ms != NEVER:
            heappush(self.due, (next_ms, slot, part))
        for key in expired:
            self._expired(key)
        return looked_at

    def notify(self, kind: int, event: bytes, key: bytes) -> None:
        """Tell of a keyspace event. Hot paths look at `keyspace.notified` first: it is nearly always 0."""
        if self.keyspace.notified & kind:
            self.keyspace.on_event(self.number, kind, event, key)

    # --- watching ---------------------------------------------------------------------------------------------------

    def changed(self, key: bytes, lost: bool = False) -> None:
        """Tell who watches a key; `lost` as in `remove`. Callers look at `watches` first, nearly always empty."""
        self._mark(key)
        if self.keyspace.on_change is not None:
            self.keyspace.on_change(key, lost)

    def _mark(self, key: bytes) -> None:
        for watch in self.watches.get(key, ()):
            watch.changed = True

    def watch(self, key: bytes, now_ms: int) -> Watch:
        watch = Watch(self.peek(key, now_ms) is not None)
        self.watches.setdefault(key, []).append(watch)
        return watch

    def unwatch(self, key: bytes, watch: Watch) -> None:
        watches = self.watches[key]
        watches.remove(watch)
        if not watches:
            del self.watches[key]

    def observe(self) -> None:
        """The keyspace's `on_change` was set, or taken away."""
        self.watches = dict(self.watches) if self.keyspace.on_change is None else EveryKey(self.watches)

    def changed_all(self) -> None:
        """Tell the watches of every key that is there. O(watched keys)."""
        for key in self.watches:
            if key in self.table(key):
                self._mark(key)

    # --- as a whole -------------------------------------------------------------------------------------------------

    def table(self, key: bytes) -> Table:
        """The table, or the part of one, that a key belongs to; read only."""
        table = self.tables[(tagged_slot(key) if OPENING_BRACE in key else crc_hqx(key, 0)) & SLOT_MASK]
        return table if table.parts is None else table.parts[part_number(table, key) - 1]

    def flush(self) -> None:
        """Forget every key. O(1) but for who observes them: the tables are freed by `Keyspace.maintain`, in steps."""
        self.clear()
        self.keyspace.on_flush()

    def clear(self) -> None:
        """`flush` without telling the keyspace."""
        self.changed_all()
        if self.tables is not NO_TABLES:
            self.keyspace.discard(self.tables, self.count)
        self.tables = NO_TABLES
        self.count = 0
        self.volatile = 0
        self.due = []
        self.keyspace.evictor.renew_queues(self)

    def swap(self, other: "Database") -> None:
        """SWAPDB: exchange the keys of two databases; clients stay where they are."""
        self.keyspace.on_flush()  # whatever clients have cached may be another key's now
        for one, two in ((self, other), (other, self)):
            for key in one.watches:
                if key in one.table(key) or key in two.table(key):
                    one._mark(key)
        self.tables, other.tables = other.tables, self.tables
        self.count, other.count = other.count, self.count
        self.volatile, other.volatile = other.volatile, self.volatile
        self.due, other.due = other.due, self.due
        self.queues, other.queues = other.queues, self.queues

    def filled(self, slot: int = 0, part: int = 0) -> Iterator[tuple[int, int, Table]]:
        """The tables and parts that have keys, from a place upwards: (slot, part counted from 1 or 0, table)."""
        tables = self.tables
        for at in range(slot, SLOTS if self.count else slot):
            table = tables[at]
            if table.parts is not None:
                for number, each in enumerate(table.parts, 1):
                    if each and (at > slot or number >= part):
                        yield at, number, each
            elif table:
                yield at, 0, table
