"""Key patterns: what is drawn how often. All draws are of fixed seeds, so that a bound either holds or does not."""

import random
from itertools import islice

import pytest

from minidist.structures.patterns import hot, scan, uniform, zipf

DRAWS = 100_000


def counted(draw, keys, draws=DRAWS):
    counts = [0] * keys
    for _ in range(draws):
        counts[draw()] += 1
    return counts


def chi_square(counts, weights):
    """The statistic and its degrees of freedom; keys that are expected less than ten times are taken together."""
    total, drawn = sum(weights), sum(counts)
    statistic, groups = 0.0, 0
    expected = observed = 0.0
    for count, weight in zip(counts, weights, strict=True):
        expected += drawn * weight / total
        observed += count
        if expected >= 10:
            statistic += (observed - expected) ** 2 / expected
            groups += 1
            expected = observed = 0.0
    return statistic, max(1, groups - 1)


def fits(counts, weights):
    """Within four standard deviations of what chance would do."""
    statistic, freedom = chi_square(counts, weights)
    return abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("exponent", [0, 0.5, 0.99, 1, 1 + 1e-12, 1.2, 2, 5])
@pytest.mark.parametrize("keys", [2, 10, 1000])
def test_zipf_has_the_weights_of_its_law(exponent, keys):
    counts = counted(zipf(random.Random(11), keys, exponent), keys)
    assert fits(counts, [rank**-exponent for rank in range(1, keys + 1)])


def test_the_bound_would_see_another_exponent():
    counts = counted(zipf(random.Random(11), 1000, 1.05), 1000)
    assert not fits(counts, [rank**-1.0 for rank in range(1, 1001)])


@pytest.mark.parametrize("exponent", [0, 0.99, 1, 1.5, 10])
def test_zipf_stays_within_the_keys_however_many_there_are(exponent):
    draw = zipf(random.Random(1), 10**12, exponent)
    assert all(0 <= draw() < 10**12 for _ in range(1000))
    assert {zipf(random.Random(1), 1, exponent)() for _ in range(10)} == {0}


class Corner(random.Random):
    """Always the same number."""

    def __init__(self, value):
        super().__init__(1)
        self.value = value

    def random(self):
        return self.value


@pytest.mark.parametrize("exponent", [0, 0.5, 1, 3, 10])
@pytest.mark.parametrize("keys", [1, 2, 7, 10**9])
def test_the_ends_of_the_law_are_its_first_and_last_key(exponent, keys):
    assert zipf(Corner(0.0), keys, exponent)() >= 0
    assert zipf(Corner(1 - 2**-53), keys, exponent)() == 0


def test_the_same_seed_draws_the_same():
    first, second = (zipf(random.Random(5), 1000, 0.99) for _ in range(2))
    assert [first() for _ in range(100)] == [second() for _ in range(100)]


def test_uniform_draws_all_alike():
    assert fits(counted(uniform(random.Random(2), 100), 100), [1] * 100)


def test_hot_keys_get_their_share_evenly():
    counts = counted(hot(random.Random(3), 100, 4, 0.9), 100)
    assert fits(counts, [0.9 / 4] * 4 + [0.1 / 96] * 96)


@pytest.mark.parametrize(("share", "drawn"), [(1.0, {0, 1}), (0.0, set(range(2, 6)))])
def test_hot_keys_may_get_all_or_nothing(share, drawn):
    draw = hot(random.Random(4), 6, 2, share)
    assert {draw() for _ in range(1000)} == drawn


def test_when_all_keys_are_hot_all_are_alike():
    assert fits(counted(hot(random.Random(6), 10, 10, 0.5), 10), [1] * 10)


def test_a_scan_goes_round():
    assert list(islice(iter(scan(3), None), 7)) == [0, 1, 2, 0, 1, 2, 0]
    assert list(islice(iter(scan(3, first=2), None), 4)) == [2, 0, 1, 2]
