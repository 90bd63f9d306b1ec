"""CRC-64/Jones against its catalogue's check value, a bitwise computation, and a payload of Redis' documentation."""

from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.structures.crc64 import POLYNOMIAL, crc64


def bitwise(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    return crc


def test_known_values():
    assert crc64(b"") == 0
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA
    assert crc64(b"\x00\xc0\n\n\x00") == int.from_bytes(b"n\x9fWE\x0e\xaec\xbb", "little")


@given(st.binary(max_size=50))
@settings(max_examples=50)
def test_like_bit_by_bit(data):
    assert crc64(data) == bitwise(data)
