"""The simulated network: TCP streams, UDP datagrams and names between hosts.

A TCP connection is two `Direction`s. What is written is cut into segments (seeded), each with a time of arrival from
the link's latency, its bandwidth and what faults add; arrival times never decrease, so bytes stay in order, and only the
head of a direction is ever scheduled, so no order of callbacks can reorder them. Arrived bytes wait in the receiver's
buffer while its protocol has paused reading; what is not yet delivered counts as the sender's buffer, which gives
`pause_writing` and `resume_writing` their meaning.

Loss on a stream is delay: a partition holds segments until it heals (retransmission). A connect to a powered-off or
cut-off host hangs until its time-out; to a live host without a listener it is refused. After a process crash the kernel
resets its connections; after a power cut peers hear nothing until they send to the restarted host, which resets them.
Datagrams are really lost, doubled and reordered.
"""

import asyncio
import collections
import errno
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minidist.sim.errors import LeakError
from minidist.sim.host import Crash, Host
from minidist.sim.loop import SimLoop, current_host

if TYPE_CHECKING:
    from minidist.sim.world import World

WINDOW_BYTES = 64 * 1024  # what the kernels hold for one direction before the sender's own buffer fills
HIGH_WATER_BYTES = 64 * 1024
SEGMENT_BYTES = 16 * 1024
FIRST_FREE_PORT = 32768
SYN_TIMEOUT_S = 127.0  # Linux' tcp_syn_retries
RETRANSMISSION_S = 0.2
SIM_FD = 1 << 24  # file descriptors of simulated sockets begin here; select.poll knows them (entropy.py)


@dataclass(slots=True)
class Conditions:
    """What the network is like without faults. Times in seconds."""

    latency_s: tuple[float, float] = (0.0001, 0.0006)
    split_probability: float = 0.1  # a write arrives in several pieces
    datagram_loss: float = 0.0
    datagram_duplication: float = 0.0
    datagram_reordering_s: float = 0.0


@dataclass(slots=True, eq=False)
class Rule:
    """A fault on the way from some hosts to others; None stands for all. `matches` decides by host names."""

    kind: str
    sources: frozenset[str] | None
    targets: frozenset[str] | None
    parameters: dict[str, float] = field(default_factory=dict)
    fired: Callable[[], None] = lambda: None
    probability: float = 1.0

    def concerns(self, source: str, target: str) -> bool:
        return (self.sources is None or source in self.sources) and (self.targets is None or target in self.targets)


class SimSocket:
    """What `get_extra_info("socket")` answers: enough of a socket for asyncio, anyio, httpcore and redis-py."""

    type = socket.SOCK_STREAM
    proto = socket.IPPROTO_TCP

    def __init__(self, number: int, local: tuple[str, int], peer: tuple[str, int] | None = None) -> None:
        self.number = number
        self.local = local
        self.peer = peer
        self.family = socket.AF_INET
        self.linger_reset = False
        self.readable: Callable[[], bool] = bool

    def fileno(self) -> int:
        return SIM_FD + self.number

    def getsockname(self) -> tuple[str, int]:
        return self.local

    def getpeername(self) -> tuple[str, int]:
        if self.peer is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self.peer

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if level == socket.SOL_SOCKET and option == socket.SO_LINGER:
            self.linger_reset = True

    def getsockopt(self, level: int, option: int, *rest: Any) -> int:
        return 0

    def setblocking(self, flag: bool) -> None:
        pass

    def gettimeout(self) -> float:
        return 0.0


class Direction:
    """Bytes from one end of a connection to the other."""

    def __init__(self, network: "Network", source: "SimTransport", target: "SimTransport") -> None:
        self.network = network
        self.source = source
        self.target = target
        self.queue: collections.deque[tuple[float, bytes | None]] = collections.deque()  # None is the end of file
        self.buffered = 0
        self.last_s = 0.0
        self.free_s = 0.0
        self.scheduled = False

    def send(self, data: bytes | None) -> None:
        network = self.network
        if data is None:
            self._put(None)
        else:
            network.trace.data(data)
            for piece in network.segments(data):
                self.buffered += len(piece)
                self._put(piece)
        self.schedule()

    def _put(self, piece: bytes | None) -> None:
        at_s, self.free_s = self.network.arrival_s(
            self.source.host, self.target.host, 0 if piece is None else len(piece), self.free_s
        )
        self.last_s = max(self.last_s, at_s)
        self.queue.append((self.last_s, piece))

    def schedule(self) -> None:
        """Arrange for the head of the queue, unless that has been done or the receiver does not want it."""
        if self.scheduled or not self.queue or self.target.reading_paused or self.target.gone:
            return
        self.scheduled = True
        self.network.loop.at_world_time(self.queue[0][0], self._deliver, context=self.target.context)

    def _deliver(self) -> None:
        """Runs as code of the receiving host."""
        self.scheduled = False
        if not self.queue or self.target.gone or self.target.reading_paused:
            return
        network = self.network
        if network.cut(self.source.host, self.target.host):
            network.waiting_for_heal.append(self)
            return
        _, piece = self.queue.popleft()
        if piece is not None:
            self.buffered -= len(piece)
            self.source.drained()
        try:
            self.target.receive(piece)
        finally:
            self.schedule()


class SimTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, network: "Network", host: Host, local: tuple[str, int], peer: tuple[str, int]) -> None:
        super().__init__()
        self.network = network
        self.host = host
        self.incarnation = host.incarnation
        self.context = host.context.copy()
        self.protocol: Any = None
        self.out: Direction
        self.into: Direction
        self.reading_paused = False
        self.closing = False  # the protocol asked for the end
        self.gone = False  # connection_lost was called, or never will be
        self._eof_sent = False
        self._write_paused = False
        self._high, self._low = HIGH_WATER_BYTES, HIGH_WATER_BYTES // 4
        self.sock = SimSocket(network.next_number(), local, peer)
        self.sock.readable = self._has_something_to_read
        network.sockets[self.sock.fileno()] = self.sock

    def _has_something_to_read(self) -> bool:
        return self.gone or bool(self.into.queue and self.into.queue[0][0] <= self.network.loop.now_s)

    # --- called by the network, as code of this host ----------------------------------------------------------------

    def open(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.connection_made(self)

    def receive(self, piece: bytes | None) -> None:
        if self.closing:
            if piece is not None:
                self.network.reset(self.into.source, self)  # nobody reads this any more
            return
        if piece is not None:
            self.protocol_received(piece)
        elif not self.protocol.eof_received():
            self.close()

    def protocol_received(self, data: bytes) -> None:
        if isinstance(self.protocol, asyncio.BufferedProtocol):
            view = memoryview(data)
            while view:
                buffer = self.protocol.get_buffer(len(view))
                count = min(len(buffer), len(view))
                buffer[:count] = view[:count]  # type: ignore[index]
                self.protocol.buffer_updated(count)
                view = view[count:]
        else:
            self.guarded(self.protocol.data_received, data)

    def guarded(self, call: Callable[[bytes], None], data: bytes) -> None:
        """A bug in a protocol ends its connection, as asyncio does."""
        try:
            call(data)
        except Exception as error:
            self.network.loop.call_exception_handler(
                {"message": "protocol.data_received() call failed", "exception": error, "transport": self}
            )
            self.lost(error)

    def drained(self) -> None:
        if self._write_paused and self.get_write_buffer_size() <= self._low:
            self._write_paused = False
            self.network.loop.call_soon(self._resume_writing, context=self.context)

    def _resume_writing(self) -> None:
        if not self.gone:
            self.protocol.resume_writing()

    def lost(self, error: Exception | None) -> None:
        """The connection is over for this end."""
        if not self.gone:
            self.gone = self.closing = True
            self.network.sockets.pop(self.sock.fileno(), None)
            self.network.transports.pop(self, None)
            if self.protocol is not None:
                self.protocol.connection_lost(error)

    # --- called by the protocol -------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if self._eof_sent:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.gone or not data:
            return
        self.out.send(bytes(data))
        if not self._write_paused and self.get_write_buffer_size() > self._high:
            self._write_paused = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        if not self._eof_sent and not self.gone:
            self._eof_sent = True
            self.out.send(None)

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self.write_eof()
            self.network.loop.call_soon(self.lost, None, context=self.context)

    def abort(self) -> None:
        if self.gone:
            return
        self.closing = True
        if self.sock.linger_reset:
            self.network.reset(self.out.target, self)
        else:
            self.write_eof()
        self.network.loop.call_soon(self.lost, None, context=self.context)

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        if self.reading_paused and not self.closing:
            self.reading_paused = False
            self.into.schedule()

    def is_reading(self) -> bool:
        return not self.reading_paused and not self.closing

    def get_write_buffer_size(self) -> int:
        return max(0, self.out.buffered - WINDOW_BYTES)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high if high is not None else (4 * low if low is not None else HIGH_WATER_BYTES)
        self._low = low if low is not None else self._high // 4

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"socket": self.sock, "peername": self.sock.peer, "sockname": self.sock.local}
        return known.get(name, default)


