"""The record log: numbered records that are kept, on any Disk.

    log = await RecordLog.open(disk, "log", on_record=replay)      recovery hands over each record that is there
    sequence = log.append(payload)                                 takes it and returns at once
    await log.committed(sequence)                                  now it may be acknowledged

Group commit: one write with one sync is under way at a time, and everything appended meanwhile goes into the next one.
So the number of syncs follows the disk and not the number of writers, and a lone writer waits for one sync only. What
`committed` means is the policy's: `always` synced; `every-second` and `never` written, so that it survives the death of
the process, while a loss of power takes what came after the last sync (at most about a second; for `never` at most
what is in the segment being written, because a segment is synced before the next one begins).

Records live in segment files of a directory (recordformat.py); room for a segment is allocated when it is begun. At
`open` the tail that a crash tore is cut and reported in `recovery`; damage to what was durable raises CorruptRecord.

A full disk: what was appended and not yet written is kept in its order and tried again every 100 ms; until that works
`append` raises DiskFull (certainly no effect), and so does `committed` of what is kept (it may still become durable:
the outcome is unknown). A disk that fails ends the log: everything raises DiskFailed, and the node stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from minidist.runtime.disk import recordformat as form
from minidist.runtime.disk.group import Group
from minidist.runtime.disk.port import Disk, DiskError, DiskFailed, DiskFull, File, FileClosed, OpenMode
from minidist.runtime.disk.recovery import OnRecord, Recovery, recover
from minidist.runtime.disk.segment import CorruptRecord, Segment, create_segment

SYNC_EVERY_S = 1.0
RETRY_WHEN_FULL_S = 0.1


class FsyncPolicy(Enum):
    """When `committed` holds, and how often the disk is synced."""

    ALWAYS = "always"
    EVERY_SECOND = "every-second"
    NEVER = "never"


class LogState(Enum):
    OPEN = "open"
    FULL = "full"  # the disk is; keeps trying
    FAILED = "failed"
    CLOSED = "closed"


class LogOverloaded(DiskError):
    """More is waiting to be written than `max_pending_bytes`: the disk is slower than the writers. No effect."""


class RecordTruncated(DiskError):
    """The record was removed by `truncate_after` before it was committed."""


@dataclass(frozen=True, kw_only=True)
class LogLimits:
    """Sizes in bytes."""

    segment_bytes: int = 16 << 20  # a new file every so often costs two syncs; dropping old records goes by files
    max_record_bytes: int = 64 << 20  # a record is in memory as a whole, at recovery too
    max_pending_bytes: int = 64 << 20  # a disk of 100 MB/s is then less than a second behind

    def __post_init__(self) -> None:
        if not 0 < self.max_record_bytes <= form.MAX_PAYLOAD_BYTES:
            raise ValueError(f"max_record_bytes is 1 to {form.MAX_PAYLOAD_BYTES}")


class RecordLog:
    """Made by `open`. Sequences are consecutive; the first record of a new log has `first_sequence`."""

    def __init__(self, disk: Disk, directory: str, rng: random.Random, policy: FsyncPolicy, limits: LogLimits) -> None:
        self.recovery = Recovery()
        self._disk = disk
        self._directory = directory
        self._rng = rng
        self._policy = policy
        self._limits = limits
        self._on_commit: Callable[[int], None] | None = None
        self._state = LogState.OPEN
        self._segments: list[Segment] = []  # the last one is written to
        self._next = 0  # of the record that is appended next
        self._written = self._durable = -1
        self._groups: deque[Group] = deque()  # the last one takes more records, unless it is in flight
        self._in_flight: Group | None = None  # always the first
        self._pending_bytes = 0
        self._half_written = False  # a write was refused as full: a part of it may be there
        self._syncers: list[tuple[int, asyncio.Future[None]]] = []
        self._sync_due = False
        self._sync_timer: asyncio.TimerHandle | None = None
        self._sleeper: asyncio.Future[None] | None = None
        self._turn = asyncio.Lock()  # whoever holds it changes files
        self._loop = asyncio.get_running_loop()
        self._committer: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, disk: Disk, directory: str, *, rng: random.Random, on_record: OnRecord | None = None,
        on_commit: Callable[[int], None] | None = None, policy: FsyncPolicy = FsyncPolicy.ALWAYS,
        limits: LogLimits | None = None, first_sequence: int = 1,
    ) -> RecordLog:  # fmt: skip
        """Opens or creates the log in `directory`, and calls `on_record(sequence, payload)` for each record in order.

        What was recovered is durable when this returns. `on_commit(sequence)` is called after each group with the last
        committed sequence: one call per sync, for those who hold replies back. `rng` makes the segments' markers.
        Raises CorruptRecord, UnknownFormat, DiskFull, DiskFailed.
        """
        log = cls(disk, directory, rng, policy, limits or LogLimits())
        log._on_commit = on_commit
        await disk.make_directory(directory)
        room = log._limits.segment_bytes
        log._segments, log._next, log.recovery = await recover(disk, directory, on_record, room)
        if not log._segments:
            log._next = first_sequence
            log._segments.append(await create_segment(disk, directory, log._new_header(first_sequence), room))
        log._written = log._durable = log._next - 1
        log._committer = asyncio.create_task(log._commit_groups(), name=f"record log {directory}")
        return log

    @property
    def state(self) -> LogState:
        return self._state

    @property
    def first_sequence(self) -> int:
        """Of the oldest record that is kept (of the next one, when there is none)."""
        return self._segments[0].first_sequence

    @property
    def next_sequence(self) -> int:
        return self._next

    @property
    def committed_sequence(self) -> int:
        """The last one that may be acknowledged; one less than `first_sequence` when there is none."""
        return self._durable if self._policy is FsyncPolicy.ALWAYS else self._written

    @property
    def durable_sequence(self) -> int:
        return self._durable

    @property
    def pending_bytes(self) -> int:
        return self._pending_bytes

    # Appending.

    def append(self, payload: bytes) -> int:
        """Takes a record and gives its sequence. It is not committed yet: await `committed`, or use `on_commit`.

        Raises, without any effect: DiskFull, DiskFailed, FileClosed, LogOverloaded, ValueError (record too large).
        """
        if self._state is not LogState.OPEN or self._disk.full:
            self._refuse()
        if len(payload) > self._limits.max_record_bytes:
            raise ValueError(f"a record of {len(payload)} bytes; at most {self._limits.max_record_bytes} are allowed")
        size = form.RECORD_HEADER_BYTES + len(payload)
        if self._pending_bytes + size > self._limits.max_pending_bytes and self._pending_bytes:
            raise LogOverloaded("append", self._directory, f"{self._pending_bytes} bytes wait for the disk")
        sequence = self._next
        group = self._groups[-1] if self._groups else None
        if group is None or group is self._in_flight or not group.takes(size):
            group = Group(sequence)
            self._groups.append(group)
        group.payloads.append(payload)
        group.size += size
        self._pending_bytes += size
        self._next = sequence + 1
        if self._sleeper is not None:
            self._wake()
        return sequence

    async def committed(self, sequence: int) -> None:
        """Waits until the record is committed, as the policy has it.

        Raises DiskFull (kept; it may become durable later), DiskFailed, FileClosed, RecordTruncated: in none of these
        cases is it known that the record has no effect. ValueError when no record has this sequence yet.
        """
        if sequence <= self.committed_sequence:
            return
        if sequence >= self._next:
            raise ValueError(f"record {sequence} has not been appended")
        if self._state is not LogState.OPEN:
            self._refuse()
        future = self._loop.create_future()
        group = next(group for group in self._groups if sequence <= group.last)
        group.waiters.append((sequence, future))
        await future

    async def sync(self) -> None:
        """Waits until everything appended so far is durable, whatever the policy. Raises as `committed`."""
        if self._state is not LogState.OPEN:
            self._refuse()
        if self._durable < self._next - 1:
            future = self._loop.create_future()
            self._syncers.append((self._next - 1, future))
            self._wake()
            await future

    def _refuse(self) -> NoReturn:
        if self._state is LogState.CLOSED:
            raise FileClosed("use", self._directory, "the log has been closed")
        if self._state is LogState.FAILED:
            raise DiskFailed("use", self._directory, "the disk has failed this log")
        raise DiskFull("write", self._directory, "no space left")

    # Committing. One task for the life of the log.

    async def _commit_groups(self) -> None:
        try:
            while self._state is not LogState.CLOSED or self._has_work():
                if not self._has_work():
                    await self._sleep(None)
                    continue
                try:
                    async with self._turn:
                        await self._commit_one()
                except DiskFull as error:
                    if self._state is LogState.CLOSED:
                        self._fail_waiters(error)
                        return
                    self._become_full(error)
                    await self._sleep(RETRY_WHEN_FULL_S)
        except DiskError as error:
            self._become_failed(error)
        except Exception:
            self._become_failed(DiskFailed("write", self._directory, "a bug in the program"))
            raise

    def _has_work(self) -> bool:
        return bool(self._groups or self._syncers or self._sync_due)

    async def _sleep(self, at_most_s: float | None) -> None:
        self._sleeper = self._loop.create_future()
        timer = self._loop.call_later(at_most_s, self._wake) if at_most_s is not None else None
        await self._sleeper
        if timer is not None:
            timer.cancel()

    def _wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)
            self._sleeper = None

    async def _commit_one(self) -> None:
        """Writes the first group, or syncs when there is none but somebody wants it."""
        if not self._groups:
            await self._current.sync()
            self._became_durable(self._written)
            return
        group = self._in_flight = self._groups[0]
        try:
            synced = await self._write(group)
        finally:
            self._in_flight = None
        self._groups.popleft()
        self._pending_bytes -= group.size
        self._written = group.last
        self._become_open()
        if synced:
            self._became_durable(group.last)
        elif self._policy is FsyncPolicy.EVERY_SECOND and self._sync_timer is None:
            self._sync_timer = self._loop.call_later(SYNC_EVERY_S, self._sync_is_due)
        for _, future in group.waiters:
            if not future.done():
                future.set_result(None)
        if self._on_commit is not None:
            self._on_commit(self.committed_sequence)

    async def _write(self, group: Group) -> bool:
        """True when the group was synced too."""
        sync = self._policy is FsyncPolicy.ALWAYS or self._sync_due or bool(self._syncers)
        segment = self._segments[-1]
        if segment.end + group.size > segment.room and segment.first_sequence < group.first:
            segment = await self._roll(group.first)
        data = form.encode_records(segment.marker, group.first, self._durable, group.payloads)
        try:
            await self._current.write_at(segment.end, data, sync=sync)
        except DiskFull:
            self._half_written = True
            raise
        self._half_written = False
        segment.mark(group.first, segment.end)
        segment.end += len(data)
        segment.room = max(segment.room, segment.end)
        return sync

    async def _roll(self, first_sequence: int) -> Segment:
        """Ends the current segment, durably and without its unused room, and begins the next."""
        ended = self._segments[-1]
        await self._current.truncate(ended.end)
        ended.room = ended.end
        await self._current.sync()
        self._became_durable(self._written)
        header = self._new_header(first_sequence)
        segment = await create_segment(self._disk, self._directory, header, self._limits.segment_bytes)
        self._segments.append(segment)
        assert ended.file is not None
        await ended.file.close()
        ended.file = None
        return segment

    def _new_header(self, first_sequence: int) -> form.SegmentHeader:
        return form.SegmentHeader(self._rng.randrange(1, 1 << 32), first_sequence)

    @property
    def _current(self) -> File:
        file = self._segments[-1].file
        assert file is not None
        return file

    def _sync_is_due(self) -> None:
        self._sync_timer = None
        self._sync_due = True
        self._wake()

    def _became_durable(self, sequence: int) -> None:
        self._durable = sequence
        self._sync_due = False
        if self._sync_timer is not None:
            self._sync_timer.cancel()
            self._sync_timer = None
        waiting, self._syncers = self._syncers, []
        for wanted, future in waiting:
            if wanted > sequence:
                self._syncers.append((wanted, future))
            elif not future.done():
                future.set_result(None)

    def _become_open(self) -> None:
        if self._state is LogState.FULL:
            self._state = LogState.OPEN

    def _become_full(self, error: DiskFull) -> None:
        self._state = LogState.FULL
        self._fail_waiters(error)

    def _become_failed(self, error: DiskError) -> None:
        """Whatever it was that went wrong, what was promised can no longer be kept: the node has to stop."""
        if self._state is not LogState.CLOSED:
            self._state = LogState.FAILED
        self._fail_waiters(error)
        self._groups.clear()
        if not isinstance(error, DiskFailed):
            self._disk.report_failed(DiskFailed(error.operation, error.path, error.reason))

    def _fail_waiters(self, error: DiskError) -> None:
        waiting = [waiter for group in self._groups for waiter in group.waiters] + self._syncers
        for group in self._groups:
            group.waiters.clear()
        self._syncers = []
        for _, future in waiting:
            if not future.done():
                future.set_exception(type(error)(error.operation, error.path, error.reason))

    # Removing, reading, closing.

    async def truncate_before(self, sequence: int) -> None:
        """Removes the segments that hold only records before `sequence`. The current segment always stays."""
        async with self._turn:
            self._refuse_unless_alive()
            while len(self._segments) > 1 and self._segments[1].first_sequence <= sequence:
                await self._disk.remove(self._segments[0].path)
                # One after the other, so that a crash leaves no gap.
                await self._disk.sync_directory(self._directory)
                del self._segments[0]

    async def truncate_after(self, sequence: int) -> None:
        """Removes all records after `sequence`, durably; the next one appended has `sequence + 1`.

        Who waits for one of them gets RecordTruncated. ValueError when `sequence` is before what is kept.
        """
        if sequence < self.first_sequence - 1:
            raise ValueError(f"record {sequence} is before the first one that is kept, {self.first_sequence}")
        async with self._turn:
            self._refuse_unless_alive()
            if sequence >= self._next - 1:
                return
            self._drop_pending(sequence)
            if self._written > sequence:
                await self._cut_segments(sequence)
            elif self._half_written:
                # Else a part of what was dropped could be taken for records that follow.
                await self._segments[-1].cut(self._segments[-1].end, self._limits.segment_bytes)
            self._half_written = False
            if not self._groups:
                self._become_open()
            self._next = sequence + 1
            self._written = min(self._written, sequence)
            self._durable = min(self._durable, sequence)

    def _drop_pending(self, after: int) -> None:
        gone: list[asyncio.Future[None]] = []
        for group in self._groups:
            dropped, waiting = group.drop_after(after)
            self._pending_bytes -= dropped
            gone += waiting
        self._groups = deque(group for group in self._groups if group.payloads)
        self._syncers = [(min(sequence, after), future) for sequence, future in self._syncers]
        for future in gone:
            if not future.done():
                future.set_exception(RecordTruncated("commit", self._directory, f"truncated after record {after}"))

    async def _cut_segments(self, after: int) -> None:
        while len(self._segments) > 1 and self._segments[-1].first_sequence > after + 1:
            await self._current.close()
            # The newest first, so that a crash leaves no gap.
            await self._disk.remove(self._segments[-1].path)
            await self._disk.sync_directory(self._directory)
            del self._segments[-1]
            if self._segments[-1].file is None:
                self._segments[-1].file = await self._disk.open(self._segments[-1].path, OpenMode.WRITE)
        offset = await self._segments[-1].offset_of(after + 1)
        await self._segments[-1].cut(offset, self._limits.segment_bytes)

    async def records(self, start: int, stop: int | None = None) -> AsyncIterator[tuple[int, bytes]]:
        """The committed records from `start` up to, without, `stop` (None: all), as (sequence, payload).

        Raises RecordTruncated when one of them is not kept (any more), CorruptRecord when it is damaged.
        """
        stop = self.committed_sequence + 1 if stop is None else min(stop, self.committed_sequence + 1)
        if start < self.first_sequence:
            raise RecordTruncated("read", self._directory, f"record {start} is no longer kept")
        while start < stop:
            segment = next(s for s in reversed(self._segments) if s.first_sequence <= start)
            file = await self._disk.open(segment.path)
            try:
                walk = segment.walk_from(file, start)
                while start < stop and (batch := await walk.batch()):
                    for sequence, _, payload in batch:
                        if start <= sequence < stop:
                            start = sequence + 1
                            yield sequence, payload
            finally:
                await file.close()
            if start < stop and all(s.first_sequence != start for s in self._segments):
                if segment in self._segments and walk.offset < segment.end:
                    raise CorruptRecord(segment.path, walk.offset, walk.why)
                raise RecordTruncated("read", self._directory, f"record {start} is no longer kept")

    async def close(self) -> None:
        """Writes and syncs what was appended (unless the disk is full or has failed), and closes the files."""
        if self._state is LogState.CLOSED:
            return
        was_failed = self._state is LogState.FAILED
        self._state = LogState.CLOSED
        self._wake()
        assert self._committer is not None
        try:
            await self._committer
            if not was_failed and not self._groups:
                with contextlib.suppress(DiskFull):
                    await self._seal()
        finally:
            if self._sync_timer is not None:
                self._sync_timer.cancel()
            await self._current.close()

    async def _seal(self) -> None:
        await self._current.sync()
        segment = self._segments[-1]
        await self._current.write_at(segment.end, form.encode_seal(segment.marker, self._next), sync=True)

    def _refuse_unless_alive(self) -> None:
        if self._state in (LogState.CLOSED, LogState.FAILED):
            self._refuse()
