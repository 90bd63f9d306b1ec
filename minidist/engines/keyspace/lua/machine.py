"""One Lua interpreter (lupa, Lua 5.1), and the script that runs in it.

Python's functions never raise through the interpreter: they answer `(ok, value)`, and the Lua side (sandbox.py) raises.

The interpreter may take `memory_bytes`. Where Lua code asks for more, Lua raises an error. Where Python puts something
into the interpreter, there is nothing to raise it to: the process would end. So Python comes to run only while
FULL_SHARE of the memory is not taken, which sandbox.py sees to, and asks for `room` before it brings anything in.
"""

import random
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any, Protocol

from minidist.engines.keyspace.errors import OUT_OF_MEMORY, CommandError, printable
from minidist.engines.keyspace.lua.libraries import MANY, library
from minidist.engines.keyspace.lua.sandbox import LONGEST_STRING_BYTES, LONGEST_SUBJECT_BYTES, SANDBOX
from minidist.engines.keyspace.lua.values import NO_ROOM, NoRoom, Reading, TooDeep, argument, reply_of
from minidist.engines.keyspace.registry import Command
from minidist.engines.keyspace.scripting import Script, Scripts
from minidist.engines.keyspace.session import Session
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import error

MISSING = "ERR scripts need Lua, which is not installed here: pip install 'minidist[lua]'"
NOT_IN_SCRIPT = "ERR This Redis command is not allowed from script"
UNKNOWN_COMMAND = "ERR Unknown Redis command called from script"
NOT_TO_CHECK = "Invalid command passed to redis.acl_check_cmd()"
WRONG_NUMBER = "ERR Wrong number of args calling Redis command from script"
# They change no key, and still a read-only script may not call them: Redis sends them to its replicas.
REPLICATED = frozenset({"PUBLISH", "SPUBLISH", "PFCOUNT"})
READ_ONLY = "ERR Write commands are not allowed from read-only scripts."
BAD_ARGUMENTS = "ERR Lua redis lib command arguments must be strings or integers"
OUT_OF_MEMORY_BEFORE = "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'"
FULL_SHARE, ROOM_SHARE = 3 / 4, 7 / 8
VALUE_BYTES = 64  # of a value in a table, while the table grows; of a string that comes with it, besides its bytes
LOAD_LIMIT_S = 0.5  # as Redis: for the text of a library, which does nothing but register
HOOK_EVERY = 20_000  # instructions: a fraction of a millisecond
MOST_INSTRUCTIONS = 500_000_000  # while the stopwatch stands still: in the simulation


class Runnable(Protocol):
    """A script or a function of a library. `flags` is None for a script that says none."""

    name: str
    function: Any

    @property
    def flags(self) -> frozenset[str] | None: ...

    @property
    def takes_arguments(self) -> bool:
        """The keys and arguments are its arguments; else it finds them as KEYS and ARGV."""
        ...

    @property
    def is_one_line(self) -> bool: ...


