"""Functions: libraries of Lua that FUNCTION LOAD brings and FCALL calls, as Redis 7 has them.

A library is a text whose first line names it, `#!lua name=mylib`. It runs once, when it is loaded, and does nothing but
register its functions; all it sees then is `redis.register_function`, `redis.log` and the version. The functions run
later as scripts do (scripting.py), with the keys and the arguments as their two arguments, in an interpreter that
scripts do not share: neither sees the other, nor one library another one. When that interpreter's memory has run out,
the next call makes a new one and loads the libraries again; what functions have kept in local variables is lost then.

Libraries are replaced as a whole: a text that cannot be loaded, or whose functions have the names of another library's,
changes nothing. All texts together take `memory_bytes` at most.

Source: https://redis.io/docs/latest/develop/interact/programmability/functions-intro/, redis 7.2 functions.c
"""

import re
from typing import TYPE_CHECKING, Any

from minidist.engines.keyspace.errors import CommandError, printable
from minidist.engines.keyspace.rdb_strings import Malformed, Reader, string_bytes
from minidist.engines.keyspace.scripting import FLAGS, Scripts
from minidist.engines.keyspace.serialisation import FOOTER_BYTES, is_whole, with_footer
from minidist.engines.keyspace.session import Session
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_plain import ProtocolError, split_inline

if TYPE_CHECKING:
    from minidist.engines.keyspace.lua.machine import Machine

ENGINE = "LUA"
NAME = re.compile(r"[A-Za-z0-9_]+")
BAD_NAME = "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long"
# The operation codes of an RDB file that say: a library follows.
LIBRARY, LIBRARY_OF_A_PREVIEW = 0xF5, 0xF6
# What a library and a function take besides their texts: names, rows here.
LIBRARY_BYTES, FUNCTION_BYTES = 400, 200


class Problem(Exception):
    """What redis.register_function complains of."""


class Function:
    """A function that a library has registered."""

    __slots__ = ("description", "flags", "function", "name")

    takes_arguments = True
    is_one_line = False  # as a whole; see sandbox.py for functions in one line

    def __init__(self, name: str, function: Any, description: bytes | None, flags: frozenset[str]) -> None:
        self.name = name
        self.function = function  # in the present interpreter
        self.description = description
        self.flags = flags


class Library:
    """A text and the functions that it has registered."""

    __slots__ = ("functions", "name", "source")

    def __init__(self, name: str, source: bytes, functions: dict[str, Function]) -> None:
        self.name = name
        self.source = source
        self.functions = functions

    @property
    def memory_bytes(self) -> int:
        return len(self.source) + LIBRARY_BYTES + FUNCTION_BYTES * len(self.functions)


