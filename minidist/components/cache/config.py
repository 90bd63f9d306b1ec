"""The options of a cache node. Where Redis has a setting of that meaning, its name is an alias and works in CONFIG."""

from dataclasses import dataclass
from typing import Literal

from minidist.runtime.config import Address, Config, Duration, Size, option

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
]


@dataclass(frozen=True, kw_only=True)
class CacheConfig(Config):
    """What `minidist cache` can be told."""

    component = "cache"

    listen: Address = option(Address("127.0.0.1", 6379), "Where clients connect; port 0 takes any free one.")
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
        Size(64 * 1024**2), "Memory that Lua scripts may take in all.", minimum=1024**2,
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
