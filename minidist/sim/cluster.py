"""A topology in the simulated world: the same file, the same component code, each node on a host of its own.

A component's node is the component's `Node` object, started on its host as the daemon would start it. A user's program
is its `entry`, run as a coroutine on its host with the environment the file describes. Ports are the ones of the file,
else each component's own; every host has an address of its own, so they never collide.

    cluster = SimCluster(world, topology)
    await cluster.up()                       # as the world's own code; every group is ready
    cluster.crash("store-2"); await cluster.restart("store-2")
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from minidist.cluster import readiness
from minidist.cluster.programs import addresses_of
from minidist.cluster.references import Endpoint, fill_in
from minidist.cluster.topology import ADDRESS_OPTIONS, Group, Topology, TopologyError
from minidist.components import node_type
from minidist.run import find
from minidist.runtime.config import Address, Config, from_table, options_of
from minidist.runtime.node import Node
from minidist.sim.host import Crash, Host
from minidist.sim.loop import SimTask
from minidist.sim.world import World

ADMIN_PORT = 9900
PEER_PORT = 9901
PROGRAM_PORT = 8000
READY_TIMEOUT_S = 30.0
WAIT_STEP_S = 0.05


class SimNode:
    """One node of the topology. `name`, `endpoint` and `admin` are what readiness probes ask for."""

    def __init__(self, group: Group, index: int, host: Host) -> None:
        self.group = group
        self.index = index
        self.host = host
        self.name = host.name
        self.port = group.listen.port or (PROGRAM_PORT if group.is_program else default_port(group))
        self.endpoint = Endpoint(self.name, group.component, host.ip, self.port)
        self.admin = None if group.is_program else Address(host.ip, ADMIN_PORT)
        self.node: Node | None = None
        self.task: SimTask | None = None
        self.failure: BaseException | None = None

    @property
    def running(self) -> bool:
        return self.task is not None and not self.task.done() and self.host.alive


def default_port(group: Group) -> int:
    """The port a component listens on when started by hand."""
    listen: Address = options_of(node_type(group.component).config_type)["listen"].default
    return listen.port or PROGRAM_PORT


class SimCluster:
    """All nodes of a topology in one world."""

    def __init__(self, world: World, topology: Topology) -> None:
        self.world = world
        self.topology = topology
        for group in topology.groups.values():
            if group.is_program and not group.entry:
                allowed = "package.module:main, which the simulation runs instead of the command"
                raise TopologyError(topology.file, f"groups.{group.name}.entry", None, allowed)
        self.groups: dict[str, list[SimNode]] = {
            group.name: [SimNode(group, index, world.host(name)) for index, name in enumerate(group.node_names())]
            for group in topology.groups.values()
        }
        # Whoever looks at the cluster from outside: readiness probes, clients of a workload.
        self.launcher = world.host("launcher")

    @property
    def nodes(self) -> list[SimNode]:
        return [node for nodes in self.groups.values() for node in nodes]

    def find(self, name: str) -> list[SimNode]:
        """The nodes of a group, or the one of that name. Raises KeyError."""
        if name in self.groups:
            return self.groups[name]
        found = [node for node in self.nodes if node.name == name]
        if not found:
            raise KeyError(name)
        return found

    def endpoints(self, group: str) -> Sequence[Endpoint]:
        return [node.endpoint for node in self.groups[group]]

    # --- life -------------------------------------------------------------------------------------------------------

    async def up(self) -> None:
        """Start every group when those it depends on are ready. Raises what made a node fail, or TimeoutError."""
        ready = {name: asyncio.Event() for name in self.groups}

        async def start(group: Group) -> None:
            for other in group.depends_on:
                await ready[other].wait()
            for node in self.groups[group.name]:
                self.start(node)
            await self.until_ready(group.name)
            ready[group.name].set()

        async with asyncio.TaskGroup() as tasks:
            for group in self.topology.groups.values():
                tasks.create_task(start(group))

    def start(self, node: SimNode) -> None:
        """Begin a life of a node."""
        node.failure = None
        main = self._program(node) if node.group.is_program else self._component(node)
        node.task = node.host.start(main, name=node.name)
        node.task.add_done_callback(lambda task: self._ended(node, task))

    def _ended(self, node: SimNode, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and task.exception() is not None:
            node.failure = task.exception()
            self.world.note(node.host, f"failed: {node.failure!r}")

    async def _component(self, node: SimNode) -> None:
        node.node = node_type(node.group.component)(self.config(node), node.host.ports())
        await node.node.start()
        self.world.note(node.host, "ready")
        await asyncio.get_running_loop().create_future()  # until the host's life ends

    async def _program(self, node: SimNode) -> None:
        env = {"PORT": str(node.port), "MINIDIST_NODE": node.name}
        env |= {variable: fill_in(text, self.endpoints) for variable, text in node.group.env.items()}
        await find(node.group.entry)(env)

    def config(self, node: SimNode) -> Config:
        """A component's configuration, references filled in."""
        group = node.group
        kind = node_type(group.component).config_type
        table: dict[str, Any] = {
            "name": node.name,
            "listen": node.endpoint.address,
            "admin": str(node.admin),
            "seed": self.world.seed,
        }
        if hasattr(kind, "peers"):
            members = self.groups[group.name]
            table["peer_listen"] = f"{node.host.ip}:{PEER_PORT}"
            table["peers"] = ",".join(f"{each.name}={each.host.ip}:{PEER_PORT}" for each in members)
            table["cluster_id"] = self.topology.name
        for option, given in group.options.items():
            if option in ADDRESS_OPTIONS:
                table[option] = ",".join(addresses_of(given, list(self.topology.groups), self.endpoints))
            else:
                table[option] = fill_in(given, self.endpoints) if isinstance(given, str) else given
        table.pop("workers", None)  # one process per host here; the halves run in it
        return from_table(kind, table, f"groups.{group.name}.")

    # --- readiness --------------------------------------------------------------------------------------------------

    async def until_ready(self, group: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until the group's exchange works, asked from outside. Raises a failed node's error, or TimeoutError."""
        deadline_s = self.world.now_s + timeout_s
        while True:
            missing = await self.launcher.start(self._probe(group))
            if not missing:
                return
            for node in self.groups[group]:
                if node.failure is not None:
                    raise node.failure
            if self.world.now_s > deadline_s:
                raise TimeoutError(f"{group} is not ready after {timeout_s:g} s: {missing}")
            await asyncio.sleep(WAIT_STEP_S)

    async def _probe(self, group: str) -> str:
        """What is missing, or "" when the group works."""
        nodes: list[Any] = [node for node in self.groups[group] if node.running]
        if len(nodes) < len(self.groups[group]):
            return "a node is down"
        try:
            async with asyncio.timeout(readiness.PROBE_TIMEOUT_S):
                for node in nodes:
                    if node.group.is_program:
                        _, writer = await asyncio.open_connection(node.endpoint.host, node.endpoint.port)
                        writer.close()
                await readiness.group_ready(nodes[0].group.component, nodes)
        except (readiness.NotReady, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            return str(error) or type(error).__name__
        return ""

    # --- what faults do to nodes ------------------------------------------------------------------------------------

    def crash(self, name: str, kind: Crash = Crash.PROCESS) -> None:
        for node in self.find(name):
            node.host.crash(kind)

    def restart(self, name: str) -> None:
        """A new life for those that are down; they become ready in their own time."""
        for node in self.find(name):
            if not node.host.alive:
                node.host.revive()
                self.start(node)
