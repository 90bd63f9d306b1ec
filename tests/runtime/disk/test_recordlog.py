"""The record log: group commit, what an acknowledgement means, full and failing disks, removing from both ends."""

import asyncio
import random

import pytest

from minidist.runtime.disk import DiskFailed, DiskFull, FileClosed, OpenMode
from minidist.runtime.disk.faults import DiskFault, DiskFaultKind
from minidist.runtime.disk.recordlog import (
    FsyncPolicy,
    LogLimits,
    LogOverloaded,
    LogState,
    RecordLog,
    RecordTruncated,
)

SMALL = LogLimits(segment_bytes=4096)


async def open_log(disk, **options):
    """The log, with what it recovered in `.replayed`."""
    replayed = []
    options.setdefault("limits", SMALL)
    log = await RecordLog.open(
        disk, "log", rng=random.Random(7), on_record=lambda sequence, payload: replayed.append((sequence, payload)),
        **options,
    )  # fmt: skip
    log.replayed = replayed
    return log


async def read_all(log, start=None):
    return [record async for record in log.records(log.first_sequence if start is None else start)]


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_records_are_numbered_committed_read_and_recovered(disk):
    log = await open_log(disk)
    assert (log.first_sequence, log.next_sequence, log.committed_sequence) == (1, 1, 0)
    assert [log.append(b"a"), log.append(b""), log.append(b"c" * 3000)] == [1, 2, 3]
    await log.committed(3)
    await log.committed(1)
    expected = [(1, b"a"), (2, b""), (3, b"c" * 3000)]
    assert await read_all(log) == expected
    assert [record async for record in log.records(2, 3)] == [(2, b"")]
    await log.close()
    log = await open_log(disk)
    assert log.replayed == expected
    assert log.recovery.records == 3
    assert log.recovery.cut_bytes == 0
    assert log.append(b"d") == 4
    await log.close()


async def test_a_new_log_may_begin_anywhere(disk):
    log = await open_log(disk, first_sequence=1000)
    assert log.append(b"a") == 1000
    await log.close()
    log = await open_log(disk, first_sequence=1)
    assert log.replayed == [(1000, b"a")]
    await log.close()


async def test_appends_of_one_turn_share_one_sync(disk):
    log = await open_log(disk)
    before = disk.figures.syncs
    sequences = [log.append(b"x" * 50) for _ in range(60)]
    await asyncio.gather(*(log.committed(sequence) for sequence in sequences))
    assert disk.figures.syncs - before == 1
    await log.close()


async def test_what_is_appended_during_a_sync_goes_into_the_next(disk):
    log = await open_log(disk, limits=LogLimits())
    disk.faults.add(DiskFault(DiskFaultKind.SLOW, ms=5))
    before = disk.figures.syncs

    async def writer():
        for _ in range(5):
            await log.committed(log.append(b"x"))

    await asyncio.gather(*(writer() for _ in range(64)))
    assert log.committed_sequence == 320
    assert disk.figures.syncs - before <= 12
    await log.close()


async def test_on_commit_is_called_once_per_group_in_order(disk):
    commits = []
    log = await open_log(disk, on_commit=commits.append)
    for _ in range(3):
        last = [log.append(b"x") for _ in range(10)][-1]
        await log.committed(last)
    assert commits == [10, 20, 30]
    await log.close()


async def test_a_large_group_is_written_in_parts(disk):
    log = await open_log(disk)
    sequences = [log.append(b"x" * 10) for _ in range(5000)]
    big = log.append(b"y" * 3_000_000)
    await log.committed(big)
    await log.close()
    log = await open_log(disk)
    assert [sequence for sequence, _ in log.replayed] == [*sequences, big]
    assert log.replayed[-1][1] == b"y" * 3_000_000
    await log.close()


async def test_segments_follow_one_another_and_the_ended_ones_give_back_their_room(disk):
    log = await open_log(disk)
    for n in range(20):
        await log.committed(log.append(b"%04d" % n * 250))
    names = await disk.list("log")
    assert len(names) > 4
    sizes = [(await disk.stat(f"log/{name}")).size for name in names]
    assert max(sizes[:-1]) < 4096
    assert sizes[-1] == 4096
    assert await read_all(log, 7) == [(n + 1, b"%04d" % n * 250) for n in range(6, 20)]
    await log.close()
    log = await open_log(disk)
    assert [sequence for sequence, _ in log.replayed] == list(range(1, 21))
    await log.close()


