"""The faults of one node: which are set, whom they concern, and how they take hold of its streams, disk and clock.

No fault set, no cost: `FaultSet.active` is false, endpoints never ask further, connections sit directly on the loop's
transports. Setting a fault visits every connection of every endpoint; those it concerns get a `Shim`.

Whom a fault concerns: without `peer`, every connection that the node accepts, and its links to other nodes whoever
dialled them; with `peer`, every accepted or dialled connection whose other end is that peer: by proven node name or
`client:NAME`, by address, or by the process group behind a loopback connection.

`probability` and `times` count what the kind is about: connections for refuse, reset, hang, partition and bandwidth,
requests for reply, pieces of data (what one read or write brings) for delay and drop. A fault that has fired `times`
times is over; one that holds connections then keeps those it has, and lets the others be.

Each fault has a generator of its own, seeded with its `seed` or from the node's, so its choices can be repeated. It is
an event when it starts, fires (the first ten times, then at every power of ten) and ends.
"""

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minidist.runtime.config import Address
from minidist.runtime.connection import Connection
from minidist.runtime.disk.faults import DiskFault, DiskFaultKind
from minidist.runtime.events import EventLog
from minidist.runtime.faults import processes
from minidist.runtime.faults.shim import Shim
from minidist.runtime.faults.spec import Fault, FaultError, Kind, Peer, Spec, read_fault

if TYPE_CHECKING:
    from minidist.runtime.endpoint import Dialler, Endpoint
    from minidist.runtime.ports import Ports

STREAM_KINDS = (Kind.PARTITION, Kind.DELAY, Kind.BANDWIDTH, Kind.DROP, Kind.RESET, Kind.HANG, Kind.REPLY)
# These are drawn once for a connection, and hold it until they are removed.
HOLDING_KINDS = (Kind.PARTITION, Kind.BANDWIDTH, Kind.HANG)
DRAWN_KINDS = (*HOLDING_KINDS, Kind.RESET)
CLIENT_PREFIX = "client:"
REPORTED_FIRINGS = 10


def _nothing(*_: object) -> None:
    pass


