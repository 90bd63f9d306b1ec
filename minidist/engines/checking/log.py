"""The model log: what producers were told and what consumers saw of a partitioned log, after Jepsen's Kafka workload.

A log is what its offsets say, so no search is needed: every acknowledgement and every polled record states which value
lies at which offset of which partition, and all statements together must describe one log.

    divergent log         one offset of a partition holds two values
    phantom record        a value was polled that nobody sent
    aborted record        a value was polled whose send failed
    record from the future
                          a value was polled before its send began
    duplicate             one value lies at two offsets (each value is sent once)
    lost record           an acknowledged record was never polled, though a later one of its partition was
    reordered             of two sends to a partition, the one acknowledged before the other began lies behind it
    poll goes back        a consumer got an offset that is not above what it got before
    poll skips            a consumer got an offset above one it had not got, where a record is known to be

The last two hold between two assignments of a process's partitions: `assign` says that it begins somewhere else. A
lost record is only judged up to the highest offset polled in its partition, and is one only if somebody consumed the
partition from its beginning: have a consumer read everything at the end. Records above are noted as unread.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from minidist.engines.checking.models import UnsuitableError
from minidist.engines.checking.operation import Operation, Outcome
from minidist.engines.checking.values import Key, canonical, show
from minidist.engines.checking.verdict import Arrow, Budget, GaveUpError, Verdict, Violation, verdict_for
from minidist.engines.checking.words import words_for

MODEL = "log"
FUNCTIONS = ("send", "poll", "assign", "commit")
#: Violations of one name that are shown.
MAX_SHOWN = 3


@dataclass(frozen=True, slots=True)
class _Partition:
    topic: Key | None
    number: int

    def __str__(self) -> str:
        return f"partition {self.number}" + ("" if self.topic is None else f" of {show(self.topic)}")


@dataclass(slots=True)
class _Place:
    """What is known of one offset: its value, who said so first."""

    value: Any
    source: Operation


@dataclass(slots=True)
class _Facts:
    """Everything that was said about the log."""

    log: dict[_Partition, dict[int, _Place]] = field(default_factory=dict)
    sends: dict[Any, Operation] = field(default_factory=dict)
    places: dict[Any, list[tuple[_Partition, int, Operation]]] = field(default_factory=dict)
    polled: dict[_Partition, dict[int, Operation]] = field(default_factory=dict)


def check(operations: Sequence[Operation], budget: Budget) -> Verdict:
    """Judge a history of one or more topics. Raises UnsuitableError."""
    return _Check(operations, budget).run()


class _Check:
    def __init__(self, operations: Sequence[Operation], budget: Budget) -> None:
        self._operations = operations
        self._budget = budget
        self._verdict = verdict_for(MODEL, operations)
        self._words = words_for(operations)
        self._facts = _Facts()
        self._shown: dict[str, int] = {}
        self._offsets: dict[_Partition, list[int]] = {}

    def run(self) -> Verdict:
        try:
            self._gather()
            self._verdict.keys = len(self._facts.log)
            self._values()
            self._lost()
            self._reordered()
            self._consumers()
        except GaveUpError as gave_up:
            self._verdict.gave_up.append(str(gave_up))
        self._verdict.found = sum(self._shown.values())
        self._verdict.notes += [f"{name}: {times} times" for name, times in self._shown.items() if times > MAX_SHOWN]
        return self._verdict

    # --- Gathering ----------------------------------------------------------------------------------------------------

    def _gather(self) -> None:
        for operation in self._operations:
            self._budget.spend()
            if operation.f not in FUNCTIONS:
                allowed = ", ".join(FUNCTIONS)
                raise UnsuitableError(operation, f"the model {MODEL} has no {operation.f}, allowed: {allowed}")
            if operation.f == "send":
                self._sent(operation)
        for operation in sorted(self._operations, key=lambda each: each.ended or 0):
            for partition, record in _records(operation):
                self._budget.spend()
                self._said(operation, partition, record)

    def _sent(self, operation: Operation) -> None:
        value = canonical(operation.argument["value"])
        if value in self._facts.sends:
            first = self._facts.sends[value].began
            raise UnsuitableError(
                operation, f"{show(value)} is sent again (first in line {first}): values must be unique"
            )
        self._facts.sends[value] = operation

    def _said(self, operation: Operation, partition: _Partition, record: dict[str, Any]) -> None:
        offset, value = record["offset"], canonical(record["value"])
        places = self._facts.log.setdefault(partition, {})
        known = places.setdefault(offset, _Place(value, operation))
        if known.value != value:
            self._report(
                "divergent log",
                f"offset {offset} of {partition} held {show(known.value)} for {self._words.who(known.source)} and "
                f"{show(value)} for {self._words.who(operation)}",
                [known.source, operation],
            )
        lies_at = self._facts.places.setdefault(value, [])
        if all(each[:2] != (partition, offset) for each in lies_at):
            lies_at.append((partition, offset, operation))
        if operation.f == "poll":
            self._facts.polled.setdefault(partition, {}).setdefault(offset, operation)

    # --- Judging ------------------------------------------------------------------------------------------------------

    def _values(self) -> None:
        for value, places in self._facts.places.items():
            self._budget.spend()
            send = self._facts.sends.get(value)
            partition, offset, source = places[0]
            where = f"offset {offset} of {partition}"
            got = f"{self._words.who(source)} got {show(value)} from {where} at {self._words.end(source)}"
            if send is None:
                self._report("phantom record", f"{got}, which nobody sent", [source])
            elif send.outcome is Outcome.FAIL:
                self._report("aborted record", f"{got}, whose send had failed", [send, source])
            elif source.before(send):
                began = self._words.at(send.began_ns)
                self._report("record from the future", f"{got}, whose send began at {began}", [source, send])
            if len(places) > 1:
                second, other, later = places[1]
                headline = f"{show(value)} lies at {where} and at offset {other} of {second}, but was sent once"
                self._report("duplicate", headline, [*([send] if send else []), source, later])

    def _lost(self) -> None:
        unread = 0
        offsets = {partition: sorted(polled) for partition, polled in self._facts.polled.items()}
        for send in self._facts.sends.values():
            self._budget.spend()
            if not send.is_ok:
                continue
            partition, offset = _Partition(send.key, send.result["partition"]), send.result["offset"]
            polled = self._facts.polled.get(partition, {})
            if offset in polled:
                continue
            later = _first_above(offsets.get(partition, []), offset)
            if later is None:
                unread += 1
                continue
            reader = polled[later]
            self._report(
                "lost record",
                f"{self._words.who(send)}'s {show(send.argument['value'])} was acknowledged at offset {offset} of "
                f"{partition} ({self._words.end(send)}) and never polled, though offset {later} was "
                f"({self._words.end(reader)})",
                [send, reader],
            )
        if unread:
            self._verdict.notes.append(
                f"{unread} acknowledged records lie above all that was polled: nobody read so far"
            )

    def _reordered(self) -> None:
        """Walks through time with the highest offset that had been acknowledged, by partition."""
        events: list[tuple[int, bool, Operation]] = []
        for send in self._facts.sends.values():
            if send.is_ok and send.ended is not None:
                events += [(send.began, True, send), (send.ended, False, send)]
        highest: dict[_Partition, Operation] = {}
        for _, begins, send in sorted(events, key=lambda event: event[0]):
            partition, offset = _Partition(send.key, send.result["partition"]), send.result["offset"]
            before = highest.get(partition)
            if not begins:
                if before is None or offset > before.result["offset"]:
                    highest[partition] = send
            elif before is not None and before.result["offset"] >= offset:
                self._report(
                    "reordered",
                    f"{show(before.argument['value'])} had been acknowledged at offset {before.result['offset']} of "
                    f"{partition} before the send of {show(send.argument['value'])} began, which lies at {offset}",
                    [before, send],
                    "had ended before",
                )

    def _consumers(self) -> None:
        """Each process's polls in turn, with what it got last of each partition since its assignment."""
        position: dict[int, dict[_Partition, tuple[int, Operation]]] = {}
        self._offsets = {partition: sorted(places) for partition, places in self._facts.log.items()}
        for operation in self._operations:
            if operation.f == "assign":
                position[operation.process] = {}
            if operation.f != "poll":
                continue
            last = position.setdefault(operation.process, {})
            for partition, record in _records(operation):
                self._budget.spend()
                offset = record["offset"]
                if partition in last:
                    self._step(operation, partition, offset, *last[partition])
                last[partition] = (offset, operation)

    def _step(self, operation: Operation, partition: _Partition, offset: int, before: int, earlier: Operation) -> None:
        who = self._words.who(operation)
        polls = [earlier, operation]
        if offset <= before:
            headline = f"{who} got offset {offset} of {partition} after it had got offset {before}"
            self._report("poll goes back", headline, polls, "then")
            return
        known = self._facts.log[partition]
        missed = _first_above(self._offsets[partition], before)
        if missed is not None and missed < offset:
            headline = (
                f"{who} got offset {offset} of {partition} right after offset {before}, without offset {missed} with "
                f"{show(known[missed].value)}"
            )
            self._report("poll skips", headline, [*polls, known[missed].source], "then")

    def _report(self, name: str, headline: str, operations: Sequence[Operation], arrow: str = "") -> None:
        self._shown[name] = self._shown.get(name, 0) + 1
        if self._shown[name] > MAX_SHOWN:
            return
        evidence = sorted({each.began: each for each in operations}.values(), key=lambda each: each.began)
        violation = Violation(name, "one log per partition", f"{name}: {headline}", [], evidence)
        if arrow and operations[0] is not operations[1]:
            violation.arrows.append(Arrow(evidence.index(operations[0]), evidence.index(operations[1]), arrow))
        violation.marked = [evidence.index(operations[-1] if not arrow else operations[1])]
        self._verdict.violations.append(violation)


def _first_above(offsets: Sequence[int], offset: int) -> int | None:
    """Of sorted offsets."""
    place = bisect_right(offsets, offset)
    return offsets[place] if place < len(offsets) else None


def _records(operation: Operation) -> Iterator[tuple[_Partition, dict[str, Any]]]:
    """What an operation says about the log; a record may name its own topic when a poll covers several."""
    if not operation.is_ok:
        return
    if operation.f == "send":
        yield _Partition(operation.key, operation.result["partition"]), operation.result
    elif operation.f == "poll":
        for record in operation.result:
            yield _Partition(record.get("key", operation.key), record["partition"]), record
