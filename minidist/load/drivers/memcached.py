"""memcached's text protocol: get, set and incr, up to `--pipeline` of them under way per connection.

An error counts by its first word (`SERVER_ERROR`, `NOT_FOUND` …); a key that is not there is an answer. Keys are
`key:000000000042` as with redis URLs, counters `counter:…`; since memcached counts only in keys that exist, they are
added, as 0, before the load. Lifetimes are whole seconds. URL: `memcached://HOST[:PORT]`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from minidist.load.channel import Wiring
from minidist.load.keyed import KeyedDriver, NextCommand, Note, Reader
from minidist.load.plan import Plan, shown_url
from minidist.runtime.config import ConfigError
from minidist.wire import memcached_client as memcached

if TYPE_CHECKING:
    from minidist.engines.checking import Outcome

#: What is more is taken for a date (doc/protocol.txt, "Expiration times").
LONGEST_TTL_S = 30 * 86_400
#: First words of errors that a server gives before it has begun to carry out a command. Not SERVER_ERROR: a `set` for
#: which there is no memory removes what the key had.
NO_EFFECT = frozenset({"NOT_FOUND", "NOT_STORED", "EXISTS", "ERROR", "CLIENT_ERROR"})


class Memcached(KeyedDriver):
    name = "memcached"
    schemes = ("memcached",)
    default_ports = {"memcached": 11211}  # noqa: RUF012
    workloads = {  # noqa: RUF012
        "get-set": "get and set of keys in the proportion of --ratio",
        "get": "get of keys",
        "set": "set of keys",
        "incr": "incr of counters",
    }
    tolerated = ("NOT_STORED",)  # `add` of a counter that is there

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        if self.target.path.strip("/") or self.target.username is not None:
            raise ConfigError("URL", shown_url(plan.url), "memcached://HOST:PORT, without a path or a user")
        self._ttl_s, rest_ms = divmod(self.values["ttl"], 1000)
        if rest_ms or self._ttl_s > LONGEST_TTL_S:
            raise ConfigError("--ttl", self.values["ttl"], "whole seconds, at most 30d, with a memcached URL")

    def reader(self) -> Reader:
        return memcached.ReplyReader()

    def get(self, key: bytes) -> bytes:
        return memcached.get(key)

    def set(self, key: bytes, value: bytes) -> bytes:
        return memcached.store(b"set", key, value, self._ttl_s)

    def incr(self, key: bytes) -> bytes:
        return memcached.incr(key)

    def outcome(self, f: str, error: str) -> Outcome:
        from minidist.engines.checking import Outcome, answers

        if error.partition(" ")[0] in NO_EFFECT:
            return Outcome.FAIL
        return answers.after_silence(f, sent=True)

    def preparation(self) -> Iterable[bytes]:
        if self.workload != "incr":
            return super().preparation()
        numbers = range(self.values["keys"])
        if self.history is not None:
            name = self.history.key
            return (memcached.store(b"add", name(each).encode(), b"0") for each in numbers)
        return (memcached.store(b"add", b"counter:%012d" % each, b"0") for each in numbers)

    def commands(self, wiring: Wiring, note: Note) -> NextCommand:
        key, value, chance = self.draw_key(wiring), self.draw_value(wiring.rng), wiring.rng.random
        ttl_s, share = self._ttl_s, self.read_share
        if self.workload == "incr":

            def next_incr() -> bytes:
                note(False)
                return b"incr counter:%012d 1\r\n" % key()

            return next_incr

        def next_command() -> bytes:
            read = chance() < share
            note(read)
            if read:
                return b"get key:%012d\r\n" % key()
            content = value()
            return b"set key:%012d 0 %d %d\r\n%b\r\n" % (key(), ttl_s, len(content), content)

        return next_command


DRIVER = Memcached
