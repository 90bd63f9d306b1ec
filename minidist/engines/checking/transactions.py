"""Transactions of a list-append history, the order of each list's versions, and what is wrong without any cycle.

A list that is only appended to, each element once, tells its own past: a read of [1, 2, 3] saw three versions come
about in that order (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", VLDB
2020, section 4). So the longest read of a key gives the order of its appends, every other read is a prefix of it, and
each read names the transaction whose version it saw. A lone `append` or `read` is a transaction of one step.

What a transaction reads after it has itself appended to the key ends with its own elements; the part before is what it
saw of others. Transactions that ended in `info` happened when somebody saw an element of theirs; the others are left
out, as if they had not.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from minidist.engines.checking.models import UnsuitableError
from minidist.engines.checking.operation import Operation, Outcome
from minidist.engines.checking.values import Key, canonical, show
from minidist.engines.checking.verdict import Budget

FUNCTIONS = ("txn", "append", "read")
Element = Hashable


@dataclass(slots=True)
class Seen:
    """What one step read of other transactions: `elements` as they were, and by which transaction (its index)."""

    reader: int
    key: Key
    elements: list[Element]


@dataclass(slots=True)
class Transaction:
    """`steps` are (kind, key, value); an append's value is an element, a read's a list (None before it ended)."""

    index: int
    operation: Operation
    steps: list[tuple[str, Key, Any]]
    happened: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong that needs no cycle: its name, what it breaks, the transactions, and a sentence about them.

    In the sentence `{0}` stands for the first transaction, `{1}` for the second …
    """

    name: str
    breaks: str
    transactions: tuple[int, ...]
    sentence: str


@dataclass(slots=True)
class Versions:
    """The order of one key's elements, as far as it was read, and what that leaves out."""

    order: list[Element] = field(default_factory=list)
    longest: int | None = None  # the transaction that read it all
    #: Appends that happened and that nobody read: transaction and element.
    unseen: list[tuple[int, Element]] = field(default_factory=list)
    is_broken: bool = False


