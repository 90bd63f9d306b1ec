"""Ranges of sorted sets, by rank, by score or by member: ZRANGE with all its options, its older forms, and what stores
or removes a range.

All of them read their arguments into a `Range`, which then finds the pairs in a sorted set.
"""

from dataclasses import dataclass
from enum import Enum

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import integer
from minidist.engines.keyspace.errors import SYNTAX, CommandError
from minidist.engines.keyspace.registry import FIRST_KEY, TWO_KEYS, CommandTable, Run
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.sortedset_arguments import (
    member_range,
    range_reply,
    rank_range,
    resolved,
    score_range,
)
from minidist.engines.keyspace.sortedsets import MemberRange, Pair, ScoreRange, SortedSet
from minidist.engines.keyspace.values import find, look, settle, store
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import EMPTY_ARRAY, ZERO
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

LIMIT_WITH_RANKS = "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"
SCORES_WITH_MEMBERS = "ERR syntax error, WITHSCORES not supported in combination with BYLEX"
ALL = -1


class By(Enum):
    """What a range is a range of."""

    RANK = b""
    SCORE = b"BYSCORE"
    MEMBER = b"BYLEX"


@dataclass(frozen=True, slots=True)
class Range:
    """Some pairs of a sorted set, from the lowest up or from the highest down, as a command names them.

    Of what lies within `limits` (two ranks, or a range) the first `offset` are left out, and at most `count` are taken.
    """

    limits: tuple[int, int] | ScoreRange | MemberRange
    backward: bool
    offset: int = 0
    count: int = ALL
    with_scores: bool = False

    def of(self, value: SortedSet) -> list[Pair]:
        """The pairs that this names, in order."""
        length = len(value)
        if isinstance(self.limits, tuple):
            start, stop = resolved(*self.limits, length)
            if self.backward:
                start, stop = length - stop, length - start
            return value.pairs(start, stop, self.backward)
        start, stop = value.positions(self.limits)
        if self.offset < 0:
            return []
        if self.backward:
            stop -= self.offset
            return value.pairs(start if self.count < 0 else max(start, stop - self.count), stop, True)
        start += self.offset
        return value.pairs(start, stop if self.count < 0 else min(stop, start + self.count))


@dataclass(slots=True)
class Options:
    """What follows MIN and MAX. None is what the words may still choose."""

    by: By | None
    backward: bool | None
    offset: int = 0
    count: int = ALL
    with_scores: bool = False


def read_range(args: Arguments, at: int, by: By | None, backward: bool | None, *, stores: bool = False) -> Range:
    """The range that MIN and MAX, from argument `at` on, and the options after them name. Raises CommandError.

    The older forms fix what it is `by` and its direction, and so do not take these options.
    """
    options = _read_options(args, at + 2, Options(by, backward), stores)
    low, high = args[at : at + 2]
    by = options.by or By.RANK
    if by is By.RANK and options.count != ALL:
        raise CommandError(LIMIT_WITH_RANKS)
    if by is By.MEMBER and options.with_scores:
        raise CommandError(SCORES_WITH_MEMBERS)
    if options.backward and by is not By.RANK:
        low, high = high, low
    limits: tuple[int, int] | ScoreRange | MemberRange
    if by is By.RANK:
        limits = rank_range(low, high)
    else:
        limits = score_range(low, high) if by is By.SCORE else member_range(low, high)
    return Range(limits, bool(options.backward), options.offset, options.count, options.with_scores)


def _read_options(args: Arguments, at: int, options: Options, stores: bool) -> Options:
    while at < len(args):
        word = args[at].upper()
        if word == b"WITHSCORES" and not stores:
            options.with_scores = True
        elif word == b"LIMIT" and at + 2 < len(args):
            options.offset, options.count = integer(args[at + 1]), integer(args[at + 2])
            at += 2
        elif word == b"REV" and options.backward is None:
            options.backward = True
        elif word in (b"BYSCORE", b"BYLEX") and options.by is None:
            options.by = By(word)
        else:
            raise CommandError(SYNTAX)
        at += 1
    return options


def ranging(by: By | None, backward: bool | None) -> Run:
    """ZRANGE or one of its older forms."""

    def run(session: Session, args: Arguments, now_ms: int) -> bytes:
        wanted = read_range(args, 2, by, backward)
        value = look(session, args[1], now_ms, SortedSet)
        if value is None:
            return EMPTY_ARRAY
        return range_reply(wanted.of(value), wanted.with_scores, session.resp3)

    return run


RANGE_COMPLEXITY = "O(log(N)+M) with N being the number of elements in the sorted set and M the number of elements "

