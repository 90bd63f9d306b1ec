"""`--value-size`: the forms it takes, and what they draw."""

import random
from statistics import median

import pytest

from minidist.load.sizes import parse_sizes


def drawn(text, count=2000):
    sizes = parse_sizes(text)
    draw = sizes.draw(random.Random(9))
    found = [draw() for _ in range(count)]
    assert max(found) <= sizes.largest
    return found


@pytest.mark.parametrize(
    ("text", "size"), [("64", 64), ("1kb", 1024), ("0", 0), ("8-8", 8), ("5:1", 5), ("512mb", 512 * 1024**2)]
)
def test_one_size(text, size):
    assert parse_sizes(text).fixed == parse_sizes(text).largest == size
    assert set(drawn(text, 10)) == {size}


def test_a_range_has_all_its_sizes():
    assert set(drawn("3-5")) == {3, 4, 5}


def test_a_mix_is_drawn_by_its_weights():
    found = drawn("64:90,1k:9,100k:1", 100_000)
    assert set(found) == {64, 1000, 100_000}
    assert found.count(64) == pytest.approx(90_000, rel=0.01)
    assert found.count(1000) == pytest.approx(9000, rel=0.05)
    assert found.count(100_000) == pytest.approx(1000, rel=0.15)


def test_lognormal_has_its_median_and_a_long_tail_that_ends():
    found = drawn("lognormal:1kb:1", 20_000)
    assert median(found) == pytest.approx(1024, rel=0.05)
    assert max(found) > 10_000
    assert parse_sizes("lognormal:1kb:1").largest == int(1024 * 2.718281828**4)
    assert parse_sizes("lognormal:100mb:3").largest == 512 * 1024**2


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "-1", "1-", "5-4", "1-2-3", "64:0", "64:x", "64:1,", "64:1,2", "600mb", "1-1gb", "lognormal:1kb",
        "lognormal:0:1", "lognormal:1kb:0", "lognormal:1kb:4", "lognormal:1kb:nan", "lognormal:1kb:1:1", "64:²",
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError):
        parse_sizes(text)
