"""Objectives: upper limits that a run must keep, `p99=50ms,error-rate=0.01`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from minidist.load.recorder import Interval
from minidist.runtime.config import Kind, parse_duration

_ALLOWED = (
    "limits such as p99=50ms,error-rate=0.01: p50 … p99.9, mean, max with a duration, error-rate with a share or 1%"
)


@dataclass(frozen=True, slots=True)
class Limit:
    """`measure` as it was written; `at_most` in milliseconds, or as a share of all requests for error-rate."""

    measure: str
    at_most: float

    def measured(self, total: Interval) -> float | None:
        """The value in this run; None when nothing succeeded."""
        if self.measure == "error-rate":
            requests = total.ok + total.failed
            return total.failed / requests if requests else None
        if self.measure == "mean":
            return total.mean_ms
        if self.measure == "max":
            return total.max_ms
        return total.percentile_ms(float(self.measure[1:]))

    def verdict(self, total: Interval) -> Verdict:
        measured = self.measured(total)
        return Verdict(self, measured, measured is not None and measured <= self.at_most)

    def shown(self, value: float | None) -> str:
        if value is None:
            return "nothing succeeded"
        return f"{value:.4g}" if self.measure == "error-rate" else f"{value:.4g} ms"


@dataclass(frozen=True, slots=True)
class Verdict:
    limit: Limit
    measured: float | None
    kept: bool

    def __str__(self) -> str:
        limit = self.limit
        word = "kept" if self.kept else "EXCEEDED"
        return f"{limit.measure} {limit.shown(self.measured)}, at most {limit.shown(limit.at_most)}: {word}"


def parse_slo(text: str) -> tuple[Limit, ...]:
    """Raises ValueError."""
    return tuple(_parse_limit(part) for part in text.split(","))


def _parse_limit(text: str) -> Limit:
    measure, _, value = text.strip().partition("=")
    if measure == "error-rate":
        share = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        if not 0 <= share <= 1:
            raise ValueError(text)
        return Limit(measure, share)
    measure = measure.replace("_", ".")
    if not re.fullmatch(r"mean|max|p[0-9]{1,2}(\.[0-9]+)?", measure):
        raise ValueError(text)
    return Limit(measure, _milliseconds(value))


def _milliseconds(text: str) -> float:
    """Finer than Duration: `250us` and `0.5ms` are limits too."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(us|µs|ms)", text.strip().lower())
    if match:
        return float(match[1]) / (1 if match[2] == "ms" else 1000)
    return float(parse_duration(text))


SLO = Kind("LIMITS", _ALLOWED, parse_slo)
