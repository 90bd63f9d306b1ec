"""The search for saturation: the algorithm on a model, the verdict on reports made by hand."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.load import saturation
from minidist.load.plan import Plan
from minidist.load.recorder import Recorder
from minidist.load.report import Report, Trial
from minidist.load.saturation import FIRST_PER_S, PRECISION, TRIES, Search, find, judge, verdict_text
from minidist.load.slo import Limit


@given(st.floats(1, 2_000_000))
@settings(max_examples=200, deadline=None)
def test_the_search_ends_next_to_the_capacity(capacity: float) -> None:
    search = Search(first=100, last=1_000_000)
    steps = 0
    while search.rate is not None:
        search.verdict(search.rate <= capacity)
        steps += 1
    assert steps < 40
    if search.best is None:
        assert capacity < 100 / 32
    else:
        assert search.best <= capacity
        assert capacity < search.best * (1 + PRECISION) or search.best == 1_000_000


def model(capacity_per_s: float, latency_s: float = 0.001) -> Any:
    """Stands in for `run`: a server that answers so many requests per second and keeps the rest waiting."""

    async def run(plan: Plan, **_: Any) -> Report:
        assert plan.rate is not None
        offered = round(plan.rate * plan.window_s)
        in_time = min(offered, round(capacity_per_s * plan.window_s))
        return report(plan, offered, in_time, latency_s if in_time == offered else 1.0)

    return run


def report(plan: Plan, offered: int, in_time: int, latency_s: float = 0.001, **errors: int) -> Report:
    recorder = Recorder()
    recorder.latencies.extend([latency_s] * in_time)
    recorder.offered = offered
    for kind, count in errors.items():
        recorder.failed(kind, count)
    window = recorder.close(plan.window_s)
    recorder.latencies.extend([2.0] * (offered - in_time))
    return Report(
        plan=plan, workload="get", started_at=0.0, window_s=plan.window_s, last_ok_s=plan.window_s,
        intervals=[window, recorder.close(plan.window_s + 2)], client_cpu_s=0.0,
    )  # fmt: skip


PLAN = Plan(url="http://h/", duration_ms=1000)


async def test_find_reports_the_highest_rate_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saturation, "run", model(3000))
    tried: list[Trial] = []
    found = await find(PLAN, on_trial=tried.append)
    assert found.trials == tried
    assert found.mode == "saturation"
    assert 3000 / (1 + PRECISION) <= (found.plan.rate or 0) <= 3000
    assert found.achieved_per_s == pytest.approx(found.plan.rate or 0, rel=0.01)
    assert tried[0].rate == FIRST_PER_S
    # A failure is not believed before it has happened twice.
    assert all(sum(1 for each in tried if each.rate == trial.rate) == TRIES for trial in tried if not trial.held)
    assert "held" in verdict_text(found)


async def test_objectives_hold_the_search_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saturation, "run", model(3000, latency_s=0.2))
    found = await find(PLAN, [Limit("p99", 100)])
    assert not any(trial.held for trial in found.trials)
    assert "p99 200" in found.trials[0].reason
    assert verdict_text(found).startswith("saturation: below")


async def test_a_ramp_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saturation, "run", model(1e9))
    plan = Plan(url="http://h/", duration_ms=100, ramp=(1000.0, 3000.0))
    found = await find(plan)
    assert [trial.rate for trial in found.trials] == [1000.0, 2000.0, 3000.0]
    assert verdict_text(found) == "saturation: above 3,000/s, the highest rate tried"


async def test_an_interrupted_search_reports_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = asyncio.Event()

    async def run(plan: Plan, **_: Any) -> Report:
        made = report(plan, 100, 100)
        object.__setattr__(made, "interrupted", stop.is_set())
        return made

    monkeypatch.setattr(saturation, "run", run)
    found = await find(PLAN, on_trial=lambda trial: stop.set(), stop=stop)
    assert len(found.trials) == 1
    assert found.interrupted


def test_a_growing_queue_is_not_held_and_answers_on_their_way_are() -> None:
    plan = Plan(url="http://h/", duration_ms=1000, rate=1000.0)
    assert judge(report(plan, 1000, 1000), [], usual_s=0.0) == ""
    assert judge(report(plan, 1000, 980), [], usual_s=0.0) == "achieved 98.0% of it"
    # 50 ms at 1000/s are 50 requests that nobody can have answered yet.
    assert judge(report(plan, 1000, 945), [], usual_s=0.05) == ""
    assert judge(report(plan, 1000, 930), [], usual_s=0.05) == "achieved 93.0% of it"


def test_skipped_arrivals_and_objectives_fail_a_rate() -> None:
    plan = Plan(url="http://h/", duration_ms=1000, rate=1000.0)
    assert judge(report(plan, 1000, 1000, skipped=1), [], usual_s=0.0) == "1 arrivals skipped"
    assert judge(report(plan, 1000, 1000, reset=5), [], usual_s=0.0) == ""
    assert judge(report(plan, 1000, 1000, reset=20), [], usual_s=1.0) == "2.0% of it failed"
    assert "EXCEEDED" in judge(report(plan, 1000, 1000), [Limit("p99", 0.5)], usual_s=0.0)
