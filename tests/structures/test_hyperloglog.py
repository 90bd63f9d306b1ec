"""HyperLogLog: its hash, its form, its error."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.structures import hyperloglog
from minidist.structures.hyperloglog import (
    DENSE_BYTES,
    EMPTY,
    REGISTERS,
    CorruptHyperLogLog,
    dense,
    estimate,
    is_hyperloglog,
    known_estimate,
    merged,
    murmur64,
    raised,
    register_of,
    registers,
)

RANKS = st.lists(st.integers(0, 51), min_size=40, max_size=40).map(lambda few: (bytes(few) * 410)[:REGISTERS])


def counted(elements: range) -> bytes:
    """The registers after these elements."""
    found = bytearray(REGISTERS)
    for element in elements:
        number, rank = register_of(b"element:%d" % element)
        found[number] = max(found[number], rank)
    return bytes(found)


# The registers that redis-server 7.0 set for these elements: number and rank.
@pytest.mark.parametrize(
    ("element", "number", "rank"),
    [
        (b"", 5938, 2),
        (b"a", 12711, 2),
        (b"redis", 9467, 2),
        (b"12345678", 10579, 3),
        (b"sixteen-bytes-xx", 5761, 3),
        (b"a longer element than that", 648, 1),
    ],
)
def test_registers_as_in_redis(element, number, rank):
    assert register_of(element) == (number, rank)


def test_empty():
    assert len(EMPTY) == DENSE_BYTES == 12304
    assert is_hyperloglog(EMPTY)
    assert registers(EMPTY) == bytes(REGISTERS)
    assert estimate(registers(EMPTY)) == 0
    assert known_estimate(EMPTY) == 0


@given(RANKS)
@settings(max_examples=30, deadline=None)
def test_packed_and_unpacked(ranks):
    packed = dense(ranks)
    assert is_hyperloglog(packed)
    assert registers(packed) == ranks
    assert known_estimate(packed) is None
    # Each register by itself, as the format says: 6 bits, the lowest first.
    number = int.from_bytes(packed[16:], "little")
    for at in (0, 1, 2, 3, 4, 8191, REGISTERS - 1):
        assert number >> 6 * at & 63 == ranks[at]


@given(st.lists(st.tuples(st.integers(0, REGISTERS - 1), st.integers(1, 51)), max_size=30))
@settings(max_examples=50, deadline=None)
def test_raising_registers_one_by_one(steps):
    data, model = bytearray(EMPTY), bytearray(REGISTERS)
    for number, rank in steps:
        change = raised(data, number, rank)
        assert (change is None) == (model[number] >= rank)
        if change is not None:
            at, written = change
            data[at : at + len(written)] = written
            model[number] = rank
    assert registers(data) == model
    assert len(data) == DENSE_BYTES


@given(RANKS, RANKS, RANKS)
@settings(max_examples=20, deadline=None)
def test_merging_takes_the_largest(one, two, three):
    assert merged([one, two, three]) == bytes(map(max, one, two, three))
    assert merged([]) == bytes(REGISTERS)


@pytest.mark.parametrize("count", [1, 10, 100, 1000, 10_000, 100_000])
def test_error(count):
    assert abs(estimate(counted(range(count))) - count) <= max(3 * 0.0081 * count, 1)


def test_merging_counts_what_is_in_any():
    union = merged([counted(range(6000)), counted(range(4000, 10_000))])
    assert union == counted(range(10_000))


def test_registers_that_are_full_have_a_finite_estimate():
    assert estimate(bytes([50]) * REGISTERS) > 10**15
    for rank in (51, 63):
        assert estimate(bytes([rank]) * REGISTERS) == (1 << 63) - 1


def test_sparse_form():
    header = b"HYLL\x01" + bytes(10) + b"\x80"
    # 100 zeros (01, 14 bits), twice rank 3, 64 zeros, the rest zeros.
    data = header + bytes([0x40, 99, 0x80 | 2 << 2 | 1, 63]) + bytes([0x40 | (16218 - 1) >> 8, (16218 - 1) & 255])
    assert is_hyperloglog(data)
    found = registers(data)
    assert found == bytes(100) + b"\3\3" + bytes(REGISTERS - 102)
    assert registers(dense(found)) == found


@pytest.mark.parametrize("runs", [b"", b"\x3f", b"\x7f", b"\x7f\xff\x00", b"\x7f\xff\x7f\xff", b"\x7f\xfe\x85"])
def test_corrupt_sparse_form(runs):
    with pytest.raises(CorruptHyperLogLog):
        registers(b"HYLL\x01" + bytes(10) + b"\x80" + runs)


@pytest.mark.parametrize("data", [b"", b"HYLL", EMPTY[:-1], b"HYLX" + EMPTY[4:], b"HYLL\x02" + EMPTY[5:]])
def test_not_a_hyperloglog(data):
    assert not is_hyperloglog(data)


def test_hash_uses_every_byte():
    seen = {murmur64(bytes(size)) for size in range(40)} | {murmur64(bytes([byte] * 9)) for byte in range(1, 40)}
    assert len(seen) == 79
    assert hyperloglog.SEED == 0xADC83B19
