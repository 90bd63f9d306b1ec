"""Histories of simulated clients, in the contract's format, on the world's one clock.

    token = history.invoke(client, "write", "k", 3)
    history.ok(token) | history.fail(token, "ERR …") | history.info(token, "timed out")

A process does one thing at a time; one whose operation ended in `info` goes on under a new number, because nobody knows
when, or whether, that operation takes effect.
"""

import itertools
from dataclasses import dataclass
from typing import Any

from minidist.engines.checking.history import event_line
from minidist.sim.world import World


@dataclass(slots=True)
class Process:
    """A client as the history sees it: `number` changes after an `info`."""

    name: str
    number: int
    ok: int = 0


@dataclass(slots=True)
class Token:
    process: Process
    f: str
    key: str
    value: Any
    node: str


class History:
    """The lines of one run, in order of time, and counts of their outcomes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lines: list[str] = []
        self.outcomes = {"ok": 0, "fail": 0, "info": 0}
        self._numbers = itertools.count()

    def process(self, name: str) -> Process:
        return Process(name, next(self._numbers))

    def invoke(self, process: Process, f: str, key: str, value: Any, node: str = "") -> Token:
        token = Token(process, f, key, value, node)
        self._line(token, "invoke", value)
        return token

    def ok(self, token: Token, value: Any = None) -> None:
        token.process.ok += 1
        self._line(token, "ok", token.value if value is None and token.f != "read" else value)
        self.outcomes["ok"] += 1

    def fail(self, token: Token, error: str) -> None:
        """It certainly had no effect."""
        self._line(token, "fail", token.value, error)
        self.outcomes["fail"] += 1

    def info(self, token: Token, error: str) -> None:
        """It may have had an effect, or may still have one."""
        self._line(token, "info", token.value, error)
        self.outcomes["info"] += 1
        token.process.number = next(self._numbers)

    def _line(self, token: Token, kind: str, value: Any, error: str | None = None) -> None:
        self.lines.append(
            event_line(
                token.process.number, kind, token.f, int(self.world.now_s * 1e9),
                key=token.key, value=value, node=token.node or None, error=error,
            )
        )  # fmt: skip
