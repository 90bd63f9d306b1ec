"""The simulated disk: the Disk port in memory, with what a crash really leaves behind.

What a file shows is in `Inode.data`; what is safe is in `Inode.durable`, and between them lies the list of writes since
the last sync. A process that crashes leaves the page cache to its kernel: everything written is there. When the power
goes, each write since the last sync may have reached the platter or not, in any order, and the last one perhaps in
part: that is drawn from the disk's stream, and the faults `lost-unsynced` (nothing of it survives) and `torn` (the last
write is cut) make it certain. Names are journalled: of the changes to directories since the last `sync_directory` a
prefix survives.

Operations take simulated time, a file's one after another. Like the real one this disk consults its `DiskFaults`.
"""

import asyncio
import errno
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from minidist.runtime.disk.faults import DiskFaultKind, DiskFaults
from minidist.runtime.disk.port import (
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
from minidist.sim.host import Crash, Host

if TYPE_CHECKING:
    from minidist.sim.world import World

T = TypeVar("T")

OPERATION_S = (0.00002, 0.0001)
SYNC_S = (0.0001, 0.002)
DEFAULT_CAPACITY_BYTES = 1 << 30


class Inode:
    """A file: what it shows, what is durable of it, and the changes between. `None` as data means a truncation."""

    def __init__(self, identity: int) -> None:
        self.identity = identity
        self.data = bytearray()
        self.durable = b""
        self.unsynced: list[tuple[int, bytes | None]] = []
        self.modified_ns = 0

    def write(self, offset: int, data: bytes) -> None:
        apply(self.data, offset, data)
        self.unsynced.append((offset, bytes(data)))

    def resize(self, size: int) -> None:
        apply(self.data, size, None)
        self.unsynced.append((size, None))

    def synced(self, count: int) -> None:
        """The first `count` changes have become durable."""
        durable = bytearray(self.durable)
        for offset, data in self.unsynced[:count]:
            apply(durable, offset, data)
        self.durable = bytes(durable)
        del self.unsynced[:count]

    def lose_power(self, rng: random.Random, *, lose_all: bool, tear: bool) -> None:
        """What is left is what is durable and what happened to get through."""
        survived = bytearray(self.durable)
        for index, (offset, data) in enumerate(self.unsynced):
            last = index == len(self.unsynced) - 1
            if tear and last and data:
                apply(survived, offset, data[: rng.randrange(len(data))])
            elif not lose_all and rng.random() < 0.5:
                cut = last and data and rng.random() < 0.5
                apply(survived, offset, data[: rng.randrange(len(data))] if cut and data else data)
        self.data = survived
        self.durable = bytes(survived)
        self.unsynced.clear()


def apply(content: bytearray, offset: int, data: bytes | None) -> None:
    """Put bytes at an offset, or with None cut (or extend with zeros) to that size."""
    if data is None:
        if offset <= len(content):
            del content[offset:]
        else:
            content.extend(bytes(offset - len(content)))
        return
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class Names:
    """Directories and names: path → Inode, or None for a directory. Changes are a journal."""

    def __init__(self) -> None:
        self.now: dict[str, Inode | None] = {"": None}
        self.durable: dict[str, Inode | None] = {"": None}
        self.journal: list[tuple[str, Inode | None, bool]] = []  # (path, what, whether it is there)

    def set(self, path: str, inode: Inode | None) -> None:
        self.now[path] = inode
        self.journal.append((path, inode, True))

    def remove(self, path: str) -> None:
        del self.now[path]
        self.journal.append((path, None, False))

    def synced(self) -> None:
        self.durable = dict(self.now)
        self.journal.clear()

    def lose_power(self, rng: random.Random, *, lose_all: bool) -> None:
        survived = dict(self.durable)
        kept = 0 if lose_all else rng.randrange(len(self.journal) + 1)
        for path, inode, there in self.journal[:kept]:
            if there:
                survived[path] = inode
            else:
                survived.pop(path, None)
        self.now, self.durable = survived, dict(survived)
        self.journal.clear()


class Platter:
    """What outlives a process: the machine's disk. Each life opens a `SimDisk` on it."""

    def __init__(self, rng: random.Random, capacity_bytes: int = DEFAULT_CAPACITY_BYTES) -> None:
        self.rng = rng
        self.capacity_bytes = capacity_bytes
        self.names = Names()
        self._identities = 0

    def new_inode(self) -> Inode:
        self._identities += 1
        return Inode(self._identities)

    def used_bytes(self) -> int:
        return sum(len(inode.data) for inode in self.names.now.values() if inode is not None)

    def crash(self, kind: Crash, faults: DiskFaults) -> None:
        if kind is Crash.PROCESS:
            return
        lose_all = faults.holds(DiskFaultKind.LOST_UNSYNCED)
        tear = faults.holds(DiskFaultKind.TORN)
        self.names.lose_power(self.rng, lose_all=lose_all)
        seen: dict[int, Inode] = {inode.identity: inode for inode in self.names.now.values() if inode is not None}
        for _, inode in sorted(seen.items()):
            inode.lose_power(self.rng, lose_all=lose_all, tear=tear)


class SimDisk(Disk):
    """One life's view of a platter."""

    def __init__(self, world: "World", host: Host, platter: Platter) -> None:
        super().__init__()
        self.world = world
        self.host = host
        self.platter = platter
        self.names = platter.names
        self.faults = DiskFaults(world.streams.of(f"disk faults {host.name}"), tuple(DiskFaultKind))
        self.figures = DiskFigures()
        self.closed = False
        self.open_files: dict[SimFile, None] = {}
        self._free_at_s = 0.0

    def crash(self, kind: Crash) -> None:
        self.closed = True
        self.platter.crash(kind, self.faults)

    # --- operations -------------------------------------------------------------------------------------------------

    def operate(self, operation: Operation, path: str, act: Callable[[], T], *, sync: bool = False) -> Any:
        """A future of `act()`, done after the time the operation takes; faults and errors come through it."""
        loop = self.world.loop
        future = loop.create_future()
        low, high = SYNC_S if sync else OPERATION_S
        took_s = self.world.streams.disk.uniform(low, high)
        try:
            if self.closed:
                raise FileClosed(operation.value, path, "the disk is closed")
            result: Any = self._struck(operation, path, act)
        except DiskError as error:
            result = error
        if self.faults.active and not isinstance(result, DiskError):
            took_s += self._last_delay_s
        self._free_at_s = max(self._free_at_s, loop.now_s) + took_s
        loop.at_world_time(self._free_at_s, _finish, future, result, context=self.host.context.copy())
        if sync:
            self.figures.synced(took_s)
        self.world.trace.add(len(path))
        return future

    def _struck(self, operation: Operation, path: str, act: Callable[[], T]) -> T:
        self._last_delay_s = 0.0
        if self.faults.active:
            verdict = self.faults.verdict(operation)
            self._last_delay_s = verdict.delay_s
            if verdict.errno:
                kind = DiskFull if verdict.errno == errno.ENOSPC else DiskFailed
                raise kind(operation.value, path, os.strerror(verdict.errno))
        return act()

    def _clean(self, operation: Operation, path: str) -> str:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if path.startswith("/") or ".." in parts:
            raise PathRefused(operation.value, path, "it leaves the root of the disk")
        clean = "/".join(parts)
        parent = clean.rpartition("/")[0]
        if parent not in self.names.now:
            raise FileMissing(operation.value, path, "no such directory")
        if self.names.now[parent] is not None:
            raise PathRefused(operation.value, path, "not a directory")
        return clean

    def _file(self, operation: Operation, path: str) -> Inode:
        clean = self._clean(operation, path)
        if clean not in self.names.now:
            raise FileMissing(operation.value, path, "no such file")
        inode = self.names.now[clean]
        if inode is None:
            raise PathRefused(operation.value, path, "it is a directory")
        return inode

    def need_room(self, operation: Operation, path: str, growth: int) -> None:
        if growth > 0 and self.platter.used_bytes() + growth > self.platter.capacity_bytes:
            raise DiskFull(operation.value, path, os.strerror(errno.ENOSPC))

    @property
    def full(self) -> bool:
        return self.platter.used_bytes() >= self.platter.capacity_bytes or self.faults.holds(DiskFaultKind.FULL)

    def open(self, path: str, mode: OpenMode = OpenMode.READ) -> Any:
        return self.operate(Operation.OPEN, path, lambda: self._open_now(path, mode))

    def _open_now(self, path: str, mode: OpenMode) -> "SimFile":
        clean = self._clean(Operation.OPEN, path)
        exists = clean in self.names.now
        if exists and mode is OpenMode.NEW:
            raise FileExists(Operation.OPEN.value, path, "it exists")
        if exists or mode in (OpenMode.READ, OpenMode.WRITE):
            inode = self._file(Operation.OPEN, path)
        else:
            inode = self.platter.new_inode()
            self.names.set(clean, inode)
        return SimFile(self, path, inode, writable=mode is not OpenMode.READ)

    def open_unlinked(self) -> Any:
        return self.operate(Operation.OPEN, "", lambda: SimFile(self, "", self.platter.new_inode(), writable=True))

    def stat(self, path: str) -> Any:
        return self.operate(Operation.STAT, path, lambda: self._stat_now(path))

    def _stat_now(self, path: str) -> Stat | None:
        try:
            clean = self._clean(Operation.STAT, path)
        except FileMissing:
            return None
        if clean not in self.names.now:
            return None
        inode = self.names.now[clean]
        if inode is None:
            return Stat(0, 0, 0, True)
        return Stat(len(inode.data), inode.modified_ns, inode.identity, False)

    def list(self, path: str = "") -> Any:
        return self.operate(Operation.LIST, path, lambda: self._list_now(path))

    def _list_now(self, path: str) -> "list[str]":
        clean = self._clean(Operation.LIST, path) if path else ""
        if clean not in self.names.now:
            raise FileMissing(Operation.LIST.value, path, "no such directory")
        if self.names.now[clean] is not None:
            raise PathRefused(Operation.LIST.value, path, "not a directory")
        prefix = f"{clean}/" if clean else ""
        return sorted(
            name[len(prefix) :]
            for name in self.names.now
            if name and name.startswith(prefix) and "/" not in name[len(prefix) :]
        )

    def rename(self, path: str, to: str) -> Any:
        return self.operate(Operation.RENAME, path, lambda: self._rename_now(path, to))

    def _rename_now(self, path: str, to: str) -> None:
        clean, target = self._clean(Operation.RENAME, path), self._clean(Operation.RENAME, to)
        if clean not in self.names.now:
            raise FileMissing(Operation.RENAME.value, path, "no such file")
        moved = [name for name in self.names.now if name == clean or name.startswith(clean + "/")]
        if self.names.now.get(target, 0) is None and self.names.now[clean] is not None:
            raise PathRefused(Operation.RENAME.value, to, "it is a directory")
        for name in moved:
            inode = self.names.now[name]
            self.names.set(target + name[len(clean) :], inode)
            self.names.remove(name)

    def remove(self, path: str) -> Any:
        return self.operate(Operation.REMOVE, path, lambda: self._remove_now(path))

    def _remove_now(self, path: str) -> None:
        clean = self._clean(Operation.REMOVE, path)
        if clean not in self.names.now:
            raise FileMissing(Operation.REMOVE.value, path, "no such file")
        if any(name.startswith(clean + "/") for name in self.names.now):
            raise FileExists(Operation.REMOVE.value, path, "the directory is not empty")
        self.names.remove(clean)

    def make_directory(self, path: str) -> Any:
        return self.operate(Operation.MAKE_DIRECTORY, path, lambda: self._make_directory_now(path))

    def _make_directory_now(self, path: str) -> None:
        parts = [part for part in path.split("/") if part]
        if path.startswith("/") or ".." in parts:
            raise PathRefused(Operation.MAKE_DIRECTORY.value, path, "it leaves the root of the disk")
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[:count])
            if name not in self.names.now:
                self.names.set(name, None)
            elif self.names.now[name] is not None:
                raise PathRefused(Operation.MAKE_DIRECTORY.value, path, "a file has this name")
        self.names.synced()

    def sync_directory(self, path: str = "") -> Any:
        return self.operate(Operation.SYNC, path, self.names.synced, sync=True)

    def close(self) -> Any:
        async def close() -> None:
            for file in list(self.open_files):
                await file.close()
            self.closed = True

        return close()


