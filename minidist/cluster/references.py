"""References between groups: `{cache.url}`, `{log.bootstrap}`, `{store[0].address}` in the texts of a topology file.

A reference stands for addresses that exist only once ports are reserved, so a topology is checked with the references
themselves (which group, which attribute) and they are filled in whenever a node starts. Anything else in braces is left
alone: JSON and shell text pass through. `{{cache.url}}` is the text `{cache.url}`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ATTRIBUTES = ("url", "urls", "address", "addresses", "bootstrap", "host", "port", "admin", "name")

_PATTERN = re.compile(r"\{(\{)?([A-Za-z][A-Za-z0-9_-]*)(?:\[([0-9]{1,4})\])?\.([A-Za-z_]+)\}(?(1)\})")

SCHEMES = {
    "cache": "redis://{}/0",
    "kv": "redis://{}/0",
    "shard": "redis://{}/0",
    "broker": "kafka://{}",
    "dns": "dns://{}",
    "balancer": "http://{}",
    "proxy": "tcp://{}",
    "pubsub": "nats://{}",
    "command": "http://{}",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a reference can say about one node. `component` is "command" for a user's own program."""

    name: str
    component: str
    host: str
    port: int
    admin: str = ""

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return SCHEMES[self.component].format(self.address)


@dataclass(frozen=True, slots=True)
class Reference:
    """`{group.attribute}`, or `{group[index].attribute}` for one node."""

    group: str
    index: int | None
    attribute: str

    def __str__(self) -> str:
        place = "" if self.index is None else f"[{self.index}]"
        return f"{{{self.group}{place}.{self.attribute}}}"

    def value(self, nodes: Sequence[Endpoint]) -> str:
        """What it stands for when these are the group's nodes."""
        chosen = nodes if self.index is None else nodes[self.index : self.index + 1]
        if self.attribute == "urls":
            return ",".join(node.url for node in chosen)
        if self.attribute in ("addresses", "bootstrap"):
            return ",".join(node.address for node in chosen)
        return str(getattr(chosen[0], self.attribute))


def _reference(match: re.Match[str]) -> Reference:
    return Reference(match[2], int(match[3]) if match[3] else None, match[4])


def references_in(text: str) -> list[Reference]:
    """Every reference in a text, in order; not yet checked."""
    return [_reference(match) for match in _PATTERN.finditer(text) if not match[1]]


def fill_in(text: str, nodes_of: Callable[[str], Sequence[Endpoint]]) -> str:
    """The text with every reference replaced. They have been checked before, and the groups have their nodes."""

    def replaced(match: re.Match[str]) -> str:
        reference = _reference(match)
        return match[0][1:-1] if match[1] else reference.value(nodes_of(reference.group))

    return _PATTERN.sub(replaced, text)
