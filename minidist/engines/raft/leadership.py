"""What a node knows and does while it leads: spreads entries, counts them, checks its quorum, answers reads.

Every heartbeat has a number, its `round`; a follower sends it back. From that three things follow. A quorum that has
answered a round that began after a read was asked confirms that nobody else led when it was asked, so the read may be
answered (ReadIndex, 6.4): one round serves all reads that came before it. The same quorum grants a lease: none of its
members will vote for anybody else until an election time after it has heard the round, which is later than it was
sent; so until an election time after the sending, less the drift of clocks, nobody else can lead. And a leader that
no quorum has answered for an election time steps down.
"""

from collections import deque
from typing import TYPE_CHECKING

from minidist.engines.raft import messages as m
from minidist.engines.raft.events import Asking, Change, Propose, Read, Refusal, Transfer
from minidist.engines.raft.log import Entry, EntryKind
from minidist.engines.raft.membership import Membership
from minidist.engines.raft.progress import Pace, Progress

if TYPE_CHECKING:
    from minidist.engines.raft.node import Raft


class Leadership:
    """Of one node in one term."""

    def __init__(self, raft: "Raft", now_ms: int) -> None:
        self.raft = raft
        self.progress: dict[str, Progress] = {}
        self.round = 0
        self.transferring_to: str | None = None
        self._first_index = raft.log.last_index + 1  # of this term
        self._heartbeat_ms = now_ms
        self._check_ms = now_ms + raft.settings.election_ms
        self._transfer_end_ms = 0
        self._uncommitted_bytes = 0
        self._told_commit = 0
        self._round_sent_ms: deque[tuple[int, int]] = deque()  # rounds that no quorum has answered yet
        self._confirmed_round = 0
        self._lease_end_ms = 0
        self._may_have_lease = True
        self._early: list[Read] = []  # before anything of this term is committed
        self._asked: list[Read] = []  # since the last round began
        self._reads: deque[tuple[int, int, list[Read]]] = deque()  # round, index, and who wait for it
        self.members_changed()

    def members_changed(self) -> None:
        """Begin to know those who came, and forget those who are gone."""
        raft = self.raft
        known, self.progress = self.progress, {}
        for name in raft.membership.members:
            self.progress[name] = known.get(name) or Progress(raft.log.last_index + 1)
        if raft.name in self.progress:
            self.progress[raft.name].match = raft.persisted

    @property
    def alarm_ms(self) -> int:
        times = [self._heartbeat_ms, self._check_ms]
        if self.transferring_to is not None:
            times.append(self._transfer_end_ms)
        return min(times)

    @property
    def followers(self) -> list[tuple[str, Progress]]:
        return [(name, progress) for name, progress in self.progress.items() if name != self.raft.name]

    # --- being asked ------------------------------------------------------------------------------------------------

    def ask(self, event: Asking, now_ms: int) -> None:
        match event:
            case Read():
                self._read(event, now_ms)
            case Transfer(to):
                self._transfer(event, to, now_ms)
            case _ if self.transferring_to is not None:
                self.raft.refuse(event, Refusal.TRANSFERRING)
            case Change(target):
                self._change(event, target)
            case Propose(commands):
                self._propose(event, [bytes(command) for command in commands])

    def _propose(self, event: Propose, commands: list[bytes]) -> None:
        raft = self.raft
        first = raft.log.last_index + 1
        entries = [Entry(raft.term, first + at, data=command) for at, command in enumerate(commands)]
        size_bytes = sum(entry.size_bytes for entry in entries)
        # One proposal is always taken, however large, or it never would be.
        if self._uncommitted_bytes and self._uncommitted_bytes + size_bytes > raft.settings.max_uncommitted_bytes:
            raft.refuse(event, Refusal.TOO_MUCH)
            return
        self._uncommitted_bytes += size_bytes
        raft.proposed(entries)

    def _change(self, event: Change, target: Membership) -> None:
        raft = self.raft
        # Before something of this term is committed, an earlier leader's change may be under way unseen.
        if raft.changing or raft.commit < self._first_index:
            raft.refuse(event, Refusal.CHANGING)
            return
        now = raft.membership
        index = raft.log.last_index + 1
        membership = target if target.voters == now.voters else now.entering(target)
        raft.proposed([Entry(raft.term, index, EntryKind.MEMBERSHIP, membership=membership)])

    def leave_joint(self) -> None:
        """The joint membership is committed: go on to what it leads to."""
        raft = self.raft
        after = raft.membership.leaving()
        raft.append([Entry(raft.term, raft.log.last_index + 1, EntryKind.MEMBERSHIP, membership=after)])

    # --- handing over -----------------------------------------------------------------------------------------------

    def _transfer(self, event: Transfer, to: str, now_ms: int) -> None:
        raft = self.raft
        if to == raft.name or to not in raft.membership.voters:
            raft.refuse(event, Refusal.NO_SUCH_VOTER)
        elif self.transferring_to is not None:
            raft.refuse(event, Refusal.TRANSFERRING)
        else:
            self.transferring_to = to
            self._transfer_end_ms = now_ms + raft.settings.election_ms
            self._hand_over_if_ready(to)

    def _hand_over_if_ready(self, name: str) -> None:
        if name == self.transferring_to and self.progress[name].match == self.raft.log.last_index:
            # The election that follows heeds no lease, whenever the message arrives: this leader has none any more.
            self._may_have_lease = False
            self.raft.send(name, m.TimeoutNow(self.raft.term))

    # --- spreading --------------------------------------------------------------------------------------------------

    def spread(self, now_ms: int) -> None:
        """Send what there is to send; heartbeats when it is time, or when a read waits for a round to begin."""
        if now_ms >= self._heartbeat_ms or (self._asked and not self._reads):
            self._beat(now_ms)
        news = self.raft.commit > self._told_commit
        self._told_commit = self.raft.commit
        for name, progress in self.followers:
            self._send_entries(name, progress, even_none=news and progress.pace is Pace.REPLICATE)

    def _send_entries(self, name: str, progress: Progress, *, even_none: bool = False) -> None:
        raft, settings = self.raft, self.raft.settings
        while not progress.paused(settings.max_in_flight, settings.max_in_flight_bytes):
            previous = progress.next - 1
            previous_term = raft.log.term_at(previous)
            if previous_term is None or previous < raft.log.base_index:
                progress.needs_snapshot(raft.log.base_index)
                raft.need_snapshot(name)
                return
            entries = tuple(raft.log.starting(progress.next, settings.max_append_bytes))
            if not entries and not even_none and progress.pace is not Pace.PROBE:
                return
            raft.send(name, m.Append(raft.term, previous, previous_term, entries, raft.commit))
            if not entries:
                progress.waiting = progress.pace is Pace.PROBE
                return
            even_none = False
            progress.sent(entries[-1].index, sum(entry.size_bytes for entry in entries))

    def _beat(self, now_ms: int) -> None:
        """Begin a round, for all reads that came since the last one."""
        raft = self.raft
        self.round += 1
        self._heartbeat_ms = now_ms + raft.settings.heartbeat_ms
        self._round_sent_ms.append((self.round, now_ms))
        if self._asked:
            self._reads.append((self.round, raft.commit, self._asked))
            self._asked = []
        for name, progress in self.followers:
            raft.send(name, m.Heartbeat(raft.term, min(raft.commit, progress.match), self.round))
        if raft.name in self.progress:
            self.progress[raft.name].round = self.round
        self._confirm(now_ms)

    # --- answers ----------------------------------------------------------------------------------------------------

    def answered(self, name: str, message: m.AppendReply | m.HeartbeatReply) -> bool:
        """A follower's answer; whether `Raft._advance` should look what it has changed."""
        progress = self.progress.get(name)
        if progress is None:
            return False
        progress.active = True
        if isinstance(message, m.HeartbeatReply):
            progress.round = max(progress.round, message.round)
            settings = self.raft.settings
            progress.heard(paused=progress.paused(settings.max_in_flight, settings.max_in_flight_bytes))
            if progress.match < self.raft.log.last_index:
                self._send_entries(name, progress, even_none=True)
            return True
        if message.match is None:
            if progress.refused(message.refused_index, self._agreement(message)):
                self._send_entries(name, progress)
            return False
        progress.has(min(message.match, self.raft.log.last_index))
        self._hand_over_if_ready(name)
        return True

    def _agreement(self, refusal: m.AppendReply) -> int:
        return self.raft.log.agreement(refusal.hint_index, refusal.hint_term)

    def has(self, name: str, index: int) -> None:
        """This node has written so much."""
        if name in self.progress:
            self.progress[name].match = index

    def snapshot_sent(self, name: str, index: int | None) -> None:
        if name in self.progress:
            self.progress[name].got_snapshot(index)

    def quorum_index(self) -> int:
        """What a quorum has on disk."""
        return self.raft.membership.reached({name: progress.match for name, progress in self.progress.items()})

    def committed(self, first: int, last: int) -> None:
        """These entries are, from now on."""
        freed = sum(entry.size_bytes for entry in self.raft.log.between(first, last))
        self._uncommitted_bytes = max(self._uncommitted_bytes - freed, 0)

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> bool:
        """False when no quorum has answered for an election time. (`spread` sends heartbeats.)"""
        if self.transferring_to is not None and now_ms >= self._transfer_end_ms:
            self.transferring_to = None
        if now_ms < self._check_ms:
            return True
        self._check_ms = now_ms + self.raft.settings.election_ms
        answered = {name for name, progress in self.progress.items() if progress.active or name == self.raft.name}
        for progress in self.progress.values():
            progress.active = False
        return self.raft.membership.has_quorum(answered)

    # --- reads ------------------------------------------------------------------------------------------------------

    def _read(self, read: Read, now_ms: int) -> None:
        if self.raft.commit < self._first_index:
            self._early.append(read)  # what is committed is known only when something of this term is
        elif read.lease and self._may_have_lease and now_ms < self._lease_end_ms:
            self.raft.readable(read.key, self.raft.commit)
        else:
            self._asked.append(read)

    def settle(self, now_ms: int) -> None:
        """Something has been answered: see which reads may be, too."""
        if self._early and self.raft.commit >= self._first_index:
            self._asked += self._early
            self._early = []
        self._confirm(now_ms)

    def _confirm(self, now_ms: int) -> None:
        """Look which rounds a quorum has answered."""
        raft = self.raft
        confirmed = raft.membership.reached({name: progress.round for name, progress in self.progress.items()})
        if confirmed <= self._confirmed_round:
            return
        self._confirmed_round = confirmed
        while self._round_sent_ms and self._round_sent_ms[0][0] <= confirmed:
            _, sent_ms = self._round_sent_ms.popleft()
            length_ms = int(raft.settings.election_ms * (1 - raft.settings.max_clock_drift))
            self._lease_end_ms = sent_ms + length_ms
        while self._reads and self._reads[0][0] <= confirmed:
            _, index, reads = self._reads.popleft()
            for read in reads:
                raft.readable(read.key, index)

    # --- end --------------------------------------------------------------------------------------------------------

    def say_farewell(self) -> None:
        """This node is no member any more: tell the others what is committed, so that they know it, too."""
        raft = self.raft
        for name, progress in self.followers:
            raft.send(name, m.Heartbeat(raft.term, min(raft.commit, progress.match), self.round + 1))

    def give_up(self) -> None:
        """The reads that wait will not be answered here."""
        waiting = [read for _, _, reads in self._reads for read in reads]
        for read in (*self._early, *waiting, *self._asked):
            self.raft.refuse(read, Refusal.NOT_LEADER)
