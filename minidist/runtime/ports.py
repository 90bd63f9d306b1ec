"""What a node is given besides the event loop: its clock, its disk, its randomness.

The event loop is the port for time and network; these three are the others. The product makes them from the machine
(`real_ports`), the simulator brings its own, and nothing in a component knows the difference. The disk is opened when a
component first asks for it, so that a node which keeps nothing on disk touches none.
"""

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from minidist.runtime.clock import Clock
from minidist.runtime.randomness import derive

if TYPE_CHECKING:
    from minidist.runtime.disk.port import Disk


class Ports:
    """The injected world of one node. `random` is the node's own stream, seeded."""

    def __init__(self, clock: Clock, rng: random.Random, open_disk: "Callable[[], Awaitable[Disk]]") -> None:
        self.clock = clock
        self.random = rng
        self.disk: Disk | None = None
        self._open_disk = open_disk

    async def open_disk(self) -> "Disk":
        """The node's disk, opened at the first call. Raises DiskError."""
        if self.disk is None:
            self.disk = await self._open_disk()
        return self.disk

    async def close(self) -> None:
        self.clock.close()
        if self.disk is not None:
            await self.disk.close()


def real_ports(data_dir: str, seed: int) -> Ports:
    """The machine's clock, a directory (a temporary one when `data_dir` is empty), and the streams of `seed`."""

    async def open_disk() -> "Disk":
        from minidist.runtime.disk.local import LocalDisk

        rng = derive(seed, "disk")
        if data_dir:
            return await LocalDisk.open_root(data_dir, rng=rng)
        return await LocalDisk.open_temporary(rng=rng)

    return Ports(Clock(), derive(seed, "node"), open_disk)
