"""The loop: asyncio's documented behaviour, on asyncio's own loop and on this one; then what only this one does."""

import asyncio
import contextvars
import gc
import itertools
import sys
import threading
import time
import weakref

import pytest

from minidist.sim.errors import DeadlockError, LivelockError, StuckError
from minidist.sim.host import Crash
from minidist.sim.loop import KEPT_CANCELLED, Policy, SimLoop, SimTask
from minidist.sim.random_streams import Streams
from minidist.sim.world import World

# --- the same everywhere ----------------------------------------------------------------------------------------------


def in_order(play):
    """What needs asyncio's order is not asked of the policy that shuffles."""
    if getattr(play, "__closure__", None) and play.__closure__[0].cell_contents is Policy.SHUFFLE:
        pytest.skip("this policy has no order")
    return play


def test_callbacks_run_in_the_order_of_their_calls_and_timers_in_that_of_their_times(play):
    async def main(net):
        loop = asyncio.get_running_loop()
        seen = []
        loop.call_later(0.02, seen.append, "later")
        loop.call_later(0.01, seen.append, "sooner")
        loop.call_soon(seen.append, 1)
        loop.call_soon(seen.append, 2)
        loop.call_soon(seen.append, 3).cancel()
        cancelled = loop.call_later(0.015, seen.append, "never")
        assert cancelled.when() > loop.time()
        cancelled.cancel()
        assert cancelled.cancelled()
        await asyncio.sleep(0)
        seen.append("next round")
        await asyncio.sleep(0.03)
        return seen

    assert in_order(play)(main) == [1, 2, "next round", "sooner", "later"]


def test_a_timer_that_is_due_does_not_wait_for_a_busy_loop(play):
    async def main(net):
        loop, over = asyncio.get_running_loop(), []
        loop.call_later(0, over.append, True)
        for _ in range(10_000):
            if over:
                return
            await asyncio.sleep(0)
        pytest.fail("the timer never ran")

    play(main)


def test_rounds(play):
    async def main(net):
        seen = []

        async def steps(name):
            for number in range(3):
                seen.append(f"{name}{number}")
                await asyncio.sleep(0)

        await asyncio.gather(steps("a"), steps("b"))
        return seen

    assert in_order(play)(main) == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_cancellation_timeouts_and_shields(play):
    async def main(net):
        seen = []

        async def work():
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise
            finally:
                seen.append("finally")

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await work()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(work(), 0.01)
        inner = asyncio.ensure_future(asyncio.sleep(0.02, "kept"))
        outer = asyncio.ensure_future(wait_for(asyncio.shield(inner)))
        await asyncio.sleep(0.001)
        outer.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await outer
        assert await inner == "kept"
        async with asyncio.timeout(None) as limit:
            limit.reschedule(asyncio.get_running_loop().time() + 0.01)
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(1)
            raise asyncio.CancelledError
        return seen

    async def wait_for(future):
        return await future

    with pytest.raises(TimeoutError):
        play(main)


def test_task_groups(play):
    async def main(net):
        seen = []

        async def fail():
            await asyncio.sleep(0.001)
            raise ZeroDivisionError("first")

        async def wait(name):
            try:
                await asyncio.sleep(10)
            finally:
                seen.append(name)

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(wait("one"), name="named")
                group.create_task(fail())
                group.create_task(wait("two"))
        assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
        return sorted(seen)

    assert play(main) == ["one", "two"]


