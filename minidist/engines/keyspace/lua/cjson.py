"""cjson, as scripts of Redis know it: version 2.1.0 with its settings, which last as long as the interpreter.

Decoding is Python's own JSON parser where that agrees with cjson; a parser like cjson's takes what it refuses: numbers
of C, deep nesting, and errors, which name what was found where. Neither that parser nor the encoder recurses.

Source: https://www.kyne.com.au/~mark/software/lua-cjson-manual.html, deps/lua/src/lua_cjson.c of redis 7.2
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from minidist.engines.keyspace.lua.arguments import Lua, Problem, Values, bad_argument, number_of, text
from minidist.engines.keyspace.lua.sandbox import LONGEST_STRING_BYTES
from minidist.engines.keyspace.lua.values import NoRoom

SHORT = dict(zip(b'"\\/' + bytes((8, 12, 10, 13, 9)), b'"\\/bfnrt', strict=True))
ESCAPED = re.compile(rb'["\\/\x00-\x1f\x7f]')
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
SURROGATE_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
C_NUMBER = re.compile(
    rb"[+-]?(?:0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?\d+)?"
    rb"|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|(?i:inf(?:inity)?|nan))"
)
NO_JSON_NUMBER = re.compile(rb"\+|-?(?:0[0-9xX]|(?i:inf|nan))")
PLAIN_TEXT = re.compile(rb'[^"\\\x00]*')
CODES = {b'"': b'"', b"\\": b"\\", b"/": b"/", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"f": b"\f", b"r": b"\r"}

Token = tuple[str, Any, int]
"""Its kind, its value, and where it stands. Kinds are those that errors name; OF_VALUES have values."""

BRACKETS = {
    ord("{"): "T_OBJ_BEGIN", ord("}"): "T_OBJ_END", ord("["): "T_ARR_BEGIN", ord("]"): "T_ARR_END",
    ord(","): "T_COMMA", ord(":"): "T_COLON", 0: "T_END",
}  # fmt: skip
VALUE, STRING, ERROR = "value", "string", "error"


class Cjson:
    """The library with its settings. `null` is what stands for null in Lua."""

    def __init__(self, lua: Lua) -> None:
        self._lua = lua
        self.settings: dict[str, Any] = {
            "encode_max_depth": 1000,
            "decode_max_depth": 1000,
            "encode_number_precision": 14,
            "encode_invalid_numbers": False,
            "decode_invalid_numbers": True,
            "encode_keep_buffer": True,
            "sparse_convert": False,
            "sparse_ratio": 2,
            "sparse_safe": 10,
        }

    # --- settings ---------------------------------------------------------------------------------------------------

    def set_number(self, name: str, values: Values, most: int) -> Any:
        """A setting that is a number from 1; with no argument, only its value. Raises Problem."""
        return self._number(name, values, 1, 1, most)

    def _number(self, name: str, values: Values, at: int, least: int, most: int) -> Any:
        if len(values) >= at and values[at - 1] is not None:
            given = number_of(values[at - 1])
            if given is None or not least <= given <= most:
                raise bad_argument(1, name, f"expected integer between {least} and {most}")
            self.settings[name] = int(given)
        return self.settings[name]

    def set_switch(self, name: str, values: Values, words: tuple[bytes, ...] = ()) -> Any:
        """A setting that is on, off, or one of some words. Raises Problem."""
        if values and values[0] is not None:
            chosen: dict[Any, Any] = {b"on": True, b"off": False, True: True, False: False}
            chosen |= {word: word for word in words}
            if values[0] not in chosen:
                raise bad_argument(1, name, f"invalid option '{values[0]!r}'")
            self.settings[name] = chosen[values[0]]
        return self.settings[name]

    def set_sparse(self, values: Values) -> list[Any]:
        return [
            self.set_switch("sparse_convert", values[:1]),
            self._number("sparse_ratio", values, 2, 0, (1 << 31) - 1),
            self._number("sparse_safe", values, 3, 0, (1 << 31) - 1),
        ]

    # --- encoding ---------------------------------------------------------------------------------------------------

    def encode(self, values: Values) -> bytes:
        if len(values) != 1:
            raise bad_argument(1, "encode", "expected 1 argument")
        parts: list[bytes] = []
        size, most_deep = 0, self.settings["encode_max_depth"]
        frames: list[tuple[Iterator[tuple[bytes, Any]], bytes]] = [(iter([(b"", values[0])]), b"")]
        while frames:
            for before, value in frames[-1][0]:
                parts.append(before)
                if self._lua.is_table(value):
                    if len(frames) > most_deep:
                        raise Problem(f"Cannot serialise, excessive nesting ({len(frames)})")
                    opening, items, closing = self._opened(value)
                    parts.append(opening)
                    frames.append((items, closing))
                    break
                parts.append(self._scalar(value))
                size += len(before) + len(parts[-1])
                if size > LONGEST_STRING_BYTES:
                    raise NoRoom
            else:
                parts.append(frames.pop()[1])
        return b"".join(parts)

    def _opened(self, table: Any) -> tuple[bytes, Iterator[tuple[bytes, Any]], bytes]:
        """How a table begins, what stands in it, each with the text before it, and how it ends."""
        length = self._array_length(table)
        if length:
            return b"[", ((b"," if at > 1 else b"", table[at]) for at in range(1, length + 1)), b"]"
        return b"{", self._pairs(table), b"}"

    def _pairs(self, table: Any) -> Iterator[tuple[bytes, Any]]:
        comma = b""
        for key, value in table.items():
            if isinstance(key, bytes):
                name = quoted(key)
            elif isinstance(key, bool) or not isinstance(key, int | float):
                raise Problem(f"Cannot serialise {self._lua.type_name(key)}: table key must be a number or string")
            else:
                name = b'"' + self._number_text(key) + b'"'
            yield comma + name + b":", value
            comma = b","

    def _array_length(self, table: Any) -> int:
        """How long a table is as an array, holes included; 0 for an object, and for an empty table. Raises Problem."""
        count = longest = 0
        for key in table:
            if isinstance(key, bool) or not isinstance(key, int | float) or key < 1 or key != int(key):
                return 0
            count += 1
            longest = max(longest, int(key))
        ratio = self.settings["sparse_ratio"]
        if ratio and longest > count * ratio and longest > self.settings["sparse_safe"]:
            if not self.settings["sparse_convert"]:
                raise Problem("Cannot serialise table: excessively sparse array")
            return 0
        return longest

    def _scalar(self, value: Any) -> bytes:
        if isinstance(value, bytes):
            return quoted(value)
        if value is None:
            return b"null"
        if isinstance(value, bool):
            return b"true" if value else b"false"
        if isinstance(value, int | float):
            return self._number_text(value)
        if self._lua.is_null(value):
            return b"null"
        raise Problem(f"Cannot serialise {self._lua.type_name(value)}: type not supported")

    def _number_text(self, value: float) -> bytes:
        if value - value != 0:  # infinite, or no number
            allowed = self.settings["encode_invalid_numbers"]
            if not allowed:
                raise Problem("Cannot serialise number: must not be NaN or Inf")
            if allowed == b"null":
                return b"null"
        return b"%.*g" % (self.settings["encode_number_precision"], value)

    # --- decoding ---------------------------------------------------------------------------------------------------

    def decode(self, values: Values) -> Any:
        if len(values) != 1:
            raise bad_argument(1, "decode", "expected 1 argument")
        data = text(self._lua, values, 1, "decode")
        usual = self.settings["decode_max_depth"] == 1000 and self.settings["decode_invalid_numbers"]
        if usual and not (SURROGATE.search(data) and SURROGATE.search(SURROGATE_PAIR.sub(b"", data))):
            try:
                return self._made(json.loads(data.decode("utf-8", "surrogateescape"), strict=False, parse_int=float))
            except (ValueError, OverflowError, RecursionError):
                pass
        return Parser(self._lua, data, self.settings).parse()

    def _made(self, value: Any) -> Any:
        """The Lua value of what Python's parser has found."""
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
        if value is None:
            return self._lua.null
        if isinstance(value, list):
            return self._lua.sequence([self._made(each) for each in value])
        if isinstance(value, dict):
            pairs = [(name.encode("utf-8", "surrogateescape"), self._made(each)) for name, each in value.items()]
            return self._lua.mapping(pairs)
        return value