class Functions:
    """All libraries of a node, and their interpreter. `scripts` has the limits."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self.libraries: dict[str, Library] = {}
        self.functions: dict[str, Function] = {}
        self._machine: Machine | None = None

    # --- calling ----------------------------------------------------------------------------------------------------

    def find(self, name: bytes) -> Function:
        function = self.functions.get(printable(name))
        if function is None:
            raise CommandError("ERR Function not found")
        return function

    def run(
        self, caller: Session, function: Function, keys: Arguments, argv: Arguments, now_ms: int, *, read_only: bool
    ) -> bytes:
        """The reply of a function. Raises CommandError."""
        return self._machine_now().run(caller, function, keys, argv, now_ms, read_only=read_only)

    def _machine_now(self) -> "Machine":
        """The interpreter; another one, with the same functions, if its memory has run out. Raises CommandError."""
        if self._machine is None or self._machine.spoilt:
            from minidist.engines.keyspace.lua.machine import Machine

            machine = Machine(self._scripts, of_functions=True)
            for library in self.libraries.values():
                for again in read_library(library.source, machine).functions.values():
                    self.functions[again.name].function = again.function
            self._machine = machine
        return self._machine

    # --- changing libraries -----------------------------------------------------------------------------------------

    def load(self, source: bytes, *, replace: bool) -> str:
        """Add a library; its name. Raises CommandError."""
        library = self._checked(source, {} if replace else self.libraries)
        self._join([library])
        return library.name

    def delete(self, name: bytes) -> None:
        library = self.libraries.pop(printable(name), None)
        if library is None:
            raise CommandError("ERR Library not found")
        for each in library.functions:
            del self.functions[each]

    def flush(self) -> None:
        self.libraries.clear()
        self.functions.clear()
        self._machine = None

    def _join(self, libraries: list[Library], *, others_stay: bool = True) -> None:
        """Add libraries, in place of those with their names, or none of them. Raises CommandError."""
        names = {library.name for library in libraries}
        before = self.libraries if others_stay else {}
        kept = {name: library for name, library in before.items() if name not in names}
        taken = {name for library in kept.values() for name in library.functions}
        for library in libraries:
            for name in library.functions:
                if name in taken:
                    raise CommandError(f"ERR Function {name} already exists")
                taken.add(name)
            kept[library.name] = library
        if sum(library.memory_bytes for library in kept.values()) > self._scripts.memory_bytes:
            raise CommandError("OOM the libraries take more than --script-memory")
        self.libraries = kept
        self.functions = {name: each for library in kept.values() for name, each in library.functions.items()}

    def _checked(self, source: bytes, taken: dict[str, Library]) -> Library:
        """A library that was read, if its name is not taken. Raises CommandError."""
        name = library_name(source)
        if name in taken:
            raise CommandError(f"ERR Library '{name}' already exists")
        return read_library(source, self._machine_now())

    # --- DUMP and RESTORE -------------------------------------------------------------------------------------------

    def dump(self) -> bytes:
        """All libraries as Redis writes them into RDB files, with the footer of DUMP."""
        return with_footer(
            b"".join([bytes((LIBRARY,)) + string_bytes(each.source) for each in self.libraries.values()])
        )

    def restore(self, payload: bytes, policy: bytes) -> None:
        """Add the libraries of a payload. Raises CommandError, and changes nothing then.

        APPEND refuses libraries that are there, REPLACE puts those of the payload in their place, FLUSH drops all
        others.
        """
        if not is_whole(payload):
            raise CommandError("ERR DUMP payload version or checksum are wrong")
        read: dict[str, Library] = {}
        for source in dumped_sources(payload):
            library = self._checked(source, read)
            read[library.name] = library
        for name in read if policy == b"APPEND" else ():
            if name in self.libraries:
                raise CommandError(f"ERR Library {name} already exists")
        self._join(list(read.values()), others_stay=policy != b"FLUSH")

    def figures(self) -> dict[str, int]:
        """For INFO, under Redis' names."""
        return {
            "number_of_functions": len(self.functions),
            "number_of_libraries": len(self.libraries),
            "used_memory_vm_functions": 0 if self._machine is None else self._machine.used_bytes,
            "used_memory_functions": sum(library.memory_bytes for library in self.libraries.values()),
        }


def library_name(source: bytes) -> str:
    """From the first line. Raises CommandError."""
    if not source.startswith(b"#!"):
        raise CommandError("ERR Missing library metadata")
    line, newline, _ = source.partition(b"\n")
    if not newline:
        raise CommandError("ERR Invalid library metadata")
    try:
        engine, *words = map(printable, split_inline(line))
    except ProtocolError:
        raise CommandError("ERR Invalid library metadata") from None
    name = None
    for word in words:
        if word[:5].lower() != "name=":
            raise CommandError(f"ERR Invalid metadata value given: {word}")
        if name is not None:
            raise CommandError("ERR Invalid metadata value, name argument was given multiple times")
        name = word[5:]
    if name is None:
        raise CommandError("ERR Library name was not given")
    if NAME.fullmatch(name) is None:
        raise CommandError(f"ERR {BAD_NAME}")
    if engine[2:].upper() != ENGINE:
        raise CommandError(f"ERR Engine '{engine[2:]}' not found")
    return name


