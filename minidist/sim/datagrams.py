"""Simulated UDP: datagrams that are really lost, doubled and reordered (links.py), in asyncio's datagram transport.

A datagram for a port nobody has bound is answered by the machine's kernel (ICMP), which a socket with a fixed peer
hears of as `error_received(ConnectionRefusedError)`. A host that does not read keeps as much as a receive buffer holds.
"""

import asyncio
import contextvars
import errno
import os
import socket
from typing import TYPE_CHECKING, Any

from minidist.sim.host import Host
from minidist.sim.sockets import SimSocket, SocketAddress

if TYPE_CHECKING:
    from minidist.sim.network import Network

MAX_DATAGRAM_BYTES = 65_507
RECEIVE_BUFFER_BYTES = 208 * 1024  # Linux' net.core.rmem_default


class SimDatagramTransport(asyncio.DatagramTransport):
    """A UDP socket. Made by `Network.create_datagram_endpoint`."""

    def __init__(self, network: "Network", host: Host, local: SocketAddress, remote: SocketAddress | None) -> None:
        super().__init__()
        self.network = network
        self.host = host
        self.incarnation = host.incarnation
        self.context = contextvars.copy_context()
        self.remote = remote
        self.protocol: Any = None
        self.closing = False
        self._unread_bytes = 0
        self.sock = SimSocket(network.loop.next_number(), socket.SOCK_DGRAM, local, remote)
        self.sock.readable = lambda: self._unread_bytes > 0

    def begin(self, protocol: Any) -> None:
        """Runs as code of this host, once."""
        self.protocol = protocol
        try:
            protocol.connection_made(self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.network.loop.call_exception_handler(
                {"message": "protocol.connection_made() failed", "exception": error, "transport": self}
            )

    # --- sending ----------------------------------------------------------------------------------------------------

    def sendto(self, data: Any, addr: Any = None) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self.remote is not None and addr not in (None, self.remote):
            raise ValueError(f"Invalid address: must be None or {self.remote}")
        target = addr or self.remote
        if self.closing:
            return
        if target is None or len(data) > MAX_DATAGRAM_BYTES:
            code = errno.EDESTADDRREQ if target is None else errno.EMSGSIZE
            self.protocol.error_received(OSError(code, os.strerror(code)))
            return
        self._send(bytes(data), self.network.address_of(*target[:2]))

    def _send(self, data: bytes, address: SocketAddress) -> None:
        network = self.network
        network.trace.data(data)
        target = network.hosts.get(address[0])
        if target is None or network.links.cut(self.host, target):
            return
        for at_s in network.links.datagram_arrivals_s(self.host, target, len(data)):
            network.loop.at_world_time(at_s, network.datagram_arrives, self, target, data, address)

    def refused(self) -> None:
        """The target's kernel says that nobody has bound the port; only a socket with a fixed peer is told."""
        if self.remote is not None and not self.closing:
            self.protocol.error_received(ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)))

    # --- receiving --------------------------------------------------------------------------------------------------

    def arrived(self, data: bytes, sender: SocketAddress) -> None:
        """The kernel has a datagram for this socket; the process reads it in its own time."""
        if self.remote not in (None, sender) or self._unread_bytes + len(data) > RECEIVE_BUFFER_BYTES:
            return
        self._unread_bytes += len(data)
        self.network.loop.call_soon(self._read, data, sender, context=self.context)

    def _read(self, data: bytes, sender: SocketAddress) -> None:
        self._unread_bytes -= len(data)
        if not self.closing:
            self.protocol.datagram_received(data, sender)

    # --- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self.network.loop.call_soon(self._connection_lost, context=self.context)

    abort = close

    def _connection_lost(self) -> None:
        try:
            self.protocol.connection_lost(None)
        finally:
            self.close_socket()

    def close_socket(self) -> None:
        self.closing = True
        self.sock.open = False
        self.network.datagrams_closed(self)

    def is_closing(self) -> bool:
        return self.closing

    # --- who is there -----------------------------------------------------------------------------------------------

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"socket": self.sock, "peername": self.remote, "sockname": self.sock.local}
        return known.get(name, default)
