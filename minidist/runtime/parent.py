"""`--die-with-parent`: for scripts that start a daemon themselves and must not leave it behind.

On Linux the kernel sends SIGKILL when the parent goes (prctl PR_SET_PDEATHSIG). Elsewhere a thread watches for the
parent's process id to change. (The launcher does not use this: its guard process also covers grandchildren.)
"""

import ctypes
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
POLL_S = 0.2


def die_with_parent() -> None:
    """From now on this process ends when its parent does; at once if the parent is already gone."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True, name="parent-watch").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)
