"""A host of the simulated world: what one process with its machine is in the real one.

It has a name, an address, a disk, two clocks and a life. A *crash* ends the life without running anything more of its
code; a *restart* is a new life on what the disk kept. `process` crashes leave the machine's kernel alive, so peers get
resets; `power` failures are silence. A paused host keeps its connections and says nothing.
"""

import contextvars
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from minidist.runtime.clock import Clock
from minidist.runtime.ports import Ports
from minidist.sim.loop import EPOCH_S, SimTask, current_host

if TYPE_CHECKING:
    from minidist.sim.disk import SimDisk
    from minidist.sim.world import World

T = TypeVar("T")


class Crash(Enum):
    """What ends: the process (its kernel resets its connections), or the machine (its peers hear nothing)."""

    PROCESS = "process"
    POWER = "power"


class Host:
    """One machine with one process on it."""

    def __init__(self, world: "World", name: str, ip: str) -> None:
        self.world = world
        self.name = name
        self.ip = ip
        self.incarnation = 1
        self.alive = True
        self.powered = True
        self.paused = False
        self.waiting: list[Any] = []  # handles that came due while paused
        self.on_crash: list[Callable[[], object]] = []  # who wants to know: recorders of histories
        self.random = world.streams.of(f"host {name}")
        self.entropy = world.streams.of(f"entropy {name}")
        # Loop time: the world's until a drift is set; then it runs `loop_rate` times as fast from an anchor on.
        self.loop_rate = 1.0
        self._anchor_world_s = 0.0
        self._anchor_loop_s = 0.0
        # The wall clock of the machine: it may jump and drift, apart from loop time.
        self.wall_offset_s = 0.0
        self.clock = Clock(self.wall_ms)
        self.disk: SimDisk | None = None
        self.context = contextvars.copy_context()
        self.context.run(current_host.set, self)

    # --- time -------------------------------------------------------------------------------------------------------

    def loop_time_s(self, world_s: float) -> float:
        return self._anchor_loop_s + (world_s - self._anchor_world_s) * self.loop_rate

    def world_time_s(self, loop_s: float) -> float:
        return self._anchor_world_s + (loop_s - self._anchor_loop_s) / self.loop_rate

    def drift(self, rate: float) -> None:
        """Loop time and service time run `rate` times as fast as the world's from now on."""
        now_s = self.world.loop.now_s
        self._anchor_loop_s, self._anchor_world_s = self.loop_time_s(now_s), now_s
        self.loop_rate = rate

    def wall_s(self) -> float:
        """The machine's wall clock in seconds since the Unix epoch."""
        return EPOCH_S + self.wall_offset_s + self.loop_time_s(self.world.loop.now_s)

    def wall_ms(self) -> int:
        return int(self.wall_s() * 1000)

    # --- running code -----------------------------------------------------------------------------------------------

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a plain function as this host's code."""
        return self.context.copy().run(function, *args)

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str = "") -> SimTask:
        """Run a coroutine as this host's code."""
        return self.world.loop.create_task(coroutine, name=name or None, context=self.context.copy())

    def ports(self) -> Ports:
        """What a node on this host is given."""

        async def open_disk() -> Any:
            return self.world.open_disk(self)

        return Ports(self.clock, self.random, open_disk)

    # --- life -------------------------------------------------------------------------------------------------------

    def crash(self, kind: Crash = Crash.PROCESS) -> None:
        """The present life is over; nothing of its code runs any more."""
        if not self.alive:
            return
        self.alive, self.powered = False, kind is not Crash.POWER
        self.incarnation += 1
        self.paused = False
        self.waiting.clear()
        self.world.loop.net.host_crashed(self, kind)
        if self.disk is not None:
            self.disk.crash(kind)
        for listener in self.on_crash:
            listener()
        self.world.note(self, f"crashed ({kind.value})")

    def revive(self) -> None:
        """A new life: an empty process on the disk that is left. The caller starts its code."""
        self.alive = self.powered = True
        offset_ms = self.clock.offset_ms
        self.clock = Clock(self.wall_ms)
        self.clock.advance(offset_ms)
        self.world.note(self, "starts again")

    def pause(self) -> None:
        """As SIGSTOP: connections stay, nothing runs."""
        self.paused = True
        self.world.note(self, "paused")

    def resume(self) -> None:
        self.paused = False
        waiting, self.waiting = self.waiting, []
        self.world.loop.wake(waiting)
        self.world.note(self, "resumed")
