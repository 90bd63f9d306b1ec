"""What clients do to a simulated topology, and what must hold of it.

Clients are hosts of their own, so partitions can come between them and a node. What they do follows from the topology:

* `cache`, `kv`, `shard`: registers over RESP. Each client writes unique values to a few keys and reads them, on one node
  of the group. A cache that crashes forgets, so every crash is a write of nothing to each key, of unknown time.
* `balancer` (or a user's program without one in front): GET over HTTP, of the paths the program's module names in
  `SIMULATED_PATHS` ("/" without it). A `simulated_check(path, status, body)` in that module may say what is wrong with
  an answer.

After the faults have been healed every client must succeed again soon: that is the liveness phase.
"""

import asyncio
import importlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from minidist.engines.checking import check
from minidist.engines.checking.history import read
from minidist.runtime.connection import NO_TRANSPORT
from minidist.sim.cluster import SimCluster, SimNode
from minidist.sim.host import Host
from minidist.sim.record import History, Process
from minidist.wire import http1
from minidist.wire.resp import encode_command

RESP_COMPONENTS = ("cache", "kv", "shard")
FORGETFUL = ("cache",)
CLIENTS = 4
KEYS = 3
THINK_S = (0.05, 0.25)
TIMEOUT_S = 2.0
BACK_TO_WORK_S = 20.0
LAST_WORDS_S = 5.0
# A reply that says the command had no effect for certain (the toolkit's rule for what clients are told).
NO_EFFECT = ("CLUSTERDOWN", "READONLY", "MOVED", "ASK", "TRYAGAIN", "LOADING", "ERR", "NOAUTH", "OOM", "MISCONF")

SimulatedCheck = Callable[[str, int, bytes], str]


class Broken(Exception):
    """The exchange failed; `sent` says whether the request may have reached the server."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class Exchange(asyncio.Protocol):
    """A client connection on which one thing is asked at a time. `reader` is fed bytes and yields whole answers."""

    def __init__(self, reader: Any) -> None:
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


class Client:
    """One client on its own host: it works until told to stop, and connects again whenever it must."""

    def __init__(self, workload: "Workload", host: Host, target: SimNode, rng: random.Random) -> None:
        self.workload = workload
        self.host = host
        self.target = target
        self.random = rng
        self.process: Process = workload.history.process(host.name)
        self.exchange: Exchange | None = None
        self.last_ok_s = 0.0

    async def work(self) -> None:
        while not self.workload.over:
            await self.step()
            await asyncio.sleep(self.random.uniform(*THINK_S))
        if self.exchange is not None:
            self.exchange.transport.close()

    async def step(self) -> None:
        raise NotImplementedError

    def reader(self) -> Any:
        raise NotImplementedError

    async def ask(self, request: bytes) -> Any:
        """One exchange, on a connection made for it if there is none. Raises Broken."""
        if self.exchange is None or self.exchange.transport.is_closing():
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    _, self.exchange = await loop.create_connection(
                        lambda: Exchange(self.reader()), self.target.endpoint.host, self.target.endpoint.port
                    )
            except (OSError, TimeoutError) as error:
                raise Broken(f"cannot connect: {error or 'timed out'}", sent=False) from error
        return await self.exchange.ask(request, TIMEOUT_S)

    def succeeded(self) -> None:
        self.last_ok_s = self.workload.cluster.world.now_s


class RegisterClient(Client):
    """Writes unique values to a few keys over RESP, and reads them."""

    def reader(self) -> Any:
        parser = hiredis.Reader(notEnoughData=Ellipsis)

        def feed(data: bytes) -> list[Any]:
            parser.feed(data)
            answers = []
            while (answer := parser.gets()) is not Ellipsis:
                answers.append(answer)
            return answers

        return feed

    async def step(self) -> None:
        key = f"{self.target.name}/r{self.random.randrange(KEYS)}"
        if self.random.random() < 0.5:
            value = self.workload.next_value()
            await self._operation("write", key, value, ("SET", key, str(value)))
        else:
            await self._operation("read", key, None, ("GET", key))

    async def _operation(self, f: str, key: str, value: int | None, command: Sequence[str]) -> None:
        history = self.workload.history
        token = history.invoke(self.process, f, key, value, self.target.name)
        try:
            answer = await self.ask(encode_command(*command))
        except Broken as broken:
            if broken.sent and f == "write":
                history.info(token, str(broken))
            else:
                history.fail(token, str(broken))
            return
        if isinstance(answer, hiredis.ReplyError):
            text = str(answer)
            if text.startswith(NO_EFFECT) or f == "read":
                history.fail(token, text)
            else:
                history.info(token, text)
            return
        history.ok(token, None if f == "write" or answer is None else int(answer))
        self.succeeded()


class HttpClient(Client):
    """GETs the program's paths and looks at the answers."""

    def reader(self) -> Any:
        parser = http1.ResponseReader(max_body_bytes=1 << 20)
        parser.expect("GET")
        seen = 0

        def feed(data: bytes) -> list[Any]:
            nonlocal seen
            answers = list(parser.feed(data))
            for _ in answers:
                parser.expect("GET")
                seen += 1
            return answers

        return feed

    async def step(self) -> None:
        path = self.random.choice(self.workload.paths).replace("{key}", str(self.random.randrange(50)))
        history = self.workload.history
        request = http1.request("GET", path, [("Host", self.target.endpoint.address)])
        try:
            answer = await self.ask(request)
        except Broken as broken:
            history.outcomes["info" if broken.sent else "fail"] += 1
            return
        if answer.status >= 500:
            history.outcomes["fail"] += 1
            return
        history.outcomes["ok"] += 1
        self.process.ok += 1
        self.succeeded()
        wrong = self.workload.simulated_check(path, answer.status, answer.body)
        if wrong:
            self.workload.violations.append(f"GET {path} was answered {answer.status} {answer.body[:80]!r}: {wrong}")


