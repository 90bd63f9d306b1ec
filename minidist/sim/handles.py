"""Handles: what a scenario or a simulated test holds of its nodes. The shape is that of `minidist.testing`.

    cache = await sim.cache()                a Handle; of one node it is also that node
    store = await sim.up("topology.toml")    a Cluster: store["cache"], store["web-1"]
    cache.kill(); await cache.restart()
    with cache.faults.delay(ms=50): …
    cache.clock.advance(hours=1)

What only a process has (`pid`, `log_path`) raises NotSupported. Nothing here blocks: `kill`, `pause` and `resume` have
happened when they return, `restart`, `stop` and `wait_ready` are to be awaited.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from minidist.cluster.references import SCHEMES
from minidist.runtime.config import ConfigError
from minidist.sim.cluster import SimNode
from minidist.sim.faults import SimFault
from minidist.sim.host import Crash
from minidist.testing.errors import NotSupported

if TYPE_CHECKING:
    from minidist.sim.simulation import Simulation

Awaited = Coroutine[Any, Any, None]


class Faults:
    """Sets faults on a node or group: `faults.delay(ms=50)`, and so on for every kind of the contract."""

    def __init__(self, handle: "Handle") -> None:
        self._handle = handle

    def add(self, kind: str, **parameters: Any) -> "FaultHandle":
        """Raises FaultError: which key, what was given, what is allowed."""
        if isinstance(parameters.get("peer"), Handle):
            parameters["peer"] = parameters["peer"].name
        spec = {key: given for key, given in parameters.items() if given is not None}
        schedule = self._handle.simulation.schedule
        return FaultHandle(schedule.set({"kind": kind, "on": self._handle.name, **spec}))

    def clear(self) -> None:
        """End every fault that was set on this node or group."""
        for fault in self._handle.simulation.schedule.faults:
            if self._handle.name in fault.on:
                fault.end()

    def list(self) -> "list[dict[str, Any]]":
        """The faults that are set on this node or group."""
        faults = self._handle.simulation.schedule.faults
        return [{"id": each.id, **each.spec, "fired": each.fired} for each in faults if self._handle.name in each.on]

    def __getattr__(self, kind: str) -> Any:
        if kind.startswith("_"):
            raise AttributeError(kind)
        return lambda **parameters: self.add(kind, **parameters)


class FaultHandle:
    """One fault that is set. As a context manager it ends with the block."""

    def __init__(self, fault: SimFault) -> None:
        self._fault = fault
        self.id = fault.id

    @property
    def fired(self) -> int:
        """How often it took effect so far."""
        return self._fault.fired

    def remove(self) -> None:
        self._fault.end()

    def __enter__(self) -> "FaultHandle":
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


class ServiceClock:
    """Moves the service time of a node or group."""

    def __init__(self, handle: "Handle") -> None:
        self._handle = handle

    def advance(self, *, hours: float = 0, minutes: float = 0, seconds: float = 0, ms: float = 0) -> None:
        by_ms = round(((hours * 60 + minutes) * 60 + seconds) * 1000 + ms)
        for node in self._handle.sim_nodes:
            node.host.run(node.host.clock.advance, by_ms)


class Handle:
    """A node, or a group of them in the order of their numbers; what is asked of one node is asked of the first."""

    def __init__(self, simulation: "Simulation", name: str, nodes: Sequence[SimNode]) -> None:
        self.simulation = simulation
        self.name = name
        self.sim_nodes = list(nodes)
        self.faults = Faults(self)
        self.clock = ServiceClock(self)

    @property
    def nodes(self) -> "list[Handle]":
        return [Handle(self.simulation, node.name, [node]) for node in self.sim_nodes]

    def __len__(self) -> int:
        return len(self.sim_nodes)

    def __iter__(self) -> "Iterator[Handle]":
        return iter(self.nodes)

    def __getitem__(self, index: Any) -> Any:
        return self.nodes[index]

    # --- addresses --------------------------------------------------------------------------------------------------

    @property
    def _first(self) -> SimNode:
        return self.sim_nodes[0]

    @property
    def url(self) -> str:
        return url_of(self._first)

    @property
    def host(self) -> str:
        return self._first.endpoint.host

    @property
    def port(self) -> int:
        return self._first.endpoint.port

    @property
    def address(self) -> str:
        return self._first.endpoint.address

    @property
    def admin(self) -> str:
        return str(self._first.admin or "")

    @property
    def urls(self) -> list[str]:
        return [url_of(node) for node in self.sim_nodes]

    @property
    def bootstrap(self) -> str:
        """All addresses, comma separated."""
        return ",".join(node.endpoint.address for node in self.sim_nodes)

    @property
    def listeners(self) -> dict[str, str]:
        node = self._first.node
        return node.addresses() if node is not None else {}

    @property
    def state(self) -> str:
        """running, paused, killed or failed."""
        node = self._first
        if node.failure is not None:
            return "failed"
        if not node.running:
            return "killed"
        return "paused" if node.host.paused else "running"

    @property
    def node(self) -> Any:
        """The component object itself."""
        return self._first.node

    def status(self) -> dict[str, Any]:
        """The node's own `GET /status`, without its detour over the network."""
        if self._first.node is None:
            self._not_supported("status", "a user's program has none")
        status: dict[str, Any] = self._first.host.run(self._first.node.status)
        return status

    @property
    def leader(self) -> "Handle":
        """The node whose role is leader. Raises LookupError when there is none."""
        leaders = [node for node in self.nodes if node._role == "leader"]
        if not leaders:
            raise LookupError(f"{self.name} has no leader")
        return leaders[0]

    @property
    def followers(self) -> "list[Handle]":
        return [node for node in self.nodes if node._role == "follower"]

    @property
    def _role(self) -> str:
        node = self._first.node
        return node.role() if node is not None and self._first.running else ""

    # --- life -------------------------------------------------------------------------------------------------------

    def kill(self, *, power: bool = False) -> "Done":
        """No cleanup, nothing more runs; with `power` the machine is gone too, and what its disk had not synced."""
        self.simulation.cluster.crash(self.name, Crash.POWER if power else Crash.PROCESS)
        return DONE

    def stop(self, timeout_s: float = 5.0) -> Awaited:
        """Drain and end; a user's program is cancelled. To be awaited."""
        return self.simulation.stop_nodes(self.sim_nodes, timeout_s)

    def restart(self) -> Awaited:
        """Stop if it runs, start again on what its disk has, wait until it is ready. To be awaited."""
        return self.simulation.restart_nodes(self.sim_nodes)

    def wait_ready(self, timeout_s: float = 30.0) -> Awaited:
        return self.simulation.cluster.until_ready(self.sim_nodes, timeout_s)

    def pause(self) -> "Done":
        """It holds its connections and says nothing."""
        for node in self.sim_nodes:
            node.host.pause()
        return DONE

    def resume(self) -> "Done":
        for node in self.sim_nodes:
            if node.host.paused:
                node.host.resume()
        return DONE

    def partition(
        self, side: "Sequence[Handle | str]", other: "Sequence[Handle | str]", *, one_way: bool = False
    ) -> FaultHandle:
        """No bytes between two sides; with `one_way`, none from the first to the second."""
        return self.simulation.partition(side, other, one_way=one_way)

    def heal(self) -> None:
        """End every partition."""
        self.simulation.heal()

    async def __aenter__(self) -> "Handle":
        return self

    async def __aexit__(self, *exception: object) -> None:
        """The whole world ends with the test."""

    def __repr__(self) -> str:
        return f"<simulated {self.name}>"

    # --- what only processes have -----------------------------------------------------------------------------------

    def _not_supported(self, what: str, why: str) -> NoReturn:
        raise NotSupported(f"{what}: not on a simulated node, {why}")

    @property
    def pid(self) -> int:
        self._not_supported("pid", "which has no process")

    @property
    def log_path(self) -> str:
        self._not_supported("log_path", "whose log is no file; see the failure bundle")

    @property
    def log(self) -> str:
        """What the node has logged so far."""
        return "\n".join(self.simulation.logs.of(self.name))


