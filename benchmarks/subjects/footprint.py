"""Memory: an idle node, and what each of eight thousand clients costs that connected, asked once and then said nothing.

Resident memory of the server's process only; what the kernel keeps for a socket is the same for everybody.
redis-server and nginx are shown for orientation.
"""

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

from lab import servers
from lab.figures import Figure, Result, Target
from lab.machine import Cores, resident_bytes, with_descendants
from lab.servers import PeerMissing, Running
from lab.settings import Settings
from peers import nginx, redis

IDLE_MB = Target(40, 32, higher=False)
CLIENT_BYTES = Target(4096, 2048, higher=False)
CLIENTS, QUICK_CLIENTS = 8000, 500
SPARE_DESCRIPTORS = 200
TIMEOUT_S = 10
PING = b"*1\r\n$4\r\nPING\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def run(settings: Settings, cores: Cores, folder: Path) -> Result:
    """Idle nodes, then their clients."""
    clients = QUICK_CLIENTS if settings.quick else CLIENTS
    allow_descriptors(clients + SPARE_DESCRIPTORS)
    result = Result(settings={"clients": clients})
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(nginx.upstream(cores.load, folder))
        address = f"{upstream.host}:{upstream.port}"
        cache = stack.enter_context(servers.minidist("cache", core=cores.server, folder=folder))
        balancer = stack.enter_context(
            servers.minidist("balancer", "--upstream", address, core=cores.server, folder=folder)
        )
        peers = {"cache": None, "balancer": None} | dict(peer_servers(stack, cores, folder, upstream))
        for name, ours, request in (("cache", cache, PING), ("balancer", balancer, GET)):
            theirs = peers[name]
            settings.say(f"{name}: idle, then {clients} clients")
            result.figures += figures(name, ours, theirs, request, clients)
            result.versions[ours.name] = ours.version
            if theirs:
                result.versions[theirs.name] = theirs.version
    return result


def peer_servers(
    stack: contextlib.ExitStack, cores: Cores, folder: Path, upstream: Running
) -> Iterator[tuple[str, Running]]:
    with contextlib.suppress(PeerMissing):
        yield "cache", stack.enter_context(redis.start(cores.server, folder))
    with contextlib.suppress(PeerMissing):
        yield "balancer", stack.enter_context(nginx.balancer(cores.server, folder, upstream))


def figures(name: str, ours: Running, theirs: Running | None, request: bytes, clients: int) -> list[Figure]:
    """Idle memory and memory per idle client, for ours and the peer."""
    idle, per_client = memory(ours, request, clients)
    their_idle, their_per_client = memory(theirs, request, clients) if theirs else (None, None)

    def figure(case: str, mine: float, other: float | None, unit: str, target: Target) -> Figure:
        return Figure(f"{name}, {case}", "memory", mine, other, unit, mine, target, is_ratio=False)

    return [
        figure("idle", idle / 1e6, None if their_idle is None else their_idle / 1e6, "MB", IDLE_MB),
        figure("idle client", per_client, their_per_client, "bytes", CLIENT_BYTES),
    ]


def memory(server: Running, request: bytes, clients: int) -> tuple[float, float]:
    """(bytes when idle, bytes for each client). One client is served first: the first pays for what all share."""
    idle = resident(server)
    with contextlib.ExitStack() as stack:
        connect(stack, server, request)
        one = resident(server)
        for _ in range(clients):
            connect(stack, server, request)
        return idle, (resident(server) - one) / clients


def connect(stack: contextlib.ExitStack, server: Running, request: bytes) -> None:
    client = stack.enter_context(socket.create_connection((server.host, server.port), timeout=TIMEOUT_S))
    client.sendall(request)
    if not client.recv(4096):
        raise RuntimeError(f"{server.name} closed the connection instead of answering")


def resident(server: Running) -> int:
    return sum(resident_bytes(pid) for pid in with_descendants([server.pid]))


def allow_descriptors(wanted: int) -> None:
    """Raise the soft limit, which the servers inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise SystemExit(f"needs {wanted} open files, the limit is {hard}: raise it (ulimit -Hn)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
