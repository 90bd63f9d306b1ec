"""One node of a Raft group: `step(event, now_ms)` takes what happened and says what is to be done.

    outputs = raft.step(Propose([command]), now_ms)
    for each of outputs.send: send it
    outputs.persist: write it, in order, and when it is on disk send what stands in `then` and step Persisted(number)
    outputs.committed: apply them, in order; then step Applied(index)
    at raft.alarm_ms: step Tick()

A vote, an answer to a vote and an answer to entries go out only when what they promise is on disk (`Persist.then`).
A leader sends entries while it writes them, and counts itself when it has. Nothing here waits, draws time or touches a
disk: time is an argument (loop time, in ms), chance the injected `random.Random`. All nodes have the same Settings.

What goes beyond the paper, and where it is written: trial votes (PreVote) and the check of the quorum, always together,
in elections.py; flow control in progress.py; reads in reads.py; members in membership.py and changes.py.

Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014 (numbers of sections in
comments up to 8); Ongaro, "Consensus: Bridging Theory and Practice", 2014 (from 3.10 on: 3.10 transfer, 4 members,
6.4 reads, 9.6 trial votes).
"""

import random
from collections.abc import Sequence
from enum import Enum

from minidist.engines.raft import messages as m
from minidist.engines.raft.events import (
    Applied,
    Asking,
    Change,
    Compact,
    Event,
    Outputs,
    Persist,
    Persisted,
    Propose,
    Read,
    Receive,
    Refusal,
    Refused,
    Send,
    SnapshotInstalled,
    SnapshotSent,
    Tick,
    Transfer,
)
from minidist.engines.raft.leadership import Leadership
from minidist.engines.raft.log import Entry, EntryKind, Log
from minidist.engines.raft.membership import Membership, Verdict
from minidist.engines.raft.settings import Settings


