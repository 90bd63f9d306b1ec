"""Service time: timers fire in order, moving the clock fires them, going back never un-expires anything."""

import asyncio
import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.runtime.clock import KEPT_CANCELLED, LONGEST_WAIT_MS, Clock


class Wall:
    def __init__(self, now_ms: int = 1_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def wall():
    return Wall()


@pytest.fixture
async def clock(wall):
    clock = Clock(wall)
    yield clock
    clock.close()


async def test_follows_the_wall_and_an_offset(clock, wall):
    assert clock.now_ms() == 1_000_000
    wall.now_ms += 5
    assert clock.now_ms() == 1_000_005
    clock.advance(3_600_000)
    assert (clock.now_ms(), clock.offset_ms) == (4_600_005, 3_600_000)


async def test_advance_fires_in_order_of_deadline_then_of_setting(clock):
    fired = []
    for at, name in ((30, "c"), (10, "a"), (20, "b1"), (20, "b2"), (41, "late")):
        clock.call_later(at, lambda name=name: fired.append(name))
    clock.advance(40)
    assert fired == ["a", "b1", "b2", "c"]
    clock.advance(1)
    assert fired == ["a", "b1", "b2", "c", "late"]


async def test_a_cancelled_timer_never_fires_also_when_another_cancels_it_while_firing(clock):
    fired = []
    first = clock.call_later(10, lambda: (fired.append("first"), second.cancel()))
    second = clock.call_later(10, lambda: fired.append("second"))
    clock.advance(10)
    assert fired == ["first"]
    first.cancel()
    second.cancel()
    clock.advance(10)
    assert fired == ["first"]


async def test_a_timer_that_sets_itself_again_does_not_hold_the_loop(clock, eventually):
    fired = []

    def again():
        fired.append(clock.now_ms())
        if len(fired) < 100:
            clock.call_later(0, again)

    clock.call_later(10, again)
    clock.advance(10)
    assert len(fired) == 1
    await eventually(lambda: len(fired) == 100)


async def test_a_callback_may_move_the_clock(clock):
    fired = []
    clock.call_later(10, lambda: (fired.append("a"), clock.advance(100), fired.append("moved")))
    clock.call_later(20, lambda: fired.append("b"))
    clock.call_later(90, lambda: fired.append("c"))
    clock.advance(20)
    assert fired == ["a", "b", "c", "moved"]


async def test_a_callback_that_fails_does_not_take_the_others_with_it(clock):
    problems, fired = [], []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context["exception"]))
    clock.call_later(10, lambda: 1 / 0)
    clock.call_later(11, lambda: fired.append("next"))
    clock.call_later(1000, lambda: fired.append("later"))
    clock.advance(20)
    assert fired == ["next"]
    assert [type(problem) for problem in problems] == [ZeroDivisionError]
    clock.before_backward(lambda now_ms: 1 / 0)
    clock.before_backward(lambda now_ms: fired.append(now_ms))
    clock.advance(-5)
    assert fired == ["next", 1_000_020]
    clock.advance(2000)
    assert fired[-1] == "later"


async def test_before_going_back_what_is_due_fires_and_hooks_see_the_old_time(clock, wall):
    seen = []
    clock.call_later(10, lambda: seen.append("due"))
    clock.call_later(11, lambda: seen.append("not due"))
    clock.before_backward(lambda now_ms: seen.append(("hook", now_ms)))
    wall.now_ms += 10
    clock.advance(-1000)
    assert seen == ["due", ("hook", 1_000_010)]
    assert clock.now_ms() == 999_010
    clock.advance(1000)
    assert seen == ["due", ("hook", 1_000_010)]
    clock.advance(1)
    assert seen[-1] == "not due"


async def test_a_wall_clock_that_is_set_back_is_noticed(clock, wall):
    seen = []
    clock.call_later(10, lambda: seen.append("due"))
    clock.before_backward(lambda now_ms: seen.append((now_ms, clock.now_ms())))
    wall.now_ms += 10
    clock.call_later(5, lambda: None)  # asks for the time
    wall.now_ms -= 5000
    assert clock.now_ms() == 995_010
    assert seen == ["due", (1_000_010, 995_010)]
    assert clock.now_ms() == 995_010
    assert len(seen) == 2


async def test_a_periodic_timer_survives_a_wall_clock_that_is_set_back(clock, wall):
    fired = []

    def tick():
        fired.append(clock.now_ms())
        clock.call_later(100, tick)

    clock.call_later(100, tick)
    wall.now_ms += 3_600_000
    clock.now_ms()
    wall.now_ms -= 3_600_000
    clock.now_ms()
    assert len(fired) == 1
    clock.advance(100)
    assert len(fired) == 2


async def test_the_loop_fires_what_becomes_due_by_itself(clock, wall, eventually):
    fired = []
    clock.call_later(5, lambda: fired.append(1))
    loop_timer = clock._wake
    assert loop_timer.when() <= asyncio.get_running_loop().time() + 0.005
    wall.now_ms += 5
    await eventually(lambda: bool(fired))
    assert clock._wake is None


async def test_a_loop_timer_is_set_only_while_something_waits(clock):
    loop = asyncio.get_running_loop()
    assert clock._wake is None
    timers = [clock.call_later(at, lambda: None) for at in (10, 3_600_000)]
    assert clock._wake.when() <= loop.time() + 0.010
    timers[0].cancel()
    clock.advance(1)
    assert clock._wake.when() <= loop.time() + LONGEST_WAIT_MS / 1000
    timers[1].cancel()
    assert clock._wake is None


