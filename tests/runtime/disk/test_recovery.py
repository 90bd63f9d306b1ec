"""What a crash may leave of a record log, and what recovery makes of it: a torn tail is cut, damage is refused."""

import asyncio
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidist.runtime.disk import recordformat
from minidist.runtime.disk.local import LocalDisk
from minidist.runtime.disk.recordlog import FsyncPolicy, LogLimits, RecordLog
from minidist.runtime.disk.segment import CorruptRecord, UnknownFormat

HEADER = recordformat.SEGMENT_HEADER_BYTES
RECORD = recordformat.RECORD_HEADER_BYTES


async def recover(root, limits=None):
    """(records, report of the recovery) of the log in `root`; it is left as a crash would leave it: without a seal."""
    disk = await LocalDisk.open_root(str(root))
    records = []
    try:
        log = await RecordLog.open(
            disk, "log", rng=random.Random(1), on_record=lambda *record: records.append(record), limits=limits
        )
        log._committer.cancel()
        return records, log.recovery
    finally:
        await disk.close()


async def write(root, groups, *, close=False, limits=None, policy=FsyncPolicy.ALWAYS):
    """Writes each list of payloads as one group, then crashes (or closes); gives the end of the data."""
    disk = await LocalDisk.open_root(str(root))
    log = await RecordLog.open(disk, "log", rng=random.Random(1), limits=limits or LogLimits(segment_bytes=2048),
                               policy=policy)  # fmt: skip
    for group in groups:
        await log.committed([log.append(payload) for payload in group][-1])
    end = log._segments[-1].end
    if close:
        await log.close()
        end += RECORD
    else:
        log._committer.cancel()
    await disk.close()
    return end


def segment_files(root: Path) -> list[Path]:
    return sorted((root / "log").iterdir())


def numbered(groups):
    return list(enumerate([payload for group in groups for payload in group], 1))


GROUPS = [[b"one"], [b"two", b"zwei"], [b"three", b"drei", b"trois"]]
KEPT_BEFORE_LAST = numbered(GROUPS[:2])


async def test_the_tail_may_be_cut_at_every_byte(tmp_path):
    """The file ends there, or zeros begin there: what was whole before is kept, nothing else is made up."""
    end = await write(tmp_path, GROUPS)
    (path,) = segment_files(tmp_path)
    whole = path.read_bytes()
    start = end - sum(RECORD + len(payload) for payload in GROUPS[-1])
    ends = [start]
    for payload in GROUPS[-1]:
        ends.append(ends[-1] + RECORD + len(payload))
    for cut in range(start, end + 1):
        for rest in (b"", bytes(len(whole) - cut)):
            path.write_bytes(whole[:cut] + rest)
            records, report = await recover(tmp_path)
            complete = sum(cut >= each for each in ends[1:])
            # Trailing zeros are as good as the bytes they replace when the payload ends in them: here none does.
            assert records == numbered(GROUPS)[: 3 + complete]
            assert (report.cut_bytes > 0) == (cut not in ends)


async def test_every_flipped_byte_of_what_was_durable_is_refused(tmp_path):
    end = await write(tmp_path, GROUPS)
    (path,) = segment_files(tmp_path)
    whole = path.read_bytes()
    durable = end - sum(RECORD + len(payload) for payload in GROUPS[-1])
    for position in range(durable):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= mask
            path.write_bytes(damaged)
            with pytest.raises((CorruptRecord, UnknownFormat)) as caught:
                await recover(tmp_path)
            assert "log/00000000000000000001.seg" in str(caught.value)
            if position >= HEADER:
                assert isinstance(caught.value, CorruptRecord)
                assert HEADER <= caught.value.offset <= position
            assert path.read_bytes() == damaged  # and nothing was touched


async def test_a_flipped_byte_in_the_last_write_costs_what_no_later_record_bears_witness_for(tmp_path):
    end = await write(tmp_path, GROUPS)
    (path,) = segment_files(tmp_path)
    whole = path.read_bytes()
    start = end - sum(RECORD + len(payload) for payload in GROUPS[-1])
    for position in range(start, end):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        records, report = await recover(tmp_path)
        assert records == numbered(GROUPS)[: len(records)]
        assert len(records) >= 3
        assert report.cut_offset <= position
        assert report.cut_bytes > 0


async def test_after_a_clean_stop_every_flipped_byte_is_refused_or_harmless(tmp_path):
    end = await write(tmp_path, GROUPS, close=True)
    (path,) = segment_files(tmp_path)
    whole = path.read_bytes()
    for position in range(end):
        damaged = bytearray(whole)
        damaged[position] ^= 0x04
        path.write_bytes(damaged)
        if position < end - RECORD:
            with pytest.raises((CorruptRecord, UnknownFormat)):
                await recover(tmp_path)
        else:  # the seal itself
            assert (await recover(tmp_path))[0] == numbered(GROUPS)