def read_library(source: bytes, machine: "Machine") -> Library:
    """Run the text of a library. Raises CommandError."""
    registry = Registry(machine)
    name = library_name(source)
    machine.load(b"\n" + source.partition(b"\n")[2], registry.register)
    if not registry.functions:
        raise CommandError("ERR No functions registered")
    return Library(name, source, registry.functions)


def dumped_sources(payload: bytes) -> list[bytes]:
    """The texts in a payload that is whole. Raises CommandError."""
    reader = Reader(payload[:-FOOTER_BYTES])
    sources = []
    while reader.at < reader.end:
        kind = reader.byte()
        if kind == LIBRARY_OF_A_PREVIEW:
            raise CommandError("ERR Pre-GA function format not supported")
        if kind != LIBRARY:
            raise CommandError("ERR given type is not a function")
        try:
            sources.append(reader.string())
        except Malformed:
            raise CommandError("ERR Failed loading library payload") from None
    return sources


class Registry:
    """What redis.register_function collects while the text of a library runs."""

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine
        self.functions: dict[str, Function] = {}

    def register(self, *values: Any) -> tuple[bool, Any]:
        """Takes the arguments of redis.register_function; answers (False, complaint), and raises nothing."""
        try:
            self._add(self._named(values[0]) if len(values) == 1 else self._positional(values))
        except Problem as problem:
            return False, str(problem).encode()
        return True, None

    def _add(self, function: Function) -> None:
        if NAME.fullmatch(function.name) is None:
            raise Problem(BAD_NAME)
        if function.name in self.functions:
            raise Problem("Function already exists in the library")
        self.functions[function.name] = function

    def _positional(self, values: tuple[Any, ...]) -> Function:
        if len(values) != 2:
            raise Problem("wrong number of arguments to redis.register_function")
        name = text_of(values[0])
        if name is None:
            raise Problem("first argument to redis.register_function must be a string")
        if not self._machine.is_function(values[1]):
            raise Problem("second argument to redis.register_function must be a function")
        return Function(printable(name), values[1], None, frozenset())

    def _named(self, table: Any) -> Function:
        if not self._machine.is_table(table):
            raise Problem(
                "calling redis.register_function with a single argument is only applicable to Lua table "
                "(representing named arguments)."
            )
        given: dict[str, Any] = {}
        for key, value in table.items():
            name = text_of(key)
            if name is None:
                raise Problem("named argument key given to redis.register_function is not a string")
            given[printable(name).lower()] = self._argument(printable(name).lower(), value)
        if "function_name" not in given:
            raise Problem("redis.register_function must get a function name argument")
        if "callback" not in given:
            raise Problem("redis.register_function must get a callback argument")
        return Function(
            printable(given["function_name"]), given["callback"], given.get("description"),
            given.get("flags", frozenset()),
        )  # fmt: skip

    def _argument(self, name: str, value: Any) -> Any:
        """One named argument as it is kept."""
        if name in ("function_name", "description"):
            text = text_of(value)
            if text is None:
                raise Problem(f"{name} argument given to redis.register_function must be a string")
            return text
        if name == "callback":
            if not self._machine.is_function(value):
                raise Problem("callback argument given to redis.register_function must be a function")
            return value
        if name != "flags":
            raise Problem("unknown argument given to redis.register_function")
        if not self._machine.is_table(value):
            raise Problem("flags argument to redis.register_function must be a table representing function flags")
        flags: list[str] = []
        while (flag := value[len(flags) + 1]) is not None:
            text = text_of(flag)
            if text is None or printable(text).lower() not in FLAGS:
                raise Problem("unknown flag given")
            flags.append(printable(text).lower())
        return frozenset(flags)


def text_of(value: Any) -> bytes | None:
    """A Lua string, or a number as one; None for anything else."""
    if isinstance(value, bytes):
        return value
    return b"%.14g" % value if isinstance(value, int | float) and not isinstance(value, bool) else None
