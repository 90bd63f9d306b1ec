"""Leads what connects to a Redis of this machine to the node that is judged.

Several suites take a server on this machine for granted, in the tests and in the workers that they start. With this
folder on PYTHONPATH every Python of a suite imports this file first, and nothing of the suite has to be edited.
"""

import os
import socket
from typing import Any

PORTS = {6379, 6360}  # Redis' own, and the one of Flask-Caching's tests
LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}


def lead(port: int) -> None:
    for name in ("connect", "connect_ex"):
        original = getattr(socket.socket, name)

        def connect(sock: socket.socket, address: Any, original: Any = original) -> Any:
            if isinstance(address, tuple) and address[1] in PORTS and address[0] in LOCAL:
                address = (address[0], port, *address[2:])
            return original(sock, address)

        setattr(socket.socket, name, connect)


if chosen := os.environ.get("JUDGED_PORT"):
    lead(int(chosen))
