"""Which small operations run on the loop, and which make the trip to the disk's thread: measured, not guessed.

A trip costs 20 µs on an idle machine and 85 µs and more on a busy one, because the thread has to get the interpreter's
lock and the loop has to be woken. A write of some kilobytes into the page cache takes 1 to 5 µs, an fdatasync on a good
SSD 20 to 135 µs, on a disk of rust 10 ms. So for the small ones the trip can cost more than the operation, and a node
whose disk is quick answers sooner when its loop does the work; elsewhere that would stop every connection.

The rule: a kind of operation runs on the loop while the time it takes is below what a trip adds, and below a cap. Both
sides are measured on this node, with this load: the work by the shortest of the last few (waiting for the
interpreter's lock only ever lengthens a measurement), the trip by a moving average. Every 256th operation makes the
trip all the same, so that both figures stay fresh. One operation that stalls the loop bars the kind for a second, after
which it has to qualify again: a disk that stalls now and then costs the loop at most one stall a second.
"""

from __future__ import annotations

from collections import deque

SAMPLES = 8
TRIP_EVERY = 256
# What a heartbeat (50 ms and up) or a client does not notice, and what no idle disk needs for a short sync.
CAP_S = 200e-6
STALL_S = 2e-3
BARRED_S = 1.0


class Pace:
    """For one kind of operation on one disk. Times in seconds; `now_s` is any monotonic clock."""

    __slots__ = ("_barred_until_s", "_since_trip", "_trip_s", "_works_s")

    def __init__(self) -> None:
        self._works_s: deque[float] = deque(maxlen=SAMPLES)
        self._trip_s = 0.0
        self._since_trip = 0
        self._barred_until_s = 0.0

    def on_loop(self, now_s: float) -> bool:
        """Whether the next operation should run on the loop."""
        if len(self._works_s) < SAMPLES or now_s < self._barred_until_s:
            return False
        self._since_trip += 1
        if self._since_trip >= TRIP_EVERY:
            return False
        return min(self._works_s) <= min(self._trip_s, CAP_S)

    def ran_on_loop(self, work_s: float, now_s: float) -> None:
        self._works_s.append(work_s)
        if work_s > STALL_S:
            self._works_s.clear()
            self._barred_until_s = now_s + BARRED_S

    def made_trip(self, work_s: float, trip_s: float) -> None:
        """`trip_s` is what going to the thread and coming back added to the work of the batch."""
        self._since_trip = 0
        self._works_s.append(work_s)
        self._trip_s = trip_s if self._trip_s == 0.0 else self._trip_s + (trip_s - self._trip_s) / 8
