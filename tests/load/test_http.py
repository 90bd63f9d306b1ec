"""The HTTP driver: what goes over the wire, and how each kind of answer is counted."""

import asyncio
import dataclasses
import itertools
import ssl
from pathlib import Path
from typing import Any

import pytest

from minidist.load.plan import LoadError, Plan
from minidist.load.report import Report
from minidist.load.runner import run

CERTIFICATE = Path(__file__).parents[1] / "runtime" / "localhost.pem"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def load(server: Any, path: str = "/", **changes: Any) -> Report:
    """Ten requests, open loop, over one connection."""
    described: dict[str, Any] = {"rate": 100.0, "connections": 1, "duration_ms": 100, "timeout_ms": 5000} | changes
    return await run(Plan(url=f"http://127.0.0.1:{server.port}{path}", **described))


async def test_the_plainest_request(http_server: Any) -> None:
    server = await http_server()
    report = await load(server)
    host = f"127.0.0.1:{server.port}".encode()
    assert server.requests[0] == (
        b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nUser-Agent: minidist-load\r\nAccept: */*\r\n\r\n"
    )
    assert (report.total.ok, report.total.errors, server.accepted) == (10, {}, 1)
    assert report.total.bytes_out == sum(map(len, server.requests))
    assert report.total.bytes_in == 10 * len(OK)
    assert report.workload == "get"


async def test_method_header_and_body(http_server: Any) -> None:
    server = await http_server()
    header = (("Host", "shop.example"), ("X-A", "1"), ("X-A", "2"))
    report = await load(server, "/a%20b?q=ä b", options={"method": "PUT", "header": header, "body": "hello"})
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"PUT /a%20b?q=%C3%A4%20b HTTP/1.1"
    assert lines[1:] == [
        b"User-Agent: minidist-load", b"Accept: */*", b"Content-Length: 5", b"Host: shop.example", b"X-A: 1", b"X-A: 2",
    ]  # fmt: skip
    assert body == b"hello"
    assert report.workload == "put"


async def test_a_body_from_a_file_and_one_of_a_size(http_server: Any, tmp_path: Any) -> None:
    server = await http_server()
    (tmp_path / "body").write_bytes(b"\x00\xff")
    await load(server, options={"method": "POST", "body": f"@{tmp_path}/body"})
    assert server.requests[0].endswith(b"Content-Length: 2\r\n\r\n\x00\xff")
    await load(server, options={"method": "POST", "body_size": 3000})
    assert len(server.requests[-1].partition(b"\r\n\r\n")[2]) == 3000


async def test_user_and_password_become_basic_authentication(http_server: Any) -> None:
    server = await http_server()
    report = await run(Plan(url=f"http://me:pa%3Ass@127.0.0.1:{server.port}/", rate=100, duration_ms=20, connections=1))
    assert b"\r\nAuthorization: Basic bWU6cGE6c3M=\r\n" in server.requests[0]
    assert "pa%3Ass" not in str(report.to_json())


async def test_keys_in_the_path(http_server: Any) -> None:
    server = await http_server()
    await load(server, "/items/{key}/of/{key}", options={"keys": 5}, rate=500.0)
    lines = {request.partition(b" HTTP")[0] for request in server.requests}
    assert lines == {b"GET /items/%d/of/%d" % (key, key) for key in range(5)}


async def test_a_mix_of_reads_and_writes(http_server: Any) -> None:
    server = await http_server()
    report = await load(server, workload="mix", options={"ratio": (1, 1), "body": "x"}, rate=1000.0)
    posts = [request for request in server.requests if request.startswith(b"POST")]
    assert 20 < len(posts) < 80
    assert all(request.endswith(b"\r\n\r\nx") for request in posts)
    assert report.workload == "mix"


