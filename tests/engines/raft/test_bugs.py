"""The invariants are worth something: each of these mistakes, all of which somebody has made, is found."""

import pytest

from minidist.engines.raft import Membership, Raft
from minidist.engines.raft import messages as m
from minidist.engines.raft.leadership import Leadership

SEEDS = 400


def answers_before_the_disk(patch):
    patch.setattr(Raft, "promise", Raft.send)


def forgets_its_vote(patch):
    start = Raft.__init__

    def forgetful(self, *args, **options):
        start(self, *args, **{**options, "vote": None})
        self._quiet_end_ms = 0

    patch.setattr(Raft, "__init__", forgetful)


def forgets_its_term(patch):
    start = Raft.__init__

    def forgetful(self, *args, **options):
        start(self, *args, **{**options, "vote": None, "term": 0})

    patch.setattr(Raft, "__init__", forgetful)


def votes_for_anybody(patch):
    patch.setattr("minidist.engines.raft.log.Log.is_behind", lambda self, last_term, last_index: True)


def counts_entries_of_earlier_terms(patch):
    """Figure 8."""

    def advance(self, now_ms):
        index = self.leadership.quorum_index()
        if index > self.commit:
            self.leadership.committed(self.commit + 1, index)
            self.commit = index
        self.leadership.settle(now_ms)

    patch.setattr(Raft, "_advance", advance)


def counts_itself_before_its_disk_has_it(patch):
    quorum_index = Leadership.quorum_index

    def early(self):
        self.has(self.raft.name, self.raft.log.last_index)
        return quorum_index(self)

    patch.setattr(Leadership, "quorum_index", early)


def changes_members_in_one_step(patch):
    patch.setattr(Membership, "entering", lambda self, target: target)


def reads_without_asking(patch):
    patch.setattr(Leadership, "_read", lambda self, read, now_ms: self.raft.readable(read.key, self.raft.commit))


def has_a_lease_for_too_long(patch):
    confirm = Leadership._confirm

    def generous(self, now_ms):
        confirm(self, now_ms)
        self._lease_end_ms += 10 * self.raft.settings.election_ms if self._lease_end_ms else 0

    patch.setattr(Leadership, "_confirm", generous)
    patch.setattr(Leadership, "tick", lambda self, now_ms: True)


def takes_what_it_has_for_what_was_sent(patch):
    """Does not look for the entry before."""
    take = Raft._take_entries

    def trusting(self, leader, append):
        known = self.log.term_at(append.previous_index)
        if known is not None:
            append = m.Append(append.term, append.previous_index, known, append.entries, append.commit)
        take(self, leader, append)

    patch.setattr(Raft, "_take_entries", trusting)


BUGS = [
    answers_before_the_disk, forgets_its_vote, forgets_its_term, votes_for_anybody, counts_entries_of_earlier_terms,
    counts_itself_before_its_disk_has_it, changes_members_in_one_step, reads_without_asking, has_a_lease_for_too_long,
    takes_what_it_has_for_what_was_sent,
]  # fmt: skip


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_is_found(random_run, monkeypatch, bug):
    bug(monkeypatch)
    for seed in range(SEEDS):
        try:
            random_run(seed)
        except (AssertionError, KeyError, IndexError):
            print("found by seed", seed)
            return
    pytest.fail(f"not found by {SEEDS} seeds")
