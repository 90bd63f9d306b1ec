"""Unions, intersections and differences of sorted sets, and of sets, whose members count with a score of 1.

Every command is a way to combine the inputs to scores by member (`union`, `intersection`, `difference`), followed by a
reply or by a new sorted set under the destination.
"""

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minidist.engines.keyspace import events
from minidist.engines.keyspace.errors import SYNTAX, WRONG_TYPE, CommandError
from minidist.engines.keyspace.member_arguments import limit_option
from minidist.engines.keyspace.registry import COUNTED_KEYS, CommandTable, Keys, Run
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.sets import Set
from minidist.engines.keyspace.sortedset_arguments import counted_keys, range_reply, score_argument
from minidist.engines.keyspace.sortedsets import SortedSet
from minidist.engines.keyspace.values import store
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

# The destination, and the counted sources after it.
STORE_KEYS = Keys(1, 1, 1, counted=2)
SET_SCORE = 1.0
NOT_A_WEIGHT = "ERR weight value is not a float"

Source = SortedSet | Set
Scores = dict[bytes, float]
AGGREGATES: dict[bytes, Callable[[float, float], float]] = {b"SUM": operator.add, b"MIN": min, b"MAX": max}


@dataclass(frozen=True, slots=True)
class Input:
    """One source with its weight; None is an empty one."""

    value: Source | None
    weight: float = 1.0

    def __len__(self) -> int:
        return 0 if self.value is None else len(self.value)

    def weighted(self) -> Iterator[tuple[bytes, float]]:
        """Its members with their scores times the weight."""
        if isinstance(self.value, SortedSet):
            for score, member in self.value.values():
                yield member, defined(score * self.weight)
        elif self.value is not None:
            for member in self.value:
                yield member, defined(SET_SCORE * self.weight)

    def score(self, member: bytes) -> float | None:
        """A member's score times the weight, if it is there; NaN for infinity times 0, which makes a sum 0."""
        if isinstance(self.value, SortedSet):
            score = self.value.score(member)
        else:
            score = SET_SCORE if self.value is not None and member in self.value else None
        return None if score is None else score * self.weight


@dataclass(slots=True)
class Combination:
    """What a command is told: its inputs in the order given, and how scores of one member become one."""

    inputs: list[Input]
    aggregate: Callable[[float, float], float] = operator.add
    with_scores: bool = False
    most: int = 0  # members wanted; 0 is all


def defined(score: float) -> float:
    """Where arithmetic with infinities has no result, Redis says 0."""
    return 0.0 if math.isnan(score) else score


def union(wanted: Combination) -> Scores:
    """O(N) with N members in all. Smallest inputs first, which decides how sums are rounded."""
    scores: Scores = {}
    for each in sorted(wanted.inputs, key=len):
        for member, score in each.weighted():
            before = scores.get(member)
            scores[member] = score if before is None else defined(wanted.aggregate(before, score))
    return scores


def intersection(wanted: Combination) -> Scores:
    """O(N*K) with N members in the smallest of K inputs."""
    smallest, *others = sorted(wanted.inputs, key=len)
    scores: Scores = {}
    for member, first_score in smallest.weighted():
        total = first_score
        for other in others:
            score = other.score(member)
            if score is None:
                break
            total = defined(wanted.aggregate(total, score))
        else:
            scores[member] = total
            if len(scores) == wanted.most:
                break
    return scores


def difference(wanted: Combination) -> Scores:
    """O(N*K) with N members in the first of K inputs."""
    first, *others = wanted.inputs
    return {
        member: score
        for member, score in first.weighted()
        if not any(other.value is not None and member in other.value for other in others)
    }


# --- arguments ------------------------------------------------------------------------------------------------------


def read_sources(session: Session, args: Arguments, at: int, name: str, now_ms: int) -> tuple[Combination, int]:
    """The inputs whose number is argument `at`, and where the options begin. Raises CommandError."""
    keys, after = counted_keys(args, at, name)
    inputs = []
    for key in keys:
        entry = session.database.read(key, now_ms)
        if entry is not None and entry.value.__class__ not in (SortedSet, Set):
            raise CommandError(WRONG_TYPE)
        inputs.append(Input(None if entry is None else entry.value))
    return Combination(inputs), after


def read_options(wanted: Combination, args: Arguments, at: int, words: tuple[bytes, ...]) -> Combination:
    """Those of the options WEIGHTS, AGGREGATE and WITHSCORES that the command takes. Raises CommandError."""
    while at < len(args):
        word, left = args[at].upper(), len(args) - at - 1
        if word not in words:
            raise CommandError(SYNTAX)
        if word == b"WEIGHTS" and left >= len(wanted.inputs):
            texts = args[at + 1 : at + 1 + len(wanted.inputs)]
            weights = [score_argument(text, NOT_A_WEIGHT) for text in texts]
            wanted.inputs = [Input(each.value, weight) for each, weight in zip(wanted.inputs, weights, strict=True)]
            at += len(weights)
        elif word == b"AGGREGATE" and left and args[at + 1].upper() in AGGREGATES:
            wanted.aggregate = AGGREGATES[args[at + 1].upper()]
            at += 1
        elif word == b"WITHSCORES":
            wanted.with_scores = True
        else:
            raise CommandError(SYNTAX)
        at += 1
    return wanted


