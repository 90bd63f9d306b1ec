"""Registers whose values are each written once: linearizability in O(n log n), with a two-line proof when violated.

Gibbons and Korach, "Testing Shared Memories" (SIAM J. Comput. 26, 1997), section 4. When every value has one writer, it
is known which write each read saw. All that concerns one value, its write and its reads, is a **cluster**: in any legal
order it is one uninterrupted stretch. So cluster A comes before B as soon as *some* operation of A ended before *some*
operation of B began, that is, when the earliest end in A lies before the latest beginning in B. The history is
linearizable exactly when no two clusters come before each other, no value is read that was never written, and no read
ended before the write of its value began. Indeterminate writes need no search: one whose value was seen happened, one
whose value was not seen may as well not have.

The pairs are found without comparing all: a cluster whose earliest end lies before its latest beginning (a *forward*
zone) occupies the time between exclusively, so forward zones may not overlap, and no other (*backward*) zone may lie
wholly inside one.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from minidist.engines.checking.models import Kind, State, Step


class Trouble(Enum):
    """How a register with unique values can fail."""

    NEVER_WRITTEN = "a value that was never written"
    NOT_YET_WRITTEN = "a value read before it was written"
    TWO_ORDERS = "two values, each before the other"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why there is no order.

    `read` is the read that cannot be, `write` the write of its value (None: nobody's, the initial one). For TWO_ORDERS
    the read's value is the older one, by `order`: the first of the pair, of the older value, ended before the second,
    of the newer value, began (None: the older value is the initial one). Yet `newer_seen`, which wrote or read the
    newer value, ended before the read began. `newer_write` wrote the newer value (None: the initial one).
    """

    trouble: Trouble
    read: Step
    write: Step | None = None
    order: tuple[Step | None, Step] | None = None
    newer_seen: Step | None = None
    newer_write: Step | None = None

    @property
    def evidence(self) -> list[Step]:
        """The steps concerned, each once, by beginning."""
        steps = (self.read, self.write, *(self.order or ()), self.newer_seen, self.newer_write)
        found = {step.began: step for step in steps if step is not None}
        return [found[began] for began in sorted(found)]


@dataclass(slots=True)
class _Cluster:
    write: Step | None  # None: the initial value
    first_end: int
    last_begin: int
    first_ended: Step | None  # whose end that is; None: the beginning of time
    last_begun: Step | None

    @property
    def is_forward(self) -> bool:
        return self.first_end < self.last_begin


def has_unique_values(steps: Sequence[Step]) -> bool:
    """Whether this checker can judge these steps: reads and writes only, no value written twice, nor null."""
    written = [step.makes for step in steps if step.kind is Kind.WRITE]
    unique = len(set(written)) == len(written) and 0 not in written
    return unique and all(step.kind in (Kind.READ, Kind.WRITE) for step in steps)


def conflict(steps: Sequence[Step]) -> Conflict | None:
    """The first conflict in time, by the end of the wrong read; None when the steps are linearizable."""
    clusters: dict[State, _Cluster] = {0: _Cluster(None, -1, -2, None, None)}
    for step in steps:
        if step.kind is Kind.WRITE:
            clusters[step.makes] = _Cluster(step, step.ended, step.began, step, step)
    conflicts = []
    for step in steps:
        if step.kind is Kind.READ:
            cluster = clusters.get(step.sees)
            if cluster is None:
                conflicts.append(Conflict(Trouble.NEVER_WRITTEN, step))
                continue
            if cluster.write is not None and step.ended < cluster.write.began:
                conflicts.append(Conflict(Trouble.NOT_YET_WRITTEN, step, cluster.write))
            if step.ended < cluster.first_end:
                cluster.first_end, cluster.first_ended = step.ended, step
            if step.began > cluster.last_begin:
                cluster.last_begin, cluster.last_begun = step.began, step
    if not conflicts:
        # An optional write whose value nobody saw: its zone never ends, so nothing can conflict with it.
        conflicts += [_two_orders(forward, other) for forward, other in _crossing(list(clusters.values()))]
    return min(conflicts, key=lambda found: found.read.ended, default=None)


def _crossing(clusters: list[_Cluster]) -> Iterator[tuple[_Cluster, _Cluster]]:
    """Pairs (forward cluster, other) that come before each other; of overlapping forward zones, neighbours."""
    forward = sorted((each for each in clusters if each.is_forward), key=lambda each: each.first_end)
    for one, two in pairwise(forward):
        if two.first_end < one.last_begin:
            yield one, two
    starts = [each.first_end for each in forward]
    for cluster in clusters:
        if not cluster.is_forward and cluster.last_begun is not None:
            around = bisect_left(starts, cluster.last_begin) - 1
            if around >= 0 and cluster.first_end < forward[around].last_begin:
                yield forward[around], cluster


def _two_orders(forward: _Cluster, other: _Cluster) -> Conflict:
    """A forward cluster's latest beginning is a read's; of two such the later read is the one called wrong.

    The initial value is older than any other in any case.
    """
    older, newer = forward, other
    if newer.write is None or (older.write and newer.is_forward and newer.last_begin > older.last_begin):
        older, newer = newer, older
    assert older.last_begun is not None
    assert newer.last_begun is not None
    return Conflict(
        Trouble.TWO_ORDERS,
        older.last_begun,
        older.write,
        (older.first_ended, newer.last_begun),
        newer.first_ended,
        newer.write,
    )
