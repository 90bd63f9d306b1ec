"""The admin port over real sockets: routes, who may ask, limits, streams, and both clients."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from minidist.runtime.admin import AdminError, AdminServer, Reply, Request, Routes, Stream, own_hosts
from minidist.runtime.admin_client import AdminRefused, AdminUnreachable, call, call_blocking, follow_blocking
from minidist.runtime.config import Address


class Events:
    """A stand-in for a node's event log."""

    def __init__(self) -> None:
        self.followers: list[Callable[[Any], object]] = []
        self.all_gone = asyncio.Event()

    def follow(self, send: Callable[[Any], object]) -> Callable[[], object]:
        self.followers.append(send)
        return lambda: self.stop(send)

    def stop(self, send: Callable[[Any], object]) -> None:
        self.followers.remove(send)
        self.all_gone.set()


async def slow(request: Request) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"slept": True}


def broken(request: Request) -> None:
    raise RuntimeError("secret detail")


def refusing(request: Request) -> None:
    raise AdminError(409, "not now")


def routes(events: Events) -> Routes:
    return {
        ("GET", "/healthz"): lambda request: {"ok": True},
        ("GET", "/metrics"): lambda request: Reply(b"up 1\n", "text/plain; version=0.0.4"),
        ("GET", "/echo"): lambda request: {"query": request.query},
        ("POST", "/echo"): lambda request: {"json": request.json()},
        ("GET", "/slow"): slow,
        ("GET", "/broken"): broken,
        ("GET", "/refusing"): refusing,
        ("GET", "/events"): lambda request: Stream([{"n": 1}], events.follow if "follow" in request.query else None),
    }


@pytest.fixture
async def events() -> Events:
    return Events()


@pytest.fixture
async def server(events: Events) -> AsyncIterator[AdminServer]:
    server = AdminServer(routes(events), Address("127.0.0.1", 0))
    await server.start()
    yield server
    await server.close()


async def raw(server: AdminServer, request: bytes) -> bytes:
    """Everything the server says to these bytes until it closes."""
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def head(server: AdminServer, line: str, *fields: str, host: str | None = None) -> bytes:
    host = str(server.address) if host is None else host
    return "\r\n".join([line, f"Host: {host}", "Connection: close", *fields, "", ""]).encode()


async def test_json_in_and_out(server: AdminServer) -> None:
    assert await call(server.address, "GET", "/healthz") == {"ok": True}
    assert await call(server.address, "GET", "/echo?a=1&b=%20x") == {"query": {"a": "1", "b": " x"}}
    assert await call(server.address, "POST", "/echo", {"by": ["1h", None]}) == {"json": {"by": ["1h", None]}}
    assert await call(server.address, "POST", "/echo") == {"json": {}}
    assert await call(server.address, "GET", "/slow") == {"slept": True}
    assert await call(server.address, "GET", "/metrics") == "up 1\n"


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/nothing", 404, "there is no /nothing"),
        ("DELETE", "/echo", 405, "/echo takes GET, POST"),
        ("GET", "/refusing", 409, "not now"),
        ("GET", "/broken", 500, "internal error; the node's log says more"),
    ],
)
async def test_errors_are_json_without_traceback(
    server: AdminServer, method: str, path: str, status: int, text: str
) -> None:
    with pytest.raises(AdminRefused) as refused:
        await call(server.address, method, path)
    assert (refused.value.status, refused.value.text) == (status, text)


async def test_a_body_that_is_not_json_is_the_callers_fault(server: AdminServer) -> None:
    answer = await raw(server, head(server, "POST /echo HTTP/1.1", "Content-Length: 2") + b"{x")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert "not JSON" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


async def test_requests_follow_each_other_on_one_connection(server: AdminServer) -> None:
    host = f"Host: {server.address}\r\n"
    requests = f"GET /slow HTTP/1.1\r\n{host}\r\nGET /healthz HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
    answer = await raw(server, requests.encode())
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.index(b"slept") < answer.index(b"ok")


async def test_head_has_no_body(server: AdminServer) -> None:
    answer = await raw(server, head(server, "HEAD /healthz HTTP/1.1"))
    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 12\r\n" in answer


async def test_every_split_of_a_request_is_read(server: AdminServer) -> None:
    request = head(server, "POST /echo HTTP/1.1", "Transfer-Encoding: chunked") + b"5\r\n[1,2]\r\n0\r\n\r\n"
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    for at in range(len(request)):
        writer.write(request[at : at + 1])
        await writer.drain()
    assert (await reader.read()).endswith(b'{"json":[1,2]}\n')
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil:1"])
async def test_a_foreign_host_is_refused(server: AdminServer, host: str) -> None:
    answer = await raw(server, head(server, "GET /healthz HTTP/1.1", host=host))
    assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
