"""What happens to a node (`Raft.step` takes one of these), and what it then wants done (`Outputs`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from minidist.engines.raft.log import Entry
from minidist.engines.raft.membership import Membership
from minidist.engines.raft.messages import Message

# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: `Raft.alarm_ms` has come."""


@dataclass(frozen=True, slots=True)
class Receive:
    sender: str
    message: Message


@dataclass(frozen=True, slots=True)
class Propose:
    """Commands for the log, all or none; answered by `Outputs.proposed` or `Outputs.refused`."""

    commands: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Read:
    """From which index on may this node's state answer? By `Outputs.readable`, with the same `key`, or `refused`.

    `lease`: without asking the others, while the lease lasts.
    """

    key: object
    lease: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """A new membership, through joint consensus where voters change; `Outputs.proposed` or `refused`."""

    target: Membership


@dataclass(frozen=True, slots=True)
class Transfer:
    """Hand leadership over to this voter."""

    to: str


@dataclass(frozen=True, slots=True)
class Persisted:
    """What `Persist` number so-and-so, and all before it, asked for is on disk."""

    number: int


@dataclass(frozen=True, slots=True)
class Applied:
    """The state has everything up to this index."""

    index: int


@dataclass(frozen=True, slots=True)
class Compact:
    """A snapshot holds the state up to some index that was applied: forget the log up to `index`, not beyond that."""

    index: int


@dataclass(frozen=True, slots=True)
class SnapshotInstalled:
    """A leader's snapshot is on disk and is the state now. `term` is the leader's, `last_term` that of entry `index`.

    Where the log had another entry there, or none, what follows on disk is to be removed (`Persist.truncate`).
    """

    sender: str
    term: int
    index: int
    last_term: int
    membership: Membership


@dataclass(frozen=True, slots=True)
class SnapshotSent:
    """A follower has got the snapshot up to `index`, or the attempt has failed (None)."""

    to: str
    index: int | None


Asking = Propose | Read | Change | Transfer
"""What only a leader can do."""
Event = Tick | Receive | Asking | Persisted | Applied | Compact | SnapshotInstalled | SnapshotSent

# --- outputs ----------------------------------------------------------------------------------------------------------


class Refusal(Enum):
    """Why not. None of them had an effect."""

    NOT_LEADER = "not the leader"
    TRANSFERRING = "leadership is being handed over"
    TOO_MUCH = "too much is not committed yet"
    CHANGING = "another change of members is under way"
    NO_SUCH_VOTER = "no such voter"


class Refused(NamedTuple):
    event: Event
    why: Refusal


class Send(NamedTuple):
    to: str
    message: Message


@dataclass(slots=True)
class Persist:
    """To be written and synced, in the order of `number`; then send `then`, and step `Persisted(number)`.

    Several may be written at once. One without content is a place in the order, no more.
    """

    number: int
    hard_state: tuple[int, str | None] | None = None  # term and vote
    truncate: int | None = None  # first remove the entries from this index on
    entries: Sequence[Entry] = ()
    then: list[Send] = field(default_factory=list)


@dataclass(slots=True)
class Outputs:
    """What is to be done now. Order: `persist` may take its time; all the rest need not wait for it."""

    send: list[Send] = field(default_factory=list)
    persist: Persist | None = None
    committed: Sequence[Entry] = ()  # to be applied, in order
    proposed: Sequence[Entry] = ()  # what a Propose or Change has become; it may still be lost
    readable: list[tuple[object, int]] = field(default_factory=list)  # key of the Read, index to be applied first
    refused: list[Refused] = field(default_factory=list)
    need_snapshot: list[str] = field(default_factory=list)  # followers to be sent one
