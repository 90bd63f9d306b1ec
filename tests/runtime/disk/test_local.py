"""What only the real disk has: its root on this machine, its thread, and the choice between thread and loop."""

import asyncio
import os
import stat
import threading
import time

import pytest

from minidist.runtime.disk import DirectoryInUse, DiskFailed, DiskFull, FileMissing, NotSupported, OpenMode, PathRefused
from minidist.runtime.disk.faults import DiskFault, DiskFaultKind
from minidist.runtime.disk.local import LocalDisk
from minidist.runtime.disk.pace import BARRED_AT_MOST_S, BARRED_S, FIRST_OTHER_WAY_AFTER, OTHER_WAY_EVERY, Pace
from minidist.runtime.disk.temporary import PREFIX, open_temporary_disk, remove_left_behind
from minidist.runtime.disk.thread import DiskThread


async def test_a_root_must_exist_and_be_a_directory(tmp_path):
    with pytest.raises(FileMissing, match=f"cannot open '{tmp_path}/none': No such file or directory"):
        await LocalDisk.open_root(f"{tmp_path}/none")
    (tmp_path / "file").write_text("")
    with pytest.raises(PathRefused):
        await LocalDisk.open_root(f"{tmp_path}/file")


async def test_without_lock_a_root_is_shared(tmp_path):
    owner = await LocalDisk.open_root(str(tmp_path))
    with pytest.raises(DirectoryInUse, match="another process works in this directory"):
        await LocalDisk.open_root(str(tmp_path))
    reader = await LocalDisk.open_root(str(tmp_path), lock=False)
    assert await reader.list() == []
    await reader.close()
    await owner.close()


