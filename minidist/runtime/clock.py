"""Service time: the clock that governs every lifetime a user was promised, and that tests can move.

Two clocks, never mixed. *Service time* (`Clock.now_ms()`, milliseconds since the Unix epoch) decides when keys, cached
answers, sessions and leases expire. It follows the wall clock plus an offset that `advance()` moves. *Loop time*
(`loop.time()`) is what nodes owe each other (heartbeats, timeouts, back-off) and never jumps.

A timer on service time is `call_at(at_ms, fn)`. All timers wait in one heap behind a single loop timer; moving the
clock forward fires what has become due at once, in order of deadline. Before time moves backwards, by `advance` with a
negative amount or because the wall clock was set back, everything due under the old time is fired and the hooks of
`before_backward` run, so that going backwards never un-expires anything.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable

# The loop timer never sleeps longer than this, so a wall clock that was set (or a laptop that slept) is noticed.
LONGEST_WAIT_MS = 1000


def wall_ms() -> int:
    """The machine's idea of now: milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


class ClockTimer:
    """A callback waiting for a moment of service time."""

    __slots__ = ("at_ms", "callback")

    def __init__(self, at_ms: int, callback: Callable[[], object]) -> None:
        self.at_ms = at_ms
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Never calls back any more; may be called more than once."""
        self.callback = None


class Clock:
    """A node's service time. `wall` is its source; the simulator gives each node its own."""

    def __init__(self, wall: Callable[[], int] = wall_ms) -> None:
        self.wall = wall
        self.offset_ms = 0
        # Drift: service time runs `rate` times as fast as the wall since `_rate_from_ms`.
        self.rate = 1.0
        self._rate_from_ms = 0
        self._latest_ms = 0
        self._timers: list[tuple[int, int, ClockTimer]] = []
        self._order = itertools.count()
        self._wake: asyncio.TimerHandle | None = None
        self._wake_at_ms = 0
        self._hooks: list[Callable[[int], object]] = []

    def now_ms(self) -> int:
        """Service time in milliseconds since the Unix epoch. Sample it once per wake-up."""
        now_ms = self._read_ms()
        if now_ms < self._latest_ms:
            self._going_back(self._latest_ms)
        self._latest_ms = now_ms
        return now_ms

    def _read_ms(self) -> int:
        wall = self.wall()
        if self.rate != 1.0:
            return self._rate_from_ms + self.offset_ms + int((wall - self._rate_from_ms) * self.rate)
        return wall + self.offset_ms

    def advance(self, by_ms: int) -> None:
        """Move service time by so many milliseconds; timers that have become due fire before this returns."""
        now_ms = self.now_ms()
        if by_ms < 0:
            self._going_back(now_ms)
        self.offset_ms += by_ms
        self._latest_ms = now_ms + by_ms
        self._fire(self._latest_ms)

    def drift(self, rate: float) -> None:
        """From now on service time runs `rate` times as fast as the wall (1.0: as the wall does)."""
        now_ms = self.now_ms()
        wall = self.wall()
        self.offset_ms = now_ms - wall
        self.rate, self._rate_from_ms = rate, wall
        self._arm()

    def reset(self) -> None:
        """Back to the wall clock, without offset or drift."""
        self.drift(1.0)
        self.advance(-self.offset_ms)

    def before_backward(self, hook: Callable[[int], object]) -> None:
        """Call `hook(now_ms)` with the old time whenever time is about to move backwards: remove what has expired."""
        self._hooks.append(hook)

    def call_at(self, at_ms: int, callback: Callable[[], object]) -> ClockTimer:
        """Call back at a moment of service time, or soon after when it has passed."""
        timer = ClockTimer(at_ms, callback)
        heapq.heappush(self._timers, (at_ms, next(self._order), timer))
        self._arm()
        return timer

    def call_later(self, delay_ms: int, callback: Callable[[], object]) -> ClockTimer:
        return self.call_at(self.now_ms() + delay_ms, callback)

    def _going_back(self, now_ms: int) -> None:
        self._latest_ms = 0  # a hook that asks for the time must not come here again
        self._fire(now_ms)
        for hook in self._hooks:
            hook(now_ms)

    def _fire(self, now_ms: int) -> None:
        while self._timers and (self._timers[0][0] <= now_ms or self._timers[0][2].callback is None):
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
        self._arm()

    def _arm(self) -> None:
        """Keep one loop timer for the earliest deadline; none when nothing waits, so that an idle node sleeps."""
        if not self._timers:
            if self._wake is not None:
                self._wake.cancel()
                self._wake = None
            return
        at_ms = self._timers[0][0]
        if self._wake is not None:
            if self._wake_at_ms == at_ms:
                return
            self._wake.cancel()
        wait_ms = min(max(at_ms - self.now_ms(), 0) / self.rate, LONGEST_WAIT_MS)
        self._wake_at_ms = at_ms
        self._wake = asyncio.get_running_loop().call_later(wait_ms / 1000, self._wake_up)

    def _wake_up(self) -> None:
        self._wake = None
        self._fire(self.now_ms())
