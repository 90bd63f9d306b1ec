"""CRC-64/Jones against its catalogue's check value, a bitwise computation, and a payload of Redis' documentation."""

import random

import pytest

from minidist.structures.crc64 import DIRECT_BYTES, POLYNOMIAL, REFLECTED, crc64


def bitwise(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (REFLECTED if crc & 1 else 0)
    return crc


def test_known_values():
    assert crc64(b"") == 0
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA
    assert crc64(b"\x00\xc0\n\n\x00") == int.from_bytes(b"n\x9fWE\x0e\xaec\xbb", "little")


def test_reflection():
    assert int(f"{POLYNOMIAL:064b}"[::-1], 2) == REFLECTED


SIZES = [1, 7, 300, 4095, *(at + by for at in (4096, 8192, 16_384) for by in (0, 1, 7, 8, 9, 17, 1000)), 30_001]


@pytest.mark.parametrize("size", SIZES)
def test_like_bit_by_bit(size):
    data = random.Random(size).randbytes(size)
    assert crc64(data) == bitwise(data)


def test_long_data_like_short():
    """Zeros before data change nothing, since there is no initial value."""
    assert crc64(bytes(50 * DIRECT_BYTES + 3) + b"123456789") == crc64(b"123456789")
