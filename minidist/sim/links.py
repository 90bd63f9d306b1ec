"""The ways between hosts: how long something takes, and what faults do to it.

Without faults a way has latency, and now and then a write arrives in pieces; what `Conditions` say. A `Rule` is a fault
on the way from some hosts to others. `partition` lets nothing through; `delay` and `bandwidth` slow down; `drop` loses:
a datagram is gone, and of a stream the segment is sent again after TCP's retransmission timeout, so it is late.
A host reaches itself whatever the rules are.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidist.sim.host import Host
    from minidist.sim.loop import SimLoop

SEGMENT_BYTES = 16 * 1024
RETRANSMISSION_S = 0.2  # the least retransmission timeout of Linux; it doubles with each loss
MAX_STALL_S = 60.0
MAX_DROP_PROBABILITY = 0.99  # for streams: above, a segment would never arrive, which is a partition


@dataclass(slots=True)
class Conditions:
    """What the network is like without faults. Times in seconds."""

    latency_s: tuple[float, float] = (0.0001, 0.0006)
    split_probability: float = 0.1  # a write arrives in two pieces
    datagram_loss: float = 0.0
    datagram_duplication: float = 0.0
    datagram_reordering_s: float = 0.0


@dataclass(slots=True, eq=False)
class Rule:
    """A fault on the way from some hosts to others, by their names; None stands for all.

    `parameters`: delay has `ms` and `jitter_ms`, bandwidth `bytes_per_s`. `fired` is called at each effect. `delay` and
    `drop` strike with `probability`, and at most `times` times; a partition and a bandwidth are there or are not.
    """

    kind: str
    sources: frozenset[str] | None
    targets: frozenset[str] | None
    parameters: dict[str, float] = field(default_factory=dict)
    fired: Callable[[], None] = lambda: None
    probability: float = 1.0
    times: int | None = None

    def strikes(self, rng: random.Random, at_most: float = 1.0) -> bool:
        """Whether it strikes now; counts down and tells when it does."""
        probability = min(self.probability, at_most)
        if self.times == 0 or (probability < 1.0 and rng.random() >= probability):
            return False
        if self.times is not None:
            self.times -= 1
        self.fired()
        return True

    def concerns(self, source: str, target: str) -> bool:
        return (self.sources is None or source in self.sources) and (self.targets is None or target in self.targets)


class Links:
    """All ways of a world. Every draw comes from the network's own stream."""

    def __init__(self, loop: "SimLoop", rng: random.Random, conditions: Conditions) -> None:
        self.loop = loop
        self.random = rng
        self.conditions = conditions
        self.rules: list[Rule] = []
        self.latest_s = 0.0  # by when everything arrives that was sent under a rule so far, unless a partition stops it

    def cut(self, source: "Host", target: "Host") -> bool:
        """Whether a partition lies on the way."""
        if not self.rules or source is target:
            return False
        for rule in self.rules:
            if rule.kind == "partition" and rule.concerns(source.name, target.name):
                rule.fired()
                return True
        return False

    def segments(self, data: bytes) -> list[bytes]:
        """A write as it travels: large ones in segments, some small ones in two pieces."""
        if len(data) > SEGMENT_BYTES:
            return [data[start : start + SEGMENT_BYTES] for start in range(0, len(data), SEGMENT_BYTES)]
        if len(data) > 1 and self.random.random() < self.conditions.split_probability:
            place = self.random.randrange(1, len(data))
            return [data[:place], data[place:]]
        return [data]

    def arrival_s(self, source: "Host", target: "Host", size: int, free_s: float) -> tuple[float, float]:
        """When a segment sent now arrives, and when its line is free for the next one (`free_s`: for this one)."""
        low, high = self.conditions.latency_s
        now_s = self.loop.now_s
        at_s = now_s + low + (high - low) * self.random.random()
        if self.rules and source is not target:
            for rule in self.rules:
                if rule.kind != "partition" and rule.concerns(source.name, target.name):
                    if rule.kind == "bandwidth" and size:
                        free_s = max(free_s, now_s) + size / rule.parameters["bytes_per_s"]
                        at_s = max(at_s, free_s)
                        rule.fired()
                    else:
                        at_s += self._delayed_s(rule) if rule.kind == "delay" else self._stalled_s(rule)
            self.latest_s = max(self.latest_s, at_s)
        return at_s, free_s

    def datagram_arrivals_s(self, source: "Host", target: "Host", size: int) -> list[float]:
        """When a datagram arrives: never, once, or twice."""
        conditions, rng = self.conditions, self.random
        lost = conditions.datagram_loss and rng.random() < conditions.datagram_loss
        copies = 2 if conditions.datagram_duplication and rng.random() < conditions.datagram_duplication else 1
        low, high = conditions.latency_s
        extra_s = 0.0
        for rule in self.rules if source is not target else ():
            if not rule.concerns(source.name, target.name):
                continue
            if rule.kind == "drop":
                lost = rule.strikes(rng) or lost
            elif rule.kind == "delay":
                extra_s += self._delayed_s(rule)
            elif rule.kind == "bandwidth":
                extra_s += size / rule.parameters["bytes_per_s"]
                rule.fired()
        if lost:
            return []
        late_s = conditions.datagram_reordering_s
        return [self.loop.now_s + extra_s + rng.uniform(low, high + late_s) for _ in range(copies)]

    def _delayed_s(self, rule: Rule) -> float:
        if not rule.strikes(self.random):
            return 0.0
        spread_ms = rule.parameters.get("jitter_ms", 0.0)
        if spread_ms:
            spread_ms *= self.random.uniform(-1, 1)
        return max(0.0, rule.parameters["ms"] + spread_ms) / 1000

    def _stalled_s(self, rule: Rule) -> float:
        """Lost again and again: how much later the segment gets through."""
        late_s, wait_s = 0.0, RETRANSMISSION_S
        while rule.kind == "drop" and late_s < MAX_STALL_S and rule.strikes(self.random, MAX_DROP_PROBABILITY):
            late_s += wait_s
            wait_s *= 2
        return late_s
