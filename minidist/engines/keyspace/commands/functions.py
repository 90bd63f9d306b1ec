"""FUNCTION and FCALL: libraries of Lua functions (engines/keyspace/functions.py)."""

from minidist.engines.keyspace.commands.scripting import KEYS_OF_A_SCRIPT, RUNS, keys_and_arguments
from minidist.engines.keyspace.errors import CommandError, printable
from minidist.engines.keyspace.functions import ENGINE, Function, Functions, Library
from minidist.engines.keyspace.registry import CommandTable
from minidist.engines.keyspace.scripting import FLAGS
from minidist.engines.keyspace.session import Session
from minidist.structures.glob import glob_matcher
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import OK, array, bulk, integer, map_header, set_header, simple

TABLE = CommandTable()
command = TABLE.command

BAD_COUNT = "ERR Bad number of keys provided"
POLICIES = (b"FLUSH", b"APPEND", b"REPLACE")


def _functions(session: Session) -> Functions:
    return session.service.scripts.functions


def _call(session: Session, args: Arguments, now_ms: int, *, read_only: bool) -> bytes:
    functions = _functions(session)
    function = functions.find(args[1])
    keys, argv = keys_and_arguments(args, BAD_COUNT)
    return functions.run(session, function, keys, argv, now_ms, read_only=read_only)


@command(
    "FCALL", arity=-3, flags="noscript stale skip_monitor movablekeys no_mandatory_keys", keys=KEYS_OF_A_SCRIPT,
    since="7.0.0", group="scripting", summary="Invokes a function.", complexity=RUNS,
)  # fmt: skip
def fcall(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _call(session, args, now_ms, read_only=False)


@command(
    "FCALL_RO", arity=-3, flags="noscript readonly stale skip_monitor movablekeys no_mandatory_keys",
    keys=KEYS_OF_A_SCRIPT, since="7.0.0", group="scripting", summary="Invokes a read-only function.", complexity=RUNS,
)  # fmt: skip
def fcall_ro(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _call(session, args, now_ms, read_only=True)


TABLE.container("FUNCTION", since="7.0.0", group="scripting", summary="A container for function commands.")


@command(
    "FUNCTION LOAD", arity=-3, flags="write denyoom noscript", since="7.0.0", group="scripting",
    summary="Creates a library.", complexity="O(1) (considering compilation time is redundant)",
)  # fmt: skip
def function_load(session: Session, args: Arguments, now_ms: int) -> bytes:
    for word in args[2:-1]:
        if word.upper() != b"REPLACE":
            raise CommandError(f"ERR Unknown option given: {printable(word)}")
    return bulk(_functions(session).load(args[-1], replace=len(args) > 3).encode())


@command(
    "FUNCTION DELETE", arity=3, flags="write noscript", since="7.0.0", group="scripting",
    summary="Deletes a library and its functions.",
)  # fmt: skip
def function_delete(session: Session, args: Arguments, now_ms: int) -> bytes:
    _functions(session).delete(args[2])
    return OK


@command(
    "FUNCTION FLUSH", arity=-2, flags="write noscript", since="7.0.0", group="scripting",
    summary="Deletes all libraries and functions.", complexity="O(N) where N is the number of functions deleted",
)  # fmt: skip
def function_flush(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) > 3:
        raise _wrong_use("FLUSH")
    if len(args) == 3 and args[2].upper() not in (b"SYNC", b"ASYNC"):
        raise CommandError("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")
    _functions(session).flush()
    return OK


@command(
    "FUNCTION KILL", arity=2, flags="noscript allow_busy", since="7.0.0", group="scripting",
    summary="Terminates a function during execution.",
)  # fmt: skip
def function_kill(session: Session, args: Arguments, now_ms: int) -> bytes:
    raise CommandError("NOTBUSY No scripts in execution right now.")  # one that runs lets nothing else in


@command(
    "FUNCTION STATS", arity=2, flags="noscript allow_busy", since="7.0.0", group="scripting",
    summary="Returns information about a function during execution.",
)  # fmt: skip
def function_stats(session: Session, args: Arguments, now_ms: int) -> bytes:
    functions, resp3 = _functions(session), session.resp3
    counts = bulk(b"libraries_count") + integer(len(functions.libraries))
    counts += bulk(b"functions_count") + integer(len(functions.functions))
    engines = map_header(1, resp3) + bulk(ENGINE.encode()) + map_header(2, resp3) + counts
    return map_header(2, resp3) + bulk(b"running_script") + session.null + bulk(b"engines") + engines


@command(
    "FUNCTION LIST", arity=-2, flags="noscript", since="7.0.0", group="scripting",
    summary="Returns information about all libraries.", complexity="O(N) where N is the number of functions",
)  # fmt: skip
def function_list(session: Session, args: Arguments, now_ms: int) -> bytes:
    pattern: bytes | None = None
    with_code = False
    words = iter(args[2:])
    for word in words:
        if not with_code and word.upper() == b"WITHCODE":
            with_code = True
        elif pattern is None and word.upper() == b"LIBRARYNAME":
            pattern = next(words, None)
            if pattern is None:
                raise CommandError("ERR library name argument was not given")
        else:
            raise CommandError(f"ERR Unknown argument {printable(word)}")
    libraries = list(_functions(session).libraries.values())
    if pattern is not None:
        matches = glob_matcher(pattern.lower())
        libraries = [each for each in libraries if matches(each.name.lower().encode())]
    return array([_shown_library(session, each, with_code=with_code) for each in libraries])


def _shown_library(session: Session, library: Library, *, with_code: bool) -> bytes:
    shown = map_header(3 + with_code, session.resp3)
    shown += bulk(b"library_name") + bulk(library.name.encode()) + bulk(b"engine") + bulk(ENGINE.encode())
    shown += bulk(b"functions") + array([_shown_function(session, each) for each in library.functions.values()])
    return shown + bulk(b"library_code") + bulk(library.source) if with_code else shown


def _shown_function(session: Session, function: Function) -> bytes:
    description = session.null if function.description is None else bulk(function.description)
    flags = [simple(flag) for flag in FLAGS if flag in function.flags]
    return b"".join(
        (
            map_header(3, session.resp3),
            bulk(b"name"), bulk(function.name.encode()),
            bulk(b"description"), description,
            bulk(b"flags"), set_header(len(flags), session.resp3), *flags,
        )
    )  # fmt: skip


@command(
    "FUNCTION DUMP", arity=2, flags="noscript", since="7.0.0", group="scripting",
    summary="Dumps all libraries into a serialized binary payload.",
    complexity="O(N) where N is the number of functions",
)  # fmt: skip
def function_dump(session: Session, args: Arguments, now_ms: int) -> bytes:
    return bulk(_functions(session).dump())


@command(
    "FUNCTION RESTORE", arity=-3, flags="write denyoom noscript", since="7.0.0", group="scripting",
    summary="Restores all libraries from a payload.",
    complexity="O(N) where N is the number of functions on the payload",
)  # fmt: skip
def function_restore(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) > 4:
        raise _wrong_use("RESTORE")
    policy = args[3].upper() if len(args) == 4 else b"APPEND"
    if policy not in POLICIES:
        raise CommandError("ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.")
    _functions(session).restore(args[2], policy)
    return OK


def _wrong_use(subcommand: str) -> CommandError:
    return CommandError(f"ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try FUNCTION HELP.")
