"""Who is healthy: one pure state machine, and the only writer of it, for all workers of a balancer or proxy.

Three things speak about an upstream, and each keeps its own account, so that none undoes another:

* the operator: draining or not;
* active checks: `rise` successes in a row make it up, `fall` failures in a row make it down; the very first verdict
  counts at once, since there is nothing to be careful about yet;
* passive observation: `eject_after` failed requests in a row eject it for `eject_base_ms` × (ejections so far), at most
  `eject_max_ms`. Never more than `eject_max_percent` of all upstreams at a time (but one may always be, of two or
  more): a fault of everybody is not a reason to have nobody. A check that passes `rise` times ends an ejection early;
  a whole eject_max_ms without a new ejection forgives the old ones.

The state shown is the strongest of the three: draining, down, ejected, up or unknown.

Panic: when the share of usable upstreams (of those not draining) falls below `panic_percent`, health is ignored and all
of them take requests. It is off by default (0), it is an event when it begins and ends, and it shows in every answer.

Times are loop time in milliseconds, given by the caller. Each input returns the changes it caused; the caller tells
them to the operator and sends what `take_snapshot()` gives to the data halves. At `next_ms()`, call `tick()`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minidist.engines.balancing.upstreams import USABLE, UpstreamState


@dataclass(frozen=True, slots=True)
class HealthSettings:
    rise: int = 2  # HAProxy's rise and fall: one lucky or unlucky check changes nothing
    fall: int = 3
    eject_after: int = 5  # Envoy's outlier numbers; 0 never ejects
    eject_base_ms: int = 30_000
    eject_max_ms: int = 300_000
    eject_max_percent: int = 50  # Envoy has 10, which for three upstreams means none or one
    panic_percent: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """An upstream's state moved; or, with name "", panic began (after = "panic") or ended ("normal")."""

    name: str
    before: str
    after: str
    why: str


class _Member:
    """The accounts of one upstream."""

    __slots__ = (
        "checked", "draining", "ejected_until_ms", "ejections", "failed_checks", "failed_requests", "forgiven_at_ms",
        "last_check", "last_failure", "name", "passed_checks", "shown", "suspect", "weight",
    )  # fmt: skip

    def __init__(self, name: str, weight: int) -> None:
        self.name = name
        self.weight = weight
        self.draining = False
        self.checked = UpstreamState.UNKNOWN  #: UNKNOWN, UP or DOWN by active checks
        self.passed_checks = 0  #: in a row
        self.failed_checks = 0  #: in a row
        self.last_check = "not checked yet"
        self.failed_requests = 0
        self.last_failure = ""
        self.ejected_until_ms: int | None = None
        self.ejections = 0
        self.forgiven_at_ms = 0
        self.suspect = False
        self.shown = UpstreamState.UNKNOWN

    def state(self) -> UpstreamState:
        if self.draining:
            return UpstreamState.DRAINING
        if self.checked is UpstreamState.DOWN:
            return UpstreamState.DOWN
        if self.ejected_until_ms is not None:
            return UpstreamState.EJECTED
        return self.checked

    def why(self) -> str:
        match self.shown:
            case UpstreamState.DRAINING:
                return "draining on request"
            case UpstreamState.EJECTED:
                return f"{self.failed_requests} requests in a row failed: {self.last_failure}"
            case _:
                return self.last_check


