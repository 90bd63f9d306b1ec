"""A channel: one connection with a fixed number of request slots, kept up for the length of a run.

`Channel` is what a dispatcher sees: `free` slots, `submit` a batch, `expire` what waited too long. `StreamChannel` is
the kind in which answers come in the order of the requests over one TCP (or TLS) stream. A driver derives from it,
writes requests in `encode` and reads answers in `data_received`:

    def data_received(self, data):
        now_s = self.received(data)               # counts bytes, reads the clock once
        for each answer in data:
            self.answered(now_s)                   # or self.refused(kind)
        self.settled(now_s)                        # once: flushes, and frees the slots

Each answer settles the oldest request under way. When the connection is lost, all under way are failed by kind, and the
channel dials again: at once if the connection had been of use, else after a growing, jittered pause. A request
without an answer within the timeout takes its connection along, and with it those behind it, since their answers
could not be told apart any more; all of them count as `timeout`.

Kinds of errors: refused, reset, closed (end of stream instead of an answer), timeout, connect-timeout, unreachable,
tls, bad-reply (not the protocol), queue-timeout and skipped (see dispatch.py), and the protocol's own, from the driver.
"""

from __future__ import annotations

import asyncio
import errno
import random
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from enum import Enum
from time import perf_counter
from typing import TYPE_CHECKING

from minidist.load.recorder import Recorder

if TYPE_CHECKING:
    import ssl

    from minidist.load.dispatch import Dispatcher

#: The pause before the second attempt to connect, doubled up to the longest. Short, so that a recovery is seen in time.
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.25
#: A connection that lived so long is no failed attempt, even if it was closed without having been used.
USEFUL_S = 0.1


class State(Enum):
    COLD = "no connection, and none wanted until a request comes"
    DIALLING = "connecting, TLS handshake included"
    GREETING = "connected; what the driver's greeting asked is not answered yet"
    READY = "takes requests"
    LEAVING = "closed by us or half-closed by the peer; waiting for the loop to say so"
    PAUSING = "waiting before the next attempt"
    CLOSED = "for good"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and how to connect. `host` is an IP address; `server_name` is what a certificate must be for."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What a channel is connected to besides its peer. One per run, shared by all channels."""

    dispatcher: Dispatcher
    recorder: Recorder
    endpoint: Endpoint
    timeout_s: float
    rng: random.Random
    #: Which process of those that share the load this is, from 0.
    share: int = 0


class Channel(ABC):
    #: Requests that may be under way at once.
    depth: int
    #: Kept by the open loop: in its queue of idle channels, and among those that are up.
    queued = False
    counted_up = False

    @property
    @abstractmethod
    def free(self) -> int:
        """How many requests may be submitted now."""

    @abstractmethod
    def submit(self, intended_s: list[float], now_s: float) -> None:
        """Send a request for each intended start; at most `free`."""

    @abstractmethod
    def expire(self, now_s: float) -> None:
        """Fail requests that were sent longer ago than the timeout."""

    @abstractmethod
    async def open(self) -> str:
        """Make the first attempt to connect. Returns "" or what went wrong; in that case it goes on trying."""

    @abstractmethod
    async def close(self) -> None:
        """Give up requests under way, uncounted, and the connection."""


