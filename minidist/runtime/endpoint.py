"""Where connections belong: a `Listener` accepts them, a `Dialler` makes them, both count, limit and sweep them.

An endpoint knows each of its connections (an ordered dict, so that nothing depends on the order of a set) and holds the
limits they live under. Its sweep is one loop timer, armed only while there is something to sweep: every quarter of the
shortest time-out it looks at each connection once. A connection that was not touched for four sweeps is idle; one whose
write buffer did not shrink for four sweeps has stalled. That costs the data path one attribute store.

    listener = Listener("resp", Address("127.0.0.1", 6379), RespConnection, limits=Limits(max_connections=100))
    await listener.start()          # raises ListenError when the address cannot be had
    listener.address                # with the port that was taken
    await listener.drain(5.0)       # stop accepting; connections finish; what is left is aborted

Faults of the node (faults.py) look into `connections` and put shims on them; an endpoint without a `FaultSet` (the
admin port) is beyond their reach.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from minidist.runtime.config import Address
from minidist.runtime.connection import Connection
from minidist.runtime.logs import NodeLog
from minidist.wire.inspection import Inspector

if TYPE_CHECKING:
    from minidist.runtime.faults import FaultSet

K = TypeVar("K", bound=Connection)

BACKLOG = 1024
SWEEPS_PER_TIMEOUT = 4


class ListenError(Exception):
    """An address that cannot be listened on; ends a program with exit code 1."""


class DialError(OSError):
    """A connection that could not be made: certainly nothing was sent."""


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


class Lease(Protocol):
    """Where a worker process asks for a larger part of a limit (workers.py)."""

    def ask(self) -> None:
        """Ask for room for the endpoint's waiting connections; the answer comes through `Endpoint.extend`."""
        ...


