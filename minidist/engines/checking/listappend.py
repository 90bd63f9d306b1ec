"""The model list-append: transactions on lists, judged for strict serializability, each anomaly by its name.

    G0, duplicate, phantom, reordered elements  break read uncommitted, so nothing holds
    G1a, G1b, G1c, internal, incompatible order break read committed
    G-single                                    breaks snapshot isolation (and what is above)
    G2                                          breaks serializability
    …-realtime                                  break strict serializability only

Names after Adya ("Weak Consistency", 1999) and Elle. What is judged is strict serializability; the verdict's notes say
which weaker promises the evidence leaves standing, which is not a proof that they hold.
"""

from collections.abc import Sequence

from minidist.engines.checking.dependencies import Edge, Graph, Kind, Reason, Sort
from minidist.engines.checking.operation import Operation
from minidist.engines.checking.transactions import Finding, Transactions
from minidist.engines.checking.values import show
from minidist.engines.checking.verdict import Arrow, Budget, GaveUpError, Verdict, Violation, verdict_for

MODEL = "list-append"
#: From the weakest promise to the strongest; what breaks one breaks those after it.
LEVELS = ("read uncommitted", "read committed", "snapshot isolation", "serializability", "strict serializability")
#: Findings of one name that are shown.
MAX_SHOWN = 3


def check(operations: Sequence[Operation], budget: Budget) -> Verdict:
    """Judge a list-append history. Raises UnsuitableError."""
    verdict = verdict_for(MODEL, operations)
    try:
        transactions = Transactions(operations, budget)
        cycles = Graph(transactions)
        found = cycles.cycles(budget)
    except GaveUpError as gave_up:
        verdict.gave_up.append(str(gave_up))
        return verdict
    verdict.keys = len({key: None for key, _ in transactions.writers} | dict.fromkeys(transactions.versions))
    verdict.violations = [_of_cycle(sort, cycle, cycles, transactions) for sort, cycle in found]
    shown: dict[str, int] = {}
    for finding in transactions.findings:
        shown[finding.name] = shown.get(finding.name, 0) + 1
        if shown[finding.name] <= MAX_SHOWN:
            verdict.violations.append(_of_finding(finding, transactions))
    verdict.found = len(found) + len(transactions.findings)
    verdict.violations.sort(key=lambda violation: LEVELS.index(violation.breaks))
    verdict.notes += [f"{name}: {times} times" for name, times in shown.items() if times > MAX_SHOWN]
    if verdict.violations:
        verdict.notes.append(_levels(LEVELS.index(verdict.violations[0].breaks)))
    return verdict


def _levels(weakest: int) -> str:
    broken = ", ".join(LEVELS[weakest:])
    standing = ", ".join(LEVELS[:weakest])
    return f"broken: {broken}" + (f"; no evidence here against: {standing}" if standing else "")


def _of_finding(finding: Finding, transactions: Transactions) -> Violation:
    concerned = list(dict.fromkeys(finding.transactions))
    evidence = [transactions.all[index].operation for index in sorted(concerned)]
    names = {index: f"T{place + 1}" for place, index in enumerate(sorted(concerned))}
    sentence = finding.sentence.format(*(names[index] for index in finding.transactions))
    violation = Violation(finding.name, finding.breaks, f"{finding.name}: {sentence}", [], evidence)
    violation.names = [names[index] for index in sorted(concerned)]
    violation.marked = [sorted(concerned).index(finding.transactions[0])]
    return violation


def _of_cycle(sort: Sort, cycle: list[Edge], graph: Graph, transactions: Transactions) -> Violation:
    """The transactions of the cycle by beginning, those that witness an order of appends after them."""
    edges = _joined(cycle)
    members = sorted({edge.tail: None for edge in edges})
    reasons = {edge: graph.reasons.get(edge) for edge in edges}
    witnesses = [reason.witness for reason in reasons.values() if reason is not None and reason.witness is not None]
    concerned = sorted(dict.fromkeys([*members, *witnesses]))
    names = {index: f"T{place + 1}" for place, index in enumerate(concerned)}
    around = ", ".join(f"{names[edge.tail]} must come before {names[edge.head]}" for edge in edges)
    violation = Violation(
        sort.name,
        sort.breaks,
        f"{sort.name}: {around}",
        [_sentence(edge, reasons[edge], names, transactions) for edge in edges],
        [transactions.all[index].operation for index in concerned],
    )
    violation.names = [names[index] for index in concerned]
    violation.arrows = [
        Arrow(concerned.index(edge.tail), concerned.index(edge.head), _label(edge, reasons[edge])) for edge in edges
    ]
    violation.marked = [concerned.index(member) for member in members]
    return violation


def _joined(cycle: list[Edge]) -> list[Edge]:
    """Edges of real time in a row are one, since it is transitive. The cycle is turned to begin at its first member."""
    edges: list[Edge] = []
    for edge in cycle:
        if edges and edge.kind is Kind.RT and edges[-1].kind is Kind.RT:
            edges[-1] = Edge(edges[-1].tail, edge.head, Kind.RT)
        else:
            edges.append(edge)
    if len(edges) > 1 and edges[0].kind is Kind.RT and edges[-1].kind is Kind.RT:
        edges = [Edge(edges[-1].tail, edges[0].head, Kind.RT), *edges[1:-1]]
    first = min(range(len(edges)), key=lambda place: edges[place].tail)
    return edges[first:] + edges[:first]


def _sentence(edge: Edge, reason: Reason | None, names: dict[int, str], transactions: Transactions) -> str:
    tail, head = names[edge.tail], names[edge.head]
    if edge.kind is Kind.RT:
        one, other = transactions.all[edge.tail].operation, transactions.all[edge.head].operation
        return f"{tail} before {head}: it had ended (line {one.ended}) before {head} began (line {other.began})."
    assert reason is not None
    key, before, after = f"key {show(reason.key)}", show(reason.before), show(reason.after)
    if edge.kind is Kind.WR:
        return f"{tail} before {head}: {head} read {before}, which {tail} appended to {key}."
    if edge.kind is Kind.RW:
        return f"{tail} before {head}: {tail} read {key} without {after}, which {head} appended."
    if reason.is_unread:
        seen = f"{names[reason.witness]} read" if reason.witness is not None else "was read"
        return (
            f"{tail} before {head}: {head} appended {after} to {key} after all that {seen}, at the end of which is "
            f"{before}, appended by {tail}."
        )
    by = f" ({names[reason.witness]} read both)" if reason.witness is not None else ""
    return f"{tail} before {head}: {tail} appended {before} to {key}, {head} {after} just after{by}."


def _label(edge: Edge, reason: Reason | None) -> str:
    return edge.kind.value if reason is None else f"{edge.kind.value} {show(reason.key, 16)}"
