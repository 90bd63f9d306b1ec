"""Operations in sentences: who did what, and when."""

from collections.abc import Sequence
from dataclasses import dataclass

from minidist.engines.checking.operation import Operation, describe, seconds
from minidist.engines.checking.values import printable, show

#: A clock that began so long before the first line (an epoch, a machine's start) says nothing to people.
MAX_ORIGIN_NS = 24 * 3600 * 10**9


def words_for(operations: Sequence[Operation]) -> "Words":
    """Words for a history: moments as its lines have them, or counted from the first line of one whose clock is old.

    Nodes are named where there are several.
    """
    first_ns = operations[0].began_ns if operations else 0
    nodes = {operation.node for operation in operations}
    return Words(0 if 0 <= first_ns < MAX_ORIGIN_NS else first_ns, with_nodes=len(nodes) > 1)


@dataclass(frozen=True, slots=True)
class Words:
    """Sentences about one history; `origin_ns` is what moments are counted from."""

    origin_ns: int = 0
    with_nodes: bool = True

    def at(self, time_ns: int | None) -> str:
        """`0.001200 s`."""
        return "never" if time_ns is None else seconds(time_ns - self.origin_ns)

    def span(self, operation: Operation) -> str:
        """`0.001200 s to 0.001950 s`."""
        return f"{self.at(operation.began_ns)} to {self.end(operation)}"

    def end(self, operation: Operation) -> str:
        return "?" if operation.ended_ns is None else self.at(operation.ended_ns)

    def read(self, operation: Operation) -> str:
        """`process 3 read 1 at 0.001950 s`."""
        return f"{self.who(operation)} read {show(operation.result)} at {self.end(operation)}"

    def who(self, operation: Operation) -> str:
        """`process 3`, `process 3 on store-1`."""
        return f"process {operation.process}{self._on(operation)}"

    def of(self, operation: Operation) -> str:
        """`process 3's write 2`, `process 3's write 2 on store-1`."""
        return f"process {operation.process}'s {describe(operation)}{self._on(operation)}"

    def ended_before(self, first: Operation, second: Operation) -> str:
        """`process 1's write 2 had ended (0.002 s) before process 3's read → 1 began (0.003 s)`."""
        return (
            f"{self.of(first)} had ended ({self.end(first)}) before {self.of(second)} began "
            f"({self.at(second.began_ns)})"
        )

    def _on(self, operation: Operation) -> str:
        return f" on {printable(operation.node)}" if self.with_nodes and operation.node else ""


def joined(texts: list[str], last: str = "and") -> str:
    """`a, b and c`."""
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {last} {texts[-1]}"


def count(number: int, noun: str) -> str:
    """`1 addition`, `2 additions`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
