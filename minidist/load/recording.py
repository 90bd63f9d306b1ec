"""Connections that write down what they do: one command under way each, every written value another one.

GET is `read`, SET `write`, INCR `add` 1; counters are read as well, in the proportion of --ratio, since additions alone
prove nothing. What an error says about the effect is the driver's to tell (`outcome`), what a lost connection says the
rule of `engines/checking/answers.py`. Keys are this run's own (`history:RUN:…`), because whatever they held before is
no part of the history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidist.engines.checking import Outcome, answers
from minidist.engines.checking.values import from_bytes
from minidist.load.channel import Wiring
from minidist.load.keyed import KeyedChannel, KeyedDriver, first_word
from minidist.wire.resp_client import ReplyError

if TYPE_CHECKING:
    from minidist.load.history import History, Operation

PADDING = b"."


class RecordingChannel(KeyedChannel):
    """One connection, one operation at a time."""

    def __init__(self, wiring: Wiring, driver: KeyedDriver, history: History) -> None:
        super().__init__(wiring, driver)
        self._driver = driver
        self._history = history
        self._counts = driver.workload == "incr"
        self._chance, self._draw_key = wiring.rng.random, driver.draw_key(wiring)
        self._draw_size = driver.sizes.draw(wiring.rng)
        self._process = next(history.processes)
        self._operation: Operation | None = None

    def encode(self, count: int) -> bytes:
        read = self._chance() < self._driver.read_share
        key = self._history.key(self._draw_key())
        name = key.encode()
        if read:
            self._operation = self._history.invoke(self._process, "read", key)
            return self._driver.get(name)
        if self._counts:
            self._operation = self._history.invoke(self._process, "add", key, 1)
            return self._driver.incr(name)
        value = str(next(self._history.values))
        self._operation = self._history.invoke(self._process, "write", key, value)
        return self._driver.set(name, value.encode().ljust(self._draw_size(), PADDING))

    def replied(self, reply: Any, now_s: float) -> None:
        operation, self._operation = self._operation, None
        assert operation is not None
        if isinstance(reply, ReplyError):
            text = str(reply)
            self._not_done(operation, self._driver.outcome(operation.f, text), text)
            self.refused(first_word(reply))
            return
        self._history.ok(operation, self._value(reply))
        if operation.f == "read":
            self.found(reply is not None)
        self.answered(now_s)

    def _value(self, reply: Any) -> Any:
        """What a read saw: of counters a number, unless it is none."""
        if not isinstance(reply, bytes):
            return reply
        if self._counts and reply.removeprefix(b"-").isdigit():
            return int(reply)
        return from_bytes(reply.rstrip(PADDING))

    def _not_done(self, operation: Operation, outcome: Outcome, error: str) -> None:
        if outcome is Outcome.FAIL:
            self._history.fail(operation, error)
        else:
            self._history.info(operation, error)
            self._process = next(self._history.processes)

    def _fail_under_way(self, kind: str) -> None:
        operation, self._operation = self._operation, None
        if operation is not None:
            self._not_done(operation, answers.after_silence(operation.f, sent=True), kind)
        super()._fail_under_way(kind)
