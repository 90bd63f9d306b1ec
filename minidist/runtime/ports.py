"""What a node is given besides the event loop: its clock, its disk, its randomness.

The event loop is the port for time and network; these three are the others. The product makes them from the machine
(`real_ports`), the simulator brings its own, and nothing in a component knows the difference.
"""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minidist.runtime.clock import Clock
from minidist.runtime.randomness import derive

if TYPE_CHECKING:
    from minidist.runtime.disk.port import Disk


@dataclass(slots=True)
class Ports:
    """The injected world of one node. `random` is the node's own stream, seeded."""

    clock: Clock
    disk: "Disk"
    random: random.Random


def real_ports(data_dir: str, seed: int) -> Ports:
    """The machine's clock, a directory (a temporary one when `data_dir` is empty), and the streams of `seed`."""
    from minidist.runtime.disk.local import LocalDisk

    return Ports(Clock(), LocalDisk(data_dir), derive(seed, "node"))
