"""What happened to a node, for people and for the launcher: faults that began, upstreams that fell out, a clock moved.

The last `KEPT` events are held; `GET /events` on the admin port answers them, and with `?follow=1` keeps on telling.
Each event is also a log line. An event is `{"time", "node", "event", "detail"}` with the time in seconds since the
epoch on the wall clock (moving service time must not reorder what happened).
"""

import collections
from collections.abc import Callable
from typing import Any

from minidist.runtime.logs import NodeLog

KEPT = 1000

Event = dict[str, Any]


class EventLog:
    """A node's events. `sequence` counts them from 1, so that a follower can say what it has seen."""

    def __init__(self, node: str, log: NodeLog, wall: Callable[[], int]) -> None:
        self.node = node
        self.log = log
        self.wall = wall
        self.sequence = 0
        self._kept: collections.deque[Event] = collections.deque(maxlen=KEPT)
        self._followers: dict[int, Callable[[Event], object]] = {}
        self._next_follower = 0

    def emit(self, event: str, /, **detail: Any) -> None:
        """Record that something happened."""
        self.sequence += 1
        record = {"time": self.wall() / 1000, "node": self.node, "event": event, "detail": detail}
        self._kept.append(record)
        self.log.info(event, **detail)
        for follower in list(self._followers.values()):
            follower(record)

    def since(self, sequence: int = 0) -> list[Event]:
        """The events after the one with this sequence number, oldest first, as far as they are still held."""
        missed = min(self.sequence - sequence, len(self._kept))
        return list(self._kept)[len(self._kept) - missed :] if missed > 0 else []

    def follow(self, follower: Callable[[Event], object]) -> Callable[[], None]:
        """Call back with each event from now on; the result stops it."""
        key = self._next_follower
        self._next_follower += 1
        self._followers[key] = follower

        def stop() -> None:
            self._followers.pop(key, None)

        return stop
