"""SCAN: a walk over all tables that any number of changes in between cannot confuse.

The cursor is the number of the next slot, plus one turn's worth of nothing else: a key never leaves its slot, and a
step takes whole tables, so a key that is there from the first step to the last is returned exactly once, and keys that
come or go meanwhile are returned at most once. (Redis, whose tables grow under the cursor, may return keys several
times.) Cursors are never kept: a client can forget one, or use one again.
"""

from minidist.engines.keyspace.database import Database, Entry
from minidist.structures.slots import SLOTS


def scan_step(database: Database, cursor: int, count: int, now_ms: int) -> tuple[int, list[tuple[bytes, Entry]]]:
    """The live entries of the tables from `cursor` on, until there are `count`; the next cursor is 0 at the end."""
    found: list[tuple[bytes, Entry]] = []
    for slot, table in database.filled(min(cursor, SLOTS)):
        found += [pair for pair in table.items() if pair[1].expires_ms > now_ms]
        if len(found) >= count:
            return (slot + 1) % SLOTS, found
    return 0, found
