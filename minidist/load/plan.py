"""What load to make: a `Plan`, checked as a whole, and the words in which its parts are written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from minidist.load.schedule import Schedule
from minidist.runtime.config import ConfigError, Kind

#: Up to one minute the series has a point per tenth of a second, up to an hour one per second, then one per ten.
_INTERVALS_MS = ((60_000, 100), (3_600_000, 1000), (math.inf, 10_000))
_RATE_UNITS = {"": 1, "k": 1000, "m": 1_000_000}


def parse_rate(text: str) -> float:
    """`500`, `2.5k`, `1m` → requests per second. Raises ValueError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([km]?)(?:/s)?", text.strip().lower())
    if not match or not float(match[1]):
        raise ValueError(text)
    return float(match[1]) * _RATE_UNITS[match[2]]


def parse_ramp(text: str) -> tuple[float, float]:
    """`100:2k` → (100.0, 2000.0); one end may be 0. Raises ValueError."""
    first, colon, last = text.partition(":")
    ends = tuple(0.0 if end.strip() == "0" else parse_rate(end) for end in (first, last))
    if not colon or not any(ends):
        raise ValueError(text)
    return ends[0], ends[1]


def parse_ratio(text: str) -> tuple[int, int]:
    """`9:1` → (9, 1). Raises ValueError."""
    reads, _, writes = text.partition(":")
    ratio = int(reads), int(writes)
    if min(ratio) < 0 or not any(ratio):
        raise ValueError(text)
    return ratio


RATE = Kind("N", "requests per second such as 500, 2.5k, 1m", parse_rate, lambda rate: f"{rate:g}")
RAMP = Kind(
    "A:B", "two rates such as 100:5k, of which one may be 0", parse_ramp, lambda ends: f"{ends[0]:g}:{ends[1]:g}"
)
RATIO = Kind("R:W", "two whole numbers such as 9:1", parse_ratio, lambda ratio: f"{ratio[0]}:{ratio[1]}")


class LoadError(Exception):
    """The load could not be made at all (nobody answers, no descriptors left). Ends the program with exit code 1."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run. With `rate` or `ramp` the loop is open, over `connections`; else it is closed, over `concurrency`.

    `options` are those of the URL's driver, by name (`{"method": "POST"}`); what is left out has its default.
    """

    url: str
    workload: str = ""
    rate: float | None = None
    ramp: tuple[float, float] | None = None
    connections: int | None = None
    concurrency: int | None = None
    duration_ms: int = 10_000
    timeout_ms: int = 5_000
    arrivals: str = "constant"
    processes: int = 1
    #: A waiting arrival costs 32 bytes; more of them than this say no more about the server.
    max_in_flight: int = 100_000
    seed: int = 1
    #: The file that says what each connection did and saw.
    history: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Rules between the parts. Raises ConfigError."""
        if self.rate is not None and self.ramp is not None:
            raise ConfigError("--ramp", RAMP.show(self.ramp), "either --rate or --ramp")
        if self.is_open and self.concurrency is not None:
            raise ConfigError("--concurrency", self.concurrency, "without --rate and --ramp, which make an open loop")
        if not self.is_open and self.connections is not None:
            raise ConfigError("--connections", self.connections, "with --rate or --ramp, else --concurrency")
        if not self.is_open and self.arrivals != "constant":
            raise ConfigError("--arrivals", self.arrivals, "with --rate or --ramp")
        if self.duration_ms < 1:
            raise ConfigError("--duration", self.duration_ms, "more than 0")
        if self.timeout_ms < 1:
            raise ConfigError("--timeout", self.timeout_ms, "more than 0")
        if self.history and self.processes > 1:
            raise ConfigError("--processes", self.processes, "1 with --history, which has one clock")
        if self.processes > self.channels:
            raise ConfigError("--processes", self.processes, f"at most one per connection, here {self.channels}")

    @property
    def is_open(self) -> bool:
        return self.rate is not None or self.ramp is not None

    @property
    def mode(self) -> str:
        return "ramp" if self.ramp else "open" if self.is_open else "closed"

    @property
    def channels(self) -> int:
        """Connections in all."""
        return (self.connections or 50) if self.is_open else (self.concurrency or 10)

    @property
    def window_s(self) -> float:
        return self.duration_ms / 1000

    @property
    def timeout_s(self) -> float:
        return self.timeout_ms / 1000

    @property
    def interval_s(self) -> float:
        return next(interval for longest, interval in _INTERVALS_MS if self.duration_ms <= longest) / 1000

    @property
    def schedule(self) -> Schedule:
        """Of an open loop."""
        first, last = self.ramp or (self.rate or 0.0, self.rate or 0.0)
        return Schedule(first, last, self.window_s)

    def channels_of(self, share: int) -> int:
        """Connections of process number `share`."""
        return self.channels // self.processes + (share < self.channels % self.processes)

    @property
    def target(self) -> SplitResult:
        """The URL in its parts. Raises ConfigError."""
        try:
            parts = urlsplit(self.url)
            bad = not parts.scheme or not parts.hostname or parts.port == 0
        except ValueError:
            bad = True
        if bad:
            raise ConfigError("URL", shown_url(self.url), "such as http://HOST:PORT/PATH or redis://HOST:PORT/0")
        return parts


def shown_url(url: str) -> str:
    """The URL without its password."""
    return re.sub(r"(?<=://)([^/@]*?):[^/@]*@", r"\1:***@", url)
