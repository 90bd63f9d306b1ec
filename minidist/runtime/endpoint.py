"""Where connections belong: a `Listener` accepts them, a `Dialler` makes them, both count, limit and sweep them.

    listener = Listener("resp", Address("127.0.0.1", 6379), RespConnection, limits=Limits(max_connections=100))
    await listener.start()          # raises ListenError when the address cannot be had
    listener.address                # with the port that was taken
    await listener.drain(5.0)       # stop accepting; connections finish; what is left is aborted

What both have in common is in admission.py.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from minidist.runtime import sockets
from minidist.runtime.admission import Counters, Endpoint, EndpointState, Lease, Limits
from minidist.runtime.config import Address
from minidist.runtime.connection import Connection
from minidist.runtime.logs import NodeLog
from minidist.runtime.outgoing import Outgoing
from minidist.wire.inspection import Inspector

if TYPE_CHECKING:
    from minidist.runtime.faults import FaultSet

__all__ = [
    "Counters",
    "DialError",
    "Dialler",
    "Endpoint",
    "EndpointState",
    "Lease",
    "Limits",
    "ListenError",
    "Listener",
]

K = TypeVar("K", bound=Connection)

BACKLOG = 1024
# A client that connects to a TLS port and says nothing is not counted yet, so it may not stay.
TLS_HANDSHAKE_TIMEOUT_S = 10.0
RELISTEN_S = 0.1
# Rounds of the loop from a readable listening socket to connection_made.
ROUNDS_TO_ACCEPT = 3


class ListenError(Exception):
    """An address that cannot be listened on; ends a program with exit code 1."""


class DialError(OSError):
    """A connection that could not be made: certainly nothing was sent."""

    is_ours = False  #: for want of descriptors, ports or memory here: it says nothing about the peer


class Listener(Endpoint[K]):
    """Accepts connections on one address. `factory(listener)` makes the connection object."""

    accepts = True

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
        outgoing: Outgoing | None = None,
        tls: ssl.SSLContext | None = None,
        reuse_port: bool = False,
        shared_socket: socket.socket | None = None,
    ) -> None:
        super().__init__(name, limits=limits, log=log, faults=faults, inspector=inspector, outgoing=outgoing)
        self.address = address
        self.factory = factory
        self.tls = tls
        self.reuse_port = reuse_port
        self.shared_socket = shared_socket
        self.concerns_everyone = True
        self._server: asyncio.Server | None = None
        self._socket_file: tuple[int, int] | None = None
        self._refusing = False
        self._relisten: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; `address` then has the port that was taken. Raises ListenError."""
        try:
            self._server = await self._listen()
        except (OSError, UnicodeError) as error:
            raise ListenError(f"cannot listen on {self.address}: {sockets.reason(error)}") from error
        if self.address.path:
            self._socket_file = sockets.file_identity(self.address.path)
        else:
            self.address = Address(self.address.host, self._server.sockets[0].getsockname()[1])
        for each in self._server.sockets:
            sockets.keep_alive(each)

    async def _listen(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        tls: dict[str, Any] = {}
        if self.tls is not None:
            tls = {"ssl": self.tls, "ssl_handshake_timeout": TLS_HANDSHAKE_TIMEOUT_S}
        if self.address.path:
            sockets.clear_stale_socket(self.address.path)
            return await loop.create_unix_server(self._accept, self.address.path, backlog=BACKLOG, **tls)
        if self.shared_socket is not None:
            return await loop.create_server(self._accept, sock=self.shared_socket.dup(), backlog=BACKLOG, **tls)
        # `localhost` in both families would be two sockets with two free ports, and not every machine has IPv6.
        host = "127.0.0.1" if self.address.host.lower() == "localhost" else self.address.host
        reuse_port = self.reuse_port or None
        return await loop.create_server(
            self._accept, host, self.address.port, backlog=BACKLOG, reuse_port=reuse_port, **tls
        )

    def _accept(self) -> K:
        return self.factory(self)

    @property
    def accepting(self) -> bool:
        return self._server is not None

    def stop_accepting(self) -> None:
        """New clients are refused by the kernel from here on; open connections stay."""
        self._refusing = False
        self._stop_server()
        if self.shared_socket is not None:
            self.shared_socket.close()
        if self._socket_file is not None:
            sockets.remove_own_socket(self.address.path, self._socket_file)
            self._socket_file = None

    def _stop_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def set_refusing(self, refusing: bool) -> None:
        """Really refuse: without a listening socket the kernel answers a connect with a reset.

        (A socket that processes share goes on listening in the others: there, connections are accepted and reset.)
        """
        if refusing == self._refusing or self.shared_socket is not None:
            return
        if refusing and self._server is not None:
            self._refusing = True
            self._stop_server()
        elif not refusing:
            self._refusing = False
            if self._relisten is None or self._relisten.done():
                self._relisten = asyncio.get_running_loop().create_task(self._listen_again())

    async def _listen_again(self) -> None:
        while self.state is EndpointState.OPEN and not self._refusing and self._server is None:
            try:
                await self.start()
            except ListenError as error:
                self.log.error("still refusing", listener=self.name, reason=str(error))
                await asyncio.sleep(RELISTEN_S)
        if self._refusing or self.state is not EndpointState.OPEN:
            self._stop_server()

    async def finish_accepting(self) -> None:
        """As `stop_accepting`, but whom the kernel (or the loop) has accepted for us comes in, and sees no reset."""
        await _rounds()
        self.stop_accepting()
        await _rounds()

    async def drain(self, timeout_s: float) -> None:
        await self.finish_accepting()
        await super().drain(timeout_s)

    def close(self) -> None:
        self.stop_accepting()
        super().close()


async def _rounds() -> None:
    for _ in range(ROUNDS_TO_ACCEPT):
        await asyncio.sleep(0)


class Dialler(Endpoint[K]):
    """Makes connections to other servers, under the node's faults; one per purpose (health checks, upstreams)."""

    _dialling = 0

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
        if self.state is not EndpointState.OPEN:
            raise DialError(f"cannot connect to {address}: closed")
        if len(self.connections) + self._dialling >= self.capacity:
            failure = DialError(f"cannot connect to {address}: {self.capacity} connections are open already")
            failure.is_ours = True
            raise failure
        connection = factory(self)
        connection.peer_name = peer_name
        self._dialling += 1
        try:
            async with asyncio.timeout(timeout_s):
                if self.faults is not None and self.faults.active:
                    await self.faults.before_dial(self, address, peer_name)
                await self._connect(address, connection, tls, server_hostname)
        except TimeoutError as error:
            raise DialError(f"connecting to {address} took longer than {timeout_s:g} s") from error
        except (OSError, UnicodeError) as error:
            failure = DialError(f"cannot connect to {address}: {sockets.reason(error)}")
            failure.is_ours = getattr(error, "errno", None) in sockets.OUR_OWN
            raise failure from error
        finally:
            self._dialling -= 1
        if connection not in self.connections:  # a fault, or the peer, has reset it at once
            raise DialError(f"cannot connect to {address}: closed at once")
        return connection

    async def _connect(
        self, address: Address, connection: K, tls: ssl.SSLContext | None, server_hostname: str | None
    ) -> None:
        loop = asyncio.get_running_loop()
        if address.path:
            await loop.create_unix_connection(
                lambda: connection, address.path, ssl=tls, server_hostname=server_hostname
            )
        else:
            await loop.create_connection(
                lambda: connection, address.host, address.port, ssl=tls, server_hostname=server_hostname
            )
