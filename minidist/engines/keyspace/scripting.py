"""Scripts: what EVAL and SCRIPT keep and run. The interpreter is lua/machine.py, made when the first script comes.

A script runs to its end before anything else does, like a transaction. Its commands run as a session of its own, with
the caller's database: RESP2 until `redis.setresp(3)`, never waiting. What it may reach is in lua/sandbox.py; it is
stopped when it has run for `limit_s` by the shell's stopwatch, or for very many instructions, which bounds it where
time stands still (the simulation). What a stopped script has written stays; the reply says that it was stopped.

The interpreter is made when the first script comes, and made anew after SCRIPT FLUSH or when its memory has run out.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minidist.engines.keyspace.errors import CommandError, printable
from minidist.engines.keyspace.session import Session
from minidist.wire.resp_plain import Command as Arguments

if TYPE_CHECKING:
    from minidist.engines.keyspace.lua.machine import Machine
    from minidist.engines.keyspace.service import Service

NO_SCRIPT = "NOSCRIPT No matching script. Please use EVAL."
FLAGS = ("no-writes", "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys")


class Script:
    """A script that was compiled. Its flags come from a first line like `#!lua flags=no-writes`."""

    __slots__ = ("allow_oom", "function", "name", "no_writes", "source")

    def __init__(self, name: str, source: bytes) -> None:
        self.name = name
        self.source = source
        self.function: Any = None  # in the present interpreter
        flags = _shebang_flags(source)
        self.no_writes = "no-writes" in flags
        self.allow_oom = "allow-oom" in flags

    @property
    def lua(self) -> bytes:
        """The Lua text: the first line is blank if it said flags, so that line numbers are right."""
        return b"\n" + self.source.partition(b"\n")[2] if self.source.startswith(b"#!") else self.source


def _shebang_flags(source: bytes) -> list[str]:
    if not source.startswith(b"#!"):
        return []
    words = printable(source.partition(b"\n")[0][2:]).split()
    if not words or words[0] != "lua":
        raise CommandError(f"ERR Unexpected engine in script shebang: #!{words[0] if words else ''}")
    flags: list[str] = []
    for word in words[1:]:
        name, _, value = word.partition("=")
        if name != "flags":
            raise CommandError(f"ERR Unknown lua shebang option: {word}")
        flags += [flag for flag in value.split(",") if flag]
    for flag in flags:
        if flag not in FLAGS:
            raise CommandError(f"ERR Unexpected flag in script shebang: {flag}")
    return flags


class Scripts:
    """The scripts of a node, by their SHA-1, and the interpreter."""

    def __init__(self, service: "Service") -> None:
        self.service = service
        self.scripts: dict[str, Script] = {}
        self.limit_s = 5.0
        self.memory_bytes = 64 * 1024**2
        self.stopwatch_s: Callable[[], float] = lambda: 0.0
        self.log: Callable[[int, str], object] = lambda level, text: None
        self._machine: Machine | None = None

    def load(self, source: bytes) -> Script:
        """Compile a script, or find it. Raises CommandError."""
        from hashlib import sha1  # not for a node's start

        name = sha1(source).hexdigest()
        script = self.scripts.get(name)
        if script is None:
            script = Script(name, source)
            self.machine.compile(script)
            self.scripts[name] = script
        return script

    def find(self, name: bytes) -> Script:
        script = self.scripts.get(printable(name).lower())
        if script is None:
            raise CommandError(NO_SCRIPT)
        return script

    def flush(self) -> None:
        self.scripts.clear()
        self._machine = None

    @property
    def machine(self) -> "Machine":
        if self._machine is None:
            from minidist.engines.keyspace.lua.machine import Machine  # with its libraries: not for a node's start

            self._machine = Machine(self)
        return self._machine

    def run(
        self, caller: Session, script: Script, keys: Arguments, argv: Arguments, now_ms: int, *, read_only: bool
    ) -> bytes:
        """The reply of a script. Raises CommandError."""
        machine = self.machine
        if script.function is None or machine.spoilt:
            machine = self._remade() if machine.spoilt else machine
            machine.compile(script)
        return machine.run(caller, script, keys, argv, now_ms, read_only=read_only or script.no_writes)

    def _remade(self) -> "Machine":
        self._machine = None
        for script in self.scripts.values():
            script.function = None
        return self.machine
