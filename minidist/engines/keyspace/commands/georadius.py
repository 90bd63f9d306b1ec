"""GEORADIUS and GEORADIUSBYMEMBER: GEOSEARCH's older forms (deprecated since 6.2), which clients still send.

A circle around a place or a member, with GEOSEARCH's options; STORE and STOREDIST keep the result in a sorted set, and
the `_RO` forms, for replicas, have neither.
"""

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import integer
from minidist.engines.keyspace.commands.geo import SHOWN, Search, find_places, place, read_radius, search_reply, stored
from minidist.engines.keyspace.errors import SYNTAX, CommandError
from minidist.engines.keyspace.geo import decode
from minidist.engines.keyspace.registry import FIRST_KEY, CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.sortedsets import SortedSet
from minidist.engines.keyspace.values import look, store
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import EMPTY_ARRAY, ZERO
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

COST = "O(N+log(M)) where N is the number of elements in the cells around the circle, and M the number of items"


def _run(session: Session, args: Arguments, now_ms: int, *, of_member: bool, may_store: bool) -> bytes:
    value = look(session, args[1], now_ms, SortedSet)
    search = Search()
    at = 5 if of_member else 6
    if of_member:
        if value is not None:
            score = value.score(args[2])
            if score is None:
                raise CommandError("ERR could not decode requested zset member")
            search.middle = decode(score)
    else:
        search.middle = place(args[2], args[3])
    if value is not None or not of_member:  # Redis does not look at the radius around a member that cannot be there
        read_radius(search, args[at - 2], args[at - 1])
    target = _read_options(search, args, at, may_store)
    if target is not None:
        found = [] if value is None else find_places(value, search)
        result = stored(found, search)
        store(session.database, target, result, events.SORTED_SET, b"georadiusstore", now_ms)
        return integer_reply(len(result)) if len(result) else ZERO
    return EMPTY_ARRAY if value is None else search_reply(find_places(value, search), search, session.resp3)


def _read_options(search: Search, args: Arguments, at: int, may_store: bool) -> bytes | None:
    """The options from argument `at` on; the key to store in, if one is named: the last one. Raises CommandError."""
    target = None
    while at < len(args):
        word, has_more = args[at].upper(), at + 1 < len(args)
        at += 1
        if word in (b"ANY", b"ASC", b"DESC", *SHOWN):
            search.words[word] = None
        elif word == b"COUNT" and has_more:
            search.count = integer(args[at])
            if search.count <= 0:
                raise CommandError("ERR COUNT must be > 0")
            at += 1
        elif word in (b"STORE", b"STOREDIST") and has_more and may_store:
            search.words.pop(b"STOREDIST", None)
            search.words[word] = None
            target = args[at]
            at += 1
        else:
            raise CommandError(SYNTAX)
    if target is not None and SHOWN & search.words.keys():
        raise CommandError(
            "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
        )
    if b"ANY" in search.words and not search.count:
        raise CommandError("ERR the ANY argument requires COUNT argument")
    return target


@command(
    "GEORADIUS", arity=-6, flags="write denyoom movablekeys", keys=FIRST_KEY, since="3.2.0", group="geo",
    summary="Queries a geospatial index for members within a distance from a coordinate, optionally stores the result.",
    complexity=COST,
)  # fmt: skip
def georadius(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _run(session, args, now_ms, of_member=False, may_store=True)


@command(
    "GEORADIUS_RO", arity=-6, flags="readonly", keys=FIRST_KEY, since="3.2.10", group="geo",
    summary="Returns members from a geospatial index that are within a distance from a coordinate.", complexity=COST,
)  # fmt: skip
def georadius_ro(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _run(session, args, now_ms, of_member=False, may_store=False)


@command(
    "GEORADIUSBYMEMBER", arity=-5, flags="write denyoom movablekeys", keys=FIRST_KEY, since="3.2.0", group="geo",
    summary="Queries a geospatial index for members within a distance from a member, optionally stores the result.",
    complexity=COST,
)  # fmt: skip
def georadiusbymember(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _run(session, args, now_ms, of_member=True, may_store=True)


@command(
    "GEORADIUSBYMEMBER_RO", arity=-5, flags="readonly", keys=FIRST_KEY, since="3.2.10", group="geo",
    summary="Returns members from a geospatial index that are within a distance from a member.", complexity=COST,
)  # fmt: skip
def georadiusbymember_ro(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _run(session, args, now_ms, of_member=True, may_store=False)
