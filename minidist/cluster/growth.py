"""A second `up` on a run directory in use: what it may change.

It starts what is missing of the same file: nodes that are down, groups and replicas that were added to the file since.
Another file, or a group that now reads differently, is refused: nodes that run would no longer be what the file says.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from minidist.cluster.control import VerbError
from minidist.cluster.topology import Group

if TYPE_CHECKING:
    from minidist.cluster.supervisor import Supervisor


def grow(supervisor: "Supervisor", file: str, name: str) -> None:
    """Take what is new in the file into the running cluster, not yet started. Raises VerbError, TopologyError."""
    from minidist.cluster.supervisor import read_topology

    cluster, running = supervisor.cluster, supervisor.topology
    ours = Path(supervisor.options.file).absolute()
    if Path(file).absolute() != ours:
        raise VerbError(
            f"given {file}, allowed: {ours}, which runs in {cluster.run_dir.path} (or `minidist down` first)", 2
        )
    wanted = read_topology(str(ours), name)
    for group in running.groups.values():
        if group.name not in wanted.groups or _differs(group, wanted.groups[group.name]):
            change = "reads differently" if group.name in wanted.groups else "is gone"
            raise VerbError(f"{file}: groups.{group.name} {change} since the cluster started; `minidist down` first", 2)
    if (wanted.regions, wanted.links) != (running.regions, running.links):
        raise VerbError(
            f"{file}: regions or links read differently since the cluster started; `minidist down` first", 2
        )
    supervisor.topology = cluster.topology = dataclasses.replace(wanted, name=running.name)
    cluster.programs.topology = cluster.topology
    for group in wanted.groups.values():
        nodes = cluster.groups.setdefault(group.name, [])
        for index in range(len(nodes), group.replicas):
            cluster.add_node(group, index)


def _differs(group: Group, other: Group) -> bool:
    return dataclasses.replace(group, replicas=1) != dataclasses.replace(other, replicas=1)
