"""The supervisor's end of the control socket: requests of verbs, one per connection (see control.py)."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from minidist.cluster.control import Message, VerbError
from minidist.cluster.rundir import RunDir

MAX_REQUEST_BYTES = 1024 * 1024


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
