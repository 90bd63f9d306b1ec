"""Bodies of any size pass in constant memory, whoever is slow. The balancer is a process of its own here, so that its
memory can be measured."""

import asyncio
import json
import os
import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.components.balancer.conftest import Client, Turn, World

BODY_BYTES = 300 * 1024 * 1024
PIECE = bytes(256 * 1024)
GROWTH_BYTES = 24 * 1024 * 1024


class Daemon:
    """A balancer started as users start it."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, str]) -> None:
        self.process = process
        self.host, _, port = ready["address"].rpartition(":")
        self.port = int(port)

    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    async def client(self, world: World) -> Client:
        client = Client(*await asyncio.open_connection(self.host, self.port, limit=2**20))
        world.stack.push_async_callback(client.close)
        return client


@pytest.fixture
async def start() -> AsyncIterator[object]:
    running: list[asyncio.subprocess.Process] = []

    async def begin(*options: str) -> Daemon:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "minidist", "balancer", "--listen", "127.0.0.1:0", "--check", "off", *options,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        return Daemon(process, json.loads(await process.stdout.readline()))

    yield begin
    for process in running:
        process.terminate()
        assert await process.wait() == 0
        process._transport.close()  # type: ignore[attr-defined]


async def send_body(turn: Turn) -> None:
    """The target says how: /length or /chunked."""
    chunked = turn.seen.target == "/chunked"
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % BODY_BYTES
    await turn.write(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
    for _ in range(BODY_BYTES // len(PIECE)):
        await turn.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE)
    if chunked:
        await turn.write(b"0\r\n\r\n")


async def count_body(turn: Turn) -> None:
    """Reads the body and says how much it was, chunk framing included."""
    length = turn.seen.header("content-length")
    wanted = None if length is None else int(length)
    data, count, tail = turn.rest, 0, b""
    while True:
        count += len(data)
        tail = (tail + data)[-7:]
        if count == wanted or (wanted is None and tail == b"\r\n0\r\n\r\n"):
            break
        data = await turn.reader.read(1 << 20)
        if not data:
            break
    turn.rest = b""
    text = str(count).encode()
    await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))


linux_only = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")


@linux_only
@pytest.mark.parametrize("target", ["/length", "/chunked"])
async def test_a_large_download(world: World, start: object, target: str) -> None:
    upstream = await world.upstream(send_body)
    daemon = await start("--upstream", upstream.name)  # type: ignore[operator]
    client = await daemon.client(world)
    before = daemon.rss_bytes()
    await client.send(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    count, most = 0, 0
    while data := await client.reader.read(1 << 20):
        count += len(data)
        most = max(most, daemon.rss_bytes())
    assert count >= BODY_BYTES
    assert most - before < GROWTH_BYTES


@linux_only
async def test_a_client_that_stops_reading_stops_the_upstream(world: World, start: object) -> None:
    written = 0

    async def serve(turn: Turn) -> None:
        nonlocal written
        await turn.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(BODY_BYTES // len(PIECE)):
            await turn.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
            written += len(PIECE)
        await turn.write(b"0\r\n\r\n")

    upstream = await world.upstream(serve)
    daemon = await start("--upstream", upstream.name)  # type: ignore[operator]
    client = await daemon.client(world)
    before = daemon.rss_bytes()
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    seen, same = -1, 0
    while same < 20:  # nobody reads: after a while nothing moves any more
        await asyncio.sleep(0.01)
        same = same + 1 if written == seen else 0
        seen = written
    assert 0 < written < 64 * 1024 * 1024
    assert daemon.rss_bytes() - before < GROWTH_BYTES
    count = 0
    while count < BODY_BYTES:
        count += len(await client.reader.read(1 << 20))


@linux_only
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_large_upload(world: World, start: object, framing: str) -> None:
    upstream = await world.upstream(count_body, head_only=True)
    daemon = await start("--upstream", upstream.name)  # type: ignore[operator]
    client = await daemon.client(world)
    before = daemon.rss_bytes()
    chunked = framing == "chunked"
    field = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {BODY_BYTES}"
    await client.send(f"POST / HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n".encode())
    most = 0
    for _ in range(BODY_BYTES // len(PIECE)):
        await client.send(b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE)
        most = max(most, daemon.rss_bytes())
    if chunked:
        await client.send(b"0\r\n\r\n")
    answer = await client.answer("POST")
    assert int(answer.body) >= BODY_BYTES
    assert most - before < GROWTH_BYTES
    assert (await client.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "POST")).status == 200
