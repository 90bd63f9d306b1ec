"""`--die-with-parent`: for scripts that start a daemon themselves and must not leave it behind.

A thread waits for the parent to end (pidfd_open(2); where that is missing it looks every 0.2 s whether the parent's
process id has changed) and then kills this process, whatever its event loop is doing. Linux' PR_SET_PDEATHSIG is not
used: it follows the parent's *thread*, and would kill a daemon that a test started from a pool of threads. (The
launcher does not use this: its guard process also covers grandchildren.)

A parent that has ended before we get here, in the tenth of a second that a start takes, has left us to another process,
usually the first of the system: that one is no parent of ours, as its session shows, since children are born into the
session of their parent. (Two cannot tell: a process that was started as the leader of a session of its own, and one in
a container whose first process never left the session that they share.)
"""

import os
import select
import signal
import threading
import time

POLL_S = 0.2


def die_with_parent() -> None:
    """From now on this process ends when its parent does."""
    parent = os.getppid()
    if _adopted_by(parent):
        _end()
    threading.Thread(target=_outlive, args=(parent,), daemon=True, name="parent-watch").start()


def _adopted_by(parent: int) -> bool:
    """Whether this process cannot have been started by its present parent."""
    try:
        return os.getsid(0) not in (os.getpid(), os.getsid(parent))
    except OSError:  # it ends just now, and `_outlive` will see that; or it is nobody that we may ask about
        return False


def _outlive(parent: int) -> None:
    try:
        watched = os.pidfd_open(parent)
    except (AttributeError, OSError):
        while os.getppid() == parent:
            time.sleep(POLL_S)
    else:
        if os.getppid() == parent:  # else the number may be another process' by now
            select.select([watched], [], [])
    _end()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
