"""Body framing: every body is cut out exactly, whatever the reads; broken framing is noticed where it breaks."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.wire.http1 import CHUNKED, LAST_CHUNK, UNTIL_CLOSE, HttpError, Limits, body_reader, chunk, last_chunk

LIMITS = Limits()


def read_in_pieces(length: int, data: bytes, cuts: list[int]) -> tuple[bytes, bytes, list[bytes]]:
    """Feed data cut at these places: (payload, what is left, trailer lines)."""
    reader = body_reader(length, LIMITS)
    payload = b""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for begin, end in itertools.pairwise(edges):
        if reader.done:
            return payload, data[begin:], [field.line for field in reader.trailers]
        piece, used = reader.feed(data[begin:end])
        payload += piece
        if reader.done:
            return payload, data[begin + used :], [field.line for field in reader.trailers]
    reader.eof()
    return payload, b"", [field.line for field in reader.trailers]


bodies = st.lists(st.binary(min_size=1, max_size=20), max_size=5)
cuts = st.lists(st.integers(0, 500), max_size=8)


@settings(max_examples=200, deadline=None)
@given(bodies, cuts, st.booleans(), st.booleans())
def test_chunks_come_out_as_they_went_in(pieces: list[bytes], cut: list[int], extended: bool, trailing: bool) -> None:
    encoded = b"".join(
        b'%X;a="b\\"c";d=e\r\n%b\r\n' % (len(piece), piece) if extended else chunk(piece) for piece in pieces
    )
    encoded += b"0\r\nX-Sum: 1\r\nY:\t2\r\n\r\n" if trailing else LAST_CHUNK
    payload, rest, trailers = read_in_pieces(CHUNKED, encoded + b"next", cut)
    assert payload == b"".join(pieces)
    assert rest == b"next"
    assert trailers == ([b"X-Sum: 1", b"Y: 2"] if trailing else [])


def test_a_chunked_body_at_every_split() -> None:
    encoded = b"5;x=1\r\nhello\r\n00\r\nA: b\r\n\r\n" + b"rest"
    for first in range(len(encoded)):
        for second in range(first, len(encoded)):
            assert read_in_pieces(CHUNKED, encoded, [first, second]) == (b"hello", b"rest", [b"A: b"])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=50), st.binary(max_size=10), cuts)
def test_a_body_of_known_length(body: bytes, after: bytes, cut: list[int]) -> None:
    assert read_in_pieces(len(body), body + after, cut) == (body, after, [])


def test_a_body_until_the_end() -> None:
    assert read_in_pieces(UNTIL_CLOSE, b"all of it", [3]) == (b"all of it", b"", [])


@pytest.mark.parametrize(
    "encoded",
    [
        b"\r\n", b" 5\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"5_0\r\nhello\r\n", b"G\r\nhello\r\n", b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhello!\r\n0\r\n\r\n", b"5\r\nhell\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n", b"5;\r\nhello\r\n0\r\n\r\n", b"5;a=\r\nhello\r\n0\r\n\r\n", b"5;a\nb\r\nhello\r\n",
        b"5;a\x00\r\nhello\r\n0\r\n\r\n", b"5;a b\r\nhello\r\n", b";a\r\nhello\r\n", b"\xb25\r\nhello\r\n",
        b"1000000000000000\r\n", b"FFFFFFFFFFFFFFFF\r\n", b"0\r\nA b: c\r\n\r\n", b"0\r\n A: c\r\n\r\n",
        b"0\r\nA: c\n\r\n", b"0\r\nA: \x00\r\n\r\n", b"0\r\nA: c\r\r\n\r\n", b"0\n\n", b"5;a=\"b\r\nhello\r\n",
    ],
)  # fmt: skip
def test_broken_chunks(encoded: bytes) -> None:
    for cut in range(len(encoded) + 1):
        reader = body_reader(CHUNKED, LIMITS)
        with pytest.raises(HttpError) as refused:
            reader.feed(encoded[:cut])
            reader.feed(encoded[cut:])
            reader.eof()
        assert refused.value.status == 400
        assert not reader.done


def test_a_broken_size_is_noticed_before_its_line_ends() -> None:
    with pytest.raises(HttpError):
        body_reader(CHUNKED, LIMITS).feed(b"zz")


@pytest.mark.parametrize("length", [5, CHUNKED])
def test_a_body_cut_short(length: int) -> None:
    reader = body_reader(length, LIMITS)
    reader.feed(b"5\r\n")
    with pytest.raises(HttpError):
        reader.eof()


def test_extensions_are_bounded_in_all_chunks_together() -> None:
    reader = body_reader(CHUNKED, Limits(chunk_extension_bytes=100))
    one = b"1;" + b"a" * 40 + b"\r\nx\r\n"
    reader.feed(one + one)
    with pytest.raises(HttpError, match="extensions"):
        reader.feed(one)
    with pytest.raises(HttpError, match="extension"):
        body_reader(CHUNKED, Limits(chunk_extension_bytes=100)).feed(b"1;" + b"a" * 200)


def test_trailers_are_bounded() -> None:
    with pytest.raises(HttpError, match="too large"):
        body_reader(CHUNKED, Limits(trailer_bytes=100)).feed(b"0\r\nA: " + b"a" * 200)
    with pytest.raises(HttpError, match="too many"):
        body_reader(CHUNKED, Limits(fields=2)).feed(b"0\r\nA: b\r\nA: b\r\nA: b\r\n\r\n")


def test_trailers_that_would_change_the_message_are_left_out() -> None:
    reader = body_reader(CHUNKED, LIMITS)
    reader.feed(b"0\r\nX-Sum: 1\r\ncontent-length: 5\r\nHost: x\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a\r\n\r\n")
    assert last_chunk(reader.trailers) == b"0\r\nX-Sum: 1\r\n\r\n"
    assert last_chunk([]) == LAST_CHUNK
    assert chunk(b"") == b""
