"""Heads: what is believed, what is refused and with which status, byte by byte, and against h11 as second opinion."""

import contextlib

import h11
import pytest
from h11._connection import _keep_alive
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minidist.wire.http1 import (
    CHUNKED,
    UNTIL_CLOSE,
    HttpError,
    Limits,
    RequestHead,
    RequestParser,
    ResponseHead,
    ResponseParser,
)


def request(text: bytes) -> RequestHead:
    parsed = RequestParser().parse(text)
    assert parsed is not None
    assert parsed[1] == len(text)
    return parsed[0]


def response(text: bytes) -> ResponseHead:
    parsed = ResponseParser().parse(text)
    assert parsed is not None
    return parsed[0]


def test_a_request_as_browsers_send_it() -> None:
    head = request(
        b"GET /shop?q=a%20b|c HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent:  x y \t\r\nAccept:*/*\r\n"
        b"Cookie: a=1; b=\xe4\r\nConnection: keep-alive\r\n\r\n"
    )
    assert (head.method, head.target, head.host, head.length) == (b"GET", b"/shop?q=a%20b|c", b"shop.example:8080", 0)
    assert head.persistent
    assert head.fields.get(b"user-agent") == b"x y"
    assert head.fields.get(b"nothing") is None
    assert head.fields.end_to_end == b"User-Agent: x y\r\nAccept: */*\r\nCookie: a=1; b=\xe4\r\n"


def test_hop_by_hop_fields_stay_here() -> None:
    head = request(
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close, X-Secret , ,upgrade\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n"
        b"TE: trailers, deflate;q=0.5\r\nUpgrade: WebSocket\r\nProxy-Connection: x\r\nProxy-Authorization: b\r\n"
        b"Transfer-Encoding: chunked\r\nHTTP2-Settings: x\r\nX-Kept: yes\r\nExpect: 100-Continue\r\n\r\n"
    )
    assert head.fields.end_to_end == b"X-Kept: yes\r\n"
    assert head.length == CHUNKED
    assert not head.persistent
    assert head.fields.upgrade == b"websocket"
    assert head.fields.te_trailers
    assert head.fields.expect_continue


def test_fields_the_owner_writes_itself_are_dropped() -> None:
    parser = RequestParser(drop=frozenset([b"x-forwarded-for"]))
    parsed = parser.parse(b"GET / HTTP/1.1\r\nHost: x\r\nx-Forwarded-FOR: 6.6.6.6\r\nA: 1\r\n\r\n")
    assert parsed is not None
    assert parsed[0].fields.end_to_end == b"A: 1\r\n"
    assert parsed[0].fields.get_all(b"x-forwarded-for") == [b"6.6.6.6"]