class Parser:
    """One text, parsed as cjson does."""

    def __init__(self, lua: Lua, data: bytes, settings: dict[str, Any]) -> None:
        if len(data) >= 2 and 0 in data[:2]:
            raise Problem("JSON parser does not support UTF-16 or UTF-32")
        self._lua = lua
        self._data = data + b"\0"  # as in C, NUL is the end
        self._at = 0
        self._most_deep = settings["decode_max_depth"]
        self._any_number = settings["decode_invalid_numbers"]

    def parse(self) -> Any:
        """The Lua value of the text. Raises Problem."""
        stack: list[tuple[list[Any], list[bytes] | None]] = []  # items so far, and an object's keys
        token = self._next()
        while True:
            kind, value, _ = token
            if kind in ("T_OBJ_BEGIN", "T_ARR_BEGIN"):
                if len(stack) == self._most_deep:
                    raise Problem(f"Found too many nested data structures ({len(stack) + 1}) at character {self._at}")
                token = self._next()
                stack.append(([], [] if kind == "T_OBJ_BEGIN" else None))
                if token[0] != ("T_OBJ_END" if kind == "T_OBJ_BEGIN" else "T_ARR_END"):
                    token = self._key(stack[-1][1], token)
                    continue
                value = self._closed(*stack.pop())
            elif kind not in (VALUE, STRING):
                raise self._expected("value", token)
            token, value = self._ascend(stack, value)
            if not stack:
                if token[0] != "T_END":
                    raise self._expected("the end", token)
                return value

    def _ascend(self, stack: list[tuple[list[Any], list[bytes] | None]], value: Any) -> tuple[Token, Any]:
        """A value is complete: close what ends with it. The next token, and what is complete now."""
        while stack:
            items, keys = stack[-1]
            items.append(value)
            token = self._next()
            if token[0] == "T_COMMA":
                return self._key(keys, self._next()), None
            if token[0] != ("T_ARR_END" if keys is None else "T_OBJ_END"):
                raise self._expected("comma or array end" if keys is None else "comma or object end", token)
            value = self._closed(*stack.pop())
        return self._next(), value

    def _closed(self, items: list[Any], keys: list[bytes] | None) -> Any:
        if keys is None:
            return self._lua.sequence(items)
        return self._lua.mapping(list(zip(keys, items, strict=True)))

    def _key(self, keys: list[bytes] | None, token: Token) -> Token:
        """Read a key and its colon, in an object; the token of the value that follows."""
        if keys is None:
            return token
        if token[0] != STRING:
            raise self._expected("object key string", token)
        keys.append(token[1])
        token = self._next()
        if token[0] != "T_COLON":
            raise self._expected("colon", token)
        return self._next()

    @staticmethod
    def _expected(what: str, token: Token) -> Problem:
        kind, value, at = token
        found = value if kind == ERROR else {STRING: "T_STRING", VALUE: _kind_of(value)}.get(kind, kind)
        return Problem(f"Expected {what} but found {found} at character {at + 1}")

    def _next(self) -> Token:
        data = self._data
        while data[self._at] in b" \t\n\r":
            self._at += 1
        at, first = self._at, data[self._at]
        if first in BRACKETS:
            self._at += first != 0
            return BRACKETS[first], None, at
        if first == ord('"'):
            return self._string(at)
        for word, value in ((b"true", True), (b"false", False), (b"null", self._lua.null)):
            if data.startswith(word, at):
                self._at += len(word)
                return VALUE, value, at
        is_strange = NO_JSON_NUMBER.match(data, at) is not None
        if not (first in b"-0123456789" or (self._any_number and is_strange)):
            return ERROR, "invalid token", at
        found = C_NUMBER.match(data, at)
        if found is None or (is_strange and not self._any_number):
            return ERROR, "invalid number", at
        self._at = found.end()
        return VALUE, c_number(found[0]), at

    def _string(self, start: int) -> Token:
        data, pieces = self._data, []
        self._at += 1
        while True:
            found = PLAIN_TEXT.match(data, self._at)
            assert found is not None
            pieces.append(found[0])
            self._at = found.end()
            if data[self._at] == ord('"'):
                self._at += 1
                return STRING, b"".join(pieces), start
            if data[self._at] == 0:
                return ERROR, "unexpected end of string", self._at
            code = data[self._at + 1 : self._at + 2]
            if code == b"u":
                character = self._unicode()
                if character is None:
                    return ERROR, "invalid unicode escape code", self._at
                pieces.append(character)
            elif code in CODES:
                pieces.append(CODES[code])
                self._at += 2
            else:
                return ERROR, "invalid escape code", self._at

    def _unicode(self) -> bytes | None:
        r"""The character of \uXXXX, or of two of them; None for a bad one."""
        code = self._hexadecimal(self._at)
        if code is None or 0xDC00 <= code < 0xE000:
            return None
        size = 6
        if 0xD800 <= code < 0xDC00:
            low = self._hexadecimal(self._at + 6)
            if low is None or not 0xDC00 <= low < 0xE000:
                return None
            code, size = 0x10000 + ((code & 0x3FF) << 10 | low & 0x3FF), 12
        self._at += size
        return chr(code).encode()

    def _hexadecimal(self, at: int) -> int | None:
        found = re.compile(rb"\\u([0-9a-fA-F]{4})").match(self._data, at)
        return None if found is None else int(found[1], 16)


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "T_BOOLEAN"
    return "T_NUMBER" if isinstance(value, int | float) else "T_NULL"


def c_number(digits: bytes) -> float:
    """What strtod makes of a number that C_NUMBER has found."""
    if b"x" in digits.lower():
        try:
            return float.fromhex(digits.decode())
        except OverflowError:
            return float("-inf" if digits.startswith(b"-") else "inf")
    return float(digits)


def quoted(data: bytes) -> bytes:
    return b'"' + ESCAPED.sub(_escape, data) + b'"'


def _escape(found: re.Match[bytes]) -> bytes:
    code = found[0][0]
    return b"\\%c" % SHORT[code] if code in SHORT else b"\\u%04x" % code
