"""Strings as bitmaps: bit 0 is the highest bit of the first byte, and there is a zero wherever there is no byte.

Whole strings are worked on through Python's integers and byte searches, CHUNK_BYTES at a time, so that a bitmap of
512 MB needs no second one.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import and_, or_, xor

Bytes = bytes | bytearray
CHUNK_BYTES = 1 << 16

OPERATIONS: dict[bytes, Callable[[int, int], int]] = {b"AND": and_, b"OR": or_, b"XOR": xor}


def get_bit(data: Bytes, offset: int) -> int:
    """The bit at an offset."""
    at = offset >> 3
    return data[at] >> (7 - (offset & 7)) & 1 if at < len(data) else 0


def count_bits(data: Bytes, first: int, last: int) -> int:
    """How many of the bits first to last, both inside the string, are 1."""
    chunks = range(first >> 3, (last >> 3) + 1, CHUNK_BYTES)
    return sum(_chunk(data, start, first, last, 0).bit_count() for start in chunks)


def find_bit(data: Bytes, bit: int, first: int, last: int) -> int:
    """The offset of the first such bit among first to last, both inside the string; -1 if there is none."""
    for start in range(first >> 3, (last >> 3) + 1, CHUNK_BYTES):
        found = _chunk(data, start, first, last, 0 if bit else -1)
        if found:
            return 8 * min(start + CHUNK_BYTES, (last >> 3) + 1) - found.bit_length()
    return -1


def _chunk(data: Bytes, start: int, first: int, last: int, flip: int) -> int:
    """The bytes from `start` on as a number, all bits flipped if `flip` is -1; zeros for bits outside first to last."""
    end = min(start + CHUNK_BYTES, (last >> 3) + 1)
    number = int.from_bytes(data[start:end], "big") ^ flip
    number &= (1 << (8 * end - max(8 * start, first))) - 1
    spare = max(8 * end - last - 1, 0)
    return number >> spare << spare


def combine(operation: bytes, strings: Sequence[Bytes]) -> bytearray:
    """AND, OR or XOR of strings, or NOT of one; as long as the longest, the others filled up with zeros."""
    result = bytearray(max(map(len, strings), default=0))
    for start in range(0, len(result), CHUNK_BYTES):
        end = min(start + CHUNK_BYTES, len(result))
        # The first byte is the lowest here, so that what a short string lacks are the high bytes of its number: zeros.
        numbers = [int.from_bytes(each[start:end], "little") for each in strings]
        if operation == b"NOT":
            combined = numbers[0] ^ ((1 << 8 * (end - start)) - 1)
        else:
            combined = reduce(OPERATIONS[operation], numbers)
        result[start:end] = combined.to_bytes(end - start, "little")
    return result


def get_field(data: Bytes, offset: int, width: int, signed: bool) -> int:
    """The integer of `width` bits that begins at a bit offset; what lies beyond the string is zero."""
    start, end = offset >> 3, (offset + width + 7) >> 3
    number = int.from_bytes(bytes(data[start:end]).ljust(end - start, b"\0"), "big")
    value = number >> (8 * end - offset - width) & ((1 << width) - 1)
    return value - (1 << width) if signed and value >> (width - 1) else value


def with_field(data: Bytes, offset: int, width: int, value: int) -> tuple[int, bytes]:
    """The bytes to write, and where, so that a field holds an integer (modulo 2 to the power of `width`)."""
    start, end = offset >> 3, (offset + width + 7) >> 3
    shift = 8 * end - offset - width
    mask = ((1 << width) - 1) << shift
    number = int.from_bytes(bytes(data[start:end]).ljust(end - start, b"\0"), "big")
    number = number & ~mask | value << shift & mask
    return start, number.to_bytes(end - start, "big")
