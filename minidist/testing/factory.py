"""The factory behind the `minidist` fixture and behind `minidist.testing.cache()`: makes nodes, knows what it made.

Options are those of the component's command line, with underscores: `cache(max_memory="16mb")`. A handle given as an
option stands for its addresses: `balancer(upstream=web)`.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minidist.runtime.config import ConfigError, from_table
from minidist.testing.carrier import READY_TIMEOUT_S, Supervision, Workshop, new_directory
from minidist.testing.errors import MinidistError, NotSupported, UsageError
from minidist.testing.handles import Cluster, Group, Handle


class Minidist:
    """Makes nodes and clusters; `close()` removes everything it made."""

    def __init__(self, workshop: Workshop, *, seed: int, log_level: str = "info", keep: bool = False) -> None:
        self.workshop = workshop
        self.seed = seed
        self.log_level = log_level
        self.keep = keep
        self.made: list[Group | Cluster] = []

    def cache(self, **options: Any) -> Any:
        """A cache (Redis' protocol)."""
        return self.component("cache", **options)

    def balancer(self, **options: Any) -> Any:
        """An HTTP balancer: `balancer(upstream=web)`."""
        return self.component("balancer", **options)

    def component(
        self,
        component: str,
        *,
        replicas: int = 1,
        name: str = "",
        inline: bool = False,
        timeout_s: float = READY_TIMEOUT_S,
        **options: Any,
    ) -> Any:
        """A group of one component, ready for use; with `inline=True` an InlineNode to await.

        Raises UsageError for a wrong option, MinidistError when it does not become ready.
        """
        given = {key: self._option(value) for key, value in options.items()}
        if inline:
            return self._inline(component, replicas, name, given)
        check(component, given)
        table = {"component": component, "replicas": replicas, "seed": self.seed, "log_level": self.log_level} | given
        return self._group(name or component, table, timeout_s)

    def program(
        self,
        command: Sequence[str],
        *,
        replicas: int = 1,
        name: str = "program",
        env: Mapping[str, str] | None = None,
        ready: str = "tcp",
        timeout_s: float = READY_TIMEOUT_S,
    ) -> Group:
        """Your own program: it gets a free port in $PORT. `ready` is tcp, http:/PATH or log:REGEX."""
        table = {"command": list(command), "replicas": replicas, "env": dict(env or {}), "ready": ready}
        return self._group(name, table, timeout_s)

    def up(self, file: "str | Path", *, inline: bool = False, timeout_s: float = READY_TIMEOUT_S) -> Any:
        """A whole topology file, all of it ready: `cluster["store"]`; with `inline=True` an InlineCluster to await.

        Raises UsageError, MinidistError.
        """
        if inline:
            from minidist.testing.inline_cluster import InlineCluster

            return InlineCluster(Path(file), self.seed)
        cluster = Cluster(Supervision(Path(file).absolute(), new_directory(), keep=self.keep, timeout_s=timeout_s))
        self.made.append(cluster)
        return cluster

    def close(self) -> None:
        """Remove everything, the last first."""
        for made in reversed(self.made):
            made.close()
        self.made.clear()

    def handles(self) -> list[Handle]:
        """Every node there is, for reports."""
        groups: list[Group] = []
        for made in self.made:
            groups += made.groups.values() if isinstance(made, Cluster) else [made]
        nodes: list[Handle] = []
        for group in groups:
            with contextlib.suppress(MinidistError):  # the test has closed it itself
                nodes += group.nodes
        return nodes

    def _inline(self, component: str, replicas: int, name: str, options: dict[str, Any]) -> Any:
        from minidist.testing.inline import InlineNode

        if replicas != 1:
            raise NotSupported("replicas: an inline node is one; make several, or use processes")
        return InlineNode(component, self._name(name or component) + "-1", options, self.seed)

    def _group(self, wanted: str, table: dict[str, Any], timeout_s: float) -> Group:
        name = self._name(wanted)
        supervision = self.workshop.add(name, table, timeout_s)

        def remove() -> None:
            self.workshop.remove(name)
            if group in self.made:
                self.made.remove(group)

        group = Group(supervision, name, remove)
        self.made.append(group)
        return group

    def _name(self, wanted: str) -> str:
        """The first of a name keeps it, later ones get a number: cache, cache2, …"""
        taken = {made.name for made in self.made if isinstance(made, Group)}
        number = 1
        name = wanted
        while name in taken:
            number += 1
            name = f"{wanted}{number}"
        return name

    @staticmethod
    def _option(value: Any) -> Any:
        if isinstance(value, Group):
            return value.bootstrap
        if isinstance(value, Handle):
            return value.address
        if isinstance(value, list | tuple):
            return ",".join(str(Minidist._option(each)) for each in value)
        return value


def check(component: str, options: Mapping[str, Any]) -> None:
    """Find a wrong option before anything is started. Raises UsageError."""
    from minidist.components import NAMES, node_type

    if component not in NAMES:
        raise UsageError(f"component: given {component!r}, allowed: {', '.join(NAMES)}")
    try:
        from_table(
            node_type(component).config_type, {key: value for key, value in options.items() if value is not None}
        )
    except ConfigError as error:
        raise UsageError(str(error)) from error