class Workload:
    """The clients of one run."""

    def __init__(self, cluster: SimCluster) -> None:
        self.cluster = cluster
        self.history = History(cluster.world)
        self.violations: list[str] = []
        self.over = False
        self.paths: Sequence[str] = ("/",)
        self.simulated_check: SimulatedCheck = lambda path, status, body: ""
        self._values = 0
        self._ask_the_program()
        self.clients = self._make_clients()
        self._watch_crashes()

    def next_value(self) -> int:
        self._values += 1
        return self._values

    def _ask_the_program(self) -> None:
        """A user's module may say what to ask of it and what is wrong with an answer."""
        for group in self.cluster.topology.groups.values():
            if group.is_program:
                module = importlib.import_module(group.entry.partition(":")[0])
                self.paths = getattr(module, "SIMULATED_PATHS", self.paths)
                self.simulated_check = getattr(module, "simulated_check", self.simulated_check)

    def _make_clients(self) -> list[Client]:
        world = self.cluster.world
        kinds: list[tuple[type[Client], SimNode]] = []
        fronts = [node for node in self.cluster.nodes if node.group.component == "balancer"]
        fronts = fronts or [node for node in self.cluster.nodes if node.group.is_program]
        stores = [node for node in self.cluster.nodes if node.group.component in RESP_COMPONENTS]
        for place in range(CLIENTS):
            if fronts:
                kinds.append((HttpClient, fronts[place % len(fronts)]))
            if stores:
                kinds.append((RegisterClient, stores[place % len(stores)]))
        return [
            kind(self, world.host(f"client-{number}"), target, world.streams.of(f"client {number}"))
            for number, (kind, target) in enumerate(kinds, 1)
        ]

    def _watch_crashes(self) -> None:
        """What a cache forgets at a crash, told to the history as writes of nothing that may have happened."""
        for node in self.cluster.nodes:
            if node.group.component in FORGETFUL:
                node.host.on_crash.append(lambda node=node: self._forgot(node))

    def _forgot(self, node: SimNode) -> None:
        for number in range(KEYS):
            process = self.history.process(f"crash of {node.name}")
            token = self.history.invoke(process, "write", f"{node.name}/r{number}", None, node.name)
            self.history.info(token, "the cache crashed and forgot")
            self.history.outcomes["info"] -= 1  # nobody asked for it: it is not an operation of a client

    def start(self) -> None:
        for client in self.clients:
            client.host.start(client.work(), name=client.host.name)

    async def liveness(self) -> list[str]:
        """Everything is healed: who does not get an answer any more? Waits until all do, or for so long."""
        healed_s = self.cluster.world.now_s
        while self.cluster.world.now_s < healed_s + BACK_TO_WORK_S:
            if all(client.last_ok_s > healed_s for client in self.clients):
                return []
            await asyncio.sleep(0.1)
        return [
            f"{client.host.name} gets no answer from {client.target.name} {BACK_TO_WORK_S:g} s after everything was healed"
            for client in self.clients
            if client.last_ok_s <= healed_s
        ]

    async def finish(self) -> None:
        self.over = True
        await asyncio.sleep(LAST_WORDS_S)

    def judge(self) -> list[str]:
        """What is wrong with what the clients saw; nothing when it holds."""
        problems = list(self.violations)
        if self.history.lines:
            verdict = check("register", read(self.history.lines))
            problems += [violation.summary for violation in verdict.violations]
            problems += [f"not judged: {reason}" for reason in verdict.gave_up]
        return problems
