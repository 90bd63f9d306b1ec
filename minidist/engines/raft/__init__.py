"""Raft, as a library: a pure state machine that a shell feeds with events, and that answers with outputs (node.py)."""

from minidist.engines.raft.events import (
    Applied,
    Change,
    Compact,
    Event,
    Outputs,
    Persist,
    Persisted,
    Propose,
    Read,
    Receive,
    Refusal,
    SnapshotInstalled,
    SnapshotSent,
    Tick,
    Transfer,
)
from minidist.engines.raft.log import Entry, EntryKind, Log
from minidist.engines.raft.membership import Membership
from minidist.engines.raft.messages import Message
from minidist.engines.raft.node import Raft, Role
from minidist.engines.raft.settings import Settings

__all__ = [
    "Applied",
    "Change",
    "Compact",
    "Entry",
    "EntryKind",
    "Event",
    "Log",
    "Membership",
    "Message",
    "Outputs",
    "Persist",
    "Persisted",
    "Propose",
    "Raft",
    "Read",
    "Receive",
    "Refusal",
    "Role",
    "Settings",
    "SnapshotInstalled",
    "SnapshotSent",
    "Tick",
    "Transfer",
]
