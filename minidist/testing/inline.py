"""Nodes on the test's own event loop: `inline=True`. The same component code and the same faults, without a process.

    async with minidist.cache(inline=True) as cache:
        client = redis.asyncio.Redis.from_url(cache.url)

Useful to debug into a node, and where processes are not to be had. What needs a process (pause, a log file) raises
NotSupported. Methods that take time return awaitables; `kill()` and `stop()` begin at once, awaited or not.
"""

import asyncio
import os
from collections.abc import Generator, Mapping
from typing import Any

from minidist.cluster.references import Endpoint
from minidist.components import node_type
from minidist.runtime.config import Address, ConfigError, from_table
from minidist.runtime.node import Node
from minidist.runtime.ports import real_ports
from minidist.testing.errors import NotSupported, UsageError
from minidist.testing.handles import DONE, Done, milliseconds


class InlineFault:
    """One fault of an inline node."""

    def __init__(self, node: Node, fault_id: str) -> None:
        self._node = node
        self.id = fault_id

    @property
    def fired(self) -> int:
        fault = self._node.faults.faults.get(self.id)
        return fault.fired if fault else 0

    def remove(self) -> None:
        self._node.faults.remove(self.id)

    def __enter__(self) -> "InlineFault":
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


class InlineFaults:
    """Sets faults on an inline node: `faults.delay(ms=50)`, and so on for every kind."""

    def __init__(self, handle: "InlineNode") -> None:
        self._handle = handle

    def add(self, kind: str, **parameters: Any) -> InlineFault:
        node = self._handle.node
        return InlineFault(node, node.faults.add({"kind": kind, **parameters}))

    def clear(self) -> None:
        self._handle.node.faults.clear()

    def __getattr__(self, kind: str) -> Any:
        if kind.startswith("_"):
            raise AttributeError(kind)
        return lambda **parameters: self.add(kind, **parameters)


class InlineClock:
    def __init__(self, handle: "InlineNode") -> None:
        self._handle = handle

    def advance(self, *, hours: float = 0, minutes: float = 0, seconds: float = 0, ms: float = 0) -> None:
        self._handle.node.clock.advance(milliseconds(hours=hours, minutes=minutes, seconds=seconds, ms=ms))


class InlineNode:
    """A node of this process. Await it, or use it in `async with`, to start it."""

    def __init__(self, component: str, name: str, options: Mapping[str, Any], seed: int) -> None:
        self._kind = node_type(component)
        self._table = {"name": name, **options}
        self._seed = seed
        self._node: Node | None = None
        self._address: Address | None = None
        self.name = name
        self.faults = InlineFaults(self)
        self.clock = InlineClock(self)

    @property
    def node(self) -> Node:
        """The component object itself."""
        if self._node is None:
            raise RuntimeError(f"{self.name} does not run: await it, or use `async with`")
        return self._node

    async def start(self) -> "InlineNode":
        """Start it, again on the address it had. Raises UsageError."""
        table = dict(self._table)
        if self._address is not None:
            table["listen"] = str(self._address)
        try:
            config = from_table(self._kind.config_type, {"listen": "127.0.0.1:0"} | table)
        except ConfigError as error:
            raise UsageError(str(error)) from error
        node = self._kind(config, real_ports(config.data_dir, self._seed))
        await node.start()
        self._node, self._address = node, node.address
        return self

    def __await__(self) -> Generator[Any, None, "InlineNode"]:
        return self.start().__await__()

    async def __aenter__(self) -> "InlineNode":
        return await self.start()

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._node is not None:
            node, self._node = self._node, None
            await node.stop()

    @property
    def address(self) -> str:
        return str(self.node.address)

    @property
    def host(self) -> str:
        return self.node.address.host

    @property
    def port(self) -> int:
        return self.node.address.port

    @property
    def url(self) -> str:
        return Endpoint(self.name, self.node.component, self.host, self.port).url

    @property
    def admin(self) -> str:
        return str(self.node.admin.address) if self.node.admin else ""

    @property
    def listeners(self) -> dict[str, str]:
        return self.node.addresses()

    @property
    def pid(self) -> int:
        """This process."""
        return os.getpid()

    def status(self) -> dict[str, Any]:
        return self.node.status()

    async def reset(self) -> None:
        await self.node.reset()

    def kill(self) -> "asyncio.Task[None]":
        """Connections are aborted, nothing is finished."""
        return asyncio.ensure_future(self.close())

    def stop(self) -> "asyncio.Task[None]":
        """Drain, then stop."""

        async def stop() -> None:
            await self.node.drain()
            await self.close()

        return asyncio.ensure_future(stop())

    async def restart(self) -> None:
        await self.close()
        await self.start()

    def wait_ready(self) -> Done:
        return DONE

    def pause(self) -> None:
        raise NotSupported("pause: not on an inline node, which shares its process with the test; use a process")

    resume = pause

    @property
    def log(self) -> str:
        raise NotSupported("log: an inline node logs to the test's own logging (logger `minidist`, see caplog)")
