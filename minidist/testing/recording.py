"""Record what clients do and see, so that a machine can judge it: histories from ordinary tests.

    recorder = Recorder()
    with recorder.redis(store[0].url, "register") as client:      # one per thread; asyncio: recorder.redis_asyncio(…)
        client.write("k", 1)                                       # never raises for what the server or network does
        client.read("k").value
    recorder.check("register")                                     # raises ViolatedError, with the evidence in words

A history is worth what its outcomes are worth. A recording client tells three apart (docs/checking.md): `ok`; `fail`,
the operation certainly had no effect; `info`, nobody knows. Hence it sends every command **once**: the library's
own retries, ten of them in redis-py 8, would apply a write twice behind the history's back. It connects before it
sends, so a refused connection is `fail`; what an error says, and what silence after the first byte was handed over, is
the rule of `engines/checking/answers.py`. After an `info` the client goes on as a new process: the operation in doubt
is still under way.

For other protocols, `Process` is the part without a client: `with process.operation("write", key, value) as done:`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minidist.engines.checking import Budget, Judgement, Operation, Outcome, Verdict, answers, check
from minidist.engines.checking.history import event_line, read
from minidist.engines.checking.values import Key, from_bytes
from minidist.testing.errors import MinidistError, UsageError

#: Longer than a server without a quorum takes to answer (2 s).
TIMEOUT_S = 3.0
BUDGET_S = 60.0


class ViolatedError(MinidistError, AssertionError):
    """The recorded history does not hold, or could not be judged; `verdict` has the evidence."""

    def __init__(self, text: str, verdict: Verdict) -> None:
        super().__init__(text)
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class Done:
    """How an operation ended: what it returned when `ok`, else why it did not."""

    outcome: Outcome
    value: Any = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK


class Recorder:
    """One history: the lines of all its clients in the order in which things happened, on one clock."""

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._now_ns = now_ns
        self._origin_ns = now_ns()
        self._lock = threading.Lock()  # a line's time and its place in the file are taken together
        self._processes = 0
        self.lines: list[str] = []

    def process(self, node: str | None = None) -> Process:
        """A new process that talks to a node."""
        return Process(self, node)

    def redis(self, url: str, model: str, *, node: str | None = None, timeout_s: float = TIMEOUT_S) -> RecordingRedis:
        """A client whose `read`, `write`, `add` … mean what they mean in a model: the rows of `COMMANDS`."""
        return RecordingRedis(self.process(node), url, model, timeout_s)

    def redis_asyncio(
        self, url: str, model: str, *, node: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> AsyncRecordingRedis:
        """The same for asyncio."""
        return AsyncRecordingRedis(self.process(node), url, model, timeout_s)

    def operations(self) -> list[Operation]:
        """What was recorded so far; operations under way are indeterminate."""
        with self._lock:
            return read(list(self.lines))

    def save(self, path: str | Path) -> None:
        """Write the history as a file for `minidist check`."""
        with self._lock:
            Path(path).write_text("".join(f"{line}\n" for line in self.lines), "utf-8")

    def check(self, model: str, *, budget_s: float = BUDGET_S) -> Verdict:
        """Judge what was recorded. Raises ViolatedError when it does not hold or there was no time to be certain."""
        from minidist.check import tell

        operations = self.operations()
        end = time.monotonic() + budget_s
        verdict = check(operations, model, Budget(lambda: time.monotonic() > end))
        if verdict.judgement is not Judgement.HOLDS:
            raise ViolatedError(tell(verdict, operations), verdict)
        return verdict

    def new_number(self) -> int:
        with self._lock:
            self._processes += 1
            return self._processes - 1

    def record(self, process: int, type_: str, f: str, **more: Any) -> None:
        with self._lock:
            self.lines.append(event_line(process, type_, f, self._now_ns() - self._origin_ns, **more))


class Process:
    """One thing after the other, by one client. Its number changes after an operation that ended in `info`."""

    def __init__(self, recorder: Recorder, node: str | None) -> None:
        self.node = node
        self.number = recorder.new_number()
        self._recorder = recorder

    @contextlib.contextmanager
    def operation(self, f: str, key: Key | None = None, value: Any = None) -> Iterator[Ending]:
        """Record an operation: the block does it and says how it ended; one that raises, or says nothing, is `info`."""
        self._recorder.record(self.number, "invoke", f, key=key, value=value, node=self.node)
        ending = Ending()
        try:
            yield ending
        except BaseException as error:
            if ending.done is None:
                ending.info(f"{type(error).__name__}: {error}")
            raise
        finally:
            self._end(f, key, value, ending.done or Done(Outcome.INFO, error="nobody said how it ended"))

    def _end(self, f: str, key: Key | None, value: Any, done: Done) -> None:
        result = done.value if done.ok else value
        more = {"key": key, "value": result, "node": self.node, "error": done.error}
        self._recorder.record(self.number, done.outcome.value, f, **more)
        if done.outcome is Outcome.INFO:
            self.number = self._recorder.new_number()


class Ending:
    """What the block of an operation says."""

    def __init__(self) -> None:
        self.done: Done | None = None

    def ok(self, value: Any = None) -> None:
        """It happened, and returned this."""
        self.done = Done(Outcome.OK, value)

    def fail(self, error: str) -> None:
        """It certainly had no effect, and will have none."""
        self.done = Done(Outcome.FAIL, error=error)

    def info(self, error: str) -> None:
        """Nobody knows."""
        self.done = Done(Outcome.INFO, error=error)


# --- What operations are in Redis' commands ---------------------------------------------------------------------------
# A script yields commands and gets their replies. It returns the operation's value, or raises `_NotDone`.


class _NotDone(Exception):
    """The operation ended without effect: why."""


class _HalfDone(Exception):
    """Of a transaction's commands one failed, and the others happened: which error."""