class Endpoint(Generic[K]):
    """The common part of Listener and Dialler."""

    def __init__(
        self,
        name: str,
        *,
        limits: Limits | None = None,
        log: NodeLog | None = None,
        faults: "FaultSet | None" = None,
        inspector: Inspector | None = None,
    ) -> None:
        self.name = name
        self.limits = limits or Limits()
        self.log = log or NodeLog(name)
        self.inspector = inspector
        self.faults = faults
        self.connections: dict[K, None] = {}
        self.counters = Counters()
        # Whether faults that name no peer are about these connections: accepted ones, and links between nodes.
        self.concerns_everyone = False
        # With workers: who is asked for more room when `max_connections`, this process' part, is used up.
        self.lease: Lease | None = None
        self._waiting: dict[K, None] = {}
        self._write_stalled: dict[K, tuple[int, int]] = {}  # connection → (bytes buffered, sweeps without progress)
        self._sweep: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None
        if faults is not None:
            faults.endpoints.append(self)

    # --- called by Connection ---------------------------------------------------------------------------------------

    def admit(self, connection: K) -> bool:
        """Take a new connection in, unless there are too many or a fault forbids it."""
        if len(self.connections) >= self.limits.max_connections:
            if self.lease is None:
                self._refuse(connection)
            else:
                connection.transport.pause_reading()
                self._waiting[connection] = None
                self.lease.ask()
            return False
        return self._take_in(connection)

    def _refuse(self, connection: K) -> None:
        self.counters.refused += 1
        goodbye = connection.refused()
        if goodbye:
            connection.transport.write(goodbye)
        connection.close()

    def _take_in(self, connection: K) -> bool:
        self.connections[connection] = None
        self.counters.opened += 1
        if self.limits.buffer_high_water_bytes:
            connection.transport.set_write_buffer_limits(high=self.limits.buffer_high_water_bytes)
        self._arm_sweep()
        if self.faults is not None and self.faults.active:
            return self.faults.attach(connection, new=True)
        return True

    def forget(self, connection: K) -> bool:
        """A connection is gone; False when it was never admitted."""
        self._waiting.pop(connection, None)
        self._write_stalled.pop(connection, None)
        known = connection in self.connections
        self.connections.pop(connection, None)
        if not self.connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)
        return known

    @property
    def waiting_count(self) -> int:
        """Connections that wait for the lease to be extended."""
        return len(self._waiting)

    def extend(self, granted: int) -> None:
        """The lease's answer: room for so many more. Who still finds none is refused."""
        self.limits.max_connections += granted
        waiting, self._waiting = self._waiting, {}
        for connection in waiting:
            if len(self.connections) >= self.limits.max_connections:
                self._refuse(connection)
            elif self._take_in(connection):
                connection.transport.resume_reading()
                connection.opened()

    def stalled(self, connection: K) -> None:
        """The peer does not keep up with what we write."""
        buffered = connection.transport.get_write_buffer_size()
        if buffered > self.limits.max_buffered_bytes:
            self.cut_off(connection, buffered)
        else:
            self._write_stalled[connection] = (buffered, 0)
            self._arm_sweep()

    def cut_off(self, connection: K, buffered: int) -> None:
        """Drop a slow consumer. For protocols that push: call it when `max_buffered_bytes` is passed."""
        self.counters.closed_slow += 1
        self.log.warning("slow consumer cut off", listener=self.name, peer=connection.peer, buffered=buffered)
        connection.abort("slow consumer")

    def renamed(self, connection: K) -> None:
        if self.faults is not None and self.faults.active:
            self.faults.attach(connection)

    def set_refusing(self, refusing: bool) -> None:
        """A fault wants every new connection refused (or no longer); only a listener can."""

    # --- sweep ------------------------------------------------------------------------------------------------------

    def apply_limits(self, limits: Limits) -> None:
        """Change the limits at run time (CONFIG SET); connections over them stay."""
        self.limits = limits
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._arm_sweep()

    def _arm_sweep(self) -> None:
        if self._sweep is not None:
            return
        timeouts_s = [self.limits.stall_timeout_s] * bool(self._write_stalled)
        timeouts_s += [self.limits.idle_timeout_s] * bool(self.limits.idle_timeout_s and self.connections)
        if timeouts_s:
            delay_s = min(timeouts_s) / SWEEPS_PER_TIMEOUT
            self._sweep = asyncio.get_running_loop().call_later(delay_s, self._swept)

    def _swept(self) -> None:
        self._sweep = None
        if self.limits.idle_timeout_s:
            self._close_idle()
        self._cut_stalled()
        self._arm_sweep()

    def _close_idle(self) -> None:
        for connection in list(self.connections):
            if connection.touched:
                connection.touched = False
                connection.idle_rounds = 0
                continue
            connection.idle_rounds += 1
            if connection.idle_rounds > SWEEPS_PER_TIMEOUT and not connection.closing:
                self.counters.closed_idle += 1
                connection.close()

    def _cut_stalled(self) -> None:
        for connection, (before, rounds) in list(self._write_stalled.items()):
            buffered = connection.transport.get_write_buffer_size()
            if not connection.write_paused:
                del self._write_stalled[connection]
            elif buffered < before:
                self._write_stalled[connection] = (buffered, 0)
            elif rounds >= SWEEPS_PER_TIMEOUT:
                del self._write_stalled[connection]
                self.cut_off(connection, buffered)
            else:
                self._write_stalled[connection] = (buffered, rounds + 1)

    # --- end --------------------------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> None:
        """Ask every connection to finish; after `timeout_s` of loop time abort those that have not."""
        for connection in list(self.connections):
            connection.draining()
        if self.connections:
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._empty], timeout=timeout_s)
        self.close()

    def close(self) -> None:
        """Abort what is still open, at once."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in list(self.connections):
            connection.abort("closing")


class Listener(Endpoint[K]):
    """Accepts connections on one address. `factory(listener)` makes the connection object."""

    def __init__(
        self,
        name: str,
        address: Address,
        factory: "Callable[[Listener[K]], K]",
        *,
        limits: Limits | None = None,
        log: NodeLog | None = None,
        faults: "FaultSet | None" = None,
        inspector: Inspector | None = None,
        tls: ssl.SSLContext | None = None,
        reuse_port: bool = False,
        shared_socket: socket.socket | None = None,
    ) -> None:
        super().__init__(name, limits=limits, log=log, faults=faults, inspector=inspector)
        self.address = address
        self.factory = factory
        self.tls = tls
        self.reuse_port = reuse_port
        self.shared_socket = shared_socket
        self.concerns_everyone = True
        self._server: asyncio.Server | None = None
        self._refusing = False
        self._relisten: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; `address` then has the port that was taken. Raises ListenError."""
        loop = asyncio.get_running_loop()
        try:
            if self.address.path:
                self._server = await loop.create_unix_server(
                    self._accept, self.address.path, ssl=self.tls, backlog=BACKLOG
                )
                return
            if self.shared_socket is not None:
                self._server = await loop.create_server(self._accept, sock=self.shared_socket, ssl=self.tls)
                return
            # Both families of `localhost` would get different free ports, so port 0 means IPv4.
            host = "127.0.0.1" if self.address.host == "localhost" and not self.address.port else self.address.host
            self._server = await loop.create_server(
                self._accept,
                host,
                self.address.port,
                ssl=self.tls,
                backlog=BACKLOG,
                reuse_port=self.reuse_port or None,
            )
        except OSError as error:
            raise ListenError(f"cannot listen on {self.address}: {error.strerror or error}") from error
        self.address = Address(self.address.host, self._server.sockets[0].getsockname()[1])

    def _accept(self) -> K:
        return self.factory(self)

    @property
    def accepting(self) -> bool:
        return self._server is not None

    def stop_accepting(self) -> None:
        """New clients are refused by the kernel from here on; open connections stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def set_refusing(self, refusing: bool) -> None:
        """Really refuse: without a listening socket the kernel answers a connect with a reset."""
        if refusing and self._server is not None:
            self.stop_accepting()
            self._refusing = True
        elif not refusing and self._refusing:
            self._refusing = False
            self._relisten = asyncio.get_running_loop().create_task(self.start())

    async def drain(self, timeout_s: float) -> None:
        self.stop_accepting()
        await super().drain(timeout_s)

    def close(self) -> None:
        self._refusing = False
        self.stop_accepting()
        super().close()


class Dialler(Endpoint[K]):
    """Makes connections to other servers, under the node's faults; one per purpose (health checks, upstreams)."""

    async def dial(
        self,
        address: Address,
        factory: "Callable[[Dialler[K]], K]",
        *,
        timeout_s: float,
        peer_name: str = "",
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> K:
        """An open connection. Raises DialError, also when it takes longer than `timeout_s` of loop time."""
        loop = asyncio.get_running_loop()
        connection = factory(self)
        connection.peer_name = peer_name
        try:
            if self.faults is not None and self.faults.active:
                await self.faults.before_dial(self, address, peer_name, timeout_s)
            async with asyncio.timeout(timeout_s):
                if address.path:
                    await loop.create_unix_connection(
                        lambda: connection, address.path, ssl=tls, server_hostname=server_hostname
                    )
                else:
                    await loop.create_connection(
                        lambda: connection, address.host, address.port, ssl=tls, server_hostname=server_hostname
                    )
        except TimeoutError as error:
            raise DialError(f"connecting to {address} took longer than {timeout_s:g} s") from error
        except OSError as error:
            raise DialError(f"cannot connect to {address}: {error.strerror or error}") from error
        return connection
