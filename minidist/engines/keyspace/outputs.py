"""What the service asks of the shell, as data: whatever concerns other connections than the one that is being answered.

`Service.outbox` collects these; the shell performs them in order after each run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from minidist.engines.keyspace.session import Session


class Signal(Enum):
    """What needs no more words.

    ALARM: `keyspace.alarm_ms` was lowered, call `wake` then. RESUME: waiting sessions may go on, run what was left of
    their commands. BROADCAST: keys were changed under prefixes that clients track, call `Tracking.broadcast` after
    those of this read. ASK_BACKING: the cache strategy has requests for the store, `Strategy.take` gives them.
    """

    ALARM = "alarm"
    RESUME = "resume"
    BROADCAST = "broadcast"
    ASK_BACKING = "ask backing"


@dataclass(frozen=True, slots=True)
class End:
    """Close the connection of a session; what was written to it goes out first unless `at_once`."""

    session: Session
    at_once: bool


@dataclass(frozen=True, slots=True)
class Named:
    """A client has said its name, `session.name`; faults may choose clients by it."""

    session: Session


@dataclass(frozen=True, slots=True)
class Admitted:
    """A client has authenticated: read on without the limits for strangers."""

    session: Session


@dataclass(frozen=True, slots=True)
class Release:
    """A session has waited for a key and does so no longer: send the reply, and run what was left of its commands."""

    session: Session
    reply: bytes


@dataclass(frozen=True, slots=True)
class Push:
    """A message for sessions that did not ask for it just now: send it to each."""

    sessions: Sequence[Session]
    message: bytes


Output = Admitted | End | Named | Push | Release | Signal