#: After these the connection is surely between two operations.
_BETWEEN = (_NotDone, _HalfDone)


@dataclass(frozen=True, slots=True)
class _Command:
    arguments: tuple[Any, ...]
    #: Whether the operation can have an effect once this is sent.
    counts: bool = True


_Script = Generator[_Command, Any, Any]


def _read_string(key: Key) -> _Script:
    return _value((yield _Command(("GET", key))))


def _write_string(key: Key, value: Any) -> _Script:
    yield _Command(("SET", key, value))
    return value


def _swap_string(key: Key, values: Sequence[Any]) -> _Script:
    """Optimistic: the transaction happens only if the key did not change since it was looked at."""
    old, new = values
    yield _Command(("WATCH", key), counts=False)
    present = _value((yield _Command(("GET", key), counts=False)))
    if present != old:
        yield _Command(("UNWATCH",), counts=False)
        raise _NotDone(f"the key holds {present!r}")
    yield _Command(("MULTI",), counts=False)
    yield _Command(("SET", key, new), counts=False)
    _executed((yield _Command(("EXEC",))))
    return values


def _executed(replies: list[Any] | None) -> list[Any]:
    """The replies of EXEC. It undoes nothing when a command fails, so that one says nothing about the others."""
    if replies is None:
        raise _NotDone("the key changed meanwhile")
    wrong = next((reply for reply in replies if isinstance(reply, Exception)), None)
    if wrong is not None:
        raise _HalfDone(f"{type(wrong).__name__}: {wrong}")
    return replies


def _read_counter(key: Key) -> _Script:
    """A key that is not there is 0; what is no number is left for the check to complain about."""
    value = _value((yield _Command(("GET", key))))
    return 0 if value is None else value


def _add_to_counter(key: Key, amount: int) -> _Script:
    yield _Command(("INCRBY", key, amount))
    return amount


def _read_set(key: Key) -> _Script:
    return sorted(map(_value, (yield _Command(("SMEMBERS", key)))), key=lambda each: (str(type(each)), each))


def _add_to_set(key: Key, element: Any) -> _Script:
    yield _Command(("SADD", key, element))
    return element


def _read_list(key: Key) -> _Script:
    return [_value(each) for each in (yield _Command(("LRANGE", key, 0, -1)))]


