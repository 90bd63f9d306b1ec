"""Quorums, the log and flow control, each by itself and against the plainest thing that says the same."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from minidist.engines.raft.log import ENTRY_BYTES, Entry, Log
from minidist.engines.raft.membership import Membership, Verdict
from minidist.engines.raft.progress import Pace, Progress

NAMES = st.lists(st.sampled_from("abcdefg"), min_size=1, unique=True)
MEMBERSHIPS = st.one_of(
    st.builds(Membership.of, NAMES),
    st.builds(lambda now, to: Membership.of(now).entering(Membership.of(to)), NAMES, NAMES),
)


def majorities(voters):
    return [set(some) for size in range(len(voters) // 2 + 1, len(voters) + 1) for some in combinations(voters, size)]


@given(MEMBERSHIPS, st.sets(st.sampled_from("abcdefg")), st.sets(st.sampled_from("abcdefg")))
def test_two_quorums_have_a_member_in_common(membership, one, two):
    if membership.has_quorum(one) and membership.has_quorum(two):
        assert one & two
    expected = all(any(major <= one for major in majorities(half)) for half in membership._halves)
    assert membership.has_quorum(one) == expected


@given(NAMES, NAMES, st.sets(st.sampled_from("abcdefg")), st.sets(st.sampled_from("abcdefg")))
def test_neighbours_on_the_way_of_a_change_have_common_quorums(before, after, one, two):
    """Old and joint, joint and new: never two leaders in a term, whoever knows of which."""
    old, new = Membership.of(before), Membership.of(after)
    joint = old.entering(new)
    assert joint.leaving() == new
    for here, there in ((old, joint), (joint, new)):
        if here.has_quorum(one) and there.has_quorum(two):
            assert one & two


@given(MEMBERSHIPS, st.dictionaries(st.sampled_from("abcdefg"), st.booleans()))
def test_a_verdict_is_what_more_answers_could_not_change(membership, answers):
    granted = {name for name, yes in answers.items() if yes}
    open_ = {name for name in "abcdefg" if name not in answers}
    expected = Verdict.OPEN
    if membership.has_quorum(granted):
        expected = Verdict.WON
    elif not membership.has_quorum(granted | open_):
        expected = Verdict.LOST
    assert membership.verdict(answers) is expected


@given(MEMBERSHIPS, st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 9)))
def test_what_a_quorum_has_reached(membership, values):
    reached = membership.reached(values)
    assert membership.has_quorum([name for name in "abcdefg" if values.get(name, 0) >= reached])
    assert not membership.has_quorum([name for name in "abcdefg" if values.get(name, 0) > reached])


def test_learners_on_the_way():
    now = Membership.of("abc", "x")
    joint = now.entering(Membership.of("abd", "cy"))
    assert joint == Membership(tuple("abd"), tuple("abc"), ("y",), ("c",))
    assert joint.members == tuple("abcdy")
    assert joint.leaving() == Membership.of("abd", "cy")


def entries(*terms, first=1):
    return [Entry(term, first + at, data=b"%d" % term) for at, term in enumerate(terms)]


def test_the_log():
    log = Log(3, 1, entries(1, 2, 2, first=4))
    assert [log.term_at(index) for index in range(2, 8)] == [None, 1, 1, 2, 2, None]
    assert (log.last_index, log.last_term) == (6, 2)
    log.truncate(6)
    log.append(entries(3, 3, first=6))
    assert [entry.term for entry in log.between(4, 7)] == [1, 2, 3, 3]
    log.compact(5)
    assert (log.base_index, log.base_term, log.term_at(4), log.term_at(5)) == (5, 2, None, 2)
    log.compact(4)
    assert log.base_index == 5
    assert len(log.starting(6, 1)) == 1
    assert len(log.starting(6, 2 * (ENTRY_BYTES + 1))) == 2
    assert log.starting(8, 100) == []
    log.restart(20, 7)
    assert (log.last_index, log.last_term) == (20, 7)


@given(st.lists(st.integers(1, 5), min_size=1).map(sorted), st.integers(0, 12), st.integers(0, 6))
def test_where_logs_may_agree(terms, index, term):
    log = Log(0, 0, entries(*terms))
    found = log.agreement(index, term)
    candidates = [at for at in range(min(index, len(terms)) + 1) if (log.term_at(at) or 0) <= term]
    assert found == max(candidates)


def test_probe_one_at_a_time_then_replicate_within_limits():
    progress = Progress(10)
    assert not progress.paused(2, 1000)
    progress.sent(10, 50)
    assert progress.paused(2, 1000)
    assert progress.refused(9, 4)
    assert (progress.pace, progress.next, progress.paused(2, 1000)) == (Pace.PROBE, 5, False)
    assert not progress.refused(9, 4), "an old answer"
    assert progress.has(4)
    assert (progress.pace, progress.next) == (Pace.REPLICATE, 5)
    progress.sent(6, 50)
    progress.sent(8, 50)
    assert progress.paused(2, 1000)
    assert progress.paused(5, 100)
    progress.heard(paused=True)
    assert not progress.paused(2, 1000)
    assert progress.has(8)
    assert (progress.match, progress.next, progress.paused(1, 1)) == (8, 9, False)
    assert not progress.has(7)


def test_a_snapshot_stops_everything_until_it_is_there():
    progress = Progress(3)
    progress.needs_snapshot(20)
    assert progress.paused(9, 9)
    assert not progress.refused(2, 1)
    progress.got_snapshot(None)
    assert (progress.pace, progress.next) == (Pace.PROBE, 1)
    progress.needs_snapshot(20)
    progress.got_snapshot(25)
    assert (progress.pace, progress.next) == (Pace.PROBE, 26)
    progress.needs_snapshot(30)
    assert progress.has(30)
    assert (progress.pace, progress.next) == (Pace.REPLICATE, 31)
