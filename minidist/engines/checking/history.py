"""Histories: JSON lines of what clients did and saw, read into operations and written back.

    {"process":3,"type":"invoke","f":"write","key":"k","value":2,"time":1200}
    {"process":3,"type":"ok","f":"write","key":"k","value":2,"time":1950}

A process does one thing at a time, so a completion belongs to the process's open invocation. What is still open at the
end of the file is as good as `info`. Whatever is wrong with a line raises `HistoryError` with the line's number: a
history that is quietly read wrong would be judged wrong.

Read strictly is what changes a verdict: types, names, the order of time, the shape of values, a completion that
contradicts its invocation. Other fields are left alone, so that recorders may add their own.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from minidist.engines.checking.operation import Operation, Outcome
from minidist.engines.checking.values import MAX_DEPTH, Key, canonical, from_json, to_json

TYPES = ("invoke", "ok", "fail", "info")
FUNCTIONS = ("read", "write", "cas", "add", "append", "txn", "send", "poll", "assign", "commit")
_INVOKE = "invoke"


class HistoryError(Exception):
    """A line that cannot be part of a history: its number, and what is wrong with it."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem


class Event(msgspec.Struct, omit_defaults=True):
    """One line. `time` is in nanoseconds of the history's one clock, with any beginning."""

    process: int
    type: str
    f: str
    time: int
    key: str | int | dict[str, Any] | None = None
    value: Any = None
    node: str | None = None
    error: str | None = None


_decoder = msgspec.json.Decoder(Event)


def read(lines: Iterable[str | bytes]) -> list[Operation]:
    """The operations of a history in the order of their invocations. Empty lines are skipped. Raises HistoryError."""
    reader = _Reader()
    for number, line in enumerate(lines, 1):
        if line and not line.isspace():
            reader.line(number, line)
    return reader.operations()


def write(operations: Iterable[Operation]) -> Iterator[str]:
    """The lines (without ends of line) of a history with these operations, in the order in which they happened.

    `read` gives the same operations back, but for their line numbers.
    """
    events = []
    for operation in operations:
        events.append((operation.began, operation, _INVOKE))
        if operation.ended is not None:
            events.append((operation.ended, operation, operation.outcome.value))
    for _, operation, type_ in sorted(events, key=lambda event: event[0]):
        yield _line(operation, type_)


def event_line(
    process: int, type_: str, f: str, time_ns: int, *, key: Key | None = None, value: Any = None, **more: str | None
) -> str:
    """One line of a history; `more` may be node and error."""
    plain_key = to_json(key)
    event = Event(process, type_, f, time_ns, plain_key, to_json(value), more.get("node"), more.get("error"))
    return msgspec.json.encode(event).decode()


def _line(operation: Operation, type_: str) -> str:
    invoke = type_ == _INVOKE
    value = operation.result if type_ == "ok" and operation.result is not None else operation.argument
    time_ns = operation.began_ns if invoke else operation.ended_ns or operation.began_ns
    return event_line(
        operation.process,
        type_,
        operation.f,
        time_ns,
        key=operation.key,
        value=operation.argument if invoke else value,
        node=operation.node,
        error=None if invoke else operation.error,
    )