def test_gather_wait_and_as_completed(play):
    async def main(net):
        async def after(seconds, value):
            await asyncio.sleep(seconds)
            if value is None:
                raise KeyError(value)
            return value

        assert await asyncio.gather(after(0.002, 1), after(0.001, 2)) == [1, 2]
        results = await asyncio.gather(after(0.002, 1), after(0, None), return_exceptions=True)
        assert isinstance(results[1], KeyError)
        tasks = [asyncio.ensure_future(after(delay / 100, delay)) for delay in (3, 1, 2)]
        assert [await each for each in asyncio.as_completed(tasks)] == [1, 2, 3]
        done, pending = await asyncio.wait(
            [asyncio.ensure_future(after(0.001, 1)), asyncio.ensure_future(after(5, 1))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert (len(done), len(pending)) == (1, 1)
        pending.pop().cancel()

    play(main)


def test_locks_events_conditions_semaphores_queues_barriers(play):
    async def main(net):
        lock, condition, semaphore = asyncio.Lock(), asyncio.Condition(), asyncio.Semaphore(2)
        queue, barrier, inside = asyncio.Queue(1), asyncio.Barrier(4), []

        async def work(number):
            async with lock:
                inside.append(number)
                await asyncio.sleep(0.001)
                assert inside.pop() == number
                assert not inside
            async with semaphore:
                await asyncio.sleep(0)
            await queue.put(number)
            async with condition:
                condition.notify_all()
            await barrier.wait()

        tasks = [asyncio.ensure_future(work(number)) for number in range(4)]
        got = {await queue.get() for _ in range(4)}
        await asyncio.gather(*tasks)
        async with condition:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(condition.wait(), 0.01)
        return got

    assert play(main) == {0, 1, 2, 3}


def test_context_variables(play):
    name = contextvars.ContextVar("name", default="none")

    async def main(net):
        seen = []
        name.set("main")
        context = contextvars.copy_context()
        context.run(name.set, "other")
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: seen.append(name.get()))
        loop.call_soon(lambda: seen.append(name.get()), context=context)
        await asyncio.sleep(0.001)

        async def look():
            seen.append(name.get())
            name.set("inside")

        await asyncio.create_task(look())
        await asyncio.create_task(look(), context=context)
        assert context[name] == "inside"
        assert name.get() == "main"
        return seen

    assert sorted(play(main)) == ["main", "main", "other", "other"]


def test_functions_in_threads(play):
    name = contextvars.ContextVar("name")

    async def main(net):
        name.set("ours")
        loop = asyncio.get_running_loop()
        assert await asyncio.to_thread(lambda: name.get()) == "ours"
        assert await loop.run_in_executor(None, max, 3, 4) == 4
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        running = loop.run_in_executor(None, max, 1, 2)
        assert not running.done()
        await running

    play(main)


def test_errors_that_nobody_handles_reach_the_handler(play):
    async def main(net):
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: 1 / 0)

        async def fail():
            raise KeyError("lost")

        task = asyncio.ensure_future(fail())
        await asyncio.wait([task])
        del task
        future = loop.create_future()
        future.set_exception(ValueError("never retrieved"))
        del future
        await asyncio.sleep(0.001)
        gc.collect()
        if isinstance(loop, SimLoop):
            loop.collect()
        kinds = {type(context["exception"]) for context in net.errors}
        net.errors.clear()
        return kinds

    assert play(main) == {ZeroDivisionError, KeyError, ValueError}


def test_generators_that_are_dropped_half_way_are_closed(play):
    async def main(net):
        closed = []

        async def count():
            try:
                for number in itertools.count():
                    yield number
            finally:
                await asyncio.sleep(0)
                closed.append("closed")

        async for number in count():
            if number == 2:
                break
        gc.collect()
        await asyncio.sleep(0.01)
        return closed

    assert play(main) == ["closed"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="since Python 3.12")
def test_eager_tasks(play):
    async def main(net):
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        seen = []

        async def quick():
            seen.append("quick")
            return 1

        async def slow():
            seen.append("slow")
            await asyncio.sleep(0.001)
            return 2

        first, second = asyncio.create_task(quick()), asyncio.create_task(slow(), name="slow")
        seen.append("made")
        assert first.done()
        assert (await first, await second, second.get_name()) == (1, 2, "slow")
        loop.set_task_factory(None)
        return seen

    assert play(main) == ["quick", "slow", "made"]


def test_a_task_factory(play):
    async def main(net):
        loop = asyncio.get_running_loop()
        made = []

        def factory(loop, coro, **options):
            made.append(set(options))
            return asyncio.Task(coro, loop=loop, **options)

        loop.set_task_factory(factory)
        assert loop.get_task_factory() is factory
        task = asyncio.create_task(asyncio.sleep(0, "done"), name="named")
        assert task.get_name() == "named"
        assert await task == "done"
        loop.set_task_factory(None)
        with pytest.raises(TypeError):
            loop.set_task_factory("no")
        return len(made)

    assert play(main) == 1


def test_current_and_all_tasks(play):
    async def main(net):
        other = asyncio.create_task(asyncio.sleep(0.001), name="other")
        assert asyncio.current_task() in asyncio.all_tasks()
        assert other in asyncio.all_tasks()
        await other
        assert other not in asyncio.all_tasks()
        return True

    assert play(main)


# --- the simulated loop only ------------------------------------------------------------------------------------------


def test_virtual_time_costs_nothing(world):
    host = world.host("a")

    async def main():
        await asyncio.sleep(30 * 86_400)
        return asyncio.get_running_loop().time()

    started_s = time.monotonic()
    assert world.run(host.start(main())) == 30 * 86_400
    assert time.monotonic() - started_s < 5


def test_a_runner_with_a_loop_factory():
    async def main():
        await asyncio.sleep(100)
        return asyncio.get_running_loop().time()

    async def forever(seen):
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            seen.append("closed")

    seen = []
    with asyncio.Runner(loop_factory=lambda: SimLoop(Streams(1))) as runner:
        assert runner.run(main()) == 100
        runner.get_loop().create_task(forever(seen))
        assert runner.run(main()) == 200
        loop = runner.get_loop()
    assert seen == ["closed"]
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)


