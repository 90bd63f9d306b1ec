"""Who is to blame, and who must not suffer for it: clients that go, upstreams that take nothing, our own shortages."""

import asyncio
import contextlib
import re
import resource
import socket
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest

from minidist.components.balancer import client_stream, control
from minidist.components.balancer.server import Balancer
from minidist.runtime.admin_client import AdminRefused
from tests.components.balancer.conftest import OK, Turn, Upstream, World, answering, get, until
from tests.components.balancer.test_operation import admin, apart

MEGABYTE = 2**20
LONG = 64 * MEGABYTE
RUN_BALANCER = "import minidist.cli; minidist.cli.main(['balancer', '--listen', '127.0.0.1:0'])"


def failures(node: Balancer, upstream: Upstream) -> int:
    return node.data.upstreams.members[upstream.name].failures


async def send_long_body(turn: Turn) -> bool:
    with contextlib.suppress(ConnectionError):
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG)
        for _ in range(LONG // MEGABYTE):
            await turn.write(bytes(MEGABYTE))
    return True


@pytest.mark.parametrize("hard", [False, True])
async def test_a_cancelled_download_is_no_failure_of_the_upstream(world: World, hard: bool) -> None:
    """Also when the kernel moves the bytes, and finds out first."""
    upstream = await world.upstream(send_long_body)
    node = await world.balancer(upstream, eject_after=1)
    for count in range(1, 4):
        client = await world.client(node)
        await client.send(get())
        await client.reader.readexactly(4 * MEGABYTE)
        if hard:
            raw = client.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await client.close()
        await until(lambda: node.data.counted.get("client_aborts") == count)  # noqa: B023
    assert failures(node, upstream) == 0
    assert node.data.counted.get("truncated") is None
    await until(lambda: node.data.upstreams.members[upstream.name].open == 0)


@pytest.mark.parametrize("framing", [f"Content-Length: {LONG}", "Transfer-Encoding: chunked"])
async def test_an_upstream_that_takes_no_body_is_to_blame(world: World, framing: str) -> None:
    stuck = asyncio.Event()

    async def serve(turn: Turn) -> None:
        await stuck.wait()

    upstream = await world.upstream(serve, head_only=True)
    node = await world.balancer(upstream, stream_timeout="500ms")
    client = await world.client(node)
    piece = b"%x\r\n%b\r\n" % (MEGABYTE, bytes(MEGABYTE)) if "chunked" in framing else bytes(MEGABYTE)

    async def upload() -> None:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing.encode() + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(LONG // MEGABYTE - 1):
                await client.send(piece)

    uploading = asyncio.create_task(upload())
    assert (await client.answer("POST")).status == 504
    assert failures(node, upstream) == 1
    uploading.cancel()
    stuck.set()


async def test_our_own_shortage_is_no_failure_of_the_upstream(world: World) -> None:
    upstream = await world.upstream()
    node = await world.balancer(upstream, eject_after=1, check="/", check_interval="10ms", rise=1, fall=1)
    await until(lambda: node.control.health.snapshot()["upstreams"][0]["state"] == "up")
    limits = (node.data.dialler.limits, node.control.dialler.limits)
    room = [each.max_connections for each in limits]
    for each in limits:
        each.max_connections = 0
    client = await world.client(node)
    for _ in range(3):
        assert (await client.ask(get())).status == 503
    assert node.data.counted["exhausted"]
    assert failures(node, upstream) == 0
    for each, count in zip(limits, room, strict=True):
        each.max_connections = count
    assert (await client.ask(get())).status == 200
    assert not [event for event in node.events.since() if event["detail"].get("after") in ("down", "ejected")]


async def test_a_full_upstream_is_passed_over(world: World) -> None:
    release = asyncio.Event()

    async def serve(turn: Turn) -> None:
        await release.wait()
        await turn.write(OK)

    full, other = await world.upstream(serve), await world.upstream()
    node = await world.balancer(full, other, upstream_connections=1)
    waiting = await world.client(node)
    await waiting.send(get())
    await until(lambda: full.requests)
    client = await world.client(node)
    for _ in range(6):
        assert (await client.ask(get())).status == 200
    assert len(other.requests) == 6
    release.set()
    assert (await waiting.answer()).status == 200


async def test_a_daemon_may_open_as_many_descriptors_as_the_system_allows() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    program = ("-c", f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard})); {RUN_BALANCER}")
    process = await asyncio.create_subprocess_exec(sys.executable, *program, stdout=PIPE, stderr=DEVNULL)
    assert process.stdout is not None
    assert b"ready" in await process.stdout.readline()
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    process.terminate()
    assert await process.wait() == 0


# --- What clients say about themselves ------------------------------------------------------------------------------


async def test_an_old_client_without_host_cannot_hide(world: World) -> None:
    upstream = await world.upstream()
    client = await world.client(await world.balancer(upstream, forwarded="both"))
    await client.ask(b"GET / HTTP/1.0\r\n\r\n")
    [seen] = upstream.requests
    assert (seen.header("x-forwarded-for"), seen.header("x-forwarded-proto")) == ("127.0.0.1", "http")
    assert (seen.header("x-forwarded-host"), seen.header("forwarded")) == (None, "for=127.0.0.1;proto=http")


