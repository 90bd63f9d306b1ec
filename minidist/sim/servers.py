"""A listening socket, with asyncio.Server's interface and the manners of the Python version that runs."""

import asyncio
import contextvars
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minidist.sim.host import Host
from minidist.sim.sockets import SimSocket, SocketAddress
from minidist.sim.streams import SimTransport

if TYPE_CHECKING:
    from minidist.sim.loop import SimLoop
    from minidist.sim.network import Network
    from minidist.sim.tasks import SimFuture

# Before 3.12.1 `wait_closed` returned at once when the server was closed; since then it waits for its connections.
WAITS_FOR_CONNECTIONS = sys.version_info >= (3, 12, 1)


class SimServer(asyncio.AbstractServer):
    """Made by `Network.create_server`. `backlog` connections wait to be accepted; a SYN beyond that is dropped."""

    def __init__(
        self, network: "Network", host: Host, address: SocketAddress, factory: Callable[[], Any], backlog: int
    ) -> None:
        self.network = network
        self.host = host
        self.address = address
        self.factory = factory
        self.backlog = backlog
        self.waiting = 0  # connections that have not been accepted yet
        self.context = contextvars.copy_context()
        self._socket = SimSocket(network.loop.next_number(), socket.SOCK_STREAM, address)
        self._serving = False
        self._closed = False
        self._clients: dict[SimTransport, None] = {}
        self._waiters: list[SimFuture] = []
        self._forever: SimFuture | None = None

    def __repr__(self) -> str:
        return f"<SimServer {self.host.name} {self.address[0]}:{self.address[1]}>"

    @property
    def sockets(self) -> tuple[SimSocket, ...]:
        return () if self._closed else (self._socket,)

    def get_loop(self) -> "SimLoop":
        return self.network.loop

    def is_serving(self) -> bool:
        return self._serving

    async def start_serving(self) -> None:
        self.listen()
        await asyncio.sleep(0)

    def listen(self) -> None:
        if self._closed:
            raise RuntimeError(f"server {self!r} is closed")
        self._serving = True

    async def serve_forever(self) -> None:
        if self._forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        self.listen()
        self._forever = self.network.loop.create_future()
        try:
            await self._forever
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise
        finally:
            self._forever = None

    def accept(self, transport: SimTransport) -> None:
        """Runs as code of this host: the loop accepts a connection."""
        self.waiting -= 1
        if self._closed or not transport.open:
            transport.has_reset = True
            transport.sock.resets_on_close = True
            transport.close_socket()
            return
        try:
            protocol = self.factory()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            message = "Error on transport creation for incoming connection"
            self.network.loop.call_exception_handler({"message": message, "exception": error})
            transport.close_socket()
            return
        self._clients[transport] = None
        transport.begin(protocol)

    def detach(self, transport: SimTransport) -> None:
        """The connection is over."""
        self._clients.pop(transport, None)
        if self._closed:
            self._wake_if_empty()

    def close(self) -> None:
        if self._closed:
            return
        self._closed, self._serving = True, False
        self._socket.open = False
        self.network.stopped_listening(self)
        if self._forever is not None and not self._forever.done():
            self._forever.cancel()
        self._wake_if_empty()

    def close_clients(self) -> None:
        for transport in list(self._clients):
            transport.close()

    def abort_clients(self) -> None:
        for transport in list(self._clients):
            transport.abort()

    async def wait_closed(self) -> None:
        if self._closed and (not WAITS_FOR_CONNECTIONS or not self._clients):
            return
        waiter = self.network.loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake_if_empty(self) -> None:
        if not self._clients:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
