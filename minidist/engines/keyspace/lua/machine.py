"""One Lua interpreter (lupa, Lua 5.1), and the script that runs in it.

Python's functions never raise through the interpreter: they answer `(ok, value)`, and the Lua side (sandbox.py) raises.
"""

import random
from hashlib import sha1
from typing import Any

from minidist.engines.keyspace.errors import OUT_OF_MEMORY, CommandError, printable, wrong_arity
from minidist.engines.keyspace.lua.libraries import MANY, library
from minidist.engines.keyspace.lua.sandbox import LONGEST_STRING_BYTES, LONGEST_SUBJECT_BYTES, SANDBOX
from minidist.engines.keyspace.lua.values import Reading, TooDeep, argument, reply_of
from minidist.engines.keyspace.registry import Command
from minidist.engines.keyspace.scripting import Script, Scripts
from minidist.engines.keyspace.session import Session
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import error

MISSING = "ERR scripts need Lua, which is not installed here: pip install 'minidist[lua]'"
NOT_IN_SCRIPT = "ERR This Redis command is not allowed from script"
READ_ONLY = "ERR Write commands are not allowed from read-only scripts."
BAD_ARGUMENTS = "ERR Lua redis lib command arguments must be strings or integers"
HOOK_EVERY = 20_000  # instructions: a fraction of a millisecond
MOST_INSTRUCTIONS = 500_000_000  # five seconds or so


