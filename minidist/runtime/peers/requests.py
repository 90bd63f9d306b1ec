"""Requests over a link: those we wait for, and those we answer.

Every request has a deadline. Deadlines are rounded up to a tick of 10 ms, so that all requests of a tick share one loop
timer instead of having one each; a reply that comes in time just leaves its number behind in the tick's list.

A handler is a plain function `handler(peer, body)` whose result is the reply, sent with the others of the same wake-up.
It may return an awaitable instead, for an answer that has to wait (for a quorum, for a disk): a future is answered when
it is done, a coroutine runs as a task under the requester's deadline and is cancelled there. An error is answered by
raising `RequestFailed.answer(code, reason)`; any other exception is a bug of ours, reported to the loop and answered as
"internal".
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from minidist.runtime.peers.errors import LinkLost, RequestFailed, Timeout
from minidist.wire.frames import Frame, FrameTooLarge, Kind

if TYPE_CHECKING:
    from minidist.runtime.peers.link import Link

Body = Any
"""What msgpack has: None, bool, int, float, str, bytes, list, and dict with str or bytes keys."""

Handler = Callable[[str, Body], Body | Awaitable[Body]]

TICKS_PER_S = 100


class Requests:
    """What this node has asked over one link."""

    __slots__ = ("_last_id", "_link", "_pending", "_ticks")

    def __init__(self, link: "Link") -> None:
        self._link = link
        self._last_id = 0
        self._pending: dict[int, asyncio.Future[Body]] = {}
        self._ticks: dict[int, tuple[asyncio.TimerHandle, list[int]]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def ask(self, method: str, body: Body, deadline_s: float) -> "asyncio.Future[Body]":
        """Send a request. Raises what `Link.send_frame` raises: then it was certainly not sent."""
        link = self._link
        self._last_id = number = self._last_id + 1
        link.send_frame(Kind.REQUEST, number, math.ceil(deadline_s * 1000), method, body)
        future = self._pending[number] = link.loop.create_future()
        tick = math.ceil((link.loop.time() + deadline_s) * TICKS_PER_S)
        shared = self._ticks.get(tick)
        if shared is None:
            shared = (link.loop.call_at(tick / TICKS_PER_S, self._expire, tick), [])
            self._ticks[tick] = shared
        shared[1].append(number)
        return future

    def answered(self, frame: Frame) -> None:
        """REPLY, or ERROR."""
        future = self._pending.pop(frame[1], None)
        if future is None or future.done():
            return  # too late, or nobody waits any more
        if frame[0] == Kind.REPLY:
            future.set_result(frame[2])
        else:
            future.set_exception(RequestFailed(self._link.peer_name, frame[2], frame[3]))
        self._link.settled()

    def _expire(self, tick: int) -> None:
        for number in self._ticks.pop(tick)[1]:
            future = self._pending.pop(number, None)
            if future is not None and not future.done():
                self._link.peers.counters.timeouts += 1
                future.set_exception(Timeout(self._link.peer_name, "no answer within the deadline"))
        self._link.settled()

    def lost(self, reason: str) -> None:
        """The link is down: whether these requests had their effect is unknown."""
        for timer, _ in self._ticks.values():
            timer.cancel()
        self._ticks.clear()
        pending, self._pending = self._pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(LinkLost(self._link.peer_name, reason))


class Answers:
    """What this node is asked over one link."""

    __slots__ = ("_limit", "_link", "_waiting")

    def __init__(self, link: "Link", limit: int) -> None:
        self._link = link
        self._limit = limit
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def asked(self, frame: Frame) -> None:
        """A REQUEST: answered now, or when its handler's awaitable is done."""
        _, number, timeout_ms, method, body = frame
        handler = self._link.peers.handlers.get(method)
        if handler is None:
            self._link.post(Kind.ERROR, number, "unknown-method", f"nothing is called {method[:64]!r}")
            return
        try:
            result = handler(self._link.peer_name, body)
        except Exception as error:
            self._failed(number, method, error)
            return
        if hasattr(result, "__await__"):
            self._later(number, method, timeout_ms, result)
        else:
            self._reply(number, method, result)

    def told(self, frame: Frame) -> None:
        """A SEND: handled, and not answered. What nobody knows here is counted and dropped."""
        _, method, body = frame
        peers = self._link.peers
        handler = peers.handlers.get(method)
        if handler is None:
            peers.counters.unknown += 1
            return
        try:
            result = handler(self._link.peer_name, body)
        except RequestFailed:
            return
        except Exception as error:
            report_bug(error, f"handler of {method!r} failed")
            return
        if asyncio.iscoroutine(result):
            peers.start_task(_to_its_end(method, result))

    def _later(self, number: int, method: str, timeout_ms: int, result: Awaitable[Body]) -> None:
        if self._waiting >= self._limit:
            if asyncio.iscoroutine(result):
                result.close()
            self._link.post(Kind.ERROR, number, "busy", f"{self._limit} requests are waiting already")
            return
        if asyncio.isfuture(result):
            future = result
        else:
            future = self._link.peers.start_task(_within(timeout_ms / 1000, result))
        self._waiting += 1

        def done(outcome: "asyncio.Future[Body]") -> None:
            self._waiting -= 1
            error = asyncio.CancelledError() if outcome.cancelled() else outcome.exception()
            if error is None:
                self._reply(number, method, outcome.result())
            elif not isinstance(error, _DeadlinePassed):
                self._failed(number, method, error)
            self._link.settled()

        future.add_done_callback(done)

    def _reply(self, number: int, method: str, result: Body) -> None:
        try:
            self._link.post(Kind.REPLY, number, result)
        except FrameTooLarge as error:
            self._link.post(Kind.ERROR, number, "too-large", f"the reply is a {error}")
        except (TypeError, ValueError, OverflowError) as error:
            self._failed(number, method, error)

    def _failed(self, number: int, method: str, error: BaseException) -> None:
        if isinstance(error, RequestFailed):
            self._link.post(Kind.ERROR, number, error.code, error.reason)
        elif isinstance(error, asyncio.CancelledError):
            self._link.post(Kind.ERROR, number, "cancelled", "the work was given up")
        else:
            self._link.post(Kind.ERROR, number, "internal", "the handler failed")
            report_bug(error, f"handler of {method!r} failed")


async def _to_its_end(method: str, work: Awaitable[Body]) -> None:
    """The coroutine of a one-way message: nobody asks how it ended."""
    try:
        await work
    except RequestFailed:
        return
    except Exception as error:
        report_bug(error, f"handler of {method!r} failed")


class _DeadlinePassed(Exception):
    """Nobody waits for the answer any more: the asker has its Timeout."""


async def _within(timeout_s: float, work: Awaitable[Body]) -> Body:
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            return await work
    except TimeoutError:
        if deadline.expired():
            raise _DeadlinePassed from None
        raise


def report_bug(error: BaseException, where: str) -> None:
    """A mistake of ours that must not take the link down: the loop's exception handler decides what becomes of it."""
    asyncio.get_running_loop().call_exception_handler({"message": where, "exception": error})