# --- commands -------------------------------------------------------------------------------------------------------


def answering(name: str, combine: Callable[[Combination], Scores], words: tuple[bytes, ...]) -> Run:
    """ZUNION, ZINTER or ZDIFF."""

    def run(session: Session, args: Arguments, now_ms: int) -> bytes:
        wanted, at = read_sources(session, args, 1, name, now_ms)
        read_options(wanted, args, at, (*words, b"WITHSCORES"))
        pairs = sorted((score, member) for member, score in combine(wanted).items())
        return range_reply(pairs, wanted.with_scores, session.resp3)

    return run


def storing(name: str, combine: Callable[[Combination], Scores], words: tuple[bytes, ...]) -> Run:
    """ZUNIONSTORE, ZINTERSTORE or ZDIFFSTORE."""

    def run(session: Session, args: Arguments, now_ms: int) -> bytes:
        wanted, at = read_sources(session, args, 2, name, now_ms)
        read_options(wanted, args, at, words)
        result = SortedSet.of(combine(wanted).items())
        store(session.database, args[1], result, events.SORTED_SET, name.encode(), now_ms)
        return integer_reply(len(result))

    return run


WEIGHING = (b"WEIGHTS", b"AGGREGATE")
UNION_COMPLEXITY = (
    "O(N)+O(M*log(M)) with N being the sum of the sizes of the input sorted sets, and M being the number of elements "
    "in the resulting sorted set"
)
INTERSECTION_COMPLEXITY = (
    "O(N*K)+O(M*log(M)) worst case with N being the smallest input sorted set, K being the number of input sorted sets "
    "and M being the number of elements in the resulting sorted set"
)
DIFFERENCE_COMPLEXITY = (
    "O(L + (N-K)log(N)) worst case where L is the total number of elements in all the sets, N is the size of the first "
    "set, and K is the size of the result set"
)

command(
    "ZUNION", arity=-3, flags="readonly movablekeys", keys=COUNTED_KEYS, since="6.2.0", group="sorted-set",
    summary="Returns the union of multiple sorted sets.", complexity=UNION_COMPLEXITY,
)(answering("zunion", union, WEIGHING))  # fmt: skip
command(
    "ZUNIONSTORE", arity=-4, flags="write denyoom movablekeys", keys=STORE_KEYS, since="2.0.0", group="sorted-set",
    summary="Stores the union of multiple sorted sets in a key.", complexity=UNION_COMPLEXITY,
)(storing("zunionstore", union, WEIGHING))  # fmt: skip
command(
    "ZINTER", arity=-3, flags="readonly movablekeys", keys=COUNTED_KEYS, since="6.2.0", group="sorted-set",
    summary="Returns the intersect of multiple sorted sets.", complexity=INTERSECTION_COMPLEXITY,
)(answering("zinter", intersection, WEIGHING))  # fmt: skip
command(
    "ZINTERSTORE", arity=-4, flags="write denyoom movablekeys", keys=STORE_KEYS, since="2.0.0", group="sorted-set",
    summary="Stores the intersect of multiple sorted sets in a key.", complexity=INTERSECTION_COMPLEXITY,
)(storing("zinterstore", intersection, WEIGHING))  # fmt: skip
command(
    "ZDIFF", arity=-3, flags="readonly movablekeys", keys=COUNTED_KEYS, since="6.2.0", group="sorted-set",
    summary="Returns the difference between multiple sorted sets.", complexity=DIFFERENCE_COMPLEXITY,
)(answering("zdiff", difference, ()))  # fmt: skip
command(
    "ZDIFFSTORE", arity=-4, flags="write denyoom movablekeys", keys=STORE_KEYS, since="6.2.0", group="sorted-set",
    summary="Stores the difference of multiple sorted sets in a key.", complexity=DIFFERENCE_COMPLEXITY,
)(storing("zdiffstore", difference, ()))  # fmt: skip


@command(
    "ZINTERCARD", arity=-3, flags="readonly movablekeys", keys=COUNTED_KEYS, since="7.0.0", group="sorted-set",
    summary="Returns the number of members of the intersect of multiple sorted sets.",
    complexity="O(N*K) worst case with N being the smallest input sorted set, K being the number of input sorted sets",
)  # fmt: skip
def zintercard(session: Session, args: Arguments, now_ms: int) -> bytes:
    wanted, at = read_sources(session, args, 1, "zintercard", now_ms)
    wanted.most = limit_option(args, at)
    return integer_reply(len(intersection(wanted)))
