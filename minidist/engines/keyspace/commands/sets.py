"""Sets, and what can be made of several.

SPOP and SRANDMEMBER choose by the keyspace's own random source, so that a seeded run repeats itself.
"""

from collections.abc import Iterable, Sequence

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import count_argument
from minidist.engines.keyspace.errors import SYNTAX, CommandError
from minidist.engines.keyspace.member_arguments import limit_option, repeatable_count, scan_reply
from minidist.engines.keyspace.registry import ALL_KEYS, COUNTED_KEYS, FIRST_KEY, TWO_KEYS, CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.sets import Set, difference, intersection, union
from minidist.engines.keyspace.values import changing, find, look, make, settle, store
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import EMPTY_ARRAY, ONE, ZERO, array, bulk, bulks, set_header
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command


def _set_reply(session: Session, members: Iterable[bytes], count: int) -> bytes:
    return set_header(count, session.resp3) + b"".join([bulk(member) for member in members])


# --- one set ----------------------------------------------------------------------------------------------------------


def _sadd_columns(session: Session, columns: Sequence[Sequence[bytes]], now_ms: int) -> tuple[int, bytes]:
    """SADDs of one member in a pipeline."""
    _, keys, members = columns
    pairs = zip(changing(session, keys, now_ms, Set), members, strict=False)
    replies = [ONE if value.add(member) else ZERO for value, member in pairs]
    return len(replies), b"".join(replies)


@command(
    "SADD", arity=-3, flags="write denyoom fast", keys=FIRST_KEY, since="1.0.0", group="set",
    summary="Adds one or more members to a set. Creates the key if it doesn't exist.",
    complexity="O(1) for each member added", run_columns=_sadd_columns,
)  # fmt: skip
def sadd(session: Session, args: Arguments, now_ms: int) -> bytes:
    key = args[1]
    members = make(session, key, now_ms, Set)
    before_bytes, before_count = members.memory_bytes, len(members)
    for member in args[2:]:
        members.add(member)
    added = len(members) - before_count
    if added:
        settle(session.database, key, members, before_bytes, events.SET, b"sadd")
    return integer_reply(added)


@command(
    "SREM", arity=-3, flags="write fast", keys=FIRST_KEY, since="1.0.0", group="set",
    summary="Removes one or more members from a set. Deletes the set if the last member was removed.",
    complexity="O(N) where N is the number of members to be removed",
)  # fmt: skip
def srem(session: Session, args: Arguments, now_ms: int) -> bytes:
    key = args[1]
    members = find(session, key, now_ms, Set)
    if members is None:
        return ZERO
    return integer_reply(_remove(session, key, members, args[2:], b"srem", now_ms))


def _remove(session: Session, key: bytes, members: Set, leaving: Sequence[bytes], event: bytes, now_ms: int) -> int:
    """Take members out, as far as they are there; how many were."""
    before_bytes, before_count = members.memory_bytes, len(members)
    for member in leaving:
        members.remove(member)
    removed = before_count - len(members)
    if removed:
        settle(session.database, key, members, before_bytes, events.SET, event)
    return removed


@command(
    "SISMEMBER", arity=3, flags="readonly fast", keys=FIRST_KEY, since="1.0.0", group="set",
    summary="Determines whether a member belongs to a set.",
)  # fmt: skip
def sismember(session: Session, args: Arguments, now_ms: int) -> bytes:
    members = look(session, args[1], now_ms, Set)
    return ONE if members is not None and args[2] in members else ZERO


@command(
    "SMISMEMBER", arity=-3, flags="readonly fast", keys=FIRST_KEY, since="6.2.0", group="set",
    summary="Determines whether multiple members belong to a set.",
    complexity="O(N) where N is the number of members being checked",
)  # fmt: skip
def smismember(session: Session, args: Arguments, now_ms: int) -> bytes:
    members = look(session, args[1], now_ms, Set)
    if members is None:
        return array([ZERO] * (len(args) - 2))
    return array([ONE if member in members else ZERO for member in args[2:]])


