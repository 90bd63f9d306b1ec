"""A simulated world: one seed, one loop, one network, some hosts. Everything a run needs, in one object.

    world = World(seed=7)
    store, client = world.host("store"), world.host("client")
    store.start(serve())
    world.run(client.start(use("store")), time_limit_s=60)
    world.trace.digest()

The world's own code (building hosts, crashing them, healing) runs outside of any host; a host's code is started with
`host.start` and stays on that host, in every task and callback it makes. While the world runs, `time`, `random`, `uuid`
and the like answer simulated values to code on hosts (entropy.py).

Close a world when its results have been read: until then it keeps the tasks of hosts that have crashed.
"""

import gc
import sys
import warnings
from collections.abc import Coroutine
from typing import Any, TypeVar

from minidist.sim.current import Leak
from minidist.sim.disk import SimDisk
from minidist.sim.entropy import Entropy
from minidist.sim.errors import LeakError
from minidist.sim.host import Crash, Host
from minidist.sim.loop import Policy, SimLoop, SimTask
from minidist.sim.network import Conditions, Network
from minidist.sim.platter import Platter
from minidist.sim.random_streams import Streams
from minidist.sim.trace import HOST_BITS, Trace

T = TypeVar("T")

MAX_HOSTS = (1 << HOST_BITS) - 1


class World:
    """One simulated world of one seed."""

    def __init__(
        self,
        seed: int,
        *,
        policy: Policy = Policy.FIFO,
        conditions: Conditions | None = None,
        keep_trace: bool = False,
    ) -> None:
        # Whatever is garbage already (the world before, for one) is not of this world: collected now, it is not
        # finalized within it; what then is left is not looked at again until the end.
        gc.collect()
        gc.freeze()
        self.seed = seed
        self.streams = Streams(seed)
        self.trace = Trace(keep=keep_trace)
        self.loop = SimLoop(self.streams, policy=policy, trace=self.trace)
        self.network = self.loop.network = Network(self, conditions)
        self.hosts: dict[str, Host] = {}
        self.platters: dict[str, Platter] = {}
        self.leaks: list[Leak] = []

    # --- building ---------------------------------------------------------------------------------------------------

    def host(self, name: str) -> Host:
        """A new host. Its address is a loopback one, so daemons' rules about listening hold as they do on a laptop."""
        if name in self.hosts:
            raise ValueError(f"there is a host {name!r} already")
        number = len(self.hosts) + 1
        if number > MAX_HOSTS:
            raise ValueError(f"a world has at most {MAX_HOSTS} hosts")
        ip = f"127.1.{number // 250}.{number % 250 + 1}"
        host = self.hosts[name] = self.network.hosts[ip] = Host(self, name, ip, number)
        self.network.names[name] = ip
        self.platters[name] = Platter(self.loop, self.streams.of(f"platter {name}"))
        self.trace.text(name)
        return host

    def open_disk(self, host: Host) -> SimDisk:
        """The disk of a host's present life. Raises DirectoryInUse when this life has it open already."""
        host.disk = SimDisk.open_platter(self.platters[host.name], self.streams, host.name, host.incarnation)
        return host.disk

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self, main: "Coroutine[Any, Any, T] | SimTask", *, time_limit_s: float | None = None) -> T:
        """Run until `main` is done; its result. Raises what it raises, SimulationError, and LeakError for any leak.

        A coroutine runs as the world's own code; use `host.start(…)` for code of a host. `time_limit_s` is virtual time
        from now on. What nobody has handled is in `errors` afterwards, also errors of tasks that nobody looked at.
        """
        self.loop.max_time_s = None if time_limit_s is None else self.loop.now_s + time_limit_s
        with Entropy():
            result: T = self.loop.run_until_complete(main)
            self.loop.collect()
        if self.leaks:
            raise LeakError("\n".join(str(leak) for leak in self.leaks))
        return result

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The contexts of exceptions that nobody handled, as asyncio gives them to an exception handler."""
        return self.loop.errors

    def close(self) -> None:
        """The end of the world. Tasks that never ended are dropped: what they do on the way out stays unheard."""
        if self.loop.is_closed():
            return
        unraisable, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            with Entropy(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.network.close()
                self.loop.close()
                gc.collect()
        finally:
            sys.unraisablehook = unraisable
            gc.unfreeze()

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def note(self, host: "Host | None", text: str) -> None:
        """A line for the trace's readers."""
        self.trace.note(self.loop.now_s, host.name if host else "world", text)

    def crash(self, name: str, kind: Crash = Crash.PROCESS) -> None:
        self.hosts[name].crash(kind)

    @property
    def now_s(self) -> float:
        return self.loop.now_s