class SimServer(asyncio.AbstractServer):
    """A listening socket of a host."""

    def __init__(self, network: "Network", host: Host, address: tuple[str, int], factory: Callable[[], Any]) -> None:
        self.network = network
        self.host = host
        self.incarnation = host.incarnation
        self.address = address
        self.factory = factory
        self._sockets = (SimSocket(network.next_number(), address),)
        self._closed: asyncio.Future[None] = network.loop.create_future()

    @property
    def sockets(self) -> tuple[SimSocket, ...]:
        return () if self._closed.done() else self._sockets

    def get_loop(self) -> SimLoop:
        return self.network.loop

    def is_serving(self) -> bool:
        return not self._closed.done()

    async def start_serving(self) -> None:
        pass

    async def serve_forever(self) -> None:
        try:
            await asyncio.shield(self._closed)
        finally:
            self.close()

    def close(self) -> None:
        if self.network.servers.get(self.address) is self:
            del self.network.servers[self.address]
        if not self._closed.done():
            self._closed.set_result(None)

    def close_clients(self) -> None:
        pass

    abort_clients = close_clients

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)


class SimDatagramTransport(asyncio.DatagramTransport):
    """A UDP socket."""

    def __init__(self, network: "Network", host: Host, local: tuple[str, int], remote: tuple[str, int] | None) -> None:
        super().__init__()
        self.network = network
        self.host = host
        self.context = host.context.copy()
        self.remote = remote
        self.protocol: Any = None
        self.closed = False
        self.sock = SimSocket(network.next_number(), local, remote)

    def sendto(self, data: Any, addr: Any = None) -> None:
        target = addr or self.remote
        if target is None:
            raise ValueError("a datagram needs an address")
        if not self.closed:
            self.network.send_datagram(self, bytes(data), (target[0], target[1]))

    def receive(self, data: bytes, sender: tuple[str, int]) -> None:
        if not self.closed and (self.remote is None or self.remote == sender):
            self.protocol.datagram_received(data, sender)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.network.datagram_sockets.pop(self.sock.local, None)
            self.network.loop.call_soon(self.protocol.connection_lost, None, context=self.context)

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"socket": self.sock, "peername": self.remote, "sockname": self.sock.local}
        return known.get(name, default)

    def get_write_buffer_size(self) -> int:
        return 0


