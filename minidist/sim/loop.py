"""An asyncio event loop whose time is virtual and whose order of events comes from a seed.

`call_soon` and `call_at` are the only doors into an event loop, tasks and futures included; this one owns them. It runs
what is ready, and when nothing is, moves the clock to the next timer. So an hour of waiting costs nothing, and a run
depends on nothing but its seed.

* Every handle belongs to the node whose code scheduled it (a context variable, which tasks inherit). A node that has
  crashed runs no handle any more: no `finally`, no `except CancelledError`; its tasks are kept, unrun, until the end,
  as a power cut would have it. A paused node's handles wait until it is resumed.
* `time()` is the loop time of the node that asks: it may drift against the world's.
* Two policies: `FIFO` keeps asyncio's order, `SHUFFLE` takes any ready handle next. Bytes of one stream, and what must
  precede them, stay in order under both, because the network schedules one delivery of a direction at a time.
* Nothing ready and no timer is a deadlock, and an error that shows what each task waits for; very many steps at one
  instant are a livelock.
* Tasks, futures and handles hash by the order in which they were made: asyncio and anyio iterate over sets of them.

Threads, subprocesses, signals, pipes and raw sockets have no place here and raise LeakError.
"""

import asyncio
import collections
import contextvars
import heapq
import itertools
import traceback
from asyncio import events
from collections.abc import Callable, Coroutine, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from minidist.sim.errors import DeadlockError, LeakError, LivelockError, StuckError
from minidist.sim.random_streams import Streams
from minidist.sim.trace import Trace

if TYPE_CHECKING:
    from minidist.sim.host import Host
    from minidist.sim.network import Network

T = TypeVar("T")

MAX_STEPS_AT_ONE_INSTANT = 200_000
FOLD_EVERY = 1024
EPOCH_S = 1_000_000_000.0  # virtual time begins here on every wall clock: 2001-09-09

current_host: "contextvars.ContextVar[Host | None]" = contextvars.ContextVar("minidist_sim_host", default=None)


class Policy(Enum):
    """Which of several ready callbacks runs next."""

    FIFO = "fifo"
    SHUFFLE = "shuffle"


class SimHandle(events.Handle):
    """A callback with its number and the host it belongs to."""

    __slots__ = ("host", "incarnation", "number")

    def __hash__(self) -> int:
        return self.number


class SimTimer(events.TimerHandle):
    __slots__ = ("host", "incarnation", "number")

    def __hash__(self) -> int:
        return self.number


class SimFuture(asyncio.Future[Any]):
    """A future that hashes by its number."""

    def __init__(self, *, loop: "SimLoop") -> None:
        super().__init__(loop=loop)
        self.number = loop.next_number()

    def __hash__(self) -> int:
        return self.number

    __eq__ = object.__eq__


class SimTask(asyncio.Task[Any]):
    """A task that hashes by its number."""

    def __init__(self, coro: Any, *, loop: "SimLoop", **options: Any) -> None:
        self.number = loop.next_number()
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number

    __eq__ = object.__eq__


