"""The supervisor's processes: the fork server's client as coroutines.

A spawn is a request and an answer (the pid), an end is a message that comes when it comes; this keeps them apart and
gives each process a future for its exit code. Should the fork server itself end, every process is lost, since nobody
can reap or signal them any more: `lost` is called once.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minidist.cluster.node import Process
from minidist.runtime.forkserver import ForkServer


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: `argv` is executed, or `target` ("module:function") is called with `args` in a fork."""

    cwd: str
    env: Mapping[str, str | None]
    argv: Sequence[str] | None = None
    target: str = ""
    args: Sequence[str] = field(default=())
    title: str = ""


class Processes:
    """Starts, signals and awaits processes. Needs a running loop."""

    def __init__(self, server: ForkServer, lost: Callable[[], None]) -> None:
        self._server = server
        self._lost = lost
        self._starting: dict[int, asyncio.Future[Process]] = {}
        self._running: dict[int, Process] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(server.channel.fileno(), self._read)

    async def start(self, program: Program, log: Path, lines: Callable[[bytes], object] | None = None) -> Process:
        """Start a program whose output is appended to `log`. With `lines`, stdout comes here instead, line by line."""
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        read, stdout = os.pipe() if lines else (-1, os.dup(descriptor))
        try:
            request_id = self._server.spawn(
                argv=program.argv,
                target=program.target,
                args=program.args,
                env=program.env,
                cwd=program.cwd,
                stdout=stdout,
                stderr=descriptor,
                title=program.title,
            )
        finally:
            os.close(descriptor)
            os.close(stdout)
        started: asyncio.Future[Process] = self._loop.create_future()
        self._starting[request_id] = started  # before anything is awaited: the answer may be here by then
        if lines:
            await self._loop.connect_read_pipe(lambda: _LineReader(lines), os.fdopen(read, "rb", buffering=0))
        return await started

    def signal(self, process: Process, number: int) -> None:
        """Signal the process's whole group; nothing happens once it has ended."""
        self._server.signal(process.pid, number)

    def close(self) -> None:
        """End the fork server and whatever still runs."""
        self._loop.remove_reader(self._server.channel.fileno())
        self._server.close()

    def _read(self) -> None:
        try:
            messages = self._server.receive()
        except EOFError:
            self._loop.remove_reader(self._server.channel.fileno())
            self._lost()
            return
        for message in messages:
            if "spawned" in message:
                process = Process(message["pid"], self._loop.create_future())
                self._running[process.pid] = process
                self._starting.pop(message["spawned"]).set_result(process)
            else:
                self._running.pop(message["exited"]).exited.set_result(message["code"])


class _LineReader(asyncio.Protocol):
    """Cuts what a program prints into lines."""

    MAX_LINE_BYTES = 64 * 1024

    def __init__(self, lines: Callable[[bytes], object]) -> None:
        self._lines = lines
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self.MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._lines(line)
