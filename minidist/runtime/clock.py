"""Service time: the clock that governs every lifetime a user was promised, and that tests can move.

Two clocks, never mixed. *Service time* (`Clock.now_ms()`, milliseconds since the Unix epoch) decides when keys, cached
answers, sessions and leases expire. It follows the wall clock plus an offset that `advance()` moves. *Loop time*
(`loop.time()`) is what nodes owe each other (heartbeats, timeouts, back-off) and never jumps.

A timer on service time is `call_at(at_ms, fn)`. All timers wait in one heap behind a single loop timer; moving the
clock forward fires what has become due at once, in order of deadline. Before time moves backwards, by `advance` with a
negative amount or because the wall clock was set back, everything due under the old time is fired and the hooks of
`before_backward` run, so that going backwards never un-expires anything.

What fires at once is what was waiting when the firing began. A timer that a callback adds fires in a later round of the
loop, even when its moment has passed already, so a timer that sets itself again cannot hold the loop.
"""

import asyncio
import collections
import heapq
import itertools
import time
from collections.abc import Callable

# The loop timer never sleeps longer than this, so a wall clock that was set (or a laptop that slept) is noticed.
LONGEST_WAIT_MS = 1000
# Cancelled timers stay in the heap until they are half of it, and at least so many.
KEPT_CANCELLED = 64


def wall_ms() -> int:
    """The machine's idea of now: milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


class ClockTimer:
    """A callback waiting for a moment of service time."""

    __slots__ = ("_clock", "at_ms", "callback")

    def __init__(self, clock: "Clock", at_ms: int, callback: Callable[[], object]) -> None:
        self._clock = clock
        self.at_ms = at_ms
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Never calls back any more; may be called more than once."""
        if self.callback is not None:
            self.callback = None
            self._clock._cancelled()


