"""`--die-with-parent`: for scripts that start a daemon themselves and must not leave it behind.

A thread waits for the parent to end (pidfd_open(2); where that is missing it looks every 0.2 s whether the parent's
process id has changed) and then kills this process, whatever its event loop is doing. Linux' PR_SET_PDEATHSIG is not
used: it follows the parent's *thread*, and would kill a daemon that a test started from a pool of threads. (The
launcher does not use this: its guard process also covers grandchildren.)
"""

import os
import select
import signal
import threading
import time

POLL_S = 0.2


def die_with_parent() -> None:
    """From now on this process ends when its parent does."""
    threading.Thread(target=_outlive, args=(os.getppid(),), daemon=True, name="parent-watch").start()


def _outlive(parent: int) -> None:
    try:
        watched = os.pidfd_open(parent)
    except (AttributeError, OSError):
        while os.getppid() == parent:
            time.sleep(POLL_S)
    else:
        if os.getppid() == parent:  # else the number may be another process' by now
            select.select([watched], [], [])
    os.kill(os.getpid(), signal.SIGKILL)
