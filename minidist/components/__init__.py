"""The components: each a folder with the same file names. This tuple, written by hand, is the only registry."""

import contextlib
import importlib
from typing import TYPE_CHECKING, NamedTuple

from minidist.runtime.config import Config

if TYPE_CHECKING:
    from minidist.runtime.node import Node


class Component(NamedTuple):
    """Where a component is found. Its module is imported only when it is used."""

    name: str
    module: str
    node: str
    summary: str


COMPONENTS = (
    Component("cache", "minidist.components.cache.server", "Cache", "LRU/TTL cache that speaks Redis' protocol"),
    Component("balancer", "minidist.components.balancer.server", "Balancer", "HTTP load balancer and reverse proxy"),
)

NAMES = tuple(component.name for component in COMPONENTS)


def node_type(name: str) -> "type[Node]":
    """The Node class of a component. Raises KeyError for an unknown name."""
    component = {component.name: component for component in COMPONENTS}[name]
    found: type[Node] = getattr(importlib.import_module(component.module), component.node)
    return found


def import_later(name: str) -> None:
    """Import what a component's running node would load when it has time (its module `later`, if there is one)."""
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(f"{__name__}.{name}.later")


def config_type(name: str) -> type[Config]:
    """The Config of a component, without importing what runs it. Raises KeyError for an unknown name."""
    if name not in NAMES:
        raise KeyError(name)
    module = importlib.import_module(f"{__name__}.{name}.config")
    types = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Config)]
    return next(each for each in types if each.component == name)
