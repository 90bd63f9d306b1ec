"""bit, as scripts of Redis know it: BitOp, on numbers of 32 bits.

Source: https://bitop.luajit.org/api.html
"""

import struct
from collections.abc import Callable

from minidist.engines.keyspace.lua.arguments import Lua, Values, number

# Added to a double, this moves its integer part, rounded to even, into the lowest bits of the mantissa.
SHIFTER = 6755399441055744.0
WORD = 0xFFFFFFFF

Function = Callable[[Lua, Values], int | bytes]


def _bits(lua: Lua, values: Values, at: int, name: str) -> int:
    """The argument at a place as 32 bits. Raises Problem."""
    value = number(lua, values, at, name)
    if isinstance(value, int) and abs(value) < 1 << 51:
        return value & WORD
    return int(struct.unpack("<I", struct.pack("<d", value + SHIFTER)[:4])[0])


def _signed(value: int) -> int:
    value &= WORD
    return value - (1 << 32) if value & 0x80000000 else value


def _one(name: str, operation: Callable[[int], int]) -> Function:
    return lambda lua, values: _signed(operation(_bits(lua, values, 1, name)))


def _fold(name: str, operation: Callable[[int, int], int]) -> Function:
    def fold(lua: Lua, values: Values) -> int:
        result = _bits(lua, values, 1, name)
        for at in range(2, len(values) + 1):
            result = operation(result, _bits(lua, values, at, name))
        return _signed(result)

    return fold


def _shift(name: str, operation: Callable[[int, int], int]) -> Function:
    return lambda lua, values: _signed(operation(_bits(lua, values, 1, name), _bits(lua, values, 2, name) & 31))


def _hexadecimal(lua: Lua, values: Values) -> bytes:
    """With so many digits, 8 if nothing is said; in capitals for a negative number of digits."""
    bits = _bits(lua, values, 1, "tohex")
    digits = _signed(_bits(lua, values, 2, "tohex")) if len(values) > 1 else 8
    width = min(abs(digits), 8)
    shown = b"%0*x" % (width, bits & ((1 << 4 * width) - 1)) if width else b""
    return shown.upper() if digits < 0 else shown


def _rotated(bits: int, by: int) -> int:
    return bits << by | bits >> (32 - by)


FUNCTIONS: dict[str, Function] = {
    "bit_tobit": _one("tobit", lambda bits: bits),
    "bit_bnot": _one("bnot", lambda bits: ~bits),
    "bit_bswap": _one("bswap", lambda bits: int.from_bytes(bits.to_bytes(4, "little"), "big")),
    "bit_tohex": _hexadecimal,
    "bit_band": _fold("band", lambda a, b: a & b),
    "bit_bor": _fold("bor", lambda a, b: a | b),
    "bit_bxor": _fold("bxor", lambda a, b: a ^ b),
    "bit_lshift": _shift("lshift", lambda bits, by: bits << by),
    "bit_rshift": _shift("rshift", lambda bits, by: bits >> by),
    "bit_arshift": _shift("arshift", lambda bits, by: _signed(bits) >> by),
    "bit_rol": _shift("rol", _rotated),
    "bit_ror": _shift("ror", lambda bits, by: _rotated(bits, -by & 31)),
}