class _Reader:
    """Pairs invocations with completions."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[int, Event, Key | None]] = {}
        self._done: list[Operation] = []
        self._time: int | None = None
        self._time_line = 0

    def line(self, number: int, line: str | bytes) -> None:
        event = _event(number, line)
        if self._time is not None and event.time < self._time:
            raise HistoryError(
                number, f"time runs backwards: {event.time} after the {self._time} of line {self._time_line}"
            )
        self._time, self._time_line = event.time, number
        try:
            key: Key | None = from_json(event.key) if type(event.key) is dict else event.key  # type: ignore[assignment]
            if type(event.value) in (dict, list):
                event.value = from_json(event.value)
        except ValueError as error:
            raise HistoryError(number, str(error)) from None
        if isinstance(key, dict):
            raise HistoryError(number, 'key is an object; allowed: a string, a number, {"b64":"…"}')
        if event.type == _INVOKE:
            self._invoke(number, event, key)
        else:
            self._complete(number, event, key)

    def operations(self) -> list[Operation]:
        for number, event, key in self._open.values():
            self._done.append(_operation(event, key, number, None, Outcome.INFO))
        self._open.clear()
        return sorted(self._done, key=lambda operation: operation.began)

    def _invoke(self, number: int, event: Event, key: Key | None) -> None:
        if event.process in self._open:
            raise HistoryError(
                number,
                f"process {event.process} begins {event.f} while its {self._open[event.process][1].f} of line "
                f"{self._open[event.process][0]} is not completed",
            )
        if problem := _shape_problem(event.f, event.value):
            raise HistoryError(number, problem)
        self._open[event.process] = (number, event, key)

    def _complete(self, number: int, event: Event, key: Key | None) -> None:
        if event.process not in self._open:
            raise HistoryError(number, f"{event.type} without invoke: process {event.process} has nothing under way")
        began, invoked, invoked_key = self._open.pop(event.process)
        if event.f != invoked.f:
            raise HistoryError(number, f"{event.type} of {event.f}, but line {began} invoked {invoked.f}")
        if key is not None and key != invoked_key:
            raise HistoryError(number, f"{event.type} for key {key!r}, but line {began} has key {invoked_key!r}")
        result = None
        if event.type == "ok":
            result, problem = _RESULTS.get(event.f, _no_result)(invoked.value, event.value)
            if problem:
                raise HistoryError(number, f"{problem} (line {began})")
        done = _operation(invoked, invoked_key, began, number, Outcome(event.type), result)
        self._done.append(
            msgspec.structs.replace(
                done, ended_ns=event.time, node=event.node or invoked.node, error=event.error or invoked.error
            )
        )


def _event(number: int, line: str | bytes) -> Event:
    try:
        event = _decoder.decode(line)
    except RecursionError:
        raise HistoryError(number, f"a value is nested more than {MAX_DEPTH} levels deep") from None
    except msgspec.ValidationError as error:
        raise HistoryError(number, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HistoryError(number, f"not JSON: {error}") from None
    if event.type not in TYPES:
        raise HistoryError(number, f"unknown type {event.type!r}, allowed: {', '.join(TYPES)}")
    if event.f not in FUNCTIONS:
        raise HistoryError(number, f"unknown f {event.f!r}, allowed: {', '.join(FUNCTIONS)}")
    return event


def _operation(
    event: Event, key: Key | None, began: int, ended: int | None, outcome: Outcome, result: Any = None
) -> Operation:
    return Operation(
        process=event.process,
        f=event.f,
        key=key,
        argument=event.value,
        result=result,
        outcome=outcome,
        began=began,
        ended=ended,
        began_ns=event.time,
        ended_ns=None,
        node=event.node,
        error=event.error,
    )


# --- The shapes of values, by f ---------------------------------------------------------------------------------------


def _shape_problem(f: str, value: Any) -> str:
    """What is wrong with the value of an invocation; empty when nothing is."""
    if f == "cas" and not (isinstance(value, list) and len(value) == 2):
        return "cas needs the value [old, new]"
    if f == "txn":
        return _transaction_problem(value)
    if f == "send" and not (isinstance(value, dict) and "value" in value):
        return 'send needs the value {"value": …}'
    return ""


def _transaction_problem(value: Any) -> str:
    if not isinstance(value, list):
        return 'txn needs a list of ["append", key, value] and ["r", key, null]'
    for step in value:
        if not (isinstance(step, list) and len(step) == 3 and step[0] in ("append", "r")):
            return f'txn has the step {step!r}, allowed: ["append", key, value] and ["r", key, null]'
        if not isinstance(step[1], str | bytes | int):
            return f"txn has the key {step[1]!r}, allowed: a string or a number"
    return ""


_Result = Callable[[Any, Any], tuple[Any, str]]


def _no_result(invoked: Any, completed: Any) -> tuple[Any, str]:
    """For what returns nothing: the completion may repeat the argument, but not contradict it."""
    if completed is not None and canonical(completed) != canonical(invoked):
        return None, f"ok has the value {completed!r}, but it was invoked with {invoked!r}"
    return None, ""


def _read_result(_invoked: Any, completed: Any) -> tuple[Any, str]:
    return completed, ""


def _transaction_result(invoked: Any, completed: Any) -> tuple[Any, str]:
    if problem := _transaction_problem(completed):
        return None, problem
    if [each[:2] for each in completed] != [each[:2] for each in invoked]:
        return None, "the steps of the txn differ from those it was invoked with"
    for asked, done in zip(invoked, completed, strict=True):
        if asked[0] == "append" and canonical(asked[2]) != canonical(done[2]):
            return None, f"the txn appended {done[2]!r}, but it was invoked with {asked[2]!r}"
        if asked[0] == "r" and not (done[2] is None or isinstance(done[2], list)):
            return None, f"the txn read {done[2]!r}, allowed: a list, or null for a key that is not there"
    return completed, ""


def _record_problem(record: Any) -> str:
    shape = isinstance(record, dict) and "value" in record
    if shape and all(type(record.get(name)) is int for name in ("partition", "offset")):
        return ""
    return f'{record!r} is not a record, allowed: {{"partition": N, "offset": N, "value": …}}'


def _send_result(invoked: Any, completed: Any) -> tuple[Any, str]:
    if problem := _record_problem(completed):
        return None, problem
    if canonical(completed["value"]) != canonical(invoked["value"]):
        return None, f"ok has the value {completed['value']!r}, but it was invoked with {invoked['value']!r}"
    return completed, ""


def _poll_result(_invoked: Any, completed: Any) -> tuple[Any, str]:
    if not isinstance(completed, list):
        return None, "the value of a poll's ok is a list of records"
    return completed, next(filter(None, map(_record_problem, completed)), "")


def _any_result(_invoked: Any, completed: Any) -> tuple[Any, str]:
    return completed, ""


_RESULTS: dict[str, _Result] = {
    "read": _read_result,
    "txn": _transaction_result,
    "send": _send_result,
    "poll": _poll_result,
    "assign": _any_result,
    "commit": _any_result,
}
