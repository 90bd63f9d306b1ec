"""Groups that come and go while a cluster runs: what the test plugin asks for, one test after the other.

The text of an addition is a topology of its own: it refers to nobody outside. Its groups live in the supervisor's
cluster beside the others until they are removed, killed rather than stopped, since nobody is left who uses them.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minidist.cluster.control import VerbError
from minidist.cluster.topology import Group, parse

if TYPE_CHECKING:
    from minidist.cluster.supervisor import Supervisor


async def add_groups(supervisor: "Supervisor", text: str, file: str) -> list[str]:
    """Reserve and start the groups of a topology's text; their names. Whoever asked waits with the verb `wait`.

    Raises TopologyError, PortTaken, VerbError for a name that is in use.
    """
    added = parse(text, file=file, directory_name="addition")
    cluster = supervisor.cluster
    taken = [name for name in added.groups if name in cluster.groups]
    if taken:
        raise VerbError(f"groups.{taken[0]}: given a name in use, allowed: another", 2)
    take_over(supervisor, {**supervisor.topology.groups, **added.groups})
    for group in added.groups.values():
        cluster.add_group(group)
    nodes = [node for name in added.groups for node in cluster.groups[name]]
    for node in nodes:
        cluster.start_node(node)
    return list(added.groups)


async def remove_groups(supervisor: "Supervisor", names: Sequence[str]) -> None:
    """Kill the groups' nodes and forget them, with their ports and faults. Raises VerbError for an unknown name."""
    cluster = supervisor.cluster
    nodes = cluster.find(names)
    gone = {*names, *(node.name for node in nodes)}
    for fault in await cluster.faults.listed():
        if gone.intersection(fault["on"]) or gone.intersection(fault["peer"]):
            await cluster.faults.remove(fault["id"])
    await cluster.kill(nodes)
    for node in nodes:
        cluster.remove_node(node)
    for name in names:
        del cluster.groups[name]
    take_over(supervisor, {name: group for name, group in supervisor.topology.groups.items() if name not in names})


def take_over(supervisor: "Supervisor", groups: dict[str, Group]) -> None:
    """The supervisor's topology has these groups from now on."""
    topology = dataclasses.replace(supervisor.topology, groups=groups)
    supervisor.topology = supervisor.cluster.topology = supervisor.cluster.programs.topology = topology
