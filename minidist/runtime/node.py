"""A node: one running instance of a component, in whichever of the three worlds it lives.

The daemon (`daemon.py`) runs one per process, tests run several in their own loop, the simulator runs a whole cluster
in one. A component subclasses `Node`, opens its listeners in `open_data()`, says what it knows in `status_fields()`,
`figures()` and `families()`; everything every node has (admin port, events, faults, clock, reset, drain) is here.

    node = Cache(CacheConfig(listen=Address("127.0.0.1", 0)), ports)
    await node.start()          # listeners accept, data is recovered; raises ListenError, ConfigError, OSError
    node.ready_line()           # what the contract prints
    await node.drain()          # finish what has begun, refuse what is new
    await node.stop()

Components that run as several processes (`--workers N`) are written in two halves. CONTROL (health checks, settings,
whatever must have a single writer) is opened by `open_control()`, DATA (listeners, pools) by `open_data()`. The halves
talk only by plain dicts: control tells all data halves with `decide()`, received by `decided()`; data tells control
with `report()`, received by `reported()`. In one process these are calls; with workers, frames on a socket pair
(workers.py). A component without `--workers` ignores the distinction.
"""

import asyncio
import dataclasses
import os
import socket
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from minidist import __version__
from minidist.runtime.collector import Collector
from minidist.runtime.config import Address, Config, ConfigError
from minidist.runtime.connection import Connection
from minidist.runtime.endpoint import Dialler, Lease, Limits, Listener
from minidist.runtime.events import EventLog
from minidist.runtime.faults import FaultSet
from minidist.runtime.files import read_text
from minidist.runtime.logs import NodeLog
from minidist.runtime.metrics import Family, counter, gauge, merge_family, merge_figures
from minidist.runtime.outgoing import Outgoing
from minidist.runtime.ports import Ports
from minidist.wire.inspection import Inspector

if TYPE_CHECKING:
    from minidist.runtime.admin import AdminServer, Routes
    from minidist.runtime.workers import Workers

K = TypeVar("K", bound=Connection)
Message = dict[str, Any]

# How long aborted connections have to say goodbye to their component; a round of the loop is enough.
GOODBYE_S = 1.0