def test_the_loop_refuses_to_run_inside_itself(world):
    async def main():
        coroutine = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already running"):
            asyncio.get_running_loop().run_until_complete(coroutine)
        with pytest.raises(RuntimeError, match="running event loop"):
            asyncio.get_running_loop().close()

    world.run(main())


def test_the_loop_can_be_stopped_and_run_on(world):
    loop = world.loop
    loop.call_later(5, loop.stop)
    loop.run_forever()
    assert loop.time() == 5
    pending = loop.create_task(asyncio.sleep(10, "over"))
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="before Future completed"):
        loop.run_until_complete(pending)
    assert loop.run_until_complete(pending) == "over"


def test_a_deadlock_is_an_error_that_says_who_waits_for_what(world):
    a, b = world.host("a"), world.host("b")
    lock = asyncio.Lock()

    async def hold():
        await lock.acquire()
        await queue_of_nothing()

    async def queue_of_nothing():
        await asyncio.Queue().get()

    async def wait():
        async with lock:
            pass

    async def main():
        a.start(hold(), "holder")
        await asyncio.sleep(1)
        await asyncio.gather(*(b.start(wait()) for _ in range(3)))

    with pytest.raises(DeadlockError) as caught:
        world.run(main())
    text = str(caught.value)
    assert "at 1.000000 s" in text
    assert "holder on a: " in text
    assert "hold (test_loop.py:" in text or "hold> (test_loop" in text or ".hold (test_loop" in text
    assert "Queue.get (queues.py:" in text
    assert "3 tasks (Task-" in text
    assert "Lock.acquire (locks.py:" in text
    assert "on the world: " in text


def test_a_deadlock_names_paused_hosts_and_omits_dead_ones(world):
    a, b = world.host("a"), world.host("b")

    async def main():
        a.start(asyncio.sleep(5), "sleeper")
        b.start(asyncio.sleep(5))
        a.pause()
        await asyncio.sleep(1)
        b.crash()
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlockError, match=r"(?s)sleeper on a \(paused\): .*1 tasks of hosts that have crashed"):
        world.run(main())


def test_a_livelock_is_an_error(world):
    async def spin():
        while True:
            await asyncio.sleep(0)

    with pytest.raises(LivelockError, match=r"steps at 0\.000000 s"):
        world.run(world.host("a").start(spin()))


def test_a_run_that_takes_too_long_is_an_error(world):
    async def tick():
        while True:
            await asyncio.sleep(1)

    with pytest.raises(StuckError, match=r"not over after 60 s.*(?s:.)*tick"):
        world.run(world.host("a").start(tick()), time_limit_s=60)
    world.loop.max_steps = 5000
    with pytest.raises(StuckError, match="more than 5000 steps"):
        world.run(world.host("b").start(tick()))


def test_shuffle_finds_another_order_for_another_seed():
    def order(seed):
        with World(seed, policy=Policy.SHUFFLE) as world:
            seen = []

            async def main():
                for number in range(6):
                    asyncio.get_running_loop().call_soon(seen.append, number)
                await asyncio.sleep(1)

            world.run(main())
            return tuple(seen)

    orders = {order(seed) for seed in range(30)}
    assert len(orders) > 20
    assert all(sorted(each) == list(range(6)) for each in orders)
    assert order(7) == order(7)


def test_what_the_loop_makes_hashes_by_its_number(world):
    loop = world.loop

    async def main():
        made = [
            loop.create_future(),
            loop.create_task(asyncio.sleep(0)),
            loop.call_soon(len, ""),
            loop.call_later(1, len),
        ]
        made += [loop.create_future() for _ in range(50)]
        made[3].cancel()
        await asyncio.sleep(0)
        return [hash(each) for each in made], [hash(each) for each in set(made)], len(set(made))

    hashes, in_set, count = world.run(main())
    assert hashes == sorted(hashes)
    assert count == 54
    assert len(set(hashes)) == 54
    assert sorted(in_set) == hashes


def test_cancelled_timers_do_not_pile_up(world):
    async def main():
        loop = asyncio.get_running_loop()
        kept = loop.call_later(50, len, "")
        for _ in range(5000):
            loop.call_later(1000, len, "").cancel()
        assert len(loop._timers) < 3 * KEPT_CANCELLED
        kept.cancel()
        kept.cancel()
        await asyncio.sleep(1)
        return loop.time()

    assert world.run(main()) == 1


def test_tasks_that_are_done_are_dropped(world):
    async def main():
        for _ in range(20_000):
            await asyncio.create_task(asyncio.sleep(0))
        return len(world.loop.tasks)

    assert world.run(main()) < 5000


