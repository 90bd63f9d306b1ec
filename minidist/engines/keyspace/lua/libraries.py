"""The libraries of scripts besides Lua's own: cjson, cmsgpack, bit and struct, each in a module.

Each function takes the interpreter and the arguments, and returns what Lua gets, or raises. The interpreter calls them
through `_answering`, which raises nothing: it answers `(True, result)` or `(False, message)`, and `(True, table, MANY,
count)` for several results.
"""

import struct
from collections.abc import Callable
from typing import Any

from minidist.engines.keyspace.lua import bits, cmsgpack, structs
from minidist.engines.keyspace.lua.arguments import Lua, Problem, Several, Values
from minidist.engines.keyspace.lua.cjson import Cjson
from minidist.engines.keyspace.lua.values import NO_ROOM, NoRoom

MANY = b"many"
LARGEST_SETTING = (1 << 31) - 1
MOST_DIGITS = 14

Answer = tuple[Any, ...]
Function = Callable[[Lua, Values], Any]


def library(lua: Lua) -> dict[str, Callable[..., Answer]]:
    """The functions by name, `cjson_encode` and so on."""
    functions: dict[str, Function] = {
        **_cjson(Cjson(lua)),
        "cmsgpack_pack": cmsgpack.pack,
        "cmsgpack_unpack": cmsgpack.unpack,
        "cmsgpack_unpack_one": cmsgpack.unpack_one,
        "cmsgpack_unpack_limit": cmsgpack.unpack_limit,
        "struct_pack": structs.pack,
        "struct_unpack": structs.unpack,
        "struct_size": structs.size_of,
        **bits.FUNCTIONS,
    }
    return {name: _answering(lua, function) for name, function in functions.items()}


def _cjson(cjson: Cjson) -> dict[str, Function]:
    def number(name: str, most: int = LARGEST_SETTING) -> Function:
        return lambda lua, values: cjson.set_number(name, values, most)

    def switch(name: str, *words: bytes) -> Function:
        return lambda lua, values: cjson.set_switch(name, values, words)

    return {
        "cjson_encode": lambda lua, values: cjson.encode(values),
        "cjson_decode": lambda lua, values: cjson.decode(values),
        "cjson_encode_sparse_array": lambda lua, values: Several(cjson.set_sparse(values)),
        "cjson_encode_max_depth": number("encode_max_depth"),
        "cjson_decode_max_depth": number("decode_max_depth"),
        "cjson_encode_number_precision": number("encode_number_precision", MOST_DIGITS),
        "cjson_encode_keep_buffer": switch("encode_keep_buffer"),
        "cjson_encode_invalid_numbers": switch("encode_invalid_numbers", b"null"),
        "cjson_decode_invalid_numbers": switch("decode_invalid_numbers"),
    }


def _answering(lua: Lua, function: Function) -> Callable[..., Answer]:
    def call(*values: Any) -> Answer:
        try:
            result = function(lua, values)
            if isinstance(result, Several):
                return True, lua.sequence(result), MANY, len(result)
            if isinstance(result, bytes):
                lua.room(len(result))
            return True, result
        except NoRoom:
            return False, NO_ROOM
        except Problem as problem:
            return False, str(problem).encode("utf-8", "surrogateescape")
        except (TypeError, ValueError, OverflowError, RecursionError, struct.error) as problem:
            return False, f"bad argument ({problem})".encode()

    return call
