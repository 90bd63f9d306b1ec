"""Clients that wait for a key: BLPOP and its kin, with the fairness that Redis promises.

A command that finds nothing raises `Block`. Outside of a transaction the service then keeps the command in `Waiting`,
under every key it names. Whatever changes one of these keys marks it (by a `Watch`, so nothing but a watched key pays),
and after that command, or that transaction, the service tries the commands that wait for the key again, first come,
first served: a client that has waited longest for a key gets its element. One that finds nothing again keeps its place.
A command that is tried again looks at all its keys, in the order it names them.

A client waits until its time has run out (service time), until CLIENT UNBLOCK, or until it is gone.
"""

import heapq
import itertools
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from minidist.engines.keyspace.database import Database, Watch
from minidist.engines.keyspace.registry import Command
from minidist.engines.keyspace.tables import Entry
from minidist.wire.resp_plain import Command as Arguments

if TYPE_CHECKING:
    from minidist.engines.keyspace.session import Session


class Block(Exception):
    """A command found nothing: wait for a change of one of the keys, or answer `nothing` when it may not wait.

    `timeout_ms` 0 waits for ever. `kind` is the class of the values it can use: others do not wake it, nor does that a
    key goes, unless `at_any_change`. The command is run again with the same arguments, or with `again`: XREAD's `$` is
    the last entry at the time of the call.
    """

    ran: ClassVar[bool] = False  #: the command has run: it is its reply that waits

    def __init__(
        self,
        keys: list[bytes],
        kind: type,
        timeout_ms: int,
        nothing: bytes,
        *,
        at_any_change: bool = False,
        again: Arguments | None = None,
    ) -> None:
        self.keys = list(dict.fromkeys(keys))
        self.at_any_change = at_any_change
        self.again = again
        self.kind = kind
        self.timeout_ms = timeout_ms
        self.nothing = nothing

    def wakes_for(self, entry: Entry | None) -> bool:
        """Whether it is worth trying again now that this is under the key."""
        return self.at_any_change or (entry is not None and entry.value.__class__ is self.kind)


@dataclass(slots=True, eq=False)
class Wait:
    """What one client waits for."""

    command: Command
    args: Arguments
    block: Block
    places: "list[Place]"
    number: int


class Place(Watch):
    """A key that clients wait for, in their order."""

    __slots__ = ("database", "key", "marked", "sessions", "waiting")

    def __init__(self, waiting: "Waiting", database: Database, key: bytes) -> None:
        self.waiting = waiting
        self.database = database
        self.key = key
        # Ordered, since a dict that is taken from at its front gets slower and slower to begin with.
        self.sessions: OrderedDict[Session, None] = OrderedDict()
        self.marked = False

    @property
    def changed(self) -> bool:
        return self.marked

    @changed.setter
    def changed(self, changed: bool) -> None:
        if changed and not self.marked:
            self.marked = True
            self.waiting.ready.append(self)


class Waiting:
    """The waiting clients of a node. `ready` holds the places that were changed and not looked at since."""

    def __init__(self) -> None:
        self.ready: list[Place] = []
        self._places: dict[tuple[int, bytes], Place] = {}
        self._deadlines: list[tuple[int, int, Session]] = []
        self._numbers = itertools.count()
        self.count = 0

    def add(self, session: "Session", command: Command, args: Arguments, block: Block, now_ms: int) -> None:
        """A client waits from now on."""
        places = [self._place(session.database, key) for key in block.keys]
        for place in places:
            place.sessions[session] = None
        session.wait = Wait(command, args, block, places, next(self._numbers))
        self.count += 1
        if block.timeout_ms:
            heapq.heappush(self._deadlines, (now_ms + block.timeout_ms, session.wait.number, session))

    def _place(self, database: Database, key: bytes) -> Place:
        place = self._places.get((database.number, key))
        if place is None:
            place = self._places[database.number, key] = Place(self, database, key)
            database.watches.setdefault(key, []).append(place)
        return place

    def at(self, database: Database, key: bytes) -> Place | None:
        """Who waits for a key."""
        return self._places.get((database.number, key))

    def remove(self, session: "Session") -> None:
        """A client waits no longer."""
        wait = session.wait
        if wait is None:
            return
        session.wait = None
        self.count -= 1
        for place in wait.places:
            del place.sessions[session]
            if not place.sessions:
                del self._places[place.database.number, place.key]
                place.database.unwatch(place.key, place)
        if len(self._deadlines) > 2 * self.count + 64:
            self._deadlines = [each for each in self._deadlines if self._is_waiting(each)]
            heapq.heapify(self._deadlines)

    @staticmethod
    def _is_waiting(deadline: "tuple[int, int, Session]") -> bool:
        _, number, session = deadline
        return session.wait is not None and session.wait.number == number

    def take_ready(self) -> list[Place]:
        """The places that were changed, in that order; from here on they can be marked again."""
        places = self.ready[:]
        self.ready.clear()
        for place in places:
            place.marked = False
        return places

    @property
    def alarm_ms(self) -> int | None:
        """When the first client gives up; None when nobody does."""
        while self._deadlines and not self._is_waiting(self._deadlines[0]):
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def overdue(self, now_ms: int) -> "Session | None":
        """A client whose time has run out."""
        alarm_ms = self.alarm_ms
        return self._deadlines[0][2] if alarm_ms is not None and alarm_ms <= now_ms else None
