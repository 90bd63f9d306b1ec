"""What endpoints ask of the kernel beyond the event loop: keep-alive, socket files, bytes taken by a peer, reasons."""

import contextlib
import errno
import functools
import os
import select
import socket
import ssl
import stat
import sys
from collections.abc import Callable
from typing import Any

# A peer that vanished without a word (power, network) is found after 300 s + 3 × 60 s: Redis' tcp-keepalive.
KEEP_ALIVE = (("TCP_KEEPIDLE", 300), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 3))
# struct tcp_info of linux/tcp.h: __u64 tcpi_bytes_acked, since Linux 4.1.
BYTES_ACKED = slice(120, 128)
# … and __u32 tcpi_notsent_bytes, since Linux 4.6.
BYTES_NOT_SENT = slice(144, 148)
# Failures to open a socket that say nothing about who is at the other end.
OUR_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)


def keep_alive(listening: Any) -> None:
    """Accepted connections inherit this from the listening socket, so none of them costs a system call."""
    if getattr(listening, "family", None) not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE:
            if hasattr(socket, name):
                listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def bytes_taken(connected: Any) -> int | None:
    """How many bytes the peer's kernel has acknowledged; None where that cannot be known."""
    return _tcp_info(connected, BYTES_ACKED)


def bytes_unsent(connected: Any) -> int:
    """How many bytes wait in our kernel for room at the peer's; 0 where that cannot be known."""
    return _tcp_info(connected, BYTES_NOT_SENT) or 0


def unread_probe(connected: Any) -> Callable[[], object]:
    """What tells, when called, whether bytes or an end of file wait that the loop has not read yet.

    A call costs half a microsecond. It must not be called once the connection is closing: its descriptor may be another
    connection's by then.
    """
    poll = select.poll()
    poll.register(connected.fileno(), select.POLLIN)
    return functools.partial(poll.poll, 0)


def _tcp_info(connected: Any, part: slice) -> int | None:
    if sys.platform != "linux" or getattr(connected, "family", None) not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        information = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, part.stop)
    except OSError:
        return None
    return int.from_bytes(information[part], sys.byteorder)


def reason(error: Exception) -> str:
    """Why a socket could not be had, in the system's words; loops put their own around them."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror | ssl.SSLError):
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def clear_stale_socket(path: str) -> None:
    """Remove the socket file that a crashed process has left. Raises OSError when it is in use, or no socket.

    Event loops remove any socket file in their way, also one on which another process listens.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        os.unlink(path)
        return
    except BlockingIOError:  # its backlog is full: somebody listens, if slowly
        pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def file_identity(path: str) -> tuple[int, int]:
    """What tells a file from another one that has taken its name. Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def remove_own_socket(path: str, identity: tuple[int, int]) -> None:
    """Remove a socket file, unless it is somebody else's by now."""
    with contextlib.suppress(OSError):
        if file_identity(path) == identity:
            os.unlink(path)
