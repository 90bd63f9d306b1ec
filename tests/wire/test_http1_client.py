"""Small messages: building them, reading responses, and what faults see of requests."""

import itertools

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.wire.http1 import (
    HttpError,
    HttpInspector,
    RequestParser,
    ResponseReader,
    error_response,
    request,
    response,
)
from minidist.wire.inspection import Inspector

EXCHANGE = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"
    b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
    b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    b"HTTP/1.1 204 No Content\r\n\r\n"
)


def reader_for(*methods: str) -> ResponseReader:
    reader = ResponseReader()
    for method in methods:
        reader.expect(method)
    return reader


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, len(EXCHANGE)), max_size=6))
def test_pipelined_responses_whatever_the_reads(cuts: list[int]) -> None:
    reader = reader_for("GET", "HEAD", "GET", "DELETE")
    found = []
    edges = [0, *sorted(cuts), len(EXCHANGE)]
    for begin, end in itertools.pairwise(edges):
        found += reader.feed(EXCHANGE[begin:end])
    assert [(each.status, each.body) for each in found] == [(200, b"hello"), (200, b""), (404, b"abcde"), (204, b"")]
    assert found[0].header("X") == "y"
    assert found[0].header("nothing") is None
    assert reader.persistent
    assert reader.outstanding == 0


def test_a_body_that_ends_with_the_connection() -> None:
    reader = reader_for("GET")
    assert reader.feed(b"HTTP/1.0 200 OK\r\n\r\nsome") == []
    assert reader.feed(b" more") == []
    last = reader.eof()
    assert last is not None
    assert last.body == b"some more"
    assert not reader.persistent


@pytest.mark.parametrize("cut", [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", b"HTTP/1.1 200 O"])
def test_a_response_cut_short(cut: bytes) -> None:
    reader = reader_for("GET")
    reader.feed(cut)
    with pytest.raises(HttpError):
        reader.eof()


def test_no_answer_at_all() -> None:
    assert reader_for("GET").eof() is None


def test_bodies_that_are_only_counted_or_too_large() -> None:
    reader = ResponseReader(keep_body=False)
    reader.expect("GET")
    (answer,) = reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    assert (answer.body, answer.body_bytes) == (b"", 5)
    small = ResponseReader(max_body_bytes=4)
    small.expect("GET")
    with pytest.raises(HttpError, match="larger"):
        small.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def test_a_server_that_speaks_unasked() -> None:
    with pytest.raises(HttpError, match="without a request"):
        ResponseReader().feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def test_switching_protocols_leaves_the_rest() -> None:
    reader = reader_for("GET")
    (answer,) = reader.feed(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nframes")
    assert answer.status == 101
    assert reader.rest == b"frames"


def test_h11_reads_what_we_build() -> None:
    server = h11.Connection(h11.SERVER)
    server.receive_data(request("POST", "/a?b", "x:80", [("A", "b ü")], b"body"))
    event = server.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target, list(event.headers)) == (
        b"POST", b"/a?b", [(b"host", b"x:80"), (b"a", b"b \xfc"), (b"content-length", b"4")],
    )  # fmt: skip
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(response(429, [("Retry-After", "1")], b"slow down"))
    answer = client.next_event()
    assert isinstance(answer, h11.Response)
    assert (answer.status_code, answer.reason) == (429, b"Too Many Requests")
    data = client.next_event()
    assert isinstance(data, h11.Data)
    assert data.data == b"slow down"
    assert b"Connection: close\r\n" in error_response(400, "no")
    assert b"Content-Length" not in response(204)


@pytest.mark.parametrize(
    ("target", "headers"),
    [("/a b", []), ("/a\r\nX: y", []), ("/ä", []), ("/", [("A", "b\r\nC: d")]), ("/", [("A\n", "b")])],
)
def test_what_would_break_a_head_is_not_sent(target: str, headers: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        request("GET", target, "x", headers)


# --- Inspector ------------------------------------------------------------------------------------------------------


def test_requests_are_found_with_their_names_and_ends() -> None:
    inspector: Inspector = HttpInspector()
    first = request("GET", "/items?page=2", "x")
    second = request("POST", "/items", "x", body=b"12345")
    third = b"PUT /blob HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    buffer = first + second + third
    expected = [
        ("GET /items", "/items", len(first)),
        ("POST /items", "/items", len(first + second)),
        ("PUT /blob", "/blob", len(buffer)),
    ]
    for end in range(len(buffer) + 1):
        assert inspector.requests(buffer[:end]) == [each for each in expected if each[2] <= end]
    assert inspector.requests(buffer + b"garbage\r\n\r\n") == expected


@pytest.mark.parametrize(
    ("text", "status", "body"),
    [("busy", 503, b"busy\n"), ("429 slow down", 429, b"slow down\n"), ("100 things", 503, b"100 things\n")],
)
def test_the_reply_of_a_fault(text: str, status: int, body: bytes) -> None:
    inspector = HttpInspector()
    reader = reader_for("GET", "HEAD")
    replies = inspector.error_reply(request("GET", "/", "x"), text) + inspector.error_reply(
        request("HEAD", "/", "x"), text
    )
    answers = reader.feed(replies)
    assert [(each.status, each.body) for each in answers] == [(status, body), (status, b"")]
    assert reader.persistent


def test_a_parser_may_be_shared() -> None:
    parser = RequestParser()
    assert parser.parse(request("GET", "/", "x")) is not None
