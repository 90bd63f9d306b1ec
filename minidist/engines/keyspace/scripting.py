"""Scripts: what EVAL and SCRIPT keep and run. The interpreter is lua/machine.py, made when the first script comes.

A script runs to its end before anything else does, like a transaction. Its commands run as a session of its own, with
the caller's database: RESP2 until `redis.setresp(3)`, never waiting. What it may reach is in lua/sandbox.py; it is
stopped when it has run for `limit_s` by the shell's stopwatch, or for very many instructions, which bounds it where
time stands still (the simulation). What a stopped script has written stays; the reply says that it was stopped. So
nobody is ever answered BUSY, and SCRIPT KILL and FUNCTION KILL never find anything to kill.

Whoever makes up a new source for each EVAL would fill the memory: of the scripts that came by EVAL those used least
recently go, from MOST_EVALED on, and all sources together take `memory_bytes` at most. What SCRIPT LOAD brought stays
until SCRIPT FLUSH, as its client may know no more than the name. The interpreter is made anew after SCRIPT FLUSH, and
when its memory has run out: scripts are compiled again when they are used.
"""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from minidist.engines.keyspace.errors import CommandError, printable
from minidist.engines.keyspace.session import Session
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_plain import ProtocolError, split_inline

if TYPE_CHECKING:
    from minidist.engines.keyspace.functions import Functions
    from minidist.engines.keyspace.lua.machine import Machine
    from minidist.engines.keyspace.service import Service

NO_SCRIPT = "NOSCRIPT No matching script. Please use EVAL."
TOO_MUCH = "OOM the scripts that SCRIPT LOAD has brought take more than --script-memory"
# In the order in which FUNCTION LIST shows them.
FLAGS = ("no-writes", "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys")
MOST_EVALED = 500  # as Redis 7.4
NO_FUNCTIONS = {
    "number_of_functions": 0,
    "number_of_libraries": 0,
    "used_memory_vm_functions": 0,
    "used_memory_functions": 0,
}
# What a script takes besides its source: its name, its row here.
SCRIPT_BYTES = 300


class Script:
    """A script that was compiled. Its flags come from a first line like `#!lua flags=no-writes`; None without one."""

    __slots__ = ("flags", "function", "name", "source")

    takes_arguments = False  # it finds KEYS and ARGV

    def __init__(self, name: str, source: bytes) -> None:
        self.name = name
        self.source = source
        self.function: Any = None  # in the present interpreter
        self.flags = _shebang_flags(source)

    @property
    def lua(self) -> bytes:
        """The Lua text: the first line is blank if it said flags, so that line numbers are right."""
        return b"\n" + self.source.partition(b"\n")[2] if self.source.startswith(b"#!") else self.source

    @property
    def is_one_line(self) -> bool:
        return b"\n" not in self.source


def _shebang_flags(source: bytes) -> frozenset[str] | None:
    if not source.startswith(b"#!"):
        return None
    line, newline, _ = source.partition(b"\n")
    if not newline:
        raise CommandError("ERR Invalid script shebang")
    try:
        words = [printable(word) for word in split_inline(line)]
    except ProtocolError:
        raise CommandError("ERR Invalid engine in script shebang") from None
    if words[0] != "#!lua":
        raise CommandError(f"ERR Unexpected engine in script shebang: {words[0]}")
    flags: list[str] = []
    for word in words[1:]:
        name, _, value = word.partition("=")
        if name != "flags":
            raise CommandError(f"ERR Unknown lua shebang option: {word}")
        for flag in value.split(",") if value else ():
            if flag not in FLAGS:
                raise CommandError(f"ERR Unexpected flag in script shebang: {flag}")
            flags.append(flag)
    return frozenset(flags)


