"""Picking: shares follow weights, loads follow capacity, and every pick can be explained beforehand."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.balancing import POLICIES, LeastConnections, RoundRobin, Upstream, UpstreamSet, UpstreamState


def snapshot(*entries: dict[str, Any], panic: bool = False) -> dict[str, Any]:
    return {"panic": panic, "upstreams": list(entries)}


def entry(name: str, state: str = "up", weight: int = 1, why: str = "", suspect: bool = False) -> dict[str, Any]:
    return {"name": name, "weight": weight, "state": state, "why": why, "suspect": suspect}


def upstream_set(policy: str, *entries: dict[str, Any], seed: int = 1) -> UpstreamSet[Upstream]:
    upstreams: UpstreamSet[Upstream] = UpstreamSet(POLICIES[policy](random.Random(seed)), Upstream)
    upstreams.apply(snapshot(*entries))
    return upstreams


def names(upstreams: UpstreamSet[Upstream], count: int) -> str:
    picked = []
    for _ in range(count):
        upstream = upstreams.pick()
        assert upstream is not None
        picked.append(upstream.name)
    return "".join(picked)


def test_round_robin_takes_turns() -> None:
    assert names(upstream_set("round-robin", entry("a"), entry("b"), entry("c")), 7) == "abcabca"


def test_smooth_weights_are_spread_out() -> None:
    """The example of nginx' commit: weights 5, 1, 1 give a a b a c a a, not five a in a row."""
    assert names(upstream_set("round-robin", entry("a", weight=5), entry("b"), entry("c")), 14) == "aabacaa" * 2


@settings(max_examples=100)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_shares_are_exact_over_a_round(weights: list[int]) -> None:
    upstreams = upstream_set("round-robin", *(entry(str(i), weight=weight) for i, weight in enumerate(weights)))
    counts = Counter(names(upstreams, sum(weights)))
    if len(weights) > 1:
        assert [counts[str(i)] for i in range(len(weights))] == weights


def test_least_connections_counts_the_request_to_come() -> None:
    upstreams = upstream_set("least-connections", entry("a", weight=3), entry("b"))
    picked = []
    for _ in range(8):
        upstream = upstreams.pick()
        assert upstream is not None
        upstream.active += 1
        picked.append(upstream.name)
    assert Counter(picked) == {"a": 6, "b": 2}


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10)), min_size=1, max_size=8), st.integers())
def test_least_connections_never_picks_a_busier_one(loads: list[tuple[int, int]], seed: int) -> None:
    upstreams = upstream_set(
        "least-connections", *(entry(str(i), weight=weight) for i, (_, weight) in enumerate(loads)), seed=seed
    )
    for (active, _), upstream in zip(loads, upstreams.members.values(), strict=True):
        upstream.active = active
    picked = upstreams.pick()
    assert picked is not None
    assert (picked.active + 1) / picked.weight == min((active + 1) / weight for active, weight in loads)


def test_ties_are_broken_at_random_and_by_the_seed() -> None:
    entries = [entry(name) for name in "abcd"]
    first, again, other = (names(upstream_set("least-connections", *entries, seed=seed), 40) for seed in (1, 1, 2))
    assert first == again != other
    assert set(first) == set("abcd")


def test_only_usable_upstreams_are_picked() -> None:
    upstreams = upstream_set(
        "round-robin",
        entry("a", "down"),
        entry("b", "ejected"),
        entry("c", "draining"),
        entry("d", "unknown"),
        entry("e"),
    )
    assert names(upstreams, 4) == "dede"
    upstreams.apply(snapshot(entry("a", "down")))
    assert upstreams.pick() is None
    assert upstreams.pick_again([]) is None


def test_panic_ignores_health_but_not_draining() -> None:
    upstreams = upstream_set("round-robin")
    upstreams.apply(snapshot(entry("a", "down"), entry("b", "draining"), entry("c", "ejected"), panic=True))
    assert names(upstreams, 4) == "acac"
    assert upstreams.explain()["panic"]


def test_a_retry_goes_elsewhere_while_there_is_an_elsewhere() -> None:
    upstreams = upstream_set("round-robin", entry("a"), entry("b"))
    a, b = upstreams.members.values()
    assert upstreams.pick_again([a]) is b
    assert upstreams.pick_again([b]) is a
    assert upstreams.pick_again([a, b]) in (a, b)


def test_a_snapshot_keeps_counts_and_tells_who_is_gone() -> None:
    upstreams = upstream_set("round-robin", entry("a"), entry("b"))
    a = upstreams.members["a"]
    a.active, a.requests = 3, 9
    gone = upstreams.apply(snapshot(entry("c"), entry("a", "down", weight=4, why="check failed", suspect=True)))
    assert [each.name for each in gone] == ["b"]
    assert upstreams.members["a"] is a
    assert (a.active, a.requests, a.weight, a.state, a.suspect) == (3, 9, 4, UpstreamState.DOWN, True)


def test_the_explanation_names_the_next_pick_and_the_reasons() -> None:
    upstreams = upstream_set("round-robin", entry("a", weight=2), entry("b"), entry("x", "down", why="check 500"))
    for _ in range(9):
        said = upstreams.explain()
        picked = upstreams.pick()
        assert picked is not None
        assert said["next"][0] == picked.name
    assert said["policy"] == "round-robin"
    assert [each["usable"] for each in said["candidates"]] == [True, True, False]
    assert said["candidates"][2] == {
        "upstream": "x", "state": "down", "usable": False, "weight": 1, "score": None, "active": 0, "why": "check 500",
    }  # fmt: skip


def test_a_policy_forgets_upstreams_that_are_gone() -> None:
    policy = RoundRobin(random.Random(1))
    for number in range(1000):
        policy.pick([Upstream(str(number)), Upstream("stays")])
    assert len(policy._credit) < 10


def test_response_times_are_averaged() -> None:
    upstream = Upstream("a")
    upstream.answered(10.0)
    assert upstream.ewma_ms == 10.0
    for _ in range(100):
        upstream.answered(20.0)
    assert upstream.figures()["ewma_ms"] == pytest.approx(20.0, abs=0.01)


def test_policies_by_name() -> None:
    assert {"round-robin": RoundRobin, "least-connections": LeastConnections} == POLICIES