class SimFile(File):
    """An open file of a simulated disk."""

    def __init__(self, disk: SimDisk, path: str, inode: Inode, *, writable: bool) -> None:
        self.path = path
        self.disk = disk
        self.inode = inode
        self.writable = writable
        self.closed = False
        self.failed: DiskFailed | None = None
        disk.open_files[self] = None

    def _usable(self, operation: Operation, *, write: bool = True) -> None:
        if self.closed:
            raise FileClosed(operation.value, self.path, "the file is closed")
        if write and self.failed is not None:
            raise self.failed
        if write and not self.writable:
            raise PathRefused(operation.value, self.path, "it was opened for reading only")

    def _operate(self, operation: Operation, act: Callable[[], T], *, sync: bool = False) -> Any:
        future = self.disk.operate(operation, self.path, act, sync=sync)
        future.add_done_callback(self._note_failure)
        return future

    def _note_failure(self, future: "asyncio.Future[Any]") -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, DiskFailed) and self.failed is None:
            self.failed = error
            self.disk.report_failed(error)

    def append(self, data: bytes, *, sync: bool = False) -> Any:
        return self._write(None, data, sync)

    def write_at(self, offset: int, data: bytes, *, sync: bool = False) -> Any:
        return self._write(offset, data, sync)

    def _write(self, offset: int | None, data: bytes, sync: bool) -> Any:
        def act() -> int:
            self._usable(Operation.WRITE)
            at = len(self.inode.data) if offset is None else offset
            self.disk.need_room(Operation.WRITE, self.path, at + len(data) - len(self.inode.data))
            self.inode.write(at, data)
            self.inode.modified_ns = int(self.disk.world.loop.now_s * 1e9)
            self.disk.figures.writes += 1
            self.disk.figures.bytes_written += len(data)
            return at

        written = self._operate(Operation.WRITE, act)
        if not sync:
            return written

        async def write_and_sync() -> int:
            synced = self.sync()
            at: int = await written
            await synced
            return at

        return asyncio.ensure_future(write_and_sync())

    def read_at(self, offset: int, count: int) -> Any:
        def act() -> bytes:
            self._usable(Operation.READ, write=False)
            data = bytes(self.inode.data[offset : offset + count])
            self.disk.figures.reads += 1
            self.disk.figures.bytes_read += len(data)
            return data

        return self._operate(Operation.READ, act)

    def truncate(self, size: int) -> Any:
        def act() -> None:
            self._usable(Operation.TRUNCATE)
            self.inode.resize(size)

        return self._operate(Operation.TRUNCATE, act)

    def allocate(self, size: int) -> Any:
        def act() -> None:
            self._usable(Operation.ALLOCATE)
            self.disk.need_room(Operation.ALLOCATE, self.path, size - len(self.inode.data))
            if size > len(self.inode.data):
                self.inode.resize(size)

        return self._operate(Operation.ALLOCATE, act)

    def size(self) -> Any:
        def act() -> int:
            self._usable(Operation.STAT, write=False)
            return len(self.inode.data)

        return self._operate(Operation.STAT, act)

    def sync(self) -> Any:
        """Durable when the future is done: a crash before that may lose what was written before the call."""

        def act() -> int:
            self._usable(Operation.SYNC)
            return len(self.inode.unsynced)

        async def sync() -> None:
            count = await counted
            self.inode.synced(min(count, len(self.inode.unsynced)))

        counted = self._operate(Operation.SYNC, act, sync=True)
        return asyncio.ensure_future(sync())

    def close(self) -> Any:
        self.closed = True
        self.disk.open_files.pop(self, None)
        future = self.disk.world.loop.create_future()
        future.set_result(None)
        return future

    def descriptor(self) -> int | None:
        return None


def _finish(future: "asyncio.Future[Any]", result: Any) -> None:
    if future.done():
        return
    if isinstance(result, DiskError):
        future.set_exception(result)
    else:
        future.set_result(result)