class Health:
    """The health of a set of upstreams; see the head of this file."""

    def __init__(self, settings: HealthSettings) -> None:
        self.settings = settings
        self.panic = False
        self._changed = True
        self._members: dict[str, _Member] = {}

    # --- the operator -----------------------------------------------------------------------------------------------

    def add(self, name: str, weight: int = 1) -> list[Change]:
        """A new upstream, or one that was draining and is wanted again, or another weight."""
        member = self._members.get(name)
        if member is None:
            self._members[name] = _Member(name, weight)
            self._changed = True
            return [Change(name, "", "unknown", "added"), *self._settle()]
        self._changed |= member.weight != weight
        member.weight = weight
        member.draining = False
        return self._settle()

    def drain(self, name: str) -> list[Change]:
        """Raises KeyError for one that is not there."""
        self._members[name].draining = True
        return self._settle()

    def remove(self, name: str) -> list[Change]:
        """Raises KeyError for one that is not there."""
        member = self._members.pop(name)
        self._changed = True
        return [Change(name, member.shown.value, "", "removed"), *self._settle()]

    def names(self) -> list[str]:
        return list(self._members)

    # --- observations -----------------------------------------------------------------------------------------------

    def checked(self, name: str, ok: bool, why: str) -> list[Change]:
        """The result of an active check. One that comes for a removed upstream is ignored."""
        member = self._members.get(name)
        if member is None:
            return []
        member.last_check = why
        member.passed_checks = member.passed_checks + 1 if ok else 0
        member.failed_checks = 0 if ok else member.failed_checks + 1
        first = member.checked is UpstreamState.UNKNOWN
        if ok and (first or member.passed_checks >= self.settings.rise):
            member.checked = UpstreamState.UP
        elif not ok and (first or member.failed_checks >= self.settings.fall):
            member.checked = UpstreamState.DOWN
        if member.ejected_until_ms is not None and member.passed_checks >= self.settings.rise:
            self._readmit(member)
        return self._settle()

    def outcome(self, name: str, ok: bool, why: str, now_ms: int) -> list[Change]:
        """How a request ended for the upstream: `ok` is any response it gave, bad is none or a broken one."""
        member = self._members.get(name)
        if member is None:
            return []
        self._changed |= member.suspect is ok
        member.suspect = not ok
        if ok:
            member.failed_requests = 0
            return []
        member.failed_requests += 1
        member.last_failure = why
        limit = self.settings.eject_after
        if limit and member.failed_requests >= limit and member.ejected_until_ms is None and self._may_eject():
            self._eject(member, now_ms)
            return self._settle()
        return []

    def tick(self, now_ms: int) -> list[Change]:
        """Let ejections end whose time has come."""
        for member in self._members.values():
            if member.ejected_until_ms is not None and member.ejected_until_ms <= now_ms:
                self._readmit(member)
        return self._settle()

    def next_ms(self) -> int | None:
        """When `tick` is due."""
        return min((m.ejected_until_ms for m in self._members.values() if m.ejected_until_ms is not None), default=None)

    # --- what others see --------------------------------------------------------------------------------------------

    def take_snapshot(self) -> dict[str, Any] | None:
        """What to send to the data halves, if anything changed since it was last taken."""
        if not self._changed:
            return None
        self._changed = False
        return self.snapshot()

    def snapshot(self) -> dict[str, Any]:
        """Everything the data halves need, as plain data; see upstreams.py."""
        return {
            "panic": self.panic,
            "upstreams": [
                {
                    "name": member.name,
                    "weight": member.weight,
                    "state": member.shown.value,
                    "why": member.why(),
                    "suspect": member.suspect,
                }
                for member in self._members.values()
            ],
        }

    # --- inside -----------------------------------------------------------------------------------------------------

    def _may_eject(self) -> bool:
        ejected = sum(member.ejected_until_ms is not None for member in self._members.values())
        total = len(self._members)
        allowed = max(total * self.settings.eject_max_percent // 100, 1 if total > 1 else 0)
        return ejected < allowed

    def _eject(self, member: _Member, now_ms: int) -> None:
        if now_ms >= member.forgiven_at_ms:
            member.ejections = 0
        member.ejections += 1
        for_ms = min(self.settings.eject_base_ms * member.ejections, self.settings.eject_max_ms)
        member.ejected_until_ms = now_ms + for_ms
        member.forgiven_at_ms = member.ejected_until_ms + self.settings.eject_max_ms
        member.passed_checks = 0

    def _readmit(self, member: _Member) -> None:
        member.ejected_until_ms = None
        member.failed_requests = 0

    def _settle(self) -> list[Change]:
        """Bring what is shown up to date; the only place that assigns it."""
        changes = []
        for member in self._members.values():
            before, after = member.shown, member.state()
            if before is not after:
                member.shown = after
                changes.append(Change(member.name, before.value, after.value, member.why()))
        eligible = [member for member in self._members.values() if not member.draining]
        usable = sum(member.shown in USABLE for member in eligible)
        panic = usable * 100 < self.settings.panic_percent * len(eligible)
        if panic is not self.panic:
            self.panic = panic
            words = ("normal", "panic") if panic else ("panic", "normal")
            changes.append(Change("", *words, f"{usable} of {len(eligible)} upstreams are usable"))
        self._changed |= bool(changes)
        return changes