@pytest.mark.parametrize("name", ["X_Forwarded_For", "x-forwarded_for", "X_Real_IP", "Transfer_Encoding", "Keep_Alive"])
async def test_an_underscore_is_no_way_around(world: World, name: str) -> None:
    """Behind CGI's rules both spellings are the same variable."""
    upstream = await world.upstream()
    client = await world.client(await world.balancer(upstream))
    assert (await client.ask(get("/", f"{name}: evil", "My_Field: kept"))).status == 200
    await client.ask(get("/", "Connection: my_field", "My_Field: dropped"))
    first, second = upstream.requests
    assert not [value for _, value in first.headers if value == "evil"]
    assert (first.header("my_field"), second.header("my_field")) == ("kept", None)


# --- Draining -------------------------------------------------------------------------------------------------------


async def test_what_is_on_its_way_when_the_node_drains_is_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that nobody but the kernel has accepted yet, and the next request on a kept connection."""
    monkeypatch.setattr(client_stream, "GRACE_S", 1000.0)
    upstream = await world.upstream()
    node = await world.balancer(upstream, drain_timeout="30s")
    kept = await world.client(node)
    await kept.ask(get())
    assert node.data.listener is not None
    [connection] = node.data.listener.connections
    draining = asyncio.create_task(node.drain())
    with socket.create_connection((node.address.host, node.address.port)) as new:
        new.send(get("/new", "Connection: close"))
        await until(lambda: connection.drop_after)
        answer = await kept.ask(get("/kept"))
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert await kept.rest() == b""
        await asyncio.wait_for(draining, 10)
        assert new.recv(4096).endswith(b"ok")
    assert sorted(seen.target for seen in upstream.requests) == ["/", "/kept", "/new"]


async def test_a_client_that_has_been_idle_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_stream, "BUSY_S", 0.0)
    monkeypatch.setattr(client_stream, "GRACE_S", 1000.0)
    node = await world.balancer(await world.upstream())
    client = await world.client(node)
    await client.ask(get())
    draining = asyncio.create_task(node.drain())
    assert await client.rest() == b""
    await draining


# --- The admin port -------------------------------------------------------------------------------------------------


async def test_upstreams_named_twice(world: World) -> None:
    node = await world.balancer("127.0.0.1:9")
    await admin(node, "POST", "/upstreams", {"add": ["127.0.0.1:1", "127.0.0.1:1"], "weight": 2})
    await admin(node, "POST", "/upstreams", {"drain": ["127.0.0.1:1", "127.0.0.1:1"]})
    left = await admin(node, "POST", "/upstreams", {"remove": ["127.0.0.1:1", "127.0.0.1:1"]})
    assert [each["name"] for each in left["upstreams"]] == ["127.0.0.1:9"]


async def test_too_many_upstreams(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_UPSTREAMS", 3)
    node = await world.balancer("127.0.0.1:9")
    with pytest.raises(AdminRefused, match="3 upstreams"):
        await admin(node, "POST", "/upstreams", {"add": [f"127.0.0.1:{port}" for port in (1, 2, 3)]})
    assert list(node.data.upstreams.members) == ["127.0.0.1:9"]
    await admin(node, "POST", "/upstreams", {"add": [f"127.0.0.1:{port}" for port in (9, 1, 2)]})


async def test_what_a_lost_worker_had_counted_stays(world: World) -> None:
    upstream = await world.upstream()
    node, workers = await apart(world, upstream)
    for worker in workers:
        await (await world.client(worker)).ask(get())
    node.control.listed()
    await until(lambda: len(node.control.figures) == 2)
    before = node.control.listed()["upstreams"][0]
    assert (before["requests"], before["connections"]) == (2, 2)
    node.worker_lost(1)
    after = node.control.listed()["upstreams"][0]
    assert (after["requests"], after["connections"]) == (2, 1)


async def test_a_socket_file_is_no_host(world: World, tmp_path: Path) -> None:
    """RFC 9110 section 7.2: Host is a host; servers refuse anything else."""
    hosts = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        hosts.append(re.findall(rb"Host: (.*)\r\n", head))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "server"):
        node = await world.balancer(f"unix:{tmp_path}/server", check="/", check_interval="1h")
        await until(lambda: len(hosts) == 1)
        assert (await (await world.client(node)).ask(b"GET / HTTP/1.0\r\n\r\n")).status == 200
    assert hosts == [[b"localhost"], [b"localhost"]]


async def test_latency_is_finer_than_the_loops_clock(world: World) -> None:
    """uvloop's time has milliseconds, and stands still within a round."""
    upstream = await world.upstream(answering(OK))
    node = await world.balancer(upstream)
    client = await world.client(node)
    for _ in range(20):
        await client.ask(get())
    took_ms = node.data.upstreams.members[upstream.name].ewma_ms
    assert took_ms > 0
    assert took_ms != round(took_ms)
    assert 0 < node.data.latency.total < 60
