"""Whole groups: elections, loss, crashes, partitions, changes of members, with the invariants asserted at each step."""

from dataclasses import replace

import pytest

from minidist.engines.raft import Receive, Refusal, Role, Settings
from minidist.engines.raft.messages import Vote, VoteReply


def commands(node):
    return [data for data in node.applied if data]


def test_a_leader_is_elected_and_commands_reach_all(group):
    group.until(lambda: group.leader)
    group.propose(group.leader, b"one", b"two")
    group.until(lambda: all(commands(node) == [b"one", b"two"] for node in group.nodes.values()))


def test_a_single_node_leads_itself(group_type):
    group = group_type("a")
    group.until(lambda: group.leader)
    group.propose("a", b"x")
    group.read("a", "r")
    group.until(lambda: commands(group.node("a")) == [b"x"] and "r" in group.answered)


def test_a_new_leader_has_what_was_acknowledged(group):
    group.until(lambda: group.leader)
    first = group.leader
    group.propose(first, b"x")
    group.until(lambda: b"x" in commands(group.node(first)))
    group.crash(first)
    group.until(lambda: group.leader)
    group.propose(group.leader, b"y")
    group.until(lambda: commands(group.node(group.leader)) == [b"x", b"y"])
    group.start(first)
    group.until(lambda: commands(group.node(first)) == [b"x", b"y"])


def test_without_a_quorum_nothing_is_committed_and_the_leader_steps_down(group):
    group.until(lambda: group.leader)
    leader = group.leader
    others = [name for name in group.nodes if name != leader]
    for name in others:
        group.crash(name)
    group.propose(leader, b"x")
    group.read(leader, "r")
    group.run(500)
    assert group.node(leader).raft.role is not Role.LEADER
    assert commands(group.node(leader)) == []
    assert "r" not in group.answered
    assert [why for _, why in group.refusals] == [Refusal.NOT_LEADER]


def test_a_node_that_was_cut_off_does_not_disturb_when_it_comes_back(group_type):
    """Trial votes: its term has not grown meanwhile, so the leader stays."""
    group = group_type("abc")
    group.until(lambda: group.leader)
    leader = group.leader
    group.run(200)
    term = group.node(leader).raft.term
    lonely = next(name for name in group.nodes if name != leader)
    group.cut = {pair for other in group.nodes for pair in ((lonely, other), (other, lonely))}
    group.run(2000)
    group.cut = set()
    group.run(500)
    assert group.leader == leader
    assert group.node(leader).raft.term == term


def test_a_follower_with_a_later_term_gets_its_leader(group):
    """Its term grew before it was cut off; the leader has to hear of it, or they would never agree."""
    group.until(lambda: group.leader)
    leader = group.leader
    lonely = next(name for name in group.nodes if name != leader)
    group.crash(lonely)
    group.disks[lonely].term += 5
    group.start(lonely)
    group.until(lambda: group.leader and group.node(group.leader).raft.term > 5)
    group.propose(group.leader, b"x")
    group.until(lambda: all(commands(node) == [b"x"] for node in group.nodes.values()))


def test_who_is_far_behind_gets_a_snapshot(group):
    group.until(lambda: group.leader)
    leader = group.leader
    slow = next(name for name in group.nodes if name != leader)
    group.crash(slow)
    for number in range(50):
        group.propose(leader, b"%d" % number)
        group.run(5)
    group.compact(leader)
    assert group.node(leader).raft.log.base_index > 40
    group.start(slow)
    group.until(lambda: len(commands(group.node(slow))) == 50)
    group.propose(leader, b"more")
    group.until(lambda: commands(group.node(slow))[-1] == b"more")


def test_reads_need_a_quorum_and_one_round_serves_many(group):
    group.until(lambda: group.leader)
    leader = group.leader
    group.propose(leader, b"x")
    group.until(lambda: b"x" in commands(group.node(leader)))
    rounds = group.node(leader).raft.leadership.round
    for key in range(100):
        group.read(leader, key)
    group.until(lambda: len(group.answered) == 100, 60)
    assert group.node(leader).raft.leadership.round - rounds <= 4
    follower = next(name for name in group.nodes if name != leader)
    group.read(follower, "f")
    assert group.refusals[-1][1] is Refusal.NOT_LEADER


def test_a_lease_spares_the_round(group):
    group.until(lambda: group.leader)
    group.run(200)
    group.read(group.leader, "now", lease=True)
    assert "now" in group.answered


def test_a_leader_that_nobody_hears_has_no_lease_when_another_leads(group):
    group.until(lambda: group.leader)
    group.run(200)
    old = group.leader
    group.cut = {pair for other in group.nodes for pair in ((old, other), (other, old))}
    group.until(lambda: group.leader not in (None, old))
    group.propose(group.leader, b"new")
    group.until(lambda: b"new" in commands(group.node(group.leader)))
    group.read(old, "stale", lease=True)
    assert "stale" not in group.answered