class SimLoop(asyncio.AbstractEventLoop):
    """The loop of one simulated world."""

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
        self.tasks: list[SimTask] = []  # strong references: a crashed node's tasks must not be collected mid-run
        self._ready: collections.deque[Any] = collections.deque()
        self._timers: list[tuple[float, int, Any]] = []
        self._numbers = itertools.count(1)
        self.next_number: Callable[[], int] = self._numbers.__next__
        self._running = False
        self._stopping = False
        self._closed = False
        self._debug = False
        self._task_names = itertools.count(1)
        self._exception_handler: Any = None
        self._task_factory: Any = None
        self._steps_here = 0

    # --- running ----------------------------------------------------------------------------------------------------

    def run_until_complete(self, future: Any) -> Any:
        """Run until the future is done. Raises DeadlockError, LivelockError, StuckError."""
        main = asyncio.ensure_future(future, loop=self)
        main.add_done_callback(self._main_done)
        try:
            self.run_forever()
        finally:
            main.remove_done_callback(self._main_done)
        if not main.done():
            raise RuntimeError("the loop was stopped before the future was done")
        return main.result()

    def _main_done(self, main: Any) -> None:
        self.stop()

    def run_forever(self) -> None:
        if self._running:
            raise RuntimeError("this loop is running already")
        self._running, self._stopping = True, False
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            self._run()
        finally:
            self._running = False
            events._set_running_loop(before)

    def _run(self) -> None:
        ready, add, shuffle = self._ready, self.trace.add, self.policy is Policy.SHUFFLE
        pick = self.streams.scheduling.random
        while not self._stopping:
            if not ready:
                self._jump()
                continue
            if shuffle and len(ready) > 1:
                ready.rotate(-int(pick() * len(ready)))
            handle = ready.popleft()
            if handle._cancelled:
                continue
            host = handle.host
            if host is not None:
                if host.incarnation != handle.incarnation:
                    continue  # of a life that a crash has ended
                if host.paused:
                    host.waiting.append(handle)
                    continue
            self.steps += 1
            self._steps_here += 1
            add(handle.number)
            if not self.steps % FOLD_EVERY:
                self._look_at_limits()
            handle._run()

    def _look_at_limits(self) -> None:
        self.trace.fold()
        if self._steps_here > MAX_STEPS_AT_ONE_INSTANT:
            raise LivelockError(f"{self._steps_here} steps at {self.now_s:.6f} s:\n{self.dump()}")
        if self.max_steps is not None and self.steps > self.max_steps:
            raise StuckError(f"more than {self.max_steps} steps:\n{self.dump()}")

    def _jump(self) -> None:
        """Nothing is ready: on to the next timer, and to all of the same instant."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise DeadlockError(f"nothing is ready and no timer is set at {self.now_s:.6f} s:\n{self.dump()}")
        at_s = timers[0][0]
        if at_s > self.now_s:
            self.now_s = at_s
            self._steps_here = 0
            self.trace.add(int(at_s * 1e9))
        if self.max_time_s is not None and at_s > self.max_time_s:
            raise StuckError(f"not over after {self.max_time_s:g} s of virtual time:\n{self.dump()}")
        while timers and timers[0][0] <= at_s:
            handle = heapq.heappop(timers)[2]
            handle._scheduled = False
            if not handle._cancelled:
                self._ready.append(handle)

    def stop(self) -> None:
        self._stopping = True

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Forget everything; tasks that never ended say nothing about it."""
        self._closed = True
        self._ready.clear()
        self._timers.clear()
        for task in self.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                task.get_coro().close() if _never_started(task) else None  # type: ignore[union-attr]

    def dump(self) -> str:
        """Each unfinished task with its host and the line at which it waits."""
        lines = []
        for task in self.tasks:
            if not task.done():
                stack = task.get_stack(limit=1)
                where = f"{stack[-1].f_code.co_filename}:{stack[-1].f_lineno}" if stack else "not started"
                host = task.get_context().get(current_host) if hasattr(task, "get_context") else None
                lines.append(f"  {task.get_name()} on {host.name if host else 'the world'}: {where}")
        return "\n".join(lines) or "  (no task is left)"

    # --- scheduling -------------------------------------------------------------------------------------------------

    def time(self) -> float:
        """The loop time of the host that asks, in seconds."""
        host = current_host.get()
        return self.now_s if host is None or host.loop_rate == 1.0 else host.loop_time_s(self.now_s)

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> SimHandle:  # type: ignore[override]
        handle = SimHandle(callback, args, self, context)
        handle.number = self.next_number()
        host = handle.host = handle._context.get(current_host)  # type: ignore[attr-defined]
        handle.incarnation = 0 if host is None else host.incarnation
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> SimHandle:  # type: ignore[override]
        return self.call_soon(callback, *args, context=context)

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> SimTimer:  # type: ignore[override]
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> SimTimer:  # type: ignore[override]
        handle = SimTimer(when, callback, args, self, context)
        handle.number = self.next_number()
        host = handle.host = handle._context.get(current_host)  # type: ignore[attr-defined]
        handle.incarnation = 0 if host is None else host.incarnation
        at_s = when if host is None or host.loop_rate == 1.0 else host.world_time_s(when)
        handle._scheduled = True
        heapq.heappush(self._timers, (max(at_s, self.now_s), handle.number, handle))
        return handle

    def at_world_time(
        self, at_s: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> SimTimer:
        """A timer on the world's own time: of the network, of a disk, of a schedule of faults.

        With the context of a host it belongs to that host (waits while it is paused, dies with it); else to the world.
        """
        context = context or _THE_WORLD.copy()
        handle = SimTimer(at_s, callback, args, self, context)
        handle.number = self.next_number()
        host = handle.host = context.get(current_host)
        handle.incarnation = 0 if host is None else host.incarnation
        handle._scheduled = True
        heapq.heappush(self._timers, (max(at_s, self.now_s), handle.number, handle))
        return handle

    def _timer_handle_cancelled(self, handle: Any) -> None:
        """asyncio counts cancelled timers; the heap here drops them when it meets them."""

    def wake(self, handles: Sequence[Any]) -> None:
        """The handles of a host that was paused: they are ready again, in their order."""
        self._ready.extend(handles)

    def create_future(self) -> SimFuture:
        return SimFuture(loop=self)

    def create_task(self, coro: Any, **options: Any) -> SimTask:  # type: ignore[override]
        if options.get("name") is None:
            options["name"] = f"task-{next(self._task_names)}"
        options.pop("eager_start", None)
        if self._task_factory is not None:
            task: SimTask = self._task_factory(self, coro, **options)
        else:
            task = SimTask(coro, loop=self, **options)
        self.tasks.append(task)
        if len(self.tasks) > 4096 and not len(self.tasks) % 4096:
            self.tasks = [each for each in self.tasks if not each.done()]
        return task

    def set_task_factory(self, factory: Any) -> None:
        self._task_factory = factory

    def get_task_factory(self) -> Any:
        return self._task_factory

    # --- errors -----------------------------------------------------------------------------------------------------

    def get_exception_handler(self) -> Any:
        return self._exception_handler

    def set_exception_handler(self, handler: Any) -> None:
        self._exception_handler = handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        text = "".join(traceback.format_exception(error)) if error else str(context.get("message"))
        host = current_host.get()
        self.trace.note(self.now_s, host.name if host else "world", f"error: {text}")

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An exception that nobody handled; kept, because a simulated run in which one occurred has failed."""
        self.errors.append(context)
        if self._exception_handler is not None:
            self._exception_handler(self, context)
        else:
            self.default_exception_handler(context)

    def get_debug(self) -> bool:
        return self._debug

    def set_debug(self, enabled: bool) -> None:
        self._debug = enabled

    async def shutdown_asyncgens(self) -> None:
        pass

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        pass

    # --- the network (network.py) -----------------------------------------------------------------------------------

    @property
    def net(self) -> "Network":
        if self.network is None:
            raise LeakError("this simulated loop has no network")
        return self.network

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:  # type: ignore[override]
        return await self.net.getaddrinfo(host, port, **hints)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        return str(sockaddr[0]), str(sockaddr[1])

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:  # type: ignore[override]
        return await self.net.create_connection(protocol_factory, host, port, **options)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:  # type: ignore[override]
        return await self.net.create_server(protocol_factory, host, port, **options)

    async def create_datagram_endpoint(self, protocol_factory: Any, **options: Any) -> Any:  # type: ignore[override]
        return await self.net.create_datagram_endpoint(protocol_factory, **options)

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await self.net.sock_connect(sock, address)

    # --- what has no place here -------------------------------------------------------------------------------------

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> Any:
        """Inline: a thread would bring real time in. Only pure functions may be run here; what they leak is caught."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _leak(self, what: str) -> NoReturn:
        raise LeakError(f"{what} has no place in a simulation\n{''.join(traceback.format_stack(limit=8))}")

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        self._leak("add_reader on a real descriptor")

    def add_writer(self, fd: Any, callback: Any, *args: Any) -> None:
        self._leak("add_writer on a real descriptor")

    def remove_reader(self, fd: Any) -> bool:
        return False

    def remove_writer(self, fd: Any) -> bool:
        return False

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:
        self._leak("a signal handler")

    def remove_signal_handler(self, sig: int) -> bool:
        return False

    async def subprocess_exec(self, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        self._leak("a subprocess")

    async def subprocess_shell(self, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        self._leak("a subprocess")

    async def create_unix_server(self, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        self._leak("a Unix socket")

    async def create_unix_connection(self, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        self._leak("a Unix socket")


_THE_WORLD = contextvars.Context()


def _never_started(task: SimTask) -> bool:
    coroutine = task.get_coro()
    return (
        isinstance(coroutine, Coroutine)
        and getattr(coroutine, "cr_frame", None) is not None
        and not getattr(coroutine, "cr_running", False)
        and getattr(coroutine.cr_frame, "f_lasti", 0) < 0
    )  # type: ignore[attr-defined]
