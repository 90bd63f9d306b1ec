"""cjson, cmsgpack, bit and struct, as scripts of Redis know them.

Each function takes Lua values and returns `(True, result)` or `(False, message)`: nothing is raised through the
interpreter. `LuaTables` hides how the interpreter's tables are told and made.

Sources: https://www.kyne.com.au/~mark/software/lua-cjson-manual.html, https://bitop.luajit.org/api.html,
http://www.inf.puc-rio.br/~roberto/struct/
"""

import json
import re
import struct as structs
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgpack

from minidist.engines.keyspace.lua.values import NO_ROOM, NoRoom

DEEPEST_JSON = 1000
DEEPEST_PACK = 16
Answer = tuple[Any, ...]
MANY = b"many"


class Problem(Exception):
    """What a library function complains about."""


class Lua(Protocol):
    """The interpreter, as far as libraries need it."""

    null: Any

    def is_null(self, value: Any) -> bool: ...

    def is_table(self, value: Any) -> bool: ...

    def room(self, needed_bytes: int) -> None: ...

    def sequence(self, values: Sequence[Any]) -> Any: ...

    def mapping(self, pairs: Sequence[tuple[Any, Any]]) -> Any: ...


def library(lua: Lua) -> dict[str, Callable[..., Answer]]:
    """The functions by name, `cjson_encode` and so on."""
    functions: dict[str, Callable[..., Any]] = {
        "cjson_encode": lambda value: to_json(lua, value, 0),
        "cjson_decode": lambda text: from_json(lua, text),
        "cmsgpack_pack": lambda *values: b"".join([pack(lua, value, 0) for value in values]),
        "cmsgpack_unpack": lambda text: unpack(lua, text),
        "struct_pack": struct_pack,
        "struct_unpack": struct_unpack,
        "struct_size": lambda form: sum(size for _, size, _ in struct_items(form)),
        **BITS,
    }
    return {name: _answering(lua, function) for name, function in functions.items()}


def _answering(lua: Lua, function: Callable[..., Any]) -> Callable[..., Answer]:
    def call(*arguments: Any) -> Answer:
        try:
            result = function(*arguments)
            if isinstance(result, Several):
                return True, lua.sequence(result), MANY, len(result)
            if isinstance(result, bytes):
                lua.room(len(result))
            return True, result
        except NoRoom:
            return False, NO_ROOM
        except Problem as problem:
            return False, str(problem).encode()
        except (TypeError, ValueError, OverflowError, structs.error, UnicodeError, msgpack.UnpackException) as problem:
            return False, f"bad argument ({problem})".encode()

    return call


# --- tables -----------------------------------------------------------------------------------------------------------


def array_length(table: Any) -> int | None:
    """How long a table is if it is an array (keys 1 to n); None otherwise. An empty one is none."""
    count = longest = 0
    for key in table:
        if isinstance(key, bool) or not isinstance(key, int | float) or key < 1 or key != int(key):
            return None
        count += 1
        longest = max(longest, int(key))
    return longest if count == longest and count else None


# --- cjson ------------------------------------------------------------------------------------------------------------

SHORT = dict(zip(b'"\\/' + bytes((8, 12, 10, 13, 9)), b'"\\/bfnrt', strict=True))
ESCAPED = re.compile(rb'["\\/\x00-\x1f\x7f]')


def _escape(found: re.Match[bytes]) -> bytes:
    code = found[0][0]
    return b"\\%c" % SHORT[code] if code in SHORT else b"\\u%04x" % code


