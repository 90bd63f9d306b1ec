"""One direction of a connection under faults: bytes enter, wait as long as the faults say, and leave in order.

Each item in the queue has the moment from which it may leave, given to it by delays and losses when it came. What else
holds it is looked at when its turn has come: a partition or a hang lets nothing pass, a bandwidth lets a slice pass at
a time, a reset strikes behind the last byte it allows. So faults that go give free what they held.

A pipe runs when something is put in, when a timer says so, and when its faults change; never inside of itself.
"""

import asyncio
import collections
from collections.abc import Callable
from typing import TYPE_CHECKING

from minidist.runtime.faults.spec import Direction, Fault, Kind

if TYPE_CHECKING:
    from minidist.runtime.connection import Connection
    from minidist.runtime.faults.faultset import FaultSet

# What a lost segment costs a stream: the retransmission time-out of RFC 6298 as Linux sets it at least, doubled each
# time until the kernel would have given up for good.
RETRANSMISSION_S = 0.2
LONGEST_RETRANSMISSION_S = 60.0
NEVER = float("inf")
# Bandwidth is made of slices, so that a trickle arrives as a trickle.
SLICES_PER_S = 20

# Timers may fire so much early: uvloop's are whole milliseconds, rounded. To set one again for the rest would spin.
TIMER_EARLY_S = 0.0005

Item = bytes | memoryview | Callable[[], None]


