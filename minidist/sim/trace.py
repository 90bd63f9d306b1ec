"""The trace: what happened, folded into one hash, so that two runs can be compared and a seed be replayed.

Every step of the loop adds its number and its host, every jump of the clock its time; the network and the disk add the
bytes they carry. Numbers are packed and hashed in blocks, which costs a third of a microsecond a step. With `keep`
lines of text are kept too, for the failure bundle: they are not part of the hash.

The hash of a seed is the same in every process, for one minor version of Python and one set of installed versions:
asyncio's own steps differ between versions. `header` names both.
"""

import functools
import hashlib
import os
import platform
import sys
import zlib
from array import array

BLOCK = 8192
HOST_BITS = 12  # a step is its handle's number and, in the lowest bits, its host's


class Trace:
    """Hash and, if wanted, text of one run."""

    def __init__(self, *, keep: bool = False, limit_lines: int = 200_000) -> None:
        self._hash = hashlib.sha256()
        self._block = array("q")
        self.add = self._block.append
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

    def text(self, text: str) -> None:
        """A word that belongs to the hash: a name, a path."""
        self.add(zlib.crc32(text.encode()))

    def note(self, time_s: float, node: str, text: str) -> None:
        """A line for people, kept only when the run keeps lines."""
        if self.keep and len(self.lines) < self._limit_lines:
            self.lines.append(f"{time_s:12.6f} {node:<12} {text}")

    def digest(self) -> str:
        """The hash of everything so far, in hexadecimal."""
        finished = self._hash.copy()
        finished.update(self._block.tobytes())
        return finished.hexdigest()

    @property
    def header(self) -> str:
        """What the hash depends on besides the seed: `CPython 3.11; anyio 4.9.0, redis 8.0.0`."""
        packages = sorted({text for name in _third_party() if (text := _package(name))})
        python = f"{platform.python_implementation()} {sys.version_info.major}.{sys.version_info.minor}"
        return f"{python}; {', '.join(packages) or 'no third-party package'}"


def _third_party() -> list[str]:
    """Top-level modules that are loaded from where packages are installed."""
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." not in name and file and f"{os.sep}site-packages{os.sep}" in file:
            found.append(name)
    return found


@functools.cache
def _package(module: str) -> str:
    """`redis 8.0.0` for the module `redis`, or nothing when no installed package is known to bring it."""
    from importlib import metadata

    for name in (module, *_packages_of_modules().get(module, ())):
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return ""


@functools.cache
def _packages_of_modules() -> "dict[str, list[str]]":
    from importlib import metadata

    return dict(metadata.packages_distributions())
