"""The log in memory: the entries after the last snapshot. What is on disk is the shell's."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from minidist.engines.raft.membership import Membership

# Of an entry on its way, besides its data.
ENTRY_BYTES = 32


class EntryKind(Enum):
    """EMPTY is what a new leader begins its term with."""

    COMMAND = "command"
    EMPTY = "empty"
    MEMBERSHIP = "membership"


@dataclass(frozen=True, slots=True)
class Entry:
    """One place of the log. `membership` is there for that kind only."""

    term: int
    index: int
    kind: EntryKind = EntryKind.COMMAND
    data: bytes = b""
    membership: Membership | None = None

    @property
    def size_bytes(self) -> int:
        return ENTRY_BYTES + len(self.data)


class Log:
    """Entries from `base_index` + 1 on. Those before are compacted; the last of them was of `base_term`."""

    def __init__(self, base_index: int = 0, base_term: int = 0, entries: Sequence[Entry] = ()) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self._entries: list[Entry] = []
        self.append(entries)

    @property
    def last_index(self) -> int:
        return self.base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.base_term

    def term_at(self, index: int) -> int | None:
        """None where there is no entry, or none any more."""
        if index == self.base_index:
            return self.base_term
        if self.base_index < index <= self.last_index:
            return self._entries[index - self.base_index - 1].term
        return None

    def entry(self, index: int) -> Entry:
        return self._entries[index - self.base_index - 1]

    def between(self, first: int, last: int) -> list[Entry]:
        """Entries from `first` to `last`, both included."""
        assert first > self.base_index
        return self._entries[first - self.base_index - 1 : last - self.base_index]

    def starting(self, first: int, most_bytes: int) -> list[Entry]:
        """Entries from `first` on: one at least, if there is one, and no more than `most_bytes` of them."""
        found: list[Entry] = []
        size_bytes = 0
        for at in range(first - self.base_index - 1, len(self._entries)):
            size_bytes += self._entries[at].size_bytes
            if found and size_bytes > most_bytes:
                break
            found.append(self._entries[at])
        return found

    def append(self, entries: Sequence[Entry]) -> None:
        """Put entries behind the last one."""
        for entry in entries:
            assert entry.index == self.last_index + 1, (entry.index, self.last_index)
            self._entries.append(entry)

    def truncate(self, first: int) -> None:
        """Forget the entries from `first` on."""
        assert first > self.base_index
        del self._entries[first - self.base_index - 1 :]

    def compact(self, index: int) -> None:
        """Forget the entries up to `index`, which a snapshot has."""
        if index <= self.base_index:
            return
        term = self.term_at(index)
        assert term is not None, index
        del self._entries[: index - self.base_index]
        self.base_index, self.base_term = index, term

    def restart(self, index: int, term: int) -> None:
        """Begin behind a snapshot that came from elsewhere."""
        self.base_index, self.base_term = index, term
        self._entries.clear()

    def is_behind(self, last_term: int, last_index: int) -> bool:
        """Whether a log that ends so is at least as complete as this one (5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def agreement(self, index: int, term: int) -> int:
        """The last index up to `index` whose term is at most `term`: where two logs may agree at the latest."""
        index = min(index, self.last_index)
        while index > self.base_index and self._entries[index - self.base_index - 1].term > term:
            index -= 1
        return index
