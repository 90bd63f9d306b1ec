"""How a group is set: the same for all of its nodes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in ms of loop time. An election begins one to two `election_ms` after the leader was last heard."""

    election_ms: int = 1000
    heartbeat_ms: int = 100
    max_append_bytes: int = 256 * 1024
    max_in_flight: int = 64  # messages with entries to one follower
    max_in_flight_bytes: int = 4 * 1024**2
    max_uncommitted_bytes: int = 64 * 1024**2  # beyond it proposals are refused
    max_clock_drift: float = 0.1  # how much faster one clock may run than another: shortens leases
