"""One byte stream, accepted or dialled: what every protocol of every component is built on.

A component's connection is a subclass that turns bytes into state changes and bytes again. The base does what all of
them need and none should write twice:

* it registers with its `Endpoint` (the listener that accepted it, or the dialler), which counts and limits;
* back-pressure: while the peer does not read what we wrote, we stop reading what it sends (`pause_writing`), so a
  client cannot make us hold more than one wake-up's replies; relays override this pair to pause the other side instead;
* slow consumers: a peer that lets more than `max_buffered_bytes` wait, or that takes nothing for `stall_timeout_s`, is
  cut off, also while we are closing;
* idle peers are closed after `idle_timeout_s`;
* draining: at a stop, `draining()` asks the connection to finish what it has begun and close;
* a bug: an exception in `opened` or `data_received` is logged with its traceback and costs that one connection.

Two ways to write: `send`, at the end of the loop's round, together with what others send then (outgoing.py), for
answers that are whole; `write`, at once, for what comes in pieces, since only that tells about back-pressure at once.

Faults are put between the loop's transport and the connection (runtime/faults/): `connection.transport` is then a shim.
So nobody keeps a transport, or its bound `write`, anywhere but in `connection.transport`.
"""

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any, cast

from minidist.runtime import sockets

if TYPE_CHECKING:
    from minidist.runtime.endpoint import Endpoint

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Connection(asyncio.Protocol):
    """Base of all streams. Subclasses override `opened`, `data_received`, `eof_received`, `closed`, `draining`.

    `touched` must be set to True by `data_received`: it is how the endpoint tells idle peers from busy ones.
    `peer_name` is a node's proven name, or `client:NAME`; faults choose by it. Set it through `named()`.
    """

    __slots__ = ("closing", "endpoint", "idle_rounds", "peer_name", "touched", "transport", "write_paused")

    def __init__(self, endpoint: "Endpoint[Any]") -> None:
        self.endpoint = endpoint
        self.transport: asyncio.Transport = NO_TRANSPORT
        self.touched = True
        self.idle_rounds = 0
        self.write_paused = False
        self.closing = False
        self.peer_name = ""

    # --- for subclasses ---------------------------------------------------------------------------------------------

    def opened(self) -> None:
        """The stream is open and was admitted. (Reading cannot be paused here: uvloop begins to read afterwards.)"""

    def refused(self) -> bytes:
        """What to tell a client that is one too many, in the protocol's own words, before the connection is closed."""
        return b""

    def closed(self, error: Exception | None) -> None:
        """The stream is gone; `error` is None after an orderly end. Called exactly when `opened` was."""

    def draining(self) -> None:
        """The node is stopping: finish what has begun, then close. Default: what was written goes out, then close."""
        self.close()

    def mid_request(self) -> bool:
        """Whether part of a request has come and the rest has not: `reply` faults then wait for the next request."""
        return False

    def answer_instead(self, reply: bytes) -> None:
        """A `reply` fault has taken the next request and answers it. Override where earlier requests may be unanswered
        still, to keep the order of the replies."""
        self.write(reply)

    # --- writing ----------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write at the end of this round of the loop."""
        outgoing = self.endpoint.outgoing
        if not outgoing:
            outgoing.begin()
        outgoing.append((self, data))

    def write(self, data: bytes) -> None:
        """Write now, after what was sent before."""
        if self.endpoint.outgoing:
            self.endpoint.outgoing.flush()
        self.transport.write(data)

    # --- the loop's side --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.endpoint.admit(self)

    def eof_received(self) -> bool | None:
        """The peer sends no more. By default the connection ends too, when what was sent has gone out."""
        self.endpoint.outgoing.flush()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        if self.endpoint.forget(self):
            self.closed(exc)

    def pause_writing(self) -> None:
        """The peer reads too slowly. (What a subclass paused itself, it must pause again after `resume_writing`.)"""
        self.write_paused = True
        if not self.transport.is_closing():
            self.transport.pause_reading()
        self.endpoint.stalled(self)

    def resume_writing(self) -> None:
        self.write_paused = False
        if not self.closing:
            self.transport.resume_reading()

    # --- ending -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Send what is buffered, then close. A peer that does not take it is cut off after `stall_timeout_s`."""
        if self.closing:
            return  # and asyncio's TLS transports break when closed twice
        self.endpoint.outgoing.flush()
        self.closing = True
        if self.transport.get_write_buffer_size():
            self.endpoint.stalled(self)
        self.transport.close()

    def abort(self, reason: str) -> None:
        """Drop the connection at once, with what is buffered; the reason goes to the log."""
        self.closing = True
        self.endpoint.log.debug("connection aborted", listener=self.endpoint.name, peer=self.peer, reason=reason)
        self.transport.abort()

    def reset(self) -> None:
        """Drop the connection at once, so that the peer sees a reset instead of an orderly end."""
        self.closing = True
        raw: socket.socket | None = self.transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()

    def untaken_bytes(self) -> int:
        """What was written and the peer has no room for, in our buffers and the kernel's (as far as it tells)."""
        self.endpoint.outgoing.flush()
        unsent = sockets.bytes_unsent(self.transport.get_extra_info("socket"))
        return self.transport.get_write_buffer_size() + unsent

    # --- who is there -----------------------------------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """The remote address as `HOST:PORT`, or `unix` for a Unix socket."""
        return show_name(self.transport.get_extra_info("peername"))

    @property
    def local(self) -> str:
        """The local address as `HOST:PORT`, or `unix`."""
        return show_name(self.transport.get_extra_info("sockname"))

    def named(self, peer_name: str) -> None:
        """The peer has said (or proven) who it is; faults that choose by name apply from here on."""
        self.peer_name = peer_name
        self.endpoint.renamed(self)


def show_name(name: object) -> str:
    """A socket name as text: `127.0.0.1:80`, `[::1]:80`, `unix`."""
    if isinstance(name, tuple):
        host, port = name[0], name[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unix"


class _NoTransport(asyncio.Transport):
    """Stands in before connection_made: closing a connection that never opened does nothing."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        pass

    abort = close


NO_TRANSPORT: asyncio.Transport = _NoTransport()
