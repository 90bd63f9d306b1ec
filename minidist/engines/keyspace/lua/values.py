"""Values between RESP and Lua, as Redis maps them.

RESP → Lua: an integer is a number, a bulk string a string, null is false, a status `{ok = …}`, an error `{err = …}`, an
array a table; under `redis.setresp(3)` also `{double = …}`, `{map = {…}}`, `{set = {…}}`, nil and booleans.
Lua → RESP: the same backwards; a number loses its fraction, true is 1, false and nil are null, a table without one of
these fields is an array up to its first nil.

Source: https://redis.io/docs/latest/develop/interact/programmability/lua-api/#data-type-conversion
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from minidist.engines.keyspace.arguments import LARGEST, SMALLEST
from minidist.wire.resp_replies import (
    LARGEST_WHOLE,
    ONE,
    array,
    big_number,
    boolean,
    bulk,
    double,
    double_text,
    error,
    integer,
    map_header,
    null,
    set_header,
    verbatim,
)

DEEPEST = 200
NO_ROOM = b"not enough memory"


class TooDeep(Exception):
    """A table is nested deeper than a reply may be, or contains itself."""


class NoRoom(Exception):
    """A value does not fit into the memory of the interpreter."""


class Tables(Protocol):
    """How tables are made. All of it raises NoRoom."""

    def room(self, needed_bytes: int) -> None: ...

    def sequence(self, values: Sequence[Any]) -> Any: ...

    def mapping(self, pairs: Sequence[tuple[Any, Any]]) -> Any: ...


class Reading:
    """Builds Lua values from encoded replies; raises NoRoom."""

    def __init__(self, lua: Tables) -> None:
        self._lua = lua

    def value(self, reply: bytes, resp3: bool) -> Any:
        """The Lua value of one whole reply."""
        if reply.startswith(b"$"):
            self._lua.room(len(reply))
        return self._read(reply, 0, resp3)[0]

    def _read(self, data: bytes, at: int, resp3: bool) -> tuple[Any, int]:
        end = data.index(b"\r\n", at)
        kind, line = data[at : at + 1], data[at + 1 : end]
        at = end + 2
        if kind == b":":
            return int(line), at
        if kind in b"$=":
            length = int(line)
            if length < 0:
                return False, at
            text = data[at : at + length]
            return (text[4:] if kind == b"=" else text), at + length + 2
        if kind == b"+":
            return self._table(b"ok", line), at
        if kind == b"-":
            return self._table(b"err", line), at
        if kind == b"_":
            return (None if resp3 else False), at
        if kind == b"#":
            return line == b"t", at
        if kind == b",":
            return self._table(b"double", float(line)), at
        return self._many(kind, int(line), data, at, resp3)

    def _many(self, kind: bytes, count: int, data: bytes, at: int, resp3: bool) -> tuple[Any, int]:
        if count < 0:
            return False, at
        parts = []
        for _ in range(2 * count if kind == b"%" else count):
            part, at = self._read(data, at, resp3)
            parts.append(part)
        if kind == b"%":
            pairs = self._lua.mapping(list(zip(parts[::2], parts[1::2], strict=True)))
            return self._table(b"map", pairs), at
        if kind == b"~":
            return self._table(b"set", self._lua.mapping([(part, True) for part in parts])), at
        return self._lua.sequence(parts), at

    def _table(self, field: bytes, value: Any) -> Any:
        return self._lua.mapping(((field, value),))


def reply_of(value: Any, resp3: bool, booleans: bool, is_table: Any, depth: int = 0) -> bytes:
    """The encoded reply of a Lua value to a caller that speaks RESP3 or not; `is_table(value)` tells tables.

    `booleans` says whether the script speaks RESP3; else true is 1 and false is null. Raises TooDeep.
    """
    if isinstance(value, bool) and booleans:
        return boolean(value, resp3)
    if value is None or value is False:
        return null(resp3)
    if value is True:
        return ONE
    if isinstance(value, bytes):
        return bulk(value)
    if isinstance(value, int | float):
        return integer(whole(value))
    if not is_table(value):
        return null(resp3)
    if depth > DEEPEST:
        raise TooDeep
    special = _special(value, resp3, booleans, is_table, depth)
    if special is not None:
        return special
    parts = []
    number = 1
    while (part := value[number]) is not None:
        parts.append(reply_of(part, resp3, booleans, is_table, depth + 1))
        number += 1
    return array(parts)


def _special(table: Any, resp3: bool, booleans: bool, is_table: Any, depth: int) -> bytes | None:
    """The reply of a table with one of the fields that mean something."""
    if isinstance(problem := table[b"err"], bytes):
        return error(problem.decode("utf-8", "surrogateescape"))
    if isinstance(status := table[b"ok"], bytes):
        return b"+%b\r\n" % status.replace(b"\r", b" ").replace(b"\n", b" ")
    if isinstance(number := table[b"double"], int | float):
        return double(float(number), resp3)
    if isinstance(big := table[b"big_number"], bytes):
        return big_number(big.replace(b"\r", b" ").replace(b"\n", b" "), resp3)
    if is_table(pairs := table[b"map"]):
        parts = [reply_of(each, resp3, booleans, is_table, depth + 1) for pair in pairs.items() for each in pair]
        return map_header(len(parts) // 2, resp3) + b"".join(parts)
    if is_table(members := table[b"set"]):
        parts = [reply_of(each, resp3, booleans, is_table, depth + 1) for each in members]
        return set_header(len(parts), resp3) + b"".join(parts)
    if is_table(text := table[b"verbatim_string"]) and isinstance(text[b"string"], bytes):
        form = text[b"format"]
        return verbatim(text[b"string"], resp3, form if isinstance(form, bytes) else b"txt")
    return None


def whole(value: float) -> int:
    """A Lua number as an integer, as C would cut it: the smallest one where it does not fit."""
    if isinstance(value, float) and not math.isfinite(value):
        return SMALLEST
    return int(value) if SMALLEST <= value <= LARGEST else SMALLEST


def argument(value: Any) -> bytes | None:
    """An argument of redis.call: a string or a number; None for anything else."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return b"%d" % value if abs(value) <= LARGEST_WHOLE else double_text(float(value))
    if isinstance(value, float):
        return double_text(value)
    return None
