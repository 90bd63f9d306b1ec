"""What clients do to a simulated topology, and what must hold of it: the scenario of every topology file.

Clients are hosts of their own, so partitions can come between them and a node. What they do is up to the topology:

* `cache`, `kv`, `shard`: registers over RESP. A client writes unique values to a few keys and reads them, on one node
  of the group. A cache that crashes forgets: every crash writes nothing to each key.
* `balancer` (or a user's program without one in front): GET over HTTP, of the paths the program's module names in
  `SIMULATED_PATHS` ("/" without it; `{key}` becomes a number). A `simulated_check(path, status, body)` in that module
  may say what is wrong with an answer.
"""

import asyncio
import functools
import importlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from minidist.cluster.topology import Topology
from minidist.engines.checking import Outcome, answers
from minidist.runtime.connection import NO_TRANSPORT
from minidist.sim.cluster import SimNode
from minidist.sim.record import Token
from minidist.sim.simulation import Simulation
from minidist.wire import http1
from minidist.wire.resp import encode_command
from minidist.wire.resp_client import NOTHING, ReplyError, ReplyReader

RESP_COMPONENTS = ("cache", "kv", "shard")
FORGETFUL = ("cache",)
CLIENTS = 4
KEYS = 3
HTTP_KEYS = 50
THINK_S = (0.05, 0.25)
TIMEOUT_S = 2.0

Reader = Callable[[bytes], Sequence[Any]]
SimulatedCheck = Callable[[str, int, bytes], str]


