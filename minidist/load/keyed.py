"""What the drivers of key-value stores have in common: keys, values, pipelines, preloading, hits, and their options.

A driver derives from `KeyedDriver`, builds its commands, and names its reader of replies; its channels are
`KeyedChannel`s, or `RecordingChannel`s (recording.py) when a history is written. Replies come in the order of the
commands. An error is a `ReplyError` and counts by its first word; None is the answer to a read that found nothing.
"""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from minidist.load.channel import Endpoint, StreamChannel, Wiring
from minidist.load.driver import READ_WRITE_RATIO, Driver
from minidist.load.keys import KEY_OPTIONS
from minidist.load.plan import LoadError, Plan
from minidist.load.sizes import SIZES, parse_sizes
from minidist.runtime.config import KINDS, ConfigError, Duration, Option
from minidist.runtime.randomness import derive
from minidist.wire.resp_client import NOTHING, ReplyError
from minidist.wire.resp_plain import ProtocolError

if TYPE_CHECKING:
    from minidist.engines.checking import Outcome
    from minidist.load.history import History

#: Where a key's number goes.
NUMBER = b"000000000000"
#: How many keys a history is of unless --keys says otherwise: few, so that what is written is also read.
RECORDED_KEYS = 100
#: Random bytes that values are cut from; longer ones repeat them.
POOL_BYTES = 1024 * 1024
_PRELOAD_BATCH_BYTES = 256 * 1024

#: Makes the next command, and tells a `Note` whether it is a read.
NextCommand = Callable[[], bytes]
Note = Callable[[bool], None]


class Reader(Protocol):
    """The replies of one connection."""

    def feed(self, data: bytes) -> None: ...

    def next(self) -> Any:
        """The next reply, or NOTHING. Raises ProtocolError."""


