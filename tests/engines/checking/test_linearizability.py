"""Hand-made histories of registers, counters and sets: what must hold, what must not, and what is said about it."""

import pytest

from minidist.engines.checking import Budget, Judgement, UnsuitableError, check

HOLDS = [
    # --- Concurrent writes: either order, but one order for everybody.
    ("register", "0 write 1", "1 write 2", "0 ok", "1 ok", "2 read", "2 ok 1"),
    ("register", "0 write 1", "1 write 2", "0 ok", "1 ok", "2 read", "2 ok 2"),
    ("register", "0 write 1", "1 read", "1 ok null", "1 read", "1 ok 1", "0 ok"),
    ("register", "0 write 1", "0 ok", "1 write 2", "2 read", "2 ok 2", "3 read", "3 ok 2", "1 ok"),
    ("register", "0 read", "0 ok null"),
    # --- Failed: never there.
    ("register", "0 write 1", "0 fail", "1 read", "1 ok null"),
    # --- Indeterminate: at once, much later, or never.
    ("register", "0 write 1", "0 info", "1 read", "1 ok null"),
    ("register", "0 write 1", "0 info", "1 read", "1 ok 1"),
    ("register", "0 write 1", "0 info", "1 read", "1 ok null", "1 write 2", "1 ok", "1 read", "1 ok 2", "1 read",
     "1 ok 1"),
    ("register", "0 write 1", "1 read", "1 ok 1"),
    ("register", "0 read", "0 info", "1 write 1", "1 ok"),
    # --- One value written more than once.
    ("register", "0 write 1", "0 ok", "0 write 2", "0 ok", "0 write 1", "0 ok", "1 read", "1 ok 1"),
    ("register", "0 write 1", "0 info", "1 write 2", "1 ok", "1 write 1", "1 ok", "1 write 2", "1 ok", "1 read",
     "1 ok 1"),
    ("register", "0 write null", "0 ok", "1 read", "1 ok null"),
    # --- Compare and set.
    ("cas-register", "0 write 1", "0 ok", "0 cas [1,2]", "0 ok", "1 read", "1 ok 2"),
    ("cas-register", "0 write 1", "0 ok", "0 cas [2,3]", "0 fail", "1 read", "1 ok 1"),
    ("cas-register", "0 cas [null,1]", "1 cas [1,2]", "1 ok", "0 ok", "2 read", "2 ok 2"),
    ("cas-register", "0 write 1", "0 ok", "0 cas [1,2]", "0 info", "1 read", "1 ok 1", "1 read", "1 ok 2"),
    ("cas-register", "0 cas [1,2]", "0 info", "1 cas [2,3]", "1 info", "2 write 1", "2 ok", "2 read", "2 ok 3"),
    # --- Counters.
    ("counter", "0 read", "0 ok null", "0 read", "0 ok 0"),
    ("counter", "0 add 1", "1 add 2", "2 read", "2 ok 2", "2 read", "2 ok 3", "0 ok", "1 ok"),
    ("counter", "0 add 5", "0 info", "1 read", "1 ok 0", "1 read", "1 ok 5"),
    ("counter", "0 add 5", "0 fail", "1 read", "1 ok 0"),
    ("counter", "0 add 5", "0 ok", "0 add -3", "1 read", "1 ok 2", "0 ok"),
    ("counter", "0 add 3", "0 info", "1 add 3", "1 ok", "2 read", "2 ok 3", "2 read", "2 ok 6"),
    # --- Sets.
    ("set", "0 read", "0 ok null", "0 read", "0 ok []"),
    ("set", "0 add 1", "1 add 2", "2 read", "2 ok [2]", "2 read", "2 ok [2,1]", "0 ok", "1 ok"),
    ("set", "0 add 1", "0 info", "1 read", "1 ok []", "1 read", "1 ok [1]"),
    ("set", "0 add 1", "0 fail", "1 read", "1 ok []"),
    ("set", "0 add 1", "0 ok", "0 add 1", "0 ok", "1 read", "1 ok [1]"),
    ("set", "0 add 1", "1 add 1", "1 ok", "2 read", "2 ok [1]", "0 ok"),
]  # fmt: skip

