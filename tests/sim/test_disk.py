"""The simulated disk's own promises: what power leaves behind. Its conformance to the port: tests/runtime/disk."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.runtime.disk import FileMissing, OpenMode
from minidist.runtime.disk.faults import DiskFault, DiskFaultKind
from minidist.runtime.disk.port import DiskFailed, DiskFull
from minidist.runtime.disk.recordlog import FsyncPolicy, LogLimits, RecordLog
from minidist.sim.host import Crash
from minidist.sim.platter import PAGE_BYTES, Inode, Names
from minidist.sim.world import World


def after_power_loss(seed, write, read):
    """Runs `write(disk)`, cuts the power, and gives what `read(disk)` finds in the next life."""
    with World(seed) as world:
        host = world.host("node")

        async def main():
            await host.start(write(world.open_disk(host)))
            host.crash(Crash.POWER)
            host.revive()
            return await host.start(read(world.open_disk(host)))

        return world.run(main())


async def contents(disk):
    found = {}
    for name in await disk.list():
        stat = await disk.stat(name)
        if not stat.is_directory:
            found[name] = await (await disk.open(name)).read_at(0, stat.size)
    return found


def test_what_was_synced_is_there_and_the_rest_may_be():
    async def write(disk):
        file = await disk.open("log", OpenMode.CREATE)
        await disk.sync_directory()
        await file.append(b"durable", sync=True)
        await file.append(b" maybe")

    seen = {after_power_loss(seed, write, contents)["log"] for seed in range(60)}
    assert all(each.startswith(b"durable") for each in seen)
    assert {b"durable", b"durable maybe"} <= seen


def test_a_process_crash_loses_nothing_that_was_written():
    with World(1) as world:
        host = world.host("node")

        async def main():
            disk = world.open_disk(host)
            await (await disk.open("a", OpenMode.CREATE)).append(b"written")
            host.crash()
            assert disk.closed
            host.revive()
            again = world.open_disk(host)
            assert await contents(again) == {"a": b"written"}
            host.crash(Crash.POWER)  # the page cache goes with the machine
            host.revive()
            return await contents(world.open_disk(host))

        assert world.run(main()) in ({}, {"a": b""}, {"a": b"written"})


def test_a_name_needs_the_directory_synced_the_right_one():
    async def write(disk):
        await disk.make_directory("d")
        file = await disk.open("d/a", OpenMode.CREATE)
        await file.append(b"x", sync=True)
        await disk.sync_directory("")  # not the directory that holds it

    async def read(disk):
        return await disk.list("d")

    assert {tuple(after_power_loss(seed, write, read)) for seed in range(40)} == {(), ("a",)}


def test_a_rename_is_atomic_and_carries_what_it_rests_on():
    async def write(disk):
        for name, content in (("old", b"old"), ("new", b"new")):
            file = await disk.open(name, OpenMode.CREATE)
            await file.append(content, sync=True)
            await disk.sync_directory()
            await disk.rename(name, "current")
            if name == "old":
                await disk.sync_directory()

    seen = [after_power_loss(seed, write, contents) for seed in range(60)]
    assert {"current": b"new"} in seen
    assert {"current": b"old", "new": b"new"} in seen
    assert all(each in ({"current": b"new"}, {"current": b"old", "new": b"new"}) for each in seen)


def test_directories_lose_independently_but_a_rename_across_them_is_one_change():
    async def write(disk):
        await disk.make_directory("a")
        await disk.make_directory("b")
        await disk.open("a/x", OpenMode.CREATE)
        await disk.rename("a/x", "b/x")
        await disk.sync_directory("b")

    async def read(disk):
        return await disk.list("a"), await disk.list("b")

    assert all(after_power_loss(seed, write, read) == ([], ["x"]) for seed in range(20))


def test_power_that_goes_during_a_sync_may_take_what_it_was_for():
    with World(3) as world:
        host = world.host("node")

        async def main():
            disk = world.open_disk(host)
            file = await disk.open("a", OpenMode.CREATE)
            await disk.sync_directory()
            disk.faults.add(DiskFault(DiskFaultKind.LOST_UNSYNCED))
            syncing = file.append(b"x", sync=True)
            host.crash(Crash.POWER)
            host.revive()
            found = await contents(world.open_disk(host))
            await asyncio.sleep(1)
            assert not syncing.done()
            return found

        assert world.run(main()) == {"a": b""}


def test_a_sync_covers_what_was_written_before_it_and_nothing_later():
    with World(5) as world:
        host = world.host("node")

        async def main():
            disk = world.open_disk(host)
            file = await disk.open("a", OpenMode.CREATE)
            await disk.sync_directory()
            disk.faults.add(DiskFault(DiskFaultKind.LOST_UNSYNCED))
            file.append(b"1")
            syncs = [file.sync()]
            file.append(b"2")
            syncs.append(file.sync())
            file.append(b"3")
            await asyncio.gather(*syncs)
            host.crash(Crash.POWER)
            host.revive()
            return await contents(world.open_disk(host))

        assert world.run(main()) == {"a": b"12"}


def test_pages_of_one_write_are_lost_by_themselves():
    patterns = set()
    for seed in range(80):
        inode = Inode(1)
        inode.write(0, b"x" * (4 * PAGE_BYTES))
        inode.lose_power(random.Random(seed), lose_all=False, tear=False)
        padded = bytes(inode.data).ljust(4 * PAGE_BYTES, b"\0")
        patterns.add(tuple(padded[page * PAGE_BYTES] == 120 for page in range(4)))
    assert len(patterns) == 16


def test_torn_and_lost_unsynced_make_it_certain():
    for seed in range(20):
        inode = Inode(1)
        inode.write(0, b"a" * 100)
        inode.write(100, b"b" * 1000)
        inode.lose_power(random.Random(seed), lose_all=True, tear=True)
        assert len(inode.data) < 1100
        lost = Inode(2)
        lost.write(0, b"a")
        lost.lose_power(random.Random(seed), lose_all=True, tear=False)
        assert lost.data == b""


@given(st.integers(0, 1 << 32), st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd/")), max_size=12))
@settings(max_examples=100)
def test_names_after_a_loss_are_a_tree(seed, steps):
    names = Names()
    for directory in ("a", "b"):
        names.change({directory: None})
        names.synced("")
    rng = random.Random(seed)
    for source, target in steps:
        path = f"{source}/{target}" if source in "ab" and target != "/" else source
        match rng.randrange(4):
            case 0 if path not in names.now:
                names.change({path: Inode(1)})
            case 1 if names.now.get(path):
                names.change({path: False})
            case 2 if names.now.get(path) and "b/moved" not in names.now:
                names.rename(path, "b/moved")
            case 3:
                names.synced(rng.choice(["", "a", "b"]))
    names.lose_power(rng, lose_all=False)
    for path in names.now:
        above = path.rpartition("/")[0]
        assert above in names.now
        assert names.now[above] is None


def test_a_full_platter_refuses_and_has_room_again():
    with World(1) as world:
        host = world.host("node")
        world.platters["node"].capacity_bytes = 1000

        async def main():
            disk = world.open_disk(host)
            file = await disk.open("a", OpenMode.CREATE)
            await file.append(b"x" * 900)
            with pytest.raises(DiskFull):
                await file.append(b"x" * 101)
            assert await file.size() == 900
            await file.truncate(0)
            await file.append(b"x" * 1000)

        world.run(host.start(main()))


def test_a_device_works_while_its_process_is_paused():
    with World(1) as world:
        host = world.host("node")

        async def main():
            disk = world.open_disk(host)
            file = await disk.open("a", OpenMode.CREATE)
            await disk.sync_directory()
            writing = host.start(write(file))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            host.pause()
            await asyncio.sleep(1)
            assert not writing.done()
            host.crash(Crash.POWER)
            host.revive()
            return await contents(world.open_disk(host))

        async def write(file):
            await file.append(b"synced", sync=True)

        assert world.run(main()) == {"a": b"synced"}


def test_a_failure_is_told_as_code_of_the_host():
    with World(1) as world:
        host = world.host("node")
        told = []

        async def main():
            disk = await host.ports().open_disk()
            disk.on_failed(lambda error: told.append((error.path, world.hosts["node"] is not None)))
            disk.faults.add(DiskFault(DiskFaultKind.FAILING_FSYNC))
            file = await disk.open("a", OpenMode.CREATE)
            with pytest.raises(DiskFailed):
                await file.sync()
            with pytest.raises(FileMissing):
                await disk.open("none")

        world.run(host.start(main()))
        assert told == [("a", True)]


# --- the record log under power cuts ----------------------------------------------------------------------------------

LIMITS = LogLimits(segment_bytes=8192)
LIVES = 14
SEEDS = 80


class Writers:
    """What was appended and reported committed, over all lives."""

    def __init__(self) -> None:
        self.committed: dict[int, bytes] = {}
        self.appended: dict[int, bytes] = {}

    async def life(self, disk, rng, policy):
        """Recovers the log and checks it, then appends until the power goes."""
        found: dict[int, bytes] = {}
        log = await RecordLog.open(
            disk, "log", rng=rng, on_record=lambda sequence, payload: found.update({sequence: payload}),
            policy=policy, limits=LIMITS,
        )  # fmt: skip
        lost = {sequence for sequence, payload in self.committed.items() if found.get(sequence) != payload}
        assert not lost, f"committed and gone: {sorted(lost)}"
        assert all(self.appended.get(sequence) == payload for sequence, payload in found.items()), "never appended"
        assert list(found) == list(range(1, len(found) + 1))
        self.appended = dict(found)
        self.committed = dict(found)
        await asyncio.gather(*(self.write(log, rng) for _ in range(3)))

    async def write(self, log, rng):
        while True:
            payload = rng.randbytes(rng.choice([1, 20, 300, 3000]))
            sequence = log.append(payload)
            self.appended[sequence] = payload
            await log.committed(sequence)
            self.committed[sequence] = payload
            await asyncio.sleep(rng.choice([0, 0, 0.0001, 0.003]))


@pytest.mark.parametrize("block", range(4))
def test_the_record_log_keeps_what_it_reported_through_a_thousand_power_cuts(block):
    cuts = kept = 0
    for seed in range(block * SEEDS // 4, (block + 1) * SEEDS // 4):
        with World(seed) as world:
            host = world.host("node")
            rng = world.streams.of("test")
            writers = Writers()

            async def main(world=world, host=host, rng=rng, writers=writers):
                for _ in range(LIVES):
                    disk = world.open_disk(host)
                    if rng.random() < 0.3:
                        disk.faults.add(DiskFault(rng.choice([DiskFaultKind.TORN, DiskFaultKind.LOST_UNSYNCED])))
                    life = host.start(writers.life(disk, rng, FsyncPolicy.ALWAYS))
                    await asyncio.wait([life], timeout=rng.choice([0.0005, 0.002, 0.01, 0.03]))
                    if life.done():
                        life.result()
                    host.crash(Crash.POWER)
                    host.revive()

            world.run(main())
            cuts += LIVES
            kept += len(writers.committed)
    assert cuts == SEEDS * LIVES // 4
    assert kept > cuts


@pytest.mark.parametrize("policy", [FsyncPolicy.EVERY_SECOND, FsyncPolicy.NEVER])
def test_recovery_never_refuses_what_power_left_of_an_unsynced_log(policy):
    for seed in range(12):
        with World(seed) as world:
            host = world.host("node")
            rng = world.streams.of("test")

            async def main(world=world, host=host, rng=rng):
                for _ in range(8):
                    writers = Writers()
                    recover = host.start(self_checking(writers, world.open_disk(host), rng, policy))
                    await asyncio.wait([recover], timeout=rng.choice([0.002, 0.02, 0.5]))
                    if recover.done():
                        recover.result()
                    host.crash(Crash.POWER)
                    host.revive()

            world.run(main())


async def self_checking(writers, disk, rng, policy):
    log = await RecordLog.open(disk, "log", rng=rng, policy=policy, limits=LIMITS)
    await asyncio.gather(*(writers.write(log, rng) for _ in range(2)))
