"""Taking members out of sorted sets by their order: ZPOPMIN and its kin, and those that wait for a member (waiting.py).

The reply of one member without a count is flat in both protocols; with a count it is an array of pairs in RESP3. ZMPOP
and BZMPOP answer with pairs always.
"""

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import count_argument, timeout_ms
from minidist.engines.keyspace.errors import SYNTAX, CommandError
from minidist.engines.keyspace.registry import COUNTED_KEYS, FIRST_KEY, CommandTable, Keys, Run
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.sortedset_arguments import nested_pairs_reply, pairs_reply
from minidist.engines.keyspace.sortedsets import Pair, SortedSet
from minidist.engines.keyspace.values import find, settle
from minidist.engines.keyspace.waiting import Block
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_plain import strict_integer
from minidist.wire.resp_replies import EMPTY_ARRAY, bulk, double, null_array

TABLE = CommandTable()
command = TABLE.command

LOWEST, HIGHEST = False, True
NOT_A_COUNT = "ERR count should be greater than 0"
POP_COMPLEXITY = (
    "O(log(N)*M) with N being the number of elements in the sorted set, and M being the number of elements popped"
)
POPS_COMPLEXITY = (
    "O(K) + O(M*log(N)) where K is the number of provided keys, N being the number of elements in the sorted set, and "
    "M being the number of elements popped"
)


def pop(session: Session, key: bytes, value: SortedSet, count: int, highest: bool, now_ms: int) -> list[Pair]:
    """Take out up to `count` pairs from one end; the outermost first."""
    length = len(value)
    before_bytes = value.memory_bytes
    if highest:
        pairs = value.remove_positions(max(length - count, 0), length)
        pairs.reverse()
    else:
        pairs = value.remove_positions(0, min(count, length))
    event = b"zpopmax" if highest else b"zpopmin"
    settle(session.database, key, value, before_bytes, events.SORTED_SET, event)
    return pairs


def first_filled(session: Session, keys: list[bytes], now_ms: int) -> tuple[bytes, SortedSet] | None:
    """The first of some keys that has a sorted set. Raises CommandError for one before it that has something else."""
    for key in keys:
        value = find(session, key, now_ms, SortedSet)
        if value is not None:
            return key, value
    return None


def popping(highest: bool) -> Run:
    """ZPOPMIN or ZPOPMAX."""

    def run(session: Session, args: Arguments, now_ms: int) -> bytes:
        if len(args) > 3:
            raise CommandError(SYNTAX)
        count = count_argument(args[2], "ERR value is out of range, must be positive") if len(args) == 3 else 1
        value = find(session, args[1], now_ms, SortedSet)
        if value is None or count == 0:
            return EMPTY_ARRAY
        pairs = pop(session, args[1], value, count, highest, now_ms)
        if len(args) == 3:
            return pairs_reply(pairs, session.resp3)
        score, member = pairs[0]
        return b"*2\r\n" + bulk(member) + double(score, session.resp3)

    return run


command(
    "ZPOPMIN", arity=-2, flags="write fast", keys=FIRST_KEY, since="5.0.0", group="sorted-set",
    summary="Returns the lowest-scoring members from a sorted set after removing them. Deletes the sorted set if the "
    "last member was popped.", complexity=POP_COMPLEXITY,
)(popping(LOWEST))  # fmt: skip
command(
    "ZPOPMAX", arity=-2, flags="write fast", keys=FIRST_KEY, since="5.0.0", group="sorted-set",
    summary="Returns the highest-scoring members from a sorted set after removing them. Deletes the sorted set if the "
    "last member was popped.", complexity=POP_COMPLEXITY,
)(popping(HIGHEST))  # fmt: skip


# --- from the first key that has something --------------------------------------------------------------------------


