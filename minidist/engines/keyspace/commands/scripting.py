"""EVAL and SCRIPT: Lua scripts (engines/keyspace/scripting.py)."""

from minidist.engines.keyspace.arguments import integer
from minidist.engines.keyspace.errors import NOT_AN_INTEGER, CommandError
from minidist.engines.keyspace.registry import CommandTable, Keys
from minidist.engines.keyspace.session import Session
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import OK, array, bulk
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

RUNS = "Depends on the script that is executed."
KEYS_OF_A_SCRIPT = Keys(counted=2)


def keys_and_arguments(args: Arguments, not_a_number: str = NOT_AN_INTEGER) -> tuple[Arguments, Arguments]:
    """What stands behind the number of keys in EVAL, FCALL and the like. Raises CommandError."""
    count = integer(args[2], not_a_number)
    if count > len(args) - 3:
        raise CommandError("ERR Number of keys can't be greater than number of args")
    if count < 0:
        raise CommandError("ERR Number of keys can't be negative")
    return args[3 : 3 + count], args[3 + count :]


def _eval(session: Session, args: Arguments, now_ms: int, *, read_only: bool) -> bytes:
    keys, argv = keys_and_arguments(args)
    scripts = session.service.scripts
    return scripts.run(session, scripts.load(args[1], stays=False), keys, argv, now_ms, read_only=read_only)


def _evalsha(session: Session, args: Arguments, now_ms: int, *, read_only: bool) -> bytes:
    keys, argv = keys_and_arguments(args)
    scripts = session.service.scripts
    return scripts.run(session, scripts.find(args[1]), keys, argv, now_ms, read_only=read_only)


@command(
    "EVAL", arity=-3, flags="noscript stale skip_monitor movablekeys no_mandatory_keys", keys=KEYS_OF_A_SCRIPT,
    since="2.6.0", group="scripting", summary="Executes a server-side Lua script.", complexity=RUNS,
)  # fmt: skip
def eval_(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _eval(session, args, now_ms, read_only=False)


@command(
    "EVALSHA", arity=-3, flags="noscript stale skip_monitor movablekeys no_mandatory_keys", keys=KEYS_OF_A_SCRIPT,
    since="2.6.0", group="scripting", summary="Executes a server-side Lua script by SHA1 digest.", complexity=RUNS,
)  # fmt: skip
def evalsha(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _evalsha(session, args, now_ms, read_only=False)


@command(
    "EVAL_RO", arity=-3, flags="noscript readonly stale skip_monitor movablekeys no_mandatory_keys",
    keys=KEYS_OF_A_SCRIPT, since="7.0.0", group="scripting", summary="Executes a read-only server-side Lua script.",
    complexity=RUNS,
)  # fmt: skip
def eval_ro(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _eval(session, args, now_ms, read_only=True)


@command(
    "EVALSHA_RO", arity=-3, flags="noscript readonly stale skip_monitor movablekeys no_mandatory_keys",
    keys=KEYS_OF_A_SCRIPT, since="7.0.0", group="scripting",
    summary="Executes a read-only server-side Lua script by SHA1 digest.",
    complexity=RUNS,
)  # fmt: skip
def evalsha_ro(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _evalsha(session, args, now_ms, read_only=True)


TABLE.container("SCRIPT", since="2.6.0", group="scripting", summary="A container for Lua scripts management commands.")


@command(
    "SCRIPT LOAD", arity=3, flags="noscript stale", since="2.6.0", group="scripting",
    summary="Loads a server-side Lua script to the script cache.",
    complexity="O(N) where N is the length in bytes of the script body",
)  # fmt: skip
def script_load(session: Session, args: Arguments, now_ms: int) -> bytes:
    return bulk(session.service.scripts.load(args[2], stays=True).name.encode())


@command(
    "SCRIPT EXISTS", arity=-3, flags="noscript", since="2.6.0", group="scripting",
    summary="Determines whether server-side Lua scripts exist in the script cache.",
    complexity="O(N) with N being the number of scripts to check",
)  # fmt: skip
def script_exists(session: Session, args: Arguments, now_ms: int) -> bytes:
    known = session.service.scripts.scripts
    return array([integer_reply(name.decode("latin-1").lower() in known) for name in args[2:]])


@command(
    "SCRIPT FLUSH", arity=-2, flags="noscript", since="2.6.0", group="scripting",
    summary="Removes all server-side Lua scripts from the script cache.",
    complexity="O(N) with N being the number of scripts in cache",
)  # fmt: skip
def script_flush(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) > 3:
        raise CommandError("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
    if len(args) == 3 and args[2].upper() not in (b"ASYNC", b"SYNC"):
        raise CommandError("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
    session.service.scripts.flush()
    return OK


@command(
    "SCRIPT KILL", arity=2, flags="noscript allow_busy", since="2.6.0", group="scripting",
    summary="Terminates a server-side Lua script during execution.",
)  # fmt: skip
def script_kill(session: Session, args: Arguments, now_ms: int) -> bytes:
    raise CommandError("NOTBUSY No scripts in execution right now.")  # one that runs lets nothing else in


@command(
    "SCRIPT DEBUG", arity=3, flags="noscript", since="3.2.0", group="scripting",
    summary="Sets the debug mode of server-side Lua scripts.",
)  # fmt: skip
def script_debug(session: Session, args: Arguments, now_ms: int) -> bytes:
    if args[2].upper() not in (b"YES", b"SYNC", b"NO"):
        raise CommandError("ERR Use SCRIPT DEBUG YES/SYNC/NO")
    if args[2].upper() != b"NO":
        raise CommandError("ERR the Lua debugger is not there")
    return OK
