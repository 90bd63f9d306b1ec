"""Figures: plain integers in the objects that own them, turned into Prometheus text when somebody asks.

Nothing is registered and nothing is locked: a node's `families()` is called at scrape time and reads its counters.
The exposition format is Prometheus' text format 0.0.4.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

# Upper bounds in seconds; from a RESP command (tens of µs) to a request that gave up.
LATENCY_BOUNDS_S = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip

Labels = dict[str, str]


@dataclass(slots=True)
class Family:
    """One metric with its samples: (labels, value) pairs; for a histogram (labels, Histogram) pairs."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    summary: str
    samples: "Sequence[tuple[Labels, float | Histogram]]"


def counter(name: str, summary: str, value: float, **labels: str) -> Family:
    return Family(name, "counter", summary, [(labels, value)])


def gauge(name: str, summary: str, value: float, **labels: str) -> Family:
    return Family(name, "gauge", summary, [(labels, value)])


@dataclass(slots=True)
class Histogram:
    """Counts of observations by upper bound (the last count is of those above every bound), and their sum."""

    bounds: Sequence[float] = LATENCY_BOUNDS_S
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        if not self.counts:
            self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_many(self, value: float, count: int) -> None:
        """`count` observations of the same value, as of the commands of one wake-up."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """The value that `share` of the observations do not pass, interpolated within its bucket; 0.0 without any."""
        target = share * self.count
        seen = 0
        for index, count in enumerate(self.counts):
            if count and seen + count >= target:
                low = self.bounds[index - 1] if index else 0.0
                high = self.bounds[min(index, len(self.bounds) - 1)]
                return low + (high - low) * (target - seen) / count
            seen += count
        return 0.0

    def clear(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0


def exposition(families: Iterable[Family], prefix: str = "minidist_") -> str:
    """The Prometheus text of some families."""
    lines = []
    for family in families:
        name = prefix + family.name
        lines.append(f"# HELP {name} {_escape(family.summary)}")
        lines.append(f"# TYPE {name} {family.kind}")
        for labels, value in family.samples:
            if isinstance(value, Histogram):
                lines += _histogram_lines(name, labels, value)
            else:
                lines.append(f"{name}{_braces(labels)} {_number(value)}")
    return "\n".join(lines) + "\n"


def _histogram_lines(name: str, labels: Labels, histogram: Histogram) -> list[str]:
    lines, seen = [], 0
    for bound, count in zip([*histogram.bounds, None], histogram.counts, strict=True):
        seen += count
        upper = "+Inf" if bound is None else f"{bound:g}"
        lines.append(f"{name}_bucket{_braces(labels | {'le': upper})} {seen}")
    lines.append(f"{name}_sum{_braces(labels)} {_number(histogram.total)}")
    lines.append(f"{name}_count{_braces(labels)} {seen}")
    return lines


def _braces(labels: Labels) -> str:
    inner = ",".join(f'{key}="{_escape(value, quote=True)}"' for key, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def _escape(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def _number(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))


# --- Figures of several processes as one ----------------------------------------------------------------------------


def pack_family(family: Family) -> list[Any]:
    samples = [
        [labels, [list(value.bounds), value.counts, value.total] if isinstance(value, Histogram) else value]
        for labels, value in family.samples
    ]
    return [family.name, family.kind, family.summary, samples]


def unpack_family(packed: list[Any]) -> Family:
    name, kind, summary, samples = packed
    return Family(
        name, kind, summary,
        [(labels, Histogram(*value) if isinstance(value, list) else value) for labels, value in samples],
    )  # fmt: skip


def merge_family(merged: dict[str, Family], family: Family) -> None:
    """Add a family's samples to those of the same name: equal labels are summed (`info` stays 1)."""
    known = merged.setdefault(family.name, Family(family.name, family.kind, family.summary, []))
    sums = {tuple(sorted(labels.items())): (labels, value) for labels, value in known.samples}
    for labels, value in family.samples:
        key = tuple(sorted(labels.items()))
        if key not in sums:
            sums[key] = (labels, value)
        elif family.name != "info":
            sums[key] = (labels, _sum(sums[key][1], value))
    known.samples = list(sums.values())


def _sum(first: "float | Histogram", second: "float | Histogram") -> "float | Histogram":
    if isinstance(first, Histogram) and isinstance(second, Histogram):
        counts = [a + b for a, b in zip(first.counts, second.counts, strict=True)]
        return Histogram(first.bounds, counts, first.total + second.total)
    assert not isinstance(first, Histogram)
    assert not isinstance(second, Histogram)
    return first + second


def merge_figures(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Running figures of the whole: sums, but the worst of what is a time (names that end in _ms)."""
    merged: dict[str, Any] = {}
    for each in figures:
        for name, value in each.items():
            if isinstance(value, int | float):
                before = merged.get(name, 0)
                merged[name] = max(before, value) if name.endswith("_ms") else before + value
    return merged
