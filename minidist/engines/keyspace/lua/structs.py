"""struct, as scripts of Redis know it: version 0.2, with byte order and alignment.

Source: http://www.inf.puc-rio.br/~roberto/struct/, deps/lua/src/lua_struct.c of redis 7.2
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from minidist.engines.keyspace.lua.arguments import (
    Lua,
    Problem,
    Several,
    Values,
    bad_argument,
    number,
    number_of,
    text,
    whole,
)

SIZES = {"b": 1, "B": 1, "h": 2, "H": 2, "l": 8, "L": 8, "T": 8, "f": 4, "d": 8, "x": 1}
INTEGERS = "bBhHlLTiI"
LARGEST_SIZE = 32
LARGEST_INTEGER = (1 << 31) - 1
USUAL_ALIGNMENT = 8
LONG_BYTES = 8  # integers have 64 bits; what is longer is filled up with zeros


@dataclass(frozen=True, slots=True)
class Item:
    """One letter of a format: its size in bytes, the zeros before it, and the byte order. Size 0: the value says."""

    letter: str
    size: int
    alignment: int
    big_endian: bool

    def padding(self, position: int) -> int:
        if not self.size or self.letter == "c":
            return 0
        size = min(self.size, self.alignment)
        return (size - (position & (size - 1))) & (size - 1)


def items(form: bytes, function: str) -> Iterator[Item]:
    """The items of a format; other letters too, for `size`, which passes over them. Raises Problem."""
    form = form.partition(b"\0")[0]
    big_endian, alignment, at = False, 1, 0
    while at < len(form):
        letter = chr(form[at])
        at += 1
        if letter in "<>":
            big_endian = letter == ">"
        elif letter in "ciI!":
            given, at = _digits(form, at)
            if letter == "!":
                alignment = USUAL_ALIGNMENT if given is None else given
                if alignment < 1 or alignment & (alignment - 1):
                    raise Problem(f"alignment {alignment} is not a power of 2")
                continue
            size = given if given is not None else 1 if letter == "c" else 4
            if letter != "c" and size > LARGEST_SIZE:
                raise Problem(f"integral size {size} is larger than limit of {LARGEST_SIZE}")
            yield Item(letter, size, alignment, big_endian)
        elif letter in SIZES or letter == "s":
            yield Item(letter, SIZES.get(letter, 0), alignment, big_endian)
        elif letter != " " and not (function == "size" and letter.isascii() and letter.isalnum()):
            raise bad_argument(1, function, f"invalid format option '{letter}'")


def _digits(form: bytes, at: int) -> tuple[int | None, int]:
    end = at
    while end < len(form) and form[end] in b"0123456789":
        end += 1
    if end == at:
        return None, at
    value = int(form[at:end]) if end - at <= 10 else LARGEST_INTEGER + 1
    if value > LARGEST_INTEGER:
        raise Problem("integral size overflow")
    return value, end


def size_of(lua: Lua, values: Values) -> int:
    position = 0
    for item in items(text(lua, values, 1, "size"), "size"):
        if item.letter in "sc" and not item.size:
            shown = "s" if item.letter == "s" else "c0"
            raise bad_argument(1, "size", f"option '{shown}' has no fixed size")
        position += item.padding(position) + item.size
    return position


def pack(lua: Lua, values: Values) -> bytes:
    parts: list[bytes] = []
    position, at = 0, 2
    given = (*values, None)  # what is missing is nil
    for item in items(text(lua, values, 1, "pack"), "pack"):
        piece = bytes(item.padding(position))
        if item.letter == "x":
            piece += b"\0"
        elif item.letter in "sc":
            piece += _packed_text(item, text(lua, given, at, "pack"), at)
            at += 1
        else:
            piece += _packed_number(item, number(lua, given, at, "pack"))
            at += 1
        parts.append(piece)
        position += len(piece)
        lua.room(position)
    return b"".join(parts)


def _packed_text(item: Item, value: bytes, at: int) -> bytes:
    size = item.size or len(value)
    if len(value) < size:
        raise bad_argument(at + 1, "pack", "string too short")  # the next one, as in the original
    return value[:size] + b"\0" if item.letter == "s" else value[:size]


def _packed_number(item: Item, value: float) -> bytes:
    if item.letter not in INTEGERS:
        order = ">" if item.big_endian else "<"
        try:
            return struct.pack(order + item.letter, value)
        except OverflowError:
            return struct.pack(order + item.letter, float("inf") if value > 0 else float("-inf"))
    bits = int(value) & ((1 << 8 * LONG_BYTES) - 1) if value - value == 0 else 1 << (8 * LONG_BYTES - 1)
    size = min(item.size, LONG_BYTES)
    low = (bits & ((1 << 8 * size) - 1)).to_bytes(size, "little").ljust(item.size, b"\0")
    return low[::-1] if item.big_endian else low


def unpack(lua: Lua, values: Values) -> Several:
    """The values, and where the next one would begin."""
    form, data = text(lua, values, 1, "unpack"), text(lua, values, 2, "unpack")
    position = whole(lua, values, 3, "unpack", 1) - 1
    if position == -1:
        raise bad_argument(3, "unpack", "offset must be 1 or greater")
    if form:
        _check(data, position, 0)
    found = Several()
    for item in items(form, "unpack"):
        position += item.padding(position)
        size = item.size
        _check(data, position, size)
        if item.letter == "c" and not size:
            previous = number_of(found[-1]) if found else None
            if previous is None:
                raise Problem("format 'c0' needs a previous size")
            size = int(previous) if previous - previous == 0 else -1
            found.pop()
            _check(data, position, size)
        elif item.letter == "s":
            size = data.find(b"\0", position) - position + 1
            if size < 1:
                raise Problem("unfinished string in data")
        piece = data[position : position + size]
        position += size
        if item.letter in "sc":
            found.append(piece[:-1] if item.letter == "s" else piece)
        elif item.letter != "x":
            found.append(_unpacked_number(item, piece))
    found.append(position + 1)
    return found


def _check(data: bytes, position: int, size: int) -> None:
    if size < 0 or not 0 <= position <= len(data) - size:
        raise bad_argument(2, "unpack", "data string too short")


def _unpacked_number(item: Item, piece: bytes) -> float:
    if item.letter not in INTEGERS:
        return float(struct.unpack((">" if item.big_endian else "<") + item.letter, piece)[0])
    low = (piece[::-1] if item.big_endian else piece)[:LONG_BYTES]
    value = int.from_bytes(low, "little", signed=item.letter.islower())
    return value if abs(value) < 1 << 53 else float(value)