def read_pops(args: Arguments, at: int) -> tuple[list[bytes], bool, int]:
    """The keys, the end and the count of ZMPOP, whose number of keys is argument `at`. Raises CommandError."""
    number = strict_integer(args[at])
    if number is None or number < 1:
        raise CommandError("ERR numkeys should be greater than 0")
    end = at + 1 + number
    if end >= len(args):
        raise CommandError(SYNTAX)
    which = args[end].upper()
    if which not in (b"MIN", b"MAX"):
        raise CommandError(SYNTAX)
    count = 1
    if len(args) > end + 1:
        if len(args) != end + 3 or args[end + 1].upper() != b"COUNT":
            raise CommandError(SYNTAX)
        count = count_argument(args[end + 2], NOT_A_COUNT)
        if count == 0:
            raise CommandError(NOT_A_COUNT)
    return list(args[at + 1 : end]), which == b"MAX", count


def pops_reply(session: Session, key: bytes, pairs: list[Pair]) -> bytes:
    return b"*2\r\n" + bulk(key) + nested_pairs_reply(pairs, session.resp3)


@command(
    "ZMPOP", arity=-4, flags="write movablekeys", keys=COUNTED_KEYS, since="7.0.0", group="sorted-set",
    summary="Returns the highest- or lowest-scoring members from one or more sorted sets after removing them. Deletes "
    "the sorted set if the last member was popped.", complexity=POPS_COMPLEXITY,
)  # fmt: skip
def zmpop(session: Session, args: Arguments, now_ms: int) -> bytes:
    keys, highest, count = read_pops(args, 1)
    found = first_filled(session, keys, now_ms)
    if found is None:
        return null_array(session.resp3)
    key, value = found
    return pops_reply(session, key, pop(session, key, value, count, highest, now_ms))


# --- those that wait ------------------------------------------------------------------------------------------------


@command(
    "BZMPOP", arity=-5, flags="write blocking movablekeys", keys=Keys(counted=2), since="7.0.0", group="sorted-set",
    summary="Removes and returns a member by score from one or more sorted sets. Blocks until a member is available "
    "otherwise. Deletes the sorted set if the last element was popped.", complexity=POPS_COMPLEXITY,
)  # fmt: skip
def bzmpop(session: Session, args: Arguments, now_ms: int) -> bytes:
    wait_ms = timeout_ms(args[1], now_ms)
    keys, highest, count = read_pops(args, 2)
    found = first_filled(session, keys, now_ms)
    if found is None:
        raise Block(keys, SortedSet, wait_ms, null_array(session.resp3))
    key, value = found
    return pops_reply(session, key, pop(session, key, value, count, highest, now_ms))


def waiting_pop(highest: bool) -> Run:
    """BZPOPMIN or BZPOPMAX."""

    def run(session: Session, args: Arguments, now_ms: int) -> bytes:
        wait_ms = timeout_ms(args[-1], now_ms)
        keys = list(args[1:-1])
        found = first_filled(session, keys, now_ms)
        if found is None:
            raise Block(keys, SortedSet, wait_ms, null_array(session.resp3))
        key, value = found
        score, member = pop(session, key, value, 1, highest, now_ms)[0]
        return b"*3\r\n" + bulk(key) + bulk(member) + double(score, session.resp3)

    return run


command(
    "BZPOPMIN", arity=-3, flags="write blocking fast", keys=Keys(1, -2, 1), since="5.0.0", group="sorted-set",
    summary="Removes and returns the member with the lowest score from one or more sorted sets. Blocks until a member "
    "is available otherwise. Deletes the sorted set if the last element was popped.",
    complexity="O(log(N)) with N being the number of elements in the sorted set",
)(waiting_pop(LOWEST))  # fmt: skip
command(
    "BZPOPMAX", arity=-3, flags="write blocking fast", keys=Keys(1, -2, 1), since="5.0.0", group="sorted-set",
    summary="Removes and returns the member with the highest score from one or more sorted sets. Blocks until a member "
    "is available otherwise. Deletes the sorted set if the last element was popped.",
    complexity="O(log(N)) with N being the number of elements in the sorted set",
)(waiting_pop(HIGHEST))  # fmt: skip