def _append_to_list(key: Key, element: Any) -> _Script:
    yield _Command(("RPUSH", key, element))
    return element


def _transaction(_key: None, steps: Sequence[Sequence[Any]]) -> _Script:
    yield _Command(("MULTI",), counts=False)
    for kind, key, element in steps:
        arguments = ("RPUSH", key, element) if kind == "append" else ("LRANGE", key, 0, -1)
        yield _Command(arguments, counts=False)
    replies = _executed((yield _Command(("EXEC",))))
    return [
        [kind, key, element if kind == "append" else [_value(each) for each in reply]]
        for (kind, key, element), reply in zip(steps, replies, strict=True)
    ]


_REGISTER: dict[str, Callable[..., _Script]] = {"read": _read_string, "write": _write_string}
#: By model: what its operations are.
COMMANDS: dict[str, dict[str, Callable[..., _Script]]] = {
    "register": _REGISTER,
    "cas-register": {**_REGISTER, "cas": _swap_string},
    "counter": {"read": _read_counter, "add": _add_to_counter},
    "set": {"read": _read_set, "add": _add_to_set},
    "list-append": {"read": _read_list, "append": _append_to_list, "txn": _transaction},
}


def _value(reply: Any) -> Any:
    """What Redis returns as bytes, as it was written: a whole number in its plain form is a number."""
    if not isinstance(reply, bytes):
        return reply
    if len(reply) < 20 and reply.removeprefix(b"-").isdigit() and str(int(reply)).encode() == reply:
        return int(reply)
    return from_bytes(reply)


def _plain(value: Any) -> Any:
    """The value as a read would return it, so that what is written and what is read compare: "1" is 1 to Redis."""
    if isinstance(value, str):
        return _value(value.encode())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return _value(value)


def _argument(f: str, value: Any) -> Any:
    if f == "txn":
        return [[kind, key, _plain(element)] for kind, key, element in value]
    return _plain(value)


def _error_reply(error: Exception) -> str | None:
    """An error reply, at least its first word, as the server sent it; None for what the library says of itself."""
    from redis.exceptions import ResponseError

    return getattr(error, "status_code", None) or (str(error) if isinstance(error, ResponseError) else None)


class _Recording:
    """What both clients share: which script an operation is, and what an exception says about its effect."""

    def __init__(self, process: Process, url: str, model: str, timeout_s: float) -> None:
        if model not in COMMANDS:
            raise UsageError(f"model: given {model!r}, allowed: one of {', '.join(COMMANDS)}")
        self.process = process
        self._url = url
        self._model = model
        self._timeout_s = timeout_s
        self._connection: Any = None

    def _settings(self, retry: Any) -> dict[str, Any]:
        return {"retry": retry, "socket_timeout": self._timeout_s, "socket_connect_timeout": self._timeout_s}

    def _script(self, f: str, key: Key | None, value: Any) -> _Script:
        commands = COMMANDS[self._model]
        if f not in commands:
            raise UsageError(f"{f} of a {self._model}: allowed: {', '.join(commands)}")
        return commands[f](key) if f == "read" else commands[f](key, value)

    @staticmethod
    def _say(ending: Ending, f: str, error: BaseException, sent: bool) -> None:
        """Record what an exception means. Raises it again when it is not about the server or the network."""
        from redis.exceptions import DataError, RedisError

        if isinstance(error, _NotDone):
            ending.fail(str(error))
            return
        if isinstance(error, _HalfDone):
            ending.info(str(error))
            return
        if not isinstance(error, RedisError | OSError) or isinstance(error, DataError):
            raise error
        reply = _error_reply(error) if sent else None
        outcome = answers.after_silence(f, sent=sent) if reply is None else answers.after_error(f, reply)
        ending.done = Done(outcome, error=f"{type(error).__name__}: {error}")


