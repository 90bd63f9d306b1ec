"""What outlives a process: the contents of a machine's disk, and what a loss of power does to them.

A process that crashes leaves the page cache to its kernel: everything it has written is there. When the power goes:

* Data: of each write since the last sync every page (4 KiB) has reached the disk or not, by itself, and one page of
  the last write perhaps in part, cut between two sectors. Changes of a file's length get through or not, like pages.
* Names: what happened in a directory since its last sync got through up to some point and not after it; directories
  are independent of each other. A rename is atomic. A file whose name was lost is gone, however often it was synced.

What gets through is drawn from the platter's stream. The disk faults `lost-unsynced` (nothing does) and `torn` (the
last write is cut) make certain what otherwise happens now and then.
"""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from minidist.runtime.disk.faults import DiskFaultKind, DiskFaults
from minidist.runtime.disk.port import Operation

if TYPE_CHECKING:
    from minidist.sim.disk import SimDisk
    from minidist.sim.loop import SimLoop

DEFAULT_CAPACITY_BYTES = 1 << 30
PAGE_BYTES = 4096
SECTOR_BYTES = 512
SURVIVES = 0.5  # of a page, and of a change to a directory; half of each explores the most
TORN = 0.5


class Inode:
    """A file: what it shows, what is durable of it, and the changes between. `None` as data means a new length."""

    def __init__(self, identity: int) -> None:
        self.identity = identity
        self.data = bytearray()
        self.modified_ns = 0
        self._durable = bytearray()
        self._unsynced: list[tuple[int, bytes | None]] = []
        self._synced_changes = 0

    @property
    def position(self) -> int:
        """How many changes there have been: what a sync that is called now makes durable."""
        return self._synced_changes + len(self._unsynced)

    def write(self, offset: int, data: bytes) -> None:
        _apply(self.data, offset, data)
        self._unsynced.append((offset, data))

    def resize(self, size: int) -> None:
        _apply(self.data, size, None)
        self._unsynced.append((size, None))

    def synced(self, position: int) -> None:
        """The changes before `position` have become durable."""
        count = max(0, position - self._synced_changes)
        for offset, data in self._unsynced[:count]:
            _apply(self._durable, offset, data)
        del self._unsynced[:count]
        self._synced_changes += count

    def lose_power(self, rng: random.Random, *, lose_all: bool, tear: bool) -> None:
        """What is left is what is durable and what happened to get through."""
        changes = [] if lose_all and not tear else self._unsynced
        for index, (offset, data) in enumerate(changes):
            last = index == len(changes) - 1
            if last and data and tear:
                _apply(self._durable, offset, data[: rng.randrange(len(data))])
            elif lose_all:
                continue
            elif data is None:
                if rng.random() < SURVIVES:
                    _apply(self._durable, offset, None)
            else:
                self._write_back(rng, offset, data, may_tear=last)
        self._synced_changes += len(self._unsynced)
        self._unsynced.clear()
        self.data = bytearray(self._durable)

    def _write_back(self, rng: random.Random, offset: int, data: bytes, *, may_tear: bool) -> None:
        """Page by page."""
        at = 0
        while at < len(data):
            end = min(len(data), at + PAGE_BYTES - (offset + at) % PAGE_BYTES)
            if rng.random() < SURVIVES:
                piece = data[at:end]
                if may_tear and rng.random() < TORN:
                    may_tear = False
                    to_boundary = SECTOR_BYTES - (offset + at) % SECTOR_BYTES
                    sectors = max(0, len(piece) - to_boundary) // SECTOR_BYTES
                    piece = piece[: to_boundary + rng.randrange(sectors + 1) * SECTOR_BYTES]
                _apply(self._durable, offset + at, piece)
            at = end


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    """Put bytes at an offset, or with None cut (or extend with zeros) to that size."""
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


Entry = Inode | None | Literal[False]  # a file, a directory, nothing


