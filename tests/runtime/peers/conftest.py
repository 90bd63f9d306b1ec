"""Clusters of bare peers over loopback sockets, each with its listener, its dialler and its faults."""

import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from minidist.runtime.clock import Clock
from minidist.runtime.config import Address
from minidist.runtime.endpoint import Dialler, Listener
from minidist.runtime.events import EventLog
from minidist.runtime.faults import FaultSet
from minidist.runtime.logs import NodeLog
from minidist.runtime.peers import Link, PeerLimits, Peers
from minidist.runtime.ports import Ports

QUICK = PeerLimits(
    heartbeat_s=0.05, silence_limit_s=0.5, backoff_s=0.005, backoff_max_s=0.05, dial_timeout_s=0.5,
    handshake_timeout_s=0.5,
)  # fmt: skip


async def no_disk() -> Any:
    raise AssertionError("peers need no disk")


class Member:
    """One node: what a component would have around its Peers."""

    def __init__(self, name: str, addresses: dict[str, Address], **options: Any) -> None:
        self.name = name
        ports = Ports(Clock(), random.Random(7), no_disk)
        log = NodeLog(name)
        self.faults = FaultSet(name, ports, EventLog(name, log, ports.clock.wall))
        dialler: Dialler[Link] = Dialler("peer-out", faults=self.faults, log=log)
        self.dialler = dialler
        self.events: list[str] = []
        options = {"limits": QUICK, "cluster_id": "test", "secret": b"s3cret"} | options
        self.peers = Peers(name, addresses, dialler=dialler, rng=random.Random(1), token=os.urandom, log=log, **options)
        self.peers.on_up.append(lambda peer: self.events.append(f"{peer} up"))
        self.peers.on_down.append(lambda peer: self.events.append(f"{peer} down"))
        self.peers.handlers["echo"] = lambda peer, body: [peer, body]
        self.listener: Listener[Link] = Listener(
            "peer", addresses[name], self.peers.accept, faults=self.faults, log=log, reuse_port=True
        )

    async def start(self) -> None:
        await self.listener.start()
        self.peers.start()

    async def kill(self) -> None:
        """As a crash: everything is cut, nothing is said."""
        self.listener.stop_accepting()
        for endpoint in (self.listener, self.dialler):
            for link in list(endpoint.connections):
                link.reset()
        await self.peers.close()

    async def stop(self) -> None:
        await self.peers.close()
        self.listener.close()
        self.dialler.close()


class Cluster:
    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.addresses: dict[str, Address] = {}
        self.reserved: dict[str, socket.socket] = {}

    async def add(self, name: str, **options: Any) -> Member:
        """A member; one that was there before is replaced at its address."""
        member = self.members[name] = Member(name, self.addresses, **options)
        await member.start()
        return member

    def __getitem__(self, name: str) -> Member:
        return self.members[name]


def reserve() -> socket.socket:
    """A port that is this test's own: bound, never listening, so that a dial is refused until the node listens."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


@pytest.fixture(scope="session")
def bare() -> Any:
    """The parts, for a test that runs many loops of its own."""
    return Cluster, reserve


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[Callable[..., Any]]:
    """`await cluster("abc")`: a started cluster of these nodes; all are stopped after the test."""
    made: list[Cluster] = []

    async def make(names: str, start: str | None = None, **options: Any) -> Cluster:
        cluster = Cluster()
        made.append(cluster)
        cluster.reserved = {name: reserve() for name in names}
        cluster.addresses = {name: Address(*held.getsockname()) for name, held in cluster.reserved.items()}
        for name in names if start is None else start:
            await cluster.add(name, **options)
        return cluster

    yield make
    for each in made:
        for member in each.members.values():
            await member.stop()
        for held in each.reserved.values():
            held.close()
