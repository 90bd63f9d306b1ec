"""The data path's view: which upstreams may take the next request, and the fast choice among them.

Health is decided elsewhere (health.py, one writer); this side receives whole snapshots of the decision and never judges
by itself. A snapshot is plain data, so that it can cross a socket pair to a worker:

    {"panic": False, "upstreams": [{"name": "10.0.0.1:80", "weight": 1, "state": "up", "why": "…", "suspect": False}]}

What the data path knows best it counts here: requests under way, requests, failures, response time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from random import Random
from typing import Any, Generic, Protocol, TypeVar

#: Weight of the newest response time in the moving average: about the last twenty requests count.
EWMA_SHARE = 0.1

MAX_WEIGHT = 256  # HAProxy's; finer shares than 1:256 cannot be told from chance


class UpstreamState(Enum):
    """What may be sent to an upstream; health.py moves it."""

    UNKNOWN = "unknown"  #: not checked yet: takes requests, so that a fresh start serves
    UP = "up"
    DOWN = "down"  #: active checks fail
    EJECTED = "ejected"  #: requests to it kept failing; comes back by itself
    DRAINING = "draining"  #: finishes what it has, takes nothing new


USABLE = (UpstreamState.UNKNOWN, UpstreamState.UP)


class Upstream:
    """One server as the data path sees it."""

    __slots__ = ("active", "ewma_ms", "failures", "name", "requests", "state", "suspect", "weight", "why")

    def __init__(self, name: str) -> None:
        self.name = name
        self.weight = 1
        self.state = UpstreamState.UNKNOWN
        self.why = ""
        self.suspect = False  #: a failure was reported and no success since: the next success is worth a report
        self.active = 0  #: requests under way
        self.requests = 0
        self.failures = 0
        self.ewma_ms = 0.0

    def answered(self, after_ms: float) -> None:
        """The first byte of a response came."""
        self.ewma_ms += (after_ms - self.ewma_ms) * EWMA_SHARE if self.ewma_ms else after_ms

    def figures(self) -> dict[str, Any]:
        return {
            "active": self.active,
            "requests": self.requests,
            "failures": self.failures,
            "ewma_ms": round(self.ewma_ms, 3),
        }


U = TypeVar("U", bound=Upstream)


class Policy(Protocol):
    """Chooses among usable upstreams; there is always at least one."""

    name: str

    def pick(self, usable: Sequence[U]) -> U: ...

    def peek(self, usable: Sequence[U]) -> list[tuple[U, float]]:
        """The same choice without its effect: each upstream with its score; the least goes first."""
        ...


class RoundRobin:
    """Smooth weighted round robin, as nginx does it: picks of a heavy upstream are spread out, not in a row.

    Each pick adds every upstream's weight to its credit, takes the one with most credit and charges it the total.
    """

    name = "round-robin"

    def __init__(self, random: Random) -> None:
        self._credit: dict[str, int] = {}

    def pick(self, usable: Sequence[U]) -> U:
        credit = self._credit
        total, most, best = 0, -(2**62), usable[0]
        for upstream in usable:
            total += upstream.weight
            mine = credit[upstream.name] = credit.get(upstream.name, 0) + upstream.weight
            if mine > most:
                most, best = mine, upstream
        credit[best.name] -= total
        if len(credit) > 2 * len(usable):  # upstreams that are gone must not be remembered for ever
            self._credit = {each.name: credit[each.name] for each in usable}
        return best

    def peek(self, usable: Sequence[U]) -> list[tuple[U, float]]:
        return [(each, -float(self._credit.get(each.name, 0) + each.weight)) for each in usable]


class LeastConnections:
    """The upstream with the fewest requests under way for its weight; among equals a random one.

    The request to be placed counts as well, so that weights matter to idle upstreams. Random, because several
    balancers (or workers) that break ties alike would all fall on the same upstream.
    """

    name = "least-connections"

    def __init__(self, random: Random) -> None:
        self._random = random

    def pick(self, usable: Sequence[U]) -> U:
        least = (usable[0].active + 1) / usable[0].weight
        best = [usable[0]]
        for upstream in usable[1:]:
            load = (upstream.active + 1) / upstream.weight
            if load < least:
                least, best = load, [upstream]
            elif load == least:
                best.append(upstream)
        return best[0] if len(best) == 1 else best[int(self._random.random() * len(best))]

    def peek(self, usable: Sequence[U]) -> list[tuple[U, float]]:
        return [(each, (each.active + 1) / each.weight) for each in usable]


POLICIES: dict[str, Callable[[Random], Policy]] = {each.name: each for each in (RoundRobin, LeastConnections)}


class UpstreamSet(Generic[U]):
    """All upstreams of one service with the policy that picks among them."""

    def __init__(self, policy: Policy, make: Callable[[str], U]) -> None:
        """`make(name)` creates the caller's kind of Upstream, which may carry a connection pool."""
        self.policy = policy
        self.panic = False
        self.members: dict[str, U] = {}
        self.usable: list[U] = []
        self._make = make

    def apply(self, snapshot: dict[str, Any]) -> list[U]:
        """Take over a decision of the control half. Returns the upstreams that are gone: close what belongs to them."""
        before = self.members
        self.members = {}
        for entry in snapshot["upstreams"]:
            name = entry["name"]
            upstream = before.get(name)
            if upstream is None:
                upstream = self._make(name)
            upstream.weight = entry["weight"]
            upstream.state = UpstreamState(entry["state"])
            upstream.why = entry["why"]
            upstream.suspect = entry["suspect"]
            self.members[name] = upstream
        self.panic = snapshot["panic"]
        if self.panic:
            self.usable = [each for each in self.members.values() if each.state is not UpstreamState.DRAINING]
        else:
            self.usable = [each for each in self.members.values() if each.state in USABLE]
        return [upstream for name, upstream in before.items() if name not in self.members]

    def pick(self) -> U | None:
        """The upstream for the next request; None when none may take it. The caller counts `active` and `requests`."""
        usable = self.usable
        if len(usable) > 1:
            return self.policy.pick(usable)
        return usable[0] if usable else None

    def pick_again(self, tried: Sequence[U]) -> U | None:
        """For a retry: one that was not tried yet, as long as there is one."""
        fresh = [each for each in self.usable if each not in tried]
        return self.policy.pick(fresh) if fresh else self.pick()

    def explain(self) -> dict[str, Any]:
        """Which upstreams the next request could go to, with their scores, and why the others not."""
        scores = {each.name: score for each, score in self.policy.peek(self.usable)}
        best = min(scores.values(), default=0.0)
        return {
            "policy": self.policy.name,
            "panic": self.panic,
            "next": [name for name, score in scores.items() if score == best],
            "candidates": [
                {
                    "upstream": each.name,
                    "state": each.state.value,
                    "usable": each.name in scores,
                    "weight": each.weight,
                    "score": scores.get(each.name),
                    "active": each.active,
                    "why": each.why,
                }
                for each in self.members.values()
            ],
        }
