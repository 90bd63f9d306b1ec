"""Several processes as one load."""

import asyncio
import itertools
import subprocess
import sys
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.load import frames
from minidist.load.plan import LoadError, Plan
from minidist.load.processes import Merger, Worker
from minidist.load.recorder import Interval
from minidist.load.runner import run


def plan(server: Any, **changes: Any) -> Plan:
    described: dict[str, Any] = {
        "url": f"http://127.0.0.1:{server.port}/",
        "duration_ms": 300,
        "processes": 2,
    } | changes
    return Plan(**described)


async def test_shares_make_the_whole_load(http_server: Any) -> None:
    server = await http_server()
    ticks: list[Interval] = []
    report = await run(plan(server, rate=301.0, duration_ms=1000, connections=3), on_tick=ticks.append)
    assert report.total.ok == report.total.offered == len(server.requests) == 301
    assert server.accepted == 3
    assert ticks == report.intervals
    assert ticks[0].start_s == 0.0
    assert report.client_cpu_s > 0


async def test_one_process_apart(http_server: Any) -> None:
    server = await http_server()
    report = await run(plan(server, ramp=(100.0, 500.0), processes=1, options={"header": (("X", "1"),)}), apart=True)
    assert report.total.ok == 90
    assert b"\r\nX: 1\r\n" in server.requests[0]


async def test_stopping_reaches_every_process(http_server: Any) -> None:
    server = await http_server()
    stop = asyncio.Event()
    report = await run(plan(server, concurrency=2, duration_ms=60_000), on_tick=lambda each: stop.set(), stop=stop)
    assert report.interrupted
    assert report.total.ok == report.total.offered > 0


async def test_what_a_worker_cannot_do_is_said_by_the_parent(http_server: Any) -> None:
    server = await http_server()
    await server.stopped()
    with pytest.raises(LoadError, match="cannot connect"):
        await run(plan(server, rate=10.0))


async def test_a_worker_that_dies_fails_the_run(http_server: Any) -> None:
    server = await http_server()
    worker = await Worker.start(plan(server, rate=10.0, processes=1), 0)
    await worker.ready()
    await worker.end()
    with pytest.raises(LoadError, match="load process 1 ended unexpectedly"):
        await worker.ready()


async def test_a_worker_ends_with_its_parent(http_server: Any) -> None:
    server = await http_server()
    worker = await Worker.start(plan(server, rate=10.0, processes=1, duration_ms=60_000), 0)
    await worker.ready()
    worker.send({"start_s": perf_counter()})
    while not server.requests:
        await asyncio.sleep(0)
    assert worker._process.stdin
    worker._process.stdin.close()
    assert await worker._process.wait() == 1


def test_a_worker_that_is_told_nothing_does_nothing() -> None:
    ended = subprocess.run([sys.executable, "-m", "minidist.load.worker"], input=b"", capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


async def test_frames_come_back_whole_or_not_at_all() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(frames.pack({"a": b"\xff", "b": [1.5, None]}))
    stream.feed_data(frames.pack({"c": 1})[:-1])
    stream.feed_eof()
    assert await frames.read(stream) == {"a": b"\xff", "b": [1.5, None]}
    assert await frames.read(stream) is None


@given(st.integers(1, 3), st.data())
@settings(max_examples=100, deadline=None)
def test_the_merger_loses_nothing_and_leaves_no_gaps(sources: int, data: st.DataObject) -> None:
    """Sources whose intervals now and then span several ticks, delivered in any interleaving."""
    emitted: list[Interval] = []
    merger = Merger(sources, emitted.append)
    queues = []
    for _ in range(sources):
        ends = sorted(data.draw(st.sets(st.integers(1, 8), min_size=1)))
        starts = [0, *ends[:-1]]
        queues.append([Interval(start_s=a / 10, end_s=b / 10, offered=b) for a, b in zip(starts, ends, strict=True)])
    total = sum(each.offered for queue in queues for each in queue)
    while any(queues):
        source = data.draw(st.sampled_from([number for number, queue in enumerate(queues) if queue]))
        merger.add(source, queues[source].pop(0))
    merger.finish()
    assert sum(each.offered for each in emitted) == total
    assert emitted[0].start_s == 0.0
    assert all(before.end_s == after.start_s for before, after in itertools.pairwise(emitted))
