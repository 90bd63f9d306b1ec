"""memcached's requests: whole ones out of reads cut anywhere; what is wrong, in its words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidist.wire.memcached import (
    BAD_CHUNK,
    BAD_FORMAT,
    KEYS_AT_ONCE,
    LONGEST_LINE_BYTES,
    TOO_LARGE,
    MemcachedInspector,
    Refused,
    Request,
    RequestReader,
    only_get,
)

DIALOGUE = (
    b"set k 5 0 4\r\na\r\nb\r\nget k j\r\nset big 0 0 99999\r\n" + b"x" * 99999 + b"\r\n"
    b"cas k 0 0 1 17 noreply\r\nz\r\nset bad 0 0 2\r\nabc\r\n\r\nversion\n"
    + b"set "
    + b"k" * 251
    + b" 0 0 1\r\nincr n 1\r\nms k 4 T0 q\r\na\r\nb\r\nmg k v\r\nms big 9999\r\n"
    + b"y" * 9999
    + b"\r\nms k\r\nms\r\nmn\r\n"
)
ANSWERS = [
    Request([b"set", b"k", b"5", b"0", b"4"], b"a\r\nb"),
    Request([b"get", b"k", b"j"]),
    Refused(TOO_LARGE),
    Request([b"cas", b"k", b"0", b"0", b"1", b"17", b"noreply"], b"z"),
    Refused(BAD_CHUNK),
    Refused(b"ERROR\r\n"),
    Request([b"version"]),
    Refused(BAD_FORMAT),
    Request([b"incr", b"n", b"1"]),
    Request([b"ms", b"k", b"4", b"T0", b"q"], b"a\r\nb"),
    Request([b"mg", b"k", b"v"]),
    Refused(TOO_LARGE),
    Refused(BAD_FORMAT),
    Refused(b"ERROR\r\n"),
    Request([b"mn"]),
]


def read(data: bytes, cuts: list[int]) -> list[Request | Refused]:
    reader = RequestReader(1000)
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        found += reader.feed(data[start:end])
    assert reader.idle
    return found


def test_a_dialogue_in_one_read():
    assert read(DIALOGUE, []) == ANSWERS


def test_cut_at_every_point():
    for cut in [*range(120), *range(len(DIALOGUE) - 420, len(DIALOGUE))]:
        assert read(DIALOGUE, [cut]) == ANSWERS


@given(st.lists(st.integers(0, len(DIALOGUE)), max_size=6))
def test_cut_anywhere(cuts):
    assert read(DIALOGUE, sorted(cuts)) == ANSWERS


@given(st.binary(max_size=300))
def test_any_bytes_are_taken_without_growth(data):
    reader = RequestReader(1000)
    for part in (data, b"\r\n", data):
        reader.feed(part)
    assert len(reader._buffer) <= 1002 + 3 * 302


def test_many_keys_come_in_parts():
    keys = [b"k%d" % number for number in range(2 * KEYS_AT_ONCE + 1)]
    requests = read(b"gat 60 " + b" ".join(keys) + b"\r\n", [])
    assert [key for request in requests for key in request.words[2:]] == keys
    assert [request.last for request in requests] == [False, False, True]
    assert all(request.words[:2] == [b"gat", b"60"] for request in requests)


@pytest.mark.parametrize("data", [b"\x80\x00\x00\x01", b"get " + b"k" * LONGEST_LINE_BYTES])
def test_what_ends_the_connection(data):
    (refused,) = RequestReader(1000).feed(data)
    assert refused.fatal


def test_the_inspector_names_requests():
    inspector = MemcachedInspector()
    data = b"set k 0 0 3\r\nabc\r\ngats 5 j i\r\nversion\r\nms m 2 T0\r\n\r\n\r\nmg m v\r\nget par"
    found = inspector.requests(data)
    assert [(name, key) for name, key, _ in found] == [
        *(("SET", "k"), ("GATS", "j"), ("VERSION", "")),
        *(("MS", "m"), ("MG", "m")),
    ]
    assert [data[end - 2 : end] for *_, end in found] == [b"\r\n"] * 5
    assert inspector.error_reply(b"get k\r\n", "busy\nnow") == b"SERVER_ERROR busy now\r\n"


KEYS = st.binary(max_size=8) | st.sampled_from([b"k" * 250, b"k" * 251, b"a b", b"a\x0bb", b"a\r", b""])


@given(
    name=st.sampled_from([b"get", b"gets", b"get\t", b"GET", b" get"]),
    key=KEYS,
    end=st.sampled_from([b"\r\n", b"\n", b""]),
)
def test_one_get_is_what_the_reader_reads(name, key, end):
    """And whatever is not only that is left to it."""
    data = name + b" " + key + end
    found = only_get(data)
    if found is not None:
        assert RequestReader(1000).feed(data) == [Request([b"get", found])]
    elif name == b"get" and end == b"\r\n" and key.isalnum() and len(key) <= 250:
        raise AssertionError(data)
