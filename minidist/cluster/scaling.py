"""`scale GROUP=N`: nodes are added at the end of a group and removed from its end.

Whoever was given the group's addresses as an option (a balancer's or proxy's `upstream`) hears of it at once through
its admin port: a new node is added when it is ready, a leaving one is drained there before it is stopped. Environments
of running programs cannot be changed; the verb says whose are out of date.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from minidist.cluster.keys import MAX_REPLICAS
from minidist.cluster.node import Node, State
from minidist.cluster.readiness import NotReady, until_ready
from minidist.cluster.references import references_in
from minidist.cluster.topology import ADDRESS_OPTIONS, COMMAND, Group, target_of, weighted, words_of
from minidist.runtime.admin_client import AdminRefused, AdminUnreachable, call

if TYPE_CHECKING:
    from minidist.cluster.cluster import Cluster

SCALABLE = (COMMAND, "cache", "balancer")
DRAIN_TIMEOUT_S = 10.0


async def scale(cluster: "Cluster", name: str, count: int, timeout_s: float, progress: Callable[[str], object]) -> None:
    """Bring a group to `count` nodes; returns when they are ready. Raises ClusterError, PortTaken."""
    group = _checked(cluster, name, count)
    nodes = cluster.groups[name]
    added = [cluster.add_node(group, index) for index in range(len(nodes), count)]
    removed = nodes[count:][::-1]
    if added:
        await _start_or_forget(cluster, added, timeout_s)
        await _give(cluster, name, added)
    elif removed:
        await _take_away(cluster, name, removed)
        await cluster.stop(removed)
        for node in removed:
            cluster.remove_node(node)
    if added or removed:
        cluster.events.emit("", "scaled", group=name, nodes=count)
        for user in _outdated(cluster, name):
            progress(f"{user} keeps the environment it was started with; restart it to see the change")


async def _start_or_forget(cluster: "Cluster", added: Sequence[Node], timeout_s: float) -> None:
    """Start new nodes; when one fails or takes too long, none of them stays."""
    from minidist.cluster.cluster import ClusterError

    try:
        async with asyncio.timeout(timeout_s):
            await cluster.start(added)
    except BaseException as error:
        missing = cluster.unready(added)
        await cluster.stop(added, 0.0)
        for node in added:
            cluster.remove_node(node)
        if isinstance(error, TimeoutError):
            raise ClusterError(f"not ready within {timeout_s:g} s:\n{missing}") from error
        raise


def _checked(cluster: "Cluster", name: str, count: int) -> Group:
    from minidist.cluster.cluster import ClusterError

    if name not in cluster.groups:
        raise ClusterError(f"given {name!r}, allowed: a group: {', '.join(cluster.groups)}", 2)
    group = cluster.topology.groups[name]
    if group.component not in SCALABLE:
        allowed = "user programs, " + ", ".join(SCALABLE[1:])
        raise ClusterError(f"given {name!r}, a {group.component}, allowed: groups of {allowed}", 2)
    if not 1 <= count <= MAX_REPLICAS:
        raise ClusterError(f"{name}: given {count}, allowed: 1 to {MAX_REPLICAS}", 2)
    if count > 1 and (group.listen.port or group.admin.port):
        raise ClusterError(f"{name}: given {count}, allowed: 1, since the file fixes its port", 2)
    highest = _highest_index_used(cluster, name)
    if count <= highest:
        raise ClusterError(
            f"{name}: given {count}, allowed: at least {highest + 1}, since {name}[{highest}] is referred to", 2
        )
    return group


def _highest_index_used(cluster: "Cluster", name: str) -> int:
    """The last node that the file names by its number; -1 when it names none."""
    indexes = [-1]
    for group in cluster.topology.groups.values():
        for key, text in group.texts():
            indexes += [each.index for each in references_in(text) if each.group == name and each.index is not None]
            if key in ADDRESS_OPTIONS:
                targets = [target_of(weighted(word)[0], cluster.groups) for word in words_of(text)]
                indexes += [target[1] for target in targets if target and target[0] == name and target[1] is not None]
    return max(indexes)


async def _give(cluster: "Cluster", name: str, added: Sequence[Node]) -> None:
    """Tell the group's users of new nodes, with the weight that the option gives to the group."""
    for user, weight in _users(cluster, name):
        await _tell(user, {"add": [node.endpoint.address + weight for node in added]})


async def _take_away(cluster: "Cluster", name: str, removed: Sequence[Node]) -> None:
    """Let the group's users finish what they have with these nodes, and forget them."""
    addresses = [node.endpoint.address for node in removed]
    users = [user for user, _ in _users(cluster, name)]
    await asyncio.gather(*(_drain(user, addresses) for user in users))
    for user in users:
        await _tell(user, {"remove": addresses})


async def _drain(user: Node, addresses: Sequence[str]) -> None:
    """Nothing new goes to these upstreams; returns when nothing is under way, or after DRAIN_TIMEOUT_S."""
    await _tell(user, {"drain": list(addresses)})

    async def idle() -> None:
        assert user.admin is not None
        listed = (await call(user.admin, "GET", "/upstreams"))["upstreams"]
        if any(each["active"] for each in listed if each["name"] in addresses):
            raise NotReady("requests are under way")

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            await until_ready(idle, lambda missing: None)


async def _tell(user: Node, change: Mapping[str, Sequence[str]]) -> None:
    """One that cannot answer reads the present list when it starts again."""
    from minidist.cluster.cluster import ClusterError

    assert user.admin is not None
    try:
        await call(user.admin, "POST", "/upstreams", change)
    except AdminUnreachable:
        pass
    except AdminRefused as refused:
        raise ClusterError(f"{user.name} does not take the change: {refused.text}") from refused


def _users(cluster: "Cluster", name: str) -> list[tuple[Node, str]]:
    """The running nodes that have the whole group as an address option, with its weight there ("" or "=N")."""
    found = []
    for group in cluster.topology.groups.values():
        words = [word for option in ADDRESS_OPTIONS for word in words_of(group.options.get(option, []))]
        for word in words:
            named, weight = weighted(word)
            references = [each for each in references_in(word) if each.group == name and each.index is None]
            if target_of(named, cluster.groups) == (name, None) or references:
                nodes = [node for node in cluster.groups[group.name] if node.state is State.RUNNING and node.admin]
                found += [(node, weight) for node in nodes]
    return found


def _outdated(cluster: "Cluster", name: str) -> list[str]:
    """The user's groups whose environment or command line names all nodes of the group."""
    return [
        group.name
        for group in cluster.topology.groups.values()
        if group.is_program and any(_names_all(text, name) for _, text in group.texts())
    ]


def _names_all(text: str, name: str) -> bool:
    plural = ("urls", "addresses", "bootstrap")
    return any(each.group == name and each.attribute in plural for each in references_in(text))
