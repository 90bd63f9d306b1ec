"""Atomic replace of a small file: whoever reads it, after whatever crash, finds the old content or the new one, whole.

The new content goes to `PATH.tmp`, which is synced, gets the name, and the directory is synced (durable before
visible). For what is written rarely and read as a whole: a term and vote, a checkpoint, settings. With a checksum, the
file begins with a line `crc32c CHECKSUM LENGTH` in text, and damage is found when it is read.
"""

from __future__ import annotations

import asyncio

import google_crc32c

from minidist.runtime.disk.port import Disk, DiskError, File, FileMissing, OpenMode

# Content is held in memory whole; larger things belong in a log.
MAX_BYTES = 64 << 20


class CorruptFile(DiskError):
    """The checksum does not match, or its line is missing."""


class AtomicFile:
    """One file that is only ever replaced. Keep one object per path: its writers wait for each other."""

    def __init__(self, disk: Disk, path: str, *, checksum: bool = True) -> None:
        self._disk = disk
        self._path = path
        self._checksum = checksum
        self._turn = asyncio.Lock()

    async def write(self, content: bytes) -> None:
        """Durable when it returns. After DiskFull the old content stands; after DiskFailed the node must stop."""
        if len(content) > MAX_BYTES:
            raise ValueError(f"{len(content)} bytes; at most {MAX_BYTES} are allowed")
        if self._checksum:
            content = b"crc32c %08x %d\n" % (google_crc32c.value(content), len(content)) + content
        unfinished = f"{self._path}.tmp"
        async with self._turn:
            file = await self._disk.open(unfinished, OpenMode.CREATE)
            try:
                await file.truncate(0)
                await file.append(content, sync=True)
            finally:
                await file.close()
            await self._disk.rename(unfinished, self._path)
            await self._disk.sync_directory(self._path.rpartition("/")[0])

    async def read(self) -> bytes | None:
        """None when it has never been written. Raises CorruptFile."""
        try:
            file = await self._disk.open(self._path)
        except FileMissing:
            return None
        try:
            return self._verified(await _read_whole(file)) if self._checksum else await _read_whole(file)
        finally:
            await file.close()

    def _verified(self, data: bytes) -> bytes:
        line, _, content = data.partition(b"\n")
        if line != b"crc32c %08x %d" % (google_crc32c.value(content), len(content)):
            raise CorruptFile("read", self._path, "its checksum does not match its content")
        return content


async def _read_whole(file: File) -> bytes:
    return await file.read_at(0, await file.size())
