"""Listpacks: Redis' compact sequences of strings and integers, in which it writes small collections, and all streams.

A header of six bytes (size of the whole, number of elements or 65535 for "many"), the elements, and a byte 255. An
element is its encoding, its contents, and the size of both, written so that it can be read from its end.

Source: https://github.com/antirez/listpack/blob/master/listpack.md
"""

from collections.abc import Sequence

from minidist.engines.keyspace.rdb_strings import Malformed

HEADER_BYTES = 6
MANY = 0xFFFF
END = 0xFF
# First bytes of elements; below the first, the byte itself is the value.
STRING_6, INTEGER_13, STRING_12, STRING_32 = 0x80, 0xC0, 0xE0, 0xF0
INTEGER_BYTES = {0xF1: 2, 0xF2: 3, 0xF3: 4, 0xF4: 8}
# Up to these sizes, the size of an element takes one byte, two, … (one less than would fit, as Redis has it).
BACKWARD_LIMITS = (127, 16_382, 2_097_150, 268_435_454)

Element = bytes | int


def read_listpack(data: bytes) -> list[bytes]:
    """The elements, integers as text. Raises Malformed; every byte is checked."""
    return [element_text(element) for element in read_elements(data)]


def element_text(element: Element) -> bytes:
    return b"%d" % element if isinstance(element, int) else element


def read_elements(data: bytes) -> list[Element]:
    """The elements as they are written. Raises Malformed."""
    last = len(data) - 1
    if last < HEADER_BYTES or int.from_bytes(data[:4], "little") != len(data) or data[last] != END:
        raise Malformed("no listpack")
    elements: list[Element] = []
    at = HEADER_BYTES
    while at < last:
        start = at
        at, element = _read_element(data, at)
        backward = _backward_size(at - start)
        if at + len(backward) > last or data[at : at + len(backward)] != backward:
            raise Malformed("damaged element")
        at += len(backward)
        elements.append(element)
    if int.from_bytes(data[4:6], "little") not in (len(elements), MANY):
        raise Malformed("another number of elements")
    return elements


def _read_element(data: bytes, at: int) -> tuple[int, Element]:
    """Where an element ends, and its value. What would lie beyond the end is found by the caller."""
    first = data[at]
    at += 1
    if first < STRING_6:
        return at, first
    if first < INTEGER_13:
        size = first & 0x3F
    elif first < STRING_12:
        value = (first & 0x1F) << 8 | data[at]
        return at + 1, value - (1 << 13) if value >= 1 << 12 else value
    elif first < STRING_32:
        size = (first & 0x0F) << 8 | data[at]
        at += 1
    elif first == STRING_32:
        size = int.from_bytes(data[at : at + 4], "little")
        at += 4
    elif first in INTEGER_BYTES:
        size = INTEGER_BYTES[first]
        return at + size, int.from_bytes(data[at : at + size], "little", signed=True)
    else:
        raise Malformed("unknown element")
    return at + size, data[at : at + size]


def _backward_size(size: int) -> bytes:
    """The size of an element as it stands behind it: groups of seven bits, all but the first marked."""
    if size <= BACKWARD_LIMITS[0]:
        return bytes((size,))
    groups = 2 + sum(size > limit for limit in BACKWARD_LIMITS[1:])
    marked = [size >> 7 * group & 0x7F | 0x80 for group in range(groups - 1)]
    return bytes((size >> 7 * (groups - 1), *reversed(marked)))


def listpack(elements: Sequence[Element]) -> bytes:
    """A listpack of these elements; strings stay strings."""
    parts = []
    for element in elements:
        body = _integer(element) if isinstance(element, int) else _string_header(len(element)) + element
        parts += [body, _backward_size(len(body))]
    body = b"".join(parts)
    count = min(len(elements), MANY)
    return (HEADER_BYTES + len(body) + 1).to_bytes(4, "little") + count.to_bytes(2, "little") + body + b"\xff"


def _integer(value: int) -> bytes:
    """An integer of at most 64 bits."""
    if 0 <= value < STRING_6:
        return bytes((value,))
    if -(1 << 12) <= value < 1 << 12:
        return (INTEGER_13 << 8 | value & 0x1FFF).to_bytes(2, "big")
    first = next(first for first, size in INTEGER_BYTES.items() if -(1 << 8 * size - 1) <= value < 1 << 8 * size - 1)
    return bytes((first,)) + value.to_bytes(INTEGER_BYTES[first], "little", signed=True)


def _string_header(size: int) -> bytes:
    if size < 1 << 6:
        return bytes((STRING_6 | size,))
    if size < 1 << 12:
        return (STRING_12 << 8 | size).to_bytes(2, "big")
    return bytes((STRING_32,)) + size.to_bytes(4, "little")
