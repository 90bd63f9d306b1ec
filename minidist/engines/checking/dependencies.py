"""Which transaction must come before which, and cycles of that: the part of Elle that finds isolation anomalies.

Four kinds of dependency (Adya, "Weak Consistency", 1999, and real time): `ww`, one appended just after the other to the
same list; `wr`, one read what the other appended last; `rw`, one read a list without what the other appended next;
`rt`, one had ended before the other began. In a correct system they have no cycle. What a cycle is made of says which
promise is broken: the table `CYCLES`.

All of real time would be quadratic; kept is its transitive reduction, at most one edge per transaction that was the
latest of something when another began. Tarjan's algorithm finds the strongly connected components once, over all
kinds; only inside them shortest cycles of each sort are looked for, breadth first.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from minidist.engines.checking.transactions import Seen, Transactions, Versions
from minidist.engines.checking.values import Key
from minidist.engines.checking.verdict import Budget

#: Edges of the wanted kind from which a cycle is looked for, by sort of cycle.
MAX_STARTS = 500


class Kind(Enum):
    """Of a dependency."""

    WW = "ww"
    WR = "wr"
    RW = "rw"
    RT = "rt"


@dataclass(frozen=True, slots=True)
class Sort:
    """A sort of cycle: one edge of the kind `wanted`, the others of `rest`, with `again` one more of them `wanted`."""

    name: str
    breaks: str
    wanted: Kind
    rest: tuple[Kind, ...]
    again: bool = False


CYCLES = (
    Sort("G0 (write cycle)", "read uncommitted", Kind.WW, (Kind.WW,)),
    Sort("G1c (circular information flow)", "read committed", Kind.WR, (Kind.WW, Kind.WR)),
    Sort("G-single (read skew)", "snapshot isolation", Kind.RW, (Kind.WW, Kind.WR)),
    Sort("G2 (anti-dependency cycle)", "serializability", Kind.RW, (Kind.WW, Kind.WR, Kind.RW), again=True),
)
#: With real time; only the first that is found is of interest.
REAL_TIME_CYCLES = (
    Sort("G0-realtime", "strict serializability", Kind.WW, (Kind.WW, Kind.RT)),
    Sort("G1c-realtime", "strict serializability", Kind.WR, (Kind.WW, Kind.WR, Kind.RT)),
    Sort("G-single-realtime", "strict serializability", Kind.RW, (Kind.WW, Kind.WR, Kind.RT)),
    Sort("G2-realtime", "strict serializability", Kind.RW, (Kind.WW, Kind.WR, Kind.RW, Kind.RT), again=True),
)


@dataclass(frozen=True, slots=True)
class Edge:
    """One dependency."""

    tail: int
    head: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Reason:
    """Why there is an edge: the key, the elements concerned, and the transaction that shows their order.

    `is_unread`: the later element is in no read, so it comes after all that is.
    """

    key: Key
    before: object
    after: object
    witness: int | None = None
    is_unread: bool = False


class Graph:
    """Dependencies of all transactions that happened."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        size = len(transactions.all)
        self._edges: dict[Kind, list[list[int]]] = {kind: [[] for _ in range(size)] for kind in Kind}
        self.reasons: dict[Edge, Reason] = {}
        for key, versions in transactions.versions.items():
            if not versions.is_broken:
                self._add_appends(key, versions)
        for seen in transactions.seen:
            if not transactions.versions[seen.key].is_broken:
                self._add_read(seen, transactions.versions[seen.key])
        self._add_real_time()

    def cycles(self, budget: Budget) -> list[tuple[Sort, list[Edge]]]:
        """A shortest cycle of each sort, the worst sorts first."""
        found: list[tuple[Sort, list[Edge]]] = []
        for component in self._components(budget):
            inside = dict.fromkeys(component)
            known = len(found)
            cycles = [(sort, self._shortest(sort, inside, budget)) for sort in CYCLES]
            found += [(sort, cycle) for sort, cycle in cycles if cycle]
            for sort in REAL_TIME_CYCLES:
                if cycle := self._shortest(sort, inside, budget):
                    if any(edge.kind is Kind.RT for edge in cycle):
                        found.append((sort, cycle))
                    break
            if len(found) == known:
                found.append(self._some_cycle(component[0], budget))
        return _best_of_each(found)

    # --- Edges --------------------------------------------------------------------------------------------------------

    def _add_appends(self, key: Key, versions: Versions) -> None:
        """`ww` along the order of versions; what nobody read comes after all that was read."""
        writers = [self._transactions.writer(key, element).index for element in versions.order]
        for place in range(len(writers) - 1):
            reason = Reason(key, versions.order[place], versions.order[place + 1], versions.longest)
            self._add(writers[place], writers[place + 1], Kind.WW, reason)
        if writers:
            for unseen, element in versions.unseen:
                self._add(
                    writers[-1], unseen, Kind.WW, Reason(key, versions.order[-1], element, versions.longest, True)
                )

    def _add_read(self, seen: Seen, versions: Versions) -> None:
        length = len(seen.elements)
        if length:
            last = seen.elements[-1]
            self._add(
                self._transactions.writer(seen.key, last).index, seen.reader, Kind.WR, Reason(seen.key, last, None)
            )
        if length < len(versions.order):
            following = versions.order[length]
            writer = self._transactions.writer(seen.key, following).index
            self._add(seen.reader, writer, Kind.RW, Reason(seen.key, None, following, versions.longest))
        else:
            for unseen, element in versions.unseen:
                self._add(seen.reader, unseen, Kind.RW, Reason(seen.key, None, element))

    def _add(self, tail: int, head: int, kind: Kind, reason: Reason) -> None:
        everyone = self._transactions.all
        if tail == head or not (everyone[tail].happened and everyone[head].happened):
            return
        edge = Edge(tail, head, kind)
        if edge not in self.reasons:
            self.reasons[edge] = reason
            self._edges[kind][tail].append(head)

    def _add_real_time(self) -> None:
        """Walks through the lines; `latest` are those that ended and were not yet followed by one that ended."""
        lines: list[tuple[int, bool, int]] = []
        for transaction in self._transactions.all:
            if transaction.happened:
                operation = transaction.operation
                lines.append((operation.began, True, transaction.index))
                if operation.is_ok and operation.ended is not None:
                    lines.append((operation.ended, False, transaction.index))
        latest: dict[int, None] = {}
        before: dict[int, list[int]] = {}
        edges = self._edges[Kind.RT]
        for _, begins, index in sorted(lines):
            if begins:
                before[index] = list(latest)
                for earlier in before[index]:
                    edges[earlier].append(index)
            else:
                for earlier in before.pop(index):
                    latest.pop(earlier, None)
                latest[index] = None

    # --- Cycles -------------------------------------------------------------------------------------------------------

    def _components(self, budget: Budget) -> list[list[int]]:
        """Strongly connected components of more than one transaction (Tarjan 1972, without recursion)."""
        order: dict[int, int] = {}
        low: dict[int, int] = {}
        stack: list[int] = []
        on_stack: dict[int, None] = {}
        components = []
        for root in range(len(self._transactions.all)):
            if root in order:
                continue
            walk: list[tuple[int, Iterator[int]]] = []
            self._visit(root, order, low, stack, on_stack, walk)
            while walk:
                node, heads = walk[-1]
                budget.spend()
                for head in heads:
                    if head not in order:
                        self._visit(head, order, low, stack, on_stack, walk)
                        break
                    if head in on_stack:
                        low[node] = min(low[node], order[head])
                else:
                    walk.pop()
                    if walk:
                        low[walk[-1][0]] = min(low[walk[-1][0]], low[node])
                    if low[node] == order[node]:
                        component: list[int] = []
                        while not component or component[-1] != node:
                            component.append(stack.pop())
                            del on_stack[component[-1]]
                        if len(component) > 1:
                            components.append(sorted(component))
        return components

    def _visit(
        self,
        node: int,
        order: dict[int, int],
        low: dict[int, int],
        stack: list[int],
        on_stack: dict[int, None],
        walk: list[tuple[int, Iterator[int]]],
    ) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        on_stack[node] = None
        walk.append((node, self._heads(node)))

    def _heads(self, node: int) -> Iterator[int]:
        for edges in self._edges.values():
            yield from edges[node]

    def _shortest(self, sort: Sort, inside: dict[int, None], budget: Budget) -> list[Edge] | None:
        best: list[Edge] | None = None
        starts = 0
        for tail in inside:
            for head in self._edges[sort.wanted][tail]:
                if head not in inside or starts >= MAX_STARTS:
                    continue
                starts += 1
                path = self._path(head, tail, sort, inside, budget, None if best is None else len(best) - 1)
                if path is not None:
                    best = [Edge(tail, head, sort.wanted), *path]
                    if len(best) == 2:
                        return best
        return best

    def _some_cycle(self, start: int, budget: Budget) -> tuple[Sort, list[Edge]]:
        """The shortest cycle through one transaction of a component, for components too large to try every start in."""
        came_from: dict[int, Edge] = {}
        queue = deque([start])
        while start not in came_from:
            tail = queue.popleft()
            budget.spend()
            for kind in Kind:
                for head in self._edges[kind][tail]:
                    if head not in came_from:
                        came_from[head] = Edge(tail, head, kind)
                        queue.append(head)
        cycle = [came_from[start]]
        while cycle[-1].tail != start:
            cycle.append(came_from[cycle[-1].tail])
        return _sort_of(cycle), cycle[::-1]

    def _path(
        self, start: int, goal: int, sort: Sort, inside: dict[int, None], budget: Budget, shorter_than: int | None
    ) -> list[Edge] | None:
        """The shortest path, with one more of the wanted kind when the sort says so."""
        first = (start, not sort.again)
        came_from: dict[tuple[int, bool], tuple[tuple[int, bool], Edge] | None] = {first: None}
        queue = deque([(first, 0)])
        while queue:
            place, length = queue.popleft()
            budget.spend()
            if shorter_than is not None and length >= shorter_than:
                return None
            for kind in sort.rest:
                for head in self._edges[kind][place[0]]:
                    reached = (head, place[1] or kind is sort.wanted)
                    if head in inside and reached not in came_from:
                        came_from[reached] = (place, Edge(place[0], head, kind))
                        if reached == (goal, True):
                            return _simple(_way(came_from, reached))
                        queue.append((reached, length + 1))
        return None


