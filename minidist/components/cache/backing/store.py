"""What every kind of backing store is to the driver."""

import asyncio
from typing import Protocol

from minidist.engines.caching.requests import Found


class BackingError(Exception):
    """A request failed; the text says why. `happened`: a write may have taken effect all the same.

    `ended` is done when it cannot take effect any more, where that is not yet known.
    """

    def __init__(self, reason: str, *, happened: bool = False, ended: "asyncio.Future[None] | None" = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.happened = happened
        self.ended = ended


class BackingStore(Protocol):
    """A place where values are kept. All methods raise BackingError, also when loop time `until_s` has come."""

    at_once: int  #: requests that may be under way at the same time

    async def open(self) -> None:
        """Before the first request. A server need not be there yet. Raises ConfigError for what can never work."""

    async def load(self, key: bytes, until_s: float) -> Found | None:
        """What is there, with its lifetime in service time; None when nothing is."""

    async def store(self, key: bytes, value: bytes, ttl_ms: int | None, until_s: float) -> None:
        """Put a value there, for `ttl_ms` from now, or for ever."""

    async def delete(self, key: bytes, until_s: float) -> None:
        """Have nothing there."""

    async def close(self) -> None:
        """Nobody asks any more."""
