"""MULTI, EXEC, DISCARD, WATCH, UNWATCH.

Queueing is done by `Service.run_checked`. A watch is a mark on a key that the first change sets; EXEC looks at its
marks and drops them, whatever the outcome.
"""

from minidist.engines.keyspace.errors import EXEC_ABORT, CommandError
from minidist.engines.keyspace.registry import ALL_KEYS, CommandTable
from minidist.engines.keyspace.session import Session, Transaction
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import OK, array, null_array

TABLE = CommandTable()
command = TABLE.command


@command(
    "MULTI", arity=1, flags="noscript loading stale fast allow_busy", since="1.2.0", group="transactions",
    summary="Starts a transaction.",
)  # fmt: skip
def multi(session: Session, args: Arguments, now_ms: int) -> bytes:
    if session.transaction is not None:
        raise CommandError("ERR MULTI calls can not be nested")
    session.transaction = Transaction()
    session.regate()
    return OK


@command(
    "EXEC", arity=1, flags="noscript loading stale skip_slowlog", since="1.2.0", group="transactions",
    summary="Executes all commands in a transaction.", complexity="Depends on commands in the transaction",
)  # fmt: skip
def exec_(session: Session, args: Arguments, now_ms: int) -> bytes:
    transaction = session.transaction
    if transaction is None:
        raise CommandError("ERR EXEC without MULTI")
    changed = session.watched_changed(now_ms)
    session.leave_transaction()
    if transaction.refused:
        raise CommandError(EXEC_ABORT)
    if changed:
        return null_array(session.resp3)
    service = session.service
    session.executing = True
    replies = []
    for queued, queued_args in transaction.commands:
        try:
            if session.user.restricted:
                service.authorise(session, queued, queued_args, now_ms, "exec")
            replies.append(service.call(session, queued, queued_args, now_ms))
        except CommandError as problem:
            queued.failed_calls += 1
            replies.append(service.error_reply(problem))
    session.executing = False
    return array(replies)


@command(
    "DISCARD", arity=1, flags="noscript loading stale fast allow_busy", since="2.0.0", group="transactions",
    summary="Discards a transaction.", complexity="O(N) where N is the number of queued commands",
)  # fmt: skip
def discard(session: Session, args: Arguments, now_ms: int) -> bytes:
    if session.transaction is None:
        raise CommandError("ERR DISCARD without MULTI")
    session.leave_transaction()
    return OK


@command(
    "WATCH", arity=-2, flags="noscript loading stale fast allow_busy", keys=ALL_KEYS, since="2.2.0",
    group="transactions", summary="Monitors changes to keys to determine the execution of a transaction.",
    complexity="O(1) for every key",
)  # fmt: skip
def watch(session: Session, args: Arguments, now_ms: int) -> bytes:
    if session.transaction is not None:
        raise CommandError("ERR WATCH inside MULTI is not allowed")
    for key in args[1:]:
        session.watch(key, now_ms)
    return OK


@command(
    "UNWATCH", arity=1, flags="noscript loading stale fast allow_busy", since="2.2.0", group="transactions",
    summary="Forgets about watched keys of a transaction.",
)  # fmt: skip
def unwatch(session: Session, args: Arguments, now_ms: int) -> bytes:
    session.unwatch()
    return OK
