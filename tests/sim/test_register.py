"""The replicated register under simulation: right as it is, each planted bug found. More in docs/simulation.md."""

from pathlib import Path

import pytest

from minidist.sim.run import Ending, Settings, run_seed
from minidist.sim.scenario import load

FILE = str(Path(__file__).with_name("register") / "scenario.py")
POWER_CUTS = [
    fault
    for at_s in range(2, 24, 3)
    for fault in (
        {"kind": "disk", "what": "slow", "ms": 200, "on": "register", "at": f"{at_s}s", "duration": "2500ms"},
        {"kind": "kill", "power": True, "on": "register", "at": f"{at_s + 1}s", "duration": "300ms"},
    )
]
FAULTS = {"register-ack-before-fsync": POWER_CUTS}


@pytest.fixture(scope="module")
def scenario():
    return load(FILE).scenario


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_register_is_linearizable_whatever_breaks(scenario, seed):
    outcome = run_seed(scenario, seed, Settings(faults="random", duration_s=30.0))
    assert (outcome.ending, outcome.problems) == (Ending.OK, [])
    assert outcome.shortfalls() == []


def test_it_survives_power_cuts_of_all_nodes(scenario):
    outcome = run_seed(scenario, 1, Settings(faults=POWER_CUTS, duration_s=26.0))
    assert (outcome.ending, outcome.problems) == (Ending.OK, [])
    assert outcome.faults == {"disk": 8, "kill": 8}


@pytest.mark.parametrize(
    ("bug", "words"),
    [
        ("register-stale-read", ("stale read",)),
        ("register-lost-write", ("stale read", "lost addition", "read")),
        ("register-duplicate-apply", ("twice", "stale read")),
        ("register-ack-before-fsync", ("stale read", "lost addition", "read")),
    ],
)
def test_a_planted_bug_is_found(scenario, bug, words):
    for seed in range(1, 21):
        settings = Settings(faults=FAULTS.get(bug, "random"), duration_s=26.0, bug=bug)
        outcome = run_seed(scenario, seed, settings)
        if outcome.ending is Ending.FAILED:
            assert any(word in outcome.problems[0] for word in words)
            return
    pytest.fail(f"{bug} was not found in {seed} seeds")
