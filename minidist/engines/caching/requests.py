"""What a cache asks of its backing store, and what may come back: the words that the engine and the shell share.

The engine makes requests, the shell carries them to the store, in any order and each at most once, and tells how each
ended: a load with a `Found`, None (the store has no such key) or a `Failure`, a store with None or a `Failure`.
"""

from dataclasses import dataclass

from minidist.engines.keyspace.tables import NEVER


@dataclass(frozen=True, slots=True)
class Load:
    """Read a key. The answer counts while its lease is the one that the key has (loads.py)."""

    key: bytes
    lease: int


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """Write a key, or delete it (`value` None). `expires_ms` is service time, or NEVER."""

    key: bytes
    value: bytes | None
    expires_ms: int = NEVER


@dataclass(frozen=True, slots=True)
class Found:
    """What the store has under a key."""

    value: bytes
    expires_ms: int = NEVER


@dataclass(frozen=True, slots=True)
class Failure:
    """A request failed. `happened`: a write may have taken effect all the same; what was not sent has not.

    `lingers`: it may still do so; when that is over, it is told by `Strategy.ended`.
    """

    reason: str
    happened: bool = False
    lingers: bool = False


Request = Load | Store
