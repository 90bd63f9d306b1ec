"""What all tests share: how much Hypothesis tries, and a seeded generator that a failing test can be repeated with."""

import os
import random

import pytest
from hypothesis import HealthCheck, settings

# Deadlines measure the machine, not the code. Nothing is kept between runs: a failure prints how to repeat it.
settings.register_profile(
    "minidist",
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("minidist")


@pytest.fixture
def seed() -> int:
    """The seed of this test's random choices: printed when it fails, given again with MINIDIST_TEST_SEED."""
    number = int(os.environ.get("MINIDIST_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"repeat with MINIDIST_TEST_SEED={number}")
    return number


@pytest.fixture
def rng(seed: int) -> random.Random:
    """A generator seeded with `seed`."""
    return random.Random(seed)
