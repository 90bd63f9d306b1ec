"""Choosing an upstream, and deciding which are fit to be chosen. Pure; shared by proxy, balancer and dns."""

from minidist.engines.balancing.health import Change, Health, HealthSettings
from minidist.engines.balancing.upstreams import (
    MAX_WEIGHT,
    POLICIES,
    LeastConnections,
    Policy,
    RoundRobin,
    Upstream,
    UpstreamSet,
    UpstreamState,
)

__all__ = [
    "MAX_WEIGHT", "POLICIES", "Change", "Health", "HealthSettings", "LeastConnections", "Policy", "RoundRobin",
    "Upstream", "UpstreamSet", "UpstreamState",
]  # fmt: skip
