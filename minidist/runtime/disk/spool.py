"""Bytes that have to be kept for a while: in memory up to a limit, beyond it in an unlinked temporary file.

For request bodies that are sent again on a retry, and for anything as large as a client likes to make it: a thousand
small ones cost no file, and one large one costs no memory. The file has no name, so no crash leaves it behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from minidist.runtime.disk.port import Disk, DiskError, File, FileClosed

CHUNK_BYTES = 64 * 1024


class SpoolLimit(DiskError):
    """More than `size_limit` bytes. What was there before stays."""


class Spool:
    """Has one writer; readers may start before it is done, and see what was appended when they looked."""

    __slots__ = ("_closed", "_disk", "_file", "_memory", "_memory_limit", "_size", "_size_limit")

    def __init__(self, disk: Disk, *, memory_limit: int, size_limit: int) -> None:
        """Limits in bytes: what is held in memory at most, and how long the whole may become."""
        self._disk = disk
        self._memory_limit = memory_limit
        self._size_limit = size_limit
        self._memory = bytearray()  # all of it, until there is a file
        self._file: File | None = None
        self._size = 0
        self._closed = False

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    @property
    def in_memory(self) -> bool:
        return self._file is None

    @property
    def file(self) -> File | None:
        """The file that holds everything, once there is one: for `relay.send_file`."""
        return self._file

    async def append(self, data: bytes) -> None:
        """Raises SpoolLimit, DiskFull, FileClosed; then nothing of `data` was taken."""
        self._refuse_when_closed()
        size = self._size + len(data)
        if size > self._size_limit:
            raise SpoolLimit("spool", "", f"{size} bytes; at most {self._size_limit} are allowed")
        if self._file is None and size <= self._memory_limit:
            self._memory += data
        else:
            await self._append_to_file(data)
        self._size = size

    async def _append_to_file(self, data: bytes) -> None:
        if self._file is not None:
            await self._file.append(data)
            return
        file = await self._disk.open_unlinked()
        try:
            await file.append(bytes(self._memory) + data)
        except DiskError:
            await file.close()
            raise
        self._file = file
        self._memory = bytearray()

    async def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes; fewer only at the end."""
        self._refuse_when_closed()
        if self._file is None:
            return bytes(memoryview(self._memory)[offset : offset + count])
        return await self._file.read_at(offset, min(count, max(0, self._size - offset)))

    async def chunks(self, offset: int = 0, chunk_bytes: int = CHUNK_BYTES) -> AsyncIterator[bytes]:
        """From `offset` to the end, in pieces of `chunk_bytes`."""
        while chunk := await self.read_at(offset, chunk_bytes):
            yield chunk
            offset += len(chunk)

    async def close(self) -> None:
        """Gives memory and file back. Closing twice is fine."""
        self._closed = True
        self._memory = bytearray()
        if self._file is not None:
            file, self._file = self._file, None
            await file.close()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise FileClosed("use", "", "the spool has been closed")