def url_of(node: SimNode) -> str:
    """With the scheme of its component; tcp for a node class of a test's own."""
    endpoint = node.endpoint
    return endpoint.url if endpoint.component in SCHEMES else f"tcp://{endpoint.address}"


class Done:
    """The result of something that is done already: `await` it or leave it."""

    def __await__(self) -> Iterator[None]:
        return iter(())


DONE = Done()


class Starting:
    """Nodes that are being started: `await` them, or use `async with`."""

    def __init__(self, handle: Handle, start: Awaited) -> None:
        self._handle = handle
        self._start = start

    def __await__(self) -> Any:
        return self._begun().__await__()

    async def _begun(self) -> Handle:
        await self._start
        return self._handle

    def __getattr__(self, name: str) -> NoReturn:
        raise NotSupported(f"{name}: nodes start in simulated time; first `await` them, or use `async with`")

    async def __aenter__(self) -> Handle:
        return await self._begun()

    async def __aexit__(self, *exception: object) -> None:
        """The whole world ends with the test."""


class Cluster:
    """A topology that runs: `cluster["store"]`, `cluster["store-1"]`."""

    def __init__(self, simulation: "Simulation", groups: Mapping[str, Handle], start: Awaited) -> None:
        self._simulation = simulation
        self.groups = dict(groups)
        self._start = start

    def __getitem__(self, name: str) -> Handle:
        """A group, or a node by its name. Raises ConfigError."""
        known = self.groups | {node.name: node for group in self.groups.values() for node in group}
        if name not in known:
            raise ConfigError("node", name, f"one of {', '.join(known)}")
        return known[name]

    def partition(
        self, side: "Sequence[Handle | str]", other: "Sequence[Handle | str]", *, one_way: bool = False
    ) -> FaultHandle:
        return self._simulation.partition(side, other, one_way=one_way)

    def heal(self, *, everything: bool = False) -> None:
        self._simulation.heal(everything=everything)

    def __await__(self) -> Any:
        return self._begun().__await__()

    async def _begun(self) -> "Cluster":
        await self._start
        return self

    async def __aenter__(self) -> "Cluster":
        return await self._begun()

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.sleep(0)
