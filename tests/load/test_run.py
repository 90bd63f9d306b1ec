"""Whole runs in this process: schedules kept, stalls shown, losses counted, ends that leave nothing behind."""

import asyncio
import itertools
from typing import Any

import pytest

from minidist.load.plan import LoadError, Plan
from minidist.load.recorder import Interval
from minidist.load.runner import run

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
STALL_S = 0.3


def plan(server: Any, **changes: Any) -> Plan:
    described: dict[str, Any] = {"url": f"http://127.0.0.1:{server.port}/", "duration_ms": 300} | changes
    return Plan(**described)


def stalling(server: Any, at: int) -> None:
    """One stall: from request number `at` on nothing is answered for STALL_S."""

    def answer(number: int, request: bytes) -> bytes:
        if number == at:
            server.hold()
            asyncio.get_running_loop().call_later(STALL_S, server.release)
        return OK

    server.answer = answer


# --- The open loop --------------------------------------------------------------------------------------------------


async def test_an_open_loop_starts_every_arrival(http_server: Any) -> None:
    server = await http_server()
    report = await run(plan(server, rate=500.0))
    assert (report.total.offered, report.total.ok, report.total.failed) == (150, 150, 0)
    assert len(server.requests) == 150
    assert report.offered_per_s == pytest.approx(500)
    assert report.mode == "open"


async def test_an_open_loop_sees_the_stall_in_every_request_meant_to_start_in_it(http_server: Any) -> None:
    server = await http_server()
    stalling(server, at=20)
    # One connection: while it is stuck, nothing can even be sent.
    report = await run(plan(server, rate=200.0, duration_ms=600, connections=1))
    assert report.total.ok == 120
    # 60 of the 120 arrivals fall into the stall, and wait for what is left of it: half of them for half of it or more.
    p80 = report.total.percentile_ms(80)
    assert p80 is not None
    assert p80 >= STALL_S * 1000 / 2 * 0.9
    assert report.total.max_ms is not None
    assert report.total.max_ms >= STALL_S * 1000 * 0.99


async def test_a_closed_loop_sees_it_in_one_request_per_connection(http_server: Any) -> None:
    server = await http_server()
    stalling(server, at=20)
    report = await run(plan(server, concurrency=1, duration_ms=600))
    slow = sum(each.count_added_in_this_iter_step for each in slow_ones(report.total, STALL_S * 0.99))
    assert slow == 1
    assert report.mode == "closed"
    assert report.total.lag_s == 0.0


def slow_ones(interval: Interval, longer_than_s: float) -> list[Any]:
    return [each for each in interval.histogram if each.value_iterated_to >= longer_than_s * 1e6]


async def test_a_ramp_reports_its_tail(http_server: Any) -> None:
    server = await http_server()
    report = await run(plan(server, ramp=(0.0, 1000.0), duration_ms=1000))
    assert report.total.ok == report.total.offered == 500
    assert report.offered_per_s > 800  # the average is 500, the last tenth's 950
    assert report.mode == "ramp"


async def test_poisson_arrivals_are_random_and_as_many(http_server: Any) -> None:
    server = await http_server()
    report = await run(plan(server, rate=1000.0, arrivals="poisson"))
    assert 200 < report.total.ok < 400
    assert report.total.ok != 300


async def test_arrivals_beyond_the_cap_are_skipped_and_counted(http_server: Any) -> None:
    server = await http_server(lambda number, request: None)
    report = await run(plan(server, rate=200.0, max_in_flight=10, connections=2, timeout_ms=500))
    assert report.total.offered == 60
    assert report.total.errors["skipped"] == 50
    # Two were sent and had no answer; eight found no free connection in time, or one that had just been made again.
    assert report.total.errors["timeout"] >= 2
    assert report.total.failed == 60
    assert any("--max-in-flight" in each for each in report.warnings())


async def test_what_finds_no_free_connection_in_time_has_failed(http_server: Any) -> None:
    server = await http_server()
    stalling(server, at=0)
    report = await run(plan(server, rate=100.0, connections=1, timeout_ms=100))
    assert set(report.total.errors) <= {"timeout", "queue-timeout"}
    assert report.total.errors["timeout"] >= 1
    assert report.total.ok + report.total.failed == 30


# --- Loss and recovery ----------------------------------------------------------------------------------------------


