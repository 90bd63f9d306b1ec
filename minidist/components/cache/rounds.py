"""What the cache's connections answer in one round of the loop, written at its end."""

from minidist.runtime.clock import Clock
from minidist.runtime.metrics import Histogram
from minidist.runtime.outgoing import Outgoing
from minidist.runtime.stopwatch import now_s


class Round(Outgoing):
    """A round of the loop: all its commands see the same service time, as in Redis, and it is timed as a whole."""

    __slots__ = ("began_s", "clock", "now_ms", "took")

    def __init__(self, clock: Clock, took: Histogram) -> None:
        super().__init__()
        self.clock = clock
        self.took = took
        self.now_ms = 0
        self.began_s = 0.0
        clock.on_change(self.flush)  # whatever comes after it sees the new time

    def begin(self) -> None:
        self.now_ms = self.clock.now_ms()
        self.began_s = now_s()
        super().begin()

    def flush(self) -> None:
        count = len(self)
        if count:
            super().flush()
            self.took.observe_many(now_s() - self.began_s, count)
