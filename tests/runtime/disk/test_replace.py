"""Atomic replace: old or new, whole, whatever happens."""

import asyncio

import pytest

from minidist.runtime.disk import DiskFailed, DiskFull, OpenMode
from minidist.runtime.disk.faults import DiskFault, DiskFaultKind
from minidist.runtime.disk.replace import MAX_BYTES, AtomicFile, CorruptFile


@pytest.mark.parametrize("checksum", [True, False])
async def test_what_was_written_is_read(disk, checksum):
    await disk.make_directory("d")
    file = AtomicFile(disk, "d/term", checksum=checksum)
    assert await file.read() is None
    for content in (b"term 1\n", b"", b"longer than before\n" * 100, b"short"):
        await file.write(content)
        assert await AtomicFile(disk, "d/term", checksum=checksum).read() == content
    assert await disk.list("d") == ["term"]


async def test_writers_wait_for_each_other(disk):
    file = AtomicFile(disk, "vote")
    await asyncio.gather(*(file.write(b"%d" % n * 1000) for n in range(20)))
    assert await file.read() == b"19" * 1000


async def test_it_is_synced_before_it_gets_the_name_and_the_name_before_it_returns(disk):
    fired = []
    disk.faults.fired = lambda fault, operation: fired.append(operation.value)
    disk.faults.add(DiskFault(DiskFaultKind.SLOW))
    await AtomicFile(disk, "vote").write(b"x")
    assert [name for name in fired if name in ("write", "sync", "rename")] == ["write", "sync", "rename", "sync"]


async def test_on_a_full_disk_the_old_content_stands(disk):
    file = AtomicFile(disk, "vote")
    await file.write(b"old")
    disk.faults.add(DiskFault(DiskFaultKind.FULL, times=1))
    with pytest.raises(DiskFull):
        await file.write(b"new")
    assert await file.read() == b"old"
    await file.write(b"newer")
    assert await file.read() == b"newer"


async def test_when_the_sync_fails_the_old_content_stands(disk):
    file = AtomicFile(disk, "vote")
    await file.write(b"old")
    disk.faults.add(DiskFault(DiskFaultKind.FAILING_FSYNC, times=1))
    with pytest.raises(DiskFailed):
        await file.write(b"new")
    assert await file.read() == b"old"


async def test_damage_is_found(disk):
    file = AtomicFile(disk, "vote")
    await file.write(b"content")
    raw = await disk.open("vote", OpenMode.WRITE)
    whole = await raw.read_at(0, 1000)
    for position in range(len(whole)):
        await raw.write_at(position, bytes([whole[position] ^ 1]))
        with pytest.raises(CorruptFile, match="cannot read 'vote': its checksum"):
            await file.read()
        await raw.write_at(position, whole[position : position + 1])
    assert await file.read() == b"content"
    await raw.truncate(5)
    with pytest.raises(CorruptFile):
        await file.read()


async def test_it_is_for_small_files(disk):
    with pytest.raises(ValueError, match="at most"):
        await AtomicFile(disk, "vote").write(bytes(MAX_BYTES + 1))