class RecordingRedis(_Recording):
    """A redis-py connection that records. One thread at a time."""

    def __enter__(self) -> RecordingRedis:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def read(self, key: Key) -> Done:
        return self.do("read", key)

    def write(self, key: Key, value: Any) -> Done:
        return self.do("write", key, value)

    def cas(self, key: Key, old: Any, new: Any) -> Done:
        return self.do("cas", key, [old, new])

    def add(self, key: Key, value: Any) -> Done:
        return self.do("add", key, value)

    def append(self, key: Key, element: Any) -> Done:
        return self.do("append", key, element)

    def txn(self, steps: Sequence[Sequence[Any]]) -> Done:
        """`[["append", "k", 1], ["r", "k", None]]` in MULTI and EXEC."""
        return self.do("txn", None, steps)

    def do(self, f: str, key: Key | None, value: Any = None) -> Done:
        """One operation, recorded. Raises only for what is no answer of the server or the network."""
        value = _argument(f, value)
        script = self._script(f, key, value)
        with self.process.operation(f, key, value) as ending:
            sent = False
            try:
                self._connect()
                command = next(script)
                while True:
                    sent = sent or command.counts
                    self._connection.send_command(*command.arguments, check_health=False)
                    command = script.send(self._connection.read_response())
            except StopIteration as returned:
                ending.ok(returned.value)
            except BaseException as error:
                if not isinstance(error, _BETWEEN):
                    self.close()
                self._say(ending, f, error, sent)
        assert ending.done is not None
        return ending.done

    def _connect(self) -> None:
        """A connection that is there; one that the server closed meanwhile is made again, before anything is sent."""
        from redis.exceptions import RedisError

        if self._connection is None:
            from redis import ConnectionPool
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            pool = ConnectionPool.from_url(self._url, **self._settings(Retry(NoBackoff(), 0)))
            self._connection = pool.make_connection()
        connection = self._connection
        connection.connect()
        try:
            stale = connection.can_read()
        except (OSError, RedisError):
            stale = True
        if stale:
            connection.disconnect()
            connection.connect()


class AsyncRecordingRedis(_Recording):
    """A redis-py asyncio connection that records. One task at a time; the same operations, awaited."""

    async def __aenter__(self) -> AsyncRecordingRedis:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()

    async def read(self, key: Key) -> Done:
        return await self.do("read", key)

    async def write(self, key: Key, value: Any) -> Done:
        return await self.do("write", key, value)

    async def cas(self, key: Key, old: Any, new: Any) -> Done:
        return await self.do("cas", key, [old, new])

    async def add(self, key: Key, value: Any) -> Done:
        return await self.do("add", key, value)

    async def append(self, key: Key, element: Any) -> Done:
        return await self.do("append", key, element)

    async def txn(self, steps: Sequence[Sequence[Any]]) -> Done:
        """`[["append", "k", 1], ["r", "k", None]]` in MULTI and EXEC."""
        return await self.do("txn", None, steps)

    async def do(self, f: str, key: Key | None, value: Any = None) -> Done:
        """One operation, recorded. A cancelled one is `info`, and its connection is closed."""
        value = _argument(f, value)
        script = self._script(f, key, value)
        with self.process.operation(f, key, value) as ending:
            sent = False
            try:
                await self._connect()
                command = next(script)
                while True:
                    sent = sent or command.counts
                    await self._connection.send_command(*command.arguments, check_health=False)
                    command = script.send(await self._connection.read_response())
            except StopIteration as returned:
                ending.ok(returned.value)
            except BaseException as error:
                if not isinstance(error, _BETWEEN):
                    await self.close()
                self._say(ending, f, error, sent)
        assert ending.done is not None
        return ending.done

    async def _connect(self) -> None:
        from redis.exceptions import RedisError

        if self._connection is None:
            from redis.asyncio import ConnectionPool
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff

            pool: Any = ConnectionPool.from_url(self._url, **self._settings(Retry(NoBackoff(), 0)))
            self._connection = pool.make_connection()
        connection = self._connection
        await connection.connect()
        try:
            stale = await connection.can_read()
        except (OSError, RedisError):
            stale = True
        if stale:
            await connection.disconnect()
            await connection.connect()
