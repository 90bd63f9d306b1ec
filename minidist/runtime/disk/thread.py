"""The disk's own thread, one per device and loop, fed in batches.

Everything asked for during one turn of the loop goes down in one trip, and so does everything that is asked for while
the thread is away; a batch comes back with one wake-up of the loop. The loop alone decides when the next batch leaves,
so the two sides share nothing but the batch in hand and need no lock.

One thread per device, because a disk serves one queue and jobs that keep their order need no further care; a second
device is not held up by the first.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter
from typing import Any, TypeVar

from minidist.runtime.disk.pace import Pace

T = TypeVar("T")

# Outcomes wait for the end of their batch, but not longer than this behind a slow neighbour.
DELIVER_AFTER_S = 2e-3


class _Job:
    __slots__ = ("error", "future", "pace", "result", "work", "work_s")

    def __init__(self, work: Callable[[], Any], future: asyncio.Future[Any], pace: Pace | None) -> None:
        self.work = work
        self.future = future
        self.pace = pace
        self.work_s = 0.0
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        started_s = perf_counter()
        try:
            self.result = self.work()
        except Exception as error:
            self.error = error
        self.work_s = perf_counter() - started_s

    def settle(self, trip_s: float) -> None:
        if self.pace is not None:
            self.pace.made_trip(self.work_s, trip_s)
        if self.future.done():  # the caller gave up waiting
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class DiskThread:
    """Runs jobs in the order of their submission. Get one with `acquire`, give it back with `release`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, device: int) -> None:
        self._loop = loop
        self._device = device
        self._users = 0
        self._queued: list[_Job] = []
        self._sending = False  # `_send` is due in this turn of the loop or the next
        self._away = False  # a batch is with the thread
        self._sent_s = 0.0
        self._inbox: SimpleQueue[list[_Job] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self._away and not self._queued

    @classmethod
    def acquire(cls, device: int) -> DiskThread:
        """The thread of this device for the running loop."""
        loop = asyncio.get_running_loop()
        threads = _threads.setdefault(loop, {})
        thread = threads.get(device)
        if thread is None:
            thread = threads[device] = cls(loop, device)
        thread._users += 1
        return thread

    async def release(self) -> None:
        """Returns when everything submitted before is done; the last user's release ends the thread."""
        await self.submit(lambda: None)
        self._users -= 1
        if self._users:
            return
        _threads.get(self._loop, {}).pop(self._device, None)
        if self._thread is not None:
            self._inbox.put(None)
            self._thread.join()  # it has nothing left to do: this takes microseconds

    def submit(self, work: Callable[[], T], pace: Pace | None = None) -> asyncio.Future[T]:
        """Runs `work` on the thread; the future gives what it returns or raises. `pace` learns how long it took."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._queued.append(_Job(work, future, pace))
        if not self._away and not self._sending:
            self._sending = True
            self._loop.call_soon(self._send)
        return future

    def _send(self) -> None:
        self._sending = False
        if not self._queued:
            return
        batch, self._queued = self._queued, []
        self._away = True
        if self._thread is None:
            # Daemonic: a disk that hangs for good must not keep the process from exiting.
            self._thread = threading.Thread(target=self._serve, name="disk", daemon=True)
            self._thread.start()
        self._sent_s = perf_counter()
        self._inbox.put(batch)

    def _serve(self) -> None:
        while (batch := self._inbox.get()) is not None:
            try:
                self._run(batch)
            except RuntimeError:  # the loop was closed without closing the disk: nobody waits for outcomes any more
                return

    def _run(self, batch: list[_Job]) -> None:
        started_s = delivered_s = perf_counter()
        done: list[_Job] = []
        last = len(batch) - 1
        for index, job in enumerate(batch):
            job.run()
            done.append(job)
            now_s = perf_counter()
            if index == last or now_s - delivered_s >= DELIVER_AFTER_S:
                self._loop.call_soon_threadsafe(self._deliver, done, started_s, now_s, index == last)
                done = []
                delivered_s = now_s

    def _deliver(self, jobs: list[_Job], started_s: float, ended_s: float, batch_over: bool) -> None:
        trip_s = (started_s - self._sent_s) + (perf_counter() - ended_s)
        for job in jobs:
            job.settle(trip_s)
        if batch_over:
            self._away = False
            if not self._sending:
                # After the tasks that were just woken, so that what they ask for next travels together.
                self._sending = True
                self._loop.call_soon(self._send)


_threads: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, DiskThread]] = weakref.WeakKeyDictionary()
