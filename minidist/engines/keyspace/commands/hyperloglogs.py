"""HyperLogLogs: strings in Redis' own form (structures/hyperloglog.py), so that GET, SET and DUMP carry them."""

from minidist.engines.keyspace import events
from minidist.engines.keyspace.errors import WRONG_TYPE, CommandError
from minidist.engines.keyspace.registry import ALL_KEYS, FIRST_KEY, CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.tables import Entry
from minidist.engines.keyspace.texts import change, is_string
from minidist.structures.hyperloglog import (
    EMPTY,
    STALE,
    CorruptHyperLogLog,
    dense,
    estimate,
    is_dense,
    is_hyperloglog,
    known_estimate,
    merged,
    raised,
    register_of,
    registers,
)
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import OK, ONE, ZERO
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

HEADER_ESTIMATE = 8
HEADER_STALE = 15


def _checked(entry: Entry | None) -> Entry | None:
    """The same entry. Raises CommandError if it is something else."""
    if entry is not None:
        if not is_string(entry):
            raise CommandError(WRONG_TYPE)
        if not is_hyperloglog(entry.value):
            raise CommandError("WRONGTYPE Key is not a valid HyperLogLog string value.")
    return entry


def _registers(entry: Entry) -> bytes:
    """Raises CommandError."""
    try:
        return registers(entry.value)
    except CorruptHyperLogLog:
        raise CommandError("INVALIDOBJ Corrupted HLL object detected") from None


@command(
    "PFADD", arity=-2, flags="write denyoom fast", keys=FIRST_KEY, since="2.8.9", group="hyperloglog",
    summary="Adds elements to a HyperLogLog key. Creates the key if it doesn't exist.",
)  # fmt: skip
def pfadd(session: Session, args: Arguments, now_ms: int) -> bytes:
    database, key = session.database, args[1]
    entry = _checked(database.find(key, now_ms))
    updated = entry is None
    if entry is None:
        entry = database.put(key, EMPTY, now_ms)
    elif len(args) > 2 and not is_dense(entry.value):
        database.replace(key, entry, dense(_registers(entry)))
    for element in args[2:]:
        found = raised(entry.value, *register_of(element))
        if found is not None:
            change(database, key, entry, *found)
            updated = True
    if not updated:
        return ZERO
    if len(args) > 2:
        change(database, key, entry, HEADER_STALE, bytes((entry.value[HEADER_STALE] | STALE,)))
    database.notify(events.STRING, b"pfadd", key)
    return ONE


@command(
    "PFCOUNT", arity=-2, flags="readonly", keys=ALL_KEYS, since="2.8.9", group="hyperloglog",
    summary="Returns the approximated cardinality of the set(s) observed by the HyperLogLog key(s).",
    complexity="O(1), O(N) for N keys",
)  # fmt: skip
def pfcount(session: Session, args: Arguments, now_ms: int) -> bytes:
    database = session.database
    entries = [_checked(database.read(key, now_ms)) for key in args[1:]]
    if len(entries) > 1:
        return integer_reply(estimate(merged([_registers(entry) for entry in entries if entry is not None])))
    entry = entries[0]
    if entry is None:
        return ZERO
    count = known_estimate(entry.value)
    if count is None:
        count = estimate(_registers(entry))
        change(database, args[1], entry, HEADER_ESTIMATE, count.to_bytes(8, "little"))
    return integer_reply(count)


@command(
    "PFMERGE", arity=-2, flags="write denyoom", keys=ALL_KEYS, since="2.8.9", group="hyperloglog",
    summary="Merges one or more HyperLogLog values into a single key.", complexity="O(N) to merge N HyperLogLogs",
)  # fmt: skip
def pfmerge(session: Session, args: Arguments, now_ms: int) -> bytes:
    database, target = session.database, args[1]
    entries = [_checked(database.find(key, now_ms)) for key in args[1:]]
    result = dense(merged([_registers(entry) for entry in entries if entry is not None]))
    if entries[0] is None:
        database.put(target, result, now_ms)
    else:
        database.replace(target, entries[0], result)
    database.notify(events.STRING, b"pfadd", target)
    return OK