@command(
    "SMEMBERS", arity=2, flags="readonly", keys=FIRST_KEY, since="1.0.0", group="set",
    summary="Returns all members of a set.", complexity="O(N) where N is the set cardinality",
)  # fmt: skip
def smembers(session: Session, args: Arguments, now_ms: int) -> bytes:
    members = look(session, args[1], now_ms, Set) or ()
    return _set_reply(session, members, len(members))


@command(
    "SCARD", arity=2, flags="readonly fast", keys=FIRST_KEY, since="1.0.0", group="set",
    summary="Returns the number of members in a set.",
)  # fmt: skip
def scard(session: Session, args: Arguments, now_ms: int) -> bytes:
    return integer_reply(len(look(session, args[1], now_ms, Set) or ()))


@command(
    "SPOP", arity=-2, flags="write fast", keys=FIRST_KEY, since="1.0.0", group="set",
    summary="Returns one or more random members from a set after removing them. "
    "Deletes the set if the last member was popped.",
    complexity="O(N) where N is the number of members popped",
)  # fmt: skip
def spop(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) > 3:
        raise CommandError(SYNTAX)
    key, rng = args[1], session.database.keyspace.random
    if len(args) == 2:
        members = find(session, key, now_ms, Set)
        if members is None:
            return session.null
        chosen = [members.choose(rng)]
    else:
        count = count_argument(args[2], "ERR value is out of range, must be positive")
        members = find(session, key, now_ms, Set)
        if members is None or count == 0:
            return set_header(0, session.resp3)
        chosen = list(members) if count >= len(members) else members.sample(rng, count)
    _remove(session, key, members, chosen, b"spop", now_ms)
    return bulk(chosen[0]) if len(args) == 2 else _set_reply(session, chosen, len(chosen))


@command(
    "SRANDMEMBER", arity=-2, flags="readonly", keys=FIRST_KEY, since="1.0.0", group="set",
    summary="Returns one or multiple random members from a set.",
    complexity="O(N) where N is the absolute value of the passed count",
)  # fmt: skip
def srandmember(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) > 3:
        raise CommandError(SYNTAX)
    rng = session.database.keyspace.random
    if len(args) == 2:
        members = look(session, args[1], now_ms, Set)
        return session.null if members is None else bulk(members.choose(rng))
    count = repeatable_count(args[2])
    members = look(session, args[1], now_ms, Set)
    if members is None or count == 0:
        return EMPTY_ARRAY
    if count < 0:
        return bulks(members.choose_again_and_again(rng, -count))
    return bulks(members if count >= len(members) else members.sample(rng, count))


