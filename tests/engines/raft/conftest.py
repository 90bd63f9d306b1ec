"""A group of Raft nodes in one thread: messages that are late, lost and doubled, disks that lose what was not synced.

After every step the invariants of the Raft TLA+ specification (Ongaro) are asserted: one leader in a term, logs that
match, leaders that have all that is committed, one entry at an index for ever; and of reads, that the index which they
are answered from is not before anything that was committed when they were asked.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from minidist.engines.raft import (
    Applied,
    Change,
    Compact,
    Entry,
    Log,
    Membership,
    Outputs,
    Persist,
    Persisted,
    Propose,
    Raft,
    Read,
    Receive,
    Role,
    Settings,
    SnapshotInstalled,
    SnapshotSent,
    Tick,
    Transfer,
)


@dataclass
class Disk:
    """What a node has written. `synced` survives a crash."""

    term: int = 0
    vote: str | None = None
    base: tuple[int, int] = (0, 0)
    membership: Membership = field(default_factory=lambda: Membership.of(["a"]))  # at the base
    entries: list[Entry] = field(default_factory=list)

    def write(self, persist: Persist) -> None:
        if persist.hard_state is not None:
            self.term, self.vote = persist.hard_state
        if persist.truncate is not None:
            self.entries = [entry for entry in self.entries if entry.index < persist.truncate]
        for entry in persist.entries:
            assert entry.index == self.base[0] + len(self.entries) + 1, "entries are written without a gap"
            self.entries.append(entry)

    def compact(self, index: int, term: int, membership: Membership, *, restart: bool = False) -> None:
        self.entries = [] if restart else [entry for entry in self.entries if entry.index > index]
        self.base, self.membership = (index, term), membership


@dataclass
class Node:
    raft: Raft
    disk: Disk
    writes: list[Persist] = field(default_factory=list)
    applied: list[bytes] = field(default_factory=list)  # commands up to raft.applied
    applied_index: int = 0
    armed_ms: int = -1


class Group:
    """Some nodes, their network and their clocks. Everything is drawn from one seed."""

    def __init__(
        self,
        names: str = "abc",
        seed: int = 1,
        settings: Settings | None = None,
        *,
        learners: str = "",
        disk_ms: int = 2,
        keep: int = 5,
    ) -> None:
        self.rng = random.Random(seed)
        self.settings = settings or Settings(election_ms=100, heartbeat_ms=20)
        self.now_ms = 0
        self.disk_ms = disk_ms
        self.keep = keep  # entries that stay behind a snapshot
        self.nodes: dict[str, Node | None] = {}
        self.disks: dict[str, Disk] = {}
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.cut: set[tuple[str, str]] = set()
        self.loss = 0.0
        self.delay_ms = (1, 3)
        self.log: list[str] = []
        # What has ever been seen:
        self.leaders: dict[int, str] = {}
        self.committed: dict[int, Entry] = {}
        self.reads: dict[object, int] = {}  # asked: what was committed then
        self.answered: dict[object, int] = {}
        self.refusals: list[object] = []
        self.membership = Membership.of(names, learners)
        for name in names + learners:
            self.disks[name] = Disk(membership=self.membership)
            self.start(name)

    # --- nodes ------------------------------------------------------------------------------------------------------

    def start(self, name: str, membership: Membership | None = None) -> None:
        """From what its disk has; a new one begins with a membership that it is told."""
        if name not in self.disks:
            self.disks[name] = Disk(membership=membership or self.membership)
        disk = self.disks[name]
        raft = Raft(
            name,
            disk.membership,
            random.Random(self.rng.getrandbits(32)),
            self.now_ms,
            settings=self.settings,
            term=disk.term,
            vote=disk.vote,
            log=Log(*disk.base, list(disk.entries)),
        )
        node = Node(raft, disk, applied_index=disk.base[0])
        node.applied = [self.committed[at].data for at in range(1, disk.base[0] + 1)]
        self.nodes[name] = node
        self._arm(name)

    def crash(self, name: str) -> None:
        """What was not yet on disk is lost."""
        self.nodes[name] = None

    def node(self, name: str) -> Node:
        node = self.nodes[name]
        assert node is not None, f"{name} is down"
        return node

    @property
    def leader(self) -> str | None:
        """Of those that lead, the one with the highest term."""
        leading = [
            (node.raft.term, name) for name, node in self.nodes.items() if node and node.raft.role is Role.LEADER
        ]
        return max(leading)[1] if leading else None

    # --- time -------------------------------------------------------------------------------------------------------

    def at(self, delay_ms: int, call: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.now_ms + delay_ms, next(self.order), call))

    def run(self, ms: int) -> None:
        end_ms = self.now_ms + ms
        while self.queue and self.queue[0][0] <= end_ms:
            self.now_ms, _, call = heapq.heappop(self.queue)
            call()
        self.now_ms = end_ms

    def until(self, condition: Callable[[], object], most_ms: int = 5000) -> None:
        end_ms = self.now_ms + most_ms
        while not condition():
            assert self.now_ms < end_ms, "it did not happen"
            self.run(1)

    def _arm(self, name: str) -> None:
        """Step Tick at the node's alarm, as a shell does that looks at it after every step."""
        node = self.node(name)
        alarm_ms = max(node.raft.alarm_ms, self.now_ms + 1)
        if self.now_ms < node.armed_ms <= alarm_ms:
            return
        node.armed_ms = alarm_ms

        def tick() -> None:
            if self.nodes.get(name) is not node or node.armed_ms != alarm_ms:
                return
            if self.now_ms >= node.raft.alarm_ms:
                self.step(name, Tick())
            else:
                self._arm(name)

        self.at(alarm_ms - self.now_ms, tick)

    # --- what is done with outputs ----------------------------------------------------------------------------------

    def step(self, name: str, event) -> Outputs:
        node = self.node(name)
        out = node.raft.step(event, self.now_ms)
        self.check(name)
        for to, message in out.send:
            self.post(name, to, message)
        if out.persist is not None:
            self._write(name, node, out.persist)
        for entry in out.committed:
            self._apply(node, entry)
        if out.committed:
            self.step(name, Applied(out.committed[-1].index))
        for key, index in out.readable:
            assert index >= self.reads[key], f"read {key} answered from {index}, {self.reads[key]} was committed"
            self.answered[key] = index
        self.refusals += [(refused.event, refused.why) for refused in out.refused]
        for to in out.need_snapshot:
            self.at(self.rng.randint(1, 30), lambda to=to: self._send_snapshot(name, node, to))
        if self.nodes[name] is node:
            self._arm(name)
        return out

    def _write(self, name: str, node: Node, persist: Persist) -> None:
        """Writes end in order, each some time later."""
        node.writes.append(persist)

        def written() -> None:
            if self.nodes.get(name) is not node or not node.writes or node.writes[0].number > persist.number:
                return
            # One sync is for all that was written before it began.
            while node.writes and node.writes[0].number <= persist.number:
                done = node.writes.pop(0)
                node.disk.write(done)
                for to, message in done.then:
                    self.post(name, to, message)
            self.step(name, Persisted(persist.number))

        self.at(self.rng.randint(1, self.disk_ms), written)

    def _apply(self, node: Node, entry: Entry) -> None:
        assert entry.index == node.applied_index + 1
        node.applied_index = entry.index
        node.applied.append(entry.data)
        known = self.committed.setdefault(entry.index, entry)
        assert (known.term, known.data, known.kind) == (entry.term, entry.data, entry.kind), "one entry at an index"

    def post(self, sender: str, to: str, message) -> None:
        if (sender, to) in self.cut or self.rng.random() < self.loss:
            return
        copies = 2 if self.loss and self.rng.random() < self.loss / 2 else 1
        for _ in range(copies):
            self.at(self.rng.randint(*self.delay_ms), lambda: self._arrive(sender, to, message))

    def _arrive(self, sender: str, to: str, message) -> None:
        if self.nodes.get(to) is not None and (sender, to) not in self.cut:
            self.step(to, Receive(sender, message))

    def _send_snapshot(self, name: str, node: Node, to: str) -> None:
        if self.nodes.get(name) is not node:
            return
        raft = node.raft
        index = raft.applied
        term = raft.log.term_at(index)
        target = self.nodes.get(to)
        if target is None or term is None or {(name, to), (to, name)} & self.cut:
            self.at(20, lambda: self.nodes.get(name) is node and self.step(name, SnapshotSent(to, None)))
            return
        if raft.role is Role.LEADER and index > target.raft.commit:
            membership = raft.membership_at(index)
            same = target.raft.log.term_at(index) == term and raft.term >= target.raft.term
            if raft.term >= target.raft.term:
                target.disk.compact(index, term, membership, restart=not same)
                if not same:
                    target.writes = [
                        Persist(each.number, each.hard_state, None, (), each.then) for each in target.writes
                    ]
                else:
                    target.writes = [_after(each, index) for each in target.writes]
                target.applied = list(node.applied[:index])
                target.applied_index = index
            self.step(to, SnapshotInstalled(name, raft.term, index, term, membership))
        if self.nodes.get(name) is node:
            self.step(name, SnapshotSent(to, index))

    # --- asking -----------------------------------------------------------------------------------------------------

    def propose(self, name: str, *commands: bytes) -> Outputs:
        return self.step(name, Propose(commands))

    def read(self, name: str, key: object, *, lease: bool = False) -> None:
        self.reads[key] = max(self.committed, default=0)
        self.step(name, Read(key, lease))

    def compact(self, name: str) -> None:
        """As a shell that has made a snapshot of its state."""
        node = self.node(name)
        index = node.raft.applied - self.keep
        if node.disk.base[0] < index <= node.raft.persisted:
            term = node.raft.log.term_at(index)
            node.disk.compact(index, term, node.raft.membership_at(index))
            self.step(name, Compact(index))

    def change(self, name: str, voters: str, learners: str = "") -> Outputs:
        return self.step(name, Change(Membership.of(voters, learners)))

    def transfer(self, name: str, to: str) -> Outputs:
        return self.step(name, Transfer(to))

    # --- invariants -------------------------------------------------------------------------------------------------

    def check(self, name: str) -> None:
        node = self.node(name)
        raft = node.raft
        if raft.role is Role.LEADER:
            assert self.leaders.setdefault(raft.term, name) == name, "one leader in a term"
            for index, entry in self.committed.items():
                if index > raft.log.base_index and entry.term <= raft.term:
                    assert raft.log.term_at(index) == entry.term, "a leader has all that is committed"
        assert raft.commit <= raft.log.last_index
        assert raft.persisted <= raft.log.last_index
        assert raft.log.base_index <= raft.applied <= raft.commit
        for other in self.nodes.values():
            if other is None or other is node:
                continue
            ours, theirs = raft.log, other.raft.log
            last = min(ours.last_index, theirs.last_index)
            first = max(ours.base_index, theirs.base_index)
            while last > first and ours.term_at(last) != theirs.term_at(last):
                last -= 1
            if ours.term_at(last) != theirs.term_at(last):
                continue  # they agree nowhere that can be seen
            for index in range(max(first, last - 20), last + 1):
                assert ours.term_at(index) == theirs.term_at(index), "where logs agree, they agree on all before"

    def check_the_end(self) -> None:
        """When all is well again: everybody has the same."""
        states = [node.applied for node in self.nodes.values() if node is not None]
        longest = max(states, key=len)
        assert all(state == longest[: len(state)] for state in states)


