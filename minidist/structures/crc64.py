"""CRC-64/Jones, as Redis puts it at the end of what DUMP returns: reflected, with no initial value and no final XOR.

Short data goes through a table, byte by byte. Long data is first folded: as a polynomial over GF(2), a head and a tail
of T bytes are head · x^8T + tail, and modulo the CRC's polynomial x^8T is one of degree 63 at most. So the head,
multiplied by that and added to the tail, leaves half of the data with the same CRC. The product is a XOR of some thirty
shifted copies of the head, which long integers do several times faster than a loop over bytes could.

Source: https://reveng.sourceforge.io/crc-catalogue/17plus.htm#crc.cat.crc-64-redis
"""

from functools import cache

# The polynomial without its x^64, and the same with its bits in the opposite order.
POLYNOMIAL = 0xAD93D23594C935A9
REFLECTED = 0x95AC9329AC4BC9B5
CRC_BYTES, CRC_BITS = 8, 64
# Longer data is folded.
DIRECT_BYTES = 4096


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (REFLECTED if byte & 1 else 0)
    return byte


TABLE = tuple(map(_entry, range(256)))


def crc64(data: bytes) -> int:
    """The checksum, 64 bits. b"123456789" has 0xE9C6D914C4B8D9CA. O(N)."""
    while len(data) > DIRECT_BYTES:
        data = _folded(data)
    table, crc = TABLE, 0
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc


def _folded(data: bytes) -> bytes:
    """Shorter data with the same checksum. The first bit of data, the lowest of its integer, has the highest power."""
    level = (len(data) - 1).bit_length() - 1
    tail_bytes = 1 << level
    head_bytes = len(data) - tail_bytes
    head, tail = int.from_bytes(data[:head_bytes], "little"), int.from_bytes(data[head_bytes:], "little")
    factor, product = _power(level), 0
    for power in range(CRC_BITS):
        if factor >> power & 1:
            product ^= head << CRC_BITS - power
    size = max(tail_bytes, head_bytes + CRC_BYTES)
    product <<= 8 * (size - head_bytes - CRC_BYTES)
    return (product ^ tail << 8 * (size - tail_bytes)).to_bytes(size, "little")


@cache
def _power(level: int) -> int:
    """x^(8 · 2^level) modulo the polynomial."""
    if level == 0:
        return 1 << 8
    root, square = _power(level - 1), 0
    for power in reversed(range(CRC_BITS)):
        square <<= 1
        if square >> CRC_BITS:
            square ^= 1 << CRC_BITS | POLYNOMIAL
        if root >> power & 1:
            square ^= root
    return square
