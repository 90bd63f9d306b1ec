"""The simulated network: names, addresses, ports, and how connections come about.

Streams are in streams.py and directions.py, listening sockets in servers.py, datagrams in datagrams.py, latency and
faults in links.py.

A connect is a SYN and its answer. Behind a partition, before a machine without power, or when the listener's backlog is
full, there is no answer: it is sent again after 1, 2, 4 … s, and after 127 s the connect times out. A live machine
without a listener refuses. The server accepts when the third step of the handshake has arrived; a paused process
accepts when it is resumed, while its kernel answers.

Every host has one address; the loopback names and addresses mean the host itself, and what listens on them is reached
from other hosts too, so that programs written for one machine work unchanged.
"""

import asyncio
import contextvars
import errno
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from minidist.sim.current import current_host, leak
from minidist.sim.datagrams import SimDatagramTransport
from minidist.sim.directions import Direction, Mark
from minidist.sim.errors import LeakError
from minidist.sim.host import Crash, Host
from minidist.sim.links import RETRANSMISSION_S, Conditions, Links, Rule
from minidist.sim.servers import SimServer
from minidist.sim.sockets import SimSocket, SocketAddress
from minidist.sim.streams import SimTransport

if TYPE_CHECKING:
    from minidist.sim.world import World

__all__ = ["Conditions", "Network", "Rule"]

SYN_WAITS_S = (1, 2, 4, 8, 16, 32, 64)  # Linux' tcp_syn_retries = 6
FIRST_FREE_PORT, LAST_FREE_PORT = 32_768, 60_999  # Linux' ip_local_port_range
BACKLOG = 100  # asyncio's
OWN_NAMES = ("", "localhost", "127.0.0.1", "0.0.0.0", "::1", "::", "ip6-localhost")

# Who looks on when bytes are sent on a stream: called with (from, to, the port that was connected to, when the last
# byte arrives as far as is known or None, bytes).
Tap: TypeAlias = Callable[[Host, Host, int, float | None, bytes], None]


