"""A store behind a cache, for tests: an HTTP server in the test's own loop that does as it is told."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

import pytest


@dataclass
class HttpBacking:
    """Values by key. While `hold` is set (an Event), answers wait for it. `lie` answers in place of the server."""

    values: dict[bytes, bytes] = field(default_factory=dict)
    headers: dict[bytes, bytes] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    log: list[tuple[str, bytes]] = field(default_factory=list)
    hold: asyncio.Event | None = None
    lie: Callable[[str, bytes], bytes | None] = lambda method, key: None
    url: str = ""
    server: asyncio.Server | None = None
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def start(self, port: int = 0) -> "HttpBacking":
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self.port}/things"
        return self

    @property
    def port(self) -> int:
        assert self.server is not None
        return self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                answer = await self._answer(head, reader)
                if answer is None:
                    break
                writer.write(answer)
                if b"Connection: close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader) -> bytes | None:
        first, *lines = head.decode().split("\r\n")
        method, target, _ = first.split(" ")
        fields = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        key = unquote_to_bytes(target.removeprefix("/things/"))
        self.asked[method] += 1
        self.log.append((method, key))
        said = self._said(method, key, body) if self.hold is None else None
        if self.hold is not None:
            if method == "GET":
                said = self._said(method, key, body)  # what is there now, however long the answer takes
            await self.hold.wait()
        lie = self.lie(method, key)
        if lie is not None:
            return lie or None
        return said or self._said(method, key, body)

    def _said(self, method: str, key: bytes, body: bytes) -> bytes:
        if self.lie(method, key) is not None:
            return b""
        if method == "PUT":
            self.values[key] = body
        elif method == "DELETE":
            self.values.pop(key, None)
        elif key not in self.values:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        else:
            value = self.values[key]
            extra = self.headers.get(key, b"")
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(value), extra, value)
        return b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.fixture
async def backing() -> AsyncIterator[HttpBacking]:
    store = await HttpBacking().start()
    yield store
    await store.stop()
