"""A table of an SQLite file as backing store: columns key, value, expires_ms (service time; NULL or 0 for ever).

A table that is missing is made. One that is there may be anybody's: columns that are declared as text get text (UTF-8),
others bytes. Rows whose time is over count as missing; they stay until their key is written or deleted.

The file's own lock keeps other programs from writing at the same time; a write that cannot have it in half of its time
fails without effect.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from minidist.components.cache.backing.store import BackingError
from minidist.engines.caching.requests import Found
from minidist.engines.keyspace.tables import NEVER
from minidist.runtime.config import ConfigError
from minidist.runtime.sqlite import SqliteError, SqliteFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from minidist.components.cache.backing.places import SqlitePlace
    from minidist.runtime.clock import Clock
    from minidist.runtime.sqlite import Connection

    T = TypeVar("T")

COLUMNS = ("key", "value", "expires_ms")
# Declared types that mean text to SQLite (section 3.1 of "Datatypes In SQLite").
TEXT_TYPE = re.compile("CHAR|CLOB|TEXT", re.IGNORECASE)
# As many writes may share one commit.
AT_ONCE = 256
# Jobs that may wait for a disk that hangs.
MOST_OUTSTANDING = 1024


class SqliteStore:
    """Implements BackingStore."""

    at_once = AT_ONCE

    def __init__(self, place: SqlitePlace, clock: Clock, longest_bytes: int, timeout_ms: int) -> None:
        self._place = place
        self._clock = clock
        self._longest_bytes = longest_bytes
        self._timeout_ms = timeout_ms
        self._file: SqliteFile | None = None
        self._text_columns: frozenset[str] = frozenset()

    async def open(self) -> None:
        """Raises ConfigError."""
        try:
            self._file = await SqliteFile.open(self._place.path, busy_ms=self._timeout_ms // 2)
            types = await self._file.run(self._prepare, writes=True)
        except SqliteError as error:
            raise ConfigError("--backing", self._place.shown, f"a file that SQLite can open ({error})") from None
        if not types.keys() >= set(COLUMNS):
            raise ConfigError("--backing", self._place.shown, "a table with columns key, value and expires_ms")
        self._text_columns = frozenset(name for name, declared in types.items() if TEXT_TYPE.search(declared))

    def _prepare(self, connection: Connection) -> dict[str, str]:
        """Make the table if there is none; its columns with their declared types."""
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self._place.table}"
            " (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL, expires_ms INTEGER)"
        )
        rows = connection.execute(f"PRAGMA table_info({self._place.table})").fetchall()
        return {name.lower(): declared for _, name, declared, *_ in rows}

    async def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            await file.close()

    async def load(self, key: bytes, until_s: float) -> Found | None:
        shown_key = self._as_column("key", key)
        query = f"SELECT value, expires_ms FROM {self._place.table} WHERE key = ?"
        row = await self._run(
            lambda connection: connection.execute(query, (shown_key,)).fetchone(), until_s, writes=False
        )
        if row is None:
            return None
        value, expires_ms = as_bytes(row[0]), row[1] or NEVER
        if value is None or not isinstance(expires_ms, int):
            raise BackingError(f"has {row[0]!r:.100} and {row[1]!r:.100} in its row")
        if len(value) > self._longest_bytes:
            raise BackingError("the value is too large")
        return Found(value, expires_ms) if expires_ms > self._clock.now_ms() else None

    async def store(self, key: bytes, value: bytes, ttl_ms: int | None, until_s: float) -> None:
        expires_ms = None if ttl_ms is None else self._clock.now_ms() + ttl_ms
        row = (self._as_column("key", key), self._as_column("value", value), expires_ms)
        table = self._place.table

        def replace(connection: Connection) -> None:
            connection.execute(f"DELETE FROM {table} WHERE key = ?", row[:1])
            connection.execute(f"INSERT INTO {table} (key, value, expires_ms) VALUES (?, ?, ?)", row)

        await self._run(replace, until_s, writes=True)

    async def delete(self, key: bytes, until_s: float) -> None:
        shown_key = self._as_column("key", key)
        query = f"DELETE FROM {self._place.table} WHERE key = ?"
        await self._run(lambda connection: connection.execute(query, (shown_key,)).rowcount, until_s, writes=True)

    def _as_column(self, column: str, data: bytes) -> bytes | str:
        if column not in self._text_columns:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise BackingError(f"the {column} is no text, as the table wants it") from None

    async def _run(self, work: Callable[[Connection], T], until_s: float, *, writes: bool) -> T:
        if self._file is None:
            raise BackingError("closed")
        if self._file.outstanding >= MOST_OUTSTANDING:
            raise BackingError("its disk does not answer")
        try:
            async with asyncio.timeout_at(until_s):
                return await self._file.run(work, writes=writes)
        except TimeoutError:
            raise BackingError("timed out", happened=True) from None
        except SqliteError as error:
            raise BackingError(str(error)) from None


def as_bytes(value: Any) -> bytes | None:
    """What a client of the cache gets for a value of SQLite; None for NULL."""
    if isinstance(value, bytes):
        return value
    return None if value is None else str(value).encode()
