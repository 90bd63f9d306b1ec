"""The options of a cache node.

Where Redis has a setting of that meaning, its name is an alias, and works in CONFIG GET; those that are `live` can be
changed by CONFIG SET. What goes together (a backing store, snapshots) is checked in `validate`, so that a node never
starts with an option that would have no effect.
"""

import re
from dataclasses import dataclass
from typing import Literal

from minidist.components.cache.limits import parse_limits
from minidist.engines.keyspace.events import parse_events
from minidist.runtime.config import Address, Config, ConfigError, Duration, Size, option, options_of

MOST = (1 << 63) - 1
Strategy = Literal["read-through", "write-through", "write-behind"]
WITH_BACKING = (
    "strategy", "load_ttl", "negative_ttl", "ttl_jitter", "stale_ttl", "refresh_ahead", "load_limit", "backing_timeout",
    "backing_connections", "write_behind_lag", "write_behind_limit",
)  # fmt: skip
EvictionPolicy = Literal[
    "noeviction",
    "allkeys-lru",
    "volatile-lru",
    "allkeys-lfu",
    "volatile-lfu",
    "allkeys-random",
    "volatile-random",
    "volatile-ttl",
    "allkeys-fifo",
    "volatile-fifo",
    "allkeys-s3-fifo",
]


