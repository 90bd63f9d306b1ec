"""cmsgpack, as scripts of Redis know it: version 0.4.0, which writes each number in the fewest bytes.

Source: https://github.com/antirez/lua-cmsgpack, deps/lua/src/lua_cmsgpack.c of redis 7.2
"""

import struct
from typing import Any

from minidist.engines.keyspace.lua.arguments import Lua, Problem, Several, Values, bad_argument, text, whole
from minidist.engines.keyspace.lua.sandbox import LONGEST_STRING_BYTES
from minidist.engines.keyspace.lua.values import NoRoom

DEEPEST_PACKED = 16  # what is deeper is packed as nil, so that a table may contain itself
DEEPEST_UNPACKED = 200
# By first byte: the struct format of what follows; strings, arrays and maps by the format of their length.
NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
LENGTHS = {
    0xD9: (">B", "string"), 0xDA: (">H", "string"), 0xDB: (">I", "string"),
    0xDC: (">H", "array"), 0xDD: (">I", "array"), 0xDE: (">H", "map"), 0xDF: (">I", "map"),
}  # fmt: skip
CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
# The first bytes of integers with so many bits.
UNSIGNED = ((8, 0xCC, ">B"), (16, 0xCD, ">H"), (32, 0xCE, ">I"), (64, 0xCF, ">Q"))
SIGNED = ((8, 0xD0, ">b"), (16, 0xD1, ">h"), (32, 0xD2, ">i"), (64, 0xD3, ">q"))


# --- packing ----------------------------------------------------------------------------------------------------------


def pack(lua: Lua, values: Values) -> bytes:
    if not values:
        raise bad_argument(0, "pack", "MessagePack pack needs input.")
    packing = _Packing(lua)
    for value in values:
        packing.add(value, 0)
    return b"".join(packing.parts)


class _Packing:
    def __init__(self, lua: Lua) -> None:
        self._lua = lua
        self.parts: list[bytes] = []
        self._size = 0

    def add(self, value: Any, depth: int) -> None:
        if self._lua.is_table(value) and depth < DEEPEST_PACKED:
            self._add_table(value, depth + 1)
            return
        part = packed_scalar(value)
        self._size += len(part)
        if self._size > LONGEST_STRING_BYTES:
            raise NoRoom
        self.parts.append(part)

    def _add_table(self, table: Any, depth: int) -> None:
        length = array_length(table)
        if length is not None:
            self.parts.append(_header(length, 0x90, 15, 0xDC))
            for at in range(1, length + 1):
                self.add(table[at], depth)
            return
        pairs = list(table.items())
        self.parts.append(_header(len(pairs), 0x80, 15, 0xDE))
        for pair in pairs:
            for each in pair:
                self.add(each, depth)


def packed_scalar(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, bytes):
        size = len(value)
        return (b"\xd9%c" % size if 32 <= size < 256 else _header(size, 0xA0, 31, 0xDA)) + value
    if isinstance(value, float) and value.is_integer() and -(1 << 63) <= value < 1 << 63:
        value = int(value)
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return _packed_integer(value)
    return _packed_float(value) if isinstance(value, int | float) else b"\xc0"


def _packed_integer(value: int) -> bytes:
    if -32 <= value < 128:
        return bytes((value & 0xFF,))
    for bits, code, form in UNSIGNED if value > 0 else SIGNED:
        if value < 1 << bits and value >= -1 << (bits - 1):
            return bytes((code,)) + struct.pack(form, value)
    raise AssertionError("it has 64 bits")


def _packed_float(value: float) -> bytes:
    try:
        short = struct.pack(">f", value)
        if struct.unpack(">f", short)[0] == value:
            return b"\xca" + short
    except OverflowError:
        pass
    return b"\xcb" + struct.pack(">d", value)


def _header(length: int, short: int, longest_short: int, code: int) -> bytes:
    """`short` with the length in it, or a code for lengths of 16 bits, or the next one for 32."""
    if length <= longest_short:
        return bytes((short | length,))
    return struct.pack(">BH", code, length) if length < 1 << 16 else struct.pack(">BI", code + 1, length)


def array_length(table: Any) -> int | None:
    """How long a table is if its keys are 1 to n; an empty one is an array. None otherwise."""
    count = longest = 0
    for key in table:
        if isinstance(key, bool) or not isinstance(key, int | float) or key < 1 or key != int(key):
            return None
        count += 1
        longest = max(longest, int(key))
    return longest if count == longest else None


# --- unpacking --------------------------------------------------------------------------------------------------------


def unpack(lua: Lua, values: Values) -> Several:
    """All values of a string."""
    return _unpacked(lua, text(lua, values, 1, "unpack"), 0, 0)


def unpack_one(lua: Lua, values: Values) -> Several:
    """Where the next value begins, or -1, and the value at an offset."""
    data = text(lua, values, 1, "unpack_one")
    return _unpacked(lua, data, 1, whole(lua, values, 2, "unpack_one", 0))


def unpack_limit(lua: Lua, values: Values) -> Several:
    """As `unpack_one`, with so many values at most."""
    data = text(lua, values, 1, "unpack_limit")
    return _unpacked(lua, data, whole(lua, values, 2, "unpack_limit"), whole(lua, values, 3, "unpack_limit", 0))


def _unpacked(lua: Lua, data: bytes, limit: int, offset: int) -> Several:
    if offset < 0 or limit < 0:
        raise Problem(f"Invalid request to unpack with offset of {offset} and limit of {len(data)}.")
    if offset > len(data):
        raise Problem(f"Start offset {offset} greater than input length {len(data)}.")
    reader = _Reader(lua, data, offset)
    everything = not limit and not offset
    found = Several()
    while reader.at < len(data) and (everything or len(found) < limit):
        found.append(reader.value(0))
    if not everything:
        found.insert(0, -1 if reader.at == len(data) else reader.at)
    return found


class _Reader:
    def __init__(self, lua: Lua, data: bytes, at: int) -> None:
        self._lua = lua
        self._data = data
        self.at = at

    def _take(self, size: int) -> bytes:
        piece = self._data[self.at : self.at + size]
        if len(piece) < size:
            raise Problem("Missing bytes in input.")
        self.at += size
        return piece

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def value(self, depth: int) -> Any:
        """The next value. Raises Problem."""
        if depth > DEEPEST_UNPACKED:
            raise Problem("Too many nested data structures.")
        code = self._take(1)[0]
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 256
        if code in CONSTANTS:
            return CONSTANTS[code]
        if code in NUMBERS:
            return self._number(NUMBERS[code])
        if code in LENGTHS:
            form, kind = LENGTHS[code]
            return self._of_length(kind, self._number(form), depth)
        if code < 0xC0:
            kind, mask = ("map", 0x0F) if code < 0x90 else ("array", 0x0F) if code < 0xA0 else ("string", 0x1F)
            return self._of_length(kind, code & mask, depth)
        raise Problem("Bad data format in input.")

    def _of_length(self, kind: str, length: int, depth: int) -> Any:
        if kind == "string":
            return self._take(length)
        if kind == "array":
            return self._lua.sequence([self.value(depth + 1) for _ in range(length)])
        return self._lua.mapping([(self._key(depth), self.value(depth + 1)) for _ in range(length)])

    def _key(self, depth: int) -> Any:
        key = self.value(depth + 1)
        if key is None or key != key:
            raise Problem("table index is nil" if key is None else "table index is NaN")
        return key
