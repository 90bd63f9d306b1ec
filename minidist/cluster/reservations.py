"""TCP ports that stay a node's own from before its first start until the cluster is gone.

A reservation is a socket that is bound and never listens. Nobody else is given the port, and while the node is dead its
clients are refused, as they would be by a machine that is up. The node binds beside the reservation: our daemons with
SO_REUSEPORT, any other program with SO_REUSEADDR, which practically every server sets (Linux lets it bind next to a
socket that sets it too and does not listen; the kernel's own search for a free port passes such ports over).

What lets the node in would let a second cluster in as well, so on Linux each reservation also holds an abstract Unix
socket named after the port: exclusive, and gone with the process.
"""

import contextlib
import errno
import socket
import sys

from minidist.runtime.config import Address


class PortTaken(Exception):
    """An address that cannot be reserved. Ends a program with exit code 1."""

    def __init__(self, address: Address, reason: str) -> None:
        super().__init__(f"{address} {reason}")


class Reservation:
    """One reserved port; `address` has the number that was taken. Raises PortTaken."""

    def __init__(self, wanted: Address) -> None:
        self._sockets = contextlib.ExitStack()
        try:
            self.address = self._reserve(wanted)
        except OSError as error:
            self.release()
            taken = error.errno == errno.EADDRINUSE
            raise PortTaken(wanted, "is in use" if taken else f"cannot be had: {error.strerror}") from error

    def _reserve(self, wanted: Address) -> Address:
        # Both families of `localhost` would get different free ports, so that name means IPv4.
        host = "127.0.0.1" if wanted.host == "localhost" else wanted.host
        family, kind, protocol, _, name = socket.getaddrinfo(host, wanted.port, type=socket.SOCK_STREAM)[0]
        if wanted.port:
            with socket.socket(family, kind, protocol) as probe:  # with SO_REUSEPORT we would not notice a listener
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(name)
        reserved = self._sockets.enter_context(socket.socket(family, kind, protocol))
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(name)
        address = Address(wanted.host, reserved.getsockname()[1])
        if sys.platform == "linux":
            mark = self._sockets.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            mark.bind(f"\0minidist-port-{address}")
        return address

    def release(self) -> None:
        self._sockets.close()
