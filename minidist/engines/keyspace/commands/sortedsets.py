"""Sorted sets: adding, removing, and what concerns single members. Ranges are in sortedset_ranges.py, what combines
several sets in sortedset_combinations.py, what takes members out in their order in sortedset_pops.py.

ZADD of one member, without options, is what a sorted set is mostly asked and takes no other way than it must. All that
is given is read before a key is looked at, so a command that fails changes nothing; a command that changes no score
tells nobody.
"""

import math
from binascii import crc_hqx
from collections.abc import Sequence

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import LARGEST
from minidist.engines.keyspace.errors import SYNTAX, CommandError, wrong_arity
from minidist.engines.keyspace.member_arguments import repeatable_count, scan_reply
from minidist.engines.keyspace.registry import FIRST_KEY, CommandTable, Run
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.sortedset_arguments import (
    NOT_A_NUMBER,
    is_plain,
    member_range,
    range_reply,
    score_argument,
    score_range,
)
from minidist.engines.keyspace.sortedsets import MemberRange, ScoreRange, SortedSet
from minidist.engines.keyspace.values import changing, find, look, make, settle
from minidist.structures.slots import OPENING_BRACE, SLOT_MASK, tagged_slot
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import EMPTY_ARRAY, ONE, ZERO, array, bulk, double, double_text, null_array
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

