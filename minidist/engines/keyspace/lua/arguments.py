"""What the libraries have in common: what they complain of, and how they read the arguments of a script.

Arguments are Lua values as lupa shows them: bytes, int and float, bool, None, and objects for tables and the rest. As
in Lua, a number does where a string is asked for, and a string that reads as a number where a number is.
"""

import re
from collections.abc import Sequence
from typing import Any, Protocol

Values = tuple[Any, ...]
NUMBER = re.compile(rb"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\Z")
HEXADECIMAL = re.compile(rb"\s*([+-]?)0[xX]([0-9a-fA-F]+)\s*\Z")


class Problem(Exception):
    """What a library function complains about."""


class Several(list[Any]):
    """Several results of one call."""


class Lua(Protocol):
    """The interpreter, as far as libraries need it. What makes something in it raises NoRoom."""

    null: Any

    def type_name(self, value: Any) -> str: ...

    def is_null(self, value: Any) -> bool: ...

    def is_table(self, value: Any) -> bool: ...

    def room(self, needed_bytes: int) -> None: ...

    def sequence(self, values: Sequence[Any]) -> Any: ...

    def mapping(self, pairs: Sequence[tuple[Any, Any]]) -> Any: ...


def bad_argument(at: int, function: str, why: str) -> Problem:
    """`at` counts from 1."""
    return Problem(f"bad argument #{at} to '{function}' ({why})")


def text_of(value: Any) -> bytes | None:
    """A string, or a number as Lua writes it; None for anything else."""
    if isinstance(value, bytes):
        return value
    return b"%.14g" % value if isinstance(value, int | float) and not isinstance(value, bool) else None


def number_of(value: Any) -> float | None:
    """A number, or a string that reads as one; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if not isinstance(value, bytes):
        return None
    if found := NUMBER.match(value):
        return float(found[1])
    found = HEXADECIMAL.match(value)
    return None if found is None else float(int(found[1] + found[2], 16))


def text(lua: Lua, values: Values, at: int, function: str) -> bytes:
    """The argument at a place, counted from 1. Raises Problem."""
    found = text_of(values[at - 1]) if at <= len(values) else None
    if found is None:
        raise bad_argument(at, function, f"string expected, got {_what(lua, values, at)}")
    return found


def number(lua: Lua, values: Values, at: int, function: str) -> float:
    """The argument at a place, counted from 1. Raises Problem."""
    found = number_of(values[at - 1]) if at <= len(values) else None
    if found is None:
        raise bad_argument(at, function, f"number expected, got {_what(lua, values, at)}")
    return found


def whole(lua: Lua, values: Values, at: int, function: str, default: int | None = None) -> int:
    """The argument at a place, cut to an integer. Raises Problem."""
    if default is not None and (at > len(values) or values[at - 1] is None):
        return default
    found = number(lua, values, at, function)
    return int(found) if abs(found) < 1 << 63 else -(1 << 63)  # NaN and what does not fit, as C has it


def _what(lua: Lua, values: Values, at: int) -> str:
    return lua.type_name(values[at - 1]) if at <= len(values) else "no value"
