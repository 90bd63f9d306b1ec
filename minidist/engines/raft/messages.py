"""What nodes of a group say to each other. Every message has the term of its sender.

Snapshots go another way, in pieces, on a connection of their own: see SnapshotInstalled in events.py.
"""

from dataclasses import dataclass

from minidist.engines.raft.log import Entry


@dataclass(frozen=True, slots=True)
class Vote:
    """A candidate asks. With `trial` it asks whether it would be elected in `term`, which is not its own yet (9.6).

    `transfer`: the leader has asked for this election, so leases do not stand against it.
    """

    term: int
    last_index: int
    last_term: int
    trial: bool = False
    transfer: bool = False


@dataclass(frozen=True, slots=True)
class VoteReply:
    """`term` is that of the question where it was granted, of the voter where it was refused."""

    term: int
    granted: bool
    trial: bool = False


@dataclass(frozen=True, slots=True)
class Append:
    """Entries behind the one at `previous_index`, perhaps none."""

    term: int
    previous_index: int
    previous_term: int
    entries: tuple[Entry, ...]
    commit: int


@dataclass(frozen=True, slots=True)
class AppendReply:
    """`match`: up to there the logs agree, and the follower has it on disk. None: refused.

    Of a refusal: `refused_index` is the previous index that was asked for; the logs cannot agree beyond `hint_index`,
    where the follower's term is `hint_term`.
    """

    term: int
    match: int | None
    refused_index: int = 0
    hint_index: int = 0
    hint_term: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The leader is there. `round` counts them, and comes back; `commit` is no more than the follower has."""

    term: int
    commit: int
    round: int


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    term: int
    round: int


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """The leader hands over: become a candidate at once (3.10)."""

    term: int


Message = Vote | VoteReply | Append | AppendReply | Heartbeat | HeartbeatReply | TimeoutNow
