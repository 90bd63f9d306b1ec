"""What simulated hosts say: log lines and printed text, each kept with its host, and none of it on our own output.

Log records reach it through a handler on the root logger and on `minidist`'s; text through `sys.stdout` and
`sys.stderr`. Both ask the context variable which host is speaking.
"""

import io
import logging
import sys
from typing import TextIO

from minidist.runtime.logs import ROOT, TextFormatter
from minidist.sim.current import current_host

MAX_LINES = 10_000  # of one host: what is said first and what is said last are rarely both needed


class NodeLogs(logging.Handler):
    """A context manager: within it what hosts say is kept here, as lines."""

    def __init__(self, level: int = logging.INFO) -> None:
        super().__init__(level)
        self.setFormatter(TextFormatter())
        self.lines: dict[str, list[str]] = {}
        self._before: list[tuple[logging.Logger, int, bool]] = []
        self._streams: tuple[TextIO, TextIO] = sys.stdout, sys.stderr

    def of(self, host: str) -> list[str]:
        return self.lines.get(host, [])

    def say(self, host: str, line: str) -> None:
        lines = self.lines.setdefault(host, [])
        if len(lines) < MAX_LINES:
            lines.append(line)

    def emit(self, record: logging.LogRecord) -> None:
        host = current_host.get()
        if host is not None:
            self.say(host.name, self.format(record))

    def __enter__(self) -> "NodeLogs":
        # Lines of `minidist` loggers would reach the root too, unless somebody has set them up not to.
        for name in ("", ROOT):
            logger = logging.getLogger(name)
            self._before.append((logger, logger.level, logger.propagate))
            logger.addHandler(self)
            logger.setLevel(min(logger.level or self.level, self.level))
        logging.getLogger(ROOT).propagate = False
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = Spoken(self, sys.stdout), Spoken(self, sys.stderr)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.stdout, sys.stderr = self._streams
        for logger, level, propagate in self._before:
            logger.removeHandler(self)
            logger.setLevel(level)
            logger.propagate = propagate
        self._before.clear()


class Spoken(io.TextIOBase):
    """A text stream that keeps what hosts print, and passes on what others do."""

    def __init__(self, logs: NodeLogs, real: TextIO) -> None:
        self._logs = logs
        self._real = real
        self._begun: dict[str, str] = {}

    def write(self, text: str) -> int:
        host = current_host.get()
        if host is None:
            return self._real.write(text)
        *lines, self._begun[host.name] = (self._begun.get(host.name, "") + text).split("\n")
        for line in lines:
            self._logs.say(host.name, line)
        return len(text)

    def flush(self) -> None:
        if current_host.get() is None:
            self._real.flush()

    def writable(self) -> bool:
        return True
