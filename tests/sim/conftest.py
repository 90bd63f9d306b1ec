"""The verified fake: tests that take `play` run on asyncio's own loop over loopback, and in the simulation."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from minidist.sim.host import Host
from minidist.sim.loop import Policy
from minidist.sim.world import World

TIMEOUT_S = 20.0


class Net:
    """Where a test plays: `serve` listens as the server's code; everything else is the client's."""

    def __init__(self, server: Host | None) -> None:
        self.simulated = server is not None
        self._server = server
        self.host = server.ip if server is not None else "127.0.0.1"
        self.servers: list[Any] = []
        self.errors: list[dict[str, Any]] = []

    async def as_server(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return await (self._server.start(coroutine) if self._server is not None else coroutine)

    async def serve(self, factory: Callable[[], Any], port: int = 0, **options: Any) -> int:
        """Listens; gives the port."""

        async def listen() -> Any:
            return await asyncio.get_running_loop().create_server(factory, self.host, port, **options)

        server = await self.as_server(listen())
        self.servers.append(server)
        taken: int = server.sockets[0].getsockname()[1]
        return taken

    async def serve_streams(self, handle: Callable[..., Any]) -> int:
        server = await self.as_server(asyncio.start_server(handle, self.host, 0))
        self.servers.append(server)
        taken: int = server.sockets[0].getsockname()[1]
        return taken

    async def connect(self, factory: Callable[[], Any], port: int, **options: Any) -> Any:
        return await asyncio.get_running_loop().create_connection(factory, self.host, port, **options)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                await asyncio.sleep(0.001)


Main = Callable[[Net], Coroutine[Any, Any, Any]]


def on_asyncio(main: Main) -> Any:
    async def play() -> Any:
        net = Net(None)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: net.errors.append(context))
        try:
            return await main(net)
        finally:
            for server in net.servers:
                server.close()
            for transport in list(loop._transports.values()):  # type: ignore[attr-defined]
                if not transport.is_closing():
                    transport.abort()
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(play())


def in_simulation(policy: Policy, seed: int) -> Callable[[Main], Any]:
    def play(main: Main) -> Any:
        with World(seed, policy=policy) as world:
            net = Net(world.host("server"))
            world.loop.errors = net.errors
            return world.run(world.host("client").start(main(net)), time_limit_s=3600)

    return play


@pytest.fixture(params=["asyncio", "fifo", "shuffle"])
def play(request: pytest.FixtureRequest, seed: int) -> Callable[[Main], Any]:
    """Plays a coroutine function of one `Net` and gives its result."""
    if request.param == "asyncio":
        return on_asyncio
    return in_simulation(Policy(request.param), seed)


@pytest.fixture(params=[Policy.FIFO, Policy.SHUFFLE], ids=["fifo", "shuffle"])
def world(request: pytest.FixtureRequest, rng: random.Random) -> Any:
    with World(rng.randrange(1 << 32), policy=request.param) as world:
        yield world
