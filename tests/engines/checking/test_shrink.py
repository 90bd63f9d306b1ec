"""Evidence: a violation by itself, small, and never made of what was taken out."""

import pytest
from checking import Shape, falsified, history

from minidist.engines.checking import Budget, Judgement, check
from minidist.engines.checking.history import read
from minidist.engines.checking.models import Kind, Values, counter_steps, register_steps
from minidist.engines.checking.search import search
from minidist.engines.checking.shrink import Rest, shrink, smallest, smallest_of_counter
from minidist.engines.checking.verdict import GaveUpError


def stuck_on(steps, initial=(0,)):
    return search(steps, Budget(), initial) is not None


def smallest_of(steps):
    if any(step.kind is Kind.ADD for step in steps):
        return smallest_of_counter(steps, stuck_on)
    return smallest(steps, search(steps, Budget(), trail=True), stuck_on)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("model", ["register", "cas-register", "counter"])
def test_what_is_left_of_a_long_history_is_small_and_a_violation(model, seed):
    shape = Shape(model, 400, clients=5, values=4, info=0.02)
    right = read(history(shape, seed))
    tries = (falsified(right, seed + more) for more in range(10))
    compiled = (counter_steps(wrong) if model == "counter" else register_steps(wrong, Values()) for wrong in tries)
    steps = next(each for each in compiled if stuck_on(each))  # not every wrong answer does harm
    rest = smallest_of(steps)
    assert stuck_on(rest.steps, rest.initial)
    assert len(rest.steps) <= 40
    assert rest.is_smallest


def test_a_rest_is_minimal(transcript):
    events = ["0 write 5", "0 ok", "0 write 6", "0 ok", "0 read", "0 ok 6", "0 write 1", "0 ok", "0 write 2", "0 ok"]
    events += ["1 read", "1 ok 1", "0 write 3", "0 ok", "0 read", "0 ok 3"]
    rest = smallest_of(register_steps(transcript(*events), Values()))
    assert [(each.operation.f, each.operation.argument) for each in rest.steps] == [
        ("write", 1), ("write", 2), ("read", None),
    ]  # fmt: skip


def test_the_writer_of_a_value_that_is_looked_at_stays(transcript):
    """Without the write of 2 the read of 2 would be absurd, and prove nothing."""
    events = ["0 write 2", "0 ok", "1 read", "1 ok 2", "0 write 1", "0 ok", "1 read", "1 ok 2"]
    steps = register_steps(transcript(*events), Values())
    rest = smallest_of(steps)
    written = {each.makes for each in rest.steps if each.operation.f == "write"}
    assert {each.sees for each in rest.steps if each.operation.f == "read"} <= written


def test_additions_before_all_reads_are_summed_up(transcript):
    events = [event for _ in range(50) for event in ("0 add 2", "0 ok")]
    events += ["0 add 2", "1 read", "1 ok 101", "0 ok"]
    (violation,) = check(transcript(*events), "counter").violations
    assert violation.before == "Whatever the order of the 50 operations before these, the key then held 100"
    assert len(violation.evidence) == 2


def test_when_time_is_up_the_smallest_so_far_is_given(transcript):
    events = [event for value in range(40) for event in (f"0 write {value % 2}", "0 ok")]
    steps = register_steps(transcript(*events, "1 read", "1 ok 0"), Values())
    asked = iter(range(1000))

    def violates(some, initial):
        if next(asked) > 4:
            raise GaveUpError("time is up")
        return stuck_on(some, initial)

    rest = shrink(Rest(steps, is_smallest=False), violates)
    assert stuck_on(rest.steps, rest.initial)
    assert len(rest.steps) < len(steps)
    assert not rest.is_smallest


def test_a_hard_history_with_many_in_doubt_is_judged():
    """2,000 operations of ten clients that always overlap, few values, thirty operations in doubt."""
    shape = Shape("cas-register", 2_000, values=5, info=0.015)
    operations = read(history(shape, 1))
    assert sum(each.outcome.value == "info" for each in operations) >= 25
    assert check(operations, "cas-register").judgement is Judgement.HOLDS
    (violation,) = check(falsified(operations, 1), "cas-register").violations
    assert len(violation.evidence) <= 12