def test_an_upgrade_that_connection_does_not_name_is_none() -> None:
    assert request(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n").fields.upgrade == b""


@pytest.mark.parametrize(
    ("line", "host", "target", "believed_host"),
    [
        (b"GET http://a.example/b?c HTTP/1.1", b"other.example", b"/b?c", b"a.example"),
        (b"GET HTTPS://a.example:81 HTTP/1.1", b"x", b"/", b"a.example:81"),
        (b"GET http://a.example?q HTTP/1.1", b"x", b"/?q", b"a.example"),
        (b"OPTIONS http://a.example HTTP/1.1", b"x", b"*", b"a.example"),
        (b"OPTIONS * HTTP/1.1", b"x", b"*", b"x"),
        (b"CONNECT a.example:443 HTTP/1.1", b"a.example", b"a.example:443", b"a.example:443"),
        (b"GET / HTTP/1.1", b"[::1]:80", b"/", b"[::1]:80"),
        (b"GET //twice HTTP/1.1", b"a_b.example", b"//twice", b"a_b.example"),
        (b"PURGE / HTTP/1.1", b"x:", b"/", b"x:"),
    ],
)
def test_forms_of_the_target(line: bytes, host: bytes, target: bytes, believed_host: bytes) -> None:
    head = request(line + b"\r\nHost: " + host + b"\r\n\r\n")
    assert (head.target, head.host) == (target, believed_host)


@pytest.mark.parametrize(
    ("version", "connection", "persistent"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: keep-alive, close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
    ],
)
def test_persistence(version: bytes, connection: bytes, persistent: bool) -> None:
    assert request(b"GET / HTTP/" + version + b"\r\nHost: x\r\n" + connection + b"\r\n").persistent is persistent


def test_http_1_0_needs_no_host() -> None:
    assert request(b"GET / HTTP/1.0\r\n\r\n").host == b""


def test_one_empty_line_before_a_request_is_forgiven() -> None:
    assert request(b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n").target == b"/"


HOST = b"Host: x\r\n"
# Each is a way to make two parsers disagree, or a peer that is no HTTP client: (what, bytes, status).
REFUSED = [
    # Request line
    ("two empty lines first", b"\r\n\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("simple request of HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("no target", b"GET HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("two spaces before the target", b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("two spaces after the target", b"GET /  HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("tab as separator", b"GET\t/\tHTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("space before the method", b" GET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("space after the version", b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
    ("method with a bracket", b"G(T / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("lower-case protocol", b"GET / http/1.1\r\n" + HOST + b"\r\n", 400),
    ("other protocol", b"GET / HTTPS/1.1\r\n" + HOST + b"\r\n", 400),
    ("version without minor", b"GET / HTTP/1\r\n" + HOST + b"\r\n", 400),
    ("version with leading zero", b"GET / HTTP/01.1\r\n" + HOST + b"\r\n", 400),
    ("version with more digits", b"GET / HTTP/1.10\r\n" + HOST + b"\r\n", 400),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 505),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("HTTP/0.9 with version", b"GET / HTTP/0.9\r\n" + HOST + b"\r\n", 505),
    ("fragment in the target", b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("raw UTF-8 in the target", b"GET /\xc3\xa4 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("NUL in the target", b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("DEL in the target", b"GET /\x7f HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("target without slash", b"GET index HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("asterisk for GET", b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("authority for GET", b"GET x:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("CONNECT with a path", b"CONNECT /x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("CONNECT without port", b"CONNECT x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("absolute target with user", b"GET http://u@x/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("absolute target without host", b"GET http:///x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("absolute target of another scheme", b"GET ftp://x/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    # Line ends
    ("bare line feeds", b"GET / HTTP/1.1\nHost: x\n\n", 400),
    ("bare line feed after the request line", b"GET / HTTP/1.1\nHost: x\r\n\r\n", 400),
    ("bare line feed in a field", b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400),
    ("bare carriage return in a field", b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", 400),
    ("carriage return twice", b"GET / HTTP/1.1\r\nHost: x\r\r\n\r\n", 400),
    ("carriage return before the end", b"GET / HTTP/1.1\r\nHost: x\r\n\r\r\n\r\n", 400),
    ("end by bare line feed", b"GET / HTTP/1.1\r\nHost: x\r\n\n", 400),
    # Fields
    ("folded line", b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
    ("folded first line", b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    ("folded framing", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", 400),
    ("space before the colon", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    ("tab before the colon", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length\t: 3\r\n\r\n", 400),
    ("no colon", b"GET / HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n", 400),
    ("empty name", b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", 400),
    ("space in a name", b"GET / HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n", 400),
    ("bracket in a name", b"GET / HTTP/1.1\r\nHost: x\r\nA[b]: c\r\n\r\n", 400),
    ("UTF-8 in a name", b"GET / HTTP/1.1\r\nHost: x\r\n\xc3\xa4: c\r\n\r\n", 400),
    ("NUL in a value", b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", 400),
    ("control character in a value", b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x0bc\r\n\r\n", 400),
    ("DEL in a value", b"GET / HTTP/1.1\r\nHost: x\r\nA: \x7f\r\n\r\n", 400),
    # Host
    ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    ("two equal hosts", b"GET / HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n", 400),
    ("two hosts in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    ("empty host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("host with user", b"GET / HTTP/1.1\r\nHost: u@x\r\n\r\n", 400),
    ("host with path", b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
    ("host with comma", b"GET / HTTP/1.1\r\nHost: x, y\r\n\r\n", 400),
    ("host with space", b"GET / HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
    ("host with two ports", b"GET / HTTP/1.1\r\nHost: x:1:2\r\n\r\n", 400),
    ("host with a word as port", b"GET / HTTP/1.1\r\nHost: x:http\r\n\r\n", 400),
    ("host with an open bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("host with a quote", b'GET / HTTP/1.1\r\nHost: x"\r\n\r\n', 400),
    ("bad host beside an absolute target", b"GET http://x/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    # Content-Length
    ("negative length", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    ("length with plus", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n", 400),
    ("length with underscore", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1_0\r\n\r\n", 400),
    ("length in hex", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n", 400),
    ("length with space", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1 0\r\n\r\n", 400),
    ("length with fraction", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5.0\r\n\r\n", 400),
    ("empty length", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", 400),
    ("length of no-break space", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \xa05\r\n\r\n", 400),
    ("length beyond 63 bits", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
    ("two lengths", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    ("two equal lengths", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n", 400),
    ("list of lengths", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n", 400),
    # Transfer-Encoding
    ("length and coding",
     b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("coding and length",
     b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
    ("coding twice",
     b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("chunked twice", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
    ("chunked not last", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
    ("identity", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    ("no coding", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n", 400),
    ("quoted coding", b'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "chunked"\r\n\r\n', 400),
    ("coding with parameter", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked;a=b\r\n\r\n", 400),
    ("coding with vertical tab", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400),
    ("coding with NUL", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\0\r\n\r\n", 400),
    ("unknown coding", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
    ("coding we do not have", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ("coding in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    # Others
    ("unknown expectation", b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\n\r\n", 417),
    ("Connection with rubbish", b"GET / HTTP/1.1\r\nHost: x\r\nConnection: a b\r\n\r\n", 400),
    ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("RESP command", b"*1\r\n$4\r\nPING\r\n", 400),
    ("endless target", b"GET /" + b"a" * 10_000, 414),
    ("long target", b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    ("endless head", b"GET / HTTP/1.1\r\nA: " + b"a" * 40_000, 431),
    ("long head", b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000 + b"\r\n\r\n", 431),
    ("too many fields", b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
]  # fmt: skip


@pytest.mark.parametrize(("what", "text", "status"), REFUSED, ids=[each[0] for each in REFUSED])
def test_refused(what: str, text: bytes, status: int) -> None:
    with pytest.raises(HttpError) as refused:
        RequestParser().parse(text)
    assert refused.value.status == status


@pytest.mark.parametrize(("what", "text", "status"), REFUSED, ids=[each[0] for each in REFUSED])
def test_refused_at_every_split(what: str, text: bytes, status: int) -> None:
    """However the bytes arrive: never believed, and refused at the latest with the last of them."""
    parser = RequestParser()
    step = max(1, len(text) // 200)
    for end in [*range(1, len(text), step), len(text)]:
        try:
            assert parser.parse(text[:end]) is None
        except HttpError:
            return
    pytest.fail("never refused")


def test_believed_at_every_split_with_what_follows() -> None:
    text = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nA: b\r\n\r\n"
    parser = RequestParser()
    for end in range(len(text)):
        assert parser.parse(text[:end]) is None
    parsed = parser.parse(b"junk" + text + b"abcGET /next", 4)
    assert parsed is not None
    assert parsed[1] == 4 + len(text)
    assert parsed[0].length == 3


def test_known_lines_and_blocks_are_bounded_and_change_nothing() -> None:
    parser = RequestParser()
    for number in range(5000):
        text = b"GET /%d HTTP/1.1\r\nHost: x\r\nA: %d\r\n\r\n" % (number, number)
        parsed = parser.parse(text)
        assert parsed is not None
        assert parsed[0].fields.get(b"a") == b"%d" % number
    assert len(parser._lines) <= 2048
    assert len(parser._blocks) <= 256
    first = parser.parse(b"GET /1 HTTP/1.1\r\nHost: x\r\nA: 1\r\n\r\n")
    again = parser.parse(b"PUT /2 HTTP/1.1\r\nHost: x\r\nA: 1\r\n\r\n")
    assert first is not None
    assert again is not None
    assert first[0].fields is again[0].fields


# --- Responses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "method", "length", "persistent"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"GET", 5, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HEAD", 0, True),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n", b"GET", CHUNKED, True),
        (b"HTTP/1.1 200 \r\n\r\n", b"GET", UNTIL_CLOSE, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", 0, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"GET", 0, True),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"POST", 0, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"CONNECT", 0, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", b"GET", 5, False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n", b"GET", 5, True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n", b"GET", 5, False),
    ],
)
def test_responses(text: bytes, method: bytes, length: int, persistent: bool) -> None:
    head = response(text)
    assert (head.body_length(method), head.persistent) == (length, persistent)


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSet-Cookie : a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 40_000,
        b"<html>no head at all</html>",
        b"ICY 200 OK\r\n\r\n",
    ],
)
def test_broken_responses_are_a_502(text: bytes) -> None:
    with pytest.raises(HttpError) as refused:
        ResponseParser().parse(text)
    assert refused.value.status == 502


# --- h11 as oracle --------------------------------------------------------------------------------------------------

FRAGMENTS = [
    b"GET", b"POST", b" ", b"/", b"/a?b", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b"\r", b"Host", b": ", b":", b"x",
    b"x:80", b"Content-Length", b"Transfer-Encoding", b"chunked", b"5", b"0", b"Connection", b"close", b"keep-alive",
    b"Expect", b"100-continue", b"A", b"\t", b",", b"_", b"\xff", b"\0", b"http://x/", b"*", b"Upgrade", b"websocket",
]  # fmt: skip

line = st.one_of(
    st.sampled_from([
        b"Host: x", b"host:x:80", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Connection: close",
        b"A: b", b"A:", b"Cookie: \xff", b"Expect: 100-continue", b"Connection: upgrade", b"Upgrade: websocket",
    ]),
    st.lists(st.sampled_from(FRAGMENTS), max_size=6).map(b"".join),
)  # fmt: skip
first_line = st.one_of(
    st.sampled_from([b"GET / HTTP/1.1", b"POST /a?b HTTP/1.1", b"GET / HTTP/1.0", b"OPTIONS * HTTP/1.1"]),
    st.lists(st.sampled_from(FRAGMENTS), min_size=3, max_size=6).map(b"".join),
)
heads = st.tuples(first_line, st.lists(line, max_size=5)).map(
    lambda parts: b"\r\n".join([parts[0], *parts[1], b"", b""])
)


@settings(max_examples=200, deadline=None)
@given(heads)
@example(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
def test_what_we_believe_h11_believes_too(text: bytes) -> None:
    """Strict means: no head passes here that the reference would refuse, or read differently."""
    try:
        parsed = RequestParser().parse(text)
    except HttpError:
        return
    if parsed is None:
        return
    head, end = parsed
    reference = h11.Connection(h11.SERVER)
    reference.receive_data(text[:end])
    event = reference.next_event()
    assert isinstance(event, h11.Request)
    assert event.method == head.method
    assert head.target in (event.target, b"/", b"*") or event.target.startswith(b"http://")
    ours = [(field.name, field.value) for field in head.fields.items if field.name != b"transfer-encoding"]
    theirs = [(name, value) for name, value in event.headers if name != b"transfer-encoding"]
    assert ours == theirs
    assert event.http_version == b"1.%d" % head.minor
    if head.length == 0 and not head.fields.upgrade:
        assert isinstance(reference.next_event(), h11.EndOfMessage)
    elif head.length:
        assert reference.next_event() is h11.NEED_DATA
    if head.minor:  # h11 keeps no HTTP/1.0 connection
        assert head.persistent is _keep_alive(event)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_bytes_are_refused_or_read_but_never_crash(text: bytes, at: int) -> None:
    good = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
    for mixed in (text, good[:at] + text + good[at:]):
        for parser in (RequestParser(), ResponseParser()):
            with contextlib.suppress(HttpError):
                parser.parse(mixed)


def test_limits_are_the_owners() -> None:
    parser = RequestParser(Limits(head_bytes=100, fields=3))
    with pytest.raises(HttpError, match="too large"):
        parser.parse(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 100)
    with pytest.raises(HttpError, match="too many"):
        parser.parse(b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\nA: b\r\nA: b\r\n\r\n")
