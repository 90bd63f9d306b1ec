"""What all tests share: how much Hypothesis tries, a seeded generator that a failing test can be repeated with, and a
deadline for whatever runs on a loop.

pytest-timeout cannot interrupt uvloop: an exception raised in its signal handler stops there. So each step of a test
that pytest-asyncio runs (a fixture's set-up, the test, a fixture's end) has a deadline of its own, on its own loop, and
the tasks it leaves behind have to end when they are cancelled. A wait without end becomes a failure that shows where.
"""

import asyncio
import os
import random
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Deadlines measure the machine, not the code. Nothing is kept between runs: a failure prints how to repeat it.
settings.register_profile(
    "minidist",
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("minidist")

STEP_DEADLINE_S = 100.0  # a little less than pytest-timeout's, for the whole test
CANCEL_DEADLINE_S = 10.0


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Generator[None, object, object]:
    """What pytest-asyncio runs on goes through here: its runner is a fixture."""
    made = yield
    if isinstance(made, asyncio.Runner):
        hurry(made)
    return made


def hurry(runner: asyncio.Runner, step_s: float = STEP_DEADLINE_S, cancel_s: float = CANCEL_DEADLINE_S) -> None:
    """Let nothing that this runner runs last longer: TimeoutError, chained to where it waited."""
    run, close = runner.run, runner.close

    async def in_time(step: Coroutine[Any, Any, Any]) -> Any:
        async with asyncio.timeout(step_s):
            return await step

    async def end_tasks() -> None:
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in left:
                task.cancel()
            _, stubborn = await asyncio.wait(left, timeout=cancel_s)
            assert not stubborn, f"do not end when cancelled: {stubborn}"

    def run_in_time(step: Coroutine[Any, Any, Any], *, context: Context | None = None) -> Any:
        return run(in_time(step), context=context)

    def close_in_time() -> None:
        run(end_tasks())  # close() would wait for them for ever
        close()

    runner.run, runner.close = run_in_time, close_in_time


@pytest.fixture
def seed() -> int:
    """The seed of this test's random choices: printed when it fails, given again with MINIDIST_TEST_SEED."""
    number = int(os.environ.get("MINIDIST_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"repeat with MINIDIST_TEST_SEED={number}")
    return number


@pytest.fixture
def rng(seed: int) -> random.Random:
    """A generator seeded with `seed`."""
    return random.Random(seed)
