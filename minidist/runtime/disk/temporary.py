"""Data that goes with the process: the disk of a node that was given no data directory.

It lives in a fresh directory `minidist-data-…` under the system's temporary directory, removed when the disk is closed
or the interpreter exits. A process that was killed cannot tidy up; so each disk made here first removes what such ones
left behind: the directories of this name that belong to the same user, that nobody has locked (an open LocalDisk
holds the lock of its root, and the kernel drops it with the process) and that are older than a minute (a directory
is made a moment before it is locked).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import stat
import tempfile
import time
import weakref

from minidist.runtime.disk.local import LocalDisk
from minidist.runtime.disk.thread import DiskThread

PREFIX = "minidist-data-"  # not that of directories that others make, and do not lock
MADE_AND_NOT_LOCKED_S = 60.0


async def open_temporary_disk(*, within: str | None = None, rng: random.Random | None = None) -> LocalDisk:
    """A disk in a directory of its own, `.root`, which is removed with it. `within`: instead of the system's place."""
    parent = within or tempfile.gettempdir()
    remove_left_behind(parent)
    return await TemporaryDisk.open_root(tempfile.mkdtemp(prefix=PREFIX, dir=parent), rng=rng)


class TemporaryDisk(LocalDisk):
    """A LocalDisk that takes its root with it."""

    def __init__(self, root: str, lock: int | None, thread: DiskThread, rng: random.Random | None) -> None:
        super().__init__(root, lock, thread, rng)
        self._remove = weakref.finalize(self, _remove_tree, self.root, os.getpid())

    async def close(self) -> None:
        await super().close()
        self._remove()


def remove_left_behind(parent: str) -> None:
    """Removes the directories of killed processes; never fails, for others may do the same at the same time."""
    oldest_s = time.time() - MADE_AND_NOT_LOCKED_S
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and found.st_mtime < oldest_s:
                        _remove_if_unlocked(entry.path)


def _remove_if_unlocked(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)


def _remove_tree(root: str, owner: int) -> None:
    if os.getpid() == owner:  # not in a child that was forked from it
        shutil.rmtree(root, ignore_errors=True)
