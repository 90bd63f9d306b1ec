"""SCAN: a walk over all tables that any number of changes in between cannot confuse.

The cursor says where the next step begins: a slot, and in a crowded slot a part. A key never leaves its slot, and
within one it moves only when the slot becomes crowded; a step takes whole tables. So a key that is there from the first
step to the last is returned, and no key is returned twice. (Redis, whose tables grow under the cursor, may return any
key several times.) Cursors are not kept: a client can forget one, or use one again.
"""

from minidist.engines.keyspace.database import Database
from minidist.engines.keyspace.tables import Entry
from minidist.structures.slots import SLOTS


def scan_step(database: Database, cursor: int, count: int, now_ms: int) -> tuple[int, list[tuple[bytes, Entry]]]:
    """The live entries of the tables from `cursor` on, until there are `count`; the next cursor is 0 at the end."""
    part, slot = divmod(cursor, SLOTS)
    found: list[tuple[bytes, Entry]] = []
    for at, number, table in database.filled(slot, part):
        if len(found) >= count:
            return at + number * SLOTS, found
        found += [pair for pair in table.items() if pair[1].expires_ms > now_ms]
    return 0, found
