"""A load from several processes: one Python process is soon busier than the server it measures.

Each worker takes its share of the connections and every N-th arrival of the schedule (or a thinner Poisson stream), and
sends its intervals; the parent adds them up. All start at the same moment. A worker ends when its stdin does, so none
outlives the parent, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable
from time import perf_counter
from typing import Any

from minidist.load import frames
from minidist.load.driver import Driver
from minidist.load.plan import LoadError, Plan
from minidist.load.recorder import Interval, merged
from minidist.load.report import Report

#: From the word "start" to the start: enough for it to reach every worker.
HEAD_START_S = 0.05
_EPSILON_S = 1e-6


async def run_processes(
    plan: Plan,
    driver: Driver,
    on_tick: Callable[[Interval], None] | None,
    stop: asyncio.Event | None,
    on_start: Callable[[], None] | None = None,
) -> Report:
    """As `runner.run`, for plans with more than one process."""
    intervals: list[Interval] = []

    def emit(interval: Interval) -> None:
        intervals.append(interval)
        if on_tick:
            on_tick(interval)

    merger = Merger(plan.processes, emit)
    workers: list[Worker] = []
    stopping: asyncio.Task[None] | None = None
    try:
        for number in range(plan.processes):
            workers.append(await Worker.start(plan, number))  # noqa: PERF401 - those started must be ended if one fails
        await asyncio.gather(*(worker.ready() for worker in workers))
        if on_start:
            on_start()
        start_s, started_at = perf_counter() + HEAD_START_S, time.time() + HEAD_START_S
        for worker in workers:
            worker.send({"start_s": start_s})
        stopping = asyncio.create_task(_pass_on(stop, workers)) if stop else None
        done = await asyncio.gather(*(worker.follow(merger) for worker in workers))
        merger.finish()
    finally:
        if stopping:
            stopping.cancel()
        await asyncio.gather(*(worker.end() for worker in workers))
    return Report(
        plan=plan,
        workload=driver.label,
        started_at=started_at,
        window_s=max(each["window_s"] for each in done),
        last_ok_s=max(each["last_ok_s"] for each in done),
        intervals=intervals,
        client_cpu_s=sum(each["cpu_s"] for each in done),
        interrupted=any(each["interrupted"] for each in done),
    )


async def _pass_on(stop: asyncio.Event, workers: list[Worker]) -> None:
    await stop.wait()
    for worker in workers:
        worker.send({"stop": True})


class Worker:
    def __init__(self, process: asyncio.subprocess.Process, number: int) -> None:
        self._process = process
        self._number = number
        self._stdin, self._stdout = process.stdin, process.stdout

    @classmethod
    async def start(cls, plan: Plan, number: int) -> Worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "minidist.load.worker",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C at the terminal is the parent's business
        )  # fmt: skip
        worker = cls(process, number)
        worker.send({"plan": {**dataclasses.asdict(plan), "options": dict(plan.options)}, "share": number})
        return worker

    def send(self, message: dict[str, Any]) -> None:
        assert self._stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):  # it has ended; its stdout says so
            self._stdin.write(frames.pack(message))

    async def _read(self) -> dict[str, Any]:
        assert self._stdout is not None
        message = await frames.read(self._stdout)
        if message is None:
            raise LoadError(f"load process {self._number + 1} ended unexpectedly")
        if "error" in message:
            raise LoadError(message["error"])
        return message

    async def ready(self) -> None:
        await self._read()

    async def follow(self, merger: Merger) -> dict[str, Any]:
        """Pass on its intervals until it is done; returns its last figures."""
        while "done" not in (message := await self._read()):
            merger.add(self._number, Interval(**message["interval"]))
        figures: dict[str, Any] = message["done"]
        return figures

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class Merger:
    """Turns the intervals of several sources into intervals of all of them, as soon as every source has come so far."""

    def __init__(self, sources: int, emit: Callable[[Interval], None]) -> None:
        self._emit = emit
        self._reached_s = [0.0] * sources
        self._emitted_s = 0.0
        self._pending: list[Interval] = []

    def add(self, source: int, interval: Interval) -> None:
        self._reached_s[source] = interval.end_s
        self._pending.append(interval)
        if min(self._reached_s) > self._emitted_s + _EPSILON_S:
            self._merge_until(min(self._reached_s) + _EPSILON_S)

    def finish(self) -> None:
        """What the sources had after their last common moment."""
        self._merge_until(float("inf"))

    def _merge_until(self, end_s: float) -> None:
        complete = [each for each in self._pending if each.end_s <= end_s]
        if complete:
            self._pending = [each for each in self._pending if each.end_s > end_s]
            whole = dataclasses.replace(merged(complete), start_s=self._emitted_s)
            self._emitted_s = whole.end_s
            self._emit(whole)
