"""What stands in for sockets: `get_extra_info("socket")`, and a `select.poll` that knows simulated connections."""

import errno
import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from minidist.sim.current import current_host

SIM_FD = 1 << 24  # file descriptors of simulated sockets begin here
TCP_INFO_BYTES = 232
BYTES_ACKED = slice(120, 128)  # in struct tcp_info of linux/tcp.h: __u64 tcpi_bytes_acked

SocketAddress = tuple[str, int]


class SimSocket:
    """Enough of a socket for asyncio, anyio, httpcore and redis-py; its options are kept and answered."""

    def __init__(
        self, number: int, kind: socket.SocketKind, local: SocketAddress, peer: SocketAddress | None = None
    ) -> None:
        self.descriptor = SIM_FD + number
        self.type = kind
        self.proto = socket.IPPROTO_TCP if kind is socket.SOCK_STREAM else socket.IPPROTO_UDP
        self.family = socket.AF_INET
        self.local = local
        self.peer = peer
        self.open = True
        self.resets_on_close = False
        self.readable: Callable[[], bool] = bool
        self.bytes_acknowledged: Callable[[], int] = int
        self._options: dict[tuple[int, int], Any] = {}

    def fileno(self) -> int:
        return self.descriptor if self.open else -1

    def getsockname(self) -> SocketAddress:
        return self.local

    def getpeername(self) -> SocketAddress:
        if self.peer is None or not self.open:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self.peer

    def setsockopt(self, level: int, option: int, value: Any, *rest: Any) -> None:
        self._need_open()
        self._options[level, option] = value
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            on, seconds = struct.unpack("ii", value)
            self.resets_on_close = bool(on) and not seconds

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        self._need_open()
        if level == socket.IPPROTO_TCP and size and option == getattr(socket, "TCP_INFO", None):
            information = bytearray(TCP_INFO_BYTES)
            information[BYTES_ACKED] = self.bytes_acknowledged().to_bytes(8, sys.byteorder)
            return bytes(information[:size])
        value = self._options.get((level, option), 0)
        if isinstance(value, bytes):
            return value[:size] if size else int.from_bytes(value[:4], sys.byteorder)
        return int(value).to_bytes(size, sys.byteorder) if size else int(value)

    def _need_open(self) -> None:
        if not self.open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def setblocking(self, flag: bool) -> None:
        if flag:
            raise ValueError("setblocking(): transport sockets cannot be blocking")

    def settimeout(self, value: float | None) -> None:
        if value != 0:
            raise ValueError("settimeout(): only 0 timeout is allowed on transport sockets")

    def gettimeout(self) -> float:
        return 0.0

    def __repr__(self) -> str:
        return f"<SimSocket {self.local[0]}:{self.local[1]}{f' {self.peer[0]}:{self.peer[1]}' if self.peer else ''}>"


class SimPoll:
    """`select.poll` for code on a host: httpcore polls an idle connection to see whether the peer has closed it."""

    def __init__(self) -> None:
        host = current_host.get()
        assert host is not None, "made for code on hosts (entropy.py)"
        self._sockets = host.world.network.sockets
        self._watched: dict[int, int] = {}

    def register(self, fd: Any, eventmask: int = select.POLLIN | select.POLLPRI | select.POLLOUT) -> None:
        self._watched[fd if isinstance(fd, int) else fd.fileno()] = eventmask

    modify = register

    def unregister(self, fd: Any) -> None:
        del self._watched[fd if isinstance(fd, int) else fd.fileno()]

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """What is so now; it never waits."""
        found = []
        for number, mask in self._watched.items():
            known = self._sockets.get(number)
            if known is None:
                found.append((number, select.POLLNVAL))
            elif events := mask & ((select.POLLIN if known.readable() else 0) | select.POLLOUT):
                found.append((number, events))
        return found
