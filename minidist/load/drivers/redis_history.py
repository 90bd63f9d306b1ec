"""RESP connections that write down what they do: one command under way each, every written value another one.

GET is `read`, SET `write`, INCR `add` 1; counters are read as well, in the proportion of --ratio, since additions alone
prove nothing. What an error or a lost connection says about the effect is the rule of
`engines/checking/answers.py`. Keys are this run's own (`history:RUN:…`), because whatever they held before is no part
of the history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minidist.engines.checking import Outcome, answers
from minidist.engines.checking.values import from_bytes
from minidist.load.channel import Wiring
from minidist.load.drivers.redis import Redis, RedisChannel
from minidist.wire.resp import encode_command
from minidist.wire.resp_client import ReplyError

if TYPE_CHECKING:
    from minidist.load.history import History, Operation

PADDING = b"."


class RecordingChannel(RedisChannel):
    """One connection, one operation at a time."""

    def __init__(self, wiring: Wiring, driver: Redis, history: History) -> None:
        super().__init__(wiring, driver)
        self._history = history
        self._counts = driver.workload == "incr"
        self._choose = _chooser(wiring, driver, history.run)
        self._size = driver.values["value_size"]
        self._process = next(history.processes)
        self._operation: Operation | None = None

    def encode(self, count: int) -> bytes:
        f, key = self._choose()
        value: str | int | None = None
        words = ["GET", key]
        if f == "write":
            value = str(next(self._history.values))
            words = ["SET", key, value.ljust(self._size, PADDING.decode())]
        elif f == "add":
            value, words = 1, ["INCR", key]
        self._operation = self._history.invoke(self._process, f, key, value)
        return encode_command([word.encode() for word in words])

    def replied(self, reply: Any, now_s: float) -> None:
        operation, self._operation = self._operation, None
        assert operation is not None
        if not isinstance(reply, ReplyError):
            self._history.ok(operation, self._value(reply))
            self.answered(now_s)
            return
        text = str(reply)
        self._not_done(operation, answers.after_error(operation.f, text), text)
        self.refused(text.partition(" ")[0] or "ERR")

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


def _chooser(wiring: Wiring, driver: Redis, run: str) -> Callable[[], tuple[str, str]]:
    """What makes the next operation: its `f` and its key."""
    chance, keys, workload = wiring.rng.random, driver.values["keys"], driver.workload
    reads, writes = driver.values["ratio"]
    share = {"get": 1.0, "set": 0.0}.get(workload, reads / (reads + writes))
    change = "add" if workload == "incr" else "write"

    def choose() -> tuple[str, str]:
        return ("read" if chance() < share else change), f"history:{run}:{int(chance() * keys)}"

    return choose
