"""Groups of consumers that share a stream: each entry goes to one of them, and is pending until it is acknowledged.

A group remembers the last id that it has delivered, and how many entries that makes since the stream began, as far as
that can be known. A pending entry is found by its id both in the group and in its consumer; the two share one object.
"""

from minidist.engines.keyspace.memory import BYTES_OBJECT
from minidist.engines.keyspace.stream_blocks import Account, BlockMap

# Measured: the objects themselves, with their places in dicts.
GROUP_BYTES = 370
CONSUMER_BYTES = 170
PENDING_BYTES = 64


class Pending:
    """An entry that was delivered and not acknowledged."""

    __slots__ = ("consumer", "delivered_ms", "deliveries")

    def __init__(self, consumer: "Consumer", delivered_ms: int, deliveries: int) -> None:
        self.consumer = consumer
        self.delivered_ms = delivered_ms
        self.deliveries = deliveries


class Consumer:
    """One of a group, by its name. `active_ms` is when it last got an entry, None if it never has."""

    __slots__ = ("active_ms", "name", "pending", "seen_ms")

    def __init__(self, name: bytes, account: Account, now_ms: int) -> None:
        self.name = name
        self.seen_ms = now_ms
        self.active_ms: int | None = None
        self.pending: BlockMap[Pending] = BlockMap(account)

    @property
    def memory_bytes(self) -> int:
        """Without the pending entries themselves, which the group has booked."""
        return CONSUMER_BYTES + BYTES_OBJECT + len(self.name) + self.pending.memory_bytes


class Group:
    """Consumers by name, pending entries by id. `entries_read` is None where it cannot be known."""

    __slots__ = ("account", "consumers", "entries_read", "last_id", "name", "pending")

    def __init__(self, name: bytes, last_id: int, entries_read: int | None, account: Account) -> None:
        self.name = name
        self.last_id = last_id
        self.entries_read = entries_read
        self.account = account
        self.consumers: dict[bytes, Consumer] = {}
        self.pending: BlockMap[Pending] = BlockMap(account)
        account.bytes += GROUP_BYTES + BYTES_OBJECT + len(name)

    @property
    def memory_bytes(self) -> int:
        """All that it has booked. O(consumers)."""
        own_bytes = GROUP_BYTES + BYTES_OBJECT + len(self.name) + self.pending.memory_bytes
        consumers_bytes = sum(consumer.memory_bytes for consumer in self.consumers.values())
        return own_bytes + consumers_bytes + PENDING_BYTES * len(self.pending)

    def copy(self, account: Account) -> "Group":
        """A group of its own with the same consumers and pending entries."""
        copy = Group(self.name, self.last_id, self.entries_read, account)
        for consumer in self.consumers.values():
            other = copy.add_consumer(consumer.name, consumer.seen_ms)
            other.active_ms = consumer.active_ms
        for entry_id, pending in self.pending.ascending(0, self.pending.last_id or 0):
            owner = copy.consumers[pending.consumer.name]
            copy.add_pending(entry_id, Pending(owner, pending.delivered_ms, pending.deliveries))
        return copy

    def sorted_consumers(self) -> list[Consumer]:
        """In the order of their names, as Redis lists them."""
        return [self.consumers[name] for name in sorted(self.consumers)]

    def add_consumer(self, name: bytes, now_ms: int) -> Consumer:
        """A new consumer."""
        consumer = self.consumers[name] = Consumer(name, self.account, now_ms)
        self.account.bytes += CONSUMER_BYTES + BYTES_OBJECT + len(name)
        return consumer

    def remove_consumer(self, consumer: Consumer) -> None:
        """Forget a consumer; what was pending for it is pending no longer. O(its pending entries)."""
        for entry_id, _ in consumer.pending.ascending(0, consumer.pending.last_id or 0):
            self.pending.pop(entry_id)
        self.account.bytes -= consumer.memory_bytes + PENDING_BYTES * len(consumer.pending)
        del self.consumers[consumer.name]

    def add_pending(self, entry_id: int, pending: Pending) -> None:
        """An entry was delivered that was not pending."""
        self.pending.insert(entry_id, pending)
        pending.consumer.pending.insert(entry_id, pending)
        self.account.bytes += PENDING_BYTES

    def deliver(self, entry_id: int, consumer: Consumer, now_ms: int) -> None:
        """A consumer gets an entry as new, even if it was pending before (after XGROUP SETID backwards)."""
        last_id = self.pending.last_id
        pending = None if last_id is None or entry_id > last_id else self.pending.get(entry_id)
        if pending is None:
            self.add_pending(entry_id, Pending(consumer, now_ms, 1))
        else:
            self.hand_over(entry_id, pending, consumer)
            pending.delivered_ms = now_ms
            pending.deliveries = 1

    @staticmethod
    def hand_over(entry_id: int, pending: Pending, consumer: Consumer) -> None:
        """A pending entry belongs to this consumer from now on."""
        if pending.consumer is not consumer:
            pending.consumer.pending.pop(entry_id)
            consumer.pending.insert(entry_id, pending)
            pending.consumer = consumer

    def acknowledge(self, entry_id: int) -> bool:
        """An entry is done with; whether it was pending."""
        pending = self.pending.pop(entry_id)
        if pending is None:
            return False
        pending.consumer.pending.pop(entry_id)
        self.account.bytes -= PENDING_BYTES
        return True
