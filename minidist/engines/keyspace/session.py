"""What a node knows about one client: where it is, who it is, what it has begun."""

from typing import TYPE_CHECKING, Protocol

from minidist.engines.keyspace.database import Database, Watch
from minidist.engines.keyspace.publishing import Subscriptions
from minidist.engines.keyspace.registry import Command
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import NULL, NULL_BULK

if TYPE_CHECKING:
    from minidist.engines.keyspace.service import Service
    from minidist.engines.keyspace.tracking import Tracker
    from minidist.engines.keyspace.waiting import Wait


class Carrier(Protocol):
    """What carries a session: a connection."""

    @property
    def peer(self) -> str: ...

    @property
    def local(self) -> str: ...


class Transaction:
    """Commands queued since MULTI. A command that was refused while queueing makes EXEC abort."""

    __slots__ = ("commands", "refused")

    def __init__(self) -> None:
        self.commands: list[tuple[Command, Arguments]] = []
        self.refused = False


class Session:
    """One client. `gated` is false while its commands may run straight from the table: see Service.run."""

    __slots__ = (
        "asleep", "authenticated", "carrier", "created_ms", "database", "ended", "executing", "gated", "id",
        "last_command", "last_ms", "lib_name", "lib_version", "name", "no_evict", "no_touch", "null",
        "replies_off", "resp3", "service", "skip_replies", "subscriptions", "tracker", "transaction", "user", "wait",
        "watches",
    )  # fmt: skip

    def __init__(self, service: "Service", number: int, carrier: Carrier, now_ms: int) -> None:
        self.service = service
        self.id = number
        self.carrier = carrier
        self.created_ms = now_ms
        self.last_ms = now_ms
        self.last_command: Command | None = None
        self.ended = False  # nothing more is run; the shell closes the connection
        self.name = b""
        self.lib_name = b""
        self.lib_version = b""
        self.watches: dict[tuple[int, bytes], Watch] = {}
        self.wait: Wait | None = None  # for a key
        self.subscriptions = Subscriptions()
        self.tracker: Tracker | None = None  # CLIENT TRACKING
        self.begin()

    def begin(self) -> None:
        """As a new client (also what RESET does, having dropped watches and subscriptions)."""
        self.database: Database = self.service.keyspace.databases[0]
        self.resp3 = False
        self.null = NULL_BULK
        self.user = self.service.users.default
        self.authenticated = not self.service.users.password_needed
        self.transaction: Transaction | None = None
        self.executing = False  # inside EXEC, or a script
        self.no_evict = False
        self.no_touch = False
        self.replies_off = False
        self.skip_replies = 0
        self.asleep = False  # inside DEBUG SLEEP
        self.regate()

    def speak(self, resp3: bool) -> None:
        """Choose the protocol of the replies."""
        self.resp3 = resp3
        self.null = NULL if resp3 else NULL_BULK

    def regate(self) -> None:
        """Recompute `gated` after something that it depends on has changed."""
        self.gated = bool(
            not self.authenticated
            or self.user.restricted
            or self.transaction is not None
            or self.ended
            or self.no_touch
            or self.replies_off
            or self.skip_replies
            or self.asleep
            or self.wait is not None
            or self.service.paused_until_ms
            or self.subscriptions
            or self.tracker is not None
            or self.service.monitors
        )

    def end(self) -> None:
        """Close this client once its replies so far are sent. What it has waited for goes to others."""
        self.ended = self.gated = True
        self.service.waiting.remove(self)

    def leave_transaction(self) -> None:
        """Forget what was queued since MULTI, and what was watched before."""
        self.transaction = None
        self.unwatch()
        self.regate()

    def watch(self, key: bytes, now_ms: int) -> None:
        place = (self.database.number, key)
        if place not in self.watches:
            self.watches[place] = self.database.watch(key, now_ms)

    def unwatch(self) -> None:
        for (number, key), watch in self.watches.items():
            self.service.keyspace.databases[number].unwatch(key, watch)
        self.watches.clear()

    def watched_changed(self, now_ms: int) -> bool:
        """Whether a watched key was changed, or was there and has expired."""
        for (number, key), watch in self.watches.items():
            self.service.keyspace.databases[number].peek(key, now_ms)  # removes it if it has expired
            if watch.changed:
                return True
        return False