def _after(persist: Persist, index: int | None) -> Persist:
    """What is left to write when the log begins behind `index`, or (None) anew."""
    entries = [] if index is None else [entry for entry in persist.entries if entry.index > index]
    truncate = None if index is None else persist.truncate
    return Persist(persist.number, persist.hard_state, truncate, entries, persist.then)


def run_with_random_faults(seed: int) -> Group:
    """Crashes, partitions one-way and both, loss, doubled and late messages, slow disks, changes of members; then all
    is well again, and what is proposed must get through."""
    group = Group("abcde"[: 3 + seed % 3], seed, learners="f" if seed % 4 == 0 else "", disk_ms=1 + seed % 7 * 6)
    rng = group.rng
    names = list(group.nodes)
    number = 0
    for _ in range(60):
        group.run(rng.randrange(60))
        move = rng.random()
        if move < 0.12:
            name = rng.choice(names)
            (group.start if group.nodes[name] is None else group.crash)(name)
        elif move < 0.2:
            group.cut = {(x, y) for x in names for y in names if x != y and rng.random() < 0.25}
        elif move < 0.28:
            group.cut = set()
        elif move < 0.33:
            group.loss, group.delay_ms = rng.choice([(0.0, (1, 3)), (0.2, (1, 3)), (0.1, (1, 80))])
        elif move < 0.4:
            name = rng.choice(names)
            if group.nodes[name] is not None:
                group.crash(name)
                group.start(name)
        leader = group.leader
        if leader is None:
            continue
        for _ in range(rng.randrange(4)):
            number += 1
            group.propose(leader, b"%d" % number)
        asked = rng.choice([name for name in names if group.nodes[name]])
        group.read(asked, (number, move), lease=rng.random() < 0.5)
        if move > 0.97:
            group.transfer(leader, rng.choice(names))
        elif move > 0.93:
            count = rng.randrange(1, len(names) + 1)
            group.change(leader, "".join(sorted(rng.sample(names, count))))
        elif move > 0.85:
            group.compact(rng.choice([name for name in names if group.nodes[name]]))
    group.cut, group.loss, group.delay_ms, group.disk_ms = set(), 0.0, (1, 3), 2
    for name in names:
        if group.nodes[name] is None:
            group.start(name)
    group.run(300)

    def settled():
        """A leader has taken the last command, and committed it."""
        if group.leader is None or group.node(group.leader).raft.changing:
            return False
        if group.now_ms % 100 == 0:
            group.propose(group.leader, b"last")
        return b"last" in group.node(group.leader).applied

    group.until(settled, 10_000)
    group.run(500)
    members = group.node(group.leader).raft.membership.members
    assert all(b"last" in group.node(name).applied for name in members)
    group.check_the_end()
    assert len(group.committed) > 1
    return group


@pytest.fixture(scope="session")
def random_run() -> Callable[[int], Group]:
    return run_with_random_faults


@pytest.fixture(scope="session")
def group_type() -> type[Group]:
    return Group


@pytest.fixture
def group() -> Group:
    return Group()
