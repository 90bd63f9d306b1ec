"""The control socket: how a verb talks to the supervisor. JSON lines over a Unix socket in the run directory.

    ▶ {"verb": "stop", "nodes": ["web-2"], "timeout_s": 5}
    ◀ {"progress": "web-2 stopped"}          any number, for stderr
    ◀ {"item": …}                            any number, of verbs that stream
    ◀ {"result": …}                          or {"error": text, "exit": 1 | 2}; then the connection ends

Closing the connection early cancels the request. Who may connect is a matter of the directory's permissions (0700).
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from minidist.cluster.rundir import RunDir

MAX_REQUEST_BYTES = 1024 * 1024

Message = dict[str, Any]


class VerbError(Exception):
    """What the supervisor would not or could not do; `exit_code` is the verb's."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


# --- The verb's end --------------------------------------------------------------------------------------------------


class Call:
    """One request under way. Iterating gives `{"progress"}` and `{"item"}` messages; `result` is set at the end."""

    def __init__(self, connection: socket.socket, verb: str, arguments: Message) -> None:
        self.connection = connection
        self.result: Any = None
        self.done = False
        self._received = b""
        connection.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")

    def __iter__(self) -> Iterator[Message]:
        """Raises VerbError; also when the supervisor ends before it has answered."""
        while not self.done:
            try:
                data = self.connection.recv(65536)
            except TimeoutError:
                raise VerbError("the supervisor does not answer") from None
            except OSError:
                data = b""
            yield from self.feed(data)

    def feed(self, data: bytes) -> list[Message]:
        """The messages that came with these bytes; no bytes mean that the supervisor is gone. Raises VerbError."""
        if not data:
            self.close()
            raise VerbError("the supervisor ended before it had answered")
        *lines, self._received = (self._received + data).split(b"\n")
        messages = []
        for line in lines:
            message: Message = json.loads(line)
            if "error" in message:
                self.close()
                raise VerbError(message["error"], message["exit"])
            if "result" in message:
                self.result = message["result"]
                self.close()
                break
            messages.append(message)
        return messages

    def close(self) -> None:
        """The request is over, or no longer wanted. Called at its end by itself."""
        self.done = True
        self.connection.close()


def begin(run_dir: RunDir, verb: str, **arguments: Any) -> Call:
    """Send a request. Raises VerbError when nobody is there."""
    connection = run_dir.connect()
    if connection is None:
        raise VerbError(f"no supervisor answers in {run_dir.path}")
    return Call(connection, verb, arguments)


def call(
    run_dir: RunDir,
    verb: str,
    *,
    progress: Callable[[str], object] | None = None,
    silence_s: float | None = None,
    **arguments: Any,
) -> Any:
    """Send a request and wait for its result; after `silence_s` the supervisor counts as hung. Raises VerbError."""
    request = begin(run_dir, verb, **arguments)
    with contextlib.closing(request):
        request.connection.settimeout(silence_s)
        for message in request:
            if progress is not None and "progress" in message:
                progress(message["progress"])
    return request.result


# --- The supervisor's end --------------------------------------------------------------------------------------------


class Session:
    """One request, as its handler sees it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, message: Message) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")
        await self._writer.drain()

    def progress(self, text: str) -> None:
        """For stderr of whoever waits; not worth waiting for."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"progress": text}).encode() + b"\n")

    async def item(self, value: Any) -> None:
        await self.send({"item": value})


Handler = Callable[[Message, Session], Awaitable[Any]]


class ControlServer:
    """Answers requests with the handlers of a table. A handler returns the result or raises VerbError."""

    def __init__(
        self, run_dir: RunDir, handlers: Mapping[str, Handler], log: Callable[[BaseException], object]
    ) -> None:
        self._run_dir = run_dir
        self._handlers = handlers
        self._log = log
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        with self._run_dir.short_socket_path() as path:
            self._server = await asyncio.start_unix_server(self._serve, path, limit=MAX_REQUEST_BYTES)

    async def close(self) -> None:
        """Stop listening; requests under way finish first."""
        assert self._server is not None
        self._server.close()
        others = self._sessions - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=1.0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(task)
        try:
            line = await reader.readline()
            if line:
                await self._answer(json.loads(line), reader, writer)
        except (OSError, ValueError):
            pass  # the verb went away, or it was none
        finally:
            self._sessions.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(writer)
        work = asyncio.ensure_future(self._handle(request, session))
        hangup = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({work, hangup}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await session.send(work.result())
        finally:
            for each in (work, hangup):
                each.cancel()
            await asyncio.gather(work, hangup, return_exceptions=True)

    async def _handle(self, request: Message, session: Session) -> Message:
        try:
            handler = self._handlers[request["verb"]]
            return {"result": await handler(request, session)}
        except VerbError as error:
            return {"error": str(error), "exit": error.exit_code}
        except Exception as error:
            self._log(error)
            return {"error": f"the supervisor failed ({error!r}); supervisor.log says more", "exit": 1}
