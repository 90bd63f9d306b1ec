"""A test that waits for ever fails, on every loop, and says where it waited (tests/conftest.py)."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest
import uvloop

LOOPS = pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
Loops = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
def hurry(pytestconfig: pytest.Config) -> Callable[..., None]:
    return next(each.hurry for each in pytestconfig.pluginmanager.get_plugins() if hasattr(each, "hurry"))


async def wait_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


@LOOPS
def test_a_wait_without_end_becomes_an_error_that_shows_where(hurry: Callable[..., None], loop_factory: Loops):
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        hurry(runner, step_s=0.01)
        with pytest.raises(TimeoutError) as caught:
            runner.run(wait_for_ever())
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    frames = pytest.ExceptionInfo.from_exception(caught.value.__cause__).traceback
    assert "wait_for_ever" in [frame.name for frame in frames]


@LOOPS
def test_a_task_that_does_not_end_is_named(hurry: Callable[..., None], loop_factory: Loops):
    let_go = False

    async def stubborn() -> None:
        while not let_go:
            with contextlib.suppress(asyncio.CancelledError):
                await wait_for_ever()

    async def leave_it_behind() -> None:
        left.append(asyncio.create_task(stubborn()))
        await asyncio.sleep(0)

    left: list[asyncio.Task[None]] = []
    runner = asyncio.Runner(loop_factory=loop_factory)
    hurry(runner, cancel_s=0.01)
    runner.run(leave_it_behind())
    with pytest.raises(AssertionError, match=r"do not end when cancelled.*stubborn"):
        runner.close()
    let_go = True
    runner.close()


def test_every_asynchronous_test_has_the_deadline(request: pytest.FixtureRequest):
    runner = request.getfixturevalue("_function_scoped_runner")
    assert runner.run.__name__ == "run_in_time"