def to_json(lua: Lua, value: Any, depth: int) -> bytes:
    if value is None:
        return b"null"
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int | float):
        if value != value or value in (float("inf"), float("-inf")):
            raise Problem("Cannot serialise number: must not be NaN or Inf")
        return b"%.14g" % value
    if isinstance(value, bytes):
        return b'"' + ESCAPED.sub(_escape, value) + b'"'
    if not lua.is_table(value):
        if lua.is_null(value):
            return b"null"
        raise Problem("Cannot serialise function: type not supported")
    if depth >= DEEPEST_JSON:
        raise Problem("Cannot serialise, excessive depth (1001)")
    length = array_length(value)
    if length is not None:
        return b"[" + b",".join([to_json(lua, value[at], depth + 1) for at in range(1, length + 1)]) + b"]"
    pairs = []
    for key, each in value.items():
        if isinstance(key, bool) or not isinstance(key, bytes | int | float):
            raise Problem("Cannot serialise table: table key must be a number or string")
        name = key if isinstance(key, bytes) else b"%.14g" % key
        pairs.append(b'"' + ESCAPED.sub(_escape, name) + b'":' + to_json(lua, each, depth + 1))
    return b"{" + b",".join(pairs) + b"}"


def from_json(lua: Lua, text: Any) -> Any:
    if isinstance(text, int | float):
        text = b"%.14g" % text
    if not isinstance(text, bytes):
        raise Problem("bad argument #1 to 'decode' (string expected)")
    try:
        return _from_json(lua, json.loads(text.decode("utf-8", "surrogateescape")))
    except RecursionError:
        raise Problem("Found too many nested data structures (1001)") from None
    except ValueError as problem:
        raise Problem(f"Expected value but found invalid token: {problem}") from None


def _from_json(lua: Lua, value: Any) -> Any:
    if value is None:
        return lua.null
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, list):
        return lua.sequence([_from_json(lua, each) for each in value])
    if isinstance(value, dict):
        return lua.mapping(
            [(name.encode("utf-8", "surrogateescape"), _from_json(lua, each)) for name, each in value.items()]
        )
    return value if isinstance(value, bool) else float(value)


# --- cmsgpack ---------------------------------------------------------------------------------------------------------


def pack(lua: Lua, value: Any, depth: int) -> bytes:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 63:
        value = int(value)
    if value is None or isinstance(value, bool | int | float):
        return bytes(msgpack.packb(value))
    if isinstance(value, bytes):
        return bytes(msgpack.packb(value, use_bin_type=False))
    if not lua.is_table(value) or depth >= DEEPEST_PACK:
        return b"\xc0"
    packer = msgpack.Packer()
    length = array_length(value)
    if length is not None:
        parts = [pack(lua, value[at], depth + 1) for at in range(1, length + 1)]
        return bytes(packer.pack_array_header(length)) + b"".join(parts)
    pairs = list(value.items())
    parts = [pack(lua, each, depth + 1) for pair in pairs for each in pair]
    return bytes(packer.pack_map_header(len(pairs))) + b"".join(parts)


def unpack(lua: Lua, text: bytes) -> Any:
    """The first value of a string."""
    if not text:
        raise Problem("Missing bytes in input.")
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=max(len(text), 1))
    unpacker.feed(text)
    try:
        return _unpacked(lua, unpacker.unpack())
    except msgpack.OutOfData:
        raise Problem("Missing bytes in input.") from None


def _unpacked(lua: Lua, value: Any) -> Any:
    if isinstance(value, list):
        return lua.sequence([_unpacked(lua, each) for each in value])
    if isinstance(value, dict):
        return lua.mapping([(_unpacked(lua, name), _unpacked(lua, each)) for name, each in value.items()])
    return value


# --- bit --------------------------------------------------------------------------------------------------------------


def _bits(value: Any) -> int:
    return int(value) & 0xFFFFFFFF


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def _fold(operation: Callable[[int, int], int]) -> Callable[..., int]:
    def fold(first: Any, *others: Any) -> int:
        value = _bits(first)
        for other in others:
            value = operation(value, _bits(other))
        return _signed(value)

    return fold


def _hex(value: Any, digits: Any = 8) -> bytes:
    width = min(abs(int(digits)), 8)
    text = b"%0*x" % (width, _bits(value) & ((1 << 4 * width) - 1)) if width else b""
    return text.upper() if digits < 0 else text


def _rotated(value: Any, by: int) -> int:
    bits = _bits(value)
    by &= 31
    return _signed(bits << by | bits >> (32 - by))