@pytest.mark.parametrize(
    ("answer", "errors"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", {"http-404": 10}),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", {"http-503": 10}),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", {}),
        (b"HTTP/1.1 204 No Content\r\n\r\n", {}),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", {}),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, {}),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", {}),
        (b"SSH-2.0-OpenSSH\r\n", {"bad-reply": 10}),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", {"bad-reply": 10}),
    ],
)
async def test_answers_and_how_they_count(http_server: Any, answer: bytes, errors: dict[str, int]) -> None:
    server = await http_server(lambda number, request: answer)
    report = await load(server)
    assert report.total.errors == errors
    assert report.total.ok == (0 if errors else 10)


async def test_an_answer_in_many_pieces(http_server: Any) -> None:
    server = await http_server(lambda number, request: None)
    arrived = asyncio.Event()
    taken = server.take

    def take(connection: Any, request: bytes) -> None:
        taken(connection, request)
        arrived.set()

    server.take = take
    loading = asyncio.create_task(load(server, rate=10.0))
    await arrived.wait()
    for cut in OK:
        server.open[0].transport.write(bytes([cut]))
        await asyncio.sleep(0)
    report = await loading
    assert (report.total.ok, report.total.errors) == (1, {})


async def test_head_ends_at_its_head(http_server: Any) -> None:
    server = await http_server(lambda number, request: b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    report = await load(server, options={"method": "HEAD"})
    assert (report.total.ok, report.total.errors, server.accepted) == (10, {}, 1)


class Closing:
    """Answers, then closes the connection."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def attach(self, server: Any) -> None:
        def take(connection: Any, request: bytes) -> None:
            server.requests.append(request)
            connection.transport.write(self.answer)
            connection.transport.close()

        server.take = take


@pytest.mark.parametrize(
    ("answer", "ok", "errors"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 10, {}),
        (b"HTTP/1.0 200 OK\r\n\r\na body that ends with the connection", 10, {}),
        (b"HTTP/1.1 500 Oh\r\n\r\na body that ends with the connection", 0, {"http-500": 10}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", 0, {"closed": 10}),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsho", 0, {"closed": 10}),
        (b"HTTP/1.1 200 O", 0, {"closed": 10}),
    ],
)
async def test_connections_that_end_with_the_answer(
    http_server: Any, answer: bytes, ok: int, errors: dict[str, int]
) -> None:
    server = await http_server()
    Closing(answer).attach(server)
    report = await load(server)
    assert (report.total.ok, report.total.errors) == (ok, errors)
    # After a loss for nothing the channel pauses, and arrivals meanwhile fail of it without being sent.
    assert len(server.requests) == 10 or "closed" in errors


async def test_without_keep_alive_each_request_has_its_connection(http_server: Any) -> None:
    server = await http_server()
    report = await load(server, options={"keep_alive": False})
    assert (report.total.ok, report.total.errors) == (10, {})
    assert server.accepted == 10
    assert b"\r\nConnection: close\r\n" in server.requests[0]


async def test_without_keep_alive_refusals_are_counted_one_by_one(http_server: Any) -> None:
    server = await http_server()
    server.stop()
    report = await load(server, options={"keep_alive": False})
    assert (report.total.ok, report.total.errors) == (0, {"refused": 10})


async def test_resets_are_told_from_orderly_closes(http_server: Any) -> None:
    server = await http_server()
    kinds = itertools.cycle(("reset", "closed"))

    def take(connection: Any, request: bytes) -> None:
        if next(kinds) == "reset":
            connection.transport.abort()
        else:
            connection.transport.close()

    server.take = take
    report = await load(server)
    assert report.total.ok == 0
    assert set(report.total.errors) <= {"reset", "closed"}
    assert report.total.failed == 10


async def test_https_takes_only_certificates_it_can_check(http_server: Any) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATE)
    server = await http_server(tls=tls)
    plan = Plan(url=f"https://localhost:{server.port}/", rate=100.0, connections=1, duration_ms=100)
    with pytest.raises(LoadError, match="certificate"):
        await run(plan)
    for options in ({"insecure": True}, {"tls_ca": str(CERTIFICATE)}, {"insecure": True, "keep_alive": False}):
        report = await run(dataclasses.replace(plan, options=options))
        assert (report.total.ok, report.total.errors) == (10, {})
