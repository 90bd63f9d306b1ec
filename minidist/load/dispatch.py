"""Who starts a request when: the open loop and the closed loop.

An **open loop** starts requests when its schedule says so, as many users do who do not know of each other. An arrival
goes to a channel (a connection) with a free slot, else it waits; its latency counts from the intended start in either
case. Limits keep an overloaded run finite, and what they turn away is counted as failed: an arrival beyond
`max_in_flight` is `skipped`, one that found no free slot within the timeout is a `queue-timeout`. While no channel is
up, an arrival fails at once with the reason of the last loss or attempt to connect, as a user's would.

A **closed loop** keeps every slot of every channel busy: the next request starts when the one before has been answered.
It finds the throughput of so many patient users; its latencies leave out all that was never asked during a stall.

Both own the channels and learn from them through three calls: `available` (slots became free, or it just connected),
`went_down`, `pausing`. All times are `perf_counter` seconds.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING

from minidist.load.alarm import new_alarm
from minidist.load.recorder import Recorder

if TYPE_CHECKING:
    from minidist.load.channel import Channel

#: An arrival is waited for at least so long, so that at high rates one wake-up starts several.
SHORTEST_WAIT_S = 100e-6


class Dispatcher(ABC):
    """What both loops have: the channels, the deadline sweep, and an end."""

    def __init__(self, recorder: Recorder, timeout_s: float) -> None:
        self.recorder = recorder
        self.timeout_s = timeout_s
        self.channels: list[Channel] = []
        #: Requests handed to channels and not yet settled.
        self.in_flight = 0
        self.started = False
        self.stopping = False
        self._drained = asyncio.Event()
        self._sweep_timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def start(self, at_s: float) -> None:
        """Begin the load at this moment, now or soon."""

    @abstractmethod
    def available(self, channel: "Channel", now_s: float) -> None:
        """The channel may take `channel.free` more requests."""

    @abstractmethod
    def went_down(self, channel: "Channel", now_s: float) -> None:
        """The channel lost its connection; its requests have been settled."""

    @abstractmethod
    def pausing(self, kind: str, counted: bool, now_s: float) -> None:
        """A channel failed to connect, or lost a connection that had been of no use, and will try again later.
        `counted`: requests were under way and have been failed."""

    def stop(self) -> None:
        """Start no more requests; `drained` waits for those under way."""
        self.stopping = True
        self.check_drained()

    async def drained(self) -> None:
        await self._drained.wait()

    def check_drained(self) -> None:
        if self.stopping and not self.in_flight and not self.backlog:
            self._drained.set()

    @property
    def backlog(self) -> int:
        """Arrivals that wait for a free slot."""
        return 0

    def sweep(self) -> None:
        """Fail what waited too long, now and from now on every so often."""
        now_s = perf_counter()
        for channel in self.channels:
            channel.expire(now_s)
        self.shed(now_s)
        self.check_drained()
        # Late by a twentieth of the timeout at most, and not often enough to be felt.
        period_s = min(max(self.timeout_s / 20, 0.005), 0.25)
        self._sweep_timer = asyncio.get_running_loop().call_later(period_s, self.sweep)

    @abstractmethod
    def shed(self, now_s: float) -> None:
        """Fail arrivals that have waited for a slot longer than the timeout."""

    def close(self) -> None:
        self.stopping = True
        if self._sweep_timer:
            self._sweep_timer.cancel()


class OpenLoop(Dispatcher):
    def __init__(self, recorder: Recorder, timeout_s: float, times: Iterator[float], max_in_flight: int) -> None:
        """`times`: intended starts in seconds after the start, ascending."""
        super().__init__(recorder, timeout_s)
        self._times = times
        self._max_in_flight = max_in_flight
        self._waiting: deque[float] = deque()
        self._idle: deque[Channel] = deque()
        self._up = 0
        self._down_reason = ""
        self._alarm = new_alarm(asyncio.get_running_loop(), self._wake)
        self._start_s = 0.0
        self._next_s = inf

    @property
    def backlog(self) -> int:
        return len(self._waiting)

    def start(self, at_s: float) -> None:
        self.started = True
        self._start_s = at_s
        self._next_s = at_s + next(self._times, inf)
        if self._next_s < inf:
            self._alarm.set(self._next_s)

    def stop(self) -> None:
        self._wake()  # for arrivals due since the last time
        super().stop()

    def _wake(self) -> None:
        """Take every arrival that is due."""
        now_s, next_s = perf_counter(), self._next_s
        if self.stopping or next_s > now_s:
            return
        recorder = self.recorder
        recorder.lag_s = max(recorder.lag_s, now_s - next_s)
        waiting, times, start_s = self._waiting, self._times, self._start_s
        room = self._max_in_flight - self.in_flight - len(waiting)
        arrived = 0
        while next_s <= now_s:
            arrived += 1
            if arrived <= room:
                waiting.append(next_s)
            next_s = start_s + next(times, inf)
        recorder.offered += arrived
        recorder.failed("skipped", max(0, arrived - room))
        self._next_s = next_s
        if next_s < inf:
            self._alarm.set(max(next_s, now_s + SHORTEST_WAIT_S))
        self._hand_out(now_s)

    def _hand_out(self, now_s: float) -> None:
        """Bring waiting arrivals and free slots together."""
        waiting, idle = self._waiting, self._idle
        while waiting and idle:
            channel = idle.popleft()
            count = min(channel.free, len(waiting))
            if count:  # none: it is being closed, and will say so
                channel.submit([waiting.popleft() for _ in range(count)], now_s)
            # Round robin: to the back of the queue with what is still free.
            if channel.free:
                idle.append(channel)
            else:
                channel.queued = False
        if waiting and not self._up and self._down_reason:
            self.recorder.failed(self._down_reason, len(waiting))
            waiting.clear()

    def available(self, channel: "Channel", now_s: float) -> None:
        if not channel.queued and channel.free:
            if not channel.counted_up:
                channel.counted_up = True
                self._up += 1
                self._down_reason = ""
            channel.queued = True
            self._idle.append(channel)
        if self._waiting:
            if now_s - self._waiting[0] > self.timeout_s:
                self.shed(now_s)
            self._hand_out(now_s)
        if self.stopping:
            self.check_drained()

    def went_down(self, channel: "Channel", now_s: float) -> None:
        if channel.queued:
            self._idle.remove(channel)
            channel.queued = False
        if channel.counted_up:
            channel.counted_up = False
            self._up -= 1
        self.check_drained()

    def pausing(self, kind: str, counted: bool, now_s: float) -> None:
        if not self._up:
            self._down_reason = kind
            self._hand_out(now_s)
            self.check_drained()

    def shed(self, now_s: float) -> None:
        waiting, oldest_s = self._waiting, now_s - self.timeout_s
        late = 0
        while waiting and waiting[0] < oldest_s:
            waiting.popleft()
            late += 1
        self.recorder.failed("queue-timeout", late)

    def close(self) -> None:
        super().close()
        self._alarm.close()


class ClosedLoop(Dispatcher):
    def start(self, at_s: float) -> None:
        asyncio.get_running_loop().call_later(max(0.0, at_s - perf_counter()), self._begin)

    def _begin(self) -> None:
        self.started = True
        for channel in self.channels:
            self.available(channel, perf_counter())

    def available(self, channel: "Channel", now_s: float) -> None:
        free = channel.free
        if self.started and not self.stopping:
            if free:
                self.recorder.offered += free
                channel.submit([now_s] * free, now_s)
        else:
            self.check_drained()

    def went_down(self, channel: "Channel", now_s: float) -> None:
        self.check_drained()

    def shed(self, now_s: float) -> None:
        """Nothing ever waits for a slot here."""

    def pausing(self, kind: str, counted: bool, now_s: float) -> None:
        # This user's next request was the one that could not be made.
        if not counted and self.started and not self.stopping:
            self.recorder.offered += 1
            self.recorder.failed(kind)
