"""The simulated disk: the Disk port in memory. What a crash leaves behind is platter.py's business.

An operation takes effect when its method is called, and its outcome is given after simulated time, one operation after
another as on one device. So operations keep the order of their calls, also when nobody awaits them. A sync covers what
was written before its call, and that becomes durable at its end, not before: power that goes meanwhile may take it.

Like the real one this disk consults its `DiskFaults`, when an operation is called.
"""

import asyncio
import builtins
import contextvars
import errno
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minidist.runtime.disk.faults import DiskFaultKind, DiskFaults, Verdict
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
from minidist.sim.platter import Inode, Platter
from minidist.sim.random_streams import Streams

OPERATION_S = (0.00002, 0.0001)
SYNC_S = (0.0001, 0.002)

UNHARMED = Verdict(0.0, 0)
OPERATION_NUMBERS = {operation: number for number, operation in enumerate(Operation, 1)}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing the device does: `act` when it is called, `at_the_end` when it is done, unless the power has gone."""

    operation: Operation
    act: Callable[[], Any]
    at_the_end: Callable[[], None] | None = None


class SimDisk(Disk):
    """One life's view of a platter. Made by `open_platter`."""

    def __init__(self, platter: Platter, streams: Streams, name: str, life: int) -> None:
        super().__init__()
        self.platter = platter
        self.names = platter.names
        self.loop = platter.loop
        self.random = streams.disk
        self.faults = DiskFaults(streams.of(f"disk faults {name} {life}"), tuple(DiskFaultKind))
        self.figures = DiskFigures()
        self.closed = False
        self.open_files: dict[SimFile, None] = {}
        self._context = contextvars.copy_context()  # of the process that opened it
        self._free_at_s = 0.0

    @classmethod
    def open_platter(cls, platter: Platter, streams: Streams, name: str, life: int = 1) -> "SimDisk":
        """Raises DirectoryInUse when it is open already."""
        if platter.opened_by is not None:
            raise DirectoryInUse(Operation.OPEN.value, "", "another process works in this directory")
        disk = platter.opened_by = cls(platter, streams, name, life)
        platter.faults = disk.faults
        return disk

    def process_ended(self) -> None:
        """The process is gone, with or without the machine."""
        self.closed = True
        self.platter.opened_by = self.platter.faults = None

    # --- operations -------------------------------------------------------------------------------------------------

    def submit(self, path: str, *steps: "Step", file: "SimFile | None" = None) -> "asyncio.Future[Any]":
        """Carries the steps out, one after another until one fails; a future of what the first one gives."""
        took_s, outcomes, report = 0.0, [], False
        ends: list[Callable[[], None]] = []
        for step in steps:
            self.platter.trace.add(OPERATION_NUMBERS[step.operation])
            self.platter.trace.text(path)
            verdict = self.faults.verdict(step.operation) if self.faults.active else UNHARMED
            step_s = self.random.uniform(*(SYNC_S if step.operation is Operation.SYNC else OPERATION_S))
            took_s += step_s + verdict.delay_s
            try:
                outcomes.append(self._carry_out(step, path, verdict, file))
            except DiskError as error:
                outcomes, ends = [error], []
                report = self._is_final(step.operation, verdict, file)
                break
            if step.at_the_end is not None:
                ends.append(step.at_the_end)
            if step.operation is Operation.SYNC:
                self.figures.synced(step_s)
        future: asyncio.Future[Any] = self.loop.create_future()
        self._free_at_s = max(self._free_at_s, self.loop.now_s) + took_s
        life = self.platter.power_losses
        self.loop.at_world_time(self._free_at_s, self._finish, life, future, outcomes[0], ends, report)
        return future

    def _carry_out(self, step: "Step", path: str, verdict: Verdict, file: "SimFile | None") -> Any:
        if self.closed:
            raise FileClosed(step.operation.value, path, "the disk has been closed")
        if file is not None:
            file.check(step.operation)
        if verdict.errno:
            kind = DiskFull if verdict.errno == errno.ENOSPC else DiskFailed
            raise kind(step.operation.value, path, os.strerror(verdict.errno))
        return step.act()

    def _is_final(self, operation: Operation, verdict: Verdict, file: "SimFile | None") -> bool:
        """Whether the node has to be told: the device has failed something that had to be durable."""
        if verdict.errno in (0, errno.ENOSPC) or operation is Operation.READ:
            return False
        if file is not None:
            return file.give_up(operation, os.strerror(verdict.errno))
        return operation in (Operation.SYNC, Operation.MAKE_DIRECTORY)

    def _finish(
        self, life: int, future: "asyncio.Future[Any]", outcome: Any, ends: Sequence[Callable[[], None]], report: bool
    ) -> None:
        """The device is done. Runs as the world's code: a process that is paused or dead does not stop a device."""
        if life != self.platter.power_losses:
            return
        for at_the_end in ends:
            at_the_end()
        if report:
            self.loop.call_soon(self.report_failed, outcome, context=self._context)
        if not future.done():
            if isinstance(outcome, DiskError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    # --- names ------------------------------------------------------------------------------------------------------

    def _inside(self, operation: Operation, path: str) -> str:
        """The path without what is superfluous in it. Raises PathRefused when it leaves the root."""
        if path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise PathRefused(operation.value, path, "paths are relative and stay below the root of the disk")
        return "/".join(part for part in path.split("/") if part not in ("", "."))

    def _clean(self, operation: Operation, path: str) -> str:
        """The same, of something in a directory that exists."""
        clean = self._inside(operation, path)
        directory = clean.rpartition("/")[0]
        if directory not in self.names.now:
            above = directory
            while above not in self.names.now:
                above = above.rpartition("/")[0]
            if self.names.now[above] is None:
                raise FileMissing(operation.value, path, os.strerror(errno.ENOENT))
        if self.names.now.get(directory) is not None or directory not in self.names.now:
            raise PathRefused(operation.value, path, os.strerror(errno.ENOTDIR))
        return clean

    def _existing(self, operation: Operation, path: str) -> str:
        clean = self._clean(operation, path)
        if clean not in self.names.now:
            raise FileMissing(operation.value, path, os.strerror(errno.ENOENT))
        return clean

    def need_room(self, operation: Operation, path: str, growth: int) -> None:
        if growth > 0 and self.platter.used_bytes() + growth > self.platter.capacity_bytes:
            raise DiskFull(operation.value, path, os.strerror(errno.ENOSPC))

    @property
    def full(self) -> bool:
        return self.faults.active and self.faults.holds(DiskFaultKind.FULL, Operation.WRITE)

    def open(self, path: str, mode: OpenMode = OpenMode.READ) -> "asyncio.Future[File]":
        return self.submit(path, Step(Operation.OPEN, lambda: self._open_now(path, mode)))

    def _open_now(self, path: str, mode: OpenMode) -> File:
        clean = self._clean(Operation.OPEN, path)
        exists = clean in self.names.now
        if exists and mode is OpenMode.NEW:
            raise FileExists(Operation.OPEN.value, path, os.strerror(errno.EEXIST))
        if not exists and mode in (OpenMode.READ, OpenMode.WRITE):
            raise FileMissing(Operation.OPEN.value, path, os.strerror(errno.ENOENT))
        inode = self.names.now[clean] if exists else self.platter.new_inode()
        if inode is None:
            raise PathRefused(Operation.OPEN.value, path, "it is a directory")
        if not exists:
            self.names.change({clean: inode})
        return SimFile(self, path, inode, writable=mode is not OpenMode.READ)

    def open_unlinked(self) -> "asyncio.Future[File]":
        return self.submit("", Step(Operation.OPEN, lambda: SimFile(self, "", self.platter.new_inode(), writable=True)))

    def stat(self, path: str) -> "asyncio.Future[Stat | None]":
        return self.submit(path, Step(Operation.STAT, lambda: self._stat_now(path)))

    def _stat_now(self, path: str) -> Stat | None:
        clean = self._inside(Operation.STAT, path)
        if clean not in self.names.now:
            return None
        inode = self.names.now[clean]
        if inode is None:
            return Stat(0, 0, 0, True)
        return Stat(len(inode.data), inode.modified_ns, inode.identity, False)

    def list(self, path: str = "") -> "asyncio.Future[builtins.list[str]]":
        return self.submit(path, Step(Operation.LIST, lambda: self._list_now(path)))

    def _list_now(self, path: str) -> "builtins.list[str]":
        clean = self._existing(Operation.LIST, path) if path else ""
        if self.names.now[clean] is not None:
            raise PathRefused(Operation.LIST.value, path, os.strerror(errno.ENOTDIR))
        return sorted(name.rpartition("/")[2] for name in self.names.inside(clean))

    def rename(self, path: str, to: str) -> "asyncio.Future[None]":
        return self.submit(path, Step(Operation.RENAME, lambda: self._rename_now(path, to)))

    def _rename_now(self, path: str, to: str) -> None:
        self._inside(Operation.RENAME, to)
        clean, target = self._existing(Operation.RENAME, path), self._clean(Operation.RENAME, to)
        if clean == target:
            return
        if target.startswith(f"{clean}/"):
            raise PathRefused(Operation.RENAME.value, to, "a directory cannot move into itself")
        if target in self.names.now:
            moves_directory, replaces_directory = (self.names.now[name] is None for name in (clean, target))
            if moves_directory != replaces_directory:
                code = errno.ENOTDIR if moves_directory else errno.EISDIR
                raise PathRefused(Operation.RENAME.value, to, os.strerror(code))
            if replaces_directory and any(self.names.inside(target)):
                raise FileExists(Operation.RENAME.value, to, os.strerror(errno.ENOTEMPTY))
        self.names.rename(clean, target)

    def remove(self, path: str) -> "asyncio.Future[None]":
        return self.submit(path, Step(Operation.REMOVE, lambda: self._remove_now(path)))

    def _remove_now(self, path: str) -> None:
        clean = self._existing(Operation.REMOVE, path)
        if any(self.names.inside(clean)):
            raise FileExists(Operation.REMOVE.value, path, os.strerror(errno.ENOTEMPTY))
        self.names.change({clean: False})

    def make_directory(self, path: str) -> "asyncio.Future[None]":
        return self.submit(path, Step(Operation.MAKE_DIRECTORY, lambda: self._make_directory_now(path)))

    def _make_directory_now(self, path: str) -> None:
        parts = self._inside(Operation.MAKE_DIRECTORY, path).split("/")
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[:count])
            if self.names.now.get(name) is not None:
                raise FileExists(Operation.MAKE_DIRECTORY.value, path, os.strerror(errno.EEXIST))
            if name not in self.names.now:
                self.names.change({name: None})
                self.names.synced(name.rpartition("/")[0])

    def sync_directory(self, path: str = "") -> "asyncio.Future[None]":
        def act() -> None:
            clean = self._existing(Operation.SYNC, path) if path else ""
            if self.names.now[clean] is not None:
                raise PathRefused(Operation.SYNC.value, path, os.strerror(errno.ENOTDIR))

        position = self.names.position
        at_the_end = functools.partial(self.names.synced, path.rstrip("/"), position)
        return self.submit(path, Step(Operation.SYNC, act, at_the_end))

    async def close(self) -> None:
        if not self.closed:
            for file in builtins.list(self.open_files):
                await file.close()
            self.process_ended()


