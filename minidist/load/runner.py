"""Runs a plan: `await run(plan)` gives a report. The one entry for programs; the command line is built on it.

    report = await run(Plan(url="http://127.0.0.1:8080/", rate=200, duration_ms=5000), on_tick=print)

A run connects its channels, starts the dispatcher at an agreed moment, hands out an `Interval` several times a second,
stops the dispatcher at the end of the window and waits for what is under way (no longer than the timeouts allow).
With `processes=1` all of this happens on the caller's loop unless it is to be `apart`; otherwise processes.py starts
workers that do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import Callable
from time import perf_counter

from minidist.load.channel import Channel, Wiring
from minidist.load.dispatch import ClosedLoop, Dispatcher, OpenLoop
from minidist.load.driver import Driver, driver_for
from minidist.load.plan import LoadError, Plan
from minidist.load.recorder import Interval, Recorder
from minidist.load.report import Report
from minidist.runtime.randomness import derive

OnTick = Callable[[Interval], None]

#: Connection attempts under way at once when a run starts; below what a listen queue usually holds.
DIALS_AT_ONCE = 64
#: Descriptors that a process needs besides its connections.
SPARE_DESCRIPTORS = 64
#: After an interruption, how long to wait for requests under way.
GRACE_S = 1.0


async def run(
    plan: Plan,
    *,
    on_tick: OnTick | None = None,
    stop: asyncio.Event | None = None,
    apart: bool = False,
    on_start: Callable[[], None] | None = None,
) -> Report:
    """Make the load and report. Setting `stop` ends it early, with a report of what was; cancelling ends it without.

    `on_start` is called when all is connected, just before the load begins, and `on_tick` with each interval as it
    ends, both on this loop. `apart` keeps the load off this loop even if it is made by one process, so that whatever
    else runs here (a display, say) does not delay it; it costs a quarter of a second. Raises ConfigError and LoadError.
    """
    plan.check()
    driver = driver_for(plan)
    if plan.processes > 1 or apart:
        from minidist.load.processes import run_processes

        return await run_processes(plan, driver, on_tick, stop, on_start)
    share = Share(plan, driver, 0)
    intervals: list[Interval] = []
    try:
        await share.prepare()
        if on_start:
            on_start()
        started_at = time.time()
        await share.go(perf_counter(), lambda each: _keep(each, intervals, on_tick), stop)
    finally:
        await share.close()
    return Report(
        plan=plan,
        workload=driver.label,
        started_at=started_at,
        window_s=share.window_s,
        last_ok_s=share.last_ok_s,
        intervals=intervals,
        client_cpu_s=share.cpu_s,
        interrupted=share.interrupted,
    )


def _keep(interval: Interval, intervals: list[Interval], on_tick: OnTick | None) -> None:
    intervals.append(interval)
    if on_tick:
        on_tick(interval)


class Share:
    """One process's part of a run. Use: `prepare`, `go`, then read the figures; `close` in any case."""

    def __init__(self, plan: Plan, driver: Driver, number: int) -> None:
        self.window_s = plan.window_s
        self.last_ok_s = 0.0
        self.cpu_s = 0.0
        self.interrupted = False
        self._plan = plan
        self._driver = driver
        self._number = number
        self._recorder = Recorder()
        self._channels: list[Channel] = []
        self._dispatcher: Dispatcher | None = None

    async def prepare(self) -> None:
        """Connect. Raises LoadError when not a single connection could be made."""
        plan, count = self._plan, self._plan.channels_of(self._number)
        _allow_descriptors(count + SPARE_DESCRIPTORS)
        endpoint = await self._driver.endpoint()
        if self._number == 0:
            await self._driver.prepare(endpoint)
        rng = derive(plan.seed, f"load/{self._number}")
        self._dispatcher = self._make_dispatcher()
        wiring = Wiring(
            dispatcher=self._dispatcher,
            recorder=self._recorder,
            endpoint=endpoint,
            timeout_s=plan.timeout_s,
            rng=rng,
            share=self._number,
        )
        self._channels = [self._driver.channel(wiring) for _ in range(count)]
        self._dispatcher.channels = self._channels
        self._dispatcher.sweep()
        slots = asyncio.Semaphore(DIALS_AT_ONCE)

        async def open_one(channel: Channel) -> str:
            async with slots:
                return await channel.open()

        failures = await asyncio.gather(*map(open_one, self._channels))
        if all(failures):
            raise LoadError(f"cannot connect to {endpoint.host} port {endpoint.port}: {failures[0]}")
        # Connecting was not part of the load.
        self._recorder.close(0.0)

    def _make_dispatcher(self) -> Dispatcher:
        plan = self._plan
        if not plan.is_open:
            return ClosedLoop(self._recorder, plan.timeout_s)
        if plan.arrivals == "poisson":
            times = plan.schedule.poisson_times(derive(plan.seed, f"arrivals/{self._number}"), plan.processes)
        else:
            times = plan.schedule.times(self._number, plan.processes)
        return OpenLoop(self._recorder, plan.timeout_s, times, max(1, plan.max_in_flight // plan.processes))

    async def go(self, start_s: float, on_interval: OnTick, stop: asyncio.Event | None) -> None:
        """Make the load from `start_s` (perf_counter seconds) on, and wait for its end."""
        assert self._dispatcher is not None
        dispatcher = self._dispatcher
        cpu_s = time.process_time()
        dispatcher.start(start_s)
        tasks = [
            asyncio.create_task(self._load(dispatcher, start_s, stop)),
            asyncio.create_task(self._tick(start_s, on_interval)),
        ]
        try:
            # The ticks end only with an error, of `on_interval`.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        end_s = max(perf_counter() - start_s, self.window_s)
        on_interval(self._recorder.close(end_s))
        self.last_ok_s = max(0.0, self._recorder.last_ok_s - start_s)
        self.cpu_s = time.process_time() - cpu_s
        self._driver.finished()

    async def _load(self, dispatcher: Dispatcher, start_s: float, stop: asyncio.Event | None) -> None:
        await self._window(start_s, stop)
        dispatcher.stop()
        # Every request under way, and every arrival waiting, comes to its own timeout in the end.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S if self.interrupted else None):
                await dispatcher.drained()

    async def _window(self, start_s: float, stop: asyncio.Event | None) -> None:
        """Until the window is over or `stop` is set."""
        end_s = start_s + self._plan.window_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(end_s - perf_counter()):
                await (stop.wait() if stop else asyncio.Event().wait())
                self.interrupted = True
                self.window_s = max(perf_counter() - start_s, 0.001)
                return
        await _sleep_until(end_s)

    async def _tick(self, start_s: float, on_interval: OnTick) -> None:
        interval_s = self._plan.interval_s
        number = 1
        while True:
            await _sleep_until(start_s + number * interval_s)
            # When the loop was held up for long, one interval stands for several.
            number = max(number, int((perf_counter() - start_s) / interval_s + 1e-6))
            on_interval(self._recorder.close(number * interval_s))
            number += 1

    async def close(self) -> None:
        if self._dispatcher:
            self._dispatcher.close()
        await asyncio.gather(*(channel.close() for channel in self._channels))


async def _sleep_until(at_s: float) -> None:
    """Never less: the loop's own clock is coarser than perf_counter, and wakes up to a millisecond early."""
    while (remaining_s := at_s - perf_counter()) > 0:  # noqa: ASYNC110 - time has no Event
        await asyncio.sleep(remaining_s)


def _allow_descriptors(count: int) -> None:
    """Raise the soft limit of open files when it is too low. Raises LoadError when the hard limit is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            raise LoadError(
                f"{count - SPARE_DESCRIPTORS} connections need {count} open files, the limit is {hard} (ulimit -n)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