class Clock:
    """A node's service time. `wall` is its source; the simulator gives each node its own."""

    def __init__(self, wall: Callable[[], int] = wall_ms) -> None:
        self.wall = wall
        self.rate = 1.0
        # Service time was `_base_ms` when the wall showed `_base_wall_ms`; the wall plus `_shift_ms` while rate is 1.
        self._shift_ms = 0
        self._base_ms = 0
        self._base_wall_ms = 0
        self._latest_ms: int | None = None  # what now_ms() said last; None while time goes backwards
        self._timers: list[tuple[int, int, ClockTimer]] = []  # a heap: by deadline, then in the order of call_at
        self._due: collections.deque[ClockTimer] = collections.deque()  # taken from the heap, being fired
        self._order = itertools.count()
        self._cancelled_count = 0
        self._wake: asyncio.TimerHandle | None = None
        self._hooks: list[Callable[[int], object]] = []
        self._listeners: list[Callable[[], object]] = []

    def now_ms(self) -> int:
        """Service time in milliseconds since the Unix epoch. Sample it once per wake-up."""
        now_ms = self.wall() + self._shift_ms if self.rate == 1.0 else self._read_ms()
        latest_ms = self._latest_ms
        if now_ms == latest_ms:
            return latest_ms  # the same object: what keeps it (a table's entries) shares it
        self._latest_ms = now_ms
        if latest_ms is not None and now_ms < latest_ms:
            self._going_back(latest_ms)
        return now_ms

    @property
    def offset_ms(self) -> int:
        """How far service time is ahead of the wall clock now."""
        return self._read_ms() - self.wall() if self.rate != 1.0 else self._shift_ms

    def _read_ms(self) -> int:
        if self.rate != 1.0:
            return self._base_ms + int((self.wall() - self._base_wall_ms) * self.rate)
        return self.wall() + self._shift_ms

    def advance(self, by_ms: int) -> None:
        """Move service time by so many milliseconds; timers that have become due fire before this returns."""
        now_ms = self.now_ms()
        if by_ms < 0:
            self._going_back(now_ms)
        self._shift_ms += by_ms
        self._base_ms += by_ms
        self._latest_ms = self._read_ms()
        self._fire(self._latest_ms)
        self._changed()

    def drift(self, rate: float) -> None:
        """From now on service time runs `rate` times as fast as the wall; 1.0: as the wall does, 0.0: it stands."""
        if rate < 0:
            raise ValueError("time cannot run backwards; advance() can go back")
        self._base_ms, self._base_wall_ms = self.now_ms(), self.wall()
        self._shift_ms = self._base_ms - self._base_wall_ms
        self.rate = rate
        self._arm(self._base_ms)
        self._changed()

    def reset(self) -> None:
        """Back to the wall clock, without offset or drift."""
        self.drift(1.0)
        self.advance(-self.offset_ms)

    def before_backward(self, hook: Callable[[int], object]) -> None:
        """Call `hook(now_ms)` with the old time whenever time is about to move backwards: remove what has expired."""
        self._hooks.append(hook)

    def on_change(self, listener: Callable[[], object]) -> None:
        """Call `listener()` whenever somebody has moved the clock: for those who remember what time it is."""
        self._listeners.append(listener)

    def call_at(self, at_ms: int, callback: Callable[[], object]) -> ClockTimer:
        """Call back at a moment of service time, or in the loop's next round when it has passed."""
        now_ms = self.now_ms()
        timer = ClockTimer(self, at_ms, callback)
        heapq.heappush(self._timers, (at_ms, next(self._order), timer))
        if self._timers[0][2] is timer:
            self._arm(now_ms)
        return timer

    def call_later(self, delay_ms: int, callback: Callable[[], object]) -> ClockTimer:
        return self.call_at(self.now_ms() + delay_ms, callback)

    def close(self) -> None:
        """Drop all timers and hooks: the node has stopped."""
        self._timers.clear()
        self._hooks.clear()
        self._listeners.clear()
        self._cancelled_count = 0
        self._disarm()

    # --- firing -----------------------------------------------------------------------------------------------------

    def _going_back(self, old_ms: int) -> None:
        """Time is about to be less than `old_ms`, or already is."""
        self._latest_ms = None  # callbacks that ask for the time must not come here again
        self._fire(old_ms)
        for hook in list(self._hooks):
            self._call(hook, old_ms)

    def _changed(self) -> None:
        for listener in self._listeners:
            self._call(listener)

    def _fire(self, now_ms: int) -> None:
        """Call back what waits now and is due at `now_ms`. Callbacks may do anything with this clock, also move it."""
        while self._timers and self._timers[0][0] <= now_ms:
            self._due.append(heapq.heappop(self._timers)[2])
        while self._due:
            timer = self._due.popleft()
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self._call(callback)
        self._arm(now_ms)

    @staticmethod
    def _call(callback: Callable[..., object], *arguments: object) -> None:
        """A callback that fails must not keep the others from being called."""
        try:
            callback(*arguments)
        except Exception as error:
            context = {"message": f"{callback!r} failed, called by the service clock", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    # --- the loop timer ---------------------------------------------------------------------------------------------

    def _arm(self, now_ms: int) -> None:
        """Set the loop timer for the earliest deadline; none when nothing waits, so that an idle node sleeps."""
        self._disarm()
        self._drop_cancelled()
        if self._timers:
            ahead_ms = max(self._timers[0][0] - now_ms, 0)
            wait_ms = min(ahead_ms / self.rate if self.rate else LONGEST_WAIT_MS, LONGEST_WAIT_MS)
            self._wake = asyncio.get_running_loop().call_later(wait_ms / 1000, self._wake_up)

    def _disarm(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None

    def _wake_up(self) -> None:
        self._wake = None
        self._fire(self.now_ms())

    def _cancelled(self) -> None:
        """A waiting timer was cancelled. (One that is being fired just now is not in the heap; a count too many.)"""
        self._cancelled_count += 1
        self._drop_cancelled()
        if self._cancelled_count > max(KEPT_CANCELLED, len(self._timers) // 2):
            self._timers = [entry for entry in self._timers if entry[2].callback is not None]
            heapq.heapify(self._timers)
            self._cancelled_count = 0
        if not self._timers:
            self._disarm()

    def _drop_cancelled(self) -> None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
            self._cancelled_count -= 1
