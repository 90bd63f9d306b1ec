"""Which small operations run on the loop, and which make the trip to the disk's thread: measured, not guessed.

A short fdatasync on a good SSD takes 20 to 135 µs, a small write into the page cache 1 to 5 µs. The trip to the thread
adds 16 µs when the loop has nothing else to do; but when the loop is busy, the thread has to wait for the interpreter's
lock after each system call, up to 5 ms each time. Then the work itself is the smaller part, and the node does more,
sooner, when its loop does it: with a loop busy to the brim, 1, 16 and 64 writers got two to three times the synced
appends, at half the latency. On a disk of rust (10 ms) it would stop every connection. So the rule:

    A kind of operation runs on the loop while it takes at most CAP_S there and at most half as long as by the thread.

Both times are averages of what this node measures under its present load; only on the loop can the work be timed
without the waiting for the lock. Every 256th operation goes the other way, to keep both figures fresh, but none is
tried on the loop while even the quickest of the last few took long on the thread. An operation that stalls the loop
bars its kind for a second, for two when it happens again, up to a minute.
"""

from __future__ import annotations

from collections import deque

# What a heartbeat (50 ms and up) or a client does not notice, and what a short sync on an SSD stays below.
CAP_S = 200e-6
OTHER_WAY_EVERY = 256
FIRST_OTHER_WAY_AFTER = 8
# The wait for the lock is included in what the thread measures: 5 ms, and what an SSD takes.
TRY_BELOW_S = 6e-3
STALL_S = 2e-3
BARRED_S = 1.0
BARRED_AT_MOST_S = 60.0


class Pace:
    """For one kind of operation on one disk. Times in seconds; `now_s` is of any monotonic clock."""

    __slots__ = ("_bar_s", "_barred_until_s", "_by_thread_s", "_count", "_on_loop_s", "_works_s")

    def __init__(self) -> None:
        self._on_loop_s = float("inf")  # moving averages
        self._by_thread_s = 0.0
        self._works_s: deque[float] = deque(maxlen=FIRST_OTHER_WAY_AFTER)
        self._count = OTHER_WAY_EVERY - FIRST_OTHER_WAY_AFTER - 1
        self._bar_s = BARRED_S
        self._barred_until_s = 0.0

    def on_loop(self, now_s: float) -> bool:
        """Whether the next operation should run on the loop."""
        if now_s < self._barred_until_s:
            return False
        prefers_loop = self._on_loop_s <= CAP_S and 2 * self._on_loop_s <= self._by_thread_s
        self._count += 1
        if self._count < OTHER_WAY_EVERY:
            return prefers_loop
        self._count = 0
        if prefers_loop:
            self._bar_s = BARRED_S  # it has behaved for a while
            return False
        return min(self._works_s, default=0.0) < TRY_BELOW_S

    def ran_on_loop(self, work_s: float, now_s: float) -> None:
        if work_s > STALL_S:
            self._on_loop_s = float("inf")
            self._barred_until_s = now_s + self._bar_s
            self._bar_s = min(2 * self._bar_s, BARRED_AT_MOST_S)
        elif self._on_loop_s > CAP_S:
            self._on_loop_s = work_s
        else:
            self._on_loop_s += (work_s - self._on_loop_s) / 8

    def made_trip(self, work_s: float, trip_s: float) -> None:
        """`trip_s` is what going to the thread and coming back added to the work of the batch."""
        self._works_s.append(work_s)
        self._by_thread_s += (work_s + trip_s - self._by_thread_s) / 8