class Pipe:
    """`deliver(data)` gets what leaves, `struck(fault)` hears of a reset that is due, `ran()` of every run."""

    def __init__(
        self,
        faultset: "FaultSet",
        connection: "Connection",
        direction: Direction,
        deliver: Callable[[bytes], None],
        struck: Callable[[Fault], None],
        ran: Callable[[], None],
    ) -> None:
        self.faultset = faultset
        self.connection = connection
        self.direction = direction
        self.loop = asyncio.get_running_loop()
        self.faults: list[Fault] = []
        self.queue: collections.deque[tuple[float, Item]] = collections.deque()
        self.size = 0  # bytes in the queue
        self.passed_bytes = 0
        self.held = False  # the receiving side asked for a pause
        self._deliver, self._struck, self._ran = deliver, struck, ran
        self._last_due_s = 0.0
        self._line_free_s = 0.0  # when the line of a bandwidth fault has sent its last slice
        self._timer: asyncio.Handle | None = None
        self._running = False

    # --- entering ---------------------------------------------------------------------------------------------------

    def put(self, data: bytes) -> None:
        self._append(self._due_s(), data)
        self.size += len(data)
        self.run()

    def put_last(self, end: Callable[[], None]) -> None:
        """An end of file or a loss, behind everything that was put before."""
        self._append(self._last_due_s, end)
        self.run()

    def put_back(self, data: bytes) -> None:
        """Bytes that had left and could not be used yet."""
        if data:
            self.queue.appendleft((0.0, data))
            self.size += len(data)
            self.passed_bytes -= len(data)

    def _append(self, due_s: float, item: Item) -> None:
        self._last_due_s = max(self._last_due_s, due_s)  # a stream keeps its order
        self.queue.append((self._last_due_s, item))

    def _due_s(self) -> float:
        """When a piece that comes now may leave."""
        due_s = self.loop.time()
        for fault in self.faults:
            if fault.kind is Kind.DELAY and self.faultset.hits(fault):
                spread_ms = fault.number("jitter_ms") * self.faultset.random_of(fault).uniform(-1, 1)
                due_s += max(0.0, fault.number("ms") + spread_ms) / 1000
            elif fault.kind is Kind.DROP:
                due_s += self._retransmissions_s(fault)
        return due_s

    def _retransmissions_s(self, fault: Fault) -> float:
        total_s, wait_s = 0.0, RETRANSMISSION_S
        while self.faultset.hits(fault):
            if fault.probability >= 1 and fault.times is None:
                return NEVER
            total_s += wait_s
            wait_s = min(wait_s * 2, LONGEST_RETRANSMISSION_S)
        return total_s

    # --- leaving ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Let out what may leave now; set a timer for what may leave later."""
        if self._running:
            return  # called by what an item has set off: the loop below goes on
        self._disarm()
        self._running = True
        try:
            while self.queue and not self.held and self._let_out():
                pass
        finally:
            self._running = False
        self._ran()

    def run_soon(self) -> None:
        """Run in the loop's next round: the caller does not expect to be called back from within its call."""
        self._disarm()
        self._timer = self.loop.call_soon(self.run)

    def _let_out(self) -> bool:
        """Deliver the first item, or a part of it; False when it has to wait."""
        due_s, item = self.queue[0]
        passing, stopper = self._passing(1 if callable(item) else len(item))
        if passing == 0 and stopper is not None and not (callable(item) and stopper.kind is Kind.RESET):
            self._stopped(stopper)
            return False
        if callable(item):
            if self._wait_until(due_s):
                return False
            self.queue.popleft()
            item()
            return True
        rate, line = self._bandwidth()
        if line is not None:
            passing = min(passing, max(1, int(rate / SLICES_PER_S)))
            due_s = max(due_s, self._line_free_s) + passing / rate
        if self._wait_until(due_s):
            return False
        if line is not None:
            self._line_free_s = due_s
            self.faultset.fired_on(line, self.connection)
        self._deliver_first(passing)
        return True

    def _deliver_first(self, count: int) -> None:
        due_s, item = self.queue.popleft()
        assert not callable(item)
        if count < len(item):
            view = memoryview(item)
            self.queue.appendleft((due_s, view[count:]))
            item = view[:count]
        self.size -= count
        self.passed_bytes += count
        self._deliver(bytes(item))

    def _passing(self, size: int) -> tuple[int, Fault | None]:
        """How many of the next bytes may pass, and the fault that stops those behind them."""
        passing, stopper = size, None
        for fault in self.faults:
            if fault.kind is Kind.PARTITION:
                left = 0
            elif fault.kind in (Kind.HANG, Kind.RESET):
                left = max(0, int(fault.number("after_bytes")) - self.passed_bytes)
            else:
                continue
            if left < passing and self.faultset.holds(fault, self.connection):
                passing, stopper = left, fault
        return passing, stopper

    def _bandwidth(self) -> tuple[float, Fault | None]:
        faults = [each for each in self.faults if each.kind is Kind.BANDWIDTH]
        faults = [each for each in faults if self.faultset.holds(each, self.connection)]
        slowest = min(faults, key=lambda each: each.number("bytes_per_s"), default=None)
        return (0.0, None) if slowest is None else (slowest.number("bytes_per_s"), slowest)

    def _stopped(self, fault: Fault) -> None:
        if fault.kind is Kind.RESET:
            self._struck(fault)
        else:
            self.faultset.fired_on(fault, self.connection)

    def _wait_until(self, due_s: float) -> bool:
        if due_s <= self.loop.time() + TIMER_EARLY_S:
            return False
        if due_s != NEVER:
            self._timer = self.loop.call_at(due_s, self.run)
        return True

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- changes ----------------------------------------------------------------------------------------------------

    def apply(self, faults: list[Fault], hurry: bool) -> None:
        """These faults hold from now on. With `hurry`, what was delayed by one that has gone may leave at once."""
        gone = [fault for fault in self.faults if fault not in faults]
        self.faults = faults
        if hurry and gone:
            self.queue = collections.deque((0.0, item) for _, item in self.queue)
            self._last_due_s = self._line_free_s = 0.0
        self.run_soon()

    def drop_data(self) -> None:
        """Nobody wants the bytes any more; ends of file and losses still come."""
        self.queue = collections.deque((due_s, item) for due_s, item in self.queue if callable(item))
        self.size = 0

    def close(self) -> None:
        """Forget everything, also the callbacks, so that the stream's objects do not refer to each other in circles."""
        self._disarm()
        self.queue.clear()
        self.faults = []
        self.size = 0
        self._deliver = self._struck = _nothing
        self._ran = _nothing


def _nothing(*_: object) -> None:
    pass