def test_a_drifting_host_has_a_loop_time_of_its_own(world):
    fast, true = world.host("fast"), world.host("true")
    fired = {}

    async def wait(name, seconds):
        await asyncio.sleep(seconds)
        fired[name] = world.now_s, asyncio.get_running_loop().time(), time.monotonic()

    async def main():
        fast.start(wait("across", 20))
        true.start(wait("true", 20))
        await asyncio.sleep(10)
        fast.drift(2.0)
        assert fast.run(time.monotonic) == 10
        await fast.start(wait("fast", 4))
        await asyncio.sleep(30)

    world.run(main())
    assert fired["fast"] == (12, 14, 14)
    assert fired["across"] == (15, 20, 20)
    assert fired["true"] == (20, 20, 20)
    with pytest.raises(ValueError, match="positive"):
        fast.drift(0)


# --- lives ------------------------------------------------------------------------------------------------------------


def test_a_crash_runs_nothing_more_not_even_finally(world):
    host = world.host("a")
    seen = []

    async def work():
        try:
            await asyncio.sleep(1)
        except BaseException:
            seen.append("except")
            raise
        finally:
            seen.append("finally")

    async def main():
        task = host.start(work())
        host.run(world.loop.call_later, 0.7, seen.append, "timer")
        await asyncio.sleep(0.5)
        host.crash(Crash.POWER)
        host.crash(Crash.POWER)
        await asyncio.sleep(5)
        assert not task.done()
        with pytest.raises(ValueError, match="is running"):
            world.host("b").revive()
        with pytest.raises(ValueError, match="is down"):
            host.start(asyncio.sleep(1))
        host.revive()
        await host.start(asyncio.sleep(1))
        return list(seen)

    assert world.run(main()) == []


def test_a_paused_host_runs_later_what_came_due(world):
    host = world.host("a")
    seen = []

    async def tick():
        while True:
            await asyncio.sleep(1)
            seen.append(world.now_s)

    async def main():
        host.start(tick())
        await asyncio.sleep(2.5)
        host.pause()
        await asyncio.sleep(10)
        assert seen == [1, 2]
        host.resume()
        host.resume()
        await asyncio.sleep(1.2)

    world.run(main())
    assert seen == [1, 2, 12.5, 13.5]


def test_the_clock_survives_a_restart_and_drifts_and_jumps(world):
    host = world.host("a")

    async def main():
        before = host.clock.now_ms()
        await host.start(asyncio.sleep(1.5))
        assert host.clock.now_ms() == before + 1500
        host.run(host.clock.advance, 60_000)
        host.crash()
        host.revive()
        assert host.clock.now_ms() == before + 61_500
        host.wall_offset_s = -10
        assert host.clock.now_ms() == before + 51_500

    world.run(main())


def test_what_a_dead_life_leaves_is_no_error_and_ends_without_a_word(world):
    host = world.host("a")
    ended = []

    async def stubborn():
        try:
            await asyncio.sleep(1)
        finally:
            ended.append("finally")
            await asyncio.sleep(1)

    async def fail():
        raise KeyError("nobody looks")

    async def main():
        host.start(stubborn())
        task = host.start(fail())
        await asyncio.sleep(0.5)
        assert task.done()
        host.crash()

    world.run(main())
    assert world.errors == []
    world.close()
    world.close()
    assert ended == ["finally"]  # the coroutine's memory is freed, when nothing counts any more


def test_an_error_that_nobody_looked_at_is_found_before_the_run_is_over(world):
    async def fail():
        raise KeyError("nobody looks")

    async def main():
        asyncio.get_running_loop().create_task(fail())
        await asyncio.sleep(1)

    world.run(world.host("a").start(main()))
    assert [type(context["exception"]) for context in world.errors] == [KeyError]


def test_the_exception_handler_may_fail_itself(world):
    async def main():
        loop = asyncio.get_running_loop()
        handled = []
        loop.set_exception_handler(lambda _, context: handled.append(1 / 0))
        loop.call_soon(lambda: [][1])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(TypeError):
            loop.set_exception_handler(1)

    world.run(main())
    assert [type(context["exception"]) for context in world.errors] == [IndexError, ZeroDivisionError]


def test_worlds_leave_nothing_behind():
    gc.collect()
    threads, collecting, frozen = threading.active_count(), gc.isenabled(), gc.get_freeze_count()
    held = []

    async def forever():
        held.append(weakref.ref(asyncio.current_task()))
        await asyncio.get_running_loop().create_future()

    async def main(host):
        host.start(forever())
        await asyncio.sleep(1)

    with World(1) as world:
        world.run(main(world.host("a")))
    del world
    gc.collect()
    assert held[0]() is None
    assert (threading.active_count(), gc.isenabled()) == (threads, collecting)
    assert gc.get_freeze_count() <= frozen


def test_tasks_know_their_host(world):
    host = world.host("a")
    task = host.start(asyncio.sleep(0))
    assert isinstance(task, SimTask)
    assert task.host is host
    world.run(task)