async def test_moving_the_clock_shortens_the_wait(clock):
    clock.call_later(900, lambda: None)
    clock.advance(890)
    assert clock._wake.when() <= asyncio.get_running_loop().time() + 0.010
    clock.drift(0.1)
    assert clock._wake.when() > asyncio.get_running_loop().time() + 0.050


async def test_cancelled_timers_do_not_pile_up(clock):
    clock.call_later(1, lambda: None)
    for _ in range(10_000):
        clock.call_later(3_600_000, lambda: None).cancel()
    assert len(clock._timers) <= 2 * KEPT_CANCELLED + 2
    kept = [clock.call_later(1000 + at, lambda: None) for at in range(1000)]
    for timer in kept[:400]:
        timer.cancel()
    clock.advance(5000)
    assert clock._timers == []
    assert clock._wake is None


async def test_drift(clock, wall):
    clock.drift(2.0)
    wall.now_ms += 1000
    assert (clock.now_ms(), clock.offset_ms) == (1_002_000, 1000)
    clock.advance(5)
    assert (clock.now_ms(), clock.offset_ms) == (1_002_005, 1005)
    clock.drift(0.0)
    wall.now_ms += 1000
    assert clock.now_ms() == 1_002_005
    fired = []
    clock.call_later(1, lambda: fired.append(1))
    clock.advance(1)
    assert fired == [1]
    clock.drift(1.0)
    wall.now_ms += 10
    assert clock.now_ms() == 1_002_016
    with pytest.raises(ValueError):
        clock.drift(-1.0)
    clock.reset()
    assert (clock.now_ms(), clock.offset_ms, clock.rate) == (wall.now_ms, 0, 1.0)


async def test_reset_goes_back_properly(clock):
    seen = []
    clock.before_backward(seen.append)
    clock.advance(1000)
    clock.reset()
    assert seen == [1_001_000]
    assert clock.now_ms() == 1_000_000


async def test_time_before_the_epoch_is_time(clock):
    seen = []
    clock.before_backward(lambda now_ms: seen.append((now_ms, clock.now_ms())))
    clock.advance(-2_000_000)
    assert clock.now_ms() == -1_000_000
    clock.advance(-1)
    assert seen == [(1_000_000, 1_000_000), (-1_000_000, -1_000_000)]


async def test_a_closed_clock_holds_nothing(clock):
    class Owner:
        def due(self) -> None: ...

    owner = Owner()
    clock.call_later(1000, owner.due)
    clock.before_backward(lambda now_ms, owner=owner: None)
    gone = weakref.ref(owner)
    clock.close()
    assert clock._wake is None
    del owner
    gc.collect()
    assert gone() is None


class Model:
    """The same promises, written as slowly as possible."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.timers: list[tuple[int, int]] = []
        self.fired: list[int] = []
        self.backward: list[int] = []

    def fire(self, until_ms: int) -> None:
        for at_ms, name in sorted(self.timers):
            if at_ms <= until_ms:
                self.timers.remove((at_ms, name))
                self.fired.append(name)

    def move(self, by_ms: int) -> None:
        if by_ms < 0:
            self.fire(self.now_ms)
            self.backward.append(self.now_ms)
        self.now_ms += by_ms


moves = st.one_of(
    st.tuples(st.just("call"), st.integers(-20, 50)),
    st.tuples(st.just("cancel"), st.integers(0, 100)),
    st.tuples(st.just("advance"), st.integers(-60, 60)),
    st.tuples(st.just("wall"), st.integers(-60, 60)),
    st.tuples(st.just("reset"), st.just(0)),
    st.tuples(st.just("wake"), st.just(0)),
)


@settings(max_examples=200)
@given(st.lists(moves, max_size=40))
def test_the_clock_agrees_with_its_model(steps):
    async def run() -> None:
        wall = Wall(1000)
        clock, model = Clock(wall), Model(1000)
        fired: list[int] = []
        backward: list[int] = []
        clock.before_backward(backward.append)
        timers = []
        offset_ms = 0
        for what, number in steps:
            if what == "call":
                name = len(timers)
                timers.append(clock.call_later(number, lambda name=name: fired.append(name)))
                model.timers.append((model.now_ms + number, name))
            elif what == "cancel" and timers:
                name = number % len(timers)
                timers[name].cancel()
                model.timers = [each for each in model.timers if each[1] != name]
            elif what in ("advance", "reset"):
                by_ms = number if what == "advance" else -offset_ms
                clock.advance(number) if what == "advance" else clock.reset()
                offset_ms += by_ms
                model.move(by_ms)
                model.fire(model.now_ms)
            elif what == "wall":
                clock.now_ms()
                wall.now_ms += number
                model.move(number)
            elif what == "wake" and clock._wake is not None:
                clock._wake_up()
                model.fire(model.now_ms)
            assert clock.now_ms() == model.now_ms
            assert fired == model.fired
            assert backward == model.backward
            assert (clock._wake is not None) == bool(model.timers)
        clock.close()

    asyncio.run(run())


async def test_who_remembers_the_time_is_told_when_somebody_moves_it(clock, wall):
    told = []
    clock.on_change(lambda: told.append(clock.now_ms()))
    clock.advance(10)
    clock.advance(-5)
    wall.now_ms += 1
    clock.drift(2.0)
    assert told == [1_000_010, 1_000_005, 1_000_006]
    clock.reset()
    assert clock.now_ms() == told[-1] == 1_000_001