def _way(came_from: dict[tuple[int, bool], tuple[tuple[int, bool], Edge] | None], goal: tuple[int, bool]) -> list[Edge]:
    edges = []
    step = came_from[goal]
    while step is not None:
        place, edge = step
        edges.append(edge)
        step = came_from[place]
    return edges[::-1]


def _simple(path: list[Edge]) -> list[Edge] | None:
    """None for a way that passes a transaction twice: it is two cycles, each found as what it is."""
    return path if len({edge.tail: None for edge in path}) == len(path) else None


def _sort_of(cycle: Sequence[Edge]) -> Sort:
    kinds = [edge.kind for edge in cycle]
    worst = min(2, kinds.count(Kind.RW)) + 1 if Kind.RW in kinds else int(Kind.WR in kinds)
    return (REAL_TIME_CYCLES if Kind.RT in kinds else CYCLES)[worst]


def _best_of_each(found: Sequence[tuple[Sort, list[Edge]]]) -> list[tuple[Sort, list[Edge]]]:
    best: dict[str, tuple[Sort, list[Edge]]] = {}
    for sort, cycle in found:
        if sort.name not in best or len(cycle) < len(best[sort.name][1]):
            best[sort.name] = (sort, cycle)
    names = [sort.name for sort in (*CYCLES, *REAL_TIME_CYCLES)]
    return [best[name] for name in names if name in best]
