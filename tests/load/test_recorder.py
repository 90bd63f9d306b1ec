"""Figures of intervals, and that they add up."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.load.recorder import HANDFUL, Interval, Recorder, merged

latencies = st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=50)


def recorded(*parts: list[float]) -> list[Interval]:
    recorder, intervals = Recorder(), []
    for number, part in enumerate(parts):
        recorder.latencies.extend(part)
        recorder.settle(number + 0.5)
        intervals.append(recorder.close(number + 1.0))
    return intervals


def test_an_interval_counts_what_ended_in_it() -> None:
    recorder = Recorder()
    recorder.offered, recorder.bytes_in, recorder.bytes_out, recorder.lag_s = 5, 10, 20, 0.25
    recorder.latencies += [0.001, 0.003]
    recorder.settle(0.7)
    recorder.failed("reset")
    recorder.failed("timeout", 2)
    recorder.failed("skipped", 0)
    interval = recorder.close(1.0)
    assert (interval.start_s, interval.end_s, interval.seconds) == (0.0, 1.0, 1.0)
    assert (interval.offered, interval.ok, interval.failed) == (5, 2, 3)
    assert interval.errors == {"reset": 1, "timeout": 2}
    assert (interval.bytes_in, interval.bytes_out, interval.lag_s) == (10, 20, 0.25)
    assert interval.mean_ms == pytest.approx(2.0)
    assert recorder.last_ok_s == 0.7
    following = recorder.close(2.0)
    assert (following.start_s, following.ok, following.errors, following.lag_s) == (1.0, 0, {}, 0.0)


def test_without_successes_there_are_no_latencies() -> None:
    interval = Recorder().close(1.0)
    assert interval.percentiles_ms(50, 99) == [None, None]
    assert (interval.min_ms, interval.mean_ms, interval.max_ms, interval.latency) == (None, None, None, b"")


def test_latencies_go_to_the_histogram_in_handfuls() -> None:
    recorder = Recorder()
    recorder.latencies.extend([0.001] * (HANDFUL - 1))
    recorder.settle(1.0)
    assert len(recorder.latencies) == HANDFUL - 1
    recorder.latencies.append(0.001)
    recorder.settle(1.0)
    assert recorder.latencies == []
    assert recorder.close(1.0).ok == HANDFUL


def test_what_is_out_of_range_is_kept_at_its_ends() -> None:
    (interval,) = recorded([0.0, 10_000.0])
    assert interval.ok == 2
    assert interval.min_ms == 0.001
    assert interval.max_ms == pytest.approx(600_000, rel=0.001)


@given(st.lists(latencies, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_merged_intervals_are_the_whole(parts: list[list[float]]) -> None:
    whole = merged(recorded(*parts))
    (at_once,) = recorded([each for part in parts for each in part])
    everything = sorted(each for part in parts for each in part)
    assert (whole.start_s, whole.end_s, whole.ok) == (0.0, len(parts), len(everything))
    assert whole.percentiles_ms(50, 90, 99, 100) == at_once.percentiles_ms(50, 90, 99, 100)
    assert whole.mean_ms == pytest.approx(1000 * sum(everything) / len(everything))
    # An HDR histogram of three digits is right to a thousandth, and to its unit of 1 µs.
    median = everything[math.floor(len(everything) / 2 + 0.5) - 1] if len(everything) > 1 else everything[0]
    p50 = whole.percentile_ms(50)
    assert p50 is not None
    assert p50 == pytest.approx(median * 1000, rel=0.002, abs=0.002)


def test_merging_adds_errors_by_kind_and_keeps_the_worst_lag() -> None:
    first = Interval(start_s=0, end_s=1, offered=3, errors={"reset": 1}, lag_s=0.5)
    second = Interval(start_s=1, end_s=2, offered=4, errors={"reset": 2, "timeout": 1}, lag_s=0.1)
    whole = merged([first, second])
    assert (whole.offered, whole.errors, whole.lag_s) == (7, {"reset": 3, "timeout": 1}, 0.5)