command(
    "ZRANGE", arity=-4, flags="readonly", keys=FIRST_KEY, since="1.2.0", group="sorted-set",
    summary="Returns members in a sorted set within a range of indexes.", complexity=RANGE_COMPLEXITY + "returned",
)(ranging(None, None))  # fmt: skip
command(
    "ZREVRANGE", arity=-4, flags="readonly", keys=FIRST_KEY, since="1.2.0", group="sorted-set",
    summary="Returns members in a sorted set within a range of indexes in reverse order.",
    complexity=RANGE_COMPLEXITY + "returned",
)(ranging(By.RANK, True))  # fmt: skip
command(
    "ZRANGEBYSCORE", arity=-4, flags="readonly", keys=FIRST_KEY, since="1.0.5", group="sorted-set",
    summary="Returns members in a sorted set within a range of scores.", complexity=RANGE_COMPLEXITY + "returned",
)(ranging(By.SCORE, False))  # fmt: skip
command(
    "ZREVRANGEBYSCORE", arity=-4, flags="readonly", keys=FIRST_KEY, since="2.2.0", group="sorted-set",
    summary="Returns members in a sorted set within a range of scores in reverse order.",
    complexity=RANGE_COMPLEXITY + "returned",
)(ranging(By.SCORE, True))  # fmt: skip
command(
    "ZRANGEBYLEX", arity=-4, flags="readonly", keys=FIRST_KEY, since="2.8.9", group="sorted-set",
    summary="Returns members in a sorted set within a lexicographical range.",
    complexity=RANGE_COMPLEXITY + "returned",
)(ranging(By.MEMBER, False))  # fmt: skip
command(
    "ZREVRANGEBYLEX", arity=-4, flags="readonly", keys=FIRST_KEY, since="2.8.9", group="sorted-set",
    summary="Returns members in a sorted set within a lexicographical range in reverse order.",
    complexity=RANGE_COMPLEXITY + "returned",
)(ranging(By.MEMBER, True))  # fmt: skip


@command(
    "ZRANGESTORE", arity=-5, flags="write denyoom", keys=TWO_KEYS, since="6.2.0", group="sorted-set",
    summary="Stores a range of members from a sorted set in a key.",
    complexity=RANGE_COMPLEXITY + "stored into the destination key",
)  # fmt: skip
def zrangestore(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, destination, source = args[:3]
    wanted = read_range(args, 3, None, None, stores=True)
    value = look(session, source, now_ms, SortedSet)
    pairs = [] if value is None else wanted.of(value)
    result = SortedSet.of((member, score) for score, member in pairs)
    store(session.database, destination, result, events.SORTED_SET, b"zrangestore", now_ms)
    return integer_reply(len(result))


# --- removing -------------------------------------------------------------------------------------------------------


def removing(by: By) -> Run:
    """ZREMRANGEBYRANK, ZREMRANGEBYSCORE or ZREMRANGEBYLEX."""
    event = {By.RANK: b"zremrangebyrank", By.SCORE: b"zremrangebyscore", By.MEMBER: b"zremrangebylex"}[by]

    def run(session: Session, args: Arguments, now_ms: int) -> bytes:
        _, key, low, high = args
        limits = read_range((b"", low, high), 1, by, False).limits
        value = find(session, key, now_ms, SortedSet)
        if value is None:
            return ZERO
        positions = resolved(*limits, len(value)) if isinstance(limits, tuple) else value.positions(limits)
        before_bytes = value.memory_bytes
        removed = value.remove_positions(*positions)
        if removed:
            settle(session.database, key, value, before_bytes, events.SORTED_SET, event)
        return integer_reply(len(removed))

    return run


command(
    "ZREMRANGEBYRANK", arity=4, flags="write", keys=FIRST_KEY, since="2.0.0", group="sorted-set",
    summary="Removes members in a sorted set within a range of indexes. Deletes the sorted set if all members were "
    "removed.",
    complexity=RANGE_COMPLEXITY + "removed by the operation",
)(removing(By.RANK))  # fmt: skip
command(
    "ZREMRANGEBYSCORE", arity=4, flags="write", keys=FIRST_KEY, since="1.2.0", group="sorted-set",
    summary="Removes members in a sorted set within a range of scores. Deletes the sorted set if all members were "
    "removed.",
    complexity=RANGE_COMPLEXITY + "removed by the operation",
)(removing(By.SCORE))  # fmt: skip
command(
    "ZREMRANGEBYLEX", arity=4, flags="write", keys=FIRST_KEY, since="2.8.9", group="sorted-set",
    summary="Removes members in a sorted set within a lexicographical range. Deletes the sorted set if all members "
    "were removed.",
    complexity=RANGE_COMPLEXITY + "removed by the operation",
)(removing(By.MEMBER))  # fmt: skip
