"""One hop: what the upstream sees of a request, what the client sees of an answer."""

import asyncio

import h11
import pytest

from tests.components.balancer.conftest import OK, Client, Turn, World, answering, get, post, until


async def test_a_request_and_its_answer(world: World) -> None:
    upstream = await world.upstream(
        answering(
            b"HTTP/1.1 201 Made Up\r\nX-One: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nKeep-Alive: timeout=5\r\n"
            b"Connection: X-Gone\r\nX-Gone: 1\r\nContent-Length: 4\r\n\r\nbody"
        )
    )
    client = await world.client(await world.balancer(upstream))
    answer = await client.ask(
        get("/a?b=c", "Accept: x", "Connection: keep-alive, X-Secret", "X-Secret: 1", "X-Forwarded-For: 6.6.6.6",
            "Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6", "Proxy-Connection: x")
    )  # fmt: skip
    (seen,) = upstream.requests
    assert (seen.method, seen.target) == ("GET", "/a?b=c")
    assert seen.headers == [
        ("host", "shop.example"), ("accept", "x"), ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.example"),
    ]  # fmt: skip
    assert answer.status == 201
    assert answer.body == b"body"
    assert answer.headers == [("x-one", "1"), ("set-cookie", "a"), ("set-cookie", "b"), ("content-length", "4")]


@pytest.mark.parametrize(
    ("options", "received", "expected"),
    [
        ({"forwarded": "none"}, "X-Forwarded-For: 1.1.1.1", {"x-forwarded-for": None, "forwarded": None}),
        (
            {"forwarded": "none", "trust_forwarded": True},
            "X-Forwarded-For: 1.1.1.1",
            {"x-forwarded-for": "1.1.1.1", "forwarded": None},
        ),
        (
            {"forwarded": "both"},
            "Forwarded: for=1.1.1.1",
            {"x-forwarded-for": "127.0.0.1", "forwarded": 'for=127.0.0.1;host="shop.example";proto=http'},
        ),
        (
            {"trust_forwarded": True},
            "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https",
            {"x-forwarded-for": "1.1.1.1, 127.0.0.1", "x-forwarded-proto": "https"},
        ),
        (
            {"forwarded": "forwarded", "trust_forwarded": True},
            "Forwarded: for=1.1.1.1",
            {"forwarded": 'for=1.1.1.1, for=127.0.0.1;host="shop.example";proto=http', "x-forwarded-for": None},
        ),
        ({"via": "edge"}, "Accept: x", {"via": "1.1 edge"}),
    ],
)
async def test_what_upstreams_learn_about_the_client(
    world: World, options: dict[str, object], received: str, expected: dict[str, str | None]
) -> None:
    upstream = await world.upstream()
    client = await world.client(await world.balancer(upstream, **options))
    await client.ask(get("/", received))
    assert {name: upstream.requests[0].header(name) for name in expected} == expected


async def test_connections_are_kept_on_both_sides(world: World) -> None:
    upstream = await world.upstream()
    node = await world.balancer(upstream)
    client = await world.client(node)
    for number in range(10):
        assert (await client.ask(get(f"/{number}"))).body == b"ok"
    assert upstream.connections == 1
    assert [seen.target for seen in upstream.requests] == [f"/{number}" for number in range(10)]
    other = await world.client(node)
    assert (await other.ask(get())).status == 200
    assert upstream.connections == 1


async def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    async def echo(turn: Turn) -> None:
        body = turn.seen.target.encode()
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    node = await world.balancer(await world.upstream(echo))
    client = await world.client(node)
    await client.send(b"".join(get(f"/{number}") for number in range(50)) + post(b"x" * 100, target="/last"))
    for number in range(50):
        assert (await client.answer()).body == f"/{number}".encode()
    assert (await client.answer("POST")).body == b"/last"


async def test_a_thousand_pipelined_requests_without_upstream_do_not_nest(world: World) -> None:
    node = await world.balancer()
    client = await world.client(node)
    await client.send(get() * 1000)
    for _ in range(1000):
        assert (await client.answer()).status == 503


async def test_a_request_at_every_split(world: World) -> None:
    upstream = await world.upstream()
    node = await world.balancer(upstream)
    request = b"POST /split HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: u\r\n\r\n"
    client = await world.client(node)
    client.writer.transport.set_write_buffer_limits(0)
    for at in range(1, len(request)):
        await client.send(request[:at])
        await asyncio.sleep(0)
        assert (await client.ask(request[at:], "POST")).status == 200
    assert len(upstream.requests) == len(request) - 1
    assert {(seen.body, tuple(seen.trailers)) for seen in upstream.requests} == {(b"abc", (("t", "u"),))}


