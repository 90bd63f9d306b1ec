"""An asyncio event loop whose time is virtual and whose order of events comes from a seed.

`call_soon` and `call_at` are the only doors into an event loop, tasks and futures included; this one owns them. It runs
what is ready, in rounds as asyncio's does, and when nothing is, moves the clock to the next timer. So an hour of
waiting costs nothing, and a run depends on nothing but its seed.

* Every handle belongs to the host whose code scheduled it (a context variable, which tasks inherit). A host that has
  crashed runs no handle any more: no `finally`, no `except CancelledError`; its tasks are kept, unrun, until the end,
  as a power cut would have it. A paused host's handles wait until it is resumed.
* `time()` is the loop time of the host that asks: it may drift against the world's.
* Two policies: `FIFO` keeps asyncio's order, `SHUFFLE` takes any ready handle next. Bytes of one stream, and what must
  precede them, stay in order under both: the network never has two handles of one direction ready at a time.
* Nothing ready and no timer is a deadlock, and an error that shows what each task waits for; very many steps at one
  instant are a livelock.
* Tasks, futures and handles hash by the order in which they were made: asyncio and anyio iterate over sets of them.
* Garbage is collected at fixed numbers of steps, since collecting runs finalizers (entropy.py disables the collector).

Threads run inline (`run_in_executor`); what belongs to the real machine is a leak (fence.py).
"""

import asyncio
import collections
import contextvars
import gc
import heapq
import itertools
import sys
import traceback
import weakref
from asyncio import events
from collections.abc import AsyncGenerator, Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from minidist.sim import dump
from minidist.sim.current import current_host as current_host  # others import it from here
from minidist.sim.errors import DeadlockError, LeakError, LivelockError, StuckError
from minidist.sim.fence import FencedLoop
from minidist.sim.random_streams import Streams
from minidist.sim.tasks import SimFuture, SimHandle, SimTimer
from minidist.sim.tasks import SimTask as SimTask  # others import it from here
from minidist.sim.trace import HOST_BITS, Trace

if TYPE_CHECKING:
    from minidist.sim.host import Host
    from minidist.sim.network import Network

MAX_STEPS_AT_ONE_INSTANT = 200_000
LOOK_EVERY = 1024  # steps between two looks at the limits
COLLECT_EVERY = 64 * LOOK_EVERY
KEPT_CANCELLED = 128  # cancelled timers stay in the heap until they are half of it, and at least so many
KEPT_DONE = 1024  # tasks that are done are dropped when so many more have been made, or at a collection
EPOCH_NS = 1_000_000_000_000_000_000  # virtual time begins here on every wall clock: 2001-09-09
MAX_CLOSINGS = 8  # how often a coroutine may ignore GeneratorExit when the world ends

Context = contextvars.Context

_EAGER_FACTORY = getattr(asyncio, "eager_task_factory", None)  # since Python 3.12
_THE_WORLD = contextvars.Context()  # what belongs to no host runs in it


class Policy(Enum):
    """Which of several ready callbacks runs next."""

    FIFO = "fifo"
    SHUFFLE = "shuffle"