def directory_of(path: str) -> str:
    return path.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to names in one step, all or nothing, and the directories that it concerns."""

    number: int
    entries: dict[str, Entry]
    directories: frozenset[str]

    def apply(self, names: dict[str, Inode | None]) -> None:
        for path, entry in self.entries.items():
            if entry is False:
                names.pop(path, None)
            else:
                names[path] = entry


class Names:
    """Paths below the root (itself ""), and the journal of changes that are not durable yet."""

    def __init__(self) -> None:
        self.now: dict[str, Inode | None] = {"": None}
        self._durable: dict[str, Inode | None] = {"": None}
        self._journal: list[Change] = []
        self.position = 0  # how many changes there have been

    def inside(self, directory: str) -> list[str]:
        return [path for path in self.now if path and directory_of(path) == directory]

    def change(self, entries: dict[str, Entry], directories: frozenset[str] | None = None) -> None:
        """Make entries what is given, in one step."""
        self.position += 1
        concerned = frozenset(directory_of(path) for path in entries) if directories is None else directories
        change = Change(self.position, entries, concerned)
        change.apply(self.now)
        self._journal.append(change)

    def rename(self, path: str, to: str) -> None:
        """With all that is below it, when it is a directory."""
        moved = [name for name in self.now if name == path or name.startswith(path + "/")]
        entries: dict[str, Entry] = dict.fromkeys(moved, False)
        for name in moved:
            entries[to + name[len(path) :]] = self.now[name]
        self.change(entries, frozenset((directory_of(path), directory_of(to))))

    def synced(self, directory: str, position: int | None = None) -> None:
        """What happened in a directory, up to `position`, is durable; with what a rename from elsewhere rests on."""
        concerned = {directory}
        durable = []
        for change in reversed(self._journal):
            if (position is None or change.number <= position) and concerned & change.directories:
                concerned |= change.directories
                durable.append(change)
        for change in reversed(durable):
            change.apply(self._durable)
        self._journal = [change for change in self._journal if change not in durable]

    def lose_power(self, rng: random.Random, *, lose_all: bool) -> None:
        """Of each directory's changes the first few survive; one that was lost takes the later ones with it."""
        ended: set[str] = set()
        for change in self._journal:
            if lose_all or ended & change.directories or rng.random() >= SURVIVES:
                ended |= change.directories
            else:
                change.apply(self._durable)
        for path in [each for each in self._durable if each]:
            while (path := directory_of(path)) not in self._durable:
                self._durable[path] = None  # its removal got through before that of what was in it: so neither did
        self._journal.clear()
        self.now = dict(self._durable)


class Platter:
    """The disk of one machine. Each life of the process on it opens a `SimDisk`."""

    def __init__(self, loop: "SimLoop", rng: random.Random, capacity_bytes: int = DEFAULT_CAPACITY_BYTES) -> None:
        self.loop = loop
        self.trace = loop.trace
        self.random = rng
        self.capacity_bytes = capacity_bytes
        self.names = Names()
        self.opened_by: SimDisk | None = None
        self.faults: DiskFaults | None = None  # of the life that has it open
        self.power_losses = 0
        self._inodes = 0

    def new_inode(self) -> Inode:
        self._inodes += 1
        return Inode(self._inodes)

    def files(self) -> list[Inode]:
        """Each file that has a name, once."""
        return list({inode.identity: inode for inode in self.names.now.values() if inode is not None}.values())

    def used_bytes(self) -> int:
        return sum(len(inode.data) for inode in self.files())

    def lose_power(self) -> None:
        """What was under way is not done; what was not durable may be gone."""
        self.power_losses += 1
        lose_all = self.faults is not None and self.faults.holds(DiskFaultKind.LOST_UNSYNCED, Operation.WRITE)
        tear = self.faults is not None and self.faults.holds(DiskFaultKind.TORN, Operation.WRITE)
        self.names.lose_power(self.random, lose_all=lose_all)
        for inode in self.files():
            inode.lose_power(self.random, lose_all=lose_all, tear=tear)