class StreamChannel(asyncio.Protocol, Channel):
    #: Whether a request waits for the channel to connect instead of finding it connected.
    connect_per_request = False

    def __init__(self, wiring: Wiring, depth: int) -> None:
        self.depth = depth
        self.transport: asyncio.Transport | None = None
        self._wiring = wiring
        self._recorder = wiring.recorder
        self._dispatcher = wiring.dispatcher
        self._state = State.COLD
        #: Intended starts of the requests under way, oldest first, and when each was sent.
        self._intended: deque[float] = deque()
        self._sent: deque[float] = deque()
        self._failures = 0
        self._connected_s = 0.0
        self._loss = ""
        self._dialling: asyncio.Task[None] | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._gone: asyncio.Event | None = None
        self._first_attempt: asyncio.Future[str] | None = None

    # --- For drivers to write -------------------------------------------------------------------------------------

    def greeting(self) -> bytes:
        """What to send first on each connection; the driver calls `greeted` when it has been answered well."""
        return b""

    @abstractmethod
    def encode(self, count: int) -> bytes:
        """The next `count` requests."""

    def renewed(self) -> None:
        """A new connection has been made: forget what was read from the old one."""

    def ended(self) -> bool:
        """The peer closed its side. Whether that completed the answer being read (which is then settled here)."""
        return False

    # --- For drivers to call --------------------------------------------------------------------------------------

    def received(self, data: bytes) -> float:
        self._recorder.bytes_in += len(data)
        return perf_counter()

    @property
    def awaited(self) -> int:
        """Requests under way: answers beyond these were not asked for."""
        return len(self._intended)

    def answered(self, now_s: float) -> None:
        self._sent.popleft()
        self._recorder.latencies.append(now_s - self._intended.popleft())
        self._dispatcher.in_flight -= 1

    def refused(self, kind: str) -> None:
        """The oldest request was answered with an error."""
        self._sent.popleft()
        self._intended.popleft()
        self._dispatcher.in_flight -= 1
        self._recorder.failed(kind)

    def found(self, found: bool) -> None:
        """The oldest request, which is about to be answered, was a read that found its key, or did not."""
        if found:
            self._recorder.hits += 1
        else:
            self._recorder.misses += 1

    def settled(self, now_s: float) -> None:
        self._failures = 0
        self._recorder.settle(now_s)
        if self._state is State.READY:
            self._dispatcher.available(self, now_s)

    def greeted(self) -> None:
        self._become_ready()

    def leave(self) -> None:
        """Close after the last answer, as the peer asked for; the next request goes over a new connection."""
        if self._state is State.READY:
            self._state = State.LEAVING
            assert self.transport is not None
            self.transport.close()

    def lost(self, kind: str) -> None:
        """Give up the connection because of an error; all requests under way fail with it."""
        if self.transport is not None and self._state is not State.CLOSED:
            self._loss = self._loss or kind
            self._state = State.LEAVING
            self.transport.abort()

    # --- For the dispatcher ---------------------------------------------------------------------------------------

    @property
    def free(self) -> int:
        if self._state is State.READY or self._state is State.COLD:
            return self.depth - len(self._intended)
        return 0

    def submit(self, intended_s: list[float], now_s: float) -> None:
        count = len(intended_s)
        self._dispatcher.in_flight += count
        self._intended.extend(intended_s)
        self._sent.extend([now_s] * count)
        if self._state is State.COLD:
            self._dial()
        else:
            self._write(self.encode(count))

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self._recorder.bytes_out += len(data)
        self.transport.write(data)

    def expire(self, now_s: float) -> None:
        oldest_s = self._sent[0] if self._sent else self._connected_s if self._state is State.GREETING else now_s
        if now_s - oldest_s > self._wiring.timeout_s:
            self.lost("timeout")

    async def open(self) -> str:
        if self.connect_per_request:
            self._dispatcher.available(self, perf_counter())
            return ""
        self._first_attempt = asyncio.get_running_loop().create_future()
        self._dial()
        return await self._first_attempt

    async def close(self) -> None:
        self._state = State.CLOSED
        if self._pause:
            self._pause.cancel()
        if self._dialling:
            self._dialling.cancel()
            await asyncio.wait([self._dialling])
        if self.transport is not None:
            self._gone = asyncio.Event()
            self.transport.abort()
            await self._gone.wait()

    # --- Connecting, and losing the connection -----------------------------------------------------------------------

    def _dial(self) -> None:
        self._state = State.DIALLING
        self._loss = ""
        self._dialling = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        endpoint = self._wiring.endpoint
        try:
            async with asyncio.timeout(self._wiring.timeout_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: self,
                    endpoint.host,
                    endpoint.port,
                    ssl=endpoint.tls,
                    server_hostname=endpoint.server_name if endpoint.tls else None,
                )
        except TimeoutError:
            self._attempt_failed("connect-timeout")
        except OSError as error:
            self._attempt_failed(kind_of(error), str(error) if kind_of(error) == "tls" else "")
        finally:
            self._dialling = None

    def _attempt_failed(self, kind: str, detail: str = "") -> None:
        if self.transport is not None:  # connected in the very moment of giving up
            self.lost(kind)
            return
        self._fail_under_way(kind)
        self._report_first_attempt(detail or kind)
        if self.connect_per_request:
            self._state = State.COLD
            self._dispatcher.available(self, perf_counter())
        else:
            self._dial_later()
            self._dispatcher.pausing(kind, False, perf_counter())

    def _dial_later(self) -> None:
        self._state = State.PAUSING
        pause_s = min(SHORTEST_PAUSE_S * 2**self._failures, LONGEST_PAUSE_S) * (0.5 + self._wiring.rng.random())
        self._failures = min(self._failures + 1, 10)
        self._pause = asyncio.get_running_loop().call_later(pause_s, self._dial)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        if self._state is not State.DIALLING:  # closed meanwhile
            transport.abort()  # type: ignore[attr-defined]
            return
        self._connected_s = perf_counter()
        self.renewed()
        greeting = self.greeting()
        if greeting:
            self._state = State.GREETING
            self._write(greeting)
        else:
            self._become_ready()

    def _become_ready(self) -> None:
        self._state = State.READY
        self._report_first_attempt("")
        if self._intended:  # it was dialled for these
            self._write(self.encode(len(self._intended)))
        else:
            self._dispatcher.available(self, perf_counter())

    def _report_first_attempt(self, kind: str) -> None:
        if self._first_attempt and not self._first_attempt.done():
            self._first_attempt.set_result(kind)

    def eof_received(self) -> None:
        if self._state is State.READY and self.ended():
            self._failures = 0
            self._recorder.settle(perf_counter())

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._state is State.CLOSED:
            if self._gone:
                self._gone.set()
            return
        used = bool(self._intended)
        kind = self._loss or (kind_of(exc) if isinstance(exc, OSError) else "closed")
        self._fail_under_way(kind)
        self._report_first_attempt(kind)
        now_s = perf_counter()
        # COLD before the dispatcher hears of it, so that a dial on demand can be asked for right away.
        self._state = State.COLD
        if self.connect_per_request:
            self._dispatcher.available(self, now_s)
            return
        self._dispatcher.went_down(self, now_s)
        if now_s - self._connected_s > USEFUL_S:
            self._failures = 0
        if self._failures:
            self._dial_later()
            self._dispatcher.pausing(kind, used, now_s)
        else:
            # Whatever comes next, a second loss without an answer in between waits first.
            self._failures = 1
            self._dial()

    def _fail_under_way(self, kind: str) -> None:
        count = len(self._intended)
        self._recorder.failed(kind, count)
        self._dispatcher.in_flight -= count
        self._intended.clear()
        self._sent.clear()


_KINDS_BY_ERRNO = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.ECONNABORTED: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EMFILE: "too-many-files",
    errno.EADDRNOTAVAIL: "no-free-port",
}


def kind_of(error: OSError) -> str:
    """The short, stable name under which an error of a socket is counted."""
    if type(error).__module__ == "ssl":
        return "tls"
    return _KINDS_BY_ERRNO.get(error.errno or 0, errno.errorcode.get(error.errno or 0, "failed").lower())
