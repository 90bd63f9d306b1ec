"""When a node is ready, and when a group is.

A node of ours is ready when it has printed its ready line, a user's program when its `ready` holds. A *group* is ready
when an exchange in its protocol works that needs the whole of it; the table `GROUP_PROBES` has one per component. A
probe returns when it worked and raises `NotReady` with what is missing. Waiting is repeating a probe, quickly at first.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from minidist.cluster.node import Node
from minidist.runtime.admin_client import AdminRefused, AdminUnreachable, call
from minidist.runtime.config import Address

PROBE_TIMEOUT_S = 2.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.1
MAX_LOG_SCAN_BYTES = 16 * 1024 * 1024


class NotReady(Exception):
    """What is still missing, in words."""


async def until_ready(probe: Callable[[], Awaitable[None]], waiting: Callable[[str], object]) -> None:
    """Repeat a probe until it works; `waiting` hears what is missing each time it does not."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            await asyncio.wait_for(probe(), PROBE_TIMEOUT_S)
        except TimeoutError:
            waiting(f"no answer within {PROBE_TIMEOUT_S:g} s")
        except (NotReady, OSError) as missing:
            waiting(str(missing))
        else:
            return
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)


# --- A user's program ------------------------------------------------------------------------------------------------


async def program_ready(node: Node, log: Path) -> None:
    """One look at whether the node's `ready` holds."""
    ready = node.group.ready
    address = Address(node.endpoint.host, node.endpoint.port)
    if ready.startswith("log:"):
        _log_matches(ready[4:], log, node.log_start)
    elif ready.startswith("http:"):
        await _http_answers(address, ready[5:])
    else:
        await _accepts(address)


def _log_matches(pattern: str, log: Path, start: int) -> None:
    with open(log, "rb") as file:
        file.seek(start)
        text = file.read(MAX_LOG_SCAN_BYTES).decode("utf-8", "replace")
    if not re.search(pattern, text, re.MULTILINE):
        raise NotReady(f"no line of its log matches {pattern!r}")


async def _accepts(address: Address) -> None:
    try:
        _, writer = await asyncio.open_connection(address.host, address.port)
    except OSError as error:
        raise NotReady(f"nothing accepts on its $PORT ({address})") from error
    await _close(writer)


async def _http_answers(address: Address, path: str) -> None:
    try:
        reader, writer = await asyncio.open_connection(address.host, address.port)
    except OSError as error:
        raise NotReady(f"nothing accepts on its $PORT ({address})") from error
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        words = (await reader.readline()).split()
        if len(words) < 2 or not words[1].isdigit() or not 200 <= int(words[1]) < 400:
            given = b" ".join(words).decode("latin-1") or "nothing"
            raise NotReady(f"GET {path} answers {given}")
    finally:
        await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


# --- Our components --------------------------------------------------------------------------------------------------


async def _cache(nodes: Sequence[Node]) -> None:
    await asyncio.gather(*(_ping_and_set(node) for node in nodes))


async def _ping_and_set(node: Node) -> None:
    """PING, and a SET that leaves nothing behind. A node that wants a password has shown that it speaks."""
    reader, writer = await asyncio.open_connection(node.endpoint.host, node.endpoint.port)
    try:
        for command, expected in (
            ("PING", b"+PONG"),
            ("SET minidist:ready 1 PX 1000", b"+OK"),
            ("DEL minidist:ready", b":"),
        ):
            writer.write(command.encode() + b"\r\n")
            reply = await reader.readline()
            if reply.startswith(b"-NOAUTH"):
                return
            if not reply.startswith(expected):
                raise NotReady(f"{node.name} answers {command.split()[0]} with {reply.strip().decode('latin-1')!r}")
    finally:
        await _close(writer)


async def _one_upstream_up(nodes: Sequence[Node]) -> None:
    for node in nodes:
        answer = await _ask(node, "/upstreams")
        upstreams = answer["upstreams"] if isinstance(answer, dict) else answer
        if not any(upstream.get("state") in ("up", "healthy") or upstream.get("up") for upstream in upstreams):
            raise NotReady(f"{node.name} has no upstream that is up")


async def _healthy(nodes: Sequence[Node]) -> None:
    for node in nodes:
        await _ask(node, "/healthz")


async def _ask(node: Node, path: str) -> Any:
    assert node.admin is not None
    try:
        return await call(node.admin, "GET", path, timeout_s=PROBE_TIMEOUT_S)
    except (AdminUnreachable, AdminRefused) as error:
        raise NotReady(f"{node.name}: {error}") from error


async def _nothing_more(nodes: Sequence[Node]) -> None:
    """A user's group is ready when each of its nodes is."""


GROUP_PROBES: dict[str, Callable[[Sequence[Node]], Awaitable[None]]] = {
    "command": _nothing_more,
    "cache": _cache,
    "balancer": _one_upstream_up,
    "proxy": _one_upstream_up,
}


async def group_ready(component: str, nodes: Sequence[Node]) -> None:
    """One exchange with the running nodes of a group. Raises NotReady, OSError."""
    await GROUP_PROBES.get(component, _healthy)(nodes)
