"""The promises of the Disk port, asked of every kind of disk."""

import asyncio

import pytest

from minidist.runtime.disk import (
    DirectoryInUse,
    Disk,
    DiskFailed,
    DiskFull,
    FileClosed,
    FileExists,
    FileMissing,
    OpenMode,
    PathRefused,
)
from minidist.runtime.disk.faults import DiskFault, DiskFaultKind


async def test_append_gives_the_offset_and_reads_see_it_at_once(disk):
    file = await disk.open("a", OpenMode.CREATE)
    assert await file.append(b"hello") == 0
    assert await file.append(b" world", sync=True) == 5
    assert await file.read_at(0, 100) == b"hello world"
    assert await file.read_at(6, 3) == b"wor"
    assert await file.read_at(11, 10) == b""
    assert await file.size() == 11


async def test_operations_on_one_file_keep_the_order_of_their_calls(disk):
    file = await disk.open("a", OpenMode.CREATE)
    calls = [file.append(b"%03d" % n) for n in range(200)]
    reading = file.read_at(0, 600)
    assert list(await asyncio.gather(*calls)) == [3 * n for n in range(200)]
    assert await reading == b"".join(b"%03d" % n for n in range(200))


async def test_write_at_inside_and_beyond_the_end(disk):
    file = await disk.open("a", OpenMode.CREATE)
    await file.append(b"aaaa")
    assert await file.write_at(1, b"bb") == 1
    await file.write_at(6, b"c")
    assert await file.read_at(0, 9) == b"abba\0\0c"
    assert await file.append(b"d") == 7


async def test_truncate_cuts_and_fills_with_zeros(disk):
    file = await disk.open("a", OpenMode.CREATE)
    await file.append(b"abcdef")
    await file.truncate(2)
    await file.truncate(4)
    assert await file.read_at(0, 9) == b"ab\0\0"
    assert await file.append(b"z") == 4


async def test_allocated_room_reads_as_zeros_and_counts_as_size(disk):
    file = await disk.open("a", OpenMode.CREATE)
    await file.append(b"ab")
    await file.allocate(4096)
    await file.allocate(10)  # never shrinks
    assert await file.size() == 4096
    assert await file.read_at(0, 4) == b"ab\0\0"
    await file.write_at(2, b"c", sync=True)
    assert await file.size() == 4096
    assert await file.append(b"end") == 4096


async def test_open_modes(disk):
    with pytest.raises(FileMissing, match="cannot open 'a'"):
        await disk.open("a")
    with pytest.raises(FileMissing):
        await disk.open("a", OpenMode.WRITE)
    with pytest.raises(FileMissing):
        await disk.open("no/a", OpenMode.CREATE)
    await (await disk.open("a", OpenMode.NEW)).close()
    with pytest.raises(FileExists):
        await disk.open("a", OpenMode.NEW)
    reader = await disk.open("a")
    with pytest.raises(PathRefused, match="opened for reading"):
        await reader.append(b"x")
    await (await disk.open("a", OpenMode.CREATE)).append(b"kept")
    await (await disk.open("a", OpenMode.CREATE)).close()
    assert await reader.read_at(0, 9) == b"kept"


@pytest.mark.parametrize("path", ["/etc/passwd", "..", "../x", "a/../../x", "x\0y"])
async def test_paths_that_leave_the_root_are_refused(disk, path):
    with pytest.raises(PathRefused):
        await disk.open(path, OpenMode.CREATE)
    with pytest.raises(PathRefused):
        await disk.stat(path)
    with pytest.raises(PathRefused):
        await disk.rename("a", path)
    with pytest.raises(PathRefused):
        await disk.make_directory(path)


async def test_directories(disk):
    await disk.make_directory("log/0/x")
    await disk.make_directory("log/0")
    await (await disk.open("log/0/file", OpenMode.CREATE)).append(b"12")
    assert await disk.list() == ["log"]
    assert await disk.list("log/0") == ["file", "x"]
    assert (await disk.stat("log")).is_directory
    assert (await disk.stat("log/0/file")).size == 2
    assert await disk.stat("log/1") is None
    assert await disk.stat("log/0/file/below") is None
    await disk.sync_directory("log/0")
    with pytest.raises(PathRefused):
        await disk.open("log", OpenMode.CREATE)
    with pytest.raises(FileMissing):
        await disk.list("none")
    with pytest.raises(FileExists):
        await disk.remove("log/0")
    for path in ("log/0/file", "log/0/x", "log/0", "log"):
        await disk.remove(path)
    with pytest.raises(FileMissing):
        await disk.remove("log")
    assert await disk.list() == []


async def test_rename_replaces_and_an_open_file_survives_its_name(disk):
    old = await disk.open("a", OpenMode.CREATE)
    await old.append(b"old")
    new = await disk.open("b", OpenMode.CREATE)
    await new.append(b"new")
    before = await disk.stat("a")
    await disk.rename("b", "a")
    assert await disk.list() == ["a"]
    assert (await disk.stat("a")).identity != before.identity
    assert await old.read_at(0, 9) == b"old"
    assert await (await disk.open("a")).read_at(0, 9) == b"new"
    await disk.remove("a")
    assert await new.read_at(0, 9) == b"new"
    with pytest.raises(FileMissing):
        await disk.rename("a", "b")


