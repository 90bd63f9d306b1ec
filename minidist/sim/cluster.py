"""Nodes in the simulated world: the same component code, the same programs, each node on a host of its own.

A component's node is the component's `Node` object, started on its host as the daemon would start it. A user's program
is its `entry`, run as a coroutine on its host with the environment the file describes. Ports are the ones of the file,
else each component's own; every host has an address of its own, so they never collide.

    cluster = SimCluster(world)
    groups = cluster.add(topology)           # or add_group(group, entry=main), add_group(group, kind=MyNode)
    await cluster.up(groups)                 # as the world's own code; every group is ready
    cluster.crash("store-2"); cluster.restart("store-2")
"""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from minidist.cluster import readiness
from minidist.cluster.programs import addresses_of
from minidist.cluster.references import Endpoint, fill_in
from minidist.cluster.topology import ADDRESS_OPTIONS, Group, Link, Topology
from minidist.components import import_later, node_type
from minidist.run import Entry, find
from minidist.runtime.config import Address, Config, from_table, options_of
from minidist.runtime.node import Node
from minidist.sim.host import Crash, Host
from minidist.sim.links import Rule
from minidist.sim.loop import SimTask
from minidist.sim.world import World

ADMIN_PORT = 9900
PEER_PORT = 9901
PROGRAM_PORT = 8000
READY_TIMEOUT_S = 30.0
WAIT_STEP_S = 0.05
LAUNCHER = "launcher"


class SimNode:
    """One node. `name`, `group`, `endpoint` and `admin` are what readiness probes ask for."""

    def __init__(self, group: Group, host: Host, kind: type[Node] | None, entry: Entry | None) -> None:
        self.group = group
        self.host = host
        self.name = host.name
        self.kind = kind
        self.entry = entry
        self.port = group.listen.port or (PROGRAM_PORT if kind is None else default_port(kind))
        self.endpoint = Endpoint(self.name, group.component, host.ip, self.port)
        self.admin = None if kind is None else Address(host.ip, ADMIN_PORT)
        self.node: Node | None = None
        self.task: SimTask | None = None
        self.failure: BaseException | None = None

    @property
    def running(self) -> bool:
        return self.task is not None and not self.task.done() and self.host.alive


def default_port(kind: type[Node]) -> int:
    """The port a component listens on when started by hand."""
    listen: Address = options_of(kind.config_type)["listen"].default
    return listen.port or PROGRAM_PORT


