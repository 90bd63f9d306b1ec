"""Lifetimes of keys. All times are service time; a lifetime that has already passed deletes the key at once."""

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import FAR_FUTURE_MS, LARGEST, SMALLEST, integer
from minidist.engines.keyspace.errors import CommandError, printable
from minidist.engines.keyspace.registry import FIRST_KEY, CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.tables import NEVER
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import ONE, ZERO
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

CONDITIONS = (b"NX", b"XX", b"GT", b"LT")
NO_KEY = integer_reply(-2)
NO_EXPIRY = integer_reply(-1)


def _expire(session: Session, args: Arguments, now_ms: int, unit_ms: int, base_ms: int) -> bytes:
    conditions = _conditions(args)
    given = integer(args[2])
    expires_ms = given * unit_ms + base_ms
    if not SMALLEST <= given * unit_ms <= LARGEST or expires_ms > LARGEST:
        raise CommandError(f"ERR invalid expire time in '{args[0].decode('latin-1').lower()}' command")
    expires_ms = min(expires_ms, FAR_FUTURE_MS)
    database, key = session.database, args[1]
    entry = database.find(key, now_ms)
    if entry is None or not allowed(conditions, entry.expires_ms, expires_ms):
        return ZERO
    if expires_ms <= now_ms:
        database.remove(key)
        database.notify(events.GENERIC, b"del", key)
        return ONE
    database.set_expiry(key, entry, expires_ms)
    database.changed(key)
    database.notify(events.GENERIC, b"expire", key)
    return ONE


def _conditions(args: Arguments) -> list[bytes]:
    conditions = [word.upper() for word in args[3:]]
    for given, word in zip(args[3:], conditions, strict=True):
        if word not in CONDITIONS:
            raise CommandError(f"ERR Unsupported option {printable(given)}")
    if b"NX" in conditions and len(set(conditions)) > 1:
        raise CommandError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if b"GT" in conditions and b"LT" in conditions:
        raise CommandError("ERR GT and LT options at the same time are not compatible")
    return conditions


def allowed(conditions: list[bytes], before_ms: int, expires_ms: int) -> bool:
    """Whether NX, XX, GT and LT permit the change; a key without a lifetime counts as living for ever."""
    return not (
        (b"NX" in conditions and before_ms != NEVER)
        or (b"XX" in conditions and before_ms == NEVER)
        or (b"GT" in conditions and expires_ms <= before_ms)
        or (b"LT" in conditions and expires_ms >= before_ms)
    )


@command(
    "EXPIRE", arity=-3, flags="write fast", keys=FIRST_KEY, since="1.0.0", group="generic",
    summary="Sets the expiration time of a key in seconds.",
)  # fmt: skip
def expire(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _expire(session, args, now_ms, 1000, now_ms)


@command(
    "PEXPIRE", arity=-3, flags="write fast", keys=FIRST_KEY, since="2.6.0", group="generic",
    summary="Sets the expiration time of a key in milliseconds.",
)  # fmt: skip
def pexpire(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _expire(session, args, now_ms, 1, now_ms)


@command(
    "EXPIREAT", arity=-3, flags="write fast", keys=FIRST_KEY, since="1.2.0", group="generic",
    summary="Sets the expiration time of a key to a Unix timestamp.",
)  # fmt: skip
def expireat(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _expire(session, args, now_ms, 1000, 0)


@command(
    "PEXPIREAT", arity=-3, flags="write fast", keys=FIRST_KEY, since="2.6.0", group="generic",
    summary="Sets the expiration time of a key to a Unix milliseconds timestamp.",
)  # fmt: skip
def pexpireat(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _expire(session, args, now_ms, 1, 0)


@command(
    "PERSIST", arity=2, flags="write fast", keys=FIRST_KEY, since="2.2.0", group="generic",
    summary="Removes the expiration time of a key.",
)  # fmt: skip
def persist(session: Session, args: Arguments, now_ms: int) -> bytes:
    entry = session.database.find(args[1], now_ms)
    if entry is None or entry.expires_ms == NEVER:
        return ZERO
    session.database.set_expiry(args[1], entry, NEVER)
    session.database.changed(args[1])
    session.database.notify(events.GENERIC, b"persist", args[1])
    return ONE


def _moment(session: Session, key: bytes, now_ms: int) -> int | bytes:
    """When a key expires, or the reply that says it does not."""
    entry = session.database.peek(key, now_ms)
    if entry is None:
        return NO_KEY
    return NO_EXPIRY if entry.expires_ms == NEVER else entry.expires_ms


@command(
    "TTL", arity=2, flags="readonly fast", keys=FIRST_KEY, since="1.0.0", group="generic",
    summary="Returns the expiration time in seconds of a key.",
)  # fmt: skip
def ttl(session: Session, args: Arguments, now_ms: int) -> bytes:
    moment = _moment(session, args[1], now_ms)
    return integer_reply((moment - now_ms + 500) // 1000) if isinstance(moment, int) else moment


@command(
    "PTTL", arity=2, flags="readonly fast", keys=FIRST_KEY, since="2.6.0", group="generic",
    summary="Returns the expiration time in milliseconds of a key.",
)  # fmt: skip
def pttl(session: Session, args: Arguments, now_ms: int) -> bytes:
    moment = _moment(session, args[1], now_ms)
    return integer_reply(moment - now_ms) if isinstance(moment, int) else moment


@command(
    "EXPIRETIME", arity=2, flags="readonly fast", keys=FIRST_KEY, since="7.0.0", group="generic",
    summary="Returns the expiration time of a key as a Unix timestamp.",
)  # fmt: skip
def expiretime(session: Session, args: Arguments, now_ms: int) -> bytes:
    moment = _moment(session, args[1], now_ms)
    return integer_reply((moment + 500) // 1000) if isinstance(moment, int) else moment


@command(
    "PEXPIRETIME", arity=2, flags="readonly fast", keys=FIRST_KEY, since="7.0.0", group="generic",
    summary="Returns the expiration time of a key as a Unix milliseconds timestamp.",
)  # fmt: skip
def pexpiretime(session: Session, args: Arguments, now_ms: int) -> bytes:
    moment = _moment(session, args[1], now_ms)
    return integer_reply(moment) if isinstance(moment, int) else moment