class FaultSet:
    """All faults of a node. `active` says whether any stream fault is set."""

    def __init__(self, node: str, ports: "Ports", events: EventLog, *, names_clients: bool = False) -> None:
        self.node = node
        self.names_clients = names_clients  #: the protocol lets clients say who they are
        self.ports = ports
        self.events = events
        self.endpoints: list[Endpoint[Any]] = []
        self.faults: dict[str, Fault] = {}
        self.active = False
        # With workers, the listeners are in processes that have fault sets of their own, and have to know.
        self.delegates = False
        self.on_started: Callable[[Fault], object] = _nothing
        self.on_ended: Callable[[Fault, bool], object] = _nothing
        self.on_spent: Callable[[Fault], None] = self._end_soon
        self._random = random.Random(ports.random.getrandbits(64))
        self._shims: dict[Connection, Shim] = {}
        self._randoms: dict[str, random.Random] = {}
        self._planned: dict[str, Fault] = {}  # with `at`: not started yet
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._pgids: dict[Connection, int | None] = {}
        self._draws: dict[Connection, dict[str, bool]] = {}
        self._disk_faults: dict[str, DiskFault] = {}
        self._dials: list[asyncio.Future[None]] = []  # that wait behind a partition
        self._count = 0

    # --- the admin port's side --------------------------------------------------------------------------------------

    def add(self, spec: Spec) -> str:
        """Set a fault; returns its id. Raises FaultError for what cannot be taken."""
        fault = read_fault(spec, self._free_id())
        if fault.id in self.faults or fault.id in self._planned:
            raise FaultError("id", fault.id, "an id that is not in use")
        if fault.kind is Kind.REPLY and not self.delegates and not any(each.inspector for each in self.endpoints):
            raise FaultError("kind", "reply", "only on a component whose protocol has requests")
        clients = [peer.name for peer in fault.peers if peer.name.startswith(CLIENT_PREFIX)]
        if clients and not self.names_clients:
            allowed = "a node or an address: clients say no name here; to fault one of them, put a proxy between"
            raise FaultError("peer", clients[0], allowed)
        if fault.kind is Kind.DISK:
            self._check_disk(fault)
        if fault.at_ms > 0:
            self._planned[fault.id] = fault
            self._timers[fault.id] = asyncio.get_running_loop().call_later(fault.at_ms / 1000, self._start, fault)
        else:
            self._start(fault)
        return fault.id

    def _free_id(self) -> str:
        while True:
            self._count += 1
            fault_id = f"f{self._count}"
            if fault_id not in self.faults and fault_id not in self._planned:
                return fault_id

    def remove(self, fault_id: str, *, hurry: bool = True) -> bool:
        """End a fault; False when there is none of that id. With `hurry`, what it has delayed goes out at once."""
        timer = self._timers.pop(fault_id, None)
        if timer is not None:
            timer.cancel()
        if self._planned.pop(fault_id, None) is not None:
            return True
        fault = self.faults.pop(fault_id, None)
        if fault is None:
            return False
        self._randoms.pop(fault_id, None)
        if fault.kind is Kind.CLOCK and "rate" in fault.parameters:
            self.ports.clock.drift(1.0)
        disk_fault = self._disk_faults.pop(fault.id, None)
        if disk_fault is not None and self.ports.disk is not None:
            self.ports.disk.faults.remove(disk_fault)
        self._refresh(fault, hurry)
        self.events.emit("fault-ended", id=fault.id, kind=fault.kind.value, fired=fault.fired)
        self.on_ended(fault, hurry)
        return True

    def clear(self) -> list[str]:
        """End every fault; their ids."""
        ids = [*self.faults, *self._planned]
        for fault_id in ids:
            self.remove(fault_id)
        return ids

    def listed(self) -> list[dict[str, Any]]:
        """Those that are set, then those that are planned, each as `GET /faults` shows it."""
        planned = [fault.shown() | {"at_ms": fault.at_ms} for fault in self._planned.values()]
        return [fault.shown() for fault in self.faults.values()] + planned

    def _check_disk(self, fault: Fault) -> None:
        if self.ports.disk is None:
            raise FaultError("kind", "disk", "only on a node that keeps data on disk")
        what = DiskFaultKind(fault.parameters["what"])
        if not self.ports.disk.faults.supports(what):
            raise FaultError("what", what.value, "only on a simulated disk")

    def _start(self, fault: Fault) -> None:
        self._timers.pop(fault.id, None)
        self._planned.pop(fault.id, None)
        self.faults[fault.id] = fault
        seed = self._random.getrandbits(32) if fault.seed is None else fault.seed
        self._randoms[fault.id] = random.Random(seed)
        self.events.emit("fault-started", **fault.shown())
        if fault.duration_ms is not None:
            loop = asyncio.get_running_loop()
            self._timers[fault.id] = loop.call_later(fault.duration_ms / 1000, self.remove, fault.id)
        self.on_started(fault)
        if fault.kind is Kind.CLOCK:
            self._move_clock(fault)
        elif fault.kind is Kind.DISK:
            self._harm_disk(fault)
        self._refresh(fault, hurry=False)

    def _move_clock(self, fault: Fault) -> None:
        if "by" in fault.parameters:
            self.ports.clock.advance(int(fault.parameters["by"]))
        if "rate" in fault.parameters:
            self.ports.clock.drift(float(fault.parameters["rate"]))
        self.fired(fault)

    def _harm_disk(self, fault: Fault) -> None:
        """The disk draws probability and times itself; it tells us each time the fault strikes."""
        assert self.ports.disk is not None
        disk_faults = self.ports.disk.faults
        what = DiskFaultKind(fault.parameters["what"])
        harm = DiskFault(what, int(fault.number("ms")), fault.probability, fault.times)
        self._disk_faults[fault.id] = harm
        disk_faults.fired = self._disk_fired
        disk_faults.add(harm)

    def _disk_fired(self, harm: "DiskFault", operation: object) -> None:
        for fault_id, each in self._disk_faults.items():
            if each is harm:
                self.fired(self.faults[fault_id])

    # --- taking hold of streams -------------------------------------------------------------------------------------

    def _refresh(self, changed: Fault, hurry: bool) -> None:
        """After a change: every connection gets, keeps or loses its shim; listeners refuse or accept again."""
        if changed.kind not in STREAM_KINDS and changed.kind is not Kind.REFUSE:
            return
        self.active = any(fault.kind in STREAM_KINDS or fault.kind is Kind.REFUSE for fault in self.faults.values())
        self._pgids.clear()
        for endpoint in self.endpoints:
            for connection in list(endpoint.connections):
                self._take_hold(connection, hurry=hurry)
            endpoint.set_refusing(self._refuses_everyone())
        for dial in self._dials:
            if not dial.done():
                dial.set_result(None)
        self._dials.clear()

    def attach(self, connection: Connection, *, new: bool) -> bool:
        """A new or newly named connection, while faults are active; False when a fault has ended it at once."""
        if connection.endpoint.accepts:
            for fault in list(self.faults.values()):
                if fault.kind is Kind.REFUSE and self._concerns(fault, connection) and self.hits(fault):
                    connection.reset()
                    return False
        self._take_hold(connection, hurry=False, new=new)
        return not connection.closing

    def _take_hold(self, connection: Connection, *, hurry: bool, new: bool = False) -> None:
        faults = [fault for fault in self.faults.values() if self._acts(fault, connection)]
        shim = self._shims.get(connection)
        if shim is None and faults and not connection.closing and not connection.transport.is_closing():
            shim = self._shims[connection] = Shim(self, connection, new)
        if shim is not None:
            shim.apply(faults, hurry)

    def _acts(self, fault: Fault, connection: Connection) -> bool:
        return (
            fault.kind in STREAM_KINDS
            and self.holds(fault, connection)
            and self._concerns(fault, connection)
            and self._drawn(fault, connection)
        )

    def _drawn(self, fault: Fault, connection: Connection) -> bool:
        """What holds a connection is drawn once for it; the others decide for each piece of data."""
        if fault.kind not in DRAWN_KINDS or fault.probability >= 1:
            return True
        draws = self._draws.setdefault(connection, {})
        if fault.id not in draws:
            draws[fault.id] = self.random_of(fault).random() < fault.probability
        return draws[fault.id]

    def holds(self, fault: Fault, connection: Connection) -> bool:
        """Whether a fault may act on a connection: it is not spent, or it has this one already."""
        return not fault.spent or self._has_counted(fault, connection)

    def _has_counted(self, fault: Fault, connection: Connection) -> bool:
        shim = self._shims.get(connection)
        return fault.kind in HOLDING_KINDS and shim is not None and fault.id in shim.counted

    def detached(self, connection: Connection) -> None:
        self._shims.pop(connection, None)

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self._pgids.pop(connection, None)
        self._draws.pop(connection, None)

    async def before_dial(self, dialler: "Dialler[Any]", address: Address, peer_name: str) -> None:
        """Stand in the way of a dial: refuse it, or hold it as long as a partition lasts."""
        while True:
            partition = None
            for fault in list(self.faults.values()):
                named = self._names(fault.peers, peer_name, str(address)) if fault.peers else dialler.concerns_everyone
                if named and fault.kind is Kind.REFUSE and self.hits(fault):
                    raise ConnectionRefusedError(f"connection to {address} refused (fault {fault.id})")
                if named and fault.kind is Kind.PARTITION and not fault.spent:
                    partition = fault
            if partition is None or (partition.probability < 1 and not self.hits(partition)):
                return
            if partition.probability >= 1:
                self.fired(partition)
            healed = asyncio.get_running_loop().create_future()
            self._dials.append(healed)
            await healed

    def _concerns(self, fault: Fault, connection: Connection) -> bool:
        if not fault.peers:
            return connection.endpoint.concerns_everyone
        return self._names(fault.peers, connection.peer_name, connection.peer) or self._groups(fault.peers, connection)

    @staticmethod
    def _names(peers: tuple[Peer, ...], name: str, address: str) -> bool:
        """By name, by address, or by host where a peer is given as one (an address without a port)."""
        host = address.rpartition(":")[0]
        return any((peer.name and peer.name == name) or {address, host} & {*peer.addresses} for peer in peers)

    def _groups(self, peers: tuple[Peer, ...], connection: Connection) -> bool:
        pgids = tuple(pgid for peer in peers for pgid in peer.pgids)
        if not pgids:
            return False
        if connection not in self._pgids:
            port, local_port = processes.port_of(connection.peer), processes.port_of(connection.local)
            inode = processes.inode_of_port(port, local_port) if port and local_port else None
            wanted = frozenset(pgid for fault in self.faults.values() for peer in fault.peers for pgid in peer.pgids)
            self._pgids[connection] = processes.group_holding(inode, wanted) if inode else None
        return self._pgids[connection] in pgids

    def _refuses_everyone(self) -> bool:
        return any(
            fault.kind is Kind.REFUSE and not fault.peers and fault.probability >= 1 and fault.times is None
            for fault in self.faults.values()
        )

    # --- dice and counts --------------------------------------------------------------------------------------------

    def random_of(self, fault: Fault) -> random.Random:
        return self._randoms.get(fault.id) or self._random

    def hits(self, fault: Fault) -> bool:
        """Whether the fault strikes this time; counts when it does."""
        if fault.spent or (fault.probability < 1 and self.random_of(fault).random() >= fault.probability):
            return False
        self.fired(fault)
        return True

    def fired(self, fault: Fault) -> None:
        fault.fired += 1
        if fault.fired <= REPORTED_FIRINGS or str(fault.fired).strip("0") == "1":
            self.events.emit("fault-fired", id=fault.id, kind=fault.kind.value, fired=fault.fired)
        if fault.spent and fault.kind not in HOLDING_KINDS:
            self.on_spent(fault)

    def fired_on(self, fault: Fault, connection: Connection) -> None:
        """A fault that holds a connection counts once for it."""
        shim = self._shims.get(connection)
        if shim is not None and fault.id not in shim.counted:
            shim.counted.append(fault.id)
            self.fired(fault)

    def _end_soon(self, fault: Fault) -> None:
        """A fault has fired as often as it should. What it has delayed stays delayed."""
        asyncio.get_running_loop().call_soon(lambda: self.remove(fault.id, hurry=False))
