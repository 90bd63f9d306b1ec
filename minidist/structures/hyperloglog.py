"""HyperLogLog: how many different elements were seen, within 0.81 %, in 12 kB, whatever their number.

Each element is hashed; 14 bits of the hash choose one of 16,384 registers, which remembers the longest run of zeros
that the other 50 bits ever began with, plus one. The estimate is that of Ertl, "New cardinality estimation algorithms
for HyperLogLog sketches" (2017), which needs no table of corrections.

The form is Redis' own (hyperloglog.c), so that a value can go from server to server: a header of 16 bytes (`HYLL`, the
encoding, 3 bytes unused, the last estimate as a 64-bit number whose highest bit says that it is stale), then the
registers. Dense: 6 bits each, lowest bits first. Sparse: runs of equal registers; these are read, never written.
Python works on one register per byte; unpacking, merging and counting go over all of them in a few C calls.
"""

import math
from collections.abc import Sequence

REGISTERS = 16_384
INDEX_BITS = 14
HASH_BITS = 50
LARGEST_RANK = HASH_BITS + 1
MAGIC = b"HYLL"
HEADER_BYTES = 16
DENSE, SPARSE = 0, 1
DENSE_BYTES = HEADER_BYTES + REGISTERS * 6 // 8
STALE = 0x80  # in the last byte of the header
EMPTY = MAGIC + bytes(DENSE_BYTES - len(MAGIC))
NO_REGISTERS = bytes(REGISTERS)
# When every register is full, which no elements bring about, but a SET may.
LARGEST_ESTIMATE = (1 << 63) - 1

MASK = (1 << 64) - 1
MULTIPLIER = 0xC6A4A7935BD1E995
SHIFT = 47
SEED = 0xADC83B19
ALPHA = 0.5 / math.log(2)

Bytes = bytes | bytearray


class CorruptHyperLogLog(Exception):
    """The runs of a sparse value do not add up to its registers."""


# --- one element ------------------------------------------------------------------------------------------------------


def murmur64(data: bytes) -> int:
    """MurmurHash64A (Appleby) with Redis' seed."""
    value = SEED ^ len(data) * MULTIPLIER & MASK
    whole = len(data) & ~7
    for at in range(0, whole, 8):
        word = int.from_bytes(data[at : at + 8], "little") * MULTIPLIER & MASK
        word = (word ^ word >> SHIFT) * MULTIPLIER & MASK
        value = (value ^ word) * MULTIPLIER & MASK
    if whole < len(data):
        value = (value ^ int.from_bytes(data[whole:], "little")) * MULTIPLIER & MASK
    value = (value ^ value >> SHIFT) * MULTIPLIER & MASK
    return value ^ value >> SHIFT


def register_of(element: bytes) -> tuple[int, int]:
    """The number of its register, and its rank: the zeros at the low end of the rest of the hash, plus one."""
    value = murmur64(element)
    rest = value >> INDEX_BITS | 1 << HASH_BITS
    return value % REGISTERS, (rest & -rest).bit_length()


def raised(data: Bytes, number: int, rank: int) -> tuple[int, bytes] | None:
    """What to write into a dense value, and where, so that a register is at least `rank`; None if it is already."""
    at, shift = HEADER_BYTES + (number * 6 >> 3), number * 6 & 7
    pair = data[at : at + 2]
    bits = int.from_bytes(pair, "little")
    before = bits >> shift & 63
    if before >= rank:
        return None
    return at, (bits + (rank - before << shift)).to_bytes(len(pair), "little")


# --- all registers ----------------------------------------------------------------------------------------------------


def is_hyperloglog(data: Bytes) -> bool:
    if len(data) < HEADER_BYTES or data[:4] != MAGIC:
        return False
    return len(data) == DENSE_BYTES if data[4] == DENSE else data[4] == SPARSE


def is_dense(data: Bytes) -> bool:
    return data[4] == DENSE


# Three bytes hold four registers; these tables cut each byte's share of a register out, in its place.
_LOW_6 = bytes(value & 63 for value in range(256))
_HIGH_2 = bytes(value >> 6 for value in range(256))
_LOW_4 = bytes((value & 15) << 2 for value in range(256))
_HIGH_4 = bytes(value >> 4 for value in range(256))
_LOW_2 = bytes((value & 3) << 4 for value in range(256))
_HIGH_6 = bytes(value >> 2 for value in range(256))