VIOLATED = [
    # model, name of the violation, part of the headline, transcript
    ("register", "stale read", "process 2 read 1 at 0.005000 s although the write of 2 by process 1 had completed "
     "before the read began (0.004000 s)", "0 write 1", "0 ok", "1 write 2", "1 ok", "2 read", "2 ok 1"),
    ("register", "stale read", "read null", "0 write 1", "0 ok", "1 read", "1 ok null"),
    ("register", "reads go back", "process 2 read 1 at 0.007000 s although process 1 had already read the newer 2",
     "0 write 1", "0 ok", "3 write 2", "1 read", "1 ok 2", "2 read", "3 info", "2 ok 1"),
    ("register", "phantom read", "read 7 at 0.001000 s, which was never written", "0 read", "0 ok 7"),
    ("register", "phantom read", "read true", "0 write 1", "0 ok", "1 read", "1 ok true"),
    ("register", "read of a failed write", "read 1", "0 write 1", "0 fail", "1 read", "1 ok 1"),
    ("register", "read from the future", "before the write of that value began",
     "0 read", "0 ok 1", "1 write 1", "1 ok"),
    # An indeterminate write happens once: not again after it was overwritten.
    ("register", "stale read", "read 1", "0 write 1", "0 info", "1 read", "1 ok 1", "1 write 2", "1 ok", "1 read",
     "1 ok 1"),
    ("register", "stale read", "although the write of 2 by process 0 had completed", "0 write 1", "0 ok", "0 write 2",
     "0 ok", "0 write 2", "0 ok", "1 read", "1 ok 1"),
    # Two concurrent writes, and two processes that saw them in different orders.
    ("register", "reads go back", "", "0 write 1", "1 write 2", "2 read", "2 ok 1", "3 read", "3 ok 2", "2 read",
     "2 ok 1", "0 ok", "1 ok"),
    ("cas-register", "not linearizable", "process 1's cas 1 → 3", "0 write 1", "0 ok", "0 cas [1,2]", "0 ok",
     "1 cas [1,3]", "1 ok"),
    ("cas-register", "not linearizable", "", "0 write 1", "0 ok", "0 cas [1,2]", "1 cas [1,3]", "0 ok", "1 ok"),
    ("counter", "lost addition", "read 1 at 0.005000 s, but it had to be at least 2", "0 add 1", "0 ok", "1 add 1",
     "1 ok", "2 read", "2 ok 1"),
    ("counter", "addition applied twice, or never made", "but it had to be at most 1", "0 add 1", "0 ok", "1 read",
     "1 ok 2"),
    ("counter", "counter goes back", "had already read 1", "0 add 1", "1 read", "1 ok 1", "2 read", "2 ok 0", "0 ok"),
    ("counter", "not linearizable", "process 2's read → 3", "0 add 2", "0 ok", "1 add 2", "2 read", "2 ok 3", "1 ok"),
    ("set", "lost element", "did not see 1", "0 add 1", "0 ok", "1 read", "1 ok []"),
    ("set", "lost element", "process 0 had already seen it", "2 add 1", "0 read", "0 ok [1]", "1 read", "1 ok []"),
    ("set", "lost element", "saw 2 without 1", "2 read", "0 add 1", "0 ok", "1 add 2", "1 ok", "2 ok [2]"),
    ("set", "phantom element", "9", "0 read", "0 ok [9]"),
    ("set", "phantom element", "1", "0 add 1", "0 fail", "1 read", "1 ok [1]"),
    ("set", "duplicate element", "1 twice", "0 add 1", "0 ok", "1 read", "1 ok [1,1]"),
    ("set", "read from the future", "saw 1 before", "0 read", "0 ok [1]", "1 add 1", "1 ok"),
    ("set", "two orders", "", "0 add 1", "1 add 2", "2 read", "3 read", "2 ok [1]", "3 ok [2]", "0 ok", "1 ok"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "events"), [(model, events) for model, *events in HOLDS])
def test_it_holds(judge, model, events):
    assert judge(model, *events) == []


@pytest.mark.parametrize(
    ("model", "name", "headline", "events"), [(model, name, text, events) for model, name, text, *events in VIOLATED]
)
def test_it_does_not_hold(judge, model, name, headline, events):
    (violation,) = judge(model, *events)
    assert headline in violation.headline
    assert violation.name == name
    assert violation.breaks == "linearizability"
    assert violation.headline.startswith('key "k": ')
    assert violation.marked
    for arrow in violation.arrows:
        assert arrow.tail != arrow.head


