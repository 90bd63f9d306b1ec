"""The doors of an event loop that lead out of the simulation. All of them are shut: each is a leak.

Signals, subprocesses, pipes, raw sockets and descriptors belong to the machine this process really runs on. TLS is shut
out too: OpenSSL draws its own random numbers, which no seed reaches.
"""

import asyncio
from typing import Any, NoReturn

from minidist.sim.current import leak


class FencedLoop(asyncio.AbstractEventLoop):
    """An event loop without any of these; `SimLoop` is built on it."""

    # --- descriptors and signals ------------------------------------------------------------------------------------

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        leak("add_reader on a real descriptor")

    def add_writer(self, fd: Any, callback: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        leak("add_writer on a real descriptor")

    def remove_reader(self, fd: Any) -> bool:
        return False

    def remove_writer(self, fd: Any) -> bool:
        return False

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        leak("a signal handler")

    def remove_signal_handler(self, sig: int) -> bool:
        return False

    # --- processes and pipes ----------------------------------------------------------------------------------------

    async def subprocess_exec(self, *arguments: Any, **options: Any) -> NoReturn:
        leak("a subprocess")

    async def subprocess_shell(self, *arguments: Any, **options: Any) -> NoReturn:
        leak("a subprocess")

    async def connect_read_pipe(self, *arguments: Any, **options: Any) -> NoReturn:
        leak("a pipe")

    async def connect_write_pipe(self, *arguments: Any, **options: Any) -> NoReturn:
        leak("a pipe")

    # --- sockets that are not simulated -----------------------------------------------------------------------------

    async def create_unix_server(self, *arguments: Any, **options: Any) -> NoReturn:
        leak("a Unix socket")

    async def create_unix_connection(self, *arguments: Any, **options: Any) -> NoReturn:
        leak("a Unix socket")

    async def connect_accepted_socket(self, *arguments: Any, **options: Any) -> NoReturn:
        leak("a real socket")

    async def start_tls(self, *arguments: Any, **options: Any) -> NoReturn:
        leak("TLS")

    async def sendfile(self, *arguments: Any, **options: Any) -> NoReturn:
        leak("sendfile from a real file")

    async def sock_sendfile(self, *arguments: Any, **options: Any) -> NoReturn:
        leak("sendfile from a real file")

    async def sock_connect(self, *arguments: Any) -> NoReturn:
        leak("a raw socket")

    async def sock_accept(self, *arguments: Any) -> NoReturn:
        leak("a raw socket")

    async def sock_recv(self, *arguments: Any) -> NoReturn:
        leak("a raw socket")

    async def sock_recv_into(self, *arguments: Any) -> NoReturn:
        leak("a raw socket")

    async def sock_recvfrom(self, *arguments: Any) -> NoReturn:
        leak("a raw socket")

    async def sock_recvfrom_into(self, *arguments: Any) -> NoReturn:
        leak("a raw socket")

    async def sock_sendall(self, *arguments: Any) -> NoReturn:
        leak("a raw socket")

    async def sock_sendto(self, *arguments: Any) -> NoReturn:
        leak("a raw socket")