async def test_links_may_not_lead_out_of_the_root(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("x")
    (root / "inside").mkdir()
    (root / "out").symlink_to(outside)
    (root / "in").symlink_to(root / "inside")
    disk = await LocalDisk.open_root(str(root))
    for attempt in (disk.open("out/secret"), disk.open("out/new", OpenMode.CREATE), disk.list("out"), disk.stat("out")):
        with pytest.raises(PathRefused, match="leads out"):
            await attempt
    await (await disk.open("in/file", OpenMode.CREATE)).append(b"x")
    assert (root / "inside" / "file").read_bytes() == b"x"
    await disk.close()


async def test_files_are_private(tmp_path):
    disk = await LocalDisk.open_root(str(tmp_path))
    await disk.make_directory("d")
    await disk.open("d/f", OpenMode.CREATE)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE((tmp_path / "d" / "f").stat().st_mode) & 0o077 == 0
    await disk.close()


async def test_the_errors_of_the_system_become_typed(tmp_path, monkeypatch):
    disk = await LocalDisk.open_root(str(tmp_path))
    file = await disk.open("a", OpenMode.CREATE)
    full = await disk.open("full", OpenMode.CREATE)
    os.dup2(os.open("/dev/full", os.O_RDWR), full.descriptor())
    with pytest.raises(DiskFull, match="No space left on device"):
        await full.append(b"x")
    failed = []
    disk.on_failed(failed.append)

    def fail(descriptor):
        raise OSError(28, "delayed: no space left")

    monkeypatch.setattr("minidist.runtime.disk.local._sync_descriptor", fail)
    with pytest.raises(DiskFailed, match="cannot sync 'a'"):
        await file.sync()
    await disk.stat("a")
    assert [type(error) for error in failed] == [DiskFailed]
    await disk.close()


async def test_what_an_append_wrote_before_the_disk_was_full_is_taken_back(tmp_path, monkeypatch):
    disk = await LocalDisk.open_root(str(tmp_path))
    file = await disk.open("a", OpenMode.CREATE)
    await file.append(b"before")
    real = os.pwrite
    room = [3]

    def short(descriptor, data, offset):
        if not room[0]:
            raise OSError(28, "")
        count, room[0] = room[0], 0
        return real(descriptor, data[:count], offset)

    monkeypatch.setattr(os, "pwrite", short)
    with pytest.raises(DiskFull):
        await file.append(b"toolong")
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == b"before"
    assert await file.append(b"!") == 6
    await disk.close()


async def test_a_real_disk_says_which_faults_it_cannot_have(tmp_path):
    disk = await LocalDisk.open_root(str(tmp_path))
    for what in (DiskFaultKind.TORN, DiskFaultKind.LOST_UNSYNCED):
        with pytest.raises(NotSupported, match=what.value):
            disk.faults.add(DiskFault(what))
    await disk.close()


async def test_faults_count_down_fire_and_are_drawn_from_the_seed(tmp_path):
    import random

    async def outcomes():
        disk = await LocalDisk.open_root(str(tmp_path), rng=random.Random(5))
        fired = []
        disk.faults.fired = lambda fault, operation: fired.append(operation.value)
        disk.faults.add(DiskFault(DiskFaultKind.FULL, probability=0.5, times=4))
        assert not disk.full
        file = await disk.open("a", OpenMode.CREATE)
        results = await asyncio.gather(*(file.append(b"x") for _ in range(30)), return_exceptions=True)
        await disk.close()
        assert fired == ["write"] * 4
        return [isinstance(result, DiskFull) for result in results]

    first = await outcomes()
    assert sum(first) == 4
    assert await outcomes() == first


async def test_what_is_asked_for_in_one_turn_or_while_the_thread_is_away_makes_one_trip():
    thread = DiskThread.acquire(device=-1)
    batches = []
    send = thread._send

    def counted():
        batches.append(len(thread._queued))
        send()

    thread._send = counted
    gate = threading.Event()
    first = [thread.submit(lambda n=n: n) for n in range(5)]
    assert await asyncio.gather(*first) == [0, 1, 2, 3, 4]
    blocked = thread.submit(gate.wait)
    await asyncio.sleep(0)
    meanwhile = []
    for n in range(7):
        meanwhile.append(thread.submit(lambda n=n: n))
        await asyncio.sleep(0)
    gate.set()
    await blocked
    assert await asyncio.gather(*meanwhile) == list(range(7))
    assert [size for size in batches if size] == [5, 1, 7]
    await thread.release()


async def test_one_thread_per_device_and_none_afterwards(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    disks = [await LocalDisk.open_root(str(tmp_path / name)) for name in "ab"]
    await asyncio.gather(*(disk.list() for disk in disks))
    assert sum(thread.name == "disk" for thread in threading.enumerate()) == 1
    for disk in disks:
        await disk.close()
    assert not any(thread.name == "disk" for thread in threading.enumerate())


def trained(work_s, trip_s):
    """A pace that knows both ways: the work takes the same on the loop and, besides the trip, on the thread."""
    pace = Pace()
    for _ in range(50):
        pace.made_trip(work_s, trip_s)
    pace.ran_on_loop(work_s, now_s=0.0)
    return pace


def test_pace_chooses_the_loop_when_the_trip_costs_more():
    assert trained(30e-6, 80e-6).on_loop(0.0)
    assert not trained(90e-6, 80e-6).on_loop(0.0)
    assert not trained(1e-3, 50e-3).on_loop(0.0)  # above the cap, however dear the trip


def test_pace_begins_on_the_thread_and_tries_the_loop_when_that_looks_safe():
    for work_s, tries in ((1e-3, True), (10e-3, False)):
        pace = Pace()
        for _ in range(FIRST_OTHER_WAY_AFTER):
            assert not pace.on_loop(0.0)
            pace.made_trip(work_s, 0.0)
        assert pace.on_loop(0.0) is tries


def test_pace_goes_the_other_way_now_and_then():
    pace = trained(30e-6, 80e-6)
    chosen = [pace.on_loop(0.0) for _ in range(3 * OTHER_WAY_EVERY)]
    assert chosen.count(False) == 3
    pace = trained(90e-6, 80e-6)
    chosen = [pace.on_loop(0.0) for _ in range(3 * OTHER_WAY_EVERY)]
    assert chosen.count(True) == 3


def test_pace_bars_the_loop_after_a_stall_and_longer_after_the_next():
    pace = trained(30e-6, 80e-6)
    now_s, bars_s = 10.0, []
    for _ in range(9):
        pace.ran_on_loop(5e-3, now_s)
        assert not any(pace.on_loop(now_s) for _ in range(2 * OTHER_WAY_EVERY))
        bars_s.append(pace._barred_until_s - now_s)
        now_s = pace._barred_until_s
        assert any(pace.on_loop(now_s) for _ in range(OTHER_WAY_EVERY))
    assert bars_s[:3] == [BARRED_S, 2 * BARRED_S, 4 * BARRED_S]
    assert bars_s[-1] == BARRED_AT_MOST_S


async def test_small_synced_appends_get_to_run_on_the_loop_and_never_with_a_fault_set(tmp_path):
    disk = await LocalDisk.open_root(str(tmp_path))
    file = await disk.open("a", OpenMode.CREATE)
    disk.write_pace = trained(1e-6, 100e-6)
    await file.append(b"x")
    assert disk.figures.on_loop == 1
    await file.append(b"x" * 100_000)
    disk.faults.add(DiskFault(DiskFaultKind.SLOW, ms=1))
    await file.append(b"x")
    assert disk.figures.on_loop == 1
    assert await file.size() == 100_002
    await disk.close()


async def test_a_temporary_disk_takes_its_directory_with_it(tmp_path):
    disk = await open_temporary_disk(within=str(tmp_path))
    await disk.open("a", OpenMode.CREATE)
    assert os.listdir(disk.root) == ["a"]
    await disk.close()
    assert os.listdir(tmp_path) == []
    disk = await LocalDisk.open_temporary()
    assert os.path.basename(disk.root).startswith(PREFIX)
    await disk.close()
    assert not os.path.exists(disk.root)


async def test_what_killed_processes_left_behind_is_removed_and_nothing_else(tmp_path):
    alive = await open_temporary_disk(within=str(tmp_path))
    names = [PREFIX + "dead", PREFIX + "fresh", "other", "minidist-test-1"]
    for name in names:
        (tmp_path / name / "log").mkdir(parents=True)
    (tmp_path / (PREFIX + "link")).symlink_to(tmp_path / "other")
    old_s = time.time() - 3600
    for path in (tmp_path / (PREFIX + "dead"), tmp_path / "other", tmp_path / "minidist-test-1", alive.root):
        os.utime(path, (old_s, old_s))
    remove_left_behind(str(tmp_path))
    left = {PREFIX + "fresh", PREFIX + "link", "other", "minidist-test-1", os.path.basename(alive.root)}
    assert set(os.listdir(tmp_path)) == left
    await alive.close()
    remove_left_behind(str(tmp_path / "none"))