class KeyedDriver(Driver):
    records = True
    #: Workloads that a history can tell.
    recorded: ClassVar[tuple[str, ...]] = ("get-set", "get", "set", "incr")
    options: ClassVar[tuple[Option, ...]] = (
        *KEY_OPTIONS,
        Option("Bytes of each value, or how they are distributed.", name="value_size", kind=SIZES, default="64"),
        Option(
            "Commands under way per connection.", name="pipeline", kind=KINDS[int], default=1, minimum=1, maximum=10_000
        ),
        READ_WRITE_RATIO,
        Option("Values are written with this time to live.", name="ttl", kind=KINDS[Duration], default=Duration(0)),
        Option("Write every key before the load starts.", name="preload", kind=KINDS[bool], default=False),
    )

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.sizes = parse_sizes(str(self.values["value_size"]))
        self._pool = random.Random(plan.seed).randbytes(min(self.sizes.largest, POOL_BYTES))
        reads, writes = self.values["ratio"]
        self.read_share: float = {"get": 1.0, "set": 0.0}.get(self.workload, reads / (reads + writes))
        self.history = self._history(plan) if plan.history else None

    def _history(self, plan: Plan) -> History:
        """Raises ConfigError for options that a history could not tell."""
        from minidist.load.history import History

        if self.workload not in self.recorded:
            raise ConfigError("--workload", self.workload, f"one of {', '.join(self.recorded)} with --history")
        for option, allowed in (("pipeline", 1), ("ttl", 0), ("preload", False)):
            if self.values[option] != allowed:
                raise ConfigError(f"--{option}", self.values[option], f"{allowed} with --history")
        if "keys" not in plan.options:
            self.values["keys"] = RECORDED_KEYS
        return History(plan.history)

    # --- For protocols to write -----------------------------------------------------------------------------------

    @abstractmethod
    def reader(self) -> Reader: ...

    @abstractmethod
    def commands(self, wiring: Wiring, note: Note) -> NextCommand:
        """What makes the load's commands, for one connection."""

    @abstractmethod
    def get(self, key: bytes) -> bytes: ...

    @abstractmethod
    def set(self, key: bytes, value: bytes) -> bytes: ...

    @abstractmethod
    def incr(self, key: bytes) -> bytes: ...

    @abstractmethod
    def outcome(self, f: str, error: str) -> Outcome:
        """What this error says about the effect of a history's operation."""

    def greetings(self) -> list[bytes]:
        """Commands that open a connection; each must be answered without error."""
        return []

    def preparation(self) -> Iterable[bytes]:
        """Commands to be sent once before the load."""
        return self._all_keys() if self.values["preload"] else ()

    #: First words of errors that the preparation may meet.
    tolerated: ClassVar[Collection[str]] = ()

    # --- For protocols to call ------------------------------------------------------------------------------------

    def draw_value(self, rng: random.Random) -> Callable[[], bytes]:
        """What makes the next value; the same bytes object again when all have one size."""
        if self.sizes.fixed is not None:
            value = self._value(self.sizes.fixed)
            return lambda: value
        size = self.sizes.draw(rng)
        return lambda: self._value(size())

    def _value(self, size: int) -> bytes:
        pool = self._pool
        return pool[:size] if size <= len(pool) else (pool * (size // len(pool) + 1))[:size]

    def channel(self, wiring: Wiring) -> KeyedChannel:
        if self.history is None:
            return KeyedChannel(wiring, self)
        from minidist.load.recording import RecordingChannel

        return RecordingChannel(wiring, self, self.history)

    def finished(self) -> None:
        if self.history is not None:
            self.history.close()

    def _all_keys(self) -> Iterator[bytes]:
        value = self.draw_value(derive(self.plan.seed, "load/preload"))
        return (self.set(b"key:%012d" % number, value()) for number in range(self.values["keys"]))

    async def prepare(self, endpoint: Endpoint) -> None:
        commands = iter(self.preparation())
        first = next(commands, None)
        if first is None:
            return
        try:
            reader, writer = await asyncio.open_connection(
                endpoint.host,
                endpoint.port,
                ssl=endpoint.tls,
                server_hostname=endpoint.server_name if endpoint.tls else None,
            )
        except OSError as error:
            raise LoadError(f"cannot connect to {endpoint.host} port {endpoint.port}: {error.strerror}") from error
        try:
            batch = [*self.greetings(), first]
            while batch:
                await self._exchange(batch, reader, writer)
                batch = list(_up_to(_PRELOAD_BATCH_BYTES, commands))
        finally:
            writer.transport.abort()

    async def _exchange(self, batch: list[bytes], stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send these commands, and see that all are answered without error. Raises LoadError."""
        writer.write(b"".join(batch))
        replies = self.reader()
        try:
            for _ in batch:
                while (reply := replies.next()) is NOTHING:
                    data = await stream.read(65_536)
                    if not data:
                        raise LoadError("the server closed the connection during --preload")
                    replies.feed(data)
                if isinstance(reply, ReplyError) and first_word(reply) not in self.tolerated:
                    raise LoadError(f"--preload: {reply}")
        except (OSError, ProtocolError) as error:
            raise LoadError(f"--preload: {error}") from error


def _up_to(size: int, commands: Iterator[bytes]) -> Iterator[bytes]:
    """The next commands until they are so many bytes."""
    taken = 0
    for command in commands:
        yield command
        taken += len(command)
        if taken >= size:
            return


def first_word(error: ReplyError) -> str:
    return str(error).partition(" ")[0] or "ERR"


class KeyedChannel(StreamChannel):
    def __init__(self, wiring: Wiring, driver: KeyedDriver) -> None:
        super().__init__(wiring, driver.values["pipeline"])
        self._new_reader = driver.reader
        self._greetings = driver.greetings()
        self._greetings_due = 0
        #: Of each command under way whether it is a read.
        self._reads: deque[bool] = deque()
        self._next_command = driver.commands(wiring, self._reads.append)
        self._reader: Reader = driver.reader()

    def greeting(self) -> bytes:
        return b"".join(self._greetings)

    def encode(self, count: int) -> bytes:
        if count == 1:
            return self._next_command()
        return b"".join([self._next_command() for _ in range(count)])

    def renewed(self) -> None:
        self._reader = self._new_reader()
        self._reads.clear()
        self._greetings_due = len(self._greetings)

    def data_received(self, data: bytes) -> None:
        now_s = self.received(data)
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.next()) is not NOTHING:
                if self._greetings_due:
                    self._greeted(reply)
                elif not self.awaited:
                    self.lost("bad-reply")
                else:
                    self.replied(reply, now_s)
        except ProtocolError:
            self.lost("bad-reply")
        self.settled(now_s)

    def replied(self, reply: Any, now_s: float) -> None:
        """The oldest command that is under way has its reply."""
        read = self._reads.popleft()
        if isinstance(reply, ReplyError):
            self.refused(first_word(reply))
            return
        if read:
            self.found(reply is not None)
        self.answered(now_s)

    def _greeted(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            self.lost(str(reply).partition(" ")[0])
            return
        self._greetings_due -= 1
        if not self._greetings_due:
            self.greeted()
