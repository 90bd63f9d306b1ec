"""A wake-up call finer than the event loop's timers.

Both asyncio's selector loop and uvloop round timers to whole milliseconds. Against a server that answers in 100 µs
that rounding would be most of the latency measured from the intended start. On Linux a timerfd wakes the loop within
some 60 µs, like any readable descriptor; elsewhere the loop's own timers have to do, and `schedule_lag_ms` shows it.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Protocol


class Alarm(Protocol):
    """Calls back at or soon after the moment set last. Moments are `time.perf_counter()` seconds."""

    def set(self, at_s: float) -> None: ...

    def close(self) -> None: ...


class LoopAlarm:
    """On the loop's timers: up to a millisecond late."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at_s: float) -> None:
        self.close()
        self._timer = self._loop.call_later(max(0.0, at_s - perf_counter()), self._ring)

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()


class TimerfdAlarm:
    """On a Linux timerfd, whose clock (CLOCK_MONOTONIC) is the one that perf_counter reads there."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._create, self._set = _timerfd_calls()
        self._loop = loop
        self._ring = ring
        self._fd = self._create()
        loop.add_reader(self._fd, self._rung)

    def set(self, at_s: float) -> None:
        # A moment of zero would disarm the timer; one in the past rings at once.
        self._set(self._fd, max(at_s, 1e-9))

    def _rung(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set anew between ringing and being heard
            return
        self._ring()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


CLOCK_MONOTONIC = 1
TFD_TIMER_ABSTIME = 1
NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC if sys.platform == "linux" else 0


def _timerfd_calls() -> tuple[Callable[[], int], Callable[[int, float], None]]:
    """timerfd_create and timerfd_settime(absolute), from `os` (3.13) or from libc. Raises OSError or AttributeError."""
    if sys.version_info >= (3, 13):

        def settime(fd: int, at_s: float) -> None:
            os.timerfd_settime(fd, flags=TFD_TIMER_ABSTIME, initial=at_s)

        return lambda: os.timerfd_create(CLOCK_MONOTONIC, flags=NONBLOCK_CLOEXEC), settime
    else:
        return _libc_timerfd_calls()


def _libc_timerfd_calls() -> tuple[Callable[[], int], Callable[[int, float], None]]:
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    timerfd_create, timerfd_settime = libc.timerfd_create, libc.timerfd_settime
    itimerspec = struct.Struct("4l")  # interval s, ns; first expiry s, ns

    def create() -> int:
        fd: int = timerfd_create(CLOCK_MONOTONIC, NONBLOCK_CLOEXEC)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        return fd

    def settime(fd: int, at_s: float) -> None:
        seconds = int(at_s)
        timerfd_settime(fd, TFD_TIMER_ABSTIME, itimerspec.pack(0, 0, seconds, int((at_s - seconds) * 1e9) or 1), None)

    return create, settime


def new_alarm(loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> Alarm:
    """The finest alarm that this machine has."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError, NotImplementedError):
            return TimerfdAlarm(loop, ring)
    return LoopAlarm(loop, ring)