async def test_an_unlinked_file_has_no_name(disk):
    file = await disk.open_unlinked()
    await file.append(b"abc")
    assert await disk.list() == []
    assert await file.read_at(1, 9) == b"bc"


async def test_what_was_written_is_there_when_the_disk_is_opened_again(open_disk):
    disk = await open_disk()
    file = await disk.open("a", OpenMode.CREATE)
    await file.append(b"abc", sync=True)
    await disk.sync_directory()
    await disk.close()
    disk = await open_disk()
    again = await disk.open("a", OpenMode.WRITE)
    assert await again.append(b"d") == 3
    assert await again.read_at(0, 9) == b"abcd"
    await disk.close()


async def test_a_root_has_one_disk_at_a_time(open_disk):
    first = await open_disk()
    with pytest.raises(DirectoryInUse):
        await open_disk()
    await first.close()
    await (await open_disk()).close()


async def test_what_is_closed_refuses(open_disk):
    disk = await open_disk()
    file = await disk.open("a", OpenMode.CREATE)
    other = await disk.open("b", OpenMode.CREATE)
    writing = file.append(b"x" * 100_000)
    await file.close()
    await file.close()
    assert await writing == 0
    with pytest.raises(FileClosed):
        await file.append(b"x")
    await disk.close()
    await disk.close()
    await other.close()
    with pytest.raises(FileClosed):
        await other.append(b"x")
    with pytest.raises(FileClosed):
        await disk.open("a")


async def test_giving_up_the_wait_does_not_undo_the_write(disk):
    file = await disk.open("a", OpenMode.CREATE)
    waiting = asyncio.ensure_future(file.append(b"kept"))
    waiting.cancel()
    assert await file.read_at(0, 9) == b"kept"


async def test_a_full_disk_refuses_what_needs_room_and_recovers(disk):
    file = await disk.open("a", OpenMode.CREATE)
    await file.append(b"before")
    fault = DiskFault(DiskFaultKind.FULL)
    disk.faults.add(fault)
    assert disk.full
    with pytest.raises(DiskFull, match="No space left"):
        await file.append(b"refused")
    with pytest.raises(DiskFull):
        await file.allocate(1 << 20)
    with pytest.raises(DiskFull):
        await disk.make_directory("d")
    assert await file.read_at(0, 99) == b"before"
    await file.sync()
    disk.faults.remove(fault)
    assert not disk.full
    await file.append(b" after")
    assert await file.read_at(0, 99) == b"before after"


async def test_a_failed_sync_is_final_for_the_file_and_reported(disk):
    reported = []
    disk.on_failed(reported.append)
    file = await disk.open("a", OpenMode.CREATE)
    other = await disk.open("b", OpenMode.CREATE)
    disk.faults.add(DiskFault(DiskFaultKind.FAILING_FSYNC, times=1))
    with pytest.raises(DiskFailed):
        await file.append(b"x", sync=True)
    for refused in (file.sync, file.size, lambda: file.append(b"x"), lambda: file.read_at(0, 1)):
        with pytest.raises(DiskFailed, match="given up, an earlier sync failed"):
            await refused()
    assert [error.path for error in reported] == ["a"]
    await other.append(b"x", sync=True)


async def test_a_failed_sync_of_a_directory_is_reported(disk):
    reported = []
    disk.on_failed(reported.append)
    disk.faults.add(DiskFault(DiskFaultKind.FAILING_FSYNC))
    with pytest.raises(DiskFailed):
        await disk.sync_directory()
    assert len(reported) == 1


async def test_a_slow_disk_takes_its_time(disk):
    file = await disk.open("a", OpenMode.CREATE)
    disk.faults.add(DiskFault(DiskFaultKind.SLOW, ms=30))
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    await file.append(b"x")
    assert loop.time() - started_s >= 0.029


async def test_watch_tells_of_appearing_changing_replacing_and_going(disk):
    watch = disk.watch("zone", interval_s=0.002)
    assert await watch.start() is None
    changed = asyncio.ensure_future(watch.changed())
    file = await disk.open("zone", OpenMode.CREATE)
    assert (await changed).size == 0
    await file.append(b"abc")
    assert (await watch.changed()).size == 3
    await (await disk.open("new", OpenMode.CREATE)).append(b"xyz")
    await disk.rename("new", "zone")
    assert (await watch.changed()).size == 3
    await disk.remove("zone")
    assert await watch.changed() is None


async def test_figures_count(disk: Disk):
    file = await disk.open("a", OpenMode.CREATE)
    assert disk.figures.sync_ms() == (0.0, 0.0)
    for _ in range(20):
        await file.append(b"12345", sync=True)
    await file.read_at(0, 7)
    assert (disk.figures.writes, disk.figures.bytes_written, disk.figures.syncs) == (20, 100, 20)
    assert (disk.figures.reads, disk.figures.bytes_read) == (1, 7)
    p50, p99 = disk.figures.sync_ms()
    assert 0 <= p50 <= p99
