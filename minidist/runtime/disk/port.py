"""The Disk port: the small file system that everything with data on disk is written against.

There is one disk per node, and one set of promises that every implementation keeps and tests/runtime/disk judges:

- Paths are relative, with `/`, below the root of the disk; one that would leave the root is refused.
- An operation starts when its method is called; awaiting it gives the outcome. Operations on one file take effect in
  the order of their calls, awaited or not. Giving up the wait (cancellation) does not undo the operation.
- What was written is seen by every later read at once. It survives a crash of the process when the write's outcome
  was given, and a loss of power only after a `sync` that was called later has succeeded. A name (created, renamed,
  removed) survives a loss of power only after `sync_directory` of the directory that holds it.
- A sync that fails is final: the kernel may have dropped the dirty pages and reported the error for the last time, so
  a second sync that succeeds would prove nothing. The file refuses everything from then on, and the listeners added
  with `on_failed` are called: the node stops. The same goes for a write that the device failed.
- A full disk is not a failure: the write had no effect that a reader sees, and may be tried again later.

`local.py` is the real one; the simulated one keeps the same promises and breaks power on purpose.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from minidist.runtime.disk.faults import DiskFaults
    from minidist.runtime.disk.watch import Watch

# Of how many syncs the percentiles are taken: enough for a p99, few enough to follow a disk that changes.
SYNC_TIMES_KEPT = 512


class DiskError(Exception):
    """An operation of the disk failed. `operation` and `path` say which; the text is fit for one line of a log."""

    def __init__(self, operation: str, path: str, reason: str) -> None:
        super().__init__(f"cannot {operation} {path or '.'!r}: {reason}")
        self.operation = operation
        self.path = path
        self.reason = reason


class FileMissing(DiskError):
    """No file or directory has this name."""


class FileExists(DiskError):
    """The name is taken, or the directory is not empty."""


class PathRefused(DiskError):
    """The path leaves the root of the disk, names a directory where a file is meant, or was opened for reading only."""


class DirectoryInUse(DiskError):
    """Another process (or another disk of this one) works in this directory."""


class FileClosed(DiskError):
    """The file, or the disk, has been closed."""


class DiskFull(DiskError):
    """No room. Nothing of the write is visible; it may be tried again when there is room."""


class DiskFailed(DiskError):
    """The device failed a read, a write or a sync. After a write or sync this is final for the file: stop the node."""


class NotSupported(DiskError):
    """This kind of disk cannot do it (a fault that only the simulation has, for instance)."""


class OpenMode(Enum):
    READ = "read"  # must exist; writes are refused
    WRITE = "write"  # must exist
    CREATE = "create"  # made when it does not exist
    NEW = "new"  # must not exist


class Operation(Enum):
    """What a fault can strike. A write with `sync=True` is a WRITE followed by a SYNC."""

    OPEN = "open"
    READ = "read"
    WRITE = "write"
    ALLOCATE = "allocate"
    TRUNCATE = "truncate"
    SYNC = "sync"
    STAT = "stat"
    LIST = "list"
    RENAME = "rename"
    REMOVE = "remove"
    MAKE_DIRECTORY = "make directory"


@dataclass(frozen=True, slots=True)
class Stat:
    """What is known of a name. `identity` differs between two files that had the same name one after the other."""

    size: int  # bytes; 0 for a directory
    modified_ns: int  # of the disk's own clock: only good for comparing
    identity: int
    is_directory: bool


class SyncTimes(NamedTuple):
    """Of the last syncs, in milliseconds; both 0.0 before the first one."""

    p50: float
    p99: float


class DiskFigures:
    """Counters of one disk, and how long its last syncs took."""

    __slots__ = ("_sync_times_s", "bytes_read", "bytes_written", "in_thread", "on_loop", "reads", "syncs", "writes")

    def __init__(self) -> None:
        self.reads = 0
        self.bytes_read = 0
        self.writes = 0
        self.bytes_written = 0
        self.syncs = 0
        self.in_thread = 0  # operations that made the trip to the disk's thread
        self.on_loop = 0  # operations that spared themselves the trip
        self._sync_times_s: deque[float] = deque(maxlen=SYNC_TIMES_KEPT)

    def synced(self, took_s: float) -> None:
        self.syncs += 1
        self._sync_times_s.append(took_s)

    def sync_ms(self) -> SyncTimes:
        times_s = sorted(self._sync_times_s)
        if not times_s:
            return SyncTimes(0.0, 0.0)
        last = len(times_s) - 1
        return SyncTimes(times_s[last // 2] * 1000, times_s[last * 99 // 100] * 1000)


class File(ABC):
    """An open file. It belongs to one owner: no other process and no second `File` writes to it meanwhile."""

    __slots__ = ()

    path: str  # as it was opened; "" for an unlinked file

    @abstractmethod
    def append(self, data: bytes, *, sync: bool = False) -> Awaitable[int]:
        """Writes `data` at the end and gives the offset where it starts. With `sync`, durable when this returns.

        All of `data` or nothing. Raises DiskFull, DiskFailed, FileClosed.
        """

    @abstractmethod
    def write_at(self, offset: int, data: bytes, *, sync: bool = False) -> Awaitable[int]:
        """Writes `data` at `offset` (and gives it), into the file or its allocated room; a gap reads as zeros.

        After DiskFull inside the file (no room had been allocated) a part of `data` may be there: write it again.
        """

    @abstractmethod
    def read_at(self, offset: int, count: int) -> Awaitable[bytes]:
        """Up to `count` bytes from `offset`; fewer only where the file ends."""

    @abstractmethod
    def truncate(self, size: int) -> Awaitable[None]:
        """Makes the file `size` bytes long; what is added reads as zeros and is not allocated."""

    @abstractmethod
    def allocate(self, size: int) -> Awaitable[None]:
        """Makes the file at least `size` bytes long and reserves the room: writing there later is not refused as full.

        The new part reads as zeros and counts as part of the file: `append` writes after it, `write_at` into it. Where
        the file system cannot reserve, the file only grows.
        """

    @abstractmethod
    def size(self) -> Awaitable[int]:
        """The length in bytes, allocated room included."""

    @abstractmethod
    def sync(self) -> Awaitable[None]:
        """Makes data and length durable (fdatasync). A failure is final: see the module's text."""

    @abstractmethod
    def close(self) -> Awaitable[None]:
        """After what was called before; it does not sync. Closing twice is fine."""

    @abstractmethod
    def descriptor(self) -> int | None:
        """The operating system's descriptor, for `runtime/relay` alone (sendfile), or None where there is none.

        The relay duplicates it at once, never moves its position and never closes it; with None it copies.
        """


