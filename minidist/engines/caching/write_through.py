"""Write-through: who wrote is answered when the store has taken it; one write at a time for each key, in their order.

A command may change several keys (MSET, a transaction, a script): it is one `Ticket`, answered when all its writes have
ended. While a key has a write under way it is `held`: commands that name it wait, so nobody sees a value that the store
may refuse. A script that names its keys nowhere does not wait; its writes of a held key queue up behind.

A write that has failed may still be on its way to the store (the time was over, the connection is not). If a newer one
were sent now, the older could come after it and undo it. So the key is `uncertain` until the older one has ended: it
can be read, and writes are refused.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from minidist.engines.caching.requests import Failure, Store

W = TypeVar("W")


@dataclass(slots=True, eq=False)
class Ticket(Generic[W]):
    """The writes of one command. `waiter` is whoever waits for it."""

    waiter: W
    left: int
    failures: list[Failure] = field(default_factory=list)
    writes: int = 0

    @property
    def failure(self) -> Failure | None:
        """How it failed as a whole: it may have happened if any part of it has."""
        if not self.failures:
            return None
        partly = len(self.failures) < self.writes or any(each.happened for each in self.failures)
        return Failure(self.failures[0].reason, partly)


class WriteThrough(Generic[W]):
    """The writes under way, and those behind them."""

    def __init__(self) -> None:
        self.written = 0
        self.failed = 0
        self._lingering: dict[bytes, Store] = {}
        self._queues: dict[bytes, deque[tuple[Store, Ticket[W]]]] = {}

    def __len__(self) -> int:
        """Keys with a write under way."""
        return len(self._queues)

    def holds(self, key: bytes) -> bool:
        return key in self._queues

    def is_uncertain(self, key: bytes) -> bool:
        return key in self._lingering

    @property
    def any_uncertain(self) -> bool:
        return bool(self._lingering)

    def write(self, stores: list[Store], waiter: W) -> list[Store]:
        """A command has changed these keys, each once: what to send now."""
        ticket = Ticket(waiter, len(stores), writes=len(stores))
        first = []
        for store in stores:
            queue = self._queues.setdefault(store.key, deque())
            queue.append((store, ticket))
            if len(queue) == 1 and store.key not in self._lingering:
                first.append(store)
        return first

    def done(self, store: Store, failure: Failure | None) -> tuple[Ticket[W] | None, Store | None]:
        """A request has ended: the ticket if that was its last, and what to send next for this key."""
        queue = self._queues.get(store.key)
        if not queue or queue[0][0] is not store:
            return None, None  # of before `clear`
        _, ticket = queue.popleft()
        ticket.left -= 1
        if failure is None:
            self.written += 1
        else:
            self.failed += 1
            ticket.failures.append(failure)
            if failure.lingers:
                self._lingering[store.key] = store
        if not queue:
            del self._queues[store.key]
        following = queue[0][0] if queue and store.key not in self._lingering else None
        return (None if ticket.left else ticket), following

    def ended(self, store: Store) -> Store | None:
        """A write that lingered has no effect any more that it has not had by now: what to send next for its key."""
        if self._lingering.get(store.key) is not store:
            return None
        del self._lingering[store.key]
        queue = self._queues.get(store.key)
        return queue[0][0] if queue else None

    def clear(self) -> None:
        """Forget who waits; what is under way ends as it will."""
        self._queues.clear()
        self._lingering.clear()
