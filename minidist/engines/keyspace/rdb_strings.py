"""The smallest parts of Redis' RDB format: lengths, and strings in their four forms (plain, integer, LZF, raw).

A length tells its own size by the two highest bits of its first byte: 6 bits, 14 bits, 32 or 64 bits, or that what
follows is not a plain string. All lengths are big-endian; integers are little-endian.

Nothing is allocated because a payload claims it: strings are cut from what is there, and what LZF makes is counted
while it grows. We never compress: the other side reads plain strings as well.

Source: https://github.com/redis/redis/blob/7.2/src/rdb.h
"""

from minidist.wire.resp_plain import strict_integer

IN_14_BITS, IN_32_BITS, IN_64_BITS, SPECIAL = 0x40, 0x80, 0x81, 0xC0
INTEGER_BYTES = {0xC0: 1, 0xC1: 2, 0xC2: 4}
COMPRESSED = 0xC3
LONGEST_INTEGER_TEXT = 11
LONGEST_STRING_BYTES = 512 * 1024**2
# LZF: up to this control byte a run of plain bytes follows; a reference of up to three bytes makes 264 at most.
LAST_LITERAL = 31
MOST_EXPANSION = 88


class Malformed(ValueError):
    """Not what Redis would write."""


class Truncated(Malformed):
    """It ends too early: more bytes may follow, where they come in pieces."""


class Reader:
    """Reads a payload from its beginning. All methods raise Malformed."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.end = len(data)

    def take(self, size: int) -> bytes:
        """The next so many bytes."""
        start, stop = self.at, self.at + size
        if stop > self.end:
            raise Truncated("ends too early")
        self.at = stop
        return self.data[start:stop]

    def byte(self) -> int:
        return self.take(1)[0]

    def length(self) -> int:
        """A length, 0 to 2^64-1."""
        first = self.byte()
        return self._length(first)

    def _length(self, first: int) -> int:
        if first < IN_14_BITS:
            return first
        if first < IN_32_BITS:
            return (first & 0x3F) << 8 | self.byte()
        if first not in (IN_32_BITS, IN_64_BITS):
            raise Malformed("no length")
        return int.from_bytes(self.take(4 if first == IN_32_BITS else 8), "big")

    def string(self) -> bytes:
        """A string in any form."""
        first = self.byte()
        if first < SPECIAL:
            return self.take(self._length(first))
        if first in INTEGER_BYTES:
            return b"%d" % int.from_bytes(self.take(INTEGER_BYTES[first]), "little", signed=True)
        if first != COMPRESSED:
            raise Malformed("unknown form of a string")
        compressed_bytes, size = self.length(), self.length()
        return decompress(self.take(compressed_bytes), size)

    def little(self, size: int, signed: bool = True) -> int:
        """A little-endian integer."""
        return int.from_bytes(self.take(size), "little", signed=signed)


def length_bytes(length: int) -> bytes:
    """A length as written."""
    if length < IN_14_BITS:
        return bytes((length,))
    if length < 1 << 14:
        return (IN_14_BITS << 8 | length).to_bytes(2, "big")
    if length < 1 << 32:
        return bytes((IN_32_BITS,)) + length.to_bytes(4, "big")
    return bytes((IN_64_BITS,)) + length.to_bytes(8, "big")


def string_bytes(text: bytes) -> bytes:
    """A string as written: those that are integers of at most 32 bits as such, all others plain."""
    if len(text) <= LONGEST_INTEGER_TEXT and (value := strict_integer(text)) is not None:
        for form, size in INTEGER_BYTES.items():
            if -(1 << 8 * size - 1) <= value < 1 << 8 * size - 1:
                return bytes((form,)) + value.to_bytes(size, "little", signed=True)
    return length_bytes(len(text)) + text


def decompress(data: bytes, size: int) -> bytes:
    """What LZF made these bytes of, which must be `size` bytes. Raises Malformed."""
    if size > min(len(data) * MOST_EXPANSION, LONGEST_STRING_BYTES):
        raise Malformed("cannot be that long")
    reader, made = Reader(data), bytearray()
    while reader.at < reader.end and len(made) <= size:
        control = reader.byte()
        if control <= LAST_LITERAL:
            made += reader.take(control + 1)
            continue
        length = control >> 5
        if length == 7:
            length += reader.byte()
        length += 2
        distance = ((control & 0x1F) << 8 | reader.byte()) + 1
        if distance > len(made):
            raise Malformed("refers to before the beginning")
        start = len(made) - distance
        again = made[start : start + length]
        made += (again * (length // len(again) + 1))[:length]  # what it refers to may still be growing
    if len(made) != size:
        raise Malformed("of another length")
    return bytes(made)
