"""When requests are meant to start: arrivals as arithmetic, known before the first one is sent.

An open loop decides the start of every request in advance, whatever the server does; that is what makes its latencies
honest, for a request that could not be sent in time has been waiting since its *intended* start ("coordinated
omission", Gil Tene). So a schedule is a pure function: no clock, no state, the same answer in every process.

The rate runs linearly from `from_per_s` to `to_per_s`; a constant rate is a ramp between equal ends. The expected
number of arrivals until t is the integral of the rate, N(t) = a·t + (b − a)·t² / 2D, and the n-th arrival (from 0) is
where N(t) = n. The quadratic is solved in the form that loses no digits and needs no special case for a constant rate:
t = 2n / (a + √(a² + 4kn)), with k = (b − a) / 2D.

Poisson arrivals take the same inverse: a Poisson process of rate one, run through N⁻¹, has the wanted rate everywhere.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

#: Rounding may put an arrival that belongs exactly at the end of the window a hair before it.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Schedule:
    """Arrivals in [0, duration_s), at a rate that runs linearly from `from_per_s` to `to_per_s`."""

    from_per_s: float
    to_per_s: float
    duration_s: float

    def expected(self, time_s: float) -> float:
        """Arrivals until `time_s`, as a real number."""
        growth = (self.to_per_s - self.from_per_s) / (2 * self.duration_s)
        return self.from_per_s * time_s + growth * time_s * time_s

    def time_of(self, number: float) -> float:
        """The second at which `expected` reaches `number`, which must not be more than is expected in the window."""
        if number <= 0:
            return 0.0
        growth = (self.to_per_s - self.from_per_s) / (2 * self.duration_s)
        under_root = max(0.0, self.from_per_s * self.from_per_s + 4 * growth * number)
        return 2 * number / (self.from_per_s + math.sqrt(under_root))

    @property
    def count(self) -> int:
        """Arrivals in the whole window, evenly spaced."""
        total = self.expected(self.duration_s)
        return math.ceil(total - _ROUNDING * max(1.0, total))

    def times(self, share: int = 0, shares: int = 1) -> Iterator[float]:
        """The intended starts in seconds, ascending. Of `shares` processes, number `share` takes every `shares`-th."""
        if self.from_per_s == self.to_per_s:
            rate = self.from_per_s
            return (number / rate for number in range(share, self.count, shares))
        return (self.time_of(number) for number in range(share, self.count, shares))

    def poisson_times(self, rng: random.Random, shares: int = 1) -> Iterator[float]:
        """Independent arrivals at the same expected rate; each of `shares` processes draws its own, thinner stream."""
        total = self.expected(self.duration_s)
        number = rng.expovariate(1.0) * shares
        while number < total:
            yield self.time_of(number)
            number += rng.expovariate(1.0) * shares