class SimLoop(FencedLoop):
    """The loop of one simulated world."""

    slow_callback_duration = 0.1  # asyncio's attribute; nothing is slow in virtual time

    def __init__(self, streams: Streams, *, policy: Policy = Policy.FIFO, trace: Trace | None = None) -> None:
        self.streams = streams
        self.policy = policy
        self.trace = trace or Trace()
        self.now_s = 0.0
        self.steps = 0
        self.max_steps: int | None = None
        self.max_time_s: float | None = None
        self.errors: list[dict[str, Any]] = []  # what reached the exception handler
        self.network: Network | None = None
        self.tasks: list[asyncio.Task[Any]] = []  # strong references: a crashed host's tasks outlive its life
        self._prune_at = KEPT_DONE
        self._ready: collections.deque[SimHandle | SimTimer] = collections.deque()
        self._timers: list[tuple[float, int, SimTimer]] = []
        self._cancelled_timers = 0
        self._numbers = itertools.count(1)
        self.next_number: Callable[[], int] = self._numbers.__next__
        self._running = self._stopping = self._closed = False
        self._debug = False
        self._task_names = itertools.count(1)
        self._exception_handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        self._task_factory: Any = None
        self._steps_before_instant = 0
        self._generators: dict[int, tuple[weakref.ref[Any], Context]] = {}

    # --- running ----------------------------------------------------------------------------------------------------

    def run_until_complete(self, future: Any) -> Any:
        """Run until the future is done. Raises DeadlockError, LivelockError, StuckError."""
        self._check_open()
        main = asyncio.ensure_future(future, loop=self)
        main.add_done_callback(self._main_done)
        try:
            self.run_forever()
        finally:
            main.remove_done_callback(self._main_done)
        if not main.done():
            raise RuntimeError("Event loop stopped before Future completed.")
        return main.result()

    def _main_done(self, main: object) -> None:
        self.stop()

    def run_forever(self) -> None:
        self._check_open()
        if self._running:
            raise RuntimeError("This event loop is already running")
        self._running, self._stopping = True, False
        before, hooks = events._get_running_loop(), sys.get_asyncgen_hooks()
        events._set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=self._generator_begins, finalizer=self._generator_dropped)
        try:
            while not self._stopping:
                self._run_round()
        finally:
            self._running = False
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(before)

    def _run_round(self) -> None:
        """What is ready now, as asyncio's `_run_once` does: what these callbacks schedule comes in the next round."""
        ready, add, shuffle = self._ready, self.trace.add, self.policy is Policy.SHUFFLE
        handle: SimHandle | SimTimer | None
        if not ready:
            self._jump()
        elif self._timers and self._timers[0][0] <= self.now_s:
            self._take_due()
        for _ in range(len(ready)):
            if shuffle and len(ready) > 1:
                ready.rotate(-int(self.streams.scheduling.random() * len(ready)))
            handle = ready.popleft()
            if handle._cancelled:
                continue
            host = handle.host
            if host is None:
                add(handle.number << HOST_BITS)
            elif host.incarnation != handle.incarnation:
                continue  # of a life that a crash has ended
            elif host.paused:
                host.waiting.append(handle)
                continue
            else:
                add(handle.number << HOST_BITS | host.number)
            self.steps += 1
            if not self.steps % LOOK_EVERY:
                self._look_at_limits()
            handle._run()
        handle = None  # a traceback that is kept keeps this frame, and must not keep a task

    def _look_at_limits(self) -> None:
        self.trace.fold()
        if not self.steps % COLLECT_EVERY:
            self.collect()
        here = self.steps - self._steps_before_instant
        if here > MAX_STEPS_AT_ONE_INSTANT:
            raise LivelockError(f"{here} steps at {self.now_s:.6f} s:\n{self.dump()}")
        if self.max_steps is not None and self.steps > self.max_steps:
            raise StuckError(f"more than {self.max_steps} steps:\n{self.dump()}")

    def _jump(self) -> None:
        """Nothing is ready: on to the next timer."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
            self._cancelled_timers -= 1
        if not timers:
            raise DeadlockError(f"nothing is ready and no timer is set at {self.now_s:.6f} s:\n{self.dump()}")
        at_s = timers[0][0]
        if self.max_time_s is not None and at_s > self.max_time_s:
            raise StuckError(f"not over after {self.max_time_s:g} s of virtual time:\n{self.dump()}")
        if at_s > self.now_s:
            self.now_s = at_s
            self._steps_before_instant = self.steps
            self.trace.add(int(at_s * 1e9))
        self._take_due()

    def _take_due(self) -> None:
        timers, ready = self._timers, self._ready
        while timers and timers[0][0] <= self.now_s:
            handle = heapq.heappop(timers)[2]
            handle._scheduled = False
            if handle._cancelled:
                self._cancelled_timers -= 1
            else:
                ready.append(handle)

    def stop(self) -> None:
        """After the present round, as asyncio does."""
        self._stopping = True

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("Event loop is closed")

    def close(self) -> None:
        """Forget everything. What tasks that never ended do on the way out does not count any more."""
        if self._running:
            raise RuntimeError("Cannot close a running event loop")
        self._closed = True
        self._ready.clear()
        self._timers.clear()
        self._generators.clear()
        for task in self.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                context = getattr(task, "context", _THE_WORLD)
                context.run(_close_coroutine, task.get_coro())
        self.tasks.clear()

    def collect(self) -> None:
        """Collect garbage at a moment that the run chooses, so that finalizers run at the same step each time."""
        self._drop_done_tasks()
        gc.collect()

    def dump(self) -> str:
        """Each unfinished task with its host and the line at which it waits, and what the network holds back."""
        held = self.network.held_back() if self.network is not None else []
        return dump.describe(self.tasks, held)

    # --- scheduling -------------------------------------------------------------------------------------------------

    def time(self) -> float:
        """The loop time of the host that asks, in seconds."""
        host = current_host.get()
        return self.now_s if host is None or host.loop_rate == 1.0 else host.loop_time_s(self.now_s)

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> SimHandle:  # type: ignore[override]
        if self._closed:
            raise RuntimeError("Event loop is closed")
        if context is None:
            context = contextvars.copy_context()
        handle = SimHandle(callback, args, self, context)
        handle.number = self.next_number()
        host = handle.host = context.get(current_host)
        handle.incarnation = 0 if host is None else host.incarnation
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there are no threads

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> SimTimer:  # type: ignore[override]
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> SimTimer:  # type: ignore[override]
        """`when` is the loop time of the host that asks."""
        if context is None:
            context = contextvars.copy_context()
        host = context.get(current_host)
        at_s = when if host is None or host.loop_rate == 1.0 else host.world_time_s(when)
        handle = self._set_timer(when, at_s, callback, args, context)
        handle.of_loop_time = True
        return handle

    def at_world_time(
        self, at_s: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> SimTimer:
        """A timer on the world's own time: of the network, of a disk, of a schedule of faults.

        With the context of a host it belongs to that host (waits while it is paused, dies with it); else to the world.
        """
        return self._set_timer(at_s, at_s, callback, args, context or _THE_WORLD)

    def _set_timer(self, when: float, at_s: float, callback: Any, args: Any, context: Context) -> SimTimer:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle = SimTimer(when, callback, args, self, context)
        handle.number = self.next_number()
        host = handle.host = context.get(current_host)
        handle.incarnation = 0 if host is None else host.incarnation
        handle.of_loop_time = False
        handle._scheduled = True
        heapq.heappush(self._timers, (at_s if at_s > self.now_s else self.now_s, handle.number, handle))
        return handle

    def _timer_handle_cancelled(self, handle: SimTimer) -> None:
        """asyncio's handles call this when they are cancelled."""
        if handle._scheduled:
            self._cancelled_timers += 1
            if self._cancelled_timers > KEPT_CANCELLED and self._cancelled_timers * 2 > len(self._timers):
                handle._cancelled = True
                self._timers[:] = [entry for entry in self._timers if not entry[2]._cancelled]
                heapq.heapify(self._timers)
                self._cancelled_timers = 0
                handle._scheduled = False

    def rate_changed(self, host: "Host") -> None:
        """The host's loop time runs differently from now on: its timers fall due at other moments of the world."""
        self._timers[:] = [
            (max(host.world_time_s(handle.when()), self.now_s), number, handle)
            if handle.host is host and handle.of_loop_time
            else (at_s, number, handle)
            for at_s, number, handle in self._timers
        ]
        heapq.heapify(self._timers)

    def wake(self, handles: Sequence[Any]) -> None:
        """The handles of a host that was paused: they are ready again, in their order."""
        self._ready.extend(handles)

    def create_future(self) -> SimFuture:
        return SimFuture(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **options: Any
    ) -> SimTask:
        """`options` are what later versions of Python add (`eager_start`)."""
        self._check_open()
        name = name or f"Task-{next(self._task_names)}"
        task: SimTask
        if self._task_factory is None or self._task_factory is _EAGER_FACTORY:
            if self._task_factory is not None:
                options.setdefault("eager_start", True)
            task = SimTask(coro, loop=self, name=name, context=context or contextvars.copy_context(), **options)
        else:
            if context is not None:
                options["context"] = context
            task = self._task_factory(self, coro, **options)
            task.set_name(name)
        self.tasks.append(task)
        if len(self.tasks) >= self._prune_at:
            self._drop_done_tasks()
        return task

    def _drop_done_tasks(self) -> None:
        self.tasks = [task for task in self.tasks if not task.done()]
        self._prune_at = 2 * len(self.tasks) + KEPT_DONE

    def set_task_factory(self, factory: Any) -> None:
        if factory is not None and not callable(factory):
            raise TypeError("task factory must be a callable or None")
        self._task_factory = factory

    def get_task_factory(self) -> Any:
        return self._task_factory

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> SimFuture:  # type: ignore[override]
        """Inline, in the next round: a thread would bring real time in. What the function leaks is caught."""
        future = self.create_future()
        self.call_soon(_run_inline, future, func, args)
        return future

    def set_default_executor(self, executor: Any) -> None:
        """Taken and ignored: nothing runs in threads."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        pass

    # --- asynchronous generators: those dropped half-way are closed by the loop, as asyncio does --------------------

    def _generator_begins(self, generator: AsyncGenerator[Any, Any]) -> None:
        key = id(generator)  # only ever looked up, never ordered by
        self._generators[key] = weakref.ref(generator), contextvars.copy_context()

    def _generator_dropped(self, generator: AsyncGenerator[Any, Any]) -> None:
        _, context = self._generators.pop(id(generator), (None, None))
        if context is not None and not self._closed:
            self.call_soon(self.create_task, generator.aclose(), context=context)

    async def shutdown_asyncgens(self) -> None:
        """Close what is still half-way through (asyncio.Runner asks for it)."""
        alive = [generator for ref, _ in self._generators.values() if (generator := ref()) is not None]
        self._generators.clear()
        await asyncio.gather(*(generator.aclose() for generator in alive), return_exceptions=True)

    # --- errors -----------------------------------------------------------------------------------------------------

    def get_exception_handler(self) -> Any:
        return self._exception_handler

    def set_exception_handler(self, handler: Any) -> None:
        if handler is not None and not callable(handler):
            raise TypeError(f"A callable object or None is expected, got {handler!r}")
        self._exception_handler = handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """A line of the trace; `errors` has the whole."""
        error = context.get("exception")
        text = "".join(traceback.format_exception(error)) if error else str(context.get("message"))
        host = current_host.get()
        self.trace.note(self.now_s, host.name if host else "world", f"error: {text}")

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An exception that nobody handled; kept, because a simulated run in which one occurred has failed.

        Except for what a crashed life has left behind: nobody was there any more to look at it.
        """
        subject = context.get("task") or context.get("future") or context.get("handle")
        host = getattr(subject, "host", None)
        if self._closed or (host is not None and host.incarnation != getattr(subject, "incarnation", 0)):
            return
        self.errors.append(context)
        if self._exception_handler is None:
            self.default_exception_handler(context)
            return
        try:
            self._exception_handler(self, context)
        except Exception as error:
            self.errors.append({"message": "Unhandled error in exception handler", "exception": error})

    def get_debug(self) -> bool:
        return self._debug

    def set_debug(self, enabled: bool) -> None:
        self._debug = enabled

    # --- the network (network.py) -----------------------------------------------------------------------------------

    @property
    def net(self) -> "Network":
        if self.network is None:
            raise LeakError("this simulated loop has no network")
        return self.network

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        return await self.net.getaddrinfo(host, port, **hints)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        return self.net.name_of(sockaddr[0]), str(sockaddr[1])

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        return await self.net.create_connection(protocol_factory, host, port, **options)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        return await self.net.create_server(protocol_factory, host, port, **options)

    async def create_datagram_endpoint(
        self, protocol_factory: Any, local_addr: Any = None, remote_addr: Any = None, **options: Any
    ) -> Any:
        return await self.net.create_datagram_endpoint(protocol_factory, local_addr, remote_addr, **options)


def _run_inline(future: SimFuture, func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if future.cancelled():
        return
    try:
        result = func(*args)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _close_coroutine(coroutine: Any) -> None:
    """End a coroutine that will never run again; it may await in its `finally`, which nobody answers."""
    for _ in range(MAX_CLOSINGS):
        try:
            coroutine.close()
        except RuntimeError as error:
            if "ignored GeneratorExit" in str(error):
                continue
        except (Exception, asyncio.CancelledError, SystemExit):
            pass
        return