class Disk(ABC):
    """The files of one node. All paths are relative to the root of the disk; "" is the root itself."""

    faults: DiskFaults
    figures: DiskFigures

    def __init__(self) -> None:
        self._failure_listeners: list[Callable[[DiskFailed], None]] = []

    @abstractmethod
    def open(self, path: str, mode: OpenMode = OpenMode.READ) -> Awaitable[File]:
        """Raises FileMissing, FileExists, PathRefused; a directory on the way that does not exist is FileMissing."""

    @abstractmethod
    def open_unlinked(self) -> Awaitable[File]:
        """A new empty file without a name: it is gone when closed, and when the process dies however it dies."""

    @abstractmethod
    def stat(self, path: str) -> Awaitable[Stat | None]:
        """None when nothing has this name."""

    @abstractmethod
    def list(self, path: str = "") -> Awaitable[list[str]]:
        """The names in a directory, sorted."""

    @abstractmethod
    def rename(self, path: str, to: str) -> Awaitable[None]:
        """Atomic: whoever opens `to` finds the old file or the new one. Durable after `sync_directory`."""

    @abstractmethod
    def remove(self, path: str) -> Awaitable[None]:
        """A file or an empty directory. An open file stays readable through what has it open."""

    @abstractmethod
    def make_directory(self, path: str) -> Awaitable[None]:
        """With the directories above it, each made durable; fine when it exists."""

    @abstractmethod
    def sync_directory(self, path: str = "") -> Awaitable[None]:
        """Makes the names in this directory durable."""

    @property
    @abstractmethod
    def full(self) -> bool:
        """True when it is known without trying that a write would be refused as full."""

    @abstractmethod
    def close(self) -> Awaitable[None]:
        """After what was called before. Open files are closed; closing twice is fine."""

    def watch(self, path: str, *, interval_s: float = 0.5) -> Watch:
        """Tells when what `path` names changes, looking every `interval_s` seconds of loop time: see `Watch`."""
        from minidist.runtime.disk.watch import Watch

        return Watch(self, path, interval_s)

    def on_failed(self, listener: Callable[[DiskFailed], None]) -> None:
        """Calls `listener`, on the loop, whenever a file fails for good. The node puts its own stop here."""
        self._failure_listeners.append(listener)

    def report_failed(self, error: DiskFailed) -> None:
        """Calls the listeners: for the disk itself, and for layers on it that have to give up."""
        for listener in self._failure_listeners:
            listener(error)
