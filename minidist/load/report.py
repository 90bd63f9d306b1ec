"""What a run amounts to.

`duration_s` is the planned window, or what passed of it before an interruption, plus the wait for the last good answer.
`offered_per_s` counts what was to start over the window; `achieved_per_s` counts good answers over `duration_s`. Of a
ramp both are of its last tenth, for an average over all its rates says nothing about any of them.

Beside the figures about the server stand those about the client: CPU time, the peak lag behind the schedule, skipped
arrivals. When they say that the client was the bottleneck the report does, since then it is not about the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from minidist.load.plan import Plan, shown_url
from minidist.load.recorder import Interval, merged

#: Of a ramp's window: what its rates are measured over.
TAIL = 0.1
#: A client this late, or this busy, distorts what it measures.
LATE_S = 0.010
BUSY = 0.9


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One rate tried in the search for saturation."""

    rate: float
    held: bool
    reason: str
    report: Report


@dataclass(frozen=True, kw_only=True)
class Report:
    plan: Plan
    workload: str
    #: When the load began, seconds since the Unix epoch.
    started_at: float
    #: Of the load without the wait for last answers; shorter than planned after an interruption.
    window_s: float
    #: Of the last good answer, since the start.
    last_ok_s: float
    #: In order, without gaps; those after the window hold late answers.
    intervals: Sequence[Interval]
    client_cpu_s: float
    interrupted: bool = False
    trials: Sequence[Trial] = field(default=())

    @cached_property
    def total(self) -> Interval:
        return merged(self.intervals)

    @property
    def duration_s(self) -> float:
        return max(self.window_s, self.last_ok_s)

    @cached_property
    def tail(self) -> Interval:
        """The last tenth of the window, or as much of it as makes one interval."""
        return self.between(self.window_s * (1 - TAIL), self.window_s)

    def between(self, from_s: float, to_s: float) -> Interval:
        """Everything that ended in this part of the run, to the resolution of the intervals."""
        middle_of = [(each, (each.start_s + each.end_s) / 2) for each in self.intervals]
        chosen = [each for each, middle_s in middle_of if from_s <= middle_s < to_s]
        if not chosen:
            chosen = [min(middle_of, key=lambda pair: abs(pair[1] - (from_s + to_s) / 2))[0]]
        return merged(chosen)

    @property
    def offered_per_s(self) -> float:
        if self.plan.ramp:
            return self.tail.offered / self.tail.seconds
        return self.total.offered / self.window_s

    @property
    def achieved_per_s(self) -> float:
        if self.plan.ramp:
            return self.tail.ok / self.tail.seconds
        return self.total.ok / self.duration_s

    @property
    def mode(self) -> str:
        return "saturation" if self.trials else self.plan.mode

    @property
    def client_busy(self) -> float:
        """Share of one core that each client process used."""
        return self.client_cpu_s / self.duration_s / self.plan.processes

    def to_json(self) -> dict[str, Any]:
        """The object of the contract, with hits if a store was read. Latencies are null when nothing succeeded."""
        total = self.total
        p50, p90, p99, p99_9 = total.percentiles_ms(50, 90, 99, 99.9)
        latency_ms = {
            "min": total.min_ms, "mean": total.mean_ms, "p50": p50, "p90": p90, "p99": p99, "p99_9": p99_9,
            "max": total.max_ms,
        }  # fmt: skip
        figures: dict[str, Any] = {
            "url": shown_url(self.plan.url),
            "workload": self.workload,
            "mode": self.mode,
            "duration_s": round(self.duration_s, 3),
            "offered_per_s": round(self.offered_per_s, 3),
            "achieved_per_s": round(self.achieved_per_s, 3),
            "ok": total.ok,
            "errors": dict(sorted(total.errors.items())),
            "latency_ms": {name: value if value is None else round(value, 3) for name, value in latency_ms.items()},
            "bytes_in": total.bytes_in,
            "bytes_out": total.bytes_out,
            "client_cpu_s": round(self.client_cpu_s, 3),
            "schedule_lag_ms": round(total.lag_s * 1000, 3),
        }
        if total.hit_ratio is not None:
            figures |= {"hits": total.hits, "misses": total.misses, "hit_ratio": round(total.hit_ratio, 6)}
        return figures

    def warnings(self) -> list[str]:
        """What makes these figures the client's rather than the server's."""
        found = []
        total = self.total
        more = f"use --processes {self.plan.processes * 2}" if self.plan.processes < 8 else "use a second machine"
        if self.client_busy > BUSY:
            found.append(
                f"the client was busy {min(self.client_busy, 1):.0%} of the time and may be the bottleneck: {more}"
            )
        if total.lag_s > LATE_S:
            late = sum(1 for each in self.intervals if each.lag_s > LATE_S)
            found.append(
                f"requests started up to {total.lag_s * 1000:.0f} ms late (more than {LATE_S * 1000:.0f} ms in "
                f"{late} of {len(self.intervals)} intervals), which latencies include: the client was short of CPU"
            )
        if skipped := total.errors.get("skipped"):
            found.append(
                f"{skipped} arrivals were never sent: {self.plan.max_in_flight} were under way (--max-in-flight)"
            )
        return found

    def text(self) -> str:
        """For people, several lines."""
        lines = [f"{self.workload} on {shown_url(self.plan.url)}, {self._loop()}"]
        if self.interrupted:
            lines[0] += f" (interrupted after {self.window_s:.1f} s)"
        of_ramp = " at the end of the ramp" if self.plan.ramp else ""
        lines.append(f"  offered   {rate_text(self.offered_per_s)}{of_ramp}")
        lines.append(
            f"  achieved  {rate_text(self.achieved_per_s)}{of_ramp}, {self.total.ok:,} ok in {self.duration_s:.2f} s"
        )
        lines.append("  latency   " + self._latencies())
        if self.total.hit_ratio is not None:
            reads = self.total.hits + self.total.misses
            lines.append(f"  hits      {self.total.hit_ratio:.2%} of {reads:,} reads")
        if self.total.failed:
            share = self.total.failed / (self.total.ok + self.total.failed)
            kinds = sorted(self.total.errors.items(), key=lambda each: -each[1])
            lines.append(
                f"  failed    {self.total.failed:,} ({share:.2%}): " + ", ".join(f"{kind} {n:,}" for kind, n in kinds)
            )
        lines.append(f"  bytes     {bytes_text(self.total.bytes_in)} in, {bytes_text(self.total.bytes_out)} out")
        lag = f", peak lag {self.total.lag_s * 1000:.2f} ms" if self.plan.is_open else ""
        lines.append(f"  client    {self.client_cpu_s:.2f} s CPU ({self.client_busy:.0%} of a core per process){lag}")
        lines += ["  warning   " + each for each in self.warnings()]
        return "\n".join(lines)

    def _loop(self) -> str:
        plan = self.plan
        if plan.is_open:
            rates = f"{plan.ramp[0]:g} to {plan.ramp[1]:g}/s" if plan.ramp else f"{plan.rate:g}/s"
            return f"open loop at {rates} over {plan.channels} connections"
        return f"closed loop of {plan.channels} connections"

    def _latencies(self) -> str:
        p50, p90, p99, p99_9 = self.total.percentiles_ms(50, 90, 99, 99.9)
        if p50 is None:
            return "none, nothing succeeded"
        names = ("min", "mean", "p50", "p90", "p99", "p99.9", "max")
        values = (self.total.min_ms, self.total.mean_ms, p50, p90, p99, p99_9, self.total.max_ms)
        return "  ".join(f"{name} {ms_text(value)}" for name, value in zip(names, values, strict=True))


def ms_text(value_ms: float | None) -> str:
    """`0.123`, `12.3`, `1,230` ms: three digits."""
    if value_ms is None:
        return "–"
    digits = 0 if value_ms >= 100 else 1 if value_ms >= 10 else 2 if value_ms >= 1 else 3
    return f"{value_ms:,.{digits}f}"


def rate_text(per_s: float) -> str:
    return f"{per_s:,.0f}/s" if per_s >= 100 else f"{per_s:.4g}/s"


def bytes_text(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
