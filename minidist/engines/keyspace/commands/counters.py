"""Counters: strings that hold a decimal number.

INCR and DECR look into the tables themselves, as GET and SET do, where a number is there that cannot overflow.
"""

import math
import re
from binascii import crc_hqx
from collections.abc import Sequence

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import LARGEST, SMALLEST, decimal, integer
from minidist.engines.keyspace.errors import CommandError
from minidist.engines.keyspace.registry import FIRST_KEY, CommandTable, Run
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.texts import text
from minidist.structures.slots import OPENING_BRACE, SLOT_MASK, key_slots, tagged_slot
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import bulk
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

is_counter = re.compile(rb"-?[1-9][0-9]{0,16}").fullmatch  # far from 2**63


def _incr_columns(session: Session, columns: Sequence[Sequence[bytes]], now_ms: int) -> tuple[int, bytes]:
    """INCRs of a pipeline, up to the first key that holds no plain number, or that somebody watches."""
    database, keyspace, keys = session.database, session.database.keyspace, columns[1]
    watches = database.watches
    if keyspace.notified:
        return 0, b""
    values: list[bytes] = []
    for key, slot in zip(keys, key_slots(keys), strict=True):
        entry = database.tables[slot].get(key)
        if keyspace.used_bytes > keyspace.limit_bytes or (watches and key in watches):
            break
        if entry is None:
            value = b"1"
            database.put(key, value, now_ms)
        else:
            before = entry.value
            if before.__class__ is not bytes or entry.expires_ms <= now_ms or not is_counter(before):
                break
            value = entry.value = b"%d" % (int(before) + 1)
            if len(value) != len(before):
                keyspace.used_bytes += len(value) - len(before)
            entry.touched_ms = now_ms
        values.append(value)
    return len(values), b":%b\r\n" % b"\r\n:".join(values) if values else b""


def _add(session: Session, key: bytes, amount: int, now_ms: int) -> bytes:
    database = session.database
    entry = database.find(key, now_ms)
    value = amount if entry is None else integer(text(entry)) + amount
    if not SMALLEST <= value <= LARGEST:
        raise CommandError("ERR increment or decrement would overflow")
    if entry is None:
        database.put(key, b"%d" % value, now_ms)
    else:
        database.replace(key, entry, b"%d" % value)
    if database.keyspace.notified:
        database.notify(events.STRING, b"incrby", key)
    return integer_reply(value)


def adder(amount: int) -> Run:
    """INCR or DECR."""

    def run(session: Session, args: Arguments, now_ms: int) -> bytes:
        key = args[1]
        database = session.database
        slot = (tagged_slot(key) if OPENING_BRACE in key else crc_hqx(key, 0)) & SLOT_MASK
        entry = database.tables[slot].get(key)
        if (
            entry is None
            or (before := entry.value).__class__ is not bytes
            or entry.expires_ms <= now_ms
            or not is_counter(before)
        ):
            return _add(session, key, amount, now_ms)
        value = entry.value = b"%d" % (int(before) + amount)
        entry.touched_ms = now_ms
        keyspace = database.keyspace
        if len(value) != len(before):
            keyspace.used_bytes += len(value) - len(before)
        if database.watches:
            database.changed(key)
        if keyspace.notified:
            database.notify(events.STRING, b"incrby", key)
        return b":%b\r\n" % value

    return run


command(
    "INCR", arity=2, flags="write denyoom fast", keys=FIRST_KEY, since="1.0.0", group="string",
    summary="Increments the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.",
    run_columns=_incr_columns,
)(adder(1))  # fmt: skip

command(
    "DECR", arity=2, flags="write denyoom fast", keys=FIRST_KEY, since="1.0.0", group="string",
    summary="Decrements the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.",
)(adder(-1))  # fmt: skip


@command(
    "INCRBY", arity=3, flags="write denyoom fast", keys=FIRST_KEY, since="1.0.0", group="string",
    summary="Increments the integer value of a key by a number. Uses 0 as initial value if the key doesn't exist.",
)  # fmt: skip
def incrby(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _add(session, args[1], integer(args[2]), now_ms)


@command(
    "DECRBY", arity=3, flags="write denyoom fast", keys=FIRST_KEY, since="1.0.0", group="string",
    summary="Decrements a number from the integer value of a key. Uses 0 as initial value if the key doesn't exist.",
)  # fmt: skip
def decrby(session: Session, args: Arguments, now_ms: int) -> bytes:
    amount = integer(args[2])
    if amount == SMALLEST:
        raise CommandError("ERR decrement would overflow")
    return _add(session, args[1], -amount, now_ms)


@command(
    "INCRBYFLOAT", arity=3, flags="write denyoom fast", keys=FIRST_KEY, since="2.6.0", group="string",
    summary="Increment the floating point value of a key by a number. Uses 0 if the key doesn't exist.",
)  # fmt: skip
def incrbyfloat(session: Session, args: Arguments, now_ms: int) -> bytes:
    database = session.database
    entry = database.find(args[1], now_ms)
    value = b"0" if entry is None else text(entry)
    result = add_decimals(value, args[2])
    if entry is None:
        database.put(args[1], result, now_ms)
    else:
        database.replace(args[1], entry, result)
    database.notify(events.STRING, b"incrbyfloat", args[1])
    return bulk(result)


def add_decimals(value: bytes, amount: bytes) -> bytes:
    """The sum as text, exact in decimal where doubles would show 0.30000000000000004. Raises CommandError.

    Redis adds long doubles and prints up to 17 digits after the point, without trailing zeros.
    """
    from decimal import Context, Decimal  # 2 ms to import, for one command

    if not math.isfinite(decimal(value) + decimal(amount)):
        raise CommandError("ERR increment would produce NaN or Infinity")
    arithmetic = Context(prec=40)
    exact = arithmetic.add(Decimal(value.decode()), Decimal(amount.decode()))
    if abs(exact) < 10**20:
        exact = exact.quantize(Decimal(1).scaleb(-17), context=arithmetic)
    shown = f"{exact:f}"
    if "." in shown:
        shown = shown.rstrip("0").rstrip(".")
    return b"0" if shown in ("-0", "") else shown.encode()
