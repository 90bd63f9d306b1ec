"""How large the values are that a load writes: one size, a range, a weighted mix, or log-normal, by `--value-size`.

    1kb                      always the same
    64-4kb                   any size of the range, each as often as any other
    64:90,1k:9,100k:1        a mix: 90 of 100 values have 64 bytes, 9 have 1,000 …
    lognormal:1kb:1.5        half of them below the median of 1 kB; sigma, of the logarithms, says how far they spread

A log-normal size is cut at `CUT_SIGMAS` above the median: one value in 31,000 would be larger.
"""

from __future__ import annotations

import bisect
import itertools
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log

from minidist.runtime.config import Kind, Size, parse_size

LARGEST = Size(512 * 1024**2)
LARGEST_SIGMA = 3.0
CUT_SIGMAS = 4.0

Draw = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Sizes:
    """A distribution of sizes in bytes. `fixed` is set when there is only one; none is above `largest`."""

    largest: int
    fixed: int | None
    draw: Callable[[random.Random], Draw]
    """What draws the sizes, from this source of randomness."""


def parse_sizes(text: str) -> Sizes:
    """Raises ValueError for what is none of the forms, and for sizes above 512 MB."""
    if text.startswith("lognormal:"):
        return _lognormal(*text.removeprefix("lognormal:").split(":"))
    if ":" in text:
        return _mix([part.strip().split(":") for part in text.split(",")])
    if "-" in text:
        return _range(*map(_size, text.split("-")))
    return _fixed(_size(text))


def _size(text: str) -> int:
    size = parse_size(text.strip())
    if size > LARGEST:
        raise ValueError(text)
    return size


def _fixed(size: int) -> Sizes:
    return Sizes(size, size, lambda rng: lambda: size)


def _range(*ends: int) -> Sizes:
    smallest, largest = ends
    if smallest > largest:
        raise ValueError(ends)
    if smallest == largest:
        return _fixed(largest)
    count = largest - smallest + 1
    return Sizes(largest, None, lambda rng: lambda: smallest + int(rng.random() * count))


def _mix(parts: list[list[str]]) -> Sizes:
    sizes, weights = [], []
    for size, weight in parts:
        if not re.fullmatch(r"[0-9]{1,9}", weight, re.ASCII) or not int(weight):
            raise ValueError(weight)
        sizes.append(_size(size))
        weights.append(int(weight))
    if len(sizes) == 1:
        return _fixed(sizes[0])
    sums = list(itertools.accumulate(weights))
    return Sizes(max(sizes), None, lambda rng: lambda: sizes[bisect.bisect(sums, rng.random() * sums[-1])])


def _lognormal(*words: str) -> Sizes:
    median_text, sigma_text = words
    median, sigma = _size(median_text), float(sigma_text)
    if not median or not 0 < sigma <= LARGEST_SIGMA:
        raise ValueError(words)
    largest = min(int(median * exp(CUT_SIGMAS * sigma)), LARGEST)
    centre = log(median)
    return Sizes(largest, None, lambda rng: lambda: min(int(rng.lognormvariate(centre, sigma)), largest))


def _checked(text: str) -> str:
    """The option's value stays text, since it travels to other processes."""
    parse_sizes(text)
    return text


SIZES = Kind(
    "SIZES",
    "a size such as 64 or 1kb, a range 64-4kb, weights 64:90,1k:9,100k:1, or lognormal:MEDIAN:SIGMA; at most 512mb",
    _checked,
)
