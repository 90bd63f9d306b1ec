"""Eventual convergence: which reads are final, and when nodes agree."""

import pytest

from minidist.engines.checking import Budget, UnsuitableError, check, convergence

WRITES = ("0@a write 1", "0@a ok", "1@b write 2", "1@b ok")


@pytest.mark.parametrize(
    "events",
    [
        [*WRITES, "0@a read", "0@a ok 2", "1@b read", "1@b ok 2"],
        # Which of two writes won is for the store to decide.
        [*WRITES, "0@a read", "0@a ok 1", "1@b read", "1@b ok 1"],
        # Reads before the last write had ended are not final, and of a node only the last one counts.
        ["0@a write 1", "1@b read", "1@b ok null", "0@a ok", "0@a read", "0@a ok 1", "1@b read", "1@b ok 1"],
        [*WRITES, "0@a read", "0@a ok 1", "0@a read", "0@a ok 2", "1@b read", "1@b ok 2"],
        # A write in doubt may have happened.
        ["0@a write 1", "0@a info", "1@a read", "1@a ok 1", "2@b read", "2@b ok 1"],
        ["0@a write 1", "0@a info", "1@a read", "1@a ok null", "2@b read", "2@b ok null"],
        ["0@a add 1", "0@a ok", "1@a read", "1@a ok 5", "2@b read", "2@b ok 5"],
    ],
)
def test_it_holds(judge, events):
    assert judge("convergence", *events) == []


def test_nodes_that_disagree(judge):
    (violation,) = judge("convergence", *WRITES, "0@a read", "0@a ok 1", "1@b read", "1@b ok 2")
    assert violation.name == "divergence"
    assert violation.headline == (
        'key "k": after the last write process 0 on a read 1 at 0.005000 s, and process 1 on b read 2 at '
        "0.007000 s: the nodes did not converge"
    )


def test_the_node_that_disagrees_is_marked(judge):
    reads = [
        event for node, value in (("a", 2), ("b", 2), ("c", 1)) for event in (f"0@{node} read", f"0@{node} ok {value}")
    ]
    (violation,) = judge("convergence", *WRITES, *reads)
    assert [violation.evidence[place].node for place in violation.marked] == ["a", "c"]


def test_a_write_that_all_forgot(judge):
    (violation,) = judge("convergence", *WRITES, "0@a read", "0@a ok null", "1@b read", "1@b ok null")
    assert violation.name == "lost write"


def test_reads_before_the_heal_are_not_final(transcript):
    events = [*WRITES, "0@a read", "0@a ok 1", "1@b read", "1@b ok 2"]
    later = ["0@a read", "0@a ok 2"]
    assert not convergence.check(transcript(*events), Budget(), quiet_ns=8_000_000).violations
    assert convergence.check(transcript(*events), Budget(), quiet_ns=0).violations
    assert not convergence.check(transcript(*events, *later), Budget()).violations


def test_a_key_read_on_one_node_proves_nothing(transcript):
    verdict = check(transcript(*WRITES, "0@a read", "0@a ok 1"), "convergence")
    assert verdict.notes == ["1 of 1 keys have final reads of fewer than two nodes"]


def test_a_history_of_something_else(transcript):
    with pytest.raises(UnsuitableError, match="line 1: the model convergence has no poll"):
        check(transcript("0 poll"), "convergence")
