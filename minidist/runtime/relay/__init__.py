"""Bytes from one connection to another, or from a file to a connection, at the price of the kernel's work alone.

`relay(a, b)` joins two connections until both are closed; `relay_exactly(a, b, count)` moves so many bytes one way and
gives the connections back; `send_file` moves a piece of a file. This package alone knows splice and sendfile, and
only its `kernel.py` touches a descriptor.

While a connection takes part, an `End` stands in its place as the transport's protocol, and each direction is a `Flow`
that copies through the transports or has the kernel move the bytes. Back-pressure: a sink that does not take bytes
pauses the source. Ends: end-of-file is passed on as a half-close, a reset as a reset. Idle time is the endpoints'
business: a byte in either direction touches both connections.
"""

from minidist.runtime.relay.ends import RelayBroken
from minidist.runtime.relay.files import FileTooShort, send_file
from minidist.runtime.relay.flow import Flow, Mode
from minidist.runtime.relay.joined import Relay, relay, relay_exactly

__all__ = ["FileTooShort", "Flow", "Mode", "Relay", "RelayBroken", "relay", "relay_exactly", "send_file"]