def registers(data: Bytes) -> bytes:
    """One byte for each register. Raises CorruptHyperLogLog."""
    if not is_dense(data):
        return _sparse_registers(data)
    first, second, third = data[16::3], data[17::3], data[18::3]
    found = bytearray(REGISTERS)
    found[0::4] = first.translate(_LOW_6)
    found[1::4] = _either(first.translate(_HIGH_2), second.translate(_LOW_4))
    found[2::4] = _either(second.translate(_HIGH_4), third.translate(_LOW_2))
    found[3::4] = third.translate(_HIGH_6)
    return bytes(found)


def _either(one: Bytes, two: Bytes) -> bytes:
    """Bitwise or."""
    return (int.from_bytes(one, "little") | int.from_bytes(two, "little")).to_bytes(len(one), "little")


def _sparse_registers(data: Bytes) -> bytes:
    """The runs: 00zzzzzz, z + 1 zeros; 01zzzzzz zzzzzzzz, the same with 14 bits; 1vvvvvnn, n + 1 times v + 1."""
    found = bytearray()
    at = HEADER_BYTES
    while at < len(data) and len(found) < REGISTERS:
        byte = data[at]
        if byte & 0x80:
            found += bytes(((byte >> 2 & 31) + 1,)) * ((byte & 3) + 1)
        elif byte & 0x40:
            at += 1
            if at == len(data):
                break
            found += bytes(((byte & 63) << 8 | data[at]) + 1)
        else:
            found += bytes((byte & 63) + 1)
        at += 1
    if len(found) != REGISTERS or at != len(data):
        raise CorruptHyperLogLog
    return bytes(found)


def dense(values: bytes) -> bytes:
    """The dense value with these registers, its estimate stale."""
    first, second, third, fourth = (values[at::4] for at in range(4))
    packed = bytearray(REGISTERS * 6 // 8)
    packed[0::3] = _either(first, second.translate(_SHIFTED[6]))
    packed[1::3] = _either(second.translate(_HIGH_6), third.translate(_SHIFTED[4]))
    packed[2::3] = _either(third.translate(_HIGH_4), fourth.translate(_SHIFTED[2]))
    return MAGIC + bytes(11) + bytes((STALE,)) + packed


_SHIFTED = {by: bytes(value << by & 255 for value in range(256)) for by in (2, 4, 6)}


def merged(values: Sequence[bytes]) -> bytes:
    """The largest of each register; registers as `registers` gives them."""
    result = int.from_bytes(NO_REGISTERS, "little")
    for each in values:
        other = int.from_bytes(each, "little")
        # Ranks have 6 bits, so bit 7 of a byte shows which of two is larger without touching its neighbours.
        larger = (result | _TOPS) - other >> 7 & _ONES
        keep = (larger << 7) - larger
        result = other ^ ((result ^ other) & keep)
    return result.to_bytes(REGISTERS, "little")


_ONES = int.from_bytes(b"\x01" * REGISTERS, "little")
_TOPS = _ONES << 7


# --- estimates --------------------------------------------------------------------------------------------------------


def estimate(values: bytes) -> int:
    """How many different elements these registers have seen."""
    ranks = [values.count(rank) for rank in range(LARGEST_RANK + 1)]
    total = REGISTERS * _tau(1 - ranks[LARGEST_RANK] / REGISTERS)
    for rank in range(HASH_BITS, 0, -1):
        total = (total + ranks[rank]) / 2
    total += REGISTERS * _sigma(ranks[0] / REGISTERS)
    return int(ALPHA * REGISTERS * REGISTERS / total + 0.5) if total else LARGEST_ESTIMATE


def _sigma(share: float) -> float:
    """Ertl's correction for registers that are still zero: x + Σ x^(2^k) · 2^(k-1)."""
    if share == 1:
        return math.inf
    total, weight, before = share, 1.0, -1.0
    while total != before:
        share *= share
        before = total
        total += share * weight
        weight *= 2
    return total


def _tau(share: float) -> float:
    """Ertl's correction for registers that are full: (1 - x - Σ (1 - x^(2^-k))² · 2^-k) / 3."""
    if share in (0, 1):
        return 0
    total, weight, before = 1 - share, 1.0, -1.0
    while total != before:
        share = math.sqrt(share)
        weight /= 2
        before = total
        total -= (1 - share) ** 2 * weight
    return total / 3


def known_estimate(data: Bytes) -> int | None:
    """The estimate in the header, unless it is stale."""
    return None if data[15] & STALE else int.from_bytes(data[8:16], "little")
