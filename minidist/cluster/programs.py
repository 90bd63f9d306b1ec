"""What a node's process is: the command line, environment and directory of each kind of group.

Computed anew at each start, since references stand for what the groups are *now* (after `scale`, a restarted balancer
gets the present list).
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minidist.cluster.guard import MARK_VARIABLE
from minidist.cluster.node import Node
from minidist.cluster.processes import Program
from minidist.cluster.references import Endpoint, fill_in
from minidist.cluster.rundir import RunDir
from minidist.cluster.topology import ADDRESS_OPTIONS, Topology, options_and_aliases, target_of, weighted, words_of

# Less than the 5 s after which a stop becomes a SIGKILL, so that a node with open connections still ends in order.
DRAIN_TIMEOUT = "4s"

NodesOf = Callable[[str], Sequence[Endpoint]]


class Programs:
    """Makes the Program of any node of one cluster."""

    def __init__(self, topology: Topology, run_dir: RunDir, directory: str, mark: str, secret: str) -> None:
        self.topology = topology
        self._run_dir = run_dir
        self._directory = directory
        self._mark = mark
        self._secret = secret

    def of(self, node: Node, nodes_of: NodesOf, peers: Sequence[Node]) -> Program:
        """`nodes_of` gives the present nodes of a group, `peers` are all nodes of this node's own."""
        group = node.group
        common: dict[str, str] = {MARK_VARIABLE: self._mark, "MINIDIST_NODE": node.name}
        common |= {variable: fill_in(text, nodes_of) for variable, text in group.env.items()}
        if not group.is_program:
            self._run_dir.data_of(node.name).mkdir(parents=True, exist_ok=True)
            env = common | {"MINIDIST_CLUSTER_SECRET": self._secret}
            args = [group.component, *self._options(node, nodes_of, peers)]
            return Program(self._directory, env, target="minidist.cli:main", args=args, title=node.name)
        env = {"PATH": own_path(), "PYTHONUNBUFFERED": "1", "PORT": str(node.address.port)} | common
        if group.command:
            return Program(self._directory, env, argv=[fill_in(word, nodes_of) for word in group.command])
        if any(variable.startswith("PYTHON") for variable in group.env):  # these work only on a new interpreter
            return Program(self._directory, env, argv=[sys.executable, "-m", "minidist.run", group.entry])
        return Program(self._directory, env, target="minidist.run:main", args=[group.entry], title=node.name)

    def _options(self, node: Node, nodes_of: NodesOf, peers: Sequence[Node]) -> list[str]:
        options: dict[str, Any] = {
            "name": node.name,
            "listen": str(node.address),
            "admin": str(node.admin),
            "reuse-port": True,
            "drain-timeout": DRAIN_TIMEOUT,
            "data-dir": str(self._run_dir.data_of(node.name)),
        }
        for option, given in node.group.options.items():
            name = option.replace("_", "-")
            if option in ADDRESS_OPTIONS:
                options[name] = ",".join(addresses_of(given, list(self.topology.groups), nodes_of))
            elif name == "data-dir":
                options[name] = os.path.join(given, node.name) if node.group.replicas > 1 else given
                if os.path.isdir(os.path.join(self._directory, given)):
                    os.makedirs(os.path.join(self._directory, options[name]), exist_ok=True)
            else:
                options[name] = _filled(given, nodes_of)
        if "peer" in node.reservations:
            options["peer-listen"] = str(node.reservations["peer"].address)
            options["peers"] = ",".join(f"{peer.name}={peer.reservations['peer'].address}" for peer in peers)
            options["cluster-id"] = self.topology.name
        return [f"--{name}={_shown(value)}" for name, value in options.items()]


def addresses_of(given: Any, groups: Sequence[str], nodes_of: NodesOf) -> list[str]:
    """The addresses that an address option stands for: groups and nodes become theirs, others stay."""
    addresses = []
    for word in words_of(_filled(given, nodes_of)):
        name, weight = weighted(word)
        target = target_of(name, groups)
        if target is None:
            addresses.append(word)
        else:
            nodes = nodes_of(target[0])
            addresses += [each.address + weight for each in (nodes if target[1] is None else [nodes[target[1]]])]
    return addresses


def needs_peers(component: str) -> bool:
    """Whether the component's nodes form a cluster, and so listen for each other."""
    from minidist.components import config_type

    return "peer_listen" in options_and_aliases(config_type(component))


def own_path(environ: Mapping[str, str] = os.environ) -> str:
    """PATH with the directory of the running Python first, so that `python` is this one."""
    return os.path.dirname(sys.executable) + os.pathsep + environ.get("PATH", os.defpath)


def _filled(given: Any, nodes_of: NodesOf) -> Any:
    if isinstance(given, str):
        return fill_in(given, nodes_of)
    return [_filled(each, nodes_of) for each in given] if isinstance(given, list) else given


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
