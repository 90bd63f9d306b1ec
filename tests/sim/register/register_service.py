"""A replicated register in two hundred lines: CASPaxos on `runtime/peers` and the record log. Honest code, no leader.

Rystsov, "CASPaxos: Replicated State Machines without logs" (2018). A key's state is changed in two rounds by whichever
node was asked. *Prepare*: a majority promises a ballot and says what it has accepted; the newest of that is the state.
*Accept*: a majority stores the changed state under the ballot. A node answers either only after its own record log has
made it durable. Reading is a change that changes nothing.

A client that got no answer asks another node to do the same thing again, so the state remembers, per client, the last
operation that was done and its result: it is done once, whoever carries it out, however often.

    SET key number client/sequence   ADD key number client/sequence   GET key     one line each
    OK number|nil                    UNKNOWN why (it may happen)       FAILED why (it did not, and will not)
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgpack

from minidist.runtime.config import Address, ClusterConfig, Config, option
from minidist.runtime.connection import Connection
from minidist.runtime.disk.port import DiskError
from minidist.runtime.disk.recordlog import RecordLog
from minidist.runtime.node import Node
from minidist.runtime.peers import PeerFailure, Peers

ROUND_S = 0.5
REQUEST_S = 2.0
BACKOFF_S = (0.005, 0.05)

Ballot = list[Any]  # [number, node]
State = dict[str, Any]  # {"value": number or None, "done": {client: [sequence, result]}}
NO_BALLOT: Ballot = [0, ""]


def nothing() -> State:
    return {"value": None, "done": {}}


@dataclass(frozen=True, kw_only=True)
class RegisterConfig(ClusterConfig):
    component = "register"

    listen: Address = option(Address("127.0.0.1", 7000), "Where clients connect.")


class Acceptor:
    """What this node has promised and accepted, by key, on its disk before anybody hears of it."""

    def __init__(self) -> None:
        self.promised: dict[str, Ballot] = {}
        self.accepted: dict[str, tuple[Ballot, State]] = {}
        self.log: RecordLog

    async def open(self, disk: Any, rng: Any) -> None:
        self.log = await RecordLog.open(disk, "register", rng=rng, on_record=self._recovered)

    def _recovered(self, sequence: int, payload: bytes) -> None:
        self._apply(*msgpack.unpackb(payload))

    def _apply(self, key: str, ballot: Ballot, state: State | None) -> None:
        self.promised[key] = ballot
        if state is not None:
            self.accepted[key] = (ballot, state)

    async def prepare(self, key: str, ballot: Ballot) -> Any:
        """[accepted ballot, state] and a promise, or the ballot that forbids it."""
        if ballot <= self.promised.get(key, NO_BALLOT):
            return {"refused": self.promised[key]}
        if not await self._stored(key, ballot, None):
            return {"refused": self.promised[key]}
        # What was accepted meanwhile has a lower ballot than the promise, or the promise has been overtaken.
        return {"accepted": list(self.accepted.get(key, (NO_BALLOT, nothing())))}

    async def accept(self, key: str, ballot: Ballot, state: State) -> Any:
        if ballot < self.promised.get(key, NO_BALLOT):
            return {"refused": self.promised[key]}
        return {} if await self._stored(key, ballot, state) else {"refused": self.promised[key]}

    async def _stored(self, key: str, ballot: Ballot, state: State | None) -> bool:
        """False when the disk has no room for it, now or in time: what is not safe must not be said."""
        self.promised.setdefault(key, NO_BALLOT)
        try:
            sequence = self.log.append(msgpack.packb([key, ballot, state]))
            self._apply(key, ballot, state)
            await self.durable(sequence)
        except DiskError:
            return False
        return True

    async def durable(self, sequence: int) -> None:
        await self.log.committed(sequence)


class Unavailable(Exception):
    """No majority in time; `maybe` says whether the change may have happened or may still happen."""

    def __init__(self, maybe: bool) -> None:
        super().__init__("no majority answered in time")
        self.maybe = maybe


class Proposer:
    """Changes the state of keys through a majority of acceptors, its own always among them."""

    def __init__(self, name: str, acceptor: Acceptor, peers: Peers, rng: Any) -> None:
        self.name = name
        self.acceptor = acceptor
        self.peers = peers
        self.random = rng
        self.highest: dict[str, int] = {}

    async def read(self, key: str) -> Any:
        return (await self.change(key, lambda state: state))["value"]

    async def write(self, key: str, make: Callable[[Any], Any], client: str, sequence: int) -> Any:
        """Set the value that `make` makes of the present one, once for each client's sequence."""

        def changed(state: State) -> State:
            if is_done(state, client, sequence):
                return state
            value = make(state["value"])
            return {"value": value, "done": state["done"] | {client: [sequence, value]}}

        return (await self.change(key, changed))["done"][client][1]

    async def change(self, key: str, function: Callable[[State], State]) -> State:
        """Raises Unavailable."""
        maybe = False
        try:
            async with asyncio.timeout(REQUEST_S):
                while True:
                    ballot = self._next_ballot(key)
                    promises = await self._ask_all("prepare", [key, ballot])
                    if promises is not None:
                        state = function(newest([each["accepted"] for each in promises]))
                        maybe = True
                        if await self._ask_all("accept", [key, ballot, state]) is not None:
                            return state
                    await asyncio.sleep(self.random.uniform(*BACKOFF_S))
        except TimeoutError:
            raise Unavailable(maybe) from None

    def _next_ballot(self, key: str) -> Ballot:
        """Never one of an earlier life: our own acceptor promises it, durably, before anybody else hears of it."""
        seen = max(self.highest.get(key, 0), self.acceptor.promised.get(key, NO_BALLOT)[0])
        self.highest[key] = seen + 1
        return [seen + 1, self.name]

    async def _ask_all(self, what: str, body: list[Any]) -> list[Any] | None:
        """The answers of a majority that agrees, as soon as there is one; None when it cannot be had."""
        mine = await getattr(self.acceptor, what)(*body)
        if "refused" in mine:
            self._saw(body[0], mine["refused"])
            return None
        answers = [mine]
        asked = [asyncio.ensure_future(self._ask(peer, what, body)) for peer in self.peers.members if peer != self.name]
        waiting = set(asked)
        try:
            while waiting and len(answers) < self.majority():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for given in (each.result() for each in asked if each in done):
                    if given is not None and "refused" in given:
                        self._saw(body[0], given["refused"])
                    elif given is not None:
                        answers.append(given)
        finally:
            for each in asked:
                each.cancel()
        return answers if len(answers) >= self.majority() else None

    async def _ask(self, peer: str, what: str, body: list[Any]) -> Any:
        try:
            return await self.peers.request(peer, what, body, ROUND_S)
        except PeerFailure:
            return None

    def _saw(self, key: str, ballot: Ballot) -> None:
        self.highest[key] = max(self.highest.get(key, 0), ballot[0])

    def majority(self) -> int:
        return len(self.peers.members) // 2 + 1