def test_a_stale_read_is_argued(judge):
    (violation,) = judge(
        "register", "0 write 1", "0 ok", "3 write 3", "1 write 2", "1 ok", "2 read", "2 ok 1", "3 info"
    )
    assert violation.reasons == [
        "process 0's write 1 had ended (0.001000 s) before process 1's write 2 began (0.003000 s), so 1 was there "
        "before 2.",
        "But process 1's write 2 had ended (0.004000 s) before process 2's read → 1 began (0.005000 s).",
    ]
    assert [(each.f, each.process) for each in violation.evidence] == [("write", 0), ("write", 1), ("read", 2)]
    assert [(arrow.tail, arrow.head) for arrow in violation.arrows] == [(0, 1), (1, 2)]
    assert violation.marked == [2]


def test_other_writes_of_the_same_values_are_accounted_for(judge):
    events = ("0 write 1", "0 ok", "0 write 2", "0 ok", "0 write 1", "0 ok", "0 write 2", "0 ok", "1 read", "1 ok 1")
    (violation,) = judge("register", *events)
    assert len(violation.evidence) == 3
    assert violation.reasons[-1] == "No other write of these values can be the one that was read."


def test_keys_are_judged_by_themselves(transcript):
    good = transcript("0 write 1", "0 ok", "0 read", "0 ok 1", key="good")
    bad = transcript("1 write 1", "1 ok", "1 read", "1 ok null", key="bad")
    verdict = check([*good, *bad], "register")
    assert verdict.keys == 2
    assert [violation.key for violation in verdict.violations] == ["bad"]


def test_only_the_first_of_many_keys_are_explained(transcript):
    many = [each for key in range(9) for each in transcript("0 read", "0 ok 7", key=f"k{key}")]
    verdict = check(many, "register")
    assert verdict.found == 9
    assert len(verdict.violations) == 5
    assert verdict.notes == ["9 keys are violated; evidence is given for the first 5"]


@pytest.mark.parametrize(
    ("model", "events", "message"),
    [
        (
            "register",
            ["0 write 1", "0 ok", "0 cas [1,2]", "0 ok"],
            "line 3: the model register has no cas, allowed: read",
        ),
        ("counter", ["0 add 1", "0 ok", "0 read", '0 ok "x"'], "line 4: a counter's read with the value 'x'"),
        ("counter", ['0 add "one"', "0 ok"], "line 1: a counter's add with the value 'one'"),
        ("set", ["0 read", "0 ok 3"], "line 2: a set's read with the value 3"),
    ],
)
def test_a_history_of_something_else(transcript, model, events, message):
    with pytest.raises(UnsuitableError, match=message):
        check(transcript(*events), model)


def test_the_budget_ends_a_search_without_a_judgement(transcript):
    """Additions of amounts that no two sums share, and a read that only their sum without one explains."""
    amounts = [3**power for power in range(14)]
    events = [f"{number} add {amount}" for number, amount in enumerate(amounts)]
    events += ["20 read", f"20 ok {sum(amounts) - 9}", "21 read", f"21 ok {sum(amounts) - 3}"]
    asked = iter([False] * 3 + [True] * 100)
    verdict = check(transcript(*events), "counter", Budget(lambda: next(asked)))
    assert verdict.judgement is Judgement.UNKNOWN
    assert verdict.gave_up == ['key "k": time is up (16 operations)']


def test_a_violation_counts_although_other_keys_are_given_up(transcript):
    amounts = [3**power for power in range(14)]
    events = [f"{number} add {amount}" for number, amount in enumerate(amounts)]
    events += ["20 read", f"20 ok {sum(amounts) - 9}", "21 read", f"21 ok {sum(amounts) - 3}"]
    hard = transcript(*events, key="hard")
    wrong = transcript("0 read", "0 ok 1", key="wrong")
    verdict = check([*hard, *wrong], "counter", Budget(lambda: True))
    assert verdict.judgement is Judgement.VIOLATED
    assert len(verdict.gave_up) == 1


def test_too_many_configurations(transcript):
    events = [f"{number} add {3**number}" for number in range(12)] + ["20 read", "20 ok 9999"]
    verdict = check(transcript(*events), "counter", Budget(max_configurations=10))
    assert verdict.gave_up == ['key "k": more than 10 configurations to follow at once (13 operations)']
