"""How connections are admitted, limited, swept and let go: the common part of listeners and diallers.

An endpoint knows each of its connections (an ordered dict, so that nothing depends on the order of a set) and holds the
limits they live under. Two sweeps look at them every quarter of their time-out, each on a loop timer that is armed only
while there is something to sweep: a connection that was not touched for four sweeps is idle; one whose peer took no
byte of what waits for it during four sweeps has stalled. That costs the data path one attribute store.

In a worker process (workers.py) the limit on connections is a part of a whole, a `Lease`: a connection that finds no
room waits until the lease has asked for more.

Faults of the node (runtime/faults/) look into `connections` and put shims on them; an endpoint without a `FaultSet`
(the admin port) is beyond their reach.
"""

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, cast

from minidist.runtime import sockets
from minidist.runtime.connection import Connection
from minidist.runtime.logs import NodeLog
from minidist.runtime.outgoing import Outgoing
from minidist.wire.inspection import Inspector

if TYPE_CHECKING:
    from minidist.runtime.faults import FaultSet

K = TypeVar("K", bound=Connection)

SWEEPS_PER_TIMEOUT = 4


@dataclass(slots=True)
class Limits:
    """What one endpoint allows. Times are loop time; 0 means no limit for `idle_timeout_s` only."""

    max_connections: int = 10_000
    max_buffered_bytes: int = 64 * 1024**2
    idle_timeout_s: float = 0.0
    stall_timeout_s: float = 60.0
    buffer_high_water_bytes: int = 0  # 0: the loop's own (64 KiB)


@dataclass(slots=True)
class Counters:
    """What happened to an endpoint's connections since the start or the last reset."""

    opened: int = 0
    refused: int = 0
    closed_idle: int = 0
    closed_slow: int = 0


class EndpointState(Enum):
    """OPEN takes connections; DRAINING waits for those it has; CLOSED has aborted them."""

    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class Lease(Protocol):
    """A worker process' part of a limit that all workers share (workers.py)."""

    held: int
    endpoint: "Endpoint[Any] | None"

    def ask(self) -> None:
        """Ask for room for the endpoint's waiting connections; the answer is `Endpoint.lease_answered`."""
        ...