async def test_own_names_on_loopback(server: AdminServer, name: str) -> None:
    answer = await raw(server, head(server, "GET /healthz HTTP/1.1", host=f"{name}:{server.address.port}"))
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_own_names_elsewhere() -> None:
    assert own_hosts(Address("10.0.0.5", 8000)) == ["10.0.0.5:8000"]
    assert own_hosts(Address("Admin.Example", 80)) == ["admin.example:80", "admin.example"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", ""])
async def test_any_origin_is_refused(server: AdminServer, origin: str) -> None:
    answer = await raw(server, head(server, "POST /echo HTTP/1.1", f"Origin: {origin}", "Content-Length: 0"))
    assert answer.startswith(b"HTTP/1.1 403 ")


async def test_token(events: Events) -> None:
    server = AdminServer(routes(events), Address("127.0.0.1", 0), token="s3cret")
    await server.start()
    assert await call(server.address, "GET", "/healthz", token="s3cret") == {"ok": True}
    for token in ("", "wrong"):
        with pytest.raises(AdminRefused) as refused:
            await call(server.address, "GET", "/healthz", token=token)
        assert refused.value.status == 401
    await server.close()


async def test_off_loopback_needs_a_token(events: Events) -> None:
    with pytest.raises(ValueError, match="needs a token"):
        await AdminServer(routes(events), Address("0.0.0.0", 0)).start()


async def test_a_wildcard_address_answers_to_literals_only(events: Events) -> None:
    server = AdminServer(routes(events), Address("0.0.0.0", 0), token="t")
    await server.start()
    here = Address("127.0.0.1", server.address.port)
    assert await call(here, "GET", "/healthz", token="t") == {"ok": True}
    request = head(server, "GET /healthz HTTP/1.1", "Authorization: Bearer t", host=f"evil.example:{here.port}")
    reader, writer = await asyncio.open_connection(here.host, here.port)
    writer.write(request)
    assert (await reader.read()).startswith(b"HTTP/1.1 403 ")
    writer.close()
    await writer.wait_closed()
    await server.close()


async def test_unix_socket(events: Events, tmp_path: Any) -> None:
    server = AdminServer(routes(events), Address("", 0, str(tmp_path / "admin.sock")))
    await server.start()
    assert await call(server.address, "GET", "/healthz") == {"ok": True}
    assert await asyncio.to_thread(call_blocking, server.address, "GET", "/healthz") == {"ok": True}
    await server.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /" + b"a" * 70_000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, 431),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n", 413),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n" + b"a" * 0x100001, 413),
    ],
)
async def test_bad_input_gets_its_status_and_the_connection_ends(
    server: AdminServer, request_bytes: bytes, status: int
) -> None:
    answer = await raw(server, request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert "error" in json.loads(answer.partition(b"\r\n\r\n")[2])


async def test_events_end_or_follow(server: AdminServer, events: Events) -> None:
    answer = await raw(server, head(server, "GET /events HTTP/1.1"))
    assert answer.endswith(b'\r\n\r\n8\r\n{"n":1}\n\r\n0\r\n\r\n')

    lines = follow_blocking(server.address, "/events?follow=1")
    assert await asyncio.to_thread(next, lines) == {"n": 1}
    events.followers[0]({"n": 2})
    assert await asyncio.to_thread(next, lines) == {"n": 2}
    events.followers[0]({"n": 3})
    await server.close()
    assert await asyncio.to_thread(list, lines) in ([{"n": 3}], [])
    await events.all_gone.wait()


async def test_a_follower_that_goes_is_forgotten(server: AdminServer, events: Events) -> None:
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    writer.write(head(server, "GET /events?follow=1 HTTP/1.0"))
    assert b'{"n":1}\n' in await reader.readuntil(b"\n{") + await reader.readline()
    writer.close()
    await writer.wait_closed()
    await events.all_gone.wait()


async def test_nobody_there() -> None:
    server = AdminServer({}, Address("127.0.0.1", 0))
    await server.start()
    await server.close()
    with pytest.raises(AdminUnreachable):
        await call(server.address, "GET", "/healthz")
    with pytest.raises(AdminUnreachable):
        await asyncio.to_thread(call_blocking, server.address, "GET", "/healthz")


async def test_blocking_clients_errors(server: AdminServer) -> None:
    with pytest.raises(AdminRefused) as refused:
        await asyncio.to_thread(call_blocking, server.address, "GET", "/nothing")
    assert refused.value.status == 404
    with pytest.raises(AdminRefused):
        await asyncio.to_thread(list, follow_blocking(server.address, "/nothing"))