@pytest.mark.parametrize("policy", [FsyncPolicy.EVERY_SECOND, FsyncPolicy.NEVER])
async def test_lazy_policies_commit_without_a_sync_and_sync_on_request(disk, policy):
    log = await open_log(disk, policy=policy)
    before = disk.figures.syncs
    await log.committed(log.append(b"x"))
    assert (log.committed_sequence, log.durable_sequence) == (1, 0)
    assert disk.figures.syncs == before
    await log.sync()
    await log.sync()
    assert log.durable_sequence == 1
    assert disk.figures.syncs == before + 1
    await log.close()


async def test_every_second_syncs_by_itself(disk, monkeypatch):
    monkeypatch.setattr("minidist.runtime.disk.recordlog.SYNC_EVERY_S", 0.01)
    log = await open_log(disk, policy=FsyncPolicy.EVERY_SECOND)
    await log.committed(log.append(b"x"))
    await until(lambda: log.durable_sequence == 1)
    syncs = disk.figures.syncs
    await log.committed(log.append(b"y"))
    await until(lambda: log.durable_sequence == 2)
    assert disk.figures.syncs == syncs + 1
    await log.close()


async def test_a_failed_sync_ends_the_log_and_tells_the_node(disk):
    failures = []
    disk.on_failed(failures.append)
    log = await open_log(disk)
    await log.committed(log.append(b"kept"))
    disk.faults.add(DiskFault(DiskFaultKind.FAILING_FSYNC, times=1))
    first, second = log.append(b"x"), log.append(b"y")
    outcomes = await asyncio.gather(log.committed(first), log.committed(second), log.sync(), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DiskFailed] * 3
    assert log.state is LogState.FAILED
    assert log.committed_sequence == 1
    assert len(failures) == 1
    for refused in (lambda: log.committed(2), log.sync, lambda: log.truncate_after(1)):
        with pytest.raises(DiskFailed):
            await refused()
    with pytest.raises(DiskFailed):
        log.append(b"z")
    await log.close()


async def test_a_full_disk_refuses_at_the_door_and_recovers_by_itself(disk):
    log = await open_log(disk)
    fault = DiskFault(DiskFaultKind.FULL)
    disk.faults.add(fault)
    with pytest.raises(DiskFull):
        log.append(b"refused")
    disk.faults.remove(fault)
    await log.committed(log.append(b"taken"))
    assert await read_all(log) == [(1, b"taken")]
    await log.close()


async def test_what_was_taken_before_the_disk_was_full_is_kept_in_order(disk):
    log = await open_log(disk)
    disk.faults.add(DiskFault(DiskFaultKind.FULL, times=2))
    sequences = [log.append(b"%d" % n) for n in range(3)]
    outcomes = await asyncio.gather(*map(log.committed, sequences), log.sync(), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DiskFull] * 4
    assert log.state is LogState.FULL
    with pytest.raises(DiskFull):
        log.append(b"refused")
    with pytest.raises(DiskFull):
        await log.committed(2)
    await until(lambda: log.state is LogState.OPEN)
    assert log.committed_sequence == 3
    await log.committed(log.append(b"3"))
    expected = [(n + 1, b"%d" % n) for n in range(4)]
    assert await read_all(log) == expected
    await log.close()
    log = await open_log(disk)
    assert log.replayed == expected
    await log.close()


async def test_a_disk_that_is_full_when_a_segment_begins(disk):
    log = await open_log(disk)
    await log.committed(log.append(b"a" * 3900))
    disk.faults.add(DiskFault(DiskFaultKind.FULL, times=1))
    with pytest.raises(DiskFull):
        await log.committed(log.append(b"b" * 500))
    await until(lambda: log.committed_sequence == 2)
    await log.close()
    log = await open_log(disk)
    assert [sequence for sequence, _ in log.replayed] == [1, 2]
    await log.close()


async def test_closing_on_a_full_disk_does_not_wait_for_room(disk):
    log = await open_log(disk)
    disk.faults.add(DiskFault(DiskFaultKind.FULL, probability=0.999999))
    with pytest.raises(DiskFull):
        await log.committed(log.append(b"x"))
    await log.close()
    disk.faults.clear()
    log = await open_log(disk)
    assert log.append(b"y") == 1
    await log.close()


async def test_limits(disk):
    log = await open_log(disk, limits=LogLimits(segment_bytes=4096, max_record_bytes=1000, max_pending_bytes=2000))
    with pytest.raises(ValueError, match="at most 1000"):
        log.append(b"x" * 1001)
    log.append(b"x" * 1000)
    with pytest.raises(LogOverloaded, match="wait for the disk"):
        log.append(b"x" * 1000)
    await log.committed(1)
    assert log.pending_bytes == 0
    assert log.append(b"x") == 2
    with pytest.raises(ValueError, match="not been appended"):
        await log.committed(3)
    await log.close()
    with pytest.raises(FileClosed):
        log.append(b"x")
    await log.close()
    with pytest.raises(ValueError):
        LogLimits(max_record_bytes=1 << 31)


