"""An SQLite file on a thread of its own: what its library blocks on never stops the loop.

    file = await SqliteFile.open("values.db", busy_ms=2000)
    rows = await file.run(lambda connection: connection.execute("SELECT …").fetchall())
    await file.close()

Jobs run one after the other, each in a transaction that is committed when it returns and rolled back when it raises.
Giving up the wait does not undo a job. `outstanding` says how many have not ended: a disk that hangs is no reason to
queue ever more.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeVar

from minidist.runtime.disk.thread import DiskThread

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from sqlite3 import Connection as Connection

T = TypeVar("T")

# Threads are known by device numbers, and no device has these.
_thread_numbers = itertools.count(-2, -1)


class SqliteError(Exception):
    """The library refused; the text is its own."""


class SqliteFile:
    """An open file; made when it does not exist."""

    def __init__(self, thread: DiskThread) -> None:
        self._thread = thread
        self._connection: Connection | None = None
        self.outstanding = 0

    @classmethod
    async def open(cls, path: str, *, busy_ms: int) -> SqliteFile:
        """`busy_ms`: how long a job waits for others who write to the file. Raises SqliteError."""
        file = cls(DiskThread.acquire(next(_thread_numbers)))
        try:
            await file._thread.submit(lambda: file._connect(path, busy_ms))
        except BaseException:
            await file._thread.release()
            raise
        return file

    def _connect(self, path: str, busy_ms: int) -> None:
        import sqlite3

        try:
            self._connection = sqlite3.connect(path, timeout=busy_ms / 1000, check_same_thread=False)
        except sqlite3.Error as error:
            raise SqliteError(str(error)) from error

    def run(self, work: Callable[[Connection], T]) -> asyncio.Future[T]:
        """What `work` returns. Raises SqliteError."""
        self.outstanding += 1
        future = self._thread.submit(lambda: self._in_transaction(work))
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: asyncio.Future[T]) -> None:
        self.outstanding -= 1

    def _in_transaction(self, work: Callable[[Connection], T]) -> T:
        import sqlite3

        assert self._connection is not None
        try:
            with self._connection:
                return work(self._connection)
        except (sqlite3.Error, OverflowError, MemoryError) as error:
            raise SqliteError(str(error)) from error

    async def close(self) -> None:
        """After what was asked for before."""
        connection = self._connection
        if connection is not None:
            await self._thread.submit(connection.close)
        await self._thread.release()