BITS: dict[str, Callable[..., Any]] = {
    "bit_tobit": lambda value: _signed(_bits(value)),
    "bit_tohex": _hex,
    "bit_bnot": lambda value: _signed(~_bits(value)),
    "bit_band": _fold(lambda a, b: a & b),
    "bit_bor": _fold(lambda a, b: a | b),
    "bit_bxor": _fold(lambda a, b: a ^ b),
    "bit_lshift": lambda value, by: _signed(_bits(value) << (int(by) & 31)),
    "bit_rshift": lambda value, by: _signed(_bits(value) >> (int(by) & 31)),
    "bit_arshift": lambda value, by: _signed(_signed(_bits(value)) >> (int(by) & 31)),
    "bit_rol": lambda value, by: _rotated(value, int(by)),
    "bit_ror": lambda value, by: _rotated(value, -int(by)),
    "bit_bswap": lambda value: _signed(int.from_bytes(_bits(value).to_bytes(4, "little"), "big")),
}

# --- struct -----------------------------------------------------------------------------------------------------------

SIZES = {"b": 1, "B": 1, "h": 2, "H": 2, "l": 8, "L": 8, "T": 8, "f": 4, "d": 8, "x": 1}
FORM = re.compile(rb"([<>=!bBhHlLTfdxsc]|i|I)(\d*)|\s+")


def struct_items(form: bytes) -> list[tuple[str, int, str]]:
    """A format as (letter, bytes, byte order); 0 bytes for `s` and `c0`, whose length the value says."""
    items = []
    order = "<"
    at = 0
    while at < len(form):
        found = FORM.match(form, at)
        if found is None:
            raise Problem(f"invalid format option '{chr(form[at])}'")
        at = found.end()
        if found[1] is None:
            continue
        letter, digits = found[1].decode(), found[2]
        if letter in "<>=!":
            order = {"<": "<", ">": ">"}.get(letter, "<" if letter == "=" else order)
        elif letter in "iI":
            size = int(digits or 4)
            if not 1 <= size <= 32:
                raise Problem("integral size is larger than limit of 32")
            items.append((letter, size, order))
        elif letter == "c":
            items.append((letter, int(digits or 1), order))
        else:
            items.append((letter, SIZES.get(letter, 0), order))
    return items


def struct_pack(form: bytes, *values: Any) -> bytes:
    parts = []
    left = list(values)
    for letter, size, order in struct_items(form):
        if letter == "x":
            parts.append(b"\0")
            continue
        if not left:
            raise Problem("bad argument to 'pack' (no value)")
        value = left.pop(0)
        if letter == "s":
            parts.append(value + b"\0")
        elif letter == "c":
            if len(value) < size:
                raise Problem("string too short")
            parts.append(value[:size] if size else value)
        elif letter in "fd":
            parts.append(structs.pack(order + letter, float(value)))
        else:
            byte_order = "little" if order == "<" else "big"
            parts.append((int(value) & ((1 << 8 * size) - 1)).to_bytes(size, byte_order))  # type: ignore[arg-type]
    return b"".join(parts)


def struct_unpack(form: bytes, data: bytes, start: Any = 1) -> Any:
    values: list[Any] = []
    at = int(start) - 1
    for letter, size, order in struct_items(form):
        if letter == "c" and not size:
            if not values:
                raise Problem("format 'c0' needs a previous size")
            size = int(values.pop())
        if letter == "s":
            size = data.find(b"\0", at) - at + 1
            if size <= 0:
                raise Problem("unfinished string in data")
        piece = data[at : at + size]
        if at < 0 or len(piece) < size:
            raise Problem("data string too short")
        at += size
        if letter == "x":
            continue
        if letter in "sc":
            values.append(piece[:-1] if letter == "s" else piece)
        elif letter in "fd":
            values.append(structs.unpack(order + letter, piece)[0])
        else:
            byte_order = "little" if order == "<" else "big"
            values.append(int.from_bytes(piece, byte_order, signed=letter.islower()))  # type: ignore[arg-type]
    return Several([*values, at + 1])


class Several(list[Any]):
    """Several results of one call."""
