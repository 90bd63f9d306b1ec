"""Watching a name by looking at it again and again: one implementation for every disk.

Polling finds what inotify and kqueue make hard: a file replaced by rename (what editors and atomic replace do), one
that does not exist yet, one on a network file system. A look is one stat; nothing runs between two calls of `changed`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidist.runtime.disk.port import Disk, Stat


class Watch:
    """`await watch.changed()` returns when the name is not as it was at the last return (or when the watch began).

    The first call takes the look that later ones compare with, unless `start` did. A change that leaves size, time of
    modification and file the same is not seen: two writes within one tick of the file system's clock (≤ 10 ms).
    """

    def __init__(self, disk: Disk, path: str, interval_s: float) -> None:
        if interval_s <= 0:
            raise ValueError("interval_s must be positive")
        self._disk = disk
        self._path = path
        self._interval_s = interval_s
        self._started = False
        self._last: Stat | None = None

    async def start(self) -> Stat | None:
        """Takes the look that the next `changed` compares with: changes from here on are reported."""
        self._last = await self._disk.stat(self._path)
        self._started = True
        return self._last

    async def changed(self) -> Stat | None:
        """Waits for a change; gives what is there now, None when nothing has the name any more."""
        if not self._started:
            await self.start()
        while True:
            seen = await self._disk.stat(self._path)
            if seen != self._last:
                self._last = seen
                return seen
            await asyncio.sleep(self._interval_s)