class Broken(Exception):
    """The exchange failed; `sent` says whether the request may have reached the server."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class Exchange(asyncio.Protocol):
    """A client connection on which one thing is asked at a time. `reader` is fed bytes and yields whole answers."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.transport: asyncio.Transport = NO_TRANSPORT
        self.answer: asyncio.Future[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for answer in self.reader(data):
            if self.answer is not None and not self.answer.done():
                self.answer.set_result(answer)

    def eof_received(self) -> None:
        self._failed("closed by the server")

    def connection_lost(self, exc: Exception | None) -> None:
        self._failed(str(exc) if exc else "closed")

    def _failed(self, text: str) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(Broken(text, sent=True))

    async def ask(self, request: bytes, timeout_s: float) -> Any:
        """One answer. Raises Broken."""
        if self.transport.is_closing():
            raise Broken("the connection was closed", sent=False)
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            async with asyncio.timeout(timeout_s):
                return await self.answer
        except TimeoutError:
            self.transport.abort()
            raise Broken("timed out", sent=True) from None


class Client(ABC):
    """One client: it works until told to stop, and connects again whenever it must."""

    def __init__(self, workload: "Workload", name: str, target: SimNode) -> None:
        self.workload = workload
        self.sim = workload.sim
        self.target = target
        self.random: random.Random = self.sim.world.streams.of(name)
        self.process = self.sim.history.process(name)
        self.exchange: Exchange | None = None

    async def work(self) -> None:
        while self.sim.working:
            await self.step()
            await asyncio.sleep(self.random.uniform(*THINK_S))
        if self.exchange is not None:
            self.exchange.transport.close()

    @abstractmethod
    async def step(self) -> None:
        """One operation, recorded."""

    @abstractmethod
    def reader(self) -> Reader:
        """What turns the bytes of a new connection into whole answers."""

    async def ask(self, request: bytes) -> Any:
        """One exchange, on a connection made for it if there is none. Raises Broken."""
        if self.exchange is None or self.exchange.transport.is_closing():
            host, port = self.target.endpoint.host, self.target.endpoint.port
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    _, self.exchange = await asyncio.get_running_loop().create_connection(
                        lambda: Exchange(self.reader()), host, port
                    )
            except (OSError, TimeoutError) as error:
                raise Broken(f"cannot connect: {error or 'timed out'}", sent=False) from error
        return await self.exchange.ask(request, TIMEOUT_S)


class RegisterClient(Client):
    """Writes unique values to a few keys over RESP, and reads them."""

    def reader(self) -> Reader:
        replies = ReplyReader()

        def feed(data: bytes) -> list[Any]:
            replies.feed(data)
            answers = []
            while (answer := replies.next()) is not NOTHING:
                answers.append(answer)
            return answers

        return feed

    async def step(self) -> None:
        key = f"{self.target.name}/r{self.random.randrange(KEYS)}"
        if self.random.random() < 0.5:
            value = self.workload.next_value()
            await self._operation("write", key, value, ["SET", key, str(value)])
        else:
            await self._operation("read", key, None, ["GET", key])

    async def _operation(self, f: str, key: str, value: int | None, command: list[str]) -> None:
        history = self.sim.history
        token = history.invoke(self.process, f, key, value, self.target.name)
        try:
            answer = await self.ask(encode_command([word.encode() for word in command]))
        except Broken as broken:
            self._not_done(token, answers.after_silence(f, sent=broken.sent), str(broken))
            return
        if isinstance(answer, ReplyError):
            self._not_done(token, answers.after_error(f, str(answer)), str(answer))
        else:
            history.ok(token, None if f == "write" or answer is None else int(answer))

    def _not_done(self, token: Token, outcome: Outcome, text: str) -> None:
        end = self.sim.history.fail if outcome is Outcome.FAIL else self.sim.history.info
        end(token, text)


class HttpClient(Client):
    """GETs the program's paths and looks at the answers."""

    def reader(self) -> Reader:
        responses = http1.ResponseReader(max_body_bytes=1 << 20)
        responses.expect("GET")

        def feed(data: bytes) -> list[Any]:
            answers = responses.feed(data)
            for _ in answers:
                responses.expect("GET")
            if not responses.persistent and self.exchange is not None:
                self.exchange.transport.close()
            return answers

        return feed

    async def step(self) -> None:
        path = self.random.choice(self.workload.paths).replace("{key}", str(self.random.randrange(HTTP_KEYS)))
        history = self.sim.history
        try:
            answer = await self.ask(http1.request("GET", path, self.target.endpoint.address))
        except Broken:
            history.count(self.process, "fail")  # a GET changes nothing
            return
        if answer.status >= 500:
            history.count(self.process, "fail")
            return
        history.count(self.process, "ok")
        wrong = self.workload.simulated_check(path, answer.status, answer.body)
        if wrong:
            self.sim.fail(f"GET {path} was answered {answer.status} {answer.body[:80]!r}: {wrong}")


class Workload:
    """The clients of one run."""

    def __init__(self, sim: Simulation, topology: Topology) -> None:
        self.sim = sim
        self.paths: Sequence[str] = ("/",)
        self.simulated_check: SimulatedCheck = lambda path, status, body: ""
        self._values = 0
        self._ask_the_program(topology)
        self.clients = self._make_clients()
        for node in sim.cluster.nodes:
            if node.group.component in FORGETFUL:
                node.host.on_crash.append(functools.partial(self._forgot, node))

    def next_value(self) -> int:
        self._values += 1
        return self._values

    def _ask_the_program(self, topology: Topology) -> None:
        """A user's module may say what to ask of it and what is wrong with an answer."""
        for group in topology.groups.values():
            if group.is_program:
                module = importlib.import_module(group.entry.partition(":")[0])
                self.paths = getattr(module, "SIMULATED_PATHS", self.paths)
                self.simulated_check = getattr(module, "simulated_check", self.simulated_check)

    def _make_clients(self) -> list[Client]:
        nodes = self.sim.cluster.nodes
        fronts = [node for node in nodes if node.group.component == "balancer"]
        fronts = fronts or [node for node in nodes if node.group.is_program]
        stores = [node for node in nodes if node.group.component in RESP_COMPONENTS]
        wanted: list[tuple[type[Client], SimNode]] = []
        for place in range(CLIENTS):
            if fronts:
                wanted.append((HttpClient, fronts[place % len(fronts)]))
            if stores:
                wanted.append((RegisterClient, stores[place % len(stores)]))
        return [kind(self, f"client-{number}", target) for number, (kind, target) in enumerate(wanted, 1)]

    def _forgot(self, node: SimNode) -> None:
        """What a cache forgets at a crash, told to the history as writes of nothing at that moment."""
        for number in range(KEYS):
            self.sim.history.happened("write", f"{node.name}/r{number}", None, node.name)

    def start(self) -> None:
        for client in self.clients:
            self.sim.client(client.work(), name=client.process.name)


async def play(sim: Simulation, topology: Topology) -> None:
    """The scenario of a topology file: all of it up, clients at work through the trial, histories judged."""
    await sim.topology(topology)
    workload = Workload(sim, topology)
    workload.start()
    await sim.trial()
    if sim.history.lines:
        sim.check("register")
