"""A simulated world: one seed, one loop, one network, some hosts. Everything a run needs, in one object.

    world = World(seed=7)
    store, client = world.host("store"), world.host("client")
    store.start(serve())
    world.run(client.start(use("store")), time_limit_s=60)
    world.trace.digest()

The world's own code (building hosts, crashing them, healing) runs outside of any host; a host's code is started with
`host.start` and stays on that host, in every task and callback it makes. While the world runs, `time`, `random`, `uuid`
and the like answer simulated values to code on hosts (entropy.py).
"""

from collections.abc import Coroutine
from typing import Any, TypeVar

from minidist.sim.disk import Platter, SimDisk
from minidist.sim.entropy import Entropy
from minidist.sim.host import Crash, Host
from minidist.sim.loop import Policy, SimLoop, SimTask
from minidist.sim.network import Conditions, Network
from minidist.sim.random_streams import Streams
from minidist.sim.trace import Trace

T = TypeVar("T")


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
        self.seed = seed
        self.streams = Streams(seed)
        self.trace = Trace(keep=keep_trace)
        self.loop = SimLoop(self.streams, policy=policy, trace=self.trace)
        self.network = self.loop.network = Network(self, conditions)
        self.hosts: dict[str, Host] = {}
        self.platters: dict[str, Platter] = {}

    # --- building ---------------------------------------------------------------------------------------------------

    def host(self, name: str) -> Host:
        """A new host. Its address is a loopback one, so daemons' rules about listening hold as they do on a laptop."""
        if name in self.hosts:
            raise ValueError(f"there is a host {name!r} already")
        number = len(self.hosts) + 1
        ip = f"127.1.{number // 250}.{number % 250 + 1}"
        host = self.hosts[name] = self.network.hosts[ip] = Host(self, name, ip)
        self.network.names[name] = ip
        self.platters[name] = Platter(self.streams.of(f"platter {name}"))
        return host

    def open_disk(self, host: Host) -> SimDisk:
        host.disk = SimDisk(self, host, self.platters[host.name])
        return host.disk

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self, main: "Coroutine[Any, Any, T] | SimTask", *, time_limit_s: float | None = None) -> T:
        """Run until `main` is done; its result. Raises what it raises, and SimulationError.

        A coroutine runs as the world's own code; use `host.start(…)` for code of a host.
        """
        self.loop.max_time_s = None if time_limit_s is None else self.loop.now_s + time_limit_s
        with Entropy(self):
            result: T = self.loop.run_until_complete(main)
        return result

    def close(self) -> None:
        """The end of the world: tasks that never ended are dropped without a word."""
        self.loop.close()

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
