"""The real disk: files below a directory of this machine, with the blocking calls on the disk's thread.

Small writes and short syncs run on the loop instead when this node's own measurements say that the trip to the thread
costs more than the work (`pace.py`), nothing else is under way on the device and no fault is set. The reads stay on the
thread: a page that is not in memory takes milliseconds, and nothing tells beforehand.

`write_at(…, sync=True)` is one job: the write and the fdatasync make one trip, and nothing gets between them.

The directory is locked (flock) for as long as the disk is open, so that a second node started on it by mistake is
refused before it can mix its records with ours. Files are readable by their owner alone, like the data of any store.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import random
import stat
import tempfile
from collections.abc import Callable
from functools import partial
from time import perf_counter, sleep
from typing import TypeVar

from minidist.runtime.disk.faults import DiskFaultKind, DiskFaults
from minidist.runtime.disk.pace import Pace
from minidist.runtime.disk.port import (
    DirectoryInUse,
    Disk,
    DiskError,
    DiskFailed,
    DiskFigures,
    DiskFull,
    File,
    FileClosed,
    FileExists,
    FileMissing,
    OpenMode,
    Operation,
    PathRefused,
    Stat,
)
from minidist.runtime.disk.thread import DiskThread

T = TypeVar("T")
# Called on the thread before an operation that a fault strikes: waits, then raises OSError when it is to fail.
Toll = Callable[[], None]

# Above this a write copies for longer than a trip takes (about 5 GB/s into the page cache).
ON_LOOP_BYTES = 64 * 1024

_FLAGS = {
    OpenMode.READ: os.O_RDONLY,
    OpenMode.WRITE: os.O_RDWR,
    OpenMode.CREATE: os.O_RDWR | os.O_CREAT,
    OpenMode.NEW: os.O_RDWR | os.O_CREAT | os.O_EXCL,
}
_ERRORS: dict[int, type[DiskError]] = {
    errno.ENOENT: FileMissing,
    errno.EEXIST: FileExists,
    errno.ENOTEMPTY: FileExists,
    errno.ENOTDIR: PathRefused,
    errno.EISDIR: PathRefused,
    errno.ELOOP: PathRefused,
    errno.ENAMETOOLONG: PathRefused,
    errno.ENOSPC: DiskFull,
    errno.EDQUOT: DiskFull,
    errno.EIO: DiskFailed,
    errno.ENXIO: DiskFailed,
    errno.ESTALE: DiskFailed,
}


def _typed(error: OSError, operation: Operation, path: str) -> DiskError:
    kind = _ERRORS.get(error.errno or 0, DiskError)
    return kind(operation.value, path, os.strerror(error.errno) if error.errno else str(error))


def _sync_descriptor(descriptor: int) -> None:
    """Data and length on stable storage. macOS' fsync stops at the drive's cache; F_FULLFSYNC does not."""
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        try:
            fcntl.fcntl(descriptor, full_sync)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL):  # network file systems have only fsync
                raise
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def _sync_directory(real_path: str) -> None:
    descriptor = os.open(real_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):  # a signal, or room for a part only: the next call then says ENOSPC
        written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)


class LocalFile(File):
    """`_end`, `_dirty`, `_broken` change on the disk's thread, or on the loop while that thread has nothing to do."""

    __slots__ = ("_broken", "_descriptor", "_dirty", "_disk", "_end", "_writable", "path")

    def __init__(self, disk: LocalDisk, path: str, descriptor: int, writable: bool) -> None:
        self.path = path
        self._disk = disk
        self._descriptor = descriptor  # -1 once closed
        self._writable = writable
        self._end = os.fstat(descriptor).st_size
        self._dirty = 0  # bytes a sync would have to bring to the device
        self._broken = ""  # why the file refuses everything

    def append(self, data: bytes, *, sync: bool = False) -> asyncio.Future[int]:
        return self._write(None, data, sync)

    def write_at(self, offset: int, data: bytes, *, sync: bool = False) -> asyncio.Future[int]:
        return self._write(offset, data, sync)

    def read_at(self, offset: int, count: int) -> asyncio.Future[bytes]:
        return self._disk.submit(partial(self._read_now, offset, count, self._disk.toll(Operation.READ)))

    def truncate(self, size: int) -> asyncio.Future[None]:
        return self._resize(Operation.TRUNCATE, size)

    def allocate(self, size: int) -> asyncio.Future[None]:
        return self._resize(Operation.ALLOCATE, size)

    def size(self) -> asyncio.Future[int]:
        return self._disk.submit(self._size_now)

    def sync(self) -> asyncio.Future[None]:
        disk = self._disk
        if disk.faults.active or self._dirty > ON_LOOP_BYTES:
            return disk.submit(partial(self._sync_now, disk.toll(Operation.SYNC)))
        return disk.run_small(self._sync_now, disk.sync_pace)

    async def close(self) -> None:
        if self._disk.forget(self):
            await self._disk.submit(self._close_now)

    def descriptor(self) -> int | None:
        return self._descriptor if self._descriptor >= 0 else None

    def _write(self, offset: int | None, data: bytes, sync: bool) -> asyncio.Future[int]:
        disk = self._disk
        if disk.faults.active:
            toll = disk.toll(Operation.WRITE)
            sync_toll = disk.toll(Operation.SYNC) if sync else None
            return disk.submit(partial(self._write_now, offset, data, sync, toll, sync_toll))
        work = partial(self._write_now, offset, data, sync)
        if len(data) > ON_LOOP_BYTES or (sync and self._dirty > ON_LOOP_BYTES):
            return disk.submit(work)
        return disk.run_small(work, disk.sync_pace if sync else disk.write_pace)

    def _resize(self, operation: Operation, size: int) -> asyncio.Future[None]:
        return self._disk.submit(partial(self._resize_now, operation, size, self._disk.toll(operation)))

    # From here on: the blocking side.

    def _write_now(
        self, offset: int | None, data: bytes, sync: bool, toll: Toll | None = None, sync_toll: Toll | None = None
    ) -> int:
        self._refuse_unless_usable(Operation.WRITE)
        start = self._end if offset is None else offset
        try:
            if toll is not None:
                toll()
            _write_all(self._descriptor, data, start)
        except OSError as error:
            with contextlib.suppress(OSError):  # of an append that did not fit, nothing stays
                if os.fstat(self._descriptor).st_size > self._end:
                    os.ftruncate(self._descriptor, self._end)
            raise self._typed_and_final(error, Operation.WRITE) from error
        self._end = max(self._end, start + len(data))
        self._dirty += len(data)
        self._disk.figures.writes += 1
        self._disk.figures.bytes_written += len(data)
        if sync:
            self._sync_now(sync_toll)
        return start

    def _sync_now(self, toll: Toll | None = None) -> None:
        self._refuse_unless_usable(Operation.SYNC)
        started_s = perf_counter()
        try:
            if toll is not None:
                toll()
            _sync_descriptor(self._descriptor)
        except OSError as error:
            raise self._typed_and_final(error, Operation.SYNC) from error
        self._dirty = 0
        self._disk.figures.synced(perf_counter() - started_s)

    def _read_now(self, offset: int, count: int, toll: Toll | None) -> bytes:
        self._refuse_unless_usable(Operation.READ)
        try:
            if toll is not None:
                toll()
            data = os.pread(self._descriptor, count, offset)
            while len(data) < count and (more := os.pread(self._descriptor, count - len(data), offset + len(data))):
                data += more
        except OSError as error:
            raise _typed(error, Operation.READ, self.path) from error
        self._disk.figures.reads += 1
        self._disk.figures.bytes_read += len(data)
        return data

    def _resize_now(self, operation: Operation, size: int, toll: Toll | None) -> None:
        self._refuse_unless_usable(operation)
        try:
            if toll is not None:
                toll()
            if operation is Operation.TRUNCATE:
                os.ftruncate(self._descriptor, size)
            elif size <= self._end:
                return
            elif hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._descriptor, self._end, size - self._end)
            else:
                os.ftruncate(self._descriptor, size)
        except OSError as error:
            with contextlib.suppress(OSError):  # what an allocation got before the disk was full goes back
                os.ftruncate(self._descriptor, self._end)
            raise self._typed_and_final(error, operation) from error
        self._dirty += abs(size - self._end)
        self._end = size

    def _size_now(self) -> int:
        self._refuse_unless_usable(Operation.STAT)
        return self._end

    def _close_now(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _refuse_unless_usable(self, operation: Operation) -> None:
        if self._descriptor < 0:
            raise FileClosed(operation.value, self.path, "the file has been closed")
        if self._broken:
            raise DiskFailed(operation.value, self.path, f"the file is given up, an earlier {self._broken}")
        if not self._writable and operation in (Operation.WRITE, Operation.TRUNCATE, Operation.ALLOCATE):
            raise PathRefused(operation.value, self.path, "it was opened for reading")

    def _typed_and_final(self, error: OSError, operation: Operation) -> DiskError:
        """A sync that fails is final whatever the reason given; a write is when the device failed it."""
        typed = _typed(error, operation, self.path)
        if operation is Operation.SYNC and not isinstance(typed, DiskFailed):
            typed = DiskFailed(operation.value, self.path, typed.reason)
        if isinstance(typed, DiskFailed):
            self._broken = f"{operation.value} failed: {typed.reason}"
            self._disk.report(typed)
        return typed


class LocalDisk(Disk):
    """Made by `open`. One per node; several in one process share the threads of their devices."""

    def __init__(self, root: str, lock: int | None, thread: DiskThread, rng: random.Random | None) -> None:
        super().__init__()
        self.root = root
        self.faults = DiskFaults(rng)
        self.figures = DiskFigures()
        self.write_pace = Pace()
        self.sync_pace = Pace()
        self._lock = lock
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self._files: set[LocalFile] = set()
        self._closed = False

    @classmethod
    async def open_root(cls, root: str, *, lock: bool = True, rng: random.Random | None = None) -> LocalDisk:
        """The disk whose root is the directory `root`, which must exist. `rng` serves faults with a probability.

        Raises FileMissing, PathRefused (not a directory), DirectoryInUse. Without `lock` the directory may be in use
        by others: for reading configuration, certificates and zones.
        """
        root = os.path.realpath(root)
        try:
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _typed(error, Operation.OPEN, root) from error
        device = os.fstat(descriptor).st_dev
        if not lock:
            os.close(descriptor)
            return cls(root, None, DiskThread.acquire(device), rng)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise DirectoryInUse(Operation.OPEN.value, root, "another process works in this directory") from None
            raise _typed(error, Operation.OPEN, root) from error
        return cls(root, descriptor, DiskThread.acquire(device), rng)

    @classmethod
    async def open_temporary(cls, *, rng: random.Random | None = None) -> LocalDisk:
        """A disk whose root is a new directory that goes with the process: see `temporary.py`."""
        from minidist.runtime.disk.temporary import open_temporary_disk

        return await open_temporary_disk(rng=rng)

    def open(self, path: str, mode: OpenMode = OpenMode.READ) -> asyncio.Future[File]:
        return self._run(Operation.OPEN, path, partial(self._open_now, path, mode))

    def open_unlinked(self) -> asyncio.Future[File]:
        return self._run(Operation.OPEN, "", self._open_unlinked_now)

    def stat(self, path: str) -> asyncio.Future[Stat | None]:
        return self._run(Operation.STAT, path, partial(self._stat_now, path))

    def list(self, path: str = "") -> asyncio.Future[list[str]]:
        return self._run(Operation.LIST, path, lambda: sorted(os.listdir(self._real(Operation.LIST, path))))

    def rename(self, path: str, to: str) -> asyncio.Future[None]:
        return self._run(
            Operation.RENAME,
            path,
            lambda: os.rename(self._real(Operation.RENAME, path), self._real(Operation.RENAME, to)),
        )

    def remove(self, path: str) -> asyncio.Future[None]:
        return self._run(Operation.REMOVE, path, partial(self._remove_now, path))

    def make_directory(self, path: str) -> asyncio.Future[None]:
        return self._run(Operation.MAKE_DIRECTORY, path, partial(self._make_directory_now, path))

    def sync_directory(self, path: str = "") -> asyncio.Future[None]:
        return self._run(Operation.SYNC, path, lambda: _sync_directory(self._real(Operation.SYNC, path)))

    @property
    def full(self) -> bool:
        return self.faults.active and self.faults.holds(DiskFaultKind.FULL, Operation.WRITE)

    async def close(self) -> None:
        if self._closed:
            return
        for file in list(self._files):
            await file.close()
        self._closed = True
        await self._thread.release()
        if self._lock is not None:
            os.close(self._lock)

    # For LocalFile.

    def submit(self, work: Callable[[], T], pace: Pace | None = None) -> asyncio.Future[T]:
        """On the thread."""
        if self._closed:
            raise FileClosed("use", self.root, "the disk has been closed")
        self.figures.in_thread += 1
        return self._thread.submit(work, pace)

    def run_small(self, work: Callable[[], T], pace: Pace) -> asyncio.Future[T]:
        """On the loop when that is cheaper than the trip, else on the thread."""
        started_s = perf_counter()
        if self._closed or not self._thread.idle or not pace.on_loop(started_s):
            return self.submit(work, pace)
        future: asyncio.Future[T] = self._loop.create_future()
        try:
            future.set_result(work())
        except DiskError as error:
            future.set_exception(error)
        now_s = perf_counter()
        pace.ran_on_loop(now_s - started_s, now_s)
        self.figures.on_loop += 1
        return future

    def toll(self, operation: Operation) -> Toll | None:
        """What the faults that are set make of one operation, to be called before it; None when they let it pass."""
        if not self.faults.active:
            return None
        verdict = self.faults.verdict(operation)
        if not verdict.delay_s and not verdict.errno:
            return None

        def pay() -> None:
            sleep(verdict.delay_s)
            if verdict.errno:
                raise OSError(verdict.errno, os.strerror(verdict.errno))

        return pay

    def report(self, error: DiskFailed) -> None:
        """From either side."""
        self._loop.call_soon_threadsafe(self.report_failed, error)

    def forget(self, file: LocalFile) -> bool:
        """False when it was closed before."""
        if file not in self._files:
            return False
        self._files.remove(file)
        return True

    def _run(self, operation: Operation, path: str, work: Callable[[], T]) -> asyncio.Future[T]:
        toll = self.toll(operation)

        def job() -> T:
            try:
                if toll is not None:
                    toll()
                return work()
            except OSError as error:
                typed = _typed(error, operation, path)
                if operation is Operation.SYNC and not isinstance(typed, FileMissing | PathRefused):
                    typed = DiskFailed(operation.value, path, typed.reason)
                if isinstance(typed, DiskFailed) and operation in (Operation.SYNC, Operation.MAKE_DIRECTORY):
                    self.report(typed)
                raise typed from error

        return self.submit(job)

    # From here on: the blocking side.

    def _real(self, operation: Operation, path: str) -> str:
        """The path on this machine. Symbolic links are followed as long as they stay below the root."""
        if path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise PathRefused(operation.value, path, "paths are relative and stay below the root of the disk")
        joined = os.path.join(self.root, path) if path else self.root
        if os.path.commonpath((self.root, os.path.realpath(joined))) != self.root:
            raise PathRefused(operation.value, path, "it leads out of the root of the disk")
        return joined

    def _open_now(self, path: str, mode: OpenMode) -> File:
        real = self._real(Operation.OPEN, path)
        descriptor = os.open(real, _FLAGS[mode], 0o600)
        if os.path.isdir(real):
            os.close(descriptor)
            raise PathRefused(Operation.OPEN.value, path, "it is a directory")
        return self._opened(LocalFile(self, path, descriptor, mode is not OpenMode.READ))

    def _open_unlinked_now(self) -> File:
        try:
            descriptor = os.open(self.root, os.O_RDWR | os.O_TMPFILE, 0o600)
        except (AttributeError, OSError):  # not Linux, or a file system without it
            descriptor, name = tempfile.mkstemp(dir=self.root)
            os.unlink(name)
        return self._opened(LocalFile(self, "", descriptor, True))

    def _opened(self, file: LocalFile) -> File:
        self._files.add(file)
        return file

    def _stat_now(self, path: str) -> Stat | None:
        try:
            found = os.stat(self._real(Operation.STAT, path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        is_directory = stat.S_ISDIR(found.st_mode)
        return Stat(0 if is_directory else found.st_size, found.st_mtime_ns, found.st_ino, is_directory)

    def _remove_now(self, path: str) -> None:
        real = self._real(Operation.REMOVE, path)
        if os.path.isdir(real) and not os.path.islink(real):
            os.rmdir(real)
        else:
            os.unlink(real)

    def _make_directory_now(self, path: str) -> None:
        above = self.root
        self._real(Operation.MAKE_DIRECTORY, path)
        for part in path.split("/"):
            directory = os.path.join(above, part)
            try:
                os.mkdir(directory, 0o700)
                _sync_directory(above)
            except FileExistsError:
                if not os.path.isdir(directory):
                    raise
            above = directory