def test_nobody_votes_while_a_lease_may_last(group):
    """Neither who hears the leader, nor who was started again and may have heard it before; but for a transfer."""
    group.until(lambda: group.leader)
    group.run(100)
    leader = group.leader
    voter, other = (name for name in group.nodes if name != leader)
    term = group.node(leader).raft.term
    ask = Vote(term + 1, 1000, term)
    assert not group.node(voter).raft.step(Receive(other, ask), group.now_ms).send
    group.crash(voter)
    group.start(voter)
    raft = group.node(voter).raft
    assert raft.term == term
    out = raft.step(Receive(other, ask), group.now_ms + 99)
    assert not out.send
    assert raft.vote is None
    assert raft.step(Receive(other, ask), group.now_ms + 100).persist.then[0].message.granted
    group.crash(voter)
    group.start(voter)
    out = group.node(voter).raft.step(Receive(other, replace(ask, transfer=True)), group.now_ms)
    assert out.persist.then[0].message.granted


def test_a_vote_goes_out_when_it_is_on_disk(group):
    group.until(lambda: group.leader)
    leader = group.leader
    voter = next(name for name in group.nodes if name != leader)
    raft = group.node(voter).raft
    out = raft.step(Receive(leader, Vote(raft.term + 5, 1000, raft.term, transfer=True)), group.now_ms)
    assert not out.send
    assert out.persist.hard_state == (raft.term, leader)
    assert [type(each.message) for each in out.persist.then] == [VoteReply]


def test_transfer(group):
    group.until(lambda: group.leader)
    group.run(100)
    old = group.leader
    new = next(name for name in group.nodes if name != old)
    group.propose(old, b"x")
    group.transfer(old, new)
    out = group.propose(old, b"y")
    assert [each.why for each in out.refused] == [Refusal.TRANSFERRING]
    group.until(lambda: group.leader == new, 60)
    group.until(lambda: b"x" in commands(group.node(new)))
    assert group.transfer(new, "nobody").refused[0].why is Refusal.NO_SUCH_VOTER


def test_a_transfer_to_the_dead_ends(group):
    group.until(lambda: group.leader)
    leader = group.leader
    dead = next(name for name in group.nodes if name != leader)
    group.run(50)
    group.crash(dead)
    group.propose(leader, b"x")
    group.transfer(leader, dead)
    group.run(300)
    assert group.leader == leader
    assert not group.propose(leader, b"y").refused


def test_members_come_and_go(group):
    group.until(lambda: group.leader)
    leader = group.leader
    group.propose(leader, b"x")
    for name in "de":
        group.start(name, group.membership)
    group.run(100)
    assert group.change(leader, "abc", "de").proposed
    group.until(lambda: commands(group.node("d")) == [b"x"] and not group.node(leader).raft.changing)
    assert group.change(leader, "abcde").proposed
    assert group.change(leader, "abc").refused[0].why is Refusal.CHANGING
    group.until(lambda: not group.node(leader).raft.changing)
    assert group.node(leader).raft.membership.voters == tuple("abcde")
    left = "".join(name for name in "abcde" if name != leader)[:3]
    group.change(leader, left)
    group.until(lambda: group.leader and group.leader in left)
    group.propose(group.leader, b"y")
    group.until(lambda: all(commands(group.node(name))[-1] == b"y" for name in left))
    assert group.node(leader).raft.role is Role.FOLLOWER
    assert group.node(group.leader).raft.membership.members == tuple(left)


def test_a_voter_may_become_a_learner(group):
    group.until(lambda: group.leader)
    leader = group.leader
    voters = "".join(sorted(name for name in "abc" if name == leader or name != "b"))[:2] if leader != "b" else "ab"
    learner = next(name for name in "abc" if name not in voters)
    group.run(100)
    group.change(leader, voters, learner)
    group.until(lambda: not group.node(leader).raft.changing)
    assert group.node(leader).raft.membership.learners == (learner,)
    group.propose(leader, b"x")
    group.until(lambda: commands(group.node(learner)) == [b"x"])


def test_too_much_at_once_is_refused(group_type):
    group = group_type("abc", settings=Settings(election_ms=100, heartbeat_ms=20, max_uncommitted_bytes=1000))
    group.until(lambda: group.leader)
    group.run(50)
    leader = group.leader
    assert not group.propose(leader, b"x" * 5000).refused
    assert group.propose(leader, b"x").refused[0].why is Refusal.TOO_MUCH
    group.run(50)
    assert not group.propose(leader, b"x").refused


@pytest.mark.parametrize("seed", range(40))
def test_random_faults(random_run, seed):
    random_run(seed)
