"""Request smuggling, end to end: no attack reaches an upstream, neither its first request nor the one hidden in it.

Each attack is sent as bytes. The upstream reads with h11, another parser than ours: had we passed a malformed head on,
it would see something; had we and it disagreed about where a request ends, it would see `/hidden`.
"""

import pytest

from tests.components.balancer.conftest import OK, Turn, World, answering, get

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"


def post(*lines: bytes, body: bytes) -> bytes:
    return b"\r\n".join([b"POST /first HTTP/1.1", b"Host: x", *lines, b"", b""]) + body


ATTACKS = {
    "CL.TE": post(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
    "TE.CL": post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"5c\r\n" + HIDDEN + b"\r\n0\r\n\r\n"),
    "TE.TE, unknown": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x", body=b"0\r\n\r\n" + HIDDEN),
    "TE.TE, space": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + HIDDEN),
    "TE.TE, tab": post(b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: identity", body=b"0\r\n\r\n" + HIDDEN),
    "TE.TE, vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n" + HIDDEN),
    "TE.TE, folded": post(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n" + HIDDEN),
    "TE.TE, bare line feed": post(b"X: y\nTransfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
    "TE.TE, bare carriage return": post(b"X: y\rTransfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
    "TE.TE, quoted": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n" + HIDDEN),
    "TE.TE, NUL": post(b"Transfer-Encoding: chunked\0", body=b"0\r\n\r\n" + HIDDEN),
    "TE in HTTP/1.0": b"POST /first HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "CL.CL, different": post(b"Content-Length: 0", b"Content-Length: 37", body=HIDDEN),
    "CL.CL, list": post(b"Content-Length: 0, 37", body=HIDDEN),
    "CL with plus": post(b"Content-Length: +0", body=HIDDEN),
    "CL with underscore": post(b"Content-Length: 0_0", body=HIDDEN),
    "CL in hex": post(b"Content-Length: 0x0", body=HIDDEN),
    "CL beyond 64 bits": post(b"Content-Length: 18446744073709551616", body=HIDDEN),
    "CL negative": post(b"Content-Length: -37", body=HIDDEN),
    "bare line feeds": b"GET /first HTTP/1.1\nHost: x\nContent-Length: 37\n\n" + HIDDEN,
    "header without colon": post(b"Content-Length", body=HIDDEN),
    "name with NUL": post(b"Content-Length\0: 37", body=HIDDEN),
    "two hosts": b"GET /first HTTP/1.1\r\nHost: x\r\nHost: evil\r\n\r\n",
    "target with line break": b"GET /first HTTP/1.1\r\n\tX: y HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "HTTP/0.9 behind": b"GET /first\r\n\r\n" + HIDDEN,
    "h2c preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "CONNECT tunnel": b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n" + HIDDEN,
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_reaches_nobody(world: World, attack: str) -> None:
    upstream = await world.upstream()
    node = await world.balancer(upstream)
    client = await world.client(node)
    await client.send(ATTACKS[attack])
    answer = await client.rest()
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 405", b"HTTP/1.1 501", b"HTTP/1.1 505"), answer[:100]
    assert answer.count(b"\r\n\r\n") == 1, "one answer, and the connection is over"
    assert upstream.requests == []
    assert (await (await world.client(node)).ask(get())).body == b"ok"


CHUNK_ATTACKS = {
    "size with underscore": b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
    "size with plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size with space": b"5 \r\nhello\r\n0\r\n\r\n",
    "size with no-break space": b"\xa05\r\nhello\r\n0\r\n\r\n",
    "size too large": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "empty size": b"\r\nhello\r\n0\r\n\r\n",
    "extension ended by line feed": b"5;x\nhello\r\n0\r\n\r\n",
    "extension with carriage return": b"5;x\ry\r\nhello\r\n0\r\n\r\n",
    "no line break after data": b"5\r\nhello0\r\n\r\n",
    "two bytes in place of the line break": b"5\r\nhelloXX0\r\n\r\n",
    "trailer that frames": b"0\r\nContent-Length : 5\r\n\r\n",
    "trailer with line feed": b"0\r\nX: y\n\r\n",
}


@pytest.mark.parametrize("attack", CHUNK_ATTACKS)
async def test_a_broken_chunk_ends_both_connections(world: World, attack: str) -> None:
    upstream = await world.upstream()
    node = await world.balancer(upstream)
    client = await world.client(node)
    await client.send(post(b"Transfer-Encoding: chunked", body=CHUNK_ATTACKS[attack] + HIDDEN))
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"\r\n\r\n") == 1
    assert "/hidden" not in [seen.target for seen in upstream.requests]
    assert (await (await world.client(node)).ask(get())).body == b"ok"


HARMLESS = {
    "body that looks like a request": post(b"Content-Length: %d" % len(HIDDEN), body=HIDDEN),
    "chunk that looks like a request": post(
        b"Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
    ),
    "GET with a body": b"GET /first HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "Connection names the framing": post(
        b"Content-Length: %d" % len(HIDDEN), b"Connection: Content-Length, Host", body=HIDDEN
    ),
    "trailers that would frame": post(
        b"Transfer-Encoding: chunked", body=b"0\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\nHost: evil\r\n\r\n"
    ),
    "Expect, and the body at once": post(b"Content-Length: %d" % len(HIDDEN), b"Expect: 100-continue", body=HIDDEN),
    "0.CL": b"GET /first HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("message", HARMLESS)
async def test_a_body_stays_a_body(world: World, message: str) -> None:
    upstream = await world.upstream()
    node = await world.balancer(upstream)
    client = await world.client(node)
    for _ in range(2):
        assert (await client.ask(HARMLESS[message], "POST")).status == 200
    assert [seen.target for seen in upstream.requests] == ["/first", "/first"]
    for seen in upstream.requests:
        assert seen.body in (HIDDEN, b"")
        assert seen.trailers == []
        assert seen.header("host") == "x"
        assert len([name for name, _ in seen.headers if name in ("content-length", "transfer-encoding")]) <= 1


async def test_an_upgrade_that_was_refused_hides_nothing(world: World) -> None:
    """What follows a handshake is a request again when the upstream does not switch; it passes our parser."""
    upstream = await world.upstream(answering(OK))
    client = await world.client(await world.balancer(upstream))
    handshake = get("/first", "Connection: upgrade", "Upgrade: websocket")
    await client.send(handshake + b"GET /second HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n")
    assert (await client.answer()).status == 200
    assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
    assert [seen.target for seen in upstream.requests] == ["/first"]


async def test_an_answer_cannot_be_smuggled_either(world: World) -> None:
    """An upstream that answers twice to one request: the second answer is given to nobody."""

    async def serve(turn: Turn) -> None:
        await turn.write(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen")

    upstream = await world.upstream(serve)
    node = await world.balancer(upstream)
    first, second = await world.client(node), await world.client(node)
    for _ in range(3):
        assert (await first.ask(get())).body == b"ok"
        assert (await second.ask(get())).body == b"ok"