async def test_holes_in_the_last_writes_are_a_torn_tail_and_in_earlier_ones_damage(tmp_path):
    """After a loss of power any page of the unsynced writes may be missing: zeros with good records behind them."""
    await write(tmp_path, [[b"a" * 100], [b"b" * 100], [b"c" * 100, b"d" * 100, b"e" * 100]])
    (path,) = segment_files(tmp_path)
    whole = path.read_bytes()
    size = RECORD + 100

    def without(record):
        start = HEADER + record * size
        return whole[:start] + bytes(size) + whole[start + size :]

    path.write_bytes(without(3))
    records, report = await recover(tmp_path)
    assert [sequence for sequence, _ in records] == [1, 2, 3]
    assert report.cut_records == 1
    for lost in (0, 1):
        path.write_bytes(without(lost))
        with pytest.raises(CorruptRecord, match=f"offset {HEADER + lost * size}: no record starts here"):
            await recover(tmp_path)


async def test_without_syncs_a_hole_is_a_torn_tail_as_far_back_as_the_last_sync(tmp_path):
    groups = [[b"%d" % n * 50] for n in range(6)]
    await write(tmp_path, groups, policy=FsyncPolicy.NEVER)
    (path,) = segment_files(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[HEADER + 2 * (RECORD + 50) + 5] ^= 1
    path.write_bytes(damaged)
    records, report = await recover(tmp_path)
    assert records == numbered(groups)[:2]
    assert report.cut_records == 3


async def test_writing_goes_on_after_a_cut_and_what_was_cut_does_not_come_back(tmp_path):
    await write(tmp_path, [[b"a" * 100], [b"b" * 100, b"c" * 100, b"d" * 100]])
    (path,) = segment_files(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[HEADER + RECORD + 100 + RECORD] ^= 1
    path.write_bytes(damaged)
    await write(tmp_path, [[b"B" * 100]])
    records, _ = await recover(tmp_path)
    assert records == [(1, b"a" * 100), (2, b"B" * 100)]


@pytest.mark.parametrize("of", ["this log", "another log"])
async def test_records_inside_a_payload_of_the_torn_tail_bear_no_witness(tmp_path, of):
    await write(tmp_path, [[b"a"], [b"b"]])
    (path,) = segment_files(tmp_path)
    marker = recordformat.decode_segment_header(path.read_bytes()).marker
    data = path.read_bytes().rstrip(b"\0")
    copy = data
    if of == "another log":
        copy = recordformat.encode_records(marker ^ 1, 50, 49, [b"x", b"y"])
    torn = bytearray(recordformat.encode_records(marker, 3, 2, [copy + b"end"]))
    torn[-1] ^= 1
    path.write_bytes(data + torn)
    records, report = await recover(tmp_path)
    assert records == [(1, b"a"), (2, b"b")]
    assert report.cut_bytes == len(torn)
    assert report.cut_records == (2 if of == "this log" else 0)


async def test_damage_in_a_segment_that_is_not_the_last_is_always_refused(tmp_path):
    end = await write(tmp_path, [[b"%d" % n * 900] for n in range(6)])
    assert end > HEADER
    first, second, _ = segment_files(tmp_path)
    whole = second.read_bytes()
    for position in (*range(100), *range(100, len(whole), 17)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x20
        second.write_bytes(damaged)
        with pytest.raises((CorruptRecord, UnknownFormat)):
            await recover(tmp_path)
    for shortened in (whole[:-1], whole[: -(RECORD + 900)], whole[:HEADER], whole[:10], b""):
        second.write_bytes(shortened)
        with pytest.raises(CorruptRecord):
            await recover(tmp_path)
    second.unlink()
    with pytest.raises(CorruptRecord, match=r"record 3 is missing; log/0+5.seg is the next"):
        await recover(tmp_path)
    second.write_bytes(whole)
    assert len((await recover(tmp_path))[0]) == 6
    first.rename(first.with_name(f"{2:020d}.seg"))
    with pytest.raises(CorruptRecord, match="begins with record 1"):
        await recover(tmp_path)


async def test_another_version_is_refused_by_name(tmp_path):
    await write(tmp_path, [[b"x"]])
    (path,) = segment_files(tmp_path)
    data = bytearray(path.read_bytes())
    data[8] = 9
    path.write_bytes(data)
    with pytest.raises(UnknownFormat, match=r"'log/0+1.seg': its format has version 9, this program reads version 1"):
        await recover(tmp_path)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_recovery_keeps_what_is_whole_and_refuses_or_reports_the_rest(tmp_path_factory, data):
    """Any groups, any damage: what comes out is a prefix, and it is all that was durable, or an error is raised."""
    groups = data.draw(st.lists(st.lists(st.binary(max_size=400), min_size=1, max_size=4), min_size=1, max_size=8))
    root = tmp_path_factory.mktemp("log")
    limits = LogLimits(segment_bytes=512)
    end = asyncio.run(write(root, groups, limits=limits))
    files = segment_files(root)
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    limit = end if path == files[-1] else len(whole)
    position = data.draw(st.integers(0, limit - 1))
    kind = data.draw(st.sampled_from(["flip", "zeros", "cut"]))
    length = data.draw(st.integers(1, 64))
    if kind == "flip":
        damaged = whole[:position] + bytes([whole[position] ^ data.draw(st.integers(1, 255))]) + whole[position + 1 :]
    elif kind == "zeros":
        damaged = whole[:position] + bytes(min(length, len(whole) - position)) + whole[position + length :]
    else:
        damaged = whole[:position]
    path.write_bytes(damaged)
    all_records = numbered(groups)
    durable_before_last = len(all_records) - len(groups[-1])
    try:
        records, _ = asyncio.run(recover(root, limits))
    except (CorruptRecord, UnknownFormat):
        assert damaged != whole
        return
    assert records == all_records[: len(records)]
    # Without a good later record there is no witness: the last file lost its end, or the last write is damaged too.
    last_write = end - sum(RECORD + len(payload) for payload in groups[-1])
    damage_ends = {"flip": position + 1, "zeros": position + length, "cut": len(whole)}[kind]
    if path != files[-1] or damage_ends <= last_write or position >= last_write:
        assert len(records) >= durable_before_last


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_loss_of_power_costs_nothing_that_was_durable_and_stops_no_node(tmp_path_factory, data):
    """Of what was not synced, any sectors may be missing (zeros, as allocated), whole groups or parts of records."""
    sizes = st.lists(st.lists(st.integers(0, 1500), min_size=1, max_size=5), min_size=1, max_size=4)
    groups = [[bytes([65 + index % 50]) * size for index, size in enumerate(group)] for group in data.draw(sizes)]
    policy = data.draw(st.sampled_from([FsyncPolicy.ALWAYS, FsyncPolicy.NEVER]))
    root = tmp_path_factory.mktemp("log")
    limits = LogLimits(segment_bytes=1 << 16)
    end = asyncio.run(write(root, groups, limits=limits, policy=policy))
    unsynced = groups[-1:] if policy is FsyncPolicy.ALWAYS else groups
    start = end - sum(RECORD + len(payload) for group in unsynced for payload in group)
    (path,) = segment_files(root)
    contents = bytearray(path.read_bytes())
    for sector in range(start // 512, -(-end // 512)):
        if data.draw(st.booleans(), label=f"sector {sector} is lost"):
            lost = slice(max(start, sector * 512), min(len(contents), (sector + 1) * 512))
            contents[lost] = bytes(lost.stop - lost.start)
    path.write_bytes(contents)
    records, report = asyncio.run(recover(root, limits))
    assert records == numbered(groups)[: len(records)]
    assert len(records) >= sum(map(len, groups)) - sum(map(len, unsynced))
    assert report.records == len(records)
    assert asyncio.run(recover(root, limits))[0] == records  # recovering twice is recovering once


WRITER = """
import asyncio, random, sys
from minidist.runtime.disk.local import LocalDisk
from minidist.runtime.disk.recordlog import FsyncPolicy, LogLimits, RecordLog

async def main(root, policy):
    disk = await LocalDisk.open_root(root)
    log = await RecordLog.open(disk, "log", rng=random.Random(), policy=FsyncPolicy(policy),
                               limits=LogLimits(segment_bytes=32768))

    async def write(writer):
        while True:
            sequence = log.append(b"%d " % log.next_sequence * (1 + writer * 10))
            await log.committed(sequence)
            sys.stdout.write(f"{sequence}\\n")
            sys.stdout.flush()
            await asyncio.sleep(0)

    await asyncio.gather(*(write(writer) for writer in range(8)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("policy", ["always", "every-second", "never"])
async def test_kill_9_loses_nothing_that_was_committed(tmp_path, policy):
    reported: list[int] = []
    for _ in range(3):  # each life recovers what the one before has left
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), policy], stdout=subprocess.PIPE, bufsize=1 << 16
        )
        with child:
            assert child.stdout is not None
            for line in child.stdout:
                reported.append(int(line))
                if len(reported) % 400 == 0:
                    child.send_signal(signal.SIGKILL)
                    break
            lines = child.stdout.read().split(b"\n")
            reported += [int(line) for line in lines[:-1]]
        assert child.returncode == -signal.SIGKILL
        records, _ = await recover(tmp_path)
        kept = dict(records)
        assert set(reported) <= set(kept)
        assert all(payload.split()[0] == b"%d" % sequence for sequence, payload in records)