async def test_an_answer_byte_by_byte(world: World) -> None:
    async def dribble(turn: Turn) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: u\r\n\r\n":
            await turn.write(bytes([byte]))

    client = await world.client(await world.balancer(await world.upstream(dribble)))
    for _ in range(3):
        answer = await client.ask(get("/", "TE: trailers"))
        assert (answer.body, answer.trailers) == (b"abcde", [("t", "u")])


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_content(world: World, status: int) -> None:
    upstream = await world.upstream(answering(b'HTTP/1.1 %d X\r\nETag: "a"\r\n\r\n' % status))
    client = await world.client(await world.balancer(upstream))
    for _ in range(2):
        answer = await client.ask(get())
        assert (answer.status, answer.body, answer.header("etag")) == (status, b"", '"a"')
        assert answer.header("content-length") is None
    assert upstream.connections == 1


async def test_head_keeps_the_length_of_what_there_would_be(world: World) -> None:
    upstream = await world.upstream(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"))
    client = await world.client(await world.balancer(upstream))
    for _ in range(2):
        answer = await client.ask(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD")
        assert (answer.header("content-length"), answer.body) == ("5000", b"")
    assert upstream.connections == 1


async def test_an_answer_until_the_end_of_the_connection_becomes_chunked(world: World) -> None:
    async def serve(turn: Turn) -> bool:
        await turn.write(b"HTTP/1.0 200 OK\r\n\r\nsome")
        await turn.write(b" more")
        return True

    client = await world.client(await world.balancer(await world.upstream(serve)))
    for _ in range(2):
        answer = await client.ask(get())
        assert (answer.body, answer.header("transfer-encoding")) == (b"some more", "chunked")


async def test_old_clients(world: World) -> None:
    """HTTP/1.0 gets no chunks and no 1xx; it keeps the connection when it asks for it and the length is known."""

    async def serve(turn: Turn) -> None:
        if turn.seen.target == "/chunked":
            await turn.write(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await turn.write(b"3\r\nabc\r\n0\r\n\r\n")
        else:
            await turn.write(OK)

    upstream = await world.upstream(serve)
    client = await world.client(await world.balancer(upstream))
    answer = await client.ask(get("/", "Connection: keep-alive", version="1.0"))
    assert (answer.body, answer.header("connection")) == (b"ok", "keep-alive")
    await client.send(get("/chunked", "Connection: keep-alive", version="1.0"))
    text = await client.rest()
    assert text.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" in text
    assert text.endswith(b"\r\n\r\nabc")


async def test_a_client_without_host_still_gives_the_upstream_one(world: World) -> None:
    upstream = await world.upstream()
    client = await world.client(await world.balancer(upstream))
    await client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert (await client.rest()).endswith(b"ok")
    assert upstream.requests[0].header("host") == upstream.name


async def test_an_absolute_target_decides_the_host(world: World) -> None:
    upstream = await world.upstream()
    client = await world.client(await world.balancer(upstream))
    await client.ask(b"GET http://real.example/x HTTP/1.1\r\nHost: other.example\r\n\r\n")
    assert (upstream.requests[0].target, upstream.requests[0].header("host")) == ("/x", "real.example")


async def test_interim_answers_pass(world: World) -> None:
    upstream = await world.upstream(answering(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2 + OK))
    client = await world.client(await world.balancer(upstream))
    answer = await client.ask(get())
    assert (answer.interim, answer.status) == ([103, 103], 200)


@pytest.mark.parametrize("method", ["CONNECT shop.example:443", "TRACE /"])
async def test_methods_that_are_not_served(world: World, method: str) -> None:
    upstream = await world.upstream()
    client = await world.client(await world.balancer(upstream))
    await client.send(f"{method} HTTP/1.1\r\nHost: shop.example:443\r\n\r\n".encode())
    assert (await client.rest()).startswith(b"HTTP/1.1 405 ")
    assert upstream.requests == []


# --- Expect ---------------------------------------------------------------------------------------------------------


async def test_expect_waits_for_the_upstream(world: World) -> None:
    async def serve(turn: Turn) -> None:
        await turn.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        turn.seen.body = await turn.reader.readexactly(5)
        await turn.write(OK)

    upstream = await world.upstream(serve, head_only=True)
    client = await world.client(await world.balancer(upstream))
    for _ in range(2):
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await client.ask(b"hello", "POST")).body == b"ok"
        assert upstream.requests[-1].body == b"hello"
        assert upstream.requests[-1].header("expect") == "100-continue"
    assert upstream.connections == 1


async def test_a_final_answer_before_the_body_ends_both_connections(world: World) -> None:
    """The rest of the body may or may not come: neither side can know where the next message begins."""
    upstream = await world.upstream(
        answering(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!"), head_only=True
    )
    node = await world.balancer(upstream)
    client = await world.client(node)
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\nExpect: 100-continue\r\n\r\n")
    answer = await client.answer("POST")
    assert (answer.status, answer.body, answer.header("connection")) == (413, b"no!", "close")
    assert await client.rest() == b""
    await until(lambda: upstream.ended == 1)
    again = await world.client(node)
    assert (await again.ask(get())).status == 413
    assert upstream.connections == 2


async def test_an_early_answer_reaches_a_client_that_is_still_uploading(world: World) -> None:
    """Without lingering the kernel would reset the connection and the client would lose the answer."""
    upstream = await world.upstream(answering(b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nno!"), head_only=True)
    client = await world.client(await world.balancer(upstream))
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 300_000)
    assert (await client.answer("POST")).status == 403


# --- Upgrade --------------------------------------------------------------------------------------------------------

HANDSHAKE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13")
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\n"
)


async def echo_frames(turn: Turn) -> bool:
    await turn.write(SWITCHED + b"\x81\x05first")
    await turn.write(turn.rest)
    while data := await turn.reader.read(65536):
        await turn.write(data)
    return True


async def test_a_websocket_is_a_tunnel(world: World) -> None:
    upstream = await world.upstream(echo_frames)
    node = await world.balancer(upstream)
    client = await world.client(node)
    await client.send(get("/chat", *HANDSHAKE) + b"\x81\x85early frame")
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Connection: upgrade\r\nUpgrade: websocket\r\n" in head
    assert b"Sec-WebSocket-Accept: y\r\n" in head
    assert upstream.requests[0].header("upgrade") == "websocket"
    assert await client.reader.readexactly(7) == b"\x81\x05first"
    assert await client.reader.readexactly(13) == b"\x81\x85early frame"
    frame = b"\x82\xff" + b"\x00" * 300_000
    await client.send(frame)
    assert await client.reader.readexactly(len(frame)) == frame
    assert node.data.upstreams.members[upstream.name].active == 1
    client.writer.write_eof()
    assert await client.rest() == b""
    await until(lambda: upstream.ended == 1 and node.data.upstreams.members[upstream.name].active == 0)
    assert node.data.by_class[1] == 1


async def test_a_tunnel_ends_with_the_upstream(world: World) -> None:
    async def serve(turn: Turn) -> bool:
        await turn.write(SWITCHED + b"bye")
        return True

    node = await world.balancer(await world.upstream(serve))
    client = await world.client(node)
    await client.send(get("/", *HANDSHAKE))
    assert (await client.rest()).endswith(b"bye")  # a half-close: we may still say something
    await client.close()
    await until(lambda: not node.listeners["http"].connections)
    assert [origin.active for origin in node.data.upstreams.members.values()] == [0]


async def test_an_upgrade_may_be_refused(world: World) -> None:
    upstream = await world.upstream(answering(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n"))
    client = await world.client(await world.balancer(upstream))
    assert (await client.ask(get("/", *HANDSHAKE))).status == 426
    assert (await client.ask(get("/"))).status == 426


@pytest.mark.parametrize(
    "fields",
    [
        ("Connection: upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        ("Upgrade: websocket",),
        ("Connection: upgrade", "Upgrade: websocket, h2c"),
    ],
)
async def test_other_upgrades_are_not_passed_on(world: World, fields: tuple[str, ...]) -> None:
    upstream = await world.upstream()
    client = await world.client(await world.balancer(upstream))
    assert (await client.ask(get("/", *fields))).status == 200
    (seen,) = upstream.requests
    assert [seen.header(name) for name in ("upgrade", "connection", "http2-settings")] == [None, None, None]


async def test_an_upstream_that_switches_unasked_is_broken(world: World) -> None:
    node = await world.balancer(await world.upstream(answering(SWITCHED)), retries=0)
    client = await world.client(node)
    assert (await client.ask(get())).status == 502


async def test_after_a_long_body_both_connections_go_on(world: World) -> None:
    """The relay gives them back: the next request uses them."""
    long = 5 * 1024 * 1024

    async def serve(turn: Turn) -> None:
        if turn.seen.target == "/long":
            await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % long + bytes(long))
        else:
            await turn.write(OK)

    upstream = await world.upstream(serve)
    node = await world.balancer(upstream)
    client = await world.client(node)
    for _ in range(3):
        await client.send(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\nPOST /up HTTP/1.1\r\nHost: x\r\n")
        assert len((await client.answer()).body) == long
        await client.send(b"Content-Length: %d\r\n\r\n" % long + bytes(long) + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer("POST")).body == b"ok"
        assert (await client.answer()).body == b"ok"
    assert upstream.connections == 1
    assert len(upstream.requests[1].body) == long
    assert node.data.bytes_out > 3 * long


async def test_h11_would_notice_a_cut_answer(world: World) -> None:
    """The judge itself: a connection that ends inside a body raises."""
    client = Client(asyncio.StreamReader(), None)  # type: ignore[arg-type]
    client.reader.feed_data(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")
    client.reader.feed_eof()
    with pytest.raises(h11.RemoteProtocolError):
        await client.answer()
