"""What stands between a transport and its connection while bytes are relayed."""

import asyncio
from typing import TYPE_CHECKING, Protocol

from minidist.runtime.connection import Connection

if TYPE_CHECKING:
    from minidist.runtime.relay.flow import Flow


class RelayBroken(Exception):
    """A side was lost before all bytes had passed. `source_lost` says which; `carried` is how many bytes had."""

    def __init__(self, source_lost: bool, carried: int, error: Exception | None) -> None:
        super().__init__(f"{'source' if source_lost else 'sink'} lost after {carried} bytes: {error or 'closed'}")
        self.source_lost = source_lost
        self.carried = carried
        self.error = error


class Sender(Protocol):
    """What writes to a connection through its `End`."""

    def sink_paused(self) -> None: ...
    def sink_resumed(self) -> None: ...
    def lost(self, source_lost: bool, error: Exception | None) -> None: ...


class End(asyncio.Protocol):
    """Stands in for a connection at its transport. Without a flow in a direction the connection does its own work."""

    __slots__ = ("connection", "sink_of", "source_of")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.source_of: Flow | None = None  # takes what this connection receives
        self.sink_of: Sender | None = None  # writes to this connection

    @classmethod
    def of(cls, connection: Connection) -> "End":
        connection.endpoint.outgoing.flush()
        present = connection.transport.get_protocol()
        if isinstance(present, End):
            return present
        end = cls(connection)
        connection.transport.set_protocol(end)
        return end

    def release(self) -> None:
        if self.source_of is None and self.sink_of is None and not self.connection.transport.is_closing():
            self.connection.transport.set_protocol(self.connection)

    def data_received(self, data: bytes) -> None:
        if self.source_of is None:
            self.connection.data_received(data)
        else:
            self.source_of.received(data)

    def eof_received(self) -> bool | None:
        if self.source_of is None:
            return self.connection.eof_received()
        self.source_of.source_ended()
        # A TLS transport cannot stay half open, and warns when asked to.
        return self.connection.transport.can_write_eof()

    def pause_writing(self) -> None:
        if self.sink_of is None:
            self.connection.pause_writing()
            return
        self.connection.write_paused = True
        self.sink_of.sink_paused()
        if self.source_of is None:
            self.connection.transport.pause_reading()  # as the connection would have done itself
        self.connection.endpoint.stalled(self.connection)

    def resume_writing(self) -> None:
        if self.sink_of is None:
            self.connection.resume_writing()
            return
        self.connection.write_paused = False
        if self.source_of is None and not self.connection.closing:
            self.connection.transport.resume_reading()
        self.sink_of.sink_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        source_of, sink_of = self.source_of, self.sink_of
        self.connection.connection_lost(exc)
        if source_of is not None:
            source_of.lost(source_lost=True, error=exc)
        if sink_of is not None:
            sink_of.lost(source_lost=False, error=exc)