class SimCluster:
    """All nodes of one world, in groups."""

    def __init__(self, world: World, name: str = "simulation") -> None:
        self.world = world
        self.name = name
        self.groups: dict[str, list[SimNode]] = {}
        # Whoever looks at the cluster from outside, as readiness probes do. Faults do not concern it.
        self.launcher = world.host(LAUNCHER)

    def add(self, topology: Topology) -> list[Group]:
        """The groups of a file, not started yet."""
        self.name = topology.name
        for group in topology.groups.values():
            self.add_group(group)
        for link in topology.links:
            self._lay(link, topology)
        return list(topology.groups.values())

    def add_group(self, group: Group, *, kind: type[Node] | None = None, entry: Entry | None = None) -> list[SimNode]:
        """One group's nodes, not started yet: of a registered component, of a Node class, or of an entry."""
        if group.is_program:
            entry = entry or find(group.entry)
        else:
            kind = kind or node_type(group.component)
            import_later(group.component)
        nodes = [SimNode(group, self.world.host(name), kind, entry) for name in group.node_names()]
        self.groups[group.name] = nodes
        return nodes

    def _lay(self, link: Link, topology: Topology) -> None:
        """A link of the file is a delay between two regions that no healing removes."""
        ends = [frozenset(topology.nodes_in(region)) for region in link.between]
        delay = {"ms": link.latency_ms, "jitter_ms": link.jitter_ms}
        for source, target in (ends, ends[::-1]):
            self.world.network.add_rule(Rule("delay", source, target, dict(delay)))

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

    async def up(self, groups: Iterable[Group]) -> None:
        """Start groups, each when those it depends on are ready. Raises what made a node fail, or TimeoutError."""
        ready = {group.name: asyncio.Event() for group in groups}

        async def start(group: Group) -> None:
            for other in group.depends_on:
                await ready[other].wait()
            for node in self.groups[group.name]:
                self.start(node)
            await self.until_ready(self.groups[group.name])
            ready[group.name].set()

        try:
            async with asyncio.TaskGroup() as tasks:
                for group in groups:
                    tasks.create_task(start(group))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    def start(self, node: SimNode) -> None:
        """Begin a life of a node."""
        node.failure = None
        main = self._program(node) if node.kind is None else self._component(node, node.kind)
        node.task = node.host.start(main, name=node.name)
        node.task.add_done_callback(lambda task: self._ended(node, task))

    def _ended(self, node: SimNode, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and task.exception() is not None:
            node.failure = task.exception()
            self.world.note(node.host, f"failed: {node.failure!r}")

    async def _component(self, node: SimNode, kind: type[Node]) -> None:
        node.node = kind(self.config(node, kind), node.host.ports())
        await node.node.start()
        if node.node.ports.disk is not None:
            node.node.ports.disk.on_failed(lambda error: self._disk_failed(node))
        self.world.note(node.host, "ready")
        await asyncio.get_running_loop().create_future()  # until the host's life ends

    def _disk_failed(self, node: SimNode) -> None:
        """As the daemon does: a node whose disk has failed ends. It is up again when the fault has ended."""
        loop = self.world.loop
        loop.at_world_time(loop.now_s, node.host.crash)

    async def _program(self, node: SimNode) -> None:
        assert node.entry is not None
        env = {"PORT": str(node.port), "MINIDIST_NODE": node.name}
        env |= {variable: fill_in(text, self.endpoints) for variable, text in node.group.env.items()}
        await node.entry(env)

    def config(self, node: SimNode, kind: type[Node]) -> Config:
        """A component's configuration, references filled in. Raises ConfigError."""
        group = node.group
        table: dict[str, Any] = {
            "name": node.name,
            "listen": node.endpoint.address,
            "admin": str(node.admin),
            "seed": self.world.seed,
        }
        if hasattr(kind.config_type, "peers"):
            members = self.groups[group.name]
            table["peer_listen"] = f"{node.host.ip}:{PEER_PORT}"
            table["peers"] = ",".join(f"{each.name}={each.host.ip}:{PEER_PORT}" for each in members)
            table["cluster_id"] = self.name
        for option, given in group.options.items():
            if option in ADDRESS_OPTIONS:
                table[option] = ",".join(addresses_of(given, list(self.groups), self.endpoints))
            else:
                table[option] = fill_in(given, self.endpoints) if isinstance(given, str) else given
        table.pop("workers", None)  # one process per host here; the halves run in it
        return from_table(kind.config_type, table, f"groups.{group.name}.")

    # --- readiness --------------------------------------------------------------------------------------------------

    async def until_ready(self, nodes: Sequence[SimNode], timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until the nodes' exchange works, asked from outside. Raises a failed node's error, or TimeoutError."""
        deadline_s = self.world.now_s + timeout_s
        while missing := await self.launcher.start(self._probe(nodes)):
            for node in nodes:
                if node.failure is not None:
                    raise node.failure
            if self.world.now_s > deadline_s:
                names = ", ".join(node.name for node in nodes)
                raise TimeoutError(f"{names}: not ready after {timeout_s:g} s: {missing}")
            await asyncio.sleep(WAIT_STEP_S)

    async def _probe(self, nodes: Sequence[Any]) -> str:
        """What is missing, or "" when they work."""
        if not all(node.running for node in nodes):
            return "a node is down"
        try:
            async with asyncio.timeout(readiness.PROBE_TIMEOUT_S):
                for node in nodes:
                    if node.group.is_program:
                        await _program_ready(node)
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


async def _program_ready(node: Any) -> None:
    """Its `ready`; one that waits for a log line is taken as tcp, because there is no log file here."""
    if node.group.ready.startswith("log:"):
        _, writer = await asyncio.open_connection(node.endpoint.host, node.endpoint.port)
        writer.close()
    else:
        await readiness.program_ready(node, Path())
