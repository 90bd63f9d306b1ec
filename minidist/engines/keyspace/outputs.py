"""What the service asks of the shell, as data: whatever concerns other connections than the one that is being answered.

`Service.outbox` collects these; the shell performs them in order after each run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from minidist.engines.keyspace.session import Session


@dataclass(frozen=True, slots=True)
class End:
    """Close the connection of a session; what was written to it goes out first unless `at_once`."""

    session: Session
    at_once: bool


@dataclass(frozen=True, slots=True)
class Resume:
    """Waiting sessions may go on: run what was left of their commands."""


@dataclass(frozen=True, slots=True)
class Named:
    """A client has said its name, `session.name`; faults may choose clients by it."""

    session: Session


@dataclass(frozen=True, slots=True)
class Admitted:
    """A client has authenticated: read on without the limits for strangers."""

    session: Session


@dataclass(frozen=True, slots=True)
class Alarm:
    """`keyspace.alarm_ms` was lowered: call `wake` then."""


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


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Keys were changed under prefixes that clients track: call `Tracking.broadcast` after those of this read."""


@dataclass(frozen=True, slots=True)
class AskBacking:
    """The cache strategy has requests for the backing store: `Strategy.take` gives them."""


ALARM = Alarm()
ASK = AskBacking()
BROADCAST = Broadcast()
Output = Admitted | Alarm | AskBacking | Broadcast | End | Named | Push | Release | Resume
