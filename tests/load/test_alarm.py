"""Alarms ring once, not early, and not after they were closed."""

import asyncio
import sys
from collections.abc import Callable
from time import perf_counter

import pytest

from minidist.load.alarm import Alarm, LoopAlarm, TimerfdAlarm, new_alarm

KINDS = [LoopAlarm] + [TimerfdAlarm] * (sys.platform == "linux")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_alarm_rings_at_its_moment(kind: Callable[..., Alarm]) -> None:
    rung = asyncio.Event()
    alarm = kind(asyncio.get_running_loop(), rung.set)
    for delay_s in (0.02, 0.0, -5.0):
        at_s = perf_counter() + delay_s
        alarm.set(at_s)
        await rung.wait()
        # The loop's own timers may be a millisecond early.
        assert perf_counter() >= at_s - 0.002
        rung.clear()
    alarm.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_only_the_last_moment_counts(kind: Callable[..., Alarm]) -> None:
    loop = asyncio.get_running_loop()
    rung: list[str] = []
    first, second = kind(loop, lambda: rung.append("first")), asyncio.Event()
    other = kind(loop, second.set)
    first.set(perf_counter() + 0.001)
    first.set(perf_counter() + 3600)
    other.set(perf_counter() + 0.01)
    await second.wait()
    assert rung == []
    first.close()
    other.close()
    other.close()


@pytest.mark.skipif(sys.platform != "linux", reason="timerfd is Linux's")
async def test_linux_has_the_fine_one() -> None:
    alarm = new_alarm(asyncio.get_running_loop(), lambda: None)
    assert isinstance(alarm, TimerfdAlarm)
    alarm.close()