def newest(accepted: list[Any]) -> State:
    """The state under the highest ballot that any of a majority has accepted."""
    _, state = max(accepted, key=lambda each: each[0])
    return state


def is_done(state: State, client: str, sequence: int) -> bool:
    """Whether this operation (or a later one of its client, which then has given it up) has been done."""
    return client in state["done"] and state["done"][client][0] >= sequence


class ClientConnection(Connection):
    """Lines in, lines out."""

    __slots__ = ("node", "rest")

    def __init__(self, listener: Any, node: "Register") -> None:
        super().__init__(listener)
        self.node = node
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        self.touched = True
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.node.start_task(self._answer(line.decode().split()))

    async def _answer(self, words: list[str]) -> None:
        try:
            value = await self.node.perform(words)
            text = f"OK {'nil' if value is None else value}"
        except Unavailable as error:
            text = f"{'UNKNOWN' if error.maybe and words[0] != 'GET' else 'FAILED'} {error}"
        if not self.closing:
            self.transport.write(f"{text}\n".encode())


class Register(Node):
    """One of the register's nodes."""

    config_type: ClassVar[type[Config]] = RegisterConfig

    async def open_data(self) -> None:
        config = self.config
        assert isinstance(config, RegisterConfig)
        self.tasks: dict[asyncio.Task[None], None] = {}
        acceptor = Acceptor()
        await acceptor.open(await self.ports.open_disk(), self.random)
        members = {name: Address.parse(where) for name, where in (each.split("=") for each in config.peers)}
        peers = Peers(
            config.name, members, dialler=self.dialler("peer"), rng=self.random, token=os.urandom,
            cluster_id=config.cluster_id, log=self.log,
        )  # fmt: skip
        peers.handlers["prepare"] = lambda peer, body: acceptor.prepare(*body)
        peers.handlers["accept"] = lambda peer, body: acceptor.accept(*body)
        self.proposer = Proposer(config.name, acceptor, peers, self.random)
        await self.listen("clients", config.listen, lambda listener: ClientConnection(listener, self))
        await self.listen("peer", config.peer_listen, peers.accept)
        peers.start()

    def start_task(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self.tasks[task] = None
        task.add_done_callback(lambda done: self.tasks.pop(done, None))

    async def perform(self, words: list[str]) -> Any:
        if words[0] == "GET":
            return await self.proposer.read(words[1])
        name, key, number, identity = words
        client, sequence = identity.split("/")
        amount = int(number)
        make = (lambda value: amount) if name == "SET" else (lambda value: (value or 0) + amount)
        return await self.proposer.write(key, make, client, int(sequence))
