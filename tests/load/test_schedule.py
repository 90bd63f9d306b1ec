"""Arrivals as arithmetic: how many, where, and how they are shared."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.load.schedule import Schedule

rates = st.floats(0.5, 5000)
durations = st.floats(0.01, 2.0)
schedules = st.builds(Schedule, rates, rates, durations) | st.builds(Schedule, st.just(0.0), rates, durations)


def test_a_constant_rate_is_evenly_spaced() -> None:
    schedule = Schedule(4, 4, 1.5)
    assert list(schedule.times()) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]


def test_a_ramp_from_zero_doubles_its_arrivals_at_root_two() -> None:
    schedule = Schedule(0, 200, 1.0)
    times = list(schedule.times())
    assert len(times) == 100
    assert times[0] == 0.0
    assert times[50] == pytest.approx(0.5**0.5)


def test_a_falling_ramp_mirrors_a_rising_one() -> None:
    rising, falling = Schedule(10, 90, 2.0), Schedule(90, 10, 2.0)
    assert rising.count == falling.count == 100
    for number in range(101):
        assert rising.time_of(number) == pytest.approx(2.0 - falling.time_of(100 - number), abs=1e-9)


@given(schedules)
@settings(max_examples=100, deadline=None)
def test_arrivals_ascend_within_the_window(schedule: Schedule) -> None:
    times = list(schedule.times())
    assert len(times) == schedule.count
    assert all(0 <= time_s < schedule.duration_s + 1e-9 for time_s in times)
    assert all(before <= after for before, after in itertools.pairwise(times))


@given(schedules)
@settings(max_examples=100, deadline=None)
def test_time_of_is_the_inverse_of_expected(schedule: Schedule) -> None:
    total = schedule.expected(schedule.duration_s)
    for part in (0.0, 0.1, 0.5, 0.9, 1.0):
        assert schedule.expected(schedule.time_of(part * total)) == pytest.approx(part * total, rel=1e-6, abs=1e-6)


@given(schedules, st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_shares_are_the_whole_dealt_out(schedule: Schedule, shares: int) -> None:
    dealt = [list(schedule.times(share, shares)) for share in range(shares)]
    assert sorted(itertools.chain(*dealt)) == sorted(schedule.times())
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@given(st.integers(0, 2**32), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_poisson_shares_add_up_to_the_expected_count(seed: int, shares: int) -> None:
    schedule = Schedule(500, 1500, 2.0)  # 2000 arrivals expected, standard deviation 45
    times = [list(schedule.poisson_times(random.Random(seed + share), shares)) for share in range(shares)]
    assert abs(sum(map(len, times)) - 2000) < 6 * 45
    for stream in times:
        assert stream == sorted(stream)
        assert all(0 < time_s < 2.0 for time_s in stream)