class Machine:
    """One interpreter, and the script that runs in it."""

    def __init__(self, scripts: Scripts, *, of_functions: bool = False) -> None:
        try:
            from lupa import lua51
        except ImportError:
            raise CommandError(MISSING) from None
        self._scripts = scripts
        self._lua51 = lua51
        self._lua = lua51.LuaRuntime(
            encoding=None,
            register_eval=False,
            register_builtins=False,
            unpack_returned_tuples=True,
            max_memory=scripts.memory_bytes,
            attribute_filter=_no_attributes,
        )
        self.spoilt = False
        self._random = random.Random(0)
        self._reading = Reading(self)
        prepare = self._lua.eval(b"function(text, ...) return loadstring(text, '=sandbox')(...) end")
        self._compile, self._load, self._run, self._finish, self.null = prepare(
            SANDBOX,
            self._call,
            self._log,
            self._acl_check,
            _sha1_hex,
            self._libraries(),
            of_functions,
            int(scripts.memory_bytes * FULL_SHARE) // 1024,
        )
        # Of the script that runs:
        self._session: Session | None = None
        self._script: Runnable | None = None
        self._read_only = False
        self._now_ms = 0
        self._started_s = self._limit_s = 0.0
        self._ticks = 0
        self._over = False

    @property
    def used_bytes(self) -> int:
        """Memory of the interpreter, as it counts it itself."""
        return int(self._lua.get_memory_used(total=True))

    # --- what the libraries ask for ---------------------------------------------------------------------------------

    def type_name(self, value: Any) -> str:
        """As Lua calls it."""
        if value is None:
            return "nil"
        names = {bool: "boolean", bytes: "string", int: "number", float: "number"}
        return names.get(value.__class__) or str(self._lua51.lua_type(value))

    def is_null(self, value: Any) -> bool:
        """The only userdata that a script can get hold of is cjson.null."""
        return bool(self._lua51.lua_type(value) == "userdata")

    def is_table(self, value: Any) -> bool:
        return bool(self._lua51.lua_type(value) == "table")

    def is_function(self, value: Any) -> bool:
        return bool(self._lua51.lua_type(value) == "function")

    def room(self, needed_bytes: int) -> None:
        """Raises NoRoom if so much does not fit into the interpreter."""
        most_bytes = int(self._scripts.memory_bytes * ROOM_SHARE) - needed_bytes
        if self._lua.get_memory_used() > most_bytes:
            self._lua.gccollect()
            if self._lua.get_memory_used() > most_bytes:
                raise NoRoom

    def sequence(self, values: Sequence[Any]) -> Any:
        """A table of these values. Raises NoRoom."""
        self.room(sum(len(each) for each in values if each.__class__ is bytes) + VALUE_BYTES * len(values))
        table = self._lua.table()
        for at, value in enumerate(values, 1):
            table[at] = value
        return table

    def mapping(self, pairs: Sequence[tuple[Any, Any]]) -> Any:
        """A table of these keys and values. Raises NoRoom."""
        texts = sum(len(each) for pair in pairs for each in pair if each.__class__ is bytes)
        self.room(texts + 2 * VALUE_BYTES * len(pairs))
        table = self._lua.table()
        for name, value in pairs:
            table[name] = value
        return table

    def _libraries(self) -> Any:
        table = self._lua.table()
        for name, function in library(self).items():
            table[name.encode()] = function
        table[b"many"] = MANY
        table[b"longest"], table[b"longest_subject"] = LONGEST_STRING_BYTES, LONGEST_SUBJECT_BYTES
        version = self._scripts.service.redis_version
        table[b"version"], table[b"version_number"] = version.encode(), version_number(version)
        table[b"setresp"] = self._set_resp
        table[b"random"] = self._draw
        table[b"randomseed"] = self._random.seed
        table[b"clock"] = lambda: self._scripts.stopwatch_s() - self._started_s
        return table

    def _draw(self, low: float | None = None, high: float | None = None) -> float:
        """math.random; the same numbers in every run of a script, as in Redis."""
        if low is None or high is None:
            return self._random.random()
        return self._random.randint(int(low), int(high))

    def _set_resp(self, version: float) -> None:
        assert self._session is not None
        self._session.speak(version == 3)

    def _log(self, level: float, text: bytes) -> None:
        self._scripts.log(int(level), printable(text))

    # --- running ----------------------------------------------------------------------------------------------------

    def compile(self, script: Script) -> None:
        """Raises CommandError with Lua's complaint; `spoilt` if there was no memory for it."""
        try:
            self.room(len(script.source))
            function, problem = self._compile(script.lua)
        except (self._lua51.LuaMemoryError, NoRoom):
            self.spoilt = True
            raise CommandError("ERR Error compiling script (new function): not enough memory") from None
        if function is None:
            raise CommandError(f"ERR Error compiling script (new function): {printable(problem)}")
        script.function = function

    def load(self, text: bytes, register: Callable[..., tuple[bool, Any]]) -> None:
        """Run the text of a library, whose calls of redis.register_function go to `register`. Raises CommandError."""
        self._begin(LOAD_LIMIT_S)
        try:
            self.room(len(text))
            problem = self._load(text, register, self._is_over, HOOK_EVERY)
        except (self._lua51.LuaMemoryError, NoRoom):
            self.spoilt = True
            problem = b"Error registering functions: not enough memory"
        except self._lua51.LuaError as raised:
            problem = b"Error registering functions: " + printable_line(raised).encode()
        finally:
            over = self._end()
        if over:
            problem = b"Error registering functions: ERR FUNCTION LOAD timeout"
        if problem is not None:
            raise CommandError(f"ERR {printable(problem)}")

    def run(
        self,
        caller: Session,
        script: Runnable,
        keys: Arguments,
        argv: Arguments,
        now_ms: int,
        *,
        read_only: bool,
    ) -> bytes:
        """The reply of a script or a function. Raises CommandError."""
        self._refuse(script, now_ms, read_only=read_only)
        session = self._session = Session(self._scripts.service, caller.id, caller.carrier, now_ms)
        session.database, session.user, session.authenticated = caller.database, caller.user, True
        session.executing = True
        self._script, self._now_ms = script, now_ms
        self._read_only = read_only or "no-writes" in (script.flags or ())
        self._begin(self._scripts.limit_s)
        try:
            given = self.sequence(keys), self.sequence(argv)
            kind = script.takes_arguments, script.is_one_line
            answer = self._run(script.function, *given, self._is_over, HOOK_EVERY, *kind)
        except (self._lua51.LuaMemoryError, NoRoom):
            answer = None
        except self._lua51.LuaError as problem:
            if not self._over:
                raise CommandError(f"ERR {printable_line(problem)} script: {script.name}") from None
            answer = (False, None)
        finally:
            over = self._end()
            self._session = None
        if answer is None:
            self.spoilt = True
            raise CommandError(f"ERR script ran out of memory (script: {script.name})")
        if over:
            raise CommandError(f"ERR script was stopped after its time limit, script: {script.name}")
        return self._reply(answer, script, caller, session)

    def _refuse(self, script: Runnable, now_ms: int, *, read_only: bool) -> None:
        """What a script that says its flags is asked before it runs (script.c, scriptPrepareForRun)."""
        if script.flags is None or "no-writes" in script.flags:
            return
        if read_only:
            raise CommandError("ERR Can not execute a script with write flag using *_ro command.")
        if "allow-oom" not in script.flags and not self._scripts.service.keyspace.make_room(now_ms):
            raise CommandError(OUT_OF_MEMORY_BEFORE)

    def _begin(self, limit_s: float) -> None:
        self._started_s, self._ticks, self._over = self._scripts.stopwatch_s(), 0, False
        self._limit_s = limit_s
        self._random.seed(0)

    def _end(self) -> bool:
        """Take the hook away; whether the time was over."""
        over, self._over = self._over, False
        self._ticks = -(1 << 62)  # the hook lets `finish` pass
        self._finish()
        return over

    def _reply(self, answer: Any, script: Runnable, caller: Session, session: Session) -> bytes:
        ok, value = answer[:2] if isinstance(answer, tuple) else (answer, None)  # `return 1, 2` answers 1
        if not ok:
            raise CommandError(self._complaint(value, script))
        try:
            return reply_of(value, caller.resp3, session.resp3, self.is_table)
        except (TooDeep, RecursionError):
            raise CommandError("ERR reached lua stack limit") from None

    def _complaint(self, value: Any, script: Runnable) -> str:
        """The error of a script, with where it arose, as Redis 7 words it."""
        if not self.is_table(value):
            return f"ERR {printable_line(value)} script: {script.name}"
        text = value[b"err"]
        text = printable(text) if isinstance(text, bytes) else "ERR unknown error"
        source, line = value[b"source"], value[b"line"]
        if line is None:
            return f"{text} script: {script.name}."
        return f"{text} script: {script.name}, on {printable(source)}:{int(line)}."

    def _is_over(self) -> bool:
        self._ticks += 1
        if not self._over and self._ticks > 0:
            took_s = self._scripts.stopwatch_s() - self._started_s
            self._over = took_s > self._limit_s or (not took_s and self._ticks * HOOK_EVERY > MOST_INSTRUCTIONS)
        return self._over

    # --- redis.call -------------------------------------------------------------------------------------------------

    def _call(self, *values: Any) -> tuple[bool, Any]:
        """Run a command for the script; never raises."""
        session = self._session
        assert session is not None
        try:
            reply = self._run_command(session, values)
        except CommandError as problem:
            reply = error(str(problem))
            self._scripts.service.error_reply(problem)
        try:
            return not reply.startswith(b"-"), self._reading.value(reply, session.resp3)
        except NoRoom:
            return False, NO_ROOM

    def _run_command(self, session: Session, values: tuple[Any, ...]) -> bytes:
        command, args = self._command(values)
        self._refuse_command(command, args)
        return self._scripts.service.call(session, command, args, self._now_ms)

    def _command(self, values: tuple[Any, ...]) -> tuple[Command, Arguments]:
        """The command that a script calls, and its arguments. Raises CommandError."""
        if not values:
            raise CommandError("ERR Please specify at least one argument for this redis lib call")
        args = tuple(map(argument, values))
        if None in args:
            raise CommandError(BAD_ARGUMENTS)
        words: Arguments = args  # type: ignore[assignment]
        table = self._scripts.service.table
        command = table.find(words[0])
        if command is None:
            raise CommandError(UNKNOWN_COMMAND)
        return command, words

    def _refuse_command(self, command: Command, args: Arguments) -> None:
        """Raises CommandError where a script may not call this command."""
        service, script = self._scripts.service, self._script
        assert script is not None
        if not command.least <= len(args) <= command.most:
            raise CommandError(WRONG_NUMBER)
        innermost = command
        if command.is_container and len(args) > 1:
            found = command.subcommands.get(printable(args[1]).upper())
            if found is None:
                raise CommandError(UNKNOWN_COMMAND)
            if not found.least <= len(args) <= found.most:
                raise CommandError(WRONG_NUMBER)
            innermost = found
        if "noscript" in innermost.flags:
            raise CommandError(NOT_IN_SCRIPT)
        session = self._session
        assert session is not None
        if session.user.restricted:
            service.authorise(session, command, args, self._now_ms, "lua")
        if self._read_only and (innermost.write or innermost.name in REPLICATED):
            raise CommandError(READ_ONLY)
        if (
            innermost.deny_oom
            and "allow-oom" not in (script.flags or ())
            and not service.keyspace.make_room(self._now_ms)
        ):
            raise CommandError(OUT_OF_MEMORY)

    def _acl_check(self, *values: Any) -> tuple[bool, Any]:
        """redis.acl_check_cmd: whether the caller may run a command; never raises."""
        from minidist.engines.keyspace.acl import denial  # only for scripts that ask

        session = self._session
        assert session is not None
        try:
            command, args = self._command(values)
        except CommandError as problem:
            text = str(problem).removeprefix("ERR ")
            return False, (NOT_TO_CHECK if text == UNKNOWN_COMMAND[4:] else text).encode()
        row: Command | None = command
        if command.is_container and len(args) > 1:
            row = command.subcommands.get(printable(args[1]).upper())
        if row is None:
            return False, NOT_TO_CHECK.encode()
        return True, denial(session.user, row, args) is None


def _no_attributes(target: object, name: object, setting: bool) -> object:
    """Scripts see functions of ours, and nothing that these have."""
    raise AttributeError("not for scripts")


def version_number(version: str) -> int:
    """`7.2.4` as redis.REDIS_VERSION_NUM has it: a byte for each part."""
    major, minor, patch = map(int, version.split("."))
    return major << 16 | minor << 8 | patch


def _sha1_hex(text: bytes) -> bytes:
    return sha1(text).hexdigest().encode()


def printable_line(value: object) -> str:
    """The first line of what Lua complains about."""
    text = value if isinstance(value, bytes) else str(value).encode()
    return printable(text.partition(b"\n")[0])