@command(
    "SMOVE", arity=4, flags="write fast", keys=TWO_KEYS, since="1.0.0", group="set",
    summary="Moves a member from one set to another.",
)  # fmt: skip
def smove(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, source_key, target_key, member = args
    source = find(session, source_key, now_ms, Set)
    if source is None:
        return ZERO
    target = find(session, target_key, now_ms, Set)
    if member not in source:
        return ZERO
    if source is target:
        return ONE
    _remove(session, source_key, source, (member,), b"srem", now_ms)
    target = make(session, target_key, now_ms, Set)
    before_bytes = target.memory_bytes
    if target.add(member):
        settle(session.database, target_key, target, before_bytes, events.SET, b"sadd")
    return ONE


@command(
    "SSCAN", arity=-3, flags="readonly", keys=FIRST_KEY, since="2.8.0", group="set",
    summary="Iterates over members of a set.",
    complexity="O(1) for every call. O(N) for a complete iteration",
)  # fmt: skip
def sscan(session: Session, args: Arguments, now_ms: int) -> bytes:
    return scan_reply(session, args, now_ms, Set, lambda member, _: (member,))


# --- several sets -----------------------------------------------------------------------------------------------------


def _sets(session: Session, keys: Sequence[bytes], now_ms: int) -> list[Set | None]:
    """Raises CommandError if one is of another type."""
    return [look(session, key, now_ms, Set) for key in keys]


def _put(session: Session, key: bytes, members: Set, event: bytes, now_ms: int) -> bytes:
    store(session.database, key, members, events.SET, event, now_ms)
    return integer_reply(len(members))


@command(
    "SINTER", arity=-2, flags="readonly", keys=ALL_KEYS, since="1.0.0", group="set",
    summary="Returns the intersect of multiple sets.",
    complexity="O(N*M) worst case where N is the cardinality of the smallest set and M is the number of sets",
)  # fmt: skip
def sinter(session: Session, args: Arguments, now_ms: int) -> bytes:
    found = intersection(_sets(session, args[1:], now_ms))
    return _set_reply(session, found, len(found))


@command(
    "SINTERSTORE", arity=-3, flags="write denyoom", keys=ALL_KEYS, since="1.0.0", group="set",
    summary="Stores the intersect of multiple sets in a key.",
    complexity="O(N*M) worst case where N is the cardinality of the smallest set and M is the number of sets",
)  # fmt: skip
def sinterstore(session: Session, args: Arguments, now_ms: int) -> bytes:
    found = intersection(_sets(session, args[2:], now_ms))
    return _put(session, args[1], Set.of(found), b"sinterstore", now_ms)


@command(
    "SINTERCARD", arity=-3, flags="readonly movablekeys", keys=COUNTED_KEYS, since="7.0.0", group="set",
    summary="Returns the number of members of the intersect of multiple sets.",
    complexity="O(N*M) worst case where N is the cardinality of the smallest set and M is the number of sets",
)  # fmt: skip
def sintercard(session: Session, args: Arguments, now_ms: int) -> bytes:
    count = count_argument(args[1], "ERR numkeys should be greater than 0")
    if count == 0:
        raise CommandError("ERR numkeys should be greater than 0")
    if count > len(args) - 2:
        raise CommandError("ERR Number of keys can't be greater than number of args")
    most = limit_option(args, 2 + count)
    return integer_reply(len(intersection(_sets(session, args[2 : 2 + count], now_ms), most)))


@command(
    "SUNION", arity=-2, flags="readonly", keys=ALL_KEYS, since="1.0.0", group="set",
    summary="Returns the union of multiple sets.",
    complexity="O(N) where N is the total number of elements in all given sets",
)  # fmt: skip
def sunion(session: Session, args: Arguments, now_ms: int) -> bytes:
    found = union(_sets(session, args[1:], now_ms))
    return _set_reply(session, found, len(found))


@command(
    "SUNIONSTORE", arity=-3, flags="write denyoom", keys=ALL_KEYS, since="1.0.0", group="set",
    summary="Stores the union of multiple sets in a key.",
    complexity="O(N) where N is the total number of elements in all given sets",
)  # fmt: skip
def sunionstore(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _put(session, args[1], union(_sets(session, args[2:], now_ms)), b"sunionstore", now_ms)


@command(
    "SDIFF", arity=-2, flags="readonly", keys=ALL_KEYS, since="1.0.0", group="set",
    summary="Returns the difference of multiple sets.",
    complexity="O(N*M) worst case where N is the cardinality of the first set and M is the number of sets",
)  # fmt: skip
def sdiff(session: Session, args: Arguments, now_ms: int) -> bytes:
    found = difference(_sets(session, args[1:], now_ms))
    return _set_reply(session, found, len(found))


@command(
    "SDIFFSTORE", arity=-3, flags="write denyoom", keys=ALL_KEYS, since="1.0.0", group="set",
    summary="Stores the difference of multiple sets in a key.",
    complexity="O(N*M) worst case where N is the cardinality of the first set and M is the number of sets",
)  # fmt: skip
def sdiffstore(session: Session, args: Arguments, now_ms: int) -> bytes:
    found = difference(_sets(session, args[2:], now_ms))
    return _put(session, args[1], Set.of(found), b"sdiffstore", now_ms)