class Scripts:
    """The scripts of a node, by their SHA-1, and the interpreter."""

    def __init__(self, service: "Service") -> None:
        self.service = service
        self.scripts: dict[str, Script] = {}
        self._evaled: dict[str, None] = {}  # those that came by EVAL, least recently used first
        self.source_bytes = 0
        self.evicted = 0
        self.limit_s = 5.0
        self.memory_bytes = 64 * 1024**2
        self.stopwatch_s: Callable[[], float] = lambda: 0.0
        self.log: Callable[[int, str], object] = lambda level, text: None
        self._machine: Machine | None = None

    def load(self, source: bytes, *, stays: bool) -> Script:
        """Compile a script, or find it. `stays`: SCRIPT LOAD has brought it. Raises CommandError."""
        from hashlib import sha1  # not for a node's start

        name = sha1(source).hexdigest()
        script = self.scripts.get(name)
        if script is None:
            script = Script(name, source)
            self._compile(script)
            self._keep(script, stays=stays)
        elif stays:
            self._evaled.pop(name, None)
        else:
            self._used(name)
        return script

    def find(self, name: bytes) -> Script:
        script = self.scripts.get(printable(name).lower())
        if script is None:
            raise CommandError(NO_SCRIPT)
        self._used(script.name)
        return script

    def _keep(self, script: Script, *, stays: bool) -> None:
        self.source_bytes += len(script.source) + SCRIPT_BYTES
        while self._evaled and (self.source_bytes > self.memory_bytes or len(self._evaled) >= MOST_EVALED):
            oldest = next(iter(self._evaled))
            del self._evaled[oldest]
            self.source_bytes -= len(self.scripts.pop(oldest).source) + SCRIPT_BYTES
            self.evicted += 1
        if self.source_bytes > self.memory_bytes:
            self.source_bytes -= len(script.source) + SCRIPT_BYTES
            raise CommandError(TOO_MUCH)
        self.scripts[script.name] = script
        if not stays:
            self._evaled[script.name] = None

    def _used(self, name: str) -> None:
        if name in self._evaled:
            del self._evaled[name]
            self._evaled[name] = None

    def flush(self) -> None:
        self.scripts.clear()
        self._evaled.clear()
        self.source_bytes = 0
        self._machine = None

    @cached_property
    def functions(self) -> "Functions":
        """FUNCTION and FCALL: libraries, in an interpreter of their own."""
        from minidist.engines.keyspace.functions import Functions  # rare: not for a node's start

        return Functions(self)

    @property
    def has_functions(self) -> bool:
        """Whether anybody has asked for functions; `functions` makes what it needs."""
        return "functions" in self.__dict__

    def memory_figures(self) -> dict[str, object]:
        """For INFO, under Redis' names."""
        of_functions = self.functions.figures() if self.has_functions else NO_FUNCTIONS
        figures = {
            "used_memory_vm_eval": 0 if self._machine is None else self._machine.used_bytes,
            "used_memory_scripts_eval": self.source_bytes,
            "number_of_cached_scripts": len(self.scripts),
            **of_functions,
        }
        figures["used_memory_vm_total"] = figures["used_memory_vm_eval"] + figures["used_memory_vm_functions"]
        figures["used_memory_scripts"] = figures["used_memory_scripts_eval"] + figures["used_memory_functions"]
        return {**figures}

    def _machine_now(self) -> "Machine":
        """The interpreter; another one if its memory has run out."""
        if self._machine is not None and self._machine.spoilt:
            self._machine = None
            for script in self.scripts.values():
                script.function = None
        if self._machine is None:
            from minidist.engines.keyspace.lua.machine import Machine  # with its libraries: not for a node's start

            self._machine = Machine(self)
        return self._machine

    def _compile(self, script: Script) -> "Machine":
        """Twice if need be: other scripts may have filled the interpreter. Raises CommandError."""
        machine = self._machine_now()
        try:
            machine.compile(script)
        except CommandError:
            if not machine.spoilt:
                raise
            machine = self._machine_now()
            machine.compile(script)
        return machine

    def run(
        self, caller: Session, script: Script, keys: Arguments, argv: Arguments, now_ms: int, *, read_only: bool
    ) -> bytes:
        """The reply of a script. Raises CommandError."""
        machine = self._machine_now()
        if script.function is None:
            machine = self._compile(script)
        return machine.run(caller, script, keys, argv, now_ms, read_only=read_only)
