"""RESP2: commands of redis-benchmark's kind, up to `--pipeline` of them under way per connection.

An error reply counts by its first word (`LOADING`, `MOVED`, `ERR` …); a null is an answer. Keys are `key:000000000042`;
INCR has its own, `counter:…`, so that it never meets a string. URL: `redis[s]://[USER[:PASSWORD]@]HOST[:PORT][/DB]`.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING
from urllib.parse import unquote

from minidist.load.channel import Wiring
from minidist.load.driver import INSECURE, TLS_CA
from minidist.load.keyed import NUMBER, KeyedDriver, NextCommand, Note, Reader
from minidist.load.plan import Plan
from minidist.runtime.config import ConfigError
from minidist.wire.resp import encode_command
from minidist.wire.resp_client import ReplyReader

if TYPE_CHECKING:
    from minidist.engines.checking import Outcome

#: As redis-benchmark does.
KEYS_PER_MSET = 10


class Redis(KeyedDriver):
    name = "redis"
    schemes = ("redis", "rediss")
    tls_schemes = ("rediss",)
    default_ports = {"redis": 6379, "rediss": 6379}  # noqa: RUF012
    workloads = {  # noqa: RUF012
        "get-set": "GET and SET of keys in the proportion of --ratio",
        "get": "GET of keys",
        "set": "SET of keys",
        "incr": "INCR of counters",
        "mset": f"MSET of {KEYS_PER_MSET} keys",
        "ping": "PING",
    }
    options = (*KeyedDriver.options, TLS_CA, INSECURE)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        database = self.target.path.strip("/")
        if database and not (database.isascii() and database.isdigit()):
            raise ConfigError("URL", self.target.path, "a database number as its path")
        self.database = int(database or 0)
        self._ttl = [b"PX", b"%d" % self.values["ttl"]] if self.values["ttl"] else []

    def reader(self) -> Reader:
        return ReplyReader()

    def greetings(self) -> list[bytes]:
        target = self.target
        user = [unquote(target.username).encode()] if target.username else []
        commands = []
        if target.password is not None:
            commands.append([b"AUTH", *user, unquote(target.password).encode()])
        if self.database:
            commands.append([b"SELECT", b"%d" % self.database])
        return [encode_command(each) for each in commands]

    def get(self, key: bytes) -> bytes:
        return encode_command([b"GET", key])

    def set(self, key: bytes, value: bytes) -> bytes:
        return encode_command([b"SET", key, value, *self._ttl])

    def incr(self, key: bytes) -> bytes:
        return encode_command([b"INCR", key])

    def outcome(self, f: str, error: str) -> Outcome:
        from minidist.engines.checking import answers

        return answers.after_error(f, error)

    def commands(self, wiring: Wiring, note: Note) -> NextCommand:
        if self.workload == "get-set":
            return self._mixed(wiring, note)
        make = self._making(self.workload, wiring)
        read = self.workload == "get"

        def next_command() -> bytes:
            note(read)
            return make()

        return next_command

    def _mixed(self, wiring: Wiring, note: Note) -> NextCommand:
        get, set_ = self._making("get", wiring), self._making("set", wiring)
        chance, share = wiring.rng.random, self.read_share

        def next_command() -> bytes:
            read = chance() < share
            note(read)
            return get() if read else set_()

        return next_command

    def _making(self, name: str, wiring: Wiring) -> NextCommand:
        """What makes commands of one name. All that can be is encoded in advance."""
        key, value = self.draw_key(wiring), self.draw_value(wiring.rng)
        if name == "ping":
            ping = encode_command([b"PING"])
            return lambda: ping
        if name in ("get", "incr"):
            template = (
                _template(b"GET", b"key:" + NUMBER) if name == "get" else _template(b"INCR", b"counter:" + NUMBER)
            )
            return lambda: template % key()
        if name == "set" and self.sizes.fixed is not None:
            template = _template(b"SET", b"key:" + NUMBER, value(), *self._ttl)
            return lambda: template % key()
        if name == "set":
            return lambda: self.set(b"key:%012d" % key(), value())
        if self.sizes.fixed is not None:
            template = _template(b"MSET", *[b"key:" + NUMBER, value()] * KEYS_PER_MSET)
            return lambda: template % tuple([key() for _ in range(KEYS_PER_MSET)])

        def mset() -> bytes:
            pairs = [(b"key:%012d" % key(), value()) for _ in range(KEYS_PER_MSET)]
            return encode_command([b"MSET", *chain.from_iterable(pairs)])

        return mset


def _template(*words: bytes) -> bytes:
    """A command to be filled in with `%`: a number for each key, which stands in it as twelve zeros."""
    return encode_command(words).replace(b"%", b"%%").replace(b":" + NUMBER, b":%012d")


DRIVER = Redis
