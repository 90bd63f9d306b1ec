"""What a leader knows of one follower, and how much it may send to it.

PROBE: where the logs agree is not known; one message at a time. REPLICATE: entries are sent ahead of the answers, as
far as the limits on what is in flight allow. SNAPSHOT: it needs entries that are gone; it is sent nothing until it has
one.
"""

from collections import deque
from enum import Enum


class Pace(Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """`match` is what it has on disk for certain, `next` what is sent to it next."""

    def __init__(self, next_index: int) -> None:
        self.match = 0
        self.next = next_index
        self.pace = Pace.PROBE
        self.waiting = False  # PROBE: a message is unanswered
        self.active = False  # it has answered since the last check of the quorum
        self.round = 0  # the last heartbeat that it has answered
        self.snapshot_index = 0
        self._in_flight: deque[tuple[int, int]] = deque()  # last index and size of each message
        self._in_flight_bytes = 0

    def paused(self, most_messages: int, most_bytes: int) -> bool:
        if self.pace is Pace.PROBE:
            return self.waiting
        if self.pace is Pace.REPLICATE:
            return len(self._in_flight) >= most_messages or self._in_flight_bytes >= most_bytes
        return True

    def sent(self, last_index: int, size_bytes: int) -> None:
        """Entries up to `last_index` are on their way."""
        if self.pace is Pace.REPLICATE:
            self.next = last_index + 1
            self._in_flight.append((last_index, size_bytes))
            self._in_flight_bytes += size_bytes
        else:
            self.waiting = True

    def has(self, match: int) -> bool:
        """It has everything up to `match`; whether that is news."""
        while self._in_flight and self._in_flight[0][0] <= match:
            self._in_flight_bytes -= self._in_flight.popleft()[1]
        news = match > self.match
        self.match = max(self.match, match)
        self.next = max(self.next, match + 1)
        if self.pace is Pace.PROBE or (self.pace is Pace.SNAPSHOT and self.match >= self.snapshot_index):
            self._begin(Pace.REPLICATE)
            self.next = self.match + 1
        return news

    def refused(self, refused_index: int, agreement: int) -> bool:
        """It does not have `refused_index`; the logs agree up to `agreement` at most. False for an old answer."""
        if self.pace is Pace.SNAPSHOT or refused_index <= self.match:
            return False
        if self.pace is Pace.PROBE and refused_index != self.next - 1:
            return False
        self._begin(Pace.PROBE)
        self.next = max(min(refused_index, agreement + 1), self.match + 1)
        return True

    def heard(self, *, paused: bool) -> None:
        """It has answered a heartbeat: what was sent before may be lost, so let one message more be tried."""
        self.waiting = False
        if paused and self.pace is Pace.REPLICATE:
            self._in_flight_bytes -= self._in_flight.popleft()[1]

    def needs_snapshot(self, index: int) -> None:
        self._begin(Pace.SNAPSHOT)
        self.snapshot_index = index

    def got_snapshot(self, index: int | None) -> None:
        """It has, or (None) the attempt has failed."""
        if self.pace is Pace.SNAPSHOT:
            self._begin(Pace.PROBE)
            self.next = max(self.match, index or 0) + 1

    def _begin(self, pace: Pace) -> None:
        self.pace = pace
        self.waiting = False
        self._in_flight.clear()
        self._in_flight_bytes = 0
