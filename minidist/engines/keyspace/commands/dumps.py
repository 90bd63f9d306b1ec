"""DUMP and RESTORE: values in Redis' own serialisation (serialisation.py)."""

from dataclasses import dataclass

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import FAR_FUTURE_MS, integer, option
from minidist.engines.keyspace.errors import SYNTAX, CommandError
from minidist.engines.keyspace.eviction import LFU_MOST
from minidist.engines.keyspace.hash_ttl import TimedHash
from minidist.engines.keyspace.rdb_strings import Malformed
from minidist.engines.keyspace.registry import FIRST_KEY, CommandTable
from minidist.engines.keyspace.serialisation import dump, is_whole, restore
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.tables import NEVER, Entry
from minidist.engines.keyspace.values import placed
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import OK, bulk

TABLE = CommandTable()
command = TABLE.command


@command(
    "DUMP", arity=2, flags="readonly", keys=FIRST_KEY, since="2.6.0", group="generic",
    summary="Returns a serialized representation of the value stored at a key.",
    complexity="O(N*M) where N is the number of elements of the value and M their average size",
)  # fmt: skip
def dump_(session: Session, args: Arguments, now_ms: int) -> bytes:
    entry = session.database.read(args[1], now_ms)
    value = None if entry is None else entry.value
    if entry is not None and isinstance(value, TimedHash):
        value = value.current(session.database, args[1], entry, now_ms)
    return session.null if value is None else bulk(dump(value))


@dataclass(slots=True)
class _Options:
    """What follows the payload; -1 where nothing was said."""

    replace: bool = False
    absolute: bool = False
    idle_s: int = -1
    uses: int = -1


@command(
    "RESTORE", arity=-4, flags="write denyoom", keys=FIRST_KEY, since="2.6.0", group="generic",
    summary="Creates a key from the serialized representation of a value.",
    complexity="O(N*M) where N is the number of elements of the value and M their average size, "
    "O(N*M*log(N)) for sorted sets",
)  # fmt: skip
def restore_(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, key, ttl, payload = args[:4]
    options = _read_options(args)
    database = session.database
    if not options.replace and database.find(key, now_ms) is not None:
        raise CommandError("BUSYKEY Target key name already exists.")
    expires_ms = _expiry(ttl, options, now_ms)
    if not is_whole(payload):
        raise CommandError("ERR DUMP payload version or checksum are wrong")
    try:
        value = restore(payload)
    except Malformed:
        raise CommandError("ERR Bad data format") from None
    replaced = database.delete(key, now_ms)
    if expires_ms <= now_ms:
        if replaced:
            database.notify(events.GENERIC, b"del", key)
        return OK
    _set_usage(session, database.put(key, value, now_ms, expires_ms), options, now_ms)
    placed(database, key, value)
    database.notify(events.GENERIC, b"restore", key)
    return OK


def _read_options(args: Arguments) -> _Options:
    """IDLETIME and FREQ exclude each other. Raises CommandError."""
    options = _Options()
    at = 4
    while at < len(args):
        word = option(args[at], (b"REPLACE", b"ABSTTL", b"IDLETIME", b"FREQ"))
        at += 1
        if word == b"REPLACE":
            options.replace = True
        elif word == b"ABSTTL":
            options.absolute = True
        elif at == len(args) or (options.uses if word == b"IDLETIME" else options.idle_s) >= 0:
            raise CommandError(SYNTAX)
        elif word == b"IDLETIME":
            options.idle_s = integer(args[at])
            if options.idle_s < 0:
                raise CommandError("ERR Invalid IDLETIME value, must be >= 0")
            at += 1
        else:
            options.uses = integer(args[at])
            if not 0 <= options.uses <= LFU_MOST:
                raise CommandError("ERR Invalid FREQ value, must be >= 0 and <= 255")
            at += 1
    return options


def _expiry(text: bytes, options: _Options, now_ms: int) -> int:
    """The service time at which the key expires, perhaps in the past; NEVER for 0. Raises CommandError."""
    ttl_ms = integer(text)
    if ttl_ms < 0:
        raise CommandError("ERR Invalid TTL value, must be >= 0")
    if ttl_ms == 0:
        return NEVER
    return min(ttl_ms if options.absolute else now_ms + ttl_ms, FAR_FUTURE_MS)


def _set_usage(session: Session, entry: Entry, options: _Options, now_ms: int) -> None:
    """How long ago, or how often, the key was used: the one that the eviction policy does not ask for is ignored."""
    if session.service.keyspace.evictor.policy.counts_uses:
        if options.uses >= 0:
            entry.mark = options.uses
    elif options.idle_s >= 0:
        entry.touched_ms = max(now_ms - options.idle_s * 1000, 0)