class NodeState(Enum):
    """The life of a node; `Node.become_*` moves between them."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


class Halves(Enum):
    """Which halves of a component this process runs."""

    BOTH = "both"
    CONTROL = "control"
    DATA = "data"


class NodeLink(Protocol):
    """How the two halves of a component reach each other."""

    def decide(self, decision: Message) -> None: ...

    def report(self, report: Message) -> None: ...


class Link:
    """How the two halves of a component reach each other. This one is for both in one process: plain calls."""

    def __init__(self, node: "Node") -> None:
        self.node = node

    def decide(self, decision: Message) -> None:
        self.node.decided(decision)

    def report(self, report: Message) -> None:
        self.node.reported(0, report)


class Node:
    """Base of all components. Subclasses set `config_type` and override the methods of the first block."""

    config_type: ClassVar[type[Config]]
    names_clients: ClassVar[bool] = False
    """Whether clients can say a name in the protocol (`Connection.named("client:NAME")`), by which faults know them."""

    def __init__(self, config: Config, ports: Ports, halves: Halves = Halves.BOTH) -> None:
        self.config = config
        self.started_with = config
        self.ports = ports
        self.clock = ports.clock
        self.random = ports.random
        self.halves = halves
        self.name = config.node_name
        self.log = NodeLog(self.name)
        self.events = EventLog(self.name, self.log, ports.clock.wall)
        self.faults = FaultSet(self.name, ports, self.events, names_clients=self.names_clients)
        self.listeners: dict[str, Listener[Any]] = {}
        self.diallers: dict[str, Dialler[Any]] = {}
        self.link: NodeLink = Link(self)
        self.workers: Workers | None = None
        self.shared_socket: socket.socket | None = None
        self.lease: Lease | None = None  # in a worker: its part of max_clients, for the first listener
        self.collector: Collector | None = None
        self.end_process: Callable[[], object] | None = None  # where the process is this node's own (daemon.py)
        self.unexpected_count = 0
        self.state = NodeState.STARTING
        self.admin: AdminServer | None = None
        self._started_s = 0.0

    # --- for components ---------------------------------------------------------------------------------------------

    async def open_control(self) -> None:
        """Start the control half, before the data half. Raises what makes a start fail."""

    async def open_data(self) -> None:
        """Recover data and open the listeners, through `self.listen`."""

    async def close_all(self) -> None:
        """Stop the component's own timers and tasks; listeners and diallers are closed by the base."""

    def decided(self, decision: Message) -> None:
        """The data half hears from the control half."""

    def reported(self, worker: int, report: Message) -> None:
        """The control half hears from the data half of a worker (0 when there is only one)."""

    def worker_lost(self, worker: int) -> None:
        """A worker has died; the control half forgets what it had under way."""

    def standing_decisions(self) -> list[Message]:
        """What the control half tells a data half that has just started (a restarted worker)."""
        return []

    def role(self) -> str:
        """leader, follower, …; empty where a component has no roles."""
        return ""

    def peers(self) -> list[Message]:
        """`[{"name", "address", "connected", "lag"}]` of the other nodes of the cluster."""
        return []

    def status_fields(self) -> Message:
        """What `GET /status` says beyond the common fields."""
        return {}

    def figures(self) -> Message:
        """Running figures for `top`: at least `requests_total` and `p99_ms`."""
        return {}

    def families(self) -> Iterable[Family]:
        """The component's metrics, read now."""
        return ()

    def routes(self) -> "Routes":
        """Admin routes beyond the common ones."""
        return {}

    def configured(self, before: Config) -> None:
        """`self.config` has changed at run time; `before` is what it was."""

    async def reset_data(self) -> None:
        """`POST /reset`: drop data, users, scripts and counters; connections stay."""

    # --- what components use ----------------------------------------------------------------------------------------

    async def listen(
        self,
        name: str,
        address: Address,
        factory: Callable[[Listener[K]], K],
        *,
        inspector: Inspector | None = None,
        outgoing: Outgoing | None = None,
        buffer_high_water_bytes: int = 0,
    ) -> Listener[K]:
        """Open a listener under the node's limits, TLS and faults. The first one is the node's address."""
        from minidist.runtime.tls import server_context

        limits = self.limits()
        limits.buffer_high_water_bytes = buffer_high_water_bytes
        listener = Listener(
            name,
            address,
            factory,
            limits=limits,
            log=self.log,
            faults=self.faults,
            inspector=inspector,
            outgoing=outgoing,
            tls=server_context(self.config),
            reuse_port=self.config.reuse_port,
            shared_socket=self.shared_socket,
        )
        if self.lease is not None and not self.listeners:
            listener.lease = self.lease
            self.lease.endpoint = listener
        self.listeners[name] = listener
        await listener.start()
        return listener

    def dialler(self, name: str, limits: Limits | None = None, inspector: Inspector | None = None) -> Dialler[Any]:
        """A dialler under the node's faults."""
        self.diallers[name] = Dialler(name, limits=limits, log=self.log, faults=self.faults, inspector=inspector)
        return self.diallers[name]

    def limits(self) -> Limits:
        return Limits(
            max_connections=self.config.max_clients,
            max_buffered_bytes=self.config.client_buffer,
            idle_timeout_s=self.config.idle_timeout / 1000,
        )

    def decide(self, decision: Message) -> None:
        """Control half → every data half."""
        self.link.decide(decision)

    def report(self, report: Message) -> None:
        """Data half → control half."""
        self.link.report(report)

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Recover, listen, open the admin port; on failure everything opened is closed again and the error raised."""
        self._started_s = asyncio.get_running_loop().time()
        try:
            token = read_token(self.config)
            if self.halves is not Halves.DATA:
                await self.open_control()
            if self.halves is Halves.CONTROL:
                await self._start_workers()
            if self.halves is not Halves.CONTROL:
                await self.open_data()
            if self.halves is not Halves.DATA:
                await self._open_admin(token)
        except BaseException:
            await self.stop()
            raise
        self.become_running()

    async def _start_workers(self) -> None:
        from minidist.runtime.workers import Workers

        self.link = self.workers = Workers(self, getattr(self.config, "workers", 1))
        await self.workers.start()

    async def _open_admin(self, token: str) -> None:
        from minidist.runtime.admin import AdminServer
        from minidist.runtime.node_admin import routes_of

        self.admin = AdminServer(routes_of(self), self.config.admin, token=token, log=self.log)
        await self.admin.start()

    async def drain(self, timeout_s: float | None = None) -> None:
        """Refuse what is new and wait for what has begun, at most `timeout_s` (default: the option)."""
        if self.state is NodeState.RUNNING:
            self.become_draining()
        timeout_s = self.config.drain_timeout / 1000 if timeout_s is None else timeout_s
        if self.workers is not None:
            await self.workers.drain(timeout_s)
        await asyncio.gather(*(listener.drain(timeout_s) for listener in self.listeners.values()))

    async def stop(self) -> None:
        """Close everything at once. Safe to call more than once and after a failed start."""
        self.become_stopped()
        if self.workers is not None:
            await self.workers.stop()
        await self.close_all()
        endpoints = [*self.listeners.values(), *self.diallers.values()]
        for endpoint in endpoints:
            endpoint.close()
        self.faults.clear()
        for endpoint in endpoints:
            await endpoint.wait_empty(GOODBYE_S)  # aborted connections are told so in the loop's next round
        if self.admin is not None:
            await self.admin.close()
        await self.ports.close()

    def become_running(self) -> None:
        self.state = NodeState.RUNNING
        self.events.emit("running", address=str(self.address))

    def become_draining(self) -> None:
        self.state = NodeState.DRAINING
        self.events.emit("draining")

    def become_stopped(self) -> None:
        self.state = NodeState.STOPPED

    async def reset(self) -> None:
        """As new: data, users, changed settings, faults, clock offset, counters. Connections stay."""
        self.faults.clear()
        self.clock.reset()
        self.configure(self.started_with)
        for endpoint in (*self.listeners.values(), *self.diallers.values()):
            endpoint.counters = type(endpoint.counters)()
        await self.reset_data()
        if self.workers is not None:
            self.workers.reset()
            await self.workers.settled()
        self.events.emit("reset")

    # What the admin port asks for; with workers it has reached all of them when these return.

    async def add_fault(self, spec: Message) -> str:
        """Set a fault; its id. Raises FaultError."""
        fault_id = self.faults.add(spec)
        if self.workers is not None:
            await self.workers.fault_taken(fault_id)
        return fault_id

    async def remove_fault(self, fault_id: str) -> bool:
        """End a fault; False when there is none of that id."""
        known = self.faults.remove(fault_id)
        if self.workers is not None:
            await self.workers.settled()
        return known

    async def clear_faults(self) -> list[str]:
        """End every fault; their ids."""
        ids = self.faults.clear()
        if self.workers is not None:
            await self.workers.settled()
        return ids

    async def advance_clock(self, by_ms: int) -> None:
        self.clock.advance(by_ms)
        if self.workers is not None:
            self.workers.tell("advance-clock", by_ms)
            await self.workers.settled()
        self.events.emit("clock-moved", by_ms=by_ms, offset_ms=self.clock.offset_ms)

    async def whole_status(self) -> Message:
        """The status of the node, all workers taken together."""
        status = self.status()
        if self.workers is not None:
            statuses = await self.workers.statuses()
            status["figures"] = merge_figures([status["figures"], self.workers.whole_figures()])
            status["workers"] = [
                {"worker": index, "pid": each["pid"], "figures": each["figures"]} for index, each in statuses.items()
            ]
            status["faults"] = self.workers.faults_of(statuses)
        return status

    async def whole_faults(self) -> list[Message]:
        """The faults that are set, with how often each has fired, in all workers together."""
        if self.workers is None:
            return self.faults.listed()
        return self.workers.faults_of(await self.workers.statuses())

    async def whole_families(self) -> list[Family]:
        """The metrics of the node, all workers summed."""
        families = {family.name: family for family in self.all_families()}
        for family in await self.workers.families() if self.workers is not None else ():
            merge_family(families, family)
        return list(families.values())

    def configure(self, config: Config) -> None:
        """Take a changed configuration (made by `Config.changed`) at run time."""
        before, self.config = self.config, config
        limits = self.limits()
        for listener in self.listeners.values():
            high_water_bytes = listener.limits.buffer_high_water_bytes
            listener.apply_limits(dataclasses.replace(limits, buffer_high_water_bytes=high_water_bytes))
        self.configured(before)
        if self.workers is not None:
            self.workers.configured()

    def unexpected(self, loop: asyncio.AbstractEventLoop, context: Message) -> None:
        """The loop's exception handler: a bug costs what it happened in (a connection, a task), and is not silent."""
        self.unexpected_count += 1
        self.log.error(str(context.get("message", "unexpected")), exc_info=context.get("exception"))

    # --- what others see --------------------------------------------------------------------------------------------

    @property
    def component(self) -> str:
        return self.config_type.component

    @property
    def address(self) -> Address:
        """Where clients connect: the first listener's address."""
        if self.workers is not None:
            return self.workers.address
        return next((listener.address for listener in self.listeners.values()), self.config.listen)

    def addresses(self) -> dict[str, str]:
        """Every listener's address by name."""
        if self.workers is not None:
            return self.workers.listeners
        return {name: str(listener.address) for name, listener in self.listeners.items()}

    def ready_line(self) -> Message:
        """The JSON object that a daemon prints when it serves."""
        return {
            "event": "ready",
            "component": self.component,
            "name": self.name,
            "address": str(self.address),
            "admin": str(self.admin.address) if self.admin else "",
            "listeners": self.addresses(),
            "pid": os.getpid(),
        }

    def status(self) -> Message:
        """`GET /status`, in the contract's fields."""
        return {
            "name": self.name,
            "component": self.component,
            "version": __version__,
            "pid": os.getpid(),
            "state": self.state.value,
            "role": self.role() or None,
            "uptime_s": round(asyncio.get_running_loop().time() - self._started_s, 3),
            "address": str(self.address),
            "listeners": self.addresses(),
            "peers": self.peers(),
            "faults": self.faults.listed(),
            "clock_offset_ms": self.clock.offset_ms,
            "figures": self.figures(),
        } | self.status_fields()

    def all_families(self) -> list[Family]:
        """The node's and its component's metrics."""
        endpoints = [*self.listeners.values(), *self.diallers.values()]
        families = [gauge("info", "1, labelled with what runs.", 1, component=self.component, version=__version__)]
        for field, summary in (
            ("opened", "Connections opened."),
            ("refused", "Connections over the limit."),
            ("closed_idle", "Connections closed as idle."),
            ("closed_slow", "Slow consumers cut off."),
        ):
            samples = [({"endpoint": each.name}, getattr(each.counters, field)) for each in endpoints]
            families.append(Family(f"connections_{field}_total", "counter", summary, samples))
        connections = [({"endpoint": each.name}, len(each.connections)) for each in endpoints]
        families.append(Family("connections", "gauge", "Open connections.", connections))
        families.append(counter("events_total", "Events emitted.", self.events.sequence))
        families.append(counter("unexpected_errors_total", "Bugs: logged with a traceback.", self.unexpected_count))
        if self.collector is not None:
            families += self.collector.families()
        return [*families, *self.families()]


def read_token(config: Config) -> str:
    """The admin token of the file that the options name, or "". Raises ConfigError when there is none in it."""
    path = config.admin_token_file
    if not path:
        return ""
    try:
        token = read_text(path).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("--admin-token-file", path, f"a readable file ({error})") from error
    if not token:
        raise ConfigError("--admin-token-file", path, "a file with a token in it")
    return token
