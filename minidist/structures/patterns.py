"""Which key comes next: the patterns in which programs ask for their keys, as functions that draw one number each time.

    draw = zipf(random.Random(1), keys=1000, exponent=0.99)
    draw()                                  # a key's number, from 0 to 999; 0 is asked for most

Uniform, Zipf and hot keys are independent draws; a scan takes the keys in their order, again and again. They make the
traces of benchmarks and the load generator's traffic.

Zipf's law gives the key of rank k the weight k^-exponent. A table of cumulated weights takes memory and time for every
key before the first draw. Rejection-inversion needs neither: it inverts the integral of x^-exponent, which is a close
cover of the weights, rounds to the nearest rank, and rejects what the cover had too much. The distribution is exact.
Less than one draw in ten is rejected, most are accepted by one comparison.

Source: W. Hörmann, G. Derflinger: Rejection-inversion to generate variates from monotone discrete distributions. ACM
Transactions on Modeling and Computer Simulation 6(3), 1996.
"""

import random
from collections.abc import Callable
from math import exp, expm1, log, log1p

Draw = Callable[[], int]

# Nearer to 1 than this an exponent makes no difference that any number of draws would show.
NEARLY = 1e-9


def uniform(rng: random.Random, keys: int) -> Draw:
    """Each of the keys as often as any other."""
    chance = rng.random
    return lambda: int(chance() * keys)


def hot(rng: random.Random, keys: int, hot_keys: int, share: float) -> Draw:
    """The first `hot_keys` keys get this share (0 … 1) of all draws, evenly; the others get the rest, evenly."""
    chance, cold_keys = rng.random, keys - hot_keys
    if cold_keys <= 0:
        return uniform(rng, keys)
    per_hot = share / hot_keys
    per_cold = (1 - share) / cold_keys

    def draw() -> int:
        at = chance()
        if at < share:
            return min(int(at / per_hot), hot_keys - 1)
        return hot_keys + min(int((at - share) / per_cold), cold_keys - 1)

    return draw


def scan(keys: int, first: int = 0) -> Draw:
    """All keys in order, again and again, from key number `first` on."""
    at = first - 1

    def draw() -> int:
        nonlocal at
        at += 1
        if at >= keys:
            at = 0
        return at

    return draw


def zipf(rng: random.Random, keys: int, exponent: float) -> Draw:
    """Key number k - 1 as often as k^-exponent says (exponent ≥ 0); about a microsecond a draw, whatever `keys` is."""
    integral, inverse = _integral(exponent)
    chance = rng.random
    # Ranks 1 … keys cover the areas that begin half a step before them; of rank 1 just its own weight, 1.
    lowest, highest = integral(1.5) - 1, integral(keys + 0.5)
    span = highest - lowest
    # A rank that the inversion leaves by at most this much is never rejected (the paper's s).
    sure = 2 - inverse(integral(2.5) - 2**-exponent)

    def draw() -> int:
        while True:
            area = highest - chance() * span
            x = inverse(area)
            rank = int(x + 0.5)
            rank = 1 if rank < 1 else keys if rank > keys else rank
            if rank - x <= sure or area >= integral(rank + 0.5) - rank**-exponent:
                return rank - 1

    return draw


def _integral(exponent: float) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """The integral of x^-exponent from 1 on, and its inverse."""
    power = 1 - exponent
    if abs(power) < NEARLY:
        return log, exp

    def integral(x: float) -> float:
        return expm1(power * log(x)) / power

    def inverse(area: float) -> float:
        # Rounding may put the area of a steep law's end a little beyond its limit.
        return exp(log1p(max(area * power, -1 + 1e-16)) / power)

    return integral, inverse