class SimFile(File):
    """An open file of a simulated disk."""

    __slots__ = ("_broken", "closed", "disk", "inode", "path", "writable")

    def __init__(self, disk: SimDisk, path: str, inode: Inode, *, writable: bool) -> None:
        self.path = path
        self.disk = disk
        self.inode = inode
        self.writable = writable
        self.closed = False
        self._broken = ""  # why the file refuses everything
        disk.open_files[self] = None

    # --- what the disk asks -----------------------------------------------------------------------------------------

    def check(self, operation: Operation) -> None:
        """Raises when this file refuses the operation."""
        if self.closed:
            raise FileClosed(operation.value, self.path, "the file has been closed")
        if self._broken:
            raise DiskFailed(operation.value, self.path, f"the file is given up, an earlier {self._broken}")
        writes = operation in (Operation.WRITE, Operation.TRUNCATE, Operation.ALLOCATE)
        if writes and not self.writable:
            raise PathRefused(operation.value, self.path, "it was opened for reading")

    def give_up(self, operation: Operation, reason: str) -> bool:
        """The device has failed it. False when it was given up before."""
        if self._broken:
            return False
        self._broken = f"{operation.value} failed: {reason}"
        return True

    # --- writing ----------------------------------------------------------------------------------------------------

    def append(self, data: bytes, *, sync: bool = False) -> "asyncio.Future[int]":
        return self._write(None, data, sync)

    def write_at(self, offset: int, data: bytes, *, sync: bool = False) -> "asyncio.Future[int]":
        return self._write(offset, data, sync)

    def _write(self, offset: int | None, data: bytes, sync: bool) -> "asyncio.Future[int]":
        def act() -> int:
            at = len(self.inode.data) if offset is None else offset
            self.disk.need_room(Operation.WRITE, self.path, at + len(data) - len(self.inode.data))
            self.inode.write(at, bytes(data))
            self._modified()
            self.disk.platter.trace.data(data)
            self.disk.figures.writes += 1
            self.disk.figures.bytes_written += len(data)
            return at

        steps = [Step(Operation.WRITE, act)]
        if sync:
            steps.append(self._sync_step(1))
        return self.disk.submit(self.path, *steps, file=self)

    def _modified(self) -> None:
        self.inode.modified_ns = round(self.disk.loop.now_s * 1e9)

    def sync(self) -> "asyncio.Future[None]":
        return self.disk.submit(self.path, self._sync_step(0), file=self)

    def _sync_step(self, coming: int) -> "Step":
        """Makes durable what was written before this call, and the changes that are `coming` with it."""
        position = self.inode.position + coming
        return Step(Operation.SYNC, lambda: None, lambda: self.inode.synced(position))

    def truncate(self, size: int) -> "asyncio.Future[None]":
        return self._resize(Operation.TRUNCATE, size)

    def allocate(self, size: int) -> "asyncio.Future[None]":
        return self._resize(Operation.ALLOCATE, size)

    def _resize(self, operation: Operation, size: int) -> "asyncio.Future[None]":
        def act() -> None:
            growth = size - len(self.inode.data)
            if operation is Operation.ALLOCATE:
                self.disk.need_room(operation, self.path, growth)
            if growth > 0 or operation is Operation.TRUNCATE:
                self.inode.resize(size)
                self._modified()

        return self.disk.submit(self.path, Step(operation, act), file=self)

    # --- reading ----------------------------------------------------------------------------------------------------

    def read_at(self, offset: int, count: int) -> "asyncio.Future[bytes]":
        def act() -> bytes:
            data = bytes(self.inode.data[offset : offset + count])
            self.disk.figures.reads += 1
            self.disk.figures.bytes_read += len(data)
            return data

        return self.disk.submit(self.path, Step(Operation.READ, act), file=self)

    def size(self) -> "asyncio.Future[int]":
        return self.disk.submit(self.path, Step(Operation.STAT, lambda: len(self.inode.data)), file=self)

    async def close(self) -> None:
        self.closed = True
        self.disk.open_files.pop(self, None)

    def descriptor(self) -> int | None:
        return None
