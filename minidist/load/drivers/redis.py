"""RESP2: commands of redis-benchmark's kind, up to `--pipeline` of them under way per connection.

An error reply counts by its first word (`LOADING`, `MOVED`, `ERR` …); a null is an answer. Keys are `key:000000000042`;
INCR has its own, `counter:…`, so that it never meets a string. URL: `redis[s]://[USER[:PASSWORD]@]HOST[:PORT][/DB]`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from minidist.load.channel import Endpoint, StreamChannel, Wiring
from minidist.load.driver import INSECURE, KEYS, READ_WRITE_RATIO, SIZE, TLS_CA, Driver
from minidist.load.plan import LoadError, Plan
from minidist.runtime.config import KINDS, ConfigError, Duration, Option, Size
from minidist.wire.resp import encode_command
from minidist.wire.resp_client import NOTHING, ReplyError, ReplyReader
from minidist.wire.resp_plain import ProtocolError

if TYPE_CHECKING:
    from minidist.load.history import History

#: As redis-benchmark does.
KEYS_PER_MSET = 10
#: Where a key's number goes.
NUMBER = b"000000000000"
_PRELOAD_BATCH = 500
#: Workloads that a history can tell.
RECORDED = ("get-set", "get", "set", "incr")
#: How many keys a history is of unless --keys says otherwise: few, so that what is written is also read.
RECORDED_KEYS = 100


class Redis(Driver):
    name = "redis"
    schemes = ("redis", "rediss")
    tls_schemes = ("rediss",)
    records = True
    default_ports = {"redis": 6379, "rediss": 6379}  # noqa: RUF012
    workloads = {  # noqa: RUF012
        "get-set": "GET and SET of random keys in the proportion of --ratio",
        "get": "GET of random keys",
        "set": "SET of random keys",
        "incr": "INCR of random counters",
        "mset": f"MSET of {KEYS_PER_MSET} random keys",
        "ping": "PING",
    }
    options = (
        KEYS,
        Option("Bytes of each value.", name="value_size", kind=SIZE, default=Size(64), maximum=512 * 1024**2),
        Option(
            "Commands under way per connection.", name="pipeline", kind=KINDS[int], default=1, minimum=1, maximum=10_000
        ),
        READ_WRITE_RATIO,
        Option("SET with this time to live (PX).", name="ttl", kind=KINDS[Duration], default=Duration(0)),
        Option("SET every key before the load starts.", name="preload", kind=KINDS[bool], default=False),
        TLS_CA, INSECURE,
    )  # fmt: skip

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.value = random.Random(plan.seed).randbytes(self.values["value_size"])
        database = self.target.path.strip("/")
        if database and not (database.isascii() and database.isdigit()):
            raise ConfigError("URL", self.target.path, "a database number as its path")
        self.database = int(database or 0)
        self.history = self._history(plan) if plan.history else None

    def _history(self, plan: Plan) -> History:
        """Raises ConfigError for options that a history could not tell."""
        from minidist.load.history import History

        if self.workload not in RECORDED:
            raise ConfigError("--workload", self.workload, f"one of {', '.join(RECORDED)} with --history")
        for option, allowed in (("pipeline", 1), ("ttl", 0), ("preload", False)):
            if self.values[option] != allowed:
                raise ConfigError(f"--{option}", self.values[option], f"{allowed} with --history")
        if "keys" not in plan.options:
            self.values["keys"] = RECORDED_KEYS
        return History(plan.history)

    def channel(self, wiring: Wiring) -> RedisChannel:
        if self.history is None:
            return RedisChannel(wiring, self)
        from minidist.load.drivers.redis_history import RecordingChannel

        return RecordingChannel(wiring, self, self.history)

    def finished(self) -> None:
        if self.history is not None:
            self.history.close()

    def greetings(self) -> list[bytes]:
        """Commands that open a connection; each must be answered without error."""
        target = self.target
        user = [unquote(target.username).encode()] if target.username else []
        commands = []
        if target.password is not None:
            commands.append([b"AUTH", *user, unquote(target.password).encode()])
        if self.database:
            commands.append([b"SELECT", b"%d" % self.database])
        return [encode_command(each) for each in commands]

    def encoder(self, rng: random.Random) -> Callable[[], bytes]:
        """What makes the next command."""
        chance, keys = rng.random, self.values["keys"]
        if self.workload == "ping":
            ping = encode_command([b"PING"])
            return lambda: ping
        if self.workload == "mset":
            mset = _template(b"MSET", *[b"key:" + NUMBER, self.value] * KEYS_PER_MSET)
            return lambda: mset % tuple([int(chance() * keys) for _ in range(KEYS_PER_MSET)])
        if self.workload == "get-set":
            get, set_ = self.template("get"), self.template("set")
            reads, writes = self.values["ratio"]
            share = reads / (reads + writes)
            return lambda: (get if chance() < share else set_) % int(chance() * keys)
        template = self.template(self.workload)
        return lambda: template % int(chance() * keys)

    def template(self, name: str) -> bytes:
        """The command get, set or incr, to be filled in with the number of its key."""
        if name == "get":
            return _template(b"GET", b"key:" + NUMBER)
        if name == "incr":
            return _template(b"INCR", b"counter:" + NUMBER)
        ttl = [b"PX", b"%d" % self.values["ttl"]] if self.values["ttl"] else []
        return _template(b"SET", b"key:" + NUMBER, self.value, *ttl)

    async def prepare(self, endpoint: Endpoint) -> None:
        if not self.values["preload"]:
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
            await self._preload(reader, writer)
        finally:
            writer.transport.abort()

    async def _preload(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        replies = ReplyReader()
        template = self.template("set")
        commands = self.greetings() + [template % number for number in range(self.values["keys"])]
        for first in range(0, len(commands), _PRELOAD_BATCH):
            batch = commands[first : first + _PRELOAD_BATCH]
            writer.write(b"".join(batch))
            for _ in batch:
                while (reply := replies.next()) is NOTHING:
                    data = await stream.read(65_536)
                    if not data:
                        raise LoadError("the server closed the connection during --preload")
                    replies.feed(data)
                if isinstance(reply, ReplyError):
                    raise LoadError(f"--preload: {reply}")


class RedisChannel(StreamChannel):
    def __init__(self, wiring: Wiring, driver: Redis) -> None:
        super().__init__(wiring, driver.values["pipeline"])
        self._next_command = driver.encoder(wiring.rng)
        self._greetings = driver.greetings()
        self._greetings_due = 0
        self._reader: Any = None

    def greeting(self) -> bytes:
        return b"".join(self._greetings)

    def encode(self, count: int) -> bytes:
        if count == 1:
            return self._next_command()
        return b"".join([self._next_command() for _ in range(count)])

    def renewed(self) -> None:
        self._reader = ReplyReader()
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
        if isinstance(reply, ReplyError):
            self.refused(str(reply).partition(" ")[0] or "ERR")
        else:
            self.answered(now_s)

    def _greeted(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            self.lost(str(reply).partition(" ")[0])
            return
        self._greetings_due -= 1
        if not self._greetings_due:
            self.greeted()


def _template(*words: bytes) -> bytes:
    """A command to be filled in with `%`: a number for each key, which stands in it as twelve zeros."""
    return encode_command(words).replace(b"%", b"%%").replace(b":" + NUMBER, b":%012d")


DRIVER = Redis
