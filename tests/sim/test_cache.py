"""The cache under simulation: right as it is, each planted bug found. The thousands of seeds are in campaigns.py."""

from pathlib import Path

import pytest

from minidist.sim.run import Ending, Settings, run_seed
from minidist.sim.scenario import load

WORKLOADS = {"strings": [1, 2, 3], "blocking": [1, 2, 3], "eviction": [1, 2, 3, 4], "types": [1, 2]}
BUGS = {
    "cache-expired-read": ("strings", "had expired", "expired and still read", "two holders"),
    "cache-reads-an-old-clock": (
        "strings",
        "expired and still read",
        "lost before its time",
        "had expired",
        "two holders",
    ),
    "cache-exec-ignores-expiry": ("strings", "had expired"),
    "cache-exec-ignores-watch": ("strings", "had expired", "two holders", "half of a transfer", "read"),
    "cache-half-a-transaction": ("strings", "half of a transfer"),
    "cache-feeds-the-dead": ("blocking", "is gone, and nobody"),
    "cache-serves-last-first": ("blocking", "served first"),
    "cache-skips-a-message": ("blocking", "left out"),
    "cache-evicts-what-must-stay": ("eviction", "not as it was left"),
    "cache-passes-its-limit": ("eviction", "bytes were in use"),
    "cache-keeps-a-removed-field": ("types", "instead of"),
}


@pytest.fixture(scope="module")
def scenarios():
    directory = Path(__file__).with_name("cache")
    return {name: load(str(directory / f"cache_{name}.py")).scenario for name in WORKLOADS}


@pytest.mark.parametrize(("workload", "seed"), [(name, seed) for name, seeds in WORKLOADS.items() for seed in seeds])
def test_the_cache_keeps_its_promises_whatever_breaks(scenarios, workload, seed):
    outcome = run_seed(scenarios[workload], seed, Settings(faults="random", duration_s=30.0))
    assert (outcome.ending, outcome.problems) == (Ending.OK, [])
    assert outcome.shortfalls() == []


def test_the_same_seed_is_the_same_run(scenarios):
    for scenario in scenarios.values():
        first, second = (run_seed(scenario, 1, Settings(faults="random", duration_s=10.0)) for _ in range(2))
        assert first.digest == second.digest


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(scenarios, bug):
    workload, *words = BUGS[bug]
    for seed in range(1, 21):
        outcome = run_seed(scenarios[workload], seed, Settings(faults="random", duration_s=26.0, bug=bug))
        if outcome.ending is Ending.FAILED:
            assert any(word in outcome.problems[0] for word in words), outcome.problems[0]
            return
    pytest.fail(f"{bug} was not found in 20 seeds")
