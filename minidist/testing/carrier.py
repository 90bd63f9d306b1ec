"""Carriers: what carries a test's nodes. This one is a supervisor with processes; `inline.py` has the other.

One supervisor serves a whole test session; each `minidist.cache()` adds a group to it and each end of a test removes
one, which costs a fork. `minidist.up(FILE)` gets a supervisor of its own, because the names in the file are its own.
Calls go over the supervisor's control socket and block for the milliseconds they take; the nodes are other processes,
so blocking the test's loop for a moment blocks nobody else.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minidist.cluster.control import VerbError, call
from minidist.cluster.rundir import RunDir
from minidist.testing.errors import MinidistError, UsageError

READY_TIMEOUT_S = 30.0
USAGE = 2


class Supervision:
    """A supervisor that belongs to this process, and ends with it. So does `directory`, unless it is to be kept."""

    def __init__(self, file: Path, directory: Path, *, keep: bool = False, timeout_s: float = READY_TIMEOUT_S) -> None:
        self.run_dir = RunDir(directory / "run")
        self.keep = keep
        self._directory = directory
        temporary = "" if keep else str(directory)
        arguments = [str(file), str(self.run_dir.path), str(timeout_s), temporary]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "minidist.testing.launcher", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=file.parent,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        message: dict[str, Any] = json.loads(line or b'{"error": "the launcher ended without a word", "exit": 1}')
        if "error" in message:
            self._end_launcher()
            self._remove_directory()
            raise error_of(message["error"], message["exit"])

    def call(self, verb: str, **arguments: Any) -> Any:
        """One request to the supervisor. Raises MinidistError."""
        try:
            return call(self.run_dir, verb, **arguments)
        except VerbError as error:
            raise error_of(str(error), error.exit_code) from error

    def rows(self) -> list[dict[str, Any]]:
        """The nodes as `ps --json` shows them."""
        nodes: list[dict[str, Any]] = self.call("ps")["nodes"]
        return nodes

    def log_path(self, node: str) -> Path:
        return self.run_dir.log_of(node)

    def close(self) -> None:
        """Everything is gone when this returns; the logs too, unless they are to be kept."""
        try:
            call(self.run_dir, "down", timeout_s=0.0)
        except (VerbError, OSError):
            pass  # it is gone already
        self._end_launcher()
        self.run_dir.wait_until_free()
        self._remove_directory()

    def _remove_directory(self) -> None:
        if not self.keep:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _end_launcher(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


class Workshop:
    """The supervisor of a session, made when the first node is; groups come and go."""

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        self._supervision: Supervision | None = None

    def add(self, name: str, table: Mapping[str, Any], timeout_s: float = READY_TIMEOUT_S) -> Supervision:
        """Start a group and wait until it is ready. Raises UsageError, MinidistError (then nothing of it is left)."""
        text = toml_of(name, table)
        if self._supervision is None:
            directory = new_directory()
            file = directory / "minidist.toml"
            file.write_text(text, encoding="utf-8")
            self._supervision = Supervision(file, directory, keep=self.keep, timeout_s=timeout_s)
            return self._supervision
        self._supervision.call("add-groups", text=text, file="options")
        try:
            self._supervision.call("wait", nodes=[name], timeout_s=timeout_s)
        except MinidistError:
            self.remove(name)
            raise
        return self._supervision

    def remove(self, name: str) -> None:
        if self._supervision is not None:
            self._supervision.call("remove-groups", groups=[name])

    def close(self) -> None:
        if self._supervision is not None:
            self._supervision.close()
            self._supervision = None


def new_directory() -> Path:
    """A directory for a Supervision."""
    return Path(tempfile.mkdtemp(prefix="minidist-test-"))


def error_of(text: str, exit_code: int) -> MinidistError:
    return UsageError(text) if exit_code == USAGE else MinidistError(text)


def toml_of(name: str, table: Mapping[str, Any]) -> str:
    """A group as TOML. JSON's strings, numbers, booleans and arrays are TOML's too; a mapping is an inline table."""
    lines = [f"{key} = {_value(value)}" for key, value in table.items() if value is not None]
    return "\n".join([f"[groups.{name}]", *lines, ""])


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(str(value))