class Transactions:
    """All of a history, read. Raises UnsuitableError when it is not a list-append history."""

    def __init__(self, operations: Sequence[Operation], budget: Budget) -> None:
        self._budget = budget
        self.all = [
            Transaction(index, operation, _steps(operation), operation.is_ok)
            for index, operation in enumerate(operations)
        ]
        self.findings: list[Finding] = []
        #: Who appended an element, and whether it is the last that it appended to that key.
        self.writers: dict[tuple[Key, Element], tuple[int, bool]] = {}
        self._appended: dict[Key, dict[Element, None]] = {}
        self.seen: list[Seen] = []
        self.versions: dict[Key, Versions] = {}
        self._find_writers()
        self._find_reads()
        self._find_versions()
        self._find_unseen()

    def writer(self, key: Key, element: Element) -> Transaction:
        return self.all[self.writers[(key, element)][0]]

    def _find_writers(self) -> None:
        for transaction in self.all:
            last: dict[Key, Element] = {}
            for key, element, value in _appends(transaction):
                if (key, element) in self.writers:
                    other = self.all[self.writers[(key, element)][0]].operation
                    raise UnsuitableError(
                        transaction.operation,
                        f"{show(value)} is appended to key {show(key)} again (first in line {other.began}): "
                        "list-append needs elements that are unique by key",
                    )
                self.writers[(key, element)] = (transaction.index, True)
                self._appended.setdefault(key, {})[element] = None
                if key in last:
                    self.writers[(key, last[key])] = (transaction.index, False)
                last[key] = element

    def _find_reads(self) -> None:
        for transaction in self.all:
            if not transaction.operation.is_ok:
                continue
            own: dict[Key, list[Element]] = {}
            first: dict[Key, list[Element]] = {}
            ever = frozenset((key, element) for key, element, _ in _appends(transaction))
            for kind, key, value in transaction.steps:
                if kind == "append":
                    own.setdefault(key, []).append(canonical(value))
                    continue
                elements = [canonical(each) for each in value or ()]
                self._budget.spend(1 + len(elements) // 100)
                appended = own.get(key, [])
                before = elements[: len(elements) - len(appended)]
                own_too_early = not ever.isdisjoint((key, each) for each in before) if ever else False
                if elements[len(before) :] != appended or own_too_early or first.setdefault(key, before) != before:
                    self._find("internal", "read committed", (transaction.index,), _internal(key, value))
                elif first[key] is before:
                    self.seen.append(Seen(transaction.index, key, before))

    def _find_versions(self) -> None:
        for seen in self.seen:
            versions = self.versions.setdefault(seen.key, Versions())
            if self._is_impossible(seen):
                versions.is_broken = True
            elif len(seen.elements) > len(versions.order) or versions.longest is None:
                versions.order, versions.longest = seen.elements, seen.reader
        for seen in self.seen:
            versions = self.versions[seen.key]
            if versions.is_broken:
                continue
            if seen.elements != versions.order[: len(seen.elements)]:
                versions.is_broken = True
                assert versions.longest is not None
                sentence = (
                    f"{_read(seen.elements, seen.key)}, {{1}} read {_shown(versions.order)}: "
                    "neither is the beginning of the other"
                )
                self._find("incompatible order", "read committed", (seen.reader, versions.longest), sentence)
            elif seen.elements:
                self._look_at_last(seen)
        for key, versions in self.versions.items():
            self._look_at_writers(key, versions)

    def _is_impossible(self, seen: Seen) -> bool:
        """Elements that were never appended, or are there twice."""
        distinct = frozenset(seen.elements)
        if len(distinct) == len(seen.elements) and distinct <= self._appended.get(seen.key, {}).keys():
            return False
        about = _read(seen.elements, seen.key)
        before: dict[Element, None] = {}
        for element in seen.elements:
            if (seen.key, element) not in self.writers:
                sentence = f"{about}, but {_shown(element)} was never appended to it"
                self._find("phantom element", "read uncommitted", (seen.reader,), sentence)
                break
            if element in before:
                writer = self.writers[(seen.key, element)][0]
                sentence = f"{about}, but {{1}} appended {_shown(element)} only once"
                self._find("duplicate element", "read uncommitted", (seen.reader, writer), sentence)
                break
            before[element] = None
        return True

    def _look_at_last(self, seen: Seen) -> None:
        """G1b: a version that its transaction had not finished making."""
        writer, is_last = self.writers[(seen.key, seen.elements[-1])]
        if writer != seen.reader and not is_last:
            sentence = (
                f"{_read(seen.elements, seen.key)}, where {_shown(seen.elements[-1])} is not the last element that "
                "{1} appended"
            )
            self._find("G1b (intermediate read)", "read committed", (seen.reader, writer), sentence)

    def _look_at_writers(self, key: Key, versions: Versions) -> None:
        """G1a: elements of transactions that failed. And transactions in doubt whose element was read happened."""
        for element in versions.order:
            writer = self.writer(key, element)
            if writer.operation.outcome is Outcome.FAIL:
                reader = next(seen.reader for seen in self.seen if seen.key == key and element in seen.elements)
                sentence = (
                    f"{{0}} read {_shown(element)} from key {_shown(key)}, which {{1}} appended, and {{1}} failed"
                )
                self._find("G1a (aborted read)", "read committed", (reader, writer.index), sentence)
            else:
                writer.happened = True
        self._look_at_own_order(key, versions)

    def _look_at_own_order(self, key: Key, versions: Versions) -> None:
        """What one transaction appended is there in the order of its steps, up to some step."""
        present: dict[int, list[Element]] = {}
        for element in versions.order:
            present.setdefault(self.writers[(key, element)][0], []).append(element)
        for index, elements in present.items():
            appended = [element for its_key, element, _ in _appends(self.all[index]) if its_key == key]
            for expected, element in zip(appended, elements, strict=False):
                if expected != element:
                    assert versions.longest is not None
                    sentence = (
                        f"{_read(versions.order, key)}, where {_shown(element)} lies without {_shown(expected)} before "
                        "it, which {1} appended first"
                    )
                    self._find("reordered appends", "read uncommitted", (versions.longest, index), sentence)
                    versions.is_broken = True
                    break

    def _find_unseen(self) -> None:
        """Every transaction that happened is known now."""
        read = {key: frozenset(versions.order) for key, versions in self.versions.items()}
        for transaction in self.all:
            if transaction.happened:
                for key, element, _ in _appends(transaction):
                    if key in read and element not in read[key]:
                        self.versions[key].unseen.append((transaction.index, element))

    def _find(self, name: str, breaks: str, transactions: tuple[int, ...], sentence: str) -> None:
        self.findings.append(Finding(name, breaks, transactions, sentence))


def _steps(operation: Operation) -> list[tuple[str, Key, Any]]:
    if operation.f not in FUNCTIONS:
        allowed = ", ".join(FUNCTIONS)
        raise UnsuitableError(operation, f"the model list-append has no {operation.f}, allowed: {allowed}")
    if operation.f == "txn":
        steps = operation.result if operation.is_ok else operation.argument
        return [(kind, key, value) for kind, key, value in steps]
    if operation.key is None:
        raise UnsuitableError(operation, f"a lone {operation.f} needs a key")
    if operation.f == "append":
        return [("append", operation.key, operation.argument)]
    if not isinstance(operation.result, list | None):
        raise UnsuitableError(operation, f"a read of a list with the value {operation.result!r}, allowed: a list, null")
    return [("r", operation.key, operation.result)]


def _appends(transaction: Transaction) -> Iterator[tuple[Key, Element, Any]]:
    for kind, key, value in transaction.steps:
        if kind == "append":
            yield key, canonical(value), value


def _shown(value: Any) -> str:
    """A value for the sentence of a finding, in which braces stand for transactions."""
    return show(value).replace("{", "{{").replace("}", "}}")


def _read(value: Any, key: Key) -> str:
    return f"{{0}} read {_shown(value)} from key {_shown(key)}"


def _internal(key: Key, value: Any) -> str:
    return f"{_read(value, key)}, which contradicts its own steps"
