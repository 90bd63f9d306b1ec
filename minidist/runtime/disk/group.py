"""A group: the records that one write and one sync bring to the disk together, and who waits for them."""

from __future__ import annotations

import asyncio

from minidist.runtime.disk.recordformat import RECORD_HEADER_BYTES

# A group is encoded in one go on the loop: about 1 µs per record and 1 ms per megabyte.
GROUP_BYTES = 1024 * 1024
GROUP_RECORDS = 2048


class Group:
    """Consecutive records from `first` on. `size` counts their bytes on disk; one large record is a group too."""

    __slots__ = ("first", "payloads", "size", "waiters")

    def __init__(self, first: int) -> None:
        self.first = first
        self.payloads: list[bytes] = []
        self.size = 0
        self.waiters: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def last(self) -> int:
        return self.first + len(self.payloads) - 1

    def takes(self, size: int) -> bool:
        return self.size + size <= GROUP_BYTES and len(self.payloads) < GROUP_RECORDS

    def drop_after(self, sequence: int) -> tuple[int, list[asyncio.Future[None]]]:
        """Takes out the records after `sequence`; gives their bytes on disk and who waited for them."""
        kept = max(0, min(len(self.payloads), sequence - self.first + 1))
        dropped = sum(RECORD_HEADER_BYTES + len(payload) for payload in self.payloads[kept:])
        del self.payloads[kept:]
        self.size -= dropped
        gone = [future for wanted, future in self.waiters if wanted > sequence]
        self.waiters = [waiter for waiter in self.waiters if waiter[0] <= sequence]
        return dropped, gone
