"""Log lines on stderr, for people (`text`) or for machines (`json`), each with the node's name and named fields.

    log = NodeLog("cache-1")
    log.info("fault started", id="f1", kind="delay")
    2026-11-21T09:30:12.045Z INFO  cache-1 fault started id=f1 kind=delay

It is the standard library's logging underneath (loggers `minidist.NODE`), so a test's log capture sees every line.
"""

import json
import logging
import sys
import time
from typing import Any, TextIO

ROOT = "minidist"


class NodeLog:
    """Writes lines in the name of one node; fields are keyword arguments."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.logger = logging.getLogger(f"{ROOT}.{node}")

    def debug(self, message: str, /, **fields: Any) -> None:
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: Any) -> None:
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: Any) -> None:
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, /, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        self._write(logging.ERROR, message, fields, exc_info)

    def _write(self, level: int, message: str, fields: dict[str, Any], exc_info: BaseException | None = None) -> None:
        if self.logger.isEnabledFor(level):
            self.logger.log(level, message, exc_info=exc_info, extra={"node": self.node, "fields": fields})


def _timestamp(created_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created_s)) + f".{int(created_s * 1000) % 1000:03d}Z"


def _plain(value: object) -> str:
    """A value on one line: what a peer sent must not look like another field or another line."""
    text = str(value)
    return text if text.isprintable() and not set(text) & set(' "=') else json.dumps(text)


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={_plain(value)}" for key, value in getattr(record, "fields", {}).items())
        node = getattr(record, "node", record.name)
        line = f"{_timestamp(record.created)} {record.levelname:<7} {node} {record.getMessage()}{fields}"
        return line + "\n" + self.formatException(record.exc_info) if record.exc_info else line


def _json(value: object) -> object:
    return value if isinstance(value, str | int | float | None) else str(value)


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "node": getattr(record, "node", record.name),
            "message": record.getMessage(),
        }
        line |= {key: _json(value) for key, value in getattr(record, "fields", {}).items() if key not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up(level: str, style: str, stream: TextIO | None = None) -> None:
    """Send every line of minidist (and asyncio's complaints) to stderr, or to `stream`, in one style."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    for name in (ROOT, "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())
