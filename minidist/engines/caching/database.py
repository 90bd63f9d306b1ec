"""Database 0 of a cache with a backing store: it says which keys a command has changed.

While a command runs, `changes` collects the keys whose value or lifetime it changed, and those it has deleted, whether
they were there or not: the store may have them all the same. What expires or is evicted is no change: it is still what
the store has.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from minidist.engines.keyspace.database import Database, EveryKey, Watch
from minidist.engines.keyspace.tables import NEVER, Value
from minidist.engines.keyspace.texts import is_string

if TYPE_CHECKING:
    from minidist.engines.keyspace.keyspace import Keyspace


NO_WATCHES: dict[bytes, list[Watch]] = {}


class BackedDatabase(Database):
    """`on_lost(key)` is told of keys that have left unasked, `on_clear()` when all have gone."""

    __slots__ = ("changes", "on_clear", "on_lost")

    def __init__(self, keyspace: "Keyspace", number: int) -> None:
        super().__init__(keyspace, number)
        self.changes: dict[bytes, None] | None = None  # in their order; None while no command runs
        self.on_lost: Callable[[bytes], object] = lambda key: None
        self.on_clear: Callable[[], object] = lambda: None
        self.watches = EveryKey()

    def observe(self) -> None:
        """All keys are watched anyway."""

    def changed(self, key: bytes, lost: bool = False) -> None:
        super().changed(key, lost)
        if lost:
            self.on_lost(key)
        elif self.changes is not None:
            self.changes[key] = None

    def delete(self, key: bytes, now_ms: int) -> bool:
        if self.changes is not None:
            self.changes[key] = None
        return super().delete(key, now_ms)

    def remove(self, key: bytes, *, moved: bool = False, lost: bool = False) -> bool:
        entry = self.table(key).get(key)
        if entry is None or is_string(entry):
            return super().remove(key, moved=moved, lost=lost)
        changes, self.changes = self.changes, None  # other types are the cache's alone
        try:
            return super().remove(key, moved=moved, lost=lost)
        finally:
            self.changes = changes

    def clear(self) -> None:
        super().clear()
        self.on_clear()

    # --- for the strategy -------------------------------------------------------------------------------------------

    def keep(self, key: bytes, value: Value, now_ms: int, expires_ms: int = NEVER) -> None:
        """Put what the store has: a change only if the cache had something else."""
        before = self.peek(key, now_ms)
        watches = self.watches
        if before is None or before.value == value:
            self.watches = NO_WATCHES
        try:
            self.put(key, value, now_ms, expires_ms)
        finally:
            self.watches = watches

    def drop(self, key: bytes) -> None:
        """Forget a key; the store's is as it is."""
        super().remove(key, lost=True)
