"""The history of a load (`--history FILE`): what each connection asked and saw, for `minidist check`.

Written by the process that makes the load, so there is one clock (nanoseconds since the first line) and the lines are
in the order in which things happened. A connection is a process; one whose operation ended without an answer goes on
under a new number, because nobody knows whether, or when, that operation takes effect. What is still under way at the
end stays an invocation without completion, which means the same.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from time import perf_counter_ns, time_ns
from typing import Any, TextIO

from minidist.engines.checking.history import event_line

BUFFER_BYTES = 1 << 20


@dataclass(slots=True)
class Operation:
    """One that is under way."""

    process: int
    f: str
    key: str
    value: Any


class History:
    """The file, opened (and emptied) at the first line."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.run = f"{time_ns():x}"  # tells its keys from those of other runs
        self.values = itertools.count(1)  # no two writes write the same
        self.processes = itertools.count()
        self._file: TextIO | None = None
        self._began_ns = 0
        self._closed = False

    def key(self, number: int) -> str:
        """The name of this run's key of this number."""
        return f"history:{self.run}:{number}"

    def invoke(self, process: int, f: str, key: str, value: Any = None) -> Operation:
        operation = Operation(process, f, key, value)
        self._line(operation, "invoke", value)
        return operation

    def ok(self, operation: Operation, value: Any = None) -> None:
        self._line(operation, "ok", value if operation.f == "read" else operation.value)

    def fail(self, operation: Operation, error: str) -> None:
        """It certainly had no effect."""
        self._line(operation, "fail", operation.value, error)

    def info(self, operation: Operation, error: str) -> None:
        """It may have had an effect, or may still have one. Its process must not be used again."""
        self._line(operation, "info", operation.value, error)

    def _line(self, operation: Operation, kind: str, value: Any, error: str | None = None) -> None:
        if self._closed:
            return
        if self._file is None:
            self._file = open(self.path, "w", buffering=BUFFER_BYTES, encoding="utf-8")  # noqa: SIM115 - for the run
            self._began_ns = perf_counter_ns()
        time_ns = perf_counter_ns() - self._began_ns
        line = event_line(operation.process, kind, operation.f, time_ns, key=operation.key, value=value, error=error)
        self._file.write(line + "\n")

    def close(self) -> None:
        """The load is over; what comes after it is not written."""
        self._closed = True
        if self._file is not None:
            self._file.close()
