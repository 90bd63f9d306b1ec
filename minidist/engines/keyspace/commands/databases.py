"""Databases as a whole: counting, flushing, swapping."""

from minidist.engines.keyspace.commands.keys import some_database
from minidist.engines.keyspace.errors import NOT_AN_INTEGER, SYNTAX, CommandError
from minidist.engines.keyspace.registry import CommandTable
from minidist.engines.keyspace.session import Session
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_plain import strict_integer
from minidist.wire.resp_replies import OK
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command


@command(
    "DBSIZE", arity=1, flags="readonly fast", since="1.0.0", group="server",
    summary="Returns the number of keys in the database.",
)  # fmt: skip
def dbsize(session: Session, args: Arguments, now_ms: int) -> bytes:
    keyspace = session.service.keyspace
    if keyspace.active_expiry:
        keyspace.expire_step(now_ms)  # so that what has just expired is not counted
    return integer_reply(session.database.count)


def _check_mode(args: Arguments) -> None:
    """SYNC and ASYNC mean the same: keys are gone at once, their memory is freed in steps."""
    if len(args) > 2 or (len(args) == 2 and args[1].upper() not in (b"SYNC", b"ASYNC")):
        raise CommandError(SYNTAX)


@command(
    "FLUSHDB", arity=-1, flags="write", since="1.0.0", group="server",
    summary="Remove all keys from the current database.", complexity="O(1); the memory is freed in steps afterwards",
)  # fmt: skip
def flushdb(session: Session, args: Arguments, now_ms: int) -> bytes:
    _check_mode(args)
    session.database.flush()
    return OK


@command(
    "FLUSHALL", arity=-1, flags="write", since="1.0.0", group="server",
    summary="Removes all keys from all databases.", complexity="O(1); the memory is freed in steps afterwards",
)  # fmt: skip
def flushall(session: Session, args: Arguments, now_ms: int) -> bytes:
    _check_mode(args)
    session.service.keyspace.flush()
    return OK


@command(
    "SWAPDB", arity=3, flags="write fast", since="4.0.0", group="server",
    summary="Swaps two Redis databases.", complexity="O(watched keys)",
)  # fmt: skip
def swapdb(session: Session, args: Arguments, now_ms: int) -> bytes:
    for text, which in ((args[1], "first"), (args[2], "second")):
        if strict_integer(text) is None:
            raise CommandError(f"ERR invalid {which} DB index")
    one, two = some_database(session, args[1]), some_database(session, args[2])
    if one is not two:
        one.swap(two)
    return OK


@command(
    "SELECT", arity=2, flags="fast loading stale", since="1.0.0", group="connection",
    summary="Changes the selected database.",
)  # fmt: skip
def select(session: Session, args: Arguments, now_ms: int) -> bytes:
    if strict_integer(args[1]) is None:
        raise CommandError(NOT_AN_INTEGER)
    session.database = some_database(session, args[1])
    return OK