class Network:
    """All hosts, sockets and rules of a world."""

    def __init__(self, world: "World", conditions: Conditions | None = None) -> None:
        self.world = world
        self.loop = world.loop
        self.trace = world.trace
        self.random = world.streams.network
        self.links = Links(world.loop, self.random, conditions or Conditions())
        self.tap: Tap | None = None
        self.hosts: dict[str, Host] = {}  # by address
        self.names: dict[str, str] = {}
        self.servers: dict[SocketAddress, SimServer] = {}
        self.transports: dict[SimTransport, None] = {}
        self.datagram_sockets: dict[SocketAddress, SimDatagramTransport] = {}
        self.sockets: dict[int, SimSocket] = {}  # by file descriptor
        self.on_refused: list[Callable[[Host, Host], None]] = []  # told who was refused by whose kernel
        self.stalled: dict[Direction, None] = {}  # what a partition or a dead machine holds back
        self._next_ports: dict[str, int] = {}
        self._client_addresses: dict[SocketAddress, None] = {}

    @property
    def conditions(self) -> Conditions:
        return self.links.conditions

    # --- faults -----------------------------------------------------------------------------------------------------

    @property
    def rules(self) -> list[Rule]:
        return self.links.rules

    def add_rule(self, rule: Rule) -> None:
        self.links.rules.append(rule)

    def remove_rule(self, rule: Rule) -> None:
        """The fault has ended: what it held is sent again."""
        self.links.rules.remove(rule)
        self.retransmit()

    def retransmit(self) -> None:
        """Something has healed: within a retransmission timeout, what was held tries again."""
        stalled, self.stalled = self.stalled, {}
        for direction in stalled:
            delay_s = self.random.uniform(0, RETRANSMISSION_S)
            self.loop.at_world_time(self.loop.now_s + delay_s, direction.retransmit)

    def cut(self, source: Host, target: Host) -> bool:
        """Whether a partition lies on the way."""
        return self.links.cut(source, target)

    def held_back(self) -> list[str]:
        """Lines for the dump of a run that cannot go on."""
        return [
            f"held back: {direction.source.host.name} to {direction.target.host.name}, {len(direction.flight)} segments"
            for direction in self.stalled
            if direction.flight
        ]

    # --- names ------------------------------------------------------------------------------------------------------

    def address_of(self, name: str, port: int) -> SocketAddress:
        """Of a host's name, or a literal address. Raises socket.gaierror."""
        here = current_host.get()
        if name in OWN_NAMES:
            return (here.ip if here else "127.0.0.1"), port
        ip = self.names.get(name, name)
        if ip not in self.hosts and not ip.replace(".", "").isdigit():
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ip, port

    def name_of(self, ip: str) -> str:
        host = self.hosts.get(ip)
        return host.name if host else ip

    def resolve(self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:  # noqa: A002
        """socket.getaddrinfo, for IPv4. Raises socket.gaierror."""
        name = host.decode() if isinstance(host, bytes) else (host or "")
        if family not in (0, socket.AF_INET):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        service = port.decode() if isinstance(port, bytes) else port
        if isinstance(service, str) and not service.isdigit():
            try:
                service = socket.getservbyname(service)
            except OSError:
                raise socket.gaierror(socket.EAI_SERVICE, "Servname not supported for ai_socktype") from None
        address = self.address_of(name, int(service or 0))
        kinds = [socket.SocketKind(type)] if type else [socket.SOCK_STREAM, socket.SOCK_DGRAM]
        protocols = {socket.SOCK_STREAM: socket.IPPROTO_TCP, socket.SOCK_DGRAM: socket.IPPROTO_UDP}
        return [(socket.AF_INET, kind, protocols.get(kind, proto), "", address) for kind in kinds]

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        """A name takes as long as a question to a near server; a literal address takes nothing."""
        found = self.resolve(host, port, **hints)
        if host and found[0][4][0] != host:
            await asyncio.sleep(self.random.uniform(*self.conditions.latency_s))
        return found

    def _free_port(self, ip: str) -> int:
        port = self._next_ports.get(ip, FIRST_FREE_PORT)
        for _ in range(FIRST_FREE_PORT, LAST_FREE_PORT + 1):
            address = ip, port
            port = port + 1 if port < LAST_FREE_PORT else FIRST_FREE_PORT
            taken = address in self.servers or address in self._client_addresses or address in self.datagram_sockets
            if not taken:
                self._next_ports[ip] = port
                return address[1]
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    def _here(self) -> Host:
        host = current_host.get()
        if host is None:
            raise LeakError("only code of a host has a network; start it with host.start(…)")
        return host

    # --- listening --------------------------------------------------------------------------------------------------

    async def create_server(
        self,
        factory: Any,
        host: Any = None,
        port: Any = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        backlog: int = BACKLOG,
        start_serving: bool = True,
        **options: Any,
    ) -> SimServer:
        """`options` are of real sockets (reuse_port …); without effect."""
        self._no_strangers(ssl, sock)
        here = self._here()
        name = host if host is None or isinstance(host, str) else next(iter(host), None)
        ip, wanted = self.address_of(name or "", port or 0)
        if ip != here.ip:
            raise OSError(errno.EADDRNOTAVAIL, f"error while attempting to bind on address {(ip, wanted)!r}")
        address = ip, wanted or self._free_port(ip)
        if address in self.servers:
            raise OSError(errno.EADDRINUSE, f"error while attempting to bind on address {address!r}: in use")
        server = self.servers[address] = SimServer(self, here, address, factory, backlog)
        if start_serving:
            server.listen()
            await asyncio.sleep(0)
        return server

    def stopped_listening(self, server: SimServer) -> None:
        if self.servers.get(server.address) is server:
            del self.servers[server.address]

    def _no_strangers(self, ssl: Any, sock: Any) -> None:
        if ssl:
            leak("TLS (OpenSSL draws its own random numbers)")
        if sock is not None:
            leak("a real socket")

    # --- connecting -------------------------------------------------------------------------------------------------

    async def create_connection(
        self,
        factory: Any,
        host: Any = None,
        port: Any = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        local_addr: Any = None,
        server_hostname: str | None = None,
        all_errors: bool = False,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        **options: Any,
    ) -> tuple[SimTransport, Any]:
        """`options` are of TLS and of happy eyeballs; without effect."""
        self._no_strangers(ssl, sock)
        if server_hostname is not None:
            raise ValueError("server_hostname is only meaningful with ssl")
        if host is None and port is None:
            raise ValueError("host and port was not specified and no sock specified")
        here = self._here()
        hints = {"family": family, "type": socket.SOCK_STREAM, "proto": proto, "flags": flags}
        address: SocketAddress = (await self.getaddrinfo(host, port, **hints))[0][4]
        local = here.ip, (local_addr[1] if local_addr else 0) or self._free_port(here.ip)
        try:
            server = await self._handshake(here, address)
        except OSError as error:
            raise ExceptionGroup("create_connection failed", [error]) if all_errors else error from None
        protocol = factory()
        transport = self._connected(server, here, local)
        await self._begin(transport, protocol)
        return transport, protocol

    async def _handshake(self, here: Host, address: SocketAddress) -> SimServer:
        """SYN and SYN-ACK, again and again. Raises ConnectionRefusedError, TimeoutError."""
        self.trace.add(address[1])
        for wait_s in SYN_WAITS_S:
            again_s = self.loop.now_s + wait_s
            target = self.hosts.get(address[0])
            if target is not None and await self._reaches(here, target):
                server = self.servers.get(address)
                refused = server is None or not server.is_serving()
                full = server is not None and server.waiting >= server.backlog
                if not full and await self._reaches(target, here):
                    if server is None or refused:
                        for told in list(self.on_refused):
                            told(here, target)
                        raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed {address}")
                    return server
            await self._until(again_s)
        raise TimeoutError(errno.ETIMEDOUT, f"Connect call failed {address}")

    async def _reaches(self, source: Host, target: Host) -> bool:
        """One packet. False when it was lost; at once, since whoever sent it waits for longer anyway."""
        if self.links.cut(source, target):
            return False
        at_s, _ = self.links.arrival_s(source, target, 0, 0.0)
        await self._until(at_s)
        return target.powered

    async def _until(self, at_s: float) -> None:
        done = self.loop.create_future()
        timer = self.loop.at_world_time(at_s, _ring, done)
        try:
            await done
        finally:
            timer.cancel()

    def _connected(self, server: SimServer, here: Host, local: SocketAddress) -> SimTransport:
        """The client's kernel has the connection; the server's learns of it with what arrives first."""
        ours = SimTransport(self, here, local, server.address, contextvars.copy_context())
        theirs = SimTransport(self, server.host, server.address, local, server.context.copy(), server)
        ours.out = theirs.into = Direction(self, ours, theirs)
        theirs.out = ours.into = Direction(self, theirs, ours)
        self._client_addresses[local] = None
        if self.servers.get(server.address) is not server:  # it was closed while the answer was on its way
            theirs.close_socket(power_lost=True)
        ours.out.mark(Mark.OPENED)
        self.world.note(here, f"connects to {server.host.name}:{server.address[1]}")
        return ours

    async def _begin(self, transport: SimTransport | SimDatagramTransport, protocol: Any) -> None:
        """Tell the protocol; from the loop, as asyncio does."""
        ready = self.loop.create_future()

        def begin() -> None:
            transport.begin(protocol)
            _ring(ready)

        self.loop.call_soon(begin, context=transport.context)
        try:
            await ready
        except BaseException:
            transport.close()
            raise

    def accept(self, transport: SimTransport) -> None:
        """The handshake is complete: the process may accept the connection."""
        server = transport.server
        assert server is not None
        server.waiting += 1
        self.loop.call_soon(server.accept, transport, context=transport.context)

    # --- what streams report ----------------------------------------------------------------------------------------

    def opened(self, transport: SimTransport) -> None:
        self.transports[transport] = None
        self.sockets[transport.sock.descriptor] = transport.sock

    def closed(self, transport: SimTransport) -> None:
        self.transports.pop(transport, None)
        self.sockets.pop(transport.sock.descriptor, None)
        if transport.server is None:
            self._client_addresses.pop(transport.sock.local, None)

    # --- crashes ----------------------------------------------------------------------------------------------------

    def host_crashed(self, host: Host, kind: Crash) -> None:
        """Its sockets are gone; unless the power went, its kernel closes them properly."""
        power_lost = kind is Crash.POWER
        for server in [each for each in self.servers.values() if each.host is host]:
            self.stopped_listening(server)
        for datagrams in [each for each in self.datagram_sockets.values() if each.host is host]:
            datagrams.close_socket()
        for transport in [each for each in self.transports if each.host is host]:
            transport.close_socket(power_lost=power_lost)
        for direction in [each for each in self.stalled if power_lost and each.source.host is host]:
            direction.stop()  # of sockets that were closed before: their kernel is gone now, too

    def close(self) -> None:
        """The end of the world."""
        for transport in list(self.transports):
            transport.out.stop()
            transport.close_socket(power_lost=True)

    # --- datagrams --------------------------------------------------------------------------------------------------

    async def create_datagram_endpoint(
        self, factory: Any, local_addr: Any = None, remote_addr: Any = None, *, sock: Any = None, **options: Any
    ) -> tuple[SimDatagramTransport, Any]:
        """`options` are of real sockets; without effect."""
        self._no_strangers(None, sock)
        here = self._here()
        name, wanted = local_addr or ("", 0)
        ip, port = self.address_of(name or "", wanted or 0)
        if ip != here.ip:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        local = ip, port or self._free_port(ip)
        if local in self.datagram_sockets:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        remote = self.address_of(*remote_addr[:2]) if remote_addr else None
        transport = self.datagram_sockets[local] = SimDatagramTransport(self, here, local, remote)
        self.sockets[transport.sock.descriptor] = transport.sock
        protocol = factory()
        await self._begin(transport, protocol)
        return transport, protocol

    def datagrams_closed(self, transport: SimDatagramTransport) -> None:
        if self.datagram_sockets.get(transport.sock.local) is transport:
            del self.datagram_sockets[transport.sock.local]
        self.sockets.pop(transport.sock.descriptor, None)

    def datagram_arrives(self, sender: SimDatagramTransport, target: Host, data: bytes, address: SocketAddress) -> None:
        """Runs as the world's code, when a datagram has reached its machine."""
        transport = self.datagram_sockets.get(address)
        if not target.powered:
            return
        if transport is not None:
            transport.arrived(data, sender.sock.local)
        elif not self.links.cut(target, sender.host):
            at_s, _ = self.links.arrival_s(target, sender.host, 0, 0.0)
            self.loop.at_world_time(at_s, sender.refused, context=sender.context)


def _ring(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)
