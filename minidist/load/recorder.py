"""What happened, interval by interval: counts, errors by kind, latency histograms.

The recorder is on the hot path, so an answered request costs it one `list.append`: latencies gather in a list and go
to the HDR histogram in handfuls small enough (150 µs) not to disturb what is being measured. At the end of an interval
the figures become an `Interval`, its histogram in HdrHistogram's V2 encoding. Intervals add up without loss, which is
all that the rest needs: the intervals of several processes make one, those of a phase give that phase's percentiles,
and all of them together are the report.

Latencies are those of requests that succeeded; the others are counted by kind. A quick error must not flatter p50.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hdrh.histogram import HdrHistogram

#: Three significant digits from one microsecond to ten minutes, beyond which a latency counts as ten minutes.
LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS = 1, 600_000_000, 3
#: Latencies held back before they go to the histogram: 256 × 0.6 µs.
HANDFUL = 256


def new_histogram() -> Any:
    return HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS, b64_wrap=False)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A stretch of a run: [start_s, end_s) since its start.

    `ok` and `errors` count what ended in it, `offered` what was to start in it, `hits` and `misses` the answered reads
    of a store that found their key or did not. `latency` is an encoded HDR histogram in microseconds (empty when
    nothing succeeded).
    """

    start_s: float
    end_s: float
    offered: int = 0
    ok: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    latency: bytes = b""
    latency_sum_s: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    hits: int = 0
    misses: int = 0
    lag_s: float = 0.0

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    @property
    def hit_ratio(self) -> float | None:
        """Of the reads that were answered; None when nothing is known of any."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else None

    @cached_property
    def histogram(self) -> Any:
        """The latencies in microseconds, as an HdrHistogram."""
        histogram = new_histogram()
        if self.latency:
            histogram.decode_and_add(self.latency)
        return histogram

    def percentiles_ms(self, *percentiles: float) -> list[float | None]:
        """Latencies below which so many percent of the successful requests stayed; None when there was none."""
        if not self.ok:
            return [None] * len(percentiles)
        values_us = self.histogram.get_percentile_to_value_dict(list(percentiles))
        return [min(values_us[each], self.histogram.get_max_value()) / 1000 for each in percentiles]

    def percentile_ms(self, percentile: float) -> float | None:
        return self.percentiles_ms(percentile)[0]

    @property
    def min_ms(self) -> float | None:
        return self.histogram.get_min_value() / 1000 if self.ok else None

    @property
    def mean_ms(self) -> float | None:
        return self.latency_sum_s * 1000 / self.ok if self.ok else None

    @property
    def max_ms(self) -> float | None:
        return self.histogram.get_max_value() / 1000 if self.ok else None


def merged(intervals: Iterable[Interval]) -> Interval:
    """One interval that spans all of the given ones and counts what they count. At least one must be given."""
    parts = list(intervals)
    if len(parts) == 1:
        return parts[0]
    errors: dict[str, int] = {}
    histogram = new_histogram()
    for part in parts:
        for kind, count in part.errors.items():
            errors[kind] = errors.get(kind, 0) + count
        if part.latency:
            histogram.decode_and_add(part.latency)
    return Interval(
        start_s=min(part.start_s for part in parts),
        end_s=max(part.end_s for part in parts),
        offered=sum(part.offered for part in parts),
        ok=sum(part.ok for part in parts),
        errors=errors,
        latency=histogram.encode() if histogram.total_count else b"",
        latency_sum_s=sum(part.latency_sum_s for part in parts),
        bytes_in=sum(part.bytes_in for part in parts),
        bytes_out=sum(part.bytes_out for part in parts),
        hits=sum(part.hits for part in parts),
        misses=sum(part.misses for part in parts),
        lag_s=max(part.lag_s for part in parts),
    )


class Recorder:
    """Takes figures from dispatcher and channels. They write the public attributes directly; see the theory above."""

    __slots__ = (
        "_errors", "_histogram", "_ok", "_start_s", "_sum_s", "bytes_in", "bytes_out", "hits", "lag_s", "last_ok_s",
        "latencies", "misses", "offered",
    )  # fmt: skip

    def __init__(self) -> None:
        #: Seconds from intended start to answer; append, then call `settle` once per wake-up.
        self.latencies: list[float] = []
        #: When the last successful answer came, on the caller's clock.
        self.last_ok_s = 0.0
        self._start_s = 0.0
        self._clear()

    def _clear(self) -> None:
        self.offered = self.bytes_in = self.bytes_out = self.hits = self.misses = self._ok = 0
        self.lag_s = self._sum_s = 0.0
        self._errors: dict[str, int] = {}
        self._histogram = new_histogram()

    def failed(self, kind: str, count: int = 1) -> None:
        if count:
            self._errors[kind] = self._errors.get(kind, 0) + count

    def settle(self, now_s: float) -> None:
        """Called after a batch of `latencies.append`."""
        self.last_ok_s = now_s
        if len(self.latencies) >= HANDFUL:
            self._flush()

    def _flush(self) -> None:
        record = self._histogram.record_value
        for latency_s in self.latencies:
            record(min(max(int(latency_s * 1e6), LOWEST_US), HIGHEST_US))
        self._ok += len(self.latencies)
        self._sum_s += sum(self.latencies)
        self.latencies.clear()

    def close(self, end_s: float) -> Interval:
        """The interval that ends at `end_s`; the next one begins there."""
        self._flush()
        interval = Interval(
            start_s=self._start_s,
            end_s=end_s,
            offered=self.offered,
            ok=self._ok,
            errors=self._errors,
            latency=self._histogram.encode() if self._ok else b"",
            latency_sum_s=self._sum_s,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            hits=self.hits,
            misses=self.misses,
            lag_s=self.lag_s,
        )
        self._start_s = end_s
        self._clear()
        return interval
