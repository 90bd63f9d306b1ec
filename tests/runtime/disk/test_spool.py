"""The spool: memory, then a file without a name."""

import pytest

from minidist.runtime.disk import DiskFull, FileClosed
from minidist.runtime.disk.faults import DiskFault, DiskFaultKind
from minidist.runtime.disk.spool import Spool, SpoolLimit


def made(disk, memory_limit=10, size_limit=1000):
    return Spool(disk, memory_limit=memory_limit, size_limit=size_limit)


async def test_little_stays_in_memory_and_more_moves_to_a_file(disk):
    spool = made(disk)
    await spool.append(b"01234")
    await spool.append(b"56789")
    assert spool.in_memory
    assert spool.file is None
    await spool.append(b"abc")
    await spool.append(b"def")
    assert not spool.in_memory
    assert await disk.list() == []
    assert spool.size == 16
    assert await spool.read_at(8, 4) == b"89ab"
    await spool.close()


@pytest.mark.parametrize("memory_limit", [0, 7, 1000])
async def test_reading_is_the_same_in_memory_and_from_the_file(disk, memory_limit):
    spool = made(disk, memory_limit)
    assert await spool.read_at(0, 10) == b""
    whole = b""
    for n in range(20):
        await spool.append(b"%d," % n)
        whole += b"%d," % n
        assert [await spool.read_at(at, 3) for at in range(len(whole) + 2)] == [
            whole[at : at + 3] for at in range(len(whole) + 2)
        ]
    assert b"".join([chunk async for chunk in spool.chunks(chunk_bytes=7)]) == whole
    assert b"".join([chunk async for chunk in spool.chunks(5)]) == whole[5:]
    await spool.close()


async def test_what_exceeds_the_size_limit_is_refused_whole(disk):
    spool = made(disk, size_limit=20)
    await spool.append(b"x" * 15)
    with pytest.raises(SpoolLimit, match="at most 20"):
        await spool.append(b"y" * 6)
    await spool.append(b"z" * 5)
    assert await spool.read_at(0, 100) == b"x" * 15 + b"z" * 5
    await spool.close()


async def test_a_full_disk_refuses_and_what_was_there_stays(disk):
    spool = made(disk)
    await spool.append(b"x" * 10)
    for room in (b"y", b"z"):  # at the move to the file, then in it
        disk.faults.add(DiskFault(DiskFaultKind.FULL, times=1))
        with pytest.raises(DiskFull):
            await spool.append(b"refused")
        await spool.append(room)
    assert await spool.read_at(0, 100) == b"x" * 10 + b"yz"
    await spool.close()


@pytest.mark.parametrize("memory_limit", [10, 0])
async def test_a_closed_spool_refuses(disk, memory_limit):
    spool = made(disk, memory_limit)
    await spool.append(b"x")
    await spool.close()
    await spool.close()
    with pytest.raises(FileClosed):
        await spool.append(b"x")
    with pytest.raises(FileClosed):
        await spool.read_at(0, 1)
