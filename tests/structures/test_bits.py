"""Bitmaps against strings of zeros and ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.structures import bits
from minidist.structures.bits import combine, count_bits, find_bit, get_bit, get_field, with_field

DATA = st.one_of(st.binary(min_size=1, max_size=40), st.sampled_from([bytes(30), b"\xff" * 30, bytes(20) + b"\x01"]))


def shown(data: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in data)


@pytest.fixture(params=[4, 1 << 16])
def chunk_bytes(request, monkeypatch):
    monkeypatch.setattr(bits, "CHUNK_BYTES", request.param)


@pytest.mark.usefixtures("chunk_bytes")
def test_counting_and_finding_in_any_range():
    @given(DATA, st.data())
    @settings(max_examples=150, deadline=None)
    def check(data, draw):
        first = draw.draw(st.integers(0, 8 * len(data) - 1))
        last = draw.draw(st.integers(first, 8 * len(data) - 1))
        text = shown(data)
        assert count_bits(data, first, last) == text[first : last + 1].count("1")
        for bit in (0, 1):
            assert find_bit(bytearray(data), bit, first, last) == text.find(str(bit), first, last + 1)

    check()


@given(st.binary(max_size=10), st.integers(0, 100))
@settings(max_examples=50)
def test_one_bit(data, offset):
    assert str(get_bit(data, offset)) == (shown(data) + "0" * 200)[offset]


@pytest.mark.usefixtures("chunk_bytes")
def test_operations():
    @given(st.lists(st.binary(max_size=20), min_size=1, max_size=4))
    @settings(max_examples=100, deadline=None)
    def check(strings):
        length = max(map(len, strings))
        columns = list(zip(*(each.ljust(length, b"\0") for each in strings), strict=True))
        for name, every in ((b"AND", all), (b"OR", any)):
            wanted = [[every(byte >> bit & 1 for byte in column) for bit in range(8)] for column in columns]
            assert combine(name, strings) == bytes(sum(on << bit for bit, on in enumerate(each)) for each in wanted)
        folded = combine(b"XOR", [*strings, *strings])
        assert folded == bytes(length)
        assert combine(b"XOR", strings[:1]) == strings[0]
        assert combine(b"NOT", strings[:1]) == bytes(255 - byte for byte in strings[0])

    check()


def test_no_strings():
    assert combine(b"AND", []) == b""
    assert combine(b"NOT", [b""]) == b""


@given(st.binary(max_size=20), st.integers(0, 150), st.integers(1, 64), st.booleans(), st.integers(0, (1 << 64) - 1))
@settings(max_examples=150)
def test_fields(data, offset, width, signed, value):
    text = shown(data) + "0" * 300
    wanted = int(text[offset : offset + width], 2)
    if signed and wanted >> (width - 1):
        wanted -= 1 << width
    assert get_field(data, offset, width, signed) == wanted
    at, written = with_field(data, offset, width, value)
    changed = bytearray(data.ljust(at + len(written), b"\0"))
    changed[at : at + len(written)] = written
    bits_now = shown(bytes(changed))
    assert bits_now[offset : offset + width] == f"{value:064b}"[64 - width :]
    assert bits_now[:offset] == text[:offset]
    assert bits_now[offset + width :] == text[offset + width : len(bits_now)]
