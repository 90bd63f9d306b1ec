"""What the loop makes: handles, timers, futures and tasks that know whose they are and in which order they were made.

They hash by their number: asyncio and anyio keep tasks in sets, and iterate over them.
"""

import asyncio
import contextvars
from asyncio import events
from typing import TYPE_CHECKING, Any

from minidist.sim.current import current_host

if TYPE_CHECKING:
    from minidist.sim.host import Host
    from minidist.sim.loop import SimLoop


class SimHandle(events.Handle):
    """A callback with its number and the life it belongs to."""

    __slots__ = ("host", "incarnation", "number")

    host: "Host | None"
    incarnation: int
    number: int

    def __hash__(self) -> int:
        return self.number


class SimTimer(events.TimerHandle):
    __slots__ = ("host", "incarnation", "number", "of_loop_time")

    host: "Host | None"
    incarnation: int
    number: int
    of_loop_time: bool  # `when` is the host's loop time, and so depends on its drift
    _scheduled: bool

    def __hash__(self) -> int:
        return self.number


class SimFuture(asyncio.Future[Any]):
    """A future that hashes by its number, and knows the life that made it."""

    __slots__ = ("host", "incarnation", "number")

    def __init__(self, *, loop: "SimLoop") -> None:
        super().__init__(loop=loop)
        self.number = loop.next_number()
        self.host = current_host.get()
        self.incarnation = 0 if self.host is None else self.host.incarnation

    def __hash__(self) -> int:
        return self.number


class SimTask(asyncio.Task[Any]):
    """A task that hashes by its number, and knows the life it belongs to."""

    __slots__ = ("context", "host", "incarnation", "number")

    def __init__(self, coro: Any, *, loop: "SimLoop", context: contextvars.Context, **options: Any) -> None:
        self.number = loop.next_number()
        self.context = context
        self.host = context.get(current_host)
        self.incarnation = 0 if self.host is None else self.host.incarnation
        super().__init__(coro, loop=loop, context=context, **options)

    def __hash__(self) -> int:
        return self.number