class Machine:
    """One interpreter, and the script that runs in it."""

    def __init__(self, scripts: Scripts) -> None:
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
        self._reading = Reading(self._lua)
        prepare = self._lua.eval(b"function(text, ...) return loadstring(text, '=sandbox')(...) end")
        self._compile, self._run, self._finish, self.null = prepare(
            SANDBOX, self._call, self._log, _sha1_hex, self._libraries(), LONGEST_STRING_BYTES, LONGEST_SUBJECT_BYTES
        )
        # Of the script that runs:
        self._session: Session | None = None
        self._script: Script | None = None
        self._read_only = False
        self._now_ms = 0
        self._started_s = 0.0
        self._ticks = 0
        self._over = False

    # --- what the libraries ask for ---------------------------------------------------------------------------------

    def is_null(self, value: Any) -> bool:
        """The only userdata that a script can get hold of is cjson.null."""
        return bool(self._lua51.lua_type(value) == "userdata")

    def is_table(self, value: Any) -> bool:
        return bool(self._lua51.lua_type(value) == "table")

    def table(self) -> Any:
        return self._lua.table()

    def sequence(self, values: list[Any]) -> Any:
        table = self._lua.table()
        for at, value in enumerate(values, 1):
            table[at] = value
        return table

    def _libraries(self) -> Any:
        table = self._lua.table()
        for name, function in library(self).items():
            table[name.encode()] = function
        table[b"many"] = MANY
        table[b"setresp"] = self._set_resp
        table[b"random"] = self._draw
        table[b"randomseed"] = self._random.seed
        table[b"clock"] = lambda: self._scripts.stopwatch_s() - self._started_s
        return table

    def _draw(self, low: float | None = None, high: float | None = None) -> float:
        """math.random; the same numbers in every run of a script, as in Redis."""
        if low is None:
            return self._random.random()
        return self._random.randint(1, int(low)) if high is None else self._random.randint(int(low), int(high))

    def _set_resp(self, version: float) -> None:
        assert self._session is not None
        self._session.speak(version == 3)

    def _log(self, level: float, text: bytes) -> None:
        self._scripts.log(int(level), printable(text))

    # --- running ----------------------------------------------------------------------------------------------------

    def compile(self, script: Script) -> None:
        """Raises CommandError with Lua's complaint."""
        made = self._compile(script.lua)
        if isinstance(made, tuple):
            function, problem = made
            if function is None:
                raise CommandError(f"ERR Error compiling script (new function): {printable(problem)}")
            made = function
        script.function = made

    def run(
        self, caller: Session, script: Script, keys: Arguments, argv: Arguments, now_ms: int, *, read_only: bool
    ) -> bytes:
        service = self._scripts.service
        session = self._session = Session(service, caller.id, caller.carrier, now_ms)
        session.database, session.user, session.authenticated = caller.database, caller.user, True
        session.executing = True
        self._script, self._read_only, self._now_ms = script, read_only, now_ms
        self._started_s, self._ticks, self._over = self._scripts.stopwatch_s(), 0, False
        self._random.seed(0)
        try:
            answer = self._run(
                script.function, self.sequence(list(keys)), self.sequence(list(argv)), self._is_over, HOOK_EVERY
            )
        except self._lua51.LuaMemoryError:
            self.spoilt = True
            raise CommandError(f"ERR script ran out of memory (script: {script.name})") from None
        except self._lua51.LuaError as problem:
            if not self._over:
                raise CommandError(f"ERR {printable_line(problem)} script: {script.name}") from None
            answer = (False, None)
        finally:
            over, self._over = self._over, False
            self._ticks = -(1 << 62)  # the hook lets `finish` pass
            self._finish()
            self._session = None
        if over:
            raise CommandError(f"ERR script was stopped after its time limit, script: {script.name}")
        return self._reply(answer, script, caller, session)

    def _reply(self, answer: Any, script: Script, caller: Session, session: Session) -> bytes:
        ok, value = answer[:2] if isinstance(answer, tuple) else (answer, None)  # `return 1, 2` answers 1
        if not ok:
            raise CommandError(self._complaint(value, script))
        try:
            return reply_of(value, caller.resp3, session.resp3, self.is_table)
        except TooDeep:
            raise CommandError("ERR reached lua stack limit") from None

    def _complaint(self, value: Any, script: Script) -> str:
        """The error of a script, with where it arose, as Redis 7 words it."""
        if not self.is_table(value):
            return f"ERR {printable_line(value)} script: {script.name}"
        text = value[b"err"]
        text = printable(text) if isinstance(text, bytes) else "ERR unknown error"
        source, line = value[b"source"], value[b"line"]
        if line is None and b"\n" not in script.lua:
            source, line = b"@user_script", 1  # a tail call has no line of its own
        if line is None:
            return f"{text} script: {script.name}."
        return f"{text} script: {script.name}, on {printable(source)}:{int(line)}."

    def _is_over(self) -> bool:
        self._ticks += 1
        if not self._over and self._ticks > 0:
            took_s = self._scripts.stopwatch_s() - self._started_s
            self._over = took_s > self._scripts.limit_s or self._ticks * HOOK_EVERY > MOST_INSTRUCTIONS
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
        return not reply.startswith(b"-"), self._reading.value(reply, session.resp3)

    def _run_command(self, session: Session, values: tuple[Any, ...]) -> bytes:
        if not values:
            raise CommandError("ERR Please specify at least one argument for this redis lib call")
        args = tuple(map(argument, values))
        if None in args:
            raise CommandError(BAD_ARGUMENTS)
        words: Arguments = args  # type: ignore[assignment]
        command = self._allowed(words)
        return self._scripts.service.call(session, command, words, self._now_ms)

    def _allowed(self, args: Arguments) -> Command:
        service, script = self._scripts.service, self._script
        assert script is not None
        command = service.table.find(args[0])
        if command is None:
            raise CommandError("ERR Unknown Redis command called from script")
        if not command.least <= len(args) <= command.most:
            raise (
                wrong_arity(command.name.lower())
                if command.is_container
                else CommandError("ERR Wrong number of args calling Redis command from script")
            )
        innermost = service.table.subcommand(command, args) if command.is_container and len(args) > 1 else command
        if "noscript" in innermost.flags:
            raise CommandError(NOT_IN_SCRIPT)
        session = self._session
        assert session is not None
        if session.user.restricted:
            service.authorise(session, command, args, self._now_ms, "lua")
        if innermost.write and self._read_only:
            raise CommandError(READ_ONLY)
        if innermost.deny_oom and not script.allow_oom and not service.keyspace.make_room(self._now_ms):
            raise CommandError(OUT_OF_MEMORY)
        return command


def _no_attributes(target: object, name: object, setting: bool) -> object:
    """Scripts see functions of ours, and nothing that these have."""
    raise AttributeError("not for scripts")


def _sha1_hex(text: bytes) -> bytes:
    return sha1(text).hexdigest().encode()


def printable_line(value: object) -> str:
    """The first line of what Lua complains about."""
    text = value if isinstance(value, bytes) else str(value).encode()
    return printable(text.partition(b"\n")[0])
