"""A whole topology on the test's own event loop: `minidist.up(FILE, inline=True)`.

    async with minidist.up("topology.toml", inline=True) as cluster:
        client = redis.asyncio.Redis.from_url(cluster["cache"].url)

Components are inline nodes (inline.py); a user's program is its `entry`, a task on the same loop. Ports are reserved as
the launcher does it, so a node that was killed refuses its clients and comes back where it was.
"""

import asyncio
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from minidist.cluster import readiness
from minidist.cluster.programs import addresses_of
from minidist.cluster.references import Endpoint, fill_in
from minidist.cluster.reservations import Reservation
from minidist.cluster.topology import ADDRESS_OPTIONS, Group, Topology, TopologyError, parse
from minidist.run import find
from minidist.runtime.config import Address
from minidist.testing.errors import MinidistError, NotSupported, UsageError
from minidist.testing.handles import DONE, Done
from minidist.testing.inline import InlineNode

READY_TIMEOUT_S = 30.0


class InlineProgram:
    """A user's program as a task of the test's loop."""

    def __init__(self, cluster: "InlineCluster", group: Group, name: str, address: Address) -> None:
        self._cluster = cluster
        self._task: asyncio.Task[None] | None = None
        self.group = group
        self.name = name
        self.endpoint = Endpoint(name, group.component, address.host, address.port)
        self.log_start = 0
        self.url, self.address = self.endpoint.url, self.endpoint.address
        self.host, self.port = address.host, address.port

    async def start(self) -> None:
        """Until its `ready` holds. Raises what it raises, MinidistError."""
        env = {"PORT": str(self.port), "MINIDIST_NODE": self.name}
        env |= {key: fill_in(text, self._cluster.endpoints) for key, text in self.group.env.items()}
        self._task = asyncio.ensure_future(find(self.group.entry)(env))
        ready = asyncio.ensure_future(readiness.until_ready(self._probe, lambda missing: None))
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await asyncio.wait([self._task, ready], return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError as error:
            raise MinidistError(f"{self.name} is not ready after {READY_TIMEOUT_S:g} s") from error
        finally:
            ready.cancel()
        if self._task.done():
            self._task.result()
            raise MinidistError(f"{self.name} ended instead of serving")

    async def _probe(self) -> None:
        if self.group.ready.startswith("log:"):
            raise NotSupported(f"ready = {self.group.ready!r}: not on an inline program, which has no log of its own")
        node: Any = self
        await readiness.program_ready(node, Path())

    def kill(self) -> "asyncio.Task[None]":
        """It is cancelled: a task cannot be ended without its cleanup."""
        return asyncio.ensure_future(self.close())

    stop = kill

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def restart(self) -> None:
        await self.close()
        await self.start()

    def wait_ready(self) -> Done:
        return DONE

    def __getattr__(self, name: str) -> Any:
        raise NotSupported(f"{name}: not on an inline program, which is a task of the test; use a process")


InlineMember = InlineNode | InlineProgram


class InlineGroup:
    """The nodes of a group; what is asked of one node is asked of the first."""

    def __init__(self, name: str, nodes: Sequence[InlineMember]) -> None:
        self.name = name
        self.nodes = list(nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[InlineMember]:
        return iter(self.nodes)

    def __getitem__(self, index: int) -> InlineMember:
        return self.nodes[index]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.nodes[0], name)


class InlineCluster:
    """A topology; await it, or use it in `async with`, to start it. Raises UsageError."""

    def __init__(self, file: Path, seed: int) -> None:
        self._seed = seed
        try:
            self._topology = parse(file.read_text(encoding="utf-8"), file=str(file), directory_name=file.parent.name)
            self._check(self._topology)
        except TopologyError as error:
            raise UsageError(str(error)) from error
        self._reservations: list[Reservation] = []
        self._endpoints: dict[str, list[Endpoint]] = {}
        self.groups: dict[str, InlineGroup] = {}

    def _check(self, topology: Topology) -> None:
        for group in topology.groups.values():
            if group.is_program and not group.entry:
                allowed = "package.module:main, which runs inline instead of the command"
                raise TopologyError(topology.file, f"groups.{group.name}.entry", None, allowed)
        if topology.links:
            raise NotSupported("links between regions: not inline; use processes, or the simulation")

    def endpoints(self, group: str) -> Sequence[Endpoint]:
        return self._endpoints[group]

    def __getitem__(self, name: str) -> Any:
        """A group, or a node by its name. Raises KeyError."""
        if name in self.groups:
            return self.groups[name]
        return {node.name: node for group in self.groups.values() for node in group}[name]

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> "InlineCluster":
        """Start every group after those it depends on; on failure everything is closed again."""
        groups = self._topology.groups
        for group in groups.values():
            self._reserve(group)
        try:
            while len(self.groups) < len(groups):
                for group in groups.values():
                    if group.name not in self.groups and all(other in self.groups for other in group.depends_on):
                        await self._start(group)
        except BaseException:
            await self.close()
            raise
        return self

    def _reserve(self, group: Group) -> None:
        endpoints = []
        for name in group.node_names():
            reservation = Reservation(group.listen)
            self._reservations.append(reservation)
            address = reservation.address
            endpoints.append(Endpoint(name, group.component, address.host, address.port))
        self._endpoints[group.name] = endpoints

    async def _start(self, group: Group) -> None:
        nodes: list[InlineMember] = []
        self.groups[group.name] = InlineGroup(group.name, nodes)
        for endpoint in self._endpoints[group.name]:
            address = Address(endpoint.host, endpoint.port)
            if group.is_program:
                nodes.append(InlineProgram(self, group, endpoint.name, address))
            else:
                nodes.append(InlineNode(group.component, endpoint.name, self._options(group, address), self._seed))
            self.groups[group.name].nodes = nodes
            await nodes[-1].start()

    def _options(self, group: Group, address: Address) -> dict[str, Any]:
        options: dict[str, Any] = {"listen": str(address), "reuse_port": True}
        for option, given in group.options.items():
            if option in ADDRESS_OPTIONS:
                options[option] = ",".join(addresses_of(given, list(self._topology.groups), self.endpoints))
            else:
                options[option] = fill_in(given, self.endpoints) if isinstance(given, str) else given
        options.pop("workers", None)  # the test's process is the only one
        return options

    async def close(self) -> None:
        for group in reversed(self.groups.values()):
            for node in group:
                await node.close()
        self.groups.clear()
        for reservation in self._reservations:
            reservation.release()
        self._reservations.clear()

    def __await__(self) -> Generator[Any, None, "InlineCluster"]:
        return self.start().__await__()

    async def __aenter__(self) -> "InlineCluster":
        return await self.start()

    async def __aexit__(self, *exception: object) -> None:
        await self.close()