async def test_a_server_that_dies_and_comes_back(http_server: Any) -> None:
    server = await http_server()
    events = asyncio.Queue[Interval]()
    loading = asyncio.create_task(run(plan(server, rate=200.0, duration_ms=900), on_tick=events.put_nowait))
    await until(events, lambda interval: interval.ok > 0)
    await server.stopped()
    await until(events, lambda interval: "refused" in interval.errors)
    await server.start()
    await until(events, lambda interval: interval.ok > 0)
    report = await loading
    assert report.total.ok + report.total.failed == report.total.offered == 180
    assert set(report.total.errors) <= {"refused", "reset", "closed"}


async def until(events: "asyncio.Queue[Interval]", condition: Any) -> None:
    while not condition(await events.get()):
        pass


async def test_a_closed_loop_counts_one_failure_for_each_failed_attempt(http_server: Any) -> None:
    server = await http_server()
    events = asyncio.Queue[Interval]()
    loading = asyncio.create_task(run(plan(server, concurrency=2, duration_ms=600), on_tick=events.put_nowait))
    await until(events, lambda interval: interval.ok > 0)
    await server.stopped()
    await until(events, lambda interval: "refused" in interval.errors)
    await server.start()
    report = await loading
    assert report.total.ok + report.total.failed == report.total.offered
    # The pause between attempts keeps a dead server from making millions of failures.
    assert report.total.errors["refused"] < 200


async def test_requests_without_an_answer_time_out(http_server: Any) -> None:
    server = await http_server(lambda number, request: None)
    report = await run(plan(server, concurrency=3, duration_ms=100, timeout_ms=50))
    assert report.total.ok == 0
    assert set(report.total.errors) == {"timeout"}
    assert report.to_json()["latency_ms"] == dict.fromkeys(("min", "mean", "p50", "p90", "p99", "p99_9", "max"))


async def test_nobody_there(http_server: Any) -> None:
    server = await http_server()
    await server.stopped()
    with pytest.raises(LoadError, match=f"cannot connect to 127.0.0.1 port {server.port}: refused"):
        await run(plan(server, rate=10.0))


async def test_a_name_is_tried_at_all_its_addresses(http_server: Any) -> None:
    server = await http_server()
    report = await run(plan(server, url=f"http://localhost:{server.port}/", rate=50.0))
    assert report.total.ok == 15


async def test_a_name_that_nobody_has() -> None:
    with pytest.raises(LoadError, match=r"cannot resolve nowhere\.invalid"):
        await run(Plan(url="http://nowhere.invalid/"))


# --- Ticks and ends -------------------------------------------------------------------------------------------------


async def test_intervals_cover_the_run_without_gaps_and_add_up(http_server: Any) -> None:
    server = await http_server()
    ticks: list[Interval] = []
    report = await run(plan(server, rate=300.0, duration_ms=500), on_tick=ticks.append)
    assert ticks == report.intervals
    assert ticks[0].start_s == 0.0
    assert all(before.end_s == after.start_s for before, after in itertools.pairwise(ticks))
    assert ticks[-1].end_s >= 0.5
    assert sum(each.ok for each in ticks) == report.total.ok == 150
    assert report.between(0.1, 0.3).start_s == pytest.approx(0.1)
    assert report.between(0.0, 99.0).ok == 150


async def test_stopping_early_gives_a_report_of_what_was(http_server: Any) -> None:
    server = await http_server()
    stop = asyncio.Event()

    def enough(interval: Interval) -> None:
        if interval.ok:
            stop.set()

    report = await run(plan(server, rate=100.0, duration_ms=60_000), on_tick=enough, stop=stop)
    assert report.interrupted
    assert report.window_s < 60
    assert report.total.ok + report.total.failed == report.total.offered
    assert "interrupted" in report.text()


@pytest.mark.parametrize("loop", [{"rate": 500.0}, {"concurrency": 3}])
async def test_cancelling_leaves_nothing_behind(http_server: Any, loop: dict[str, Any]) -> None:
    server = await http_server()
    before = asyncio.all_tasks()
    ticking = asyncio.Event()
    loading = asyncio.create_task(run(plan(server, duration_ms=60_000, **loop), on_tick=lambda interval: ticking.set()))
    await ticking.wait()
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    while server.open:
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_an_observer_that_fails_ends_the_run(http_server: Any) -> None:
    server = await http_server()

    def fail(interval: Interval) -> None:
        raise RuntimeError("observer")

    with pytest.raises(RuntimeError, match="observer"):
        await run(plan(server, rate=100.0), on_tick=fail)


async def test_the_client_says_what_it_cost(http_server: Any) -> None:
    server = await http_server()
    report = await run(plan(server, concurrency=4))
    assert report.client_cpu_s > 0
    figures = report.to_json()
    assert figures["client_cpu_s"] == round(report.client_cpu_s, 3)
    assert figures["schedule_lag_ms"] == 0.0