# Without what dataclasses could do besides: nobody compares or shows it, and making that costs half a millisecond.
@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class CacheConfig(Config):
    """What `minidist cache` can be told."""

    component = "cache"

    listen: Address = option(Address("127.0.0.1", 6379), "Where clients connect; port 0 takes any free one.")
    memcached: Address | None = option(
        None, "Where clients of memcached's text protocol connect, to the keys of database 0.",
        why="off unless asked for; memcached's own port is 11211",
    )  # fmt: skip
    max_memory: Size = option(
        Size(1024**3), "Memory for keys and values; 0 sets no limit.", aliases=("maxmemory",), live=True,
        why="a laptop has room for one such cache beside its work", minimum=0,
    )  # fmt: skip
    eviction: EvictionPolicy = option(
        "allkeys-lru", "Which keys go when memory is full.", aliases=("maxmemory-policy",), live=True,
        why="a cache makes room; Redis' own default, noeviction, refuses writes",
    )  # fmt: skip
    databases: int = option(
        16, "Logical databases that SELECT chooses from.", aliases=("databases",), minimum=1, maximum=1024,
        why="Redis' default; an empty one costs nothing",
    )  # fmt: skip
    script_time_limit: Duration = option(
        Duration(5000), "Longest time a Lua script may run before it is stopped.", live=True, minimum=1,
        why="Redis' default for calling a script slow; nothing else is served meanwhile",
    )  # fmt: skip
    script_memory: Size = option(
        Size(64 * 1024**2), "Memory that Lua scripts may take; functions (FCALL) as much again.", minimum=1024**2,
        why="enough for any sane script, and a script cannot take the machine's",
    )  # fmt: skip
    max_bulk: Size = option(
        Size(512 * 1024**2), "Longest string in a command.", aliases=("proto-max-bulk-len",), live=True,
        minimum=1024**2, maximum=512 * 1024**2, why="Redis' default, and the longest value there is",
    )  # fmt: skip
    client_buffer: Size = option(
        Size(576 * 1024**2), "Most bytes waiting for one client that does not read; beyond it the client is cut off.",
        live=True, minimum=65_536,
        why="one reply of the longest value; more never waits, since a client that does not read is not read from",
    )  # fmt: skip
    output_limits: str = option(
        "pubsub 32mb 8mb 60", "CLASS HARD SOFT SECONDS: bytes that may wait for a subscriber, else it "
        "is cut off.", aliases=("client-output-buffer-limit",), live=True, why="Redis' default",
    )  # fmt: skip
    notify: str = option(
        "", "Keyspace events that are published, as letters (KEA for all).", aliases=("notify-keyspace-events",),
        live=True, why="Redis' default: none, they cost every change a message",
    )  # fmt: skip
    tracked_keys: int = option(
        1_000_000, "Most keys that clients with CLIENT TRACKING are remembered to have read; 0 sets no limit.",
        aliases=("tracking-table-max-keys",), live=True, minimum=0, maximum=MOST,
        why="Redis' default; beyond it keys are forgotten, and clients told to drop them",
    )  # fmt: skip
    redis_version: str = option(
        "7.2.4", "The version that clients are told (HELLO, INFO).",
        why="whose replies it gives; redis-py's own cache asks for 7.4.0 or later, but needs no more",
    )  # fmt: skip
    slow_us: int = option(
        10_000, "Commands that take so many microseconds are kept in the slow log; 0 keeps all, -1 none.",
        aliases=("slowlog-log-slower-than",), live=True, minimum=-1, maximum=MOST,
        why="Redis' default; from 1000 on only commands that can be slow are timed",
    )  # fmt: skip
    slow_entries: int = option(
        128, "Most entries of the slow log.", aliases=("slowlog-max-len",), live=True, minimum=0, maximum=MOST,
        why="Redis' default",
    )  # fmt: skip
    latency_threshold_ms: int = option(
        0, "Commands that take so many milliseconds are shown by LATENCY; 0 turns it off.",
        aliases=("latency-monitor-threshold",), live=True, minimum=0, maximum=MOST, why="Redis' default",
    )  # fmt: skip

    snapshot: str = option(
        "", "File in --data-dir, in Redis' RDB format, that is loaded at the start and written at the end (and on "
        "BGSAVE).", aliases=("dbfilename",), why="off: a cache may be lost; redis-server's dump.rdb can be given",
    )  # fmt: skip
    snapshot_interval: Duration = option(
        Duration(0), "How often it is written besides; 0 for never.", clock="service", live=True,
        why="the one at the end is enough, unless the process is killed",
    )  # fmt: skip
    backing: str = option(
        "", "Store behind the cache: http://HOST:PORT/PREFIX, redis://[USER:PASSWORD@]HOST:PORT/DATABASE or "
        "sqlite:FILE?table=TABLE. Strings of database 0 that are missing are loaded from it.", secret=True,
    )  # fmt: skip
    strategy: Strategy | None = option(
        None, "When writes reach the store: never (read-through), before they are acknowledged (write-through), or "
        "afterwards (write-behind).", why="read-through with --backing: a cache writes only where somebody wants it",
    )  # fmt: skip
    load_ttl: Duration = option(
        Duration(0), "Longest lifetime of a loaded key; 0 for as long as the store says.", clock="service",
        why="who writes past the cache should set it",
    )  # fmt: skip
    negative_ttl: Duration = option(
        Duration(1000), "How long a key that the store does not have is known to be missing; 0 asks each time.",
        clock="service", why="long enough against a stampede, short enough for a key that somebody is about to make",
    )  # fmt: skip
    ttl_jitter: int = option(
        10, "Per cent by which lifetimes of loaded and missing keys are shortened at most, each by chance.", minimum=0,
        maximum=100, why="keys that were loaded together do not expire together",
    )  # fmt: skip
    stale_ttl: Duration = option(
        Duration(0), "How long a loaded key is still served after its lifetime, while one load renews it.",
        clock="service", why="off: a value is not older than it may be",
    )  # fmt: skip
    refresh_ahead: int = option(
        0, "Per cent of a loaded key's lifetime: a read in the last of them renews it.", minimum=0, maximum=99,
        why="off: it asks the store for keys that nobody may need again",
    )  # fmt: skip
    load_limit: int = option(
        10_000, "Loads that may wait for the store; beyond it commands get an error.", minimum=1, maximum=1_000_000,
        why="one for each client",
    )  # fmt: skip
    backing_timeout: Duration = option(
        Duration(2000), "Longest time for one request to the store, waiting for a connection included.", clock="loop",
        minimum=1, why="clients have their own time limits, of a few seconds",
    )  # fmt: skip
    backing_connections: int = option(
        8, "Requests to the store at the same time, each on a connection of its own.", minimum=1, maximum=1024,
        why="enough for thousands of loads a second, and no burden for the store",
    )  # fmt: skip
    write_behind_lag: Duration = option(
        Duration(1000), "How long a write waits at most before it is sent to a store that is up.", clock="loop",
        why="writes of a busy key become one each second; what a crash loses is a second's",
    )  # fmt: skip
    write_behind_limit: Size = option(
        Size(64 * 1024**2), "Memory for writes that wait; beyond it writes get an error.", minimum=1024,
        why="room for half an hour of 100 small writes a second while the store is down",
    )  # fmt: skip

    def validate(self) -> None:
        super().validate()
        self._validate_backing()
        self._validate_snapshot()
        for name, check in (("notify", parse_events), ("output_limits", parse_limits)):
            try:
                check(getattr(self, name))
            except ValueError as problem:
                raise ConfigError("--" + name.replace("_", "-"), getattr(self, name), str(problem)) from None
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.redis_version):
            raise ConfigError("--redis-version", self.redis_version, "three numbers with dots, such as 7.4.0")
        self.refuse_exposed("memcached")
        if self.memcached is not None and self.auth_file:
            raise ConfigError(
                "--memcached", str(self.memcached), "only without --auth-file: its clients have no passwords"
            )

    def _validate_snapshot(self) -> None:
        if self.snapshot and not self.data_dir:
            raise ConfigError("--snapshot", self.snapshot, "only with --data-dir")
        if "/" in self.snapshot:
            raise ConfigError("--snapshot", self.snapshot, "a file name: the directory is --data-dir")
        if self.snapshot_interval and not self.snapshot:
            raise ConfigError("--snapshot-interval", str(self.snapshot_interval), "only with --snapshot")

    def _validate_backing(self) -> None:
        for name in WITH_BACKING:
            changed = getattr(self, name) != options_of(type(self))[name].default
            if changed and not self.backing:
                raise ConfigError(options_of(type(self))[name].flag, getattr(self, name), "only with --backing")
            if changed and name.startswith("write_behind") and self.strategy != "write-behind":
                flag = options_of(type(self))[name].flag
                raise ConfigError(flag, getattr(self, name), "only with --strategy write-behind")
        if not self.backing:
            return
        from minidist.components.cache.backing.places import FORMS, parse_place

        try:
            parse_place(self.backing)
        except ValueError:
            shown = re.sub("//.*@", "//***@", self.backing)
            raise ConfigError("--backing", shown, FORMS) from None
        if self.memcached is not None:
            raise ConfigError("--memcached", str(self.memcached), "only without --backing, which it would not ask")
