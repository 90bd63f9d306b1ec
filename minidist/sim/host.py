"""A host of the simulated world: what one process with its machine is in the real one.

It has a name, an address, a disk, two clocks and a life. A *crash* ends the life without running anything more of its
code; a *restart* is a new life on what the disk kept. `process` crashes leave the machine's kernel alive: it closes the
connections as it does for any process that ends, and its page cache reaches the disk. A `power` failure is silence, and
what was not synced may be lost. A paused host (SIGSTOP) keeps its connections and its kernel, and runs nothing.
"""

import contextvars
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from minidist.runtime.clock import Clock
from minidist.runtime.ports import Ports
from minidist.sim.current import current_host
from minidist.sim.loop import EPOCH_NS, SimTask

if TYPE_CHECKING:
    from minidist.sim.disk import SimDisk
    from minidist.sim.world import World

T = TypeVar("T")


class Crash(Enum):
    """What ends: the process (its kernel closes its connections), or the machine (its peers hear nothing)."""

    PROCESS = "process"
    POWER = "power"


class Host:
    """One machine with one process on it. Made by `World.host`."""

    def __init__(self, world: "World", name: str, ip: str, number: int) -> None:
        self.world = world
        self.name = name
        self.ip = ip
        self.number = number
        self.incarnation = 1
        self.alive = True
        self.powered = True
        self.paused = False
        self.waiting: list[Any] = []  # handles that came due while paused
        self.on_crash: list[Callable[[], object]] = []  # who wants to know: recorders of histories
        self.random = world.streams.of(f"host {name}")
        # What the operating system's entropy and the module `random` are to code on this host: two, because a program
        # that seeds the one does not seed the other.
        self.entropy = world.streams.of(f"entropy {name}")
        self.module_random = world.streams.of(f"module random {name}")
        # Loop time: the world's until a drift is set; then it runs `loop_rate` times as fast from an anchor on.
        self.loop_rate = 1.0
        self._anchor_world_s = 0.0
        self._anchor_loop_s = 0.0
        # The wall clock of the machine: it may jump and drift, apart from loop time.
        self.wall_offset_s = 0.0
        self.clock = Clock(self.wall_ms)
        self.disk: SimDisk | None = None  # of the present life, once it has been opened
        self.context = contextvars.copy_context()
        self.context.run(current_host.set, self)

    def __repr__(self) -> str:
        state = "paused" if self.paused else "alive" if self.alive else "down"
        return f"<Host {self.name} {self.ip} {state}>"

    # --- time -------------------------------------------------------------------------------------------------------

    def loop_time_s(self, world_s: float) -> float:
        """The loop time of this host at a moment of the world."""
        return self._anchor_loop_s + (world_s - self._anchor_world_s) * self.loop_rate

    def world_time_s(self, loop_s: float) -> float:
        """The moment of the world at which this host's loop time is `loop_s`."""
        return self._anchor_world_s + (loop_s - self._anchor_loop_s) / self.loop_rate

    def drift(self, rate: float) -> None:
        """Loop time and service time run `rate` times as fast as the world's from now on, pending timers included."""
        if rate <= 0:
            raise ValueError(f"a clock's rate is positive, not {rate}")
        now_s = self.world.loop.now_s
        self._anchor_loop_s, self._anchor_world_s = self.loop_time_s(now_s), now_s
        self.loop_rate = rate
        self.world.loop.rate_changed(self)

    def wall_ns(self) -> int:
        """The machine's wall clock in nanoseconds since the Unix epoch."""
        return EPOCH_NS + round((self.wall_offset_s + self.loop_time_s(self.world.loop.now_s)) * 1e9)

    def wall_s(self) -> float:
        return self.wall_ns() / 1e9

    def wall_ms(self) -> int:
        return self.wall_ns() // 1_000_000

    # --- running code -----------------------------------------------------------------------------------------------

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a plain function as this host's code."""
        return self.context.copy().run(function, *args)

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str = "") -> SimTask:
        """Run a coroutine as this host's code. Never done when the host's life ends before; ValueError when it has."""
        if not self.alive:
            coroutine.close()
            raise ValueError(f"{self.name} is down")
        return self.world.loop.create_task(coroutine, name=name or None, context=self.context.copy())

    def ports(self) -> Ports:
        """What a node on this host is given."""

        async def open_disk() -> "SimDisk":
            return self.world.open_disk(self)

        return Ports(self.clock, self.random, open_disk)

    # --- life -------------------------------------------------------------------------------------------------------

    def crash(self, kind: Crash = Crash.PROCESS) -> None:
        """The present life is over; nothing of its code runs any more.

        A machine whose process is down already may still lose its power, and its disk what was not synced.
        """
        if not self.alive and not (self.powered and kind is Crash.POWER):
            return
        self.alive, self.powered = False, kind is not Crash.POWER
        self.incarnation += 1
        self.paused = False
        self.waiting.clear()
        self.world.network.host_crashed(self, kind)
        if kind is Crash.POWER:
            self.world.platters[self.name].lose_power()
        if self.disk is not None:
            self.disk.process_ended()
            self.disk = None
        for listener in self.on_crash:
            listener()
        self.world.note(self, f"crashed ({kind.value})")

    def revive(self) -> None:
        """A new life: an empty process on the disk that is left. The caller starts its code."""
        if self.alive:
            raise ValueError(f"{self.name} is running")
        self.alive = self.powered = True
        offset_ms = self.clock.offset_ms
        self.clock = Clock(self.wall_ms)
        self.clock.advance(offset_ms)
        self.world.network.retransmit()
        self.world.note(self, "starts again")

    def pause(self) -> None:
        """As SIGSTOP: connections stay, nothing runs."""
        if self.alive:
            self.paused = True
            self.world.note(self, "paused")

    def resume(self) -> None:
        """As SIGCONT: what came due meanwhile runs now, in its order."""
        if self.paused:
            self.paused = False
            waiting, self.waiting = self.waiting, []
            self.world.loop.wake(waiting)
            self.world.note(self, "resumed")