ADD_OPTIONS = frozenset({b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"})


# --- adding and removing --------------------------------------------------------------------------------------------


def _zadd_columns(session: Session, columns: Sequence[Sequence[bytes]], now_ms: int) -> tuple[int, bytes]:
    """ZADDs of one member without options in a pipeline, if all scores are plain numbers."""
    _, keys, texts, members = columns
    if not all(map(is_plain, texts)):
        return 0, b""
    pairs = zip(changing(session, keys, now_ms, SortedSet), map(float, texts), members, strict=False)
    replies = [ONE if value.put(member, score) is None else ZERO for value, score, member in pairs]
    return len(replies), b"".join(replies)


@command(
    "ZADD", arity=-4, flags="write denyoom fast", keys=FIRST_KEY, since="1.2.0", group="sorted-set",
    summary="Adds one or more members to a sorted set, or updates their scores. Creates the key if it doesn't exist.",
    complexity="O(log(N)) for each item added, where N is the number of elements in the sorted set",
    run_columns=_zadd_columns,
)  # fmt: skip
def zadd(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) != 4 or args[2] >= b"A":  # options, or inf
        return _zadd_with_options(session, args, now_ms)
    _, key, text, member = args
    score = float(text) if is_plain(text) else score_argument(text)
    database = session.database
    slot = (tagged_slot(key) if OPENING_BRACE in key else crc_hqx(key, 0)) & SLOT_MASK
    entry = database.tables[slot].get(key)
    if entry is None or entry.value.__class__ is not SortedSet or entry.expires_ms <= now_ms:
        value = make(session, key, now_ms, SortedSet)
    else:
        entry.touched_ms = now_ms
        value = entry.value
    before_bytes = value.memory_bytes
    before = value.put(member, score)
    if before != score:
        keyspace = database.keyspace
        keyspace.used_bytes += value.memory_bytes - before_bytes
        if database.watches:
            database.changed(key)
        if keyspace.notified:
            database.notify(events.SORTED_SET, b"zadd", key)
    return ONE if before is None else ZERO


def _zadd_with_options(session: Session, args: Arguments, now_ms: int) -> bytes:
    words, at = _add_options(args)
    scores = [score_argument(text) for text in args[at::2]]
    key = args[1]
    if b"XX" in words:
        value = find(session, key, now_ms, SortedSet)
    else:
        value = make(session, key, now_ms, SortedSet)
    if b"INCR" in words:
        return _increment(session, key, value, args[-1], scores[0], words, now_ms)
    if value is None:
        return ZERO
    added = updated = 0
    before_bytes = value.memory_bytes
    for score, member in zip(scores, args[at + 1 :: 2], strict=True):
        before = value.score(member) if words else None
        if words and not _wanted(before, score, words):
            continue
        before = value.put(member, score)
        added += before is None
        updated += before is not None and before != score
    if added or updated:
        settle(session.database, key, value, before_bytes, events.SORTED_SET, b"zadd")
    return integer_reply(added + updated if b"CH" in words else added)


def _add_options(args: Arguments) -> tuple[set[bytes], int]:
    """The option words of ZADD, and where scores and members begin. Raises CommandError."""
    words: set[bytes] = set()
    at = 2
    while at < len(args) and (word := args[at].upper()) in ADD_OPTIONS:
        words.add(word)
        at += 1
    if at == len(args) or (len(args) - at) % 2:
        raise CommandError(SYNTAX)
    if {b"NX", b"XX"} <= words:
        raise CommandError("ERR XX and NX options at the same time are not compatible")
    if len(words & {b"NX", b"GT", b"LT"}) > 1:
        raise CommandError("ERR GT, LT, and/or NX options at the same time are not compatible")
    if b"INCR" in words and len(args) - at > 2:
        raise CommandError("ERR INCR option supports a single increment-element pair")
    return words, at


def _wanted(before: float | None, score: float, words: set[bytes]) -> bool:
    """Whether the options let a member that had the score `before` get this one."""
    if before is None:
        return b"XX" not in words
    return not (b"NX" in words or (b"GT" in words and score <= before) or (b"LT" in words and score >= before))


def _increment(
    session: Session, key: bytes, value: SortedSet | None, member: bytes, by: float, words: set[bytes], now_ms: int
) -> bytes:
    """Add to the score of a member, which counts as 0 where it is not there; the new score, or null if not wanted."""
    if value is None:
        return session.null
    before = value.score(member)
    score = by if before is None else before + by
    if not _wanted(before, score, words):
        return session.null
    if math.isnan(score):
        raise CommandError(NOT_A_NUMBER)
    before_bytes = value.memory_bytes
    value.put(member, score)
    if before != score:
        settle(session.database, key, value, before_bytes, events.SORTED_SET, b"zincr")
    return double(score, session.resp3)


@command(
    "ZINCRBY", arity=4, flags="write denyoom fast", keys=FIRST_KEY, since="1.2.0", group="sorted-set",
    summary="Increments the score of a member in a sorted set.",
    complexity="O(log(N)) where N is the number of elements in the sorted set",
)  # fmt: skip
def zincrby(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, key, text, member = args
    by = score_argument(text)
    value = make(session, key, now_ms, SortedSet)
    return _increment(session, key, value, member, by, set(), now_ms)


@command(
    "ZREM", arity=-3, flags="write fast", keys=FIRST_KEY, since="1.2.0", group="sorted-set",
    summary="Removes one or more members from a sorted set. Deletes the sorted set if all members were removed.",
    complexity="O(M*log(N)) with N being the number of elements in the sorted set and M the number of elements to be "
    "removed",
)  # fmt: skip
def zrem(session: Session, args: Arguments, now_ms: int) -> bytes:
    key = args[1]
    value = find(session, key, now_ms, SortedSet)
    if value is None:
        return ZERO
    before_bytes = value.memory_bytes
    removed = sum([value.remove(member) for member in args[2:]])
    if removed:
        settle(session.database, key, value, before_bytes, events.SORTED_SET, b"zrem")
    return integer_reply(removed)


# --- single members -------------------------------------------------------------------------------------------------


@command(
    "ZCARD", arity=2, flags="readonly fast", keys=FIRST_KEY, since="1.2.0", group="sorted-set",
    summary="Returns the number of members in a sorted set.",
)  # fmt: skip
def zcard(session: Session, args: Arguments, now_ms: int) -> bytes:
    value = look(session, args[1], now_ms, SortedSet)
    return ZERO if value is None else integer_reply(len(value))


@command(
    "ZSCORE", arity=3, flags="readonly fast", keys=FIRST_KEY, since="1.2.0", group="sorted-set",
    summary="Returns the score of a member in a sorted set.",
)  # fmt: skip
def zscore(session: Session, args: Arguments, now_ms: int) -> bytes:
    value = look(session, args[1], now_ms, SortedSet)
    score = None if value is None else value.score(args[2])
    return session.null if score is None else double(score, session.resp3)


@command(
    "ZMSCORE", arity=-3, flags="readonly fast", keys=FIRST_KEY, since="6.2.0", group="sorted-set",
    summary="Returns the score of one or more members in a sorted set.",
    complexity="O(N) where N is the number of members being requested",
)  # fmt: skip
def zmscore(session: Session, args: Arguments, now_ms: int) -> bytes:
    value = look(session, args[1], now_ms, SortedSet)
    scores = [None if value is None else value.score(member) for member in args[2:]]
    return array([session.null if score is None else double(score, session.resp3) for score in scores])


def ranking(backward: bool) -> Run:
    """ZRANK or ZREVRANK."""
    name = "zrevrank" if backward else "zrank"

    def run(session: Session, args: Arguments, now_ms: int) -> bytes:
        if len(args) > 4:
            raise wrong_arity(name)
        with_score = len(args) == 4
        if with_score and args[3].upper() != b"WITHSCORE":
            raise CommandError(SYNTAX)
        value = look(session, args[1], now_ms, SortedSet)
        rank = None if value is None else value.rank(args[2])
        if value is None or rank is None:
            return null_array(session.resp3) if with_score else session.null
        reply = integer_reply(len(value) - 1 - rank if backward else rank)
        if not with_score:
            return reply
        score = value.score(args[2])
        assert score is not None
        return b"*2\r\n" + reply + double(score, session.resp3)

    return run


command(
    "ZRANK", arity=-3, flags="readonly fast", keys=FIRST_KEY, since="2.0.0", group="sorted-set",
    summary="Returns the index of a member in a sorted set ordered by ascending scores.",
    complexity="O(log(N))",
)(ranking(backward=False))  # fmt: skip
command(
    "ZREVRANK", arity=-3, flags="readonly fast", keys=FIRST_KEY, since="2.0.0", group="sorted-set",
    summary="Returns the index of a member in a sorted set ordered by descending scores.",
    complexity="O(log(N))",
)(ranking(backward=True))  # fmt: skip


# --- counting -------------------------------------------------------------------------------------------------------


def _count_of(session: Session, key: bytes, limits: ScoreRange | MemberRange, now_ms: int) -> bytes:
    value = look(session, key, now_ms, SortedSet)
    if value is None:
        return ZERO
    start, stop = value.positions(limits)
    return integer_reply(max(stop - start, 0))


@command(
    "ZCOUNT", arity=4, flags="readonly fast", keys=FIRST_KEY, since="2.0.0", group="sorted-set",
    summary="Returns the count of members in a sorted set that have scores within a range.",
    complexity="O(log(N)) with N being the number of elements in the sorted set",
)  # fmt: skip
def zcount(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _count_of(session, args[1], score_range(args[2], args[3]), now_ms)


@command(
    "ZLEXCOUNT", arity=4, flags="readonly fast", keys=FIRST_KEY, since="2.8.9", group="sorted-set",
    summary="Returns the number of members in a sorted set within a lexicographical range.",
    complexity="O(log(N)) with N being the number of elements in the sorted set",
)  # fmt: skip
def zlexcount(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _count_of(session, args[1], member_range(args[2], args[3]), now_ms)


# --- any members ----------------------------------------------------------------------------------------------------


@command(
    "ZRANDMEMBER", arity=-2, flags="readonly", keys=FIRST_KEY, since="6.2.0", group="sorted-set",
    summary="Returns one or more random members from a sorted set.",
    complexity="O(N) where N is the number of members returned",
)  # fmt: skip
def zrandmember(session: Session, args: Arguments, now_ms: int) -> bytes:
    rng = session.service.keyspace.random
    if len(args) == 2:
        value = look(session, args[1], now_ms, SortedSet)
        return session.null if value is None else bulk(value.choose_pair(rng)[1])
    count = repeatable_count(args[2])
    with_scores = len(args) == 4 and args[3].upper() == b"WITHSCORES"
    if len(args) > 3 and not with_scores:
        raise CommandError(SYNTAX)
    if with_scores and count > LARGEST // 2:
        raise CommandError("ERR value is out of range")
    value = look(session, args[1], now_ms, SortedSet)
    if value is None or count == 0:
        return EMPTY_ARRAY
    if count < 0:
        pairs = [value.choose_pair(rng) for _ in range(-count)]
    elif count >= len(value):
        pairs = value.pairs(0, len(value))
    else:
        pairs = [value.order[at] for at in rng.sample(range(len(value)), count)]
    return range_reply(pairs, with_scores, session.resp3)


@command(
    "ZSCAN", arity=-3, flags="readonly", keys=FIRST_KEY, since="2.8.0", group="sorted-set",
    summary="Iterates over members and scores of a sorted set.",
    complexity="O(1) for every call. O(N) for a complete iteration",
)  # fmt: skip
def zscan(session: Session, args: Arguments, now_ms: int) -> bytes:
    return scan_reply(session, args, now_ms, SortedSet, lambda member, pair: (member, double_text(pair[0])))