class Network:
    """All hosts, sockets and rules of a world."""

    def __init__(self, world: "World", conditions: Conditions | None = None) -> None:
        self.world = world
        self.loop = world.loop
        self.random = world.streams.network
        self.trace = world.trace
        self.conditions = conditions or Conditions()
        self.next_number = self.loop.next_number
        self.hosts: dict[str, Host] = {}  # by address
        self.names: dict[str, str] = {}
        self.servers: dict[tuple[str, int], SimServer] = {}
        self.transports: dict[SimTransport, None] = {}
        self.datagram_sockets: dict[tuple[str, int], SimDatagramTransport] = {}
        self.sockets: dict[int, SimSocket] = {}
        self.rules: list[Rule] = []
        self.waiting_for_heal: list[Direction] = []
        self._free_ports: dict[str, int] = {}

    # --- the way between two hosts ----------------------------------------------------------------------------------

    def add_rule(self, rule: Rule) -> None:
        self.rules.append(rule)

    def remove_rule(self, rule: Rule) -> None:
        """The fault has ended: what it held is retransmitted."""
        self.rules.remove(rule)
        waiting, self.waiting_for_heal = self.waiting_for_heal, []
        for direction in waiting:
            delay_s = self.random.uniform(0, RETRANSMISSION_S)
            self.loop.at_world_time(self.loop.now_s + delay_s, direction.schedule)

    def cut(self, source: Host, target: Host) -> bool:
        """Whether a partition lies on the way."""
        for rule in self.rules:
            if rule.kind == "partition" and rule.concerns(source.name, target.name):
                rule.fired()
                return True
        return False

    def segments(self, data: bytes) -> list[bytes]:
        """A write as it arrives: large ones in segments, some small ones in two pieces."""
        if len(data) > SEGMENT_BYTES:
            return [data[start : start + SEGMENT_BYTES] for start in range(0, len(data), SEGMENT_BYTES)]
        if len(data) > 1 and self.random.random() < self.conditions.split_probability:
            place = self.random.randrange(1, len(data))
            return [data[:place], data[place:]]
        return [data]

    def arrival_s(self, source: Host, target: Host, size: int, free_s: float) -> tuple[float, float]:
        """When a segment sent now arrives, and when the line is free again."""
        now_s = self.loop.now_s
        low, high = self.conditions.latency_s
        at_s = now_s + low + (high - low) * self.random.random()
        for rule in self.rules:
            if rule.kind != "partition" and rule.concerns(source.name, target.name):
                at_s, free_s = self._slowed(rule, at_s, free_s, size)
        return at_s, free_s

    def _slowed(self, rule: Rule, at_s: float, free_s: float, size: int) -> tuple[float, float]:
        parameters = rule.parameters
        if rule.kind == "bandwidth" and size:
            free_s = max(free_s, self.loop.now_s) + size / parameters["bytes_per_s"]
            rule.fired()
            return max(at_s, free_s), free_s
        if rule.kind == "delay" and self.random.random() < rule.probability:
            rule.fired()
            spread = parameters.get("jitter_ms", 0.0) * self.random.uniform(-1, 1)
            at_s += max(0.0, parameters["ms"] + spread) / 1000
        elif rule.kind == "drop":
            stall_s = RETRANSMISSION_S
            while stall_s < 60 and self.random.random() < min(rule.probability, 0.99):
                rule.fired()
                at_s += stall_s
                stall_s *= 2
        return at_s, free_s

    # --- names ------------------------------------------------------------------------------------------------------

    def address_of(self, name: str, port: int) -> tuple[str, int]:
        """Literal addresses and hosts' names. Raises socket.gaierror."""
        here = current_host.get()
        if name in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "", "::"):
            return (here.ip if here else "127.0.0.1"), port
        ip = self.names.get(name, name)
        if ip not in self.hosts and not ip.replace(".", "").isdigit():
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ip, port

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else (host or "")
        await asyncio.sleep(self.random.uniform(*self.conditions.latency_s))
        address = self.address_of(name, int(port or 0))
        kind = hints.get("type") or socket.SOCK_STREAM
        return [(socket.AF_INET, kind, socket.IPPROTO_TCP, "", address)]

    def _port(self, ip: str) -> int:
        port = self._free_ports.get(ip, FIRST_FREE_PORT)
        self._free_ports[ip] = port + 1
        return port

    # --- streams ----------------------------------------------------------------------------------------------------

    def _here(self) -> Host:
        host = current_host.get()
        if host is None:
            raise LeakError("only code of a host has a network; start it with host.start(…)")
        return host

    async def create_server(self, factory: Any, host: Any = None, port: Any = None, **options: Any) -> SimServer:
        if options.get("ssl") or options.get("sock"):
            raise LeakError("a simulated server takes a host and a port, without TLS")
        here = self._here()
        name = host[0] if isinstance(host, Sequence) and not isinstance(host, str) else host
        ip, wanted = self.address_of(name or "", port or 0)
        address = ip, wanted or self._port(ip)
        if address in self.servers or ip not in self.hosts or self.hosts[ip] is not here:
            code = errno.EADDRINUSE if address in self.servers else errno.EADDRNOTAVAIL
            raise OSError(code, os.strerror(code))
        server = self.servers[address] = SimServer(self, here, address, factory)
        return server

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        if options.get("ssl") or options.get("sock"):
            raise LeakError("a simulated connection takes a host and a port, without TLS")
        here = self._here()
        ip, port = self.address_of(host or "", int(port))
        self.trace.add(port)
        await self._round_trip(here, ip)
        server = self.servers.get((ip, port))
        if server is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed ({ip!r}, {port})")
        ours = SimTransport(self, here, (here.ip, self._port(here.ip)), (ip, port))
        theirs = SimTransport(self, server.host, (ip, port), ours.sock.local)
        ours.out = theirs.into = Direction(self, ours, theirs)
        theirs.out = ours.into = Direction(self, theirs, ours)
        self.transports[ours] = self.transports[theirs] = None
        theirs.reading_paused = True  # until its protocol is there, nothing is delivered
        self.loop.call_soon(self._accept, server, theirs, context=theirs.context)
        protocol = factory()
        ours.open(protocol)
        self.world.note(here, f"connects to {ip}:{port}")
        return ours, protocol

    def _accept(self, server: SimServer, transport: SimTransport) -> None:
        if self.servers.get(server.address) is not server:
            self.reset(transport.out.target, transport)
            transport.gone = True
            return
        transport.reading_paused = False
        transport.open(server.factory())
        transport.into.schedule()

    async def _round_trip(self, here: Host, ip: str) -> None:
        """A SYN and its answer. Hangs behind a partition and before a dead machine, until the time-out."""
        deadline_s = self.loop.now_s + SYN_TIMEOUT_S
        while True:
            target = self.hosts.get(ip)
            reachable = target is not None and target.powered and not target.paused
            if target is not None and reachable and not (self.cut(here, target) or self.cut(target, here)):
                there_s, _ = self.arrival_s(here, target, 0, 0.0)
                back_s, _ = self.arrival_s(target, here, 0, 0.0)
                await self._until((there_s - self.loop.now_s) + back_s)
                return
            if self.loop.now_s + 1.0 > deadline_s:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            await self._until(self.loop.now_s + 1.0)  # the SYN is sent again

    async def _until(self, at_s: float) -> None:
        done = self.loop.create_future()

        def ring() -> None:
            if not done.done():
                done.set_result(None)

        timer = self.loop.at_world_time(at_s, ring)
        try:
            await done
        finally:
            timer.cancel()

    async def sock_connect(self, sock: Any, address: Any) -> None:
        raise LeakError("a simulated connection is made with create_connection")

    def reset(self, victim: SimTransport, by: SimTransport) -> None:
        """A reset on its way to one end; it overtakes nothing that a partition holds, and is lost with its target."""
        at_s, _ = self.arrival_s(by.host, victim.host, 0, 0.0)

        def arrive() -> None:
            if self.cut(by.host, victim.host):
                self.loop.at_world_time(self.loop.now_s + RETRANSMISSION_S, arrive, context=victim.context)
            elif not victim.gone:
                victim.lost(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

        self.loop.at_world_time(at_s, arrive, context=victim.context)

    def host_crashed(self, host: Host, kind: Crash) -> None:
        """Its sockets are gone; after a process crash, peers hear of it."""
        for address, server in list(self.servers.items()):
            if server.host is host:
                del self.servers[address]
        for address, datagrams in list(self.datagram_sockets.items()):
            if datagrams.host is host:
                del self.datagram_sockets[address]
        for transport in list(self.transports):
            if transport.host is host and not transport.gone:
                transport.gone = True
                self.transports.pop(transport, None)
                self.sockets.pop(transport.sock.fileno(), None)
                if kind is Crash.PROCESS:
                    self.reset(transport.out.target, transport)

    # --- datagrams --------------------------------------------------------------------------------------------------

    async def create_datagram_endpoint(self, factory: Any, **options: Any) -> Any:
        here = self._here()
        wanted = options.get("local_addr") or ("", 0)
        ip, port = self.address_of(wanted[0] or "", wanted[1] or 0)
        local = ip, port or self._port(ip)
        if local in self.datagram_sockets:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        remote = options.get("remote_addr")
        target = self.address_of(*remote) if remote else None
        transport = self.datagram_sockets[local] = SimDatagramTransport(self, here, local, target)
        transport.protocol = factory()
        transport.protocol.connection_made(transport)
        return transport, transport.protocol

    def send_datagram(self, sender: SimDatagramTransport, data: bytes, address: tuple[str, int]) -> None:
        target = self.hosts.get(self.address_of(*address)[0])
        self.trace.data(data)
        if target is None or self.cut(sender.host, target):
            return
        conditions = self.conditions
        if self.random.random() < conditions.datagram_loss or self._datagram_dropped(sender.host, target):
            return
        copies = 2 if self.random.random() < conditions.datagram_duplication else 1
        for _ in range(copies):
            at_s, _ = self.arrival_s(sender.host, target, len(data), 0.0)
            at_s += self.random.uniform(0, conditions.datagram_reordering_s)
            self.loop.at_world_time(at_s, self._datagram_arrives, data, sender.sock.local, address)

    def _datagram_dropped(self, source: Host, target: Host) -> bool:
        for rule in self.rules:
            if rule.kind == "drop" and rule.concerns(source.name, target.name):
                if self.random.random() < rule.probability:
                    rule.fired()
                    return True
        return False

    def _datagram_arrives(self, data: bytes, sender: tuple[str, int], address: tuple[str, int]) -> None:
        transport = self.datagram_sockets.get(address)
        if transport is not None:
            self.loop.call_soon(transport.receive, data, sender, context=transport.context)
