"""Histories of simulated clients, in the contract's format, on the world's one clock.

    token = history.invoke(process, "write", "k", 3)
    history.ok(token) | history.fail(token, "ERR …") | history.info(token, "timed out")

A process does one thing at a time; one whose operation ended in `info` goes on under a new number, because nobody knows
when, or whether, that operation takes effect. Operations that no checker judges (a GET that is looked at by itself)
are only counted, with `count`.
"""

import itertools
from dataclasses import dataclass
from typing import Any

from minidist.engines.checking.history import event_line
from minidist.sim.world import World


@dataclass(slots=True, eq=False)
class Process:
    """A client as the history sees it: `number` changes after an `info`."""

    name: str
    number: int
    ok: int = 0
    last_ok_s: float = -1.0


@dataclass(slots=True)
class Token:
    """An operation under way."""

    process: Process
    f: str
    key: str | None
    value: Any
    node: str


class History:
    """The lines of one run, in order of time, and counts of the outcomes of clients' operations."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lines: list[str] = []
        self.outcomes = {"ok": 0, "fail": 0, "info": 0}
        self.processes: list[Process] = []
        self.names: dict[int, str] = {}  # whose number it is, or was before an info
        self._numbers = itertools.count()

    def process(self, name: str) -> Process:
        """A new client."""
        process = Process(name, self._number(name))
        self.processes.append(process)
        return process

    def invoke(self, process: Process, f: str, key: str | None = None, value: Any = None, node: str = "") -> Token:
        token = Token(process, f, key, value, node)
        self._line(token, "invoke", value)
        return token

    def ok(self, token: Token, value: Any = None) -> None:
        """It happened; `value` is what a read saw (for the others, nothing more than was asked)."""
        self._line(token, "ok", token.value if value is None and token.f != "read" else value)
        self.count(token.process, "ok")

    def fail(self, token: Token, error: str) -> None:
        """It certainly had no effect."""
        self._line(token, "fail", token.value, error)
        self.count(token.process, "fail")

    def info(self, token: Token, error: str) -> None:
        """It may have had an effect, or may still have one."""
        self._line(token, "info", token.value, error)
        self.count(token.process, "info")
        token.process.number = self._number(token.process.name)

    def count(self, process: Process, outcome: str) -> None:
        """An operation ended: ok, fail or info."""
        self.outcomes[outcome] += 1
        if outcome == "ok":
            process.ok += 1
            process.last_ok_s = self.world.now_s

    def happened(self, f: str, key: str, value: Any, node: str) -> None:
        """Something no client asked for took effect at this very moment: a cache that crashed forgot a key."""
        number = self._number(node)
        for kind in ("invoke", "ok"):
            self._line(Token(Process("", number), f, key, value, node), kind, value)

    def _number(self, name: str) -> int:
        number = next(self._numbers)
        self.names[number] = name
        return number

    def _line(self, token: Token, kind: str, value: Any, error: str | None = None) -> None:
        time_ns = int(self.world.now_s * 1e9)
        more = {"node": token.node or None, "error": error}
        self.lines.append(event_line(token.process.number, kind, token.f, time_ns, key=token.key, value=value, **more))
