"""An SQLite file on a thread of its own: what its library blocks on never stops the loop.

    file = await SqliteFile.open("values.db", busy_ms=2000)
    rows = await file.run(lambda connection: connection.execute("SELECT …").fetchall(), writes=False)
    await file.close()

Group commit: jobs that write and are asked for while the thread is away share one transaction, since each commit costs
a sync of the disk; one that raises is rolled back alone. Jobs that only read run before them. Giving up the wait does
not undo a job. `outstanding` says how many have not ended: a disk that hangs is no reason to
queue ever more.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, TypeVar

from minidist.runtime.disk.thread import DiskThread

if TYPE_CHECKING:
    from collections.abc import Callable
    from sqlite3 import Connection as Connection

T = TypeVar("T")

# Threads are known by device numbers, and no device has these.
_thread_numbers = itertools.count(-2, -1)


class SqliteError(Exception):
    """The library refused; the text is its own."""


class _Job:
    """Something to do on the thread, and what became of it."""

    __slots__ = ("error", "future", "result", "work", "writes")

    def __init__(self, work: Callable[[Connection], Any], writes: bool, future: asyncio.Future[Any]) -> None:
        self.work = work
        self.writes = writes
        self.future = future
        self.result: Any = None
        self.error: SqliteError | None = None

    def run(self, connection: Connection) -> None:
        import sqlite3

        try:
            self.result = self.work(connection)
        except (sqlite3.Error, OverflowError, MemoryError) as error:
            self.error = SqliteError(str(error))


class SqliteFile:
    """An open file; made when it does not exist."""

    def __init__(self, thread: DiskThread) -> None:
        self._thread = thread
        self._connection: Connection | None = None
        self._waiting: list[_Job] = []
        self._away = False  # a batch is with the thread, or about to be
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
            self._connection = sqlite3.connect(
                path, timeout=busy_ms / 1000, check_same_thread=False, isolation_level=None
            )
        except sqlite3.Error as error:
            raise SqliteError(str(error)) from error

    def run(self, work: Callable[[Connection], T], *, writes: bool) -> asyncio.Future[T]:
        """What `work` returns. Raises SqliteError."""
        loop = asyncio.get_running_loop()
        job = _Job(work, writes, loop.create_future())
        self.outstanding += 1
        self._waiting.append(job)
        if not self._away:
            self._away = True
            loop.call_soon(self._send)
        return job.future

    def _send(self) -> None:
        batch, self._waiting = self._waiting, []
        if not batch:  # `close` was faster
            return
        self._thread.submit(lambda: self._run_batch(batch)).add_done_callback(lambda _: self._settle(batch))

    def _settle(self, batch: list[_Job]) -> None:
        for job in batch:
            self.outstanding -= 1
            if job.future.done():
                continue
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(job.error)
        if self._waiting:
            self._send()
        else:
            self._away = False

    def _run_batch(self, batch: list[_Job]) -> None:
        """On the thread."""
        connection = self._connection
        assert connection is not None
        for job in batch:
            if not job.writes:
                job.run(connection)
        writes = [job for job in batch if job.writes]
        if not writes:
            return
        import sqlite3

        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in writes:
                connection.execute("SAVEPOINT job")
                job.run(connection)
                if job.error is not None:
                    connection.execute("ROLLBACK TO job")
                connection.execute("RELEASE job")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for job in writes:
                job.error = SqliteError(str(error))

    async def close(self) -> None:
        """After what was asked for before."""
        connection = self._connection
        if connection is not None:
            if self._waiting:  # before the batch that closes
                self._send()
            await self._thread.submit(connection.close)
        await self._thread.release()