class Endpoint(Generic[K]):
    """The common part of Listener and Dialler."""

    accepts: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        *,
        limits: Limits | None = None,
        log: NodeLog | None = None,
        faults: "FaultSet | None" = None,
        inspector: Inspector | None = None,
        outgoing: Outgoing | None = None,
    ) -> None:
        self.name = name
        self.limits = limits or Limits()
        self.log = log or NodeLog(name)
        self.inspector = inspector
        self.faults = faults
        self.state = EndpointState.OPEN
        self.connections: dict[K, None] = {}
        self.counters = Counters()
        self.outgoing = Outgoing() if outgoing is None else outgoing
        # Whether faults that name no peer are about these connections: accepted ones, and links between nodes.
        self.concerns_everyone = False
        # With workers: this process' part of the limit, instead of `limits.max_connections`.
        self.lease: Lease | None = None
        self._waiting: dict[K, _Waiting] = {}  # for room
        self._stalls: dict[K, tuple[int, int]] = {}  # connection → (progress at the last sweep, sweeps without any)
        self._idle_sweep: asyncio.TimerHandle | None = None
        self._stall_sweep: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None
        if faults is not None:
            faults.endpoints.append(self)

    # --- called by Connection ---------------------------------------------------------------------------------------

    def admit(self, connection: K) -> None:
        """Take a new connection in and open it, unless there are too many or a fault forbids it."""
        if self.state is not EndpointState.OPEN:
            connection.reset()  # it was on its way while we stopped
        elif len(self.connections) < self.capacity:
            self._take_in(connection)
        elif self.lease is None:
            self._refuse(connection)
        else:
            self._waiting[connection] = _Waiting(self, connection)
            self.lease.ask()

    @property
    def capacity(self) -> int:
        """How many connections there may be."""
        return self.limits.max_connections if self.lease is None else self.lease.held

    def _refuse(self, connection: K) -> None:
        self.counters.refused += 1
        goodbye = connection.refused()
        if goodbye and not connection.transport.is_closing():
            connection.transport.write(goodbye)
        connection.close()

    def _take_in(self, connection: K) -> None:
        self.connections[connection] = None
        if self.limits.buffer_high_water_bytes:
            connection.transport.set_write_buffer_limits(high=self.limits.buffer_high_water_bytes)
        if self.faults is not None and self.faults.active and not self.faults.attach(connection, new=True):
            self.forget(connection)
            return
        self.counters.opened += 1
        self._arm_idle_sweep()
        try:
            connection.opened()
        except Exception as error:
            self.log.error("connection failed to open", exc_info=error, listener=self.name, peer=connection.peer)
            connection.abort("failed to open")

    def forget(self, connection: K) -> bool:
        """A connection is gone; False when it was never opened."""
        self._waiting.pop(connection, None)
        self._stalls.pop(connection, None)
        if self.faults is not None:
            self.faults.forget(connection)
        known = connection in self.connections
        self.connections.pop(connection, None)
        if not self.connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)
        return known

    @property
    def waiting(self) -> list[K]:
        """Connections that wait for the lease to be extended, oldest first."""
        return list(self._waiting)

    def lease_answered(self, asked: list[K]) -> None:
        """The lease will not be larger for now: of these waiting connections, those without room are refused."""
        for connection in asked:
            waiting = self._waiting.pop(connection, None)
            if waiting is None:
                continue
            connection.transport.set_protocol(connection)
            if self.state is not EndpointState.OPEN:
                connection.reset()
            elif len(self.connections) >= self.capacity:
                self._refuse(connection)
            else:
                self._take_in(connection)
                waiting.hand_over()

    def stalled(self, connection: K) -> None:
        """The peer does not keep up with what we write, or we are closing and it has not taken all of it."""
        buffered = connection.transport.get_write_buffer_size()
        if buffered > self.limits.max_buffered_bytes:
            self.cut_off(connection, buffered)
        else:
            self._stalls[connection] = (self._progress(connection), 0)
            self._arm_stall_sweep()

    def cut_off(self, connection: K, buffered: int) -> None:
        """Drop a slow consumer. For protocols that push: call it when `max_buffered_bytes` is passed."""
        self.counters.closed_slow += 1
        self.log.warning("slow consumer cut off", listener=self.name, peer=connection.peer, buffered=buffered)
        connection.abort("slow consumer")

    def renamed(self, connection: K) -> None:
        if self.faults is not None and self.faults.active:
            self.faults.attach(connection, new=False)

    def set_refusing(self, refusing: bool) -> None:
        """A fault wants every new connection refused (or no longer); only a listener can."""

    # --- sweeps -----------------------------------------------------------------------------------------------------

    def apply_limits(self, limits: Limits) -> None:
        """Change the limits at run time (CONFIG SET); connections over them stay."""
        self.limits = limits
        self._disarm()
        self._arm_idle_sweep()
        self._arm_stall_sweep()

    def _arm_idle_sweep(self) -> None:
        if self._idle_sweep is None and self.connections and self.limits.idle_timeout_s:
            delay_s = self.limits.idle_timeout_s / SWEEPS_PER_TIMEOUT
            self._idle_sweep = asyncio.get_running_loop().call_later(delay_s, self._close_idle)

    def _arm_stall_sweep(self) -> None:
        if self._stall_sweep is None and self._stalls:
            delay_s = self.limits.stall_timeout_s / SWEEPS_PER_TIMEOUT
            self._stall_sweep = asyncio.get_running_loop().call_later(delay_s, self._cut_stalled)

    def _disarm(self) -> None:
        for timer in (self._idle_sweep, self._stall_sweep):
            if timer is not None:
                timer.cancel()
        self._idle_sweep = self._stall_sweep = None

    def _close_idle(self) -> None:
        self._idle_sweep = None
        for connection in list(self.connections):
            if connection.touched:
                connection.touched = False
                connection.idle_rounds = 0
                continue
            connection.idle_rounds += 1
            if connection.idle_rounds >= SWEEPS_PER_TIMEOUT and not connection.closing:
                self.counters.closed_idle += 1
                connection.close()
        self._arm_idle_sweep()

    def _cut_stalled(self) -> None:
        self._stall_sweep = None
        for connection, (before, rounds) in list(self._stalls.items()):
            buffered = connection.transport.get_write_buffer_size()
            progress = self._progress(connection)
            if not connection.write_paused and not (connection.closing and buffered):
                del self._stalls[connection]
            elif progress > before:
                self._stalls[connection] = (progress, 0)
            elif rounds + 1 >= SWEEPS_PER_TIMEOUT:
                del self._stalls[connection]
                self.cut_off(connection, buffered)
            else:
                self._stalls[connection] = (progress, rounds + 1)
        self._arm_stall_sweep()

    @staticmethod
    def _progress(connection: K) -> int:
        """A number that grows as the peer takes bytes: what TCP says, else how little is left."""
        taken = sockets.bytes_taken(connection.transport.get_extra_info("socket"))
        return -connection.transport.get_write_buffer_size() if taken is None else taken

    # --- end --------------------------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> None:
        """Ask every connection to finish; after `timeout_s` of loop time abort those that have not."""
        if self.state is EndpointState.OPEN:
            self.state = EndpointState.DRAINING
            for connection in self.waiting:
                connection.reset()
            for connection in list(self.connections):
                connection.draining()
        await self.wait_empty(timeout_s)
        self.close()

    async def wait_empty(self, timeout_s: float) -> None:
        """Wait until the last connection is gone, at most `timeout_s` of loop time."""
        if self.connections:
            if self._empty is None or self._empty.done():
                self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._empty], timeout=timeout_s)

    def close(self) -> None:
        """Abort what is still open, at once, and take nothing new."""
        self.state = EndpointState.CLOSED
        self._disarm()
        for connection in (*self._waiting, *self.connections):
            connection.abort("closing")
        if self.faults is not None and self in self.faults.endpoints:
            self.faults.endpoints.remove(self)


class _Waiting(asyncio.Protocol):
    """Stands in for a connection that waits for room: keeps what comes meanwhile, one read of it.

    (To pause reading in connection_made would be simpler, but uvloop begins to read after it in any case.)
    """

    def __init__(self, endpoint: Endpoint[Any], connection: Connection) -> None:
        self.endpoint = endpoint
        self.connection = connection
        self.data: list[bytes] = []
        self.ended = False
        connection.transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        self.data.append(data)
        self.connection.transport.pause_reading()

    def eof_received(self) -> bool:
        self.ended = True
        return self.connection.transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self.endpoint.forget(self.connection)

    def hand_over(self) -> None:
        """The connection is open: it gets what came, as if it came now."""
        connection = self.connection
        protocol = cast(asyncio.Protocol, connection.transport.get_protocol())
        # Under a fault, the shim is the transport now, and what comes goes through it.
        receiver = connection.transport if isinstance(connection.transport, asyncio.Protocol) else protocol
        if connection.closing:
            return
        if self.data:
            connection.transport.resume_reading()
            receiver.data_received(b"".join(self.data))
        if self.ended and not connection.closing and not receiver.eof_received():
            connection.close()
