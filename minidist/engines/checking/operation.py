"""One operation of a history: what a process asked for, what came back, and between which two moments.

The moments are **line numbers**, not times: a history has one clock and is written in the order in which things
happened, so the order of its lines is the order of time and has no ties. Times are only for people.

What is known about the effect is the outcome. `OK`: it happened, once, at some moment between `began` and `ended`.
`FAIL`: it did not happen and will not. `INFO`: nobody knows; it may have happened at any moment since `began`, may
happen long after the client has given up, or never. An operation without a completion is `INFO` too.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Any

import msgspec

from minidist.engines.checking.values import Key, show


class Outcome(Enum):
    """What is known about an operation's effect."""

    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Operation(msgspec.Struct, frozen=True, eq=False):
    """An invocation with its completion.

    `argument` is the value at the invocation, `result` that at `ok` (None otherwise). `began` and `ended` are line
    numbers, 1 for the first; `ended` is None where nothing is known of an end, and `ended_ns` too.
    """

    process: int
    f: str
    key: Key | None
    argument: Any
    result: Any
    outcome: Outcome
    began: int
    ended: int | None
    began_ns: int
    ended_ns: int | None
    node: str | None = None
    error: str | None = None

    @property
    def is_ok(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def may_have_happened(self) -> bool:
        return self.outcome is not Outcome.FAIL

    def before(self, other: "Operation") -> bool:
        """Whether it had ended when the other one began."""
        return self.ended is not None and self.outcome is Outcome.OK and self.ended < other.began


def describe(operation: Operation) -> str:
    """What was done and seen, without by whom and when: `write 2`, `read → 1`, `cas 1 → 2`."""
    f, argument, result = operation.f, operation.argument, operation.result
    if f == "cas":
        return f"cas {show(argument[0])} → {show(argument[1])}"
    if f == "read":
        return f"read → {show(result)}" if operation.is_ok else "read"
    if f == "txn":
        return ", ".join(_describe_step(*step) for step in (result if operation.is_ok else argument))
    if f == "send":
        where = f" → {place(result)}" if operation.is_ok else ""
        return f"send {show(argument['value'])}{where}"
    if f == "poll":
        return f"poll → {records(result)}" if operation.is_ok else "poll"
    return f if argument is None else f"{f} {show(argument)}"


def place(record: dict[str, Any]) -> str:
    """`0@17`: partition and offset of a record."""
    return f"{record['partition']}@{record['offset']}"


def records(polled: Iterable[dict[str, Any]], limit: int = 6) -> str:
    """Records for a sentence, the middle left out."""
    texts = [f"{place(each)}={show(each['value'], 20)}" for each in polled]
    if len(texts) > limit:
        texts = [*texts[: limit // 2], f"… {len(texts) - limit} more …", *texts[-limit // 2 :]]
    return ", ".join(texts) or "nothing"


def seconds(time_ns: int) -> str:
    """A moment, for people."""
    return f"{time_ns / 1e9:.6f} s"


def _describe_step(kind: str, key: Key, value: Any) -> str:
    if kind == "r":
        return f"r {show(key)} → {show(value)}"
    return f"{kind} {show(key)} {show(value)}"
