"""The trace: what happened, folded into one hash, so that two runs can be compared and a seed be replayed.

Every step of the loop adds its time, its node and its number; the network and the disk add what they decide. Numbers
are packed and hashed in blocks, which costs a third of a microsecond a step. With `keep` lines of text are kept too,
for the failure bundle: they are not part of the hash.
"""

import hashlib
import zlib
from array import array

BLOCK = 8192


class Trace:
    """Hash and, if wanted, text of one run."""

    def __init__(self, *, keep: bool = False, limit_lines: int = 200_000) -> None:
        self._hash = hashlib.sha256()
        self._block = array("q")
        self.add = self._block.append
        self.steps = 0
        self.keep = keep
        self.lines: list[str] = []
        self._limit_lines = limit_lines

    def fold(self) -> None:
        """Called by the loop now and then: hash what has gathered."""
        if len(self._block) >= BLOCK:
            self._hash.update(self._block.tobytes())
            del self._block[:]

    def data(self, data: bytes) -> None:
        """Bytes that were sent or stored."""
        self.add(len(data))
        self.add(zlib.crc32(data))

    def note(self, time_s: float, node: str, text: str) -> None:
        """A line for people, kept only when the run keeps lines."""
        if self.keep and len(self.lines) < self._limit_lines:
            self.lines.append(f"{time_s:12.6f} {node:<12} {text}")

    def digest(self) -> str:
        """The hash of everything so far, in hexadecimal."""
        finished = self._hash.copy()
        finished.update(self._block.tobytes())
        return finished.hexdigest()
