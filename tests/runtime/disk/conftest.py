"""The disks that the conformance suite judges. A new kind of disk joins by one entry in `DISKS`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from minidist.runtime.disk import Disk
from minidist.runtime.disk.local import LocalDisk

OpenDisk = Callable[[], Awaitable[Disk]]


def local(root: Path) -> OpenDisk:
    return lambda: LocalDisk.open_root(str(root))


DISKS = {"local": local}


@pytest.fixture(params=DISKS)
def open_disk(request: pytest.FixtureRequest, tmp_path: Path) -> OpenDisk:
    """Opens the same disk each time it is called: what was written before is there."""
    (tmp_path / "data").mkdir()
    return DISKS[request.param](tmp_path / "data")


@pytest.fixture
async def disk(open_disk: OpenDisk) -> AsyncIterator[Disk]:
    disk = await open_disk()
    yield disk
    await disk.close()
