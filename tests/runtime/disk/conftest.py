"""The disks that the conformance suite judges. A new kind of disk joins by one entry in `DISKS`.

Tests on the simulated disk run inside a simulated world, in virtual time and with its fence round them.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from minidist.runtime.disk import Disk
from minidist.runtime.disk.local import LocalDisk
from minidist.sim.world import World

OpenDisk = Callable[[], Awaitable[Disk]]


def local(root: Path) -> OpenDisk:
    return lambda: LocalDisk.open_root(str(root))


class Simulated:
    """Opens the disk of the one host of a world."""

    def __init__(self, root: Path) -> None:
        self.world = World(seed=1)
        self.host = self.world.host("node")

    async def __call__(self) -> Disk:
        return self.world.open_disk(self.host)


DISKS: dict[str, Callable[[Path], OpenDisk]] = {"local": local, "simulated": Simulated}


@pytest.fixture(params=DISKS)
def open_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenDisk]:
    """Opens the same disk each time it is called: what was written before is there."""
    (tmp_path / "data").mkdir()
    opens = DISKS[request.param](tmp_path / "data")
    yield opens
    if isinstance(opens, Simulated):
        opens.world.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs what uses a simulated disk in its world."""
    opens = pyfuncitem.funcargs.get("open_disk")
    if not isinstance(opens, Simulated):
        return None
    test = inspect.unwrap(pyfuncitem.obj)
    names = inspect.signature(test).parameters
    coroutine = test(**{name: pyfuncitem.funcargs[name] for name in names})
    opens.world.run(opens.host.start(coroutine), time_limit_s=3600)
    assert not opens.world.errors
    return True


@pytest.fixture
async def disk(open_disk: OpenDisk) -> AsyncIterator[Disk]:
    disk = await open_disk()
    yield disk
    await disk.close()
