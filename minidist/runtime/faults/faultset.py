"""The faults of one node: which are set, whom they concern, and how they take hold of its streams, disk and clock.

No fault set, no cost: `FaultSet.active` is false, endpoints never ask further, connections sit directly on the loop's
transports. Setting a fault visits every connection of every endpoint; those it concerns get a `Shim`.

Whom a fault concerns: without `peer`, every connection that the node accepts, and its links to other nodes whoever
dialled them; with `peer`, every accepted or dialled connection whose other end is that peer: by proven node name or
`client:NAME`, by address, or by the process group behind a loopback connection.

Each fault has a generator of its own, seeded with its `seed` or from the node's, so its choices can be repeated. It is
an event when it starts, fires (the first ten times, then at every power of ten) and ends.
"""

import asyncio
import random
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
REPORTED_FIRINGS = 10


class FaultSet:
    """All faults of a node. `active` says whether any stream fault is set."""

    def __init__(self, node: str, ports: "Ports", events: EventLog) -> None:
        self.node = node
        self.ports = ports
        self.events = events
        self.endpoints: list[Endpoint[Any]] = []
        self.faults: dict[str, Fault] = {}
        self.active = False
        self.delegates = False  # the listeners are in worker processes, which have fault sets of their own
        self._shims: dict[Connection, Shim] = {}
        self._randoms: dict[str, random.Random] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._pgids: dict[Connection, int | None] = {}
        self._disk_faults: dict[str, DiskFault] = {}
        self._count = 0

    # --- the admin port's side --------------------------------------------------------------------------------------

    def add(self, spec: Spec) -> str:
        """Set a fault; returns its id. Raises FaultError for what cannot be taken."""
        self._count += 1
        fault = read_fault(spec, f"f{self._count}")
        if fault.id in self.faults or fault.id in self._timers:
            raise FaultError("id", fault.id, "an id that is not in use")
        if fault.kind is Kind.REPLY and not self.delegates and not any(each.inspector for each in self.endpoints):
            raise FaultError("kind", "reply", "only on a component whose protocol has requests")
        if fault.kind is Kind.DISK:
            self._check_disk(fault)
        if fault.at_ms > 0:
            loop = asyncio.get_running_loop()
            self._timers[fault.id] = loop.call_later(fault.at_ms / 1000, self._start, fault)
        else:
            self._start(fault)
        return fault.id

    def remove(self, fault_id: str) -> bool:
        """End a fault; False when there is none of that id."""
        timer = self._timers.pop(fault_id, None)
        if timer is not None:
            timer.cancel()
        fault = self.faults.pop(fault_id, None)
        if fault is None:
            return timer is not None
        self._randoms.pop(fault_id, None)
        self._end(fault)
        self.events.emit("fault-ended", id=fault.id, kind=fault.kind.value, fired=fault.fired)
        return True

    def clear(self) -> None:
        """End every fault."""
        for fault_id in [*self.faults, *self._timers]:
            self.remove(fault_id)

    def listed(self) -> list[dict[str, Any]]:
        return [fault.shown() for fault in self.faults.values()]

    def _check_disk(self, fault: Fault) -> None:
        if self.ports.disk is None:
            raise FaultError("kind", "disk", "only on a node that keeps data on disk")
        what = DiskFaultKind(fault.parameters["what"])
        if not self.ports.disk.faults.supports(what):
            raise FaultError("what", what.value, "only on a simulated disk")

    def _start(self, fault: Fault) -> None:
        self._timers.pop(fault.id, None)
        self.faults[fault.id] = fault
        seed = self.ports.random.getrandbits(32) if fault.seed is None else fault.seed
        self._randoms[fault.id] = random.Random(seed)
        self.events.emit("fault-started", **fault.shown())
        if fault.duration_ms is not None:
            loop = asyncio.get_running_loop()
            self._timers[fault.id] = loop.call_later(fault.duration_ms / 1000, self.remove, fault.id)
        if fault.kind is Kind.CLOCK:
            self._move_clock(fault)
        elif fault.kind is Kind.DISK:
            self._harm_disk(fault)
        self._refresh()

    def _end(self, fault: Fault) -> None:
        if fault.kind is Kind.CLOCK and "rate" in fault.parameters:
            self.ports.clock.drift(1.0)
        disk_fault = self._disk_faults.pop(fault.id, None)
        if disk_fault is not None and self.ports.disk is not None:
            self.ports.disk.faults.remove(disk_fault)
        self._refresh()

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

    def _refresh(self) -> None:
        """After a change: every connection gets, keeps or loses its shim; listeners refuse or accept again."""
        self.active = any(fault.kind in STREAM_KINDS or fault.kind is Kind.REFUSE for fault in self.faults.values())
        self._pgids.clear()
        for endpoint in self.endpoints:
            for connection in list(endpoint.connections):
                self._take_hold(connection)
            endpoint.set_refusing(self._refuses_everyone())

    def attach(self, connection: Connection, *, new: bool = False) -> bool:
        """A new or newly named connection, while faults are active; False when it was refused."""
        for fault in self.of_kind(connection, Kind.REFUSE):
            if self.hits(fault):
                connection.endpoint.forget(connection)
                connection.reset()
                return False
        self._take_hold(connection, new=new)
        return not connection.closing

    def _take_hold(self, connection: Connection, *, new: bool = False) -> None:
        faults = [fault for kind in STREAM_KINDS for fault in self.of_kind(connection, kind)]
        faults = [fault for fault in faults if self._struck(fault, connection)]
        shim = self._shims.get(connection)
        if shim is None and faults and not connection.closing:
            shim = self._shims[connection] = Shim(self, connection, new=new)
        if shim is not None:
            shim.apply(faults)

    def _struck(self, fault: Fault, connection: Connection) -> bool:
        """Resets and hangs are drawn once per connection; the others decide for each piece of data."""
        if fault.kind not in (Kind.RESET, Kind.HANG):
            return True
        drawn = connection in self._shims and fault in self._shims[connection].incoming.faults
        return drawn or (not fault.spent and self.random_of(fault).random() < fault.probability)

    def detached(self, connection: Connection) -> None:
        self._shims.pop(connection, None)

    async def before_dial(self, dialler: "Dialler[Any]", address: Address, peer_name: str, timeout_s: float) -> None:
        """Stand in the way of a dial: refuse it, or let it hang until its time-out as behind a partition."""
        for fault in list(self.faults.values()):
            named = self._names(fault.peers, peer_name, str(address)) if fault.peers else dialler.concerns_everyone
            if not named:
                continue
            if fault.kind is Kind.REFUSE and self.hits(fault):
                raise ConnectionRefusedError(f"connection to {address} refused (fault {fault.id})")
            if fault.kind is Kind.PARTITION:
                self.fired(fault)
                await asyncio.sleep(timeout_s)
                raise TimeoutError(f"no answer from {address} (fault {fault.id})")

    def of_kind(self, connection: Connection, kind: Kind) -> list[Fault]:
        """The faults of one kind that concern a connection, oldest first."""
        return [f for f in self.faults.values() if f.kind is kind and not f.spent and self._concerns(f, connection)]

    def _concerns(self, fault: Fault, connection: Connection) -> bool:
        if not fault.peers:
            return connection.endpoint.concerns_everyone
        return self._names(fault.peers, connection.peer_name, connection.peer) or self._groups(fault.peers, connection)

    @staticmethod
    def _names(peers: tuple[Peer, ...], name: str, address: str) -> bool:
        return any((peer.name and peer.name == name) or address in peer.addresses for peer in peers)

    def _groups(self, peers: tuple[Peer, ...], connection: Connection) -> bool:
        pgids = tuple(pgid for peer in peers for pgid in peer.pgids)
        if not pgids:
            return False
        if connection not in self._pgids:
            port, local_port = processes.port_of(connection.peer), processes.port_of(connection.local)
            inode = processes.inode_of_port(port, local_port) if port and local_port else None
            self._pgids[connection] = processes.group_holding(inode, pgids) if inode else None
        return self._pgids[connection] in pgids

    def _refuses_everyone(self) -> bool:
        return any(
            fault.kind is Kind.REFUSE and not fault.peers and fault.probability >= 1 and fault.times is None
            for fault in self.faults.values()
        )

    # --- dice and counts --------------------------------------------------------------------------------------------

    def random_of(self, fault: Fault) -> random.Random:
        return self._randoms.get(fault.id) or self.ports.random

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
        if fault.spent:
            asyncio.get_running_loop().call_soon(self.remove, fault.id)

    def fired_on(self, fault: Fault, connection: Connection) -> None:
        """A fault that holds a connection counts once for it."""
        shim = self._shims.get(connection)
        if shim is not None and fault.id not in shim.counted:
            shim.counted.append(fault.id)
            self.fired(fault)