class Role(Enum):
    """TRIAL asks whether it would be elected, CANDIDATE to be elected."""

    FOLLOWER = "follower"
    TRIAL = "trial"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Raft:
    """A node. `term`, `vote` and `log` are what the disk has; `membership` is that of the log's base."""

    def __init__(
        self,
        name: str,
        membership: Membership,
        rng: random.Random,
        now_ms: int,
        *,
        settings: Settings | None = None,
        term: int = 0,
        vote: str | None = None,
        log: Log | None = None,
    ) -> None:
        self.name = name
        self.settings = settings or Settings()
        self.term = term
        self.vote = vote
        self.log = log or Log()
        self.role = Role.FOLLOWER
        self.leader: str | None = None
        self.leadership: Leadership | None = None
        self.commit = self.applied = self.log.base_index
        self.persisted = self.log.last_index
        self._rng = rng
        self._handed_out = self.commit  # committed entries that outputs had
        self._quiet_end_ms = now_ms + self.settings.election_ms if term else now_ms
        self._memberships: list[tuple[int, Membership]] = [(self.log.base_index, membership)]
        for entry in self.log.between(self.log.base_index + 1, self.log.last_index):
            self._note_membership(entry)
        self._answers: dict[str, bool] = {}
        self._hard_number = 0  # of the Persist that has the present term and vote
        self._heard_ms = now_ms
        self._election_ms = 0
        self._number = self._done_number = 0
        self._writes: list[tuple[int, int, int]] = []  # not yet on disk: number, last index, its term
        self._out = Outputs()
        self._then: list[Send] = []
        self._hard_state = (term, vote)
        self._truncate: int | None = None
        self._appended_from = 0
        self._wait_for_leader(now_ms)

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def membership(self) -> Membership:
        """The last one in the log, committed or not: it counts from when it is there (4.1)."""
        return self._memberships[-1][1]

    def membership_at(self, index: int) -> Membership:
        """The one that a snapshot of the state at `index` has to keep."""
        return next(membership for at, membership in reversed(self._memberships) if at <= index)

    @property
    def changing(self) -> bool:
        """A change of members has begun and is not complete."""
        return self.membership.joint or self._memberships[-1][0] > self.commit

    @property
    def alarm_ms(self) -> int:
        """When Tick is wanted."""
        return self._election_ms if self.leadership is None else self.leadership.alarm_ms

    @property
    def may_lead(self) -> bool:
        return self.membership.votes(self.name)

    # --- the one door -----------------------------------------------------------------------------------------------

    def step(self, event: Event, now_ms: int) -> Outputs:
        """Take an event. The outputs are the caller's."""
        self._out = Outputs()
        self._appended_from = self.log.last_index + 1
        match event:
            case Receive(sender, message):
                self._receive(sender, message, now_ms)
            case Tick():
                self._tick(now_ms)
            case Propose() | Read() | Change() | Transfer():
                self._ask_leader(event, now_ms)
            case Persisted(number):
                self._written(number, now_ms)
            case Applied(index):
                self.applied = max(self.applied, index)
            case Compact(index):
                self._compact(min(index, self.applied))
            case SnapshotInstalled():
                self._installed(event, now_ms)
            case SnapshotSent(to, index):
                if self.leadership is not None:
                    self.leadership.snapshot_sent(to, index)
        if self.leadership is not None:
            self.leadership.spread(now_ms)
        return self._finish()

    def _finish(self) -> Outputs:
        out = self._out
        if self.commit > self._handed_out:
            out.committed = self.log.between(self._handed_out + 1, self.commit)
            self._handed_out = self.commit
        self._persist()
        return out

    def _persist(self) -> None:
        """Gather what must be on disk, and what waits for it."""
        entries = self.log.between(self._appended_from, self.log.last_index) if self._grown else []
        changed = self._hard_state != (self.term, self.vote)
        if not (entries or changed or self._truncate is not None):
            if not self._then:
                return
            if self._number == self._done_number:
                self._out.send += self._then  # all that it promises is on disk
                self._then = []
                return
        self._number += 1
        if changed:
            self._hard_state, self._hard_number = (self.term, self.vote), self._number
        self._out.persist = Persist(
            self._number, self._hard_state if changed else None, self._truncate, entries, self._then
        )
        self._writes.append((self._number, self.log.last_index, self.log.last_term))
        self._then = []
        self._truncate = None

    @property
    def _grown(self) -> bool:
        return self.log.last_index >= self._appended_from

    def _written(self, number: int, now_ms: int) -> None:
        """Everything up to this Persist is on disk."""
        self._done_number = max(self._done_number, number)
        while self._writes and self._writes[0][0] <= number:
            _, index, term = self._writes.pop(0)
            # What was written may have been replaced meanwhile; then the writing of what replaced it counts.
            if self.log.term_at(index) == term and index > self.persisted:
                self.persisted = index
        if self.role is Role.CANDIDATE and self._done_number >= self._hard_number:
            self._count_vote(self.name, True, now_ms)
        if self.leadership is not None:
            self.leadership.has(self.name, self.persisted)
            self._advance(now_ms)

    # --- sending ----------------------------------------------------------------------------------------------------

    def send(self, to: str, message: m.Message) -> None:
        """At once."""
        self._out.send.append(Send(to, message))

    def promise(self, to: str, message: m.Message) -> None:
        """When everything up to now is on disk."""
        self._then.append(Send(to, message))

    def need_snapshot(self, to: str) -> None:
        self._out.need_snapshot.append(to)

    def refuse(self, event: Event, why: Refusal) -> None:
        self._out.refused.append(Refused(event, why))

    def readable(self, key: object, index: int) -> None:
        self._out.readable.append((key, index))

    # --- receiving --------------------------------------------------------------------------------------------------

    def _receive(self, sender: str, message: m.Message, now_ms: int) -> None:
        if message.term > self.term and not self._newer_term(sender, message, now_ms):
            return
        if message.term < self.term:
            self._older_term(sender, message)
            return
        match message:
            case m.Vote():
                self._asked_for_vote(sender, message, now_ms)
            case m.VoteReply():
                if (message.trial and self.role is Role.TRIAL) or (not message.trial and self.role is Role.CANDIDATE):
                    self._count_vote(sender, message.granted, now_ms)
            case m.Append():
                self._hear(sender, now_ms)
                self._take_entries(sender, message)
            case m.Heartbeat():
                self._hear(sender, now_ms)
                self._commit_up_to(min(message.commit, self.log.last_index))
                self._answer_heartbeat(sender, m.HeartbeatReply(self.term, message.round))
            case m.TimeoutNow():
                if self.may_lead:
                    self._stand(now_ms, transfer=True)
            case m.AppendReply() | m.HeartbeatReply():
                if self.leadership is not None and self.leadership.answered(sender, message):
                    self._advance(now_ms)

    def _answer_heartbeat(self, leader: str, reply: m.HeartbeatReply) -> None:
        """A slow disk must not look like a dead node: the answer promises the term, but no entries."""
        on_disk = self._hard_state == (self.term, self.vote) and self._done_number >= self._hard_number
        (self.send if on_disk else self.promise)(leader, reply)

    def _newer_term(self, sender: str, message: m.Message, now_ms: int) -> bool:
        """A message of a later term; whether it is to be looked at further."""
        if isinstance(message, m.Vote):
            if self._in_lease(now_ms) and not message.transfer:
                return False  # our leader is well: who does not hear it must not disturb (6)
            if message.trial:
                self._asked_for_vote(sender, message, now_ms)
                return False  # nothing has happened yet: our term stays
        if isinstance(message, m.VoteReply) and message.trial and message.granted:
            if self.role is Role.TRIAL and message.term == self.term + 1:
                self._count_vote(sender, True, now_ms)
            return False
        self._follow(message.term, None, now_ms)
        return True

    def _older_term(self, sender: str, message: m.Message) -> None:
        """Somebody has not heard of our term. Who leads or stands for election has to, or it would never join us."""
        match message:
            case m.Append() | m.Heartbeat():
                self.promise(sender, m.AppendReply(self.term, None))
            case m.Vote():
                self.promise(sender, m.VoteReply(self.term, False, message.trial))

    def _hear(self, leader: str, now_ms: int) -> None:
        """From the leader of this term."""
        assert self.role is not Role.LEADER, "one leader in a term"
        self._follow(self.term, leader, now_ms)
        self._heard_ms = now_ms

    def _in_lease(self, now_ms: int) -> bool:
        """A leader has been heard of so lately that its lease may last, or this node leads."""
        if self.leadership is not None:
            return True
        return self.leader is not None and now_ms - self._heard_ms < self.settings.election_ms

    # --- elections --------------------------------------------------------------------------------------------------

    def _tick(self, now_ms: int) -> None:
        if self.leadership is not None:
            if not self.leadership.tick(now_ms):
                self._follow(self.term, None, now_ms)  # no quorum answers: somebody else may lead by now (6.2)
        elif now_ms >= self._election_ms:
            if self.may_lead:
                self._try(now_ms)
            else:
                self._wait_for_leader(now_ms)

    def _wait_for_leader(self, now_ms: int) -> None:
        """Be patient for between one and two election times."""
        election_ms = self.settings.election_ms
        self._election_ms = now_ms + election_ms + self._rng.randrange(election_ms)

    def _follow(self, term: int, leader: str | None, now_ms: int) -> None:
        """Become, or stay, a follower."""
        if term > self.term:
            self.term, self.vote = term, None
        if self.leadership is not None:
            self.leadership.give_up()
            self.leadership = None
        self.role, self.leader = Role.FOLLOWER, leader
        self._wait_for_leader(now_ms)

    def _try(self, now_ms: int) -> None:
        """Ask whether an election would be won, before it disturbs anybody (9.6)."""
        self.role, self.leader = Role.TRIAL, None
        self._wait_for_leader(now_ms)
        self._ask_for_votes(self.term + 1, trial=True)
        self._count_vote(self.name, True, now_ms)

    def _stand(self, now_ms: int, *, transfer: bool = False) -> None:
        """Become a candidate in a new term."""
        self.role, self.leader = Role.CANDIDATE, None
        self.term, self.vote = self.term + 1, self.name
        self._wait_for_leader(now_ms)
        self._ask_for_votes(self.term, transfer=transfer)

    def _ask_for_votes(self, term: int, *, trial: bool = False, transfer: bool = False) -> None:
        self._answers = {}
        for name in self.membership.members:
            if name != self.name and self.membership.votes(name):
                self.promise(name, m.Vote(term, self.log.last_index, self.log.last_term, trial, transfer))

    def _asked_for_vote(self, sender: str, vote: m.Vote, now_ms: int) -> None:
        """Of this term, or for a trial of a later one. Who asks may know of members that we do not know of yet."""
        if now_ms < self._quiet_end_ms and not vote.transfer:
            return  # before it was restarted, this node may have granted a lease
        later = vote.trial and vote.term > self.term
        free = later or self.vote == sender or (self.vote is None and self.leader is None)
        granted = free and self.log.is_behind(vote.last_term, vote.last_index)
        if granted and not vote.trial:
            self.vote = sender
            self._wait_for_leader(now_ms)
        self.promise(sender, m.VoteReply(vote.term if granted else self.term, granted, vote.trial))

    def _count_vote(self, name: str, granted: bool, now_ms: int) -> None:
        self._answers.setdefault(name, granted)
        verdict = self.membership.verdict(self._answers)
        if verdict is Verdict.LOST:
            self._follow(self.term, None, now_ms)
        elif verdict is Verdict.WON and self.role is Role.TRIAL:
            self._stand(now_ms)
        elif verdict is Verdict.WON:
            self._lead(now_ms)

    def _lead(self, now_ms: int) -> None:
        self.role, self.leader = Role.LEADER, self.name
        self.leadership = Leadership(self, now_ms)
        # Entries of earlier terms count as committed only with one of this term behind them (5.4.2).
        self.append([Entry(self.term, self.log.last_index + 1, EntryKind.EMPTY)])
        self._advance(now_ms)

    # --- the log ----------------------------------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> None:
        """Put entries behind the last one; what they say of members counts from now on."""
        self.log.append(entries)
        for entry in entries:
            self._note_membership(entry)

    def _note_membership(self, entry: Entry) -> None:
        if entry.membership is not None:
            self._memberships.append((entry.index, entry.membership))
            if self.leadership is not None:
                self.leadership.members_changed()

    def _take_entries(self, leader: str, append: m.Append) -> None:
        if append.previous_index < self.commit:
            self.promise(leader, m.AppendReply(self.term, min(self.commit, self.persisted)))
            return
        if self.log.term_at(append.previous_index) != append.previous_term:
            hint = self.log.agreement(append.previous_index, append.previous_term)
            term = self.log.term_at(hint)
            self.promise(leader, m.AppendReply(self.term, None, append.previous_index, hint, term or 0))
            return
        new = self._without_known(append.entries)
        self.append(new)
        last = append.previous_index + len(append.entries)
        self._commit_up_to(min(append.commit, last))
        self.promise(leader, m.AppendReply(self.term, last))

    def _without_known(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Those that are not in the log; entries of others in their place are removed."""
        for at, entry in enumerate(entries):
            term = self.log.term_at(entry.index)
            if term == entry.term:
                continue
            if term is not None:
                self._remove_from(entry.index)
            return entries[at:]
        return ()

    def _remove_from(self, index: int) -> None:
        assert index > self.commit, "what is committed stays"
        self.log.truncate(index)
        self._appended_from = min(self._appended_from, index)
        self._truncate = index
        self._unwrite(index)
        while self._memberships[-1][0] >= index:
            self._memberships.pop()

    def _unwrite(self, first: int) -> None:
        """What was written from `first` on, or is being, does not count any more, even if the same is written again."""
        last = first - 1
        self.persisted = min(self.persisted, last)
        term = self.log.term_at(last) or 0
        self._writes = [(number, last, term) if at > last else (number, at, of) for number, at, of in self._writes]

    def _commit_up_to(self, index: int) -> None:
        self.commit = max(self.commit, index)

    def _advance(self, now_ms: int) -> None:
        """A leader looks what a quorum has by now."""
        leadership = self.leadership
        assert leadership is not None
        index = leadership.quorum_index()
        if index > self.commit and self.log.term_at(index) == self.term:  # figure 8
            leadership.committed(self.commit + 1, index)
            self.commit = index
        leadership.settle(now_ms)
        if self.commit >= self._memberships[-1][0]:
            self._membership_committed(leadership, now_ms)

    def _membership_committed(self, leadership: Leadership, now_ms: int) -> None:
        """The last membership is committed: leave it if it is joint; step down if this node is not in it (4.2.2)."""
        membership = self.membership
        if membership.joint:
            leadership.leave_joint()
        elif self.name not in membership.voters:
            leadership.say_farewell()
            self._follow(self.term, None, now_ms)

    def _compact(self, index: int) -> None:
        if index <= self.log.base_index:
            return
        kept = (index, self.membership_at(index))
        self.log.compact(index)
        self._memberships = [kept, *[each for each in self._memberships if each[0] > index]]

    def _installed(self, event: SnapshotInstalled, now_ms: int) -> None:
        """A snapshot has taken the place of the state, and of the log up to it."""
        if event.term < self.term:
            return
        self._follow(event.term, event.sender, now_ms)
        self._heard_ms = now_ms
        if event.index > self.commit:
            known = self.log.term_at(event.index) == event.last_term
            self.commit = self.applied = self._handed_out = event.index
            if known:
                self._compact(event.index)
                self.persisted = max(self.persisted, event.index)
            else:
                self.log.restart(event.index, event.last_term)
                self._memberships = [(event.index, event.membership)]
                self._truncate = event.index + 1
                self._unwrite(event.index + 1)
                self.persisted = event.index
            self._appended_from = self.log.last_index + 1
        self.promise(event.sender, m.AppendReply(self.term, min(self.commit, self.persisted)))

    # --- asking the leader ------------------------------------------------------------------------------------------

    def _ask_leader(self, event: Asking, now_ms: int) -> None:
        if self.leadership is None:
            self.refuse(event, Refusal.NOT_LEADER)
            return
        self.leadership.ask(event, now_ms)

    def proposed(self, entries: Sequence[Entry]) -> None:
        """What the leader has put into its log because it was asked."""
        self.append(entries)
        self._out.proposed = [*self._out.proposed, *entries]
