"""The figures of a report, from intervals made by hand."""

from typing import Any

import pytest

from minidist.load.plan import Plan
from minidist.load.recorder import Interval, Recorder
from minidist.load.report import Report, bytes_text, ms_text, rate_text


def interval(start_s: float, end_s: float, ok: int = 0, latency_s: float = 0.001, **rest: Any) -> Interval:
    recorder = Recorder()
    recorder.latencies.extend([latency_s] * ok)
    made = recorder.close(1.0)
    figures: dict[str, Any] = {"offered": ok, "ok": ok, "latency": made.latency, "latency_sum_s": made.latency_sum_s}
    return Interval(start_s=start_s, end_s=end_s, **(figures | rest))


def report(*intervals: Interval, **changes: Any) -> Report:
    plan = changes.pop("plan", Plan(url="http://h/", rate=100.0, duration_ms=1000))
    described: dict[str, Any] = {
        "workload": "get", "started_at": 0.0, "window_s": 1.0, "last_ok_s": 1.0, "client_cpu_s": 0.1,
    }  # fmt: skip
    return Report(plan=plan, intervals=intervals, **(described | changes))


def test_the_object_of_the_contract() -> None:
    figures = report(interval(0.0, 1.0, 100, errors={"timeout": 2, "reset": 1}, bytes_in=7, bytes_out=9)).to_json()
    assert list(figures) == [
        "url", "workload", "mode", "duration_s", "offered_per_s", "achieved_per_s", "ok", "errors", "latency_ms",
        "bytes_in", "bytes_out", "client_cpu_s", "schedule_lag_ms",
    ]  # fmt: skip
    assert list(figures["latency_ms"]) == ["min", "mean", "p50", "p90", "p99", "p99_9", "max"]
    assert figures["errors"] == {"reset": 1, "timeout": 2}
    assert (figures["ok"], figures["bytes_in"], figures["bytes_out"]) == (100, 7, 9)
    assert figures["latency_ms"]["p99"] == pytest.approx(1.0)


def test_achieved_counts_the_wait_for_the_last_good_answer() -> None:
    late = report(interval(0.0, 1.0, 50, offered=100), interval(1.0, 2.0, 50, offered=0), last_ok_s=2.0)
    assert (late.duration_s, late.offered_per_s, late.achieved_per_s) == (2.0, 100.0, 50.0)


def test_a_ramp_is_judged_by_its_last_tenth() -> None:
    ramp = Plan(url="http://h/", ramp=(0.0, 100.0), duration_ms=1000)
    tenths = [interval(number / 10, (number + 1) / 10, number) for number in range(10)]
    of_ramp = report(*tenths, interval(1.0, 1.05, 3, offered=0), plan=ramp)
    assert of_ramp.offered_per_s == pytest.approx(90)
    assert of_ramp.achieved_per_s == pytest.approx(90)


def test_phases_are_cut_by_time() -> None:
    whole = report(*(interval(number / 10, (number + 1) / 10, number) for number in range(10)))
    assert whole.between(0.2, 0.5).ok == 2 + 3 + 4
    assert whole.between(0.2, 0.2).ok in (1, 2)  # never nothing: the nearest interval


def test_a_busy_late_or_overrun_client_is_named() -> None:
    assert report(interval(0.0, 1.0, 10)).warnings() == []
    assert "may be the bottleneck: use --processes 2" in report(interval(0.0, 1.0, 10), client_cpu_s=0.95).warnings()[0]
    assert "up to 50 ms late" in report(interval(0.0, 1.0, 10, lag_s=0.05)).warnings()[0]
    assert "5 arrivals were never sent" in report(interval(0.0, 1.0, 10, errors={"skipped": 5})).warnings()[0]


def test_the_text_has_every_figure() -> None:
    text = report(interval(0.0, 1.0, 100, errors={"timeout": 25}, bytes_in=2_500_000)).text()
    assert "open loop at 100/s over 50 connections" in text
    assert "failed    25 (20.00%): timeout 25" in text
    assert "2.5 MB in" in text
    assert "p99.9 1.00" in text
    assert "nothing succeeded" in report(interval(0.0, 1.0)).text()


def test_numbers_for_people() -> None:
    assert [ms_text(each) for each in (None, 0.1234, 1.234, 12.34, 1234.5)] == ["–", "0.123", "1.23", "12.3", "1,234"]
    assert [rate_text(each) for each in (12.345, 1234.5)] == ["12.35/s", "1,234/s"]
    assert [bytes_text(each) for each in (5, 1500, 2e6, 3e12)] == ["5 B", "1.5 kB", "2.0 MB", "3000.0 GB"]