async def test_close_writes_what_was_appended(disk):
    log = await open_log(disk, policy=FsyncPolicy.NEVER)
    waiting = asyncio.ensure_future(log.committed(log.append(b"x")))
    await asyncio.sleep(0)
    await log.close()
    await waiting
    log = await open_log(disk)
    assert log.replayed == [(1, b"x")]
    await log.close()


async def test_truncate_before_drops_whole_old_segments(disk):
    log = await open_log(disk)
    for _ in range(12):
        await log.committed(log.append(b"x" * 1900))
    await log.truncate_before(6)
    assert log.first_sequence == 5
    assert [sequence for sequence, _ in await read_all(log)] == list(range(5, 13))
    with pytest.raises(RecordTruncated):
        await read_all(log, 4)
    await log.truncate_before(100)
    assert log.first_sequence == 11
    await log.close()
    log = await open_log(disk)
    assert [sequence for sequence, _ in log.replayed] == [11, 12]
    await log.close()


@pytest.mark.parametrize("after", range(11))
async def test_truncate_after_removes_from_the_end(disk, after):
    log = await open_log(disk)
    for n in range(10):
        await log.committed(log.append(b"%d" % n * 1300))
    await log.truncate_after(after)
    assert (log.next_sequence, log.committed_sequence) == (after + 1, after)
    for n in range(after, after + 5):
        await log.committed(log.append(b"new %d" % n))
    expected = [(n + 1, b"%d" % n * 1300) for n in range(after)]
    expected += [(n + 1, b"new %d" % n) for n in range(after, after + 5)]
    assert await read_all(log) == expected
    await log.close()
    log = await open_log(disk)
    assert log.replayed == expected
    await log.close()


async def test_truncate_after_drops_what_is_not_yet_written(disk):
    log = await open_log(disk)
    await log.committed(log.append(b"1"))
    pending = [asyncio.ensure_future(log.committed(log.append(b"%d" % n))) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    async with log._turn:  # nothing is in flight now
        truncating = asyncio.ensure_future(log.truncate_after(1))
        written = log.committed_sequence
    await truncating
    outcomes = await asyncio.gather(*pending, return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, RecordTruncated) for outcome in outcomes)
    assert written in (1, 4)
    await log.committed(log.append(b"again"))
    assert await read_all(log) == [(1, b"1"), (2, b"again")]
    with pytest.raises(ValueError, match="before the first"):
        await log.truncate_after(-1)
    await log.close()


async def test_what_a_full_disk_took_of_a_dropped_write_does_not_come_back(disk):
    """Records of the same length in the same place: what is left of the dropped write must not pass for successors."""
    log = await open_log(disk)
    disk.faults.add(DiskFault(DiskFaultKind.FULL, probability=0.999999))
    for n in range(3):
        log.append(b"old%d" % n)
    with pytest.raises(DiskFull):
        await log.committed(3)
    segment = log._segments[-1]
    disk.faults.clear()
    async with log._turn:
        from minidist.runtime.disk import recordformat

        left = recordformat.encode_records(segment.marker, 1, 0, [b"old0", b"old1", b"old2"])
        await segment.file.write_at(segment.end, left)
        truncating = asyncio.ensure_future(log.truncate_after(0))
        await asyncio.sleep(0)
    await truncating
    assert log.state is LogState.OPEN
    await log.committed(log.append(b"new0"))
    await log.close()
    log = await open_log(disk)
    assert log.replayed == [(1, b"new0")]
    await log.close()


async def test_leftovers_of_a_crash_while_a_segment_was_made_are_removed(disk):
    await (await open_log(disk)).close()
    file = await disk.open("log/new.tmp", OpenMode.CREATE)
    await file.append(b"half")
    await file.close()
    log = await open_log(disk)
    assert len(await disk.list("log")) == 1
    await log.close()


async def test_writers_while_the_head_is_dropped_and_the_log_is_read(disk):
    log = await open_log(disk)

    async def writer():
        for n in range(40):
            await log.committed(log.append(b"%d" % n * 100))

    async def reader():
        while log.committed_sequence < 160:
            seen = [sequence for sequence, _ in await read_all(log)]
            assert seen == list(range(seen[0], seen[0] + len(seen))) if seen else True
            await log.truncate_before(log.committed_sequence - 20)
            await asyncio.sleep(0)

    await asyncio.gather(*(writer() for _ in range(4)), reader())
    assert log.next_sequence == 161
    await log.close()
