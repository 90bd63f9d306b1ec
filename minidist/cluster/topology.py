"""The topology file: TOML text in, a checked `Topology` out. Pure: nothing is read, reserved or started here.

The keys of the file are described in tables (keys.py), the options of our own components in their Config; the checks
here and the published JSON Schema (minidist/cluster/schema) come from both. Whatever is wrong is a `TopologyError` that
says where (file and key), what was given and what is allowed.

A group depends on the groups its texts refer to (`{cache.url}`, `upstream = "web"`) and on those named in `after`.
"""

import dataclasses
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minidist.cluster.keys import (
    GROUP_KEYS,
    GROUP_NAME,
    LINK_KEYS,
    MAX_REPLICAS,
    NAME,
    TOP_KEYS,
    Key,
    text_list,
)
from minidist.cluster.references import ATTRIBUTES, Endpoint, fill_in, references_in
from minidist.runtime.config import Address, Config, ConfigError, from_table, options_of

MAX_GROUPS = 256

NODE_NAME = re.compile(r"(.+)-([1-9][0-9]*)")
NODE_INDEX = re.compile(r"(.+)\[([0-9]+)\]")

COMMAND = "command"
"""The component of a user's own program, wherever a component is named."""

ANY_PORT = Address("127.0.0.1", 0)

ADDRESS_OPTIONS = frozenset({"upstream", "over", "forward"})
"""Options of components that take addresses, and so may name a group (all its nodes) or a node instead."""

LAUNCHER_OPTIONS = ("name", "reuse_port", "die_with_parent", "peer_listen", "peers", "cluster_id")
"""Options that the launcher sets itself."""


class TopologyError(Exception):
    """A file that cannot be taken. Ends a program with exit code 2."""

    def __init__(self, file: str, key: str, given: object, allowed: str) -> None:
        place = f"{file}: {key}" if key else file
        super().__init__(f"{place}: given {_shown(given)}, allowed: {allowed}")
        self.file = file
        self.key = key
        self.given = given
        self.allowed = allowed


class NoTopologyFile(TopologyError):
    """There is no such file: the first thing a newcomer may see, so it says what to do."""

    def __init__(self, file: str) -> None:
        super().__init__(file, "", Words("no file"), "a topology file")
        self.args = (f"no {file} here; give a FILE, or see docs/clusters.md for how to write one",)


@dataclass(frozen=True, slots=True)
class Group:
    """One group of the file. Exactly one of `component` and (`command` or `entry`) says what its nodes are."""

    name: str
    component: str = COMMAND
    command: tuple[str, ...] = ()
    entry: str = ""
    replicas: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    ready: str = "tcp"
    listen: Address = ANY_PORT
    admin: Address = ANY_PORT
    after: tuple[str, ...] = ()
    restart_always: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()

    @property
    def is_program(self) -> bool:
        """Whether this is the user's own program."""
        return self.component == COMMAND

    def node_names(self, count: int | None = None) -> tuple[str, ...]:
        return tuple(f"{self.name}-{number}" for number in range(1, (count or self.replicas) + 1))

    def texts(self) -> Iterable[tuple[str, str]]:
        """Every text that may hold references, with its key inside the group."""
        for index, word in enumerate(self.command):
            yield f"command[{index}]", word
        for variable, text in self.env.items():
            yield f"env.{variable}", text
        for option, given in self.options.items():
            for text in given if isinstance(given, list) else [given]:
                if isinstance(text, str):
                    yield option, text


@dataclass(frozen=True, slots=True)
class Link:
    """What lies between two regions: a delay, as `latency_ms` ± `jitter_ms` in each direction."""

    between: tuple[str, str]
    latency_ms: float
    jitter_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Topology:
    """A checked file. `groups` keeps the order of the file; `regions` maps a region to names of groups and nodes."""

    name: str
    file: str
    groups: Mapping[str, Group]
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    links: tuple[Link, ...] = ()

    def region_of(self, node: str) -> str | None:
        """Where a node is placed: by its own name, or by its group's, also if `scale` has added it."""
        target = target_of(node, self.groups)
        names = (node, target[0]) if target else (node,)
        return next((region for region, placed in self.regions.items() if any(name in placed for name in names)), None)

    def nodes_in(self, region: str) -> tuple[str, ...]:
        """The region's nodes by name, of those in the file."""
        return nodes_of(self.regions[region], self.groups)


# --- Reading ---------------------------------------------------------------------------------------------------------


def parse(text: str, *, file: str, directory_name: str, name: str = "") -> Topology:
    """The topology of a file's text. `file` is for messages; the cluster is called `name`, else as the file says, else
    after `directory_name`. Raises TopologyError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TopologyError(file, "", Words("text that is no TOML"), f"TOML ({error})") from error
    reader = _Reader(file)
    reader.check_texts(document, "")
    return reader.topology(document, name or "", directory_name)


class _Reader:
    """Reads one document; holds the file's name for the errors."""

    def __init__(self, file: str) -> None:
        self.file = file

    def error(self, key: str, given: object, allowed: str) -> TopologyError:
        return TopologyError(self.file, key, given, allowed)

    def topology(self, document: dict[str, Any], name: str, directory_name: str) -> Topology:
        top = self.read(document, TOP_KEYS, "")
        tables = top.get("groups", {})
        if not tables or len(tables) > MAX_GROUPS:
            raise self.error("groups", Words(f"{len(tables)} groups"), f"1 to {MAX_GROUPS} tables [groups.NAME]")
        groups = {group: self.group(group, table, list(tables)) for group, table in tables.items()}
        self.check_names(groups)
        groups = {group.name: self.with_dependencies(group, groups) for group in groups.values()}
        self.check_cycles(groups)
        regions = {region: self.region(region, given, groups) for region, given in top.get("regions", {}).items()}
        self.check_regions(regions, groups)
        links = tuple(self.link(index, table, regions) for index, table in enumerate(top.get("links", ())))
        chosen = name or top.get("name") or re.sub(r"[^A-Za-z0-9._-]+", "-", directory_name).strip("-._") or "cluster"
        if not NAME.fullmatch(chosen):
            raise self.error("--name", chosen, TOP_KEYS["name"].allowed)
        return Topology(chosen, self.file, groups, regions, links)

    def check_texts(self, given: Any, key: str) -> None:
        """No text may have a null character: neither command lines, nor environments, nor paths can."""
        if isinstance(given, str):
            if "\0" in given:
                raise self.error(key, given, "text without null characters")
        elif isinstance(given, dict):
            for name, value in given.items():
                self.check_texts(name, key)
                self.check_texts(value, f"{key}.{name}" if key else name)
        elif isinstance(given, list):
            for index, value in enumerate(given):
                self.check_texts(value, f"{key}[{index}]")

    def read(self, table: Mapping[str, Any], keys: Mapping[str, Key], prefix: str) -> dict[str, Any]:
        """The values of a table whose every key must be known."""
        values = {}
        for key, given in table.items():
            if key not in keys:
                raise self.error(prefix + key, given, f"{_one_of(keys)}{_meant(key, keys)}")
            values[key] = self.value(keys[key], given, prefix + key)
        return values

    def value(self, key: Key, given: Any, named: str) -> Any:
        try:
            return key.read(given)
        except re.error as error:
            raise self.error(named, given, f"a regular expression after log: ({error})") from error
        except (ValueError, TypeError) as error:
            raise self.error(named, given, key.allowed) from error

    # --- groups ------------------------------------------------------------------------------------------------------

    def group(self, name: str, table: Any, names: list[str]) -> Group:
        prefix = f"groups.{name}"
        if not GROUP_NAME.fullmatch(name):
            raise self.error(prefix, name, "a letter, then letters, digits, '_' and '-', at most 63")
        if not isinstance(table, dict):
            raise self.error(prefix, table, f"a table [groups.{name}]")
        kinds = [key for key in ("component", "command", "entry") if key in table]
        if not kinds or (kinds[0] == "component" and len(kinds) > 1):
            given = " and ".join(kinds) or "none of them"
            raise self.error(prefix, Words(given), "either component, or command and/or entry")
        of = "component" if kinds[0] == "component" else "program"
        keys = {key: each for key, each in GROUP_KEYS.items() if each.of in ("any", of)}
        known = {key: given for key, given in table.items() if key in keys}
        options = {key: given for key, given in table.items() if key not in keys}
        values = self.read(known, keys, prefix + ".")
        if of == "program" and options:
            self.read(options, keys, prefix + ".")
        restart_always = values.pop("restart", False)
        group = Group(name, restart_always=restart_always, options=options, **values)
        self.check_fixed_ports(group)
        if of == "program" and "PORT" in group.env:
            raise self.error(f"{prefix}.env.PORT", group.env["PORT"], 'nothing: listen = "HOST:PORT" fixes the port')
        if of == "component":
            self.check_options(group, names)
        return group

    def check_fixed_ports(self, group: Group) -> None:
        for key in ("listen", "admin"):
            address: Address = getattr(group, key)
            if group.replicas > 1 and address.port:
                allowed = f"HOST:0, or replicas = 1 (the {group.replicas} nodes cannot share one port)"
                raise self.error(f"groups.{group.name}.{key}", str(address), allowed)

    def check_options(self, group: Group, names: list[str]) -> None:
        """A component's options, through its Config, with stand-ins where texts refer to groups."""
        prefix = f"groups.{group.name}."
        config_type = self.config_type(group)
        for option in group.options:
            if option.replace("-", "_") in LAUNCHER_OPTIONS:
                raise self.error(prefix + option, group.options[option], "nothing: the launcher sets it")
            if option not in options_and_aliases(config_type) and option != "config":
                known = [each for each in options_of(config_type) if each not in LAUNCHER_OPTIONS]
                allowed = [*known, *(key for key in GROUP_KEYS if key not in known and GROUP_KEYS[key].of != "program")]
                raise self.error(prefix + option, group.options[option], f"{_one_of(allowed)}{_meant(option, allowed)}")
        stand_in = Endpoint("stand-in-1", group.component, "127.0.0.1", 1)
        table: dict[str, Any] = {"listen": str(group.listen), "admin": str(group.admin)}
        for option, given in group.options.items():
            if option == "config":
                continue
            filled = _map_texts(given, lambda text: fill_in(text, lambda name: [stand_in] * (MAX_REPLICAS + 1)))
            if option in ADDRESS_OPTIONS:
                filled = self.addresses(prefix + option, filled, names)
            table[option] = filled
        try:
            from_table(config_type, table, prefix)
        except ConfigError as error:
            raise self.error(_as_key(error.option, prefix), error.given, _as_key(error.allowed, "")) from error

    def config_type(self, group: Group) -> type[Config]:
        from minidist.components import NAMES, config_type

        if group.component not in NAMES:
            meant = _meant(group.component, NAMES)
            raise self.error(f"groups.{group.name}.component", group.component, f"{_one_of(NAMES)}{meant}")
        return config_type(group.component)

    def addresses(self, key: str, given: Any, names: list[str]) -> list[str]:
        """Stand-ins for what an address option names; a word that cannot be an address must be a group or node."""
        stand_ins = []
        for word in words_of(given):
            name, weight = weighted(word)
            if target_of(name, names) is not None:
                word = f"127.0.0.1:1{weight}"
            elif ":" not in name:
                allowed = f"HOST:PORT, a group ({', '.join(names)}) or a node of one{_meant(name, names)}"
                raise self.error(key, word, allowed)
            stand_ins.append(word)
        return stand_ins

    # --- what groups say about each other ----------------------------------------------------------------------------

    def check_names(self, groups: Mapping[str, Group]) -> None:
        """No group may be called as another's node, nor share the names of its environment variables with it."""
        variables: dict[str, str] = {}
        for name in groups:
            match = NODE_NAME.fullmatch(name)
            if match and match[1] in groups:
                raise self.error(f"groups.{name}", name, f"a name that is not a node of the group {match[1]}")
            variable = env_prefix(name)
            if variable in variables:
                raise self.error(
                    f"groups.{name}", name, f"a name that does not become {variable} as {variables[variable]} does"
                )
            variables[variable] = name

    def with_dependencies(self, group: Group, groups: Mapping[str, Group]) -> Group:
        needed: dict[str, None] = {}
        for index, name in enumerate(group.after):
            if name not in groups or name == group.name:
                others = [other for other in groups if other != group.name]
                raise self.error(
                    f"groups.{group.name}.after[{index}]", name, f"{_one_of(others)}{_meant(name, others)}"
                )
            needed[name] = None
        for key, text in group.texts():
            for name in self.referred(f"groups.{group.name}.{key}", text, groups):
                needed[name] = None
            if key in ADDRESS_OPTIONS:
                for word in words_of(text):
                    target = target_of(weighted(word)[0], groups)
                    if target is not None:
                        self.check_index(f"groups.{group.name}.{key}", word, target, groups)
                        needed[target[0]] = None
        needed.pop(group.name, None)
        return dataclasses.replace(group, depends_on=tuple(needed))

    def referred(self, key: str, text: str, groups: Mapping[str, Group]) -> Iterable[str]:
        for reference in references_in(text):
            if reference.group not in groups:
                allowed = f"a reference to {_one_of(groups)}{_meant(reference.group, groups)}"
                raise self.error(key, str(reference), allowed)
            if reference.attribute not in ATTRIBUTES:
                meant = _meant(reference.attribute, ATTRIBUTES)
                raise self.error(key, str(reference), f"one of the attributes {', '.join(ATTRIBUTES)}{meant}")
            if reference.attribute == "admin" and groups[reference.group].is_program:
                raise self.error(key, str(reference), "admin only of minidist's components")
            self.check_index(key, str(reference), (reference.group, reference.index), groups)
            yield reference.group

    def check_index(self, key: str, given: str, target: tuple[str, int | None], groups: Mapping[str, Group]) -> None:
        name, index = target
        if index is not None and index >= groups[name].replicas:
            raise self.error(key, given, f"{name}[0] to {name}[{groups[name].replicas - 1}]")

    def check_cycles(self, groups: Mapping[str, Group]) -> None:
        done: dict[str, None] = {}

        def visit(name: str, path: tuple[str, ...]) -> None:
            if name in path:
                cycle = " → ".join((*path[path.index(name) :], name))
                raise self.error(f"groups.{path[-1]}", Words(f"the cycle {cycle}"), "dependencies without a cycle")
            if name not in done:
                for other in groups[name].depends_on:
                    visit(other, (*path, name))
                done[name] = None

        for name in groups:
            visit(name, ())

    # --- regions and links -------------------------------------------------------------------------------------------

    def region(self, region: str, given: Any, groups: Mapping[str, Group]) -> tuple[str, ...]:
        """What is placed there: groups stay groups, since nodes may be added to them later."""
        key = f"regions.{region}"
        if not GROUP_NAME.fullmatch(region):
            raise self.error(key, region, "a letter, then letters, digits, '_' and '-'")
        try:
            words = text_list(given)
        except ValueError as error:
            raise self.error(key, given, "a list of nodes or groups") from error
        placed: list[str] = []
        for word in words:
            target = target_of(word, groups)
            if target is None:
                raise self.error(key, word, f"a node of, or {_one_of(groups)}{_meant(word, groups)}")
            self.check_index(key, word, target, groups)
            placed.append(target[0] if target[1] is None else groups[target[0]].node_names()[target[1]])
        return tuple(placed)

    def check_regions(self, regions: Mapping[str, tuple[str, ...]], groups: Mapping[str, Group]) -> None:
        placed: dict[str, str] = {}
        for region, names in regions.items():
            for node in nodes_of(names, groups):
                if node in placed:
                    raise self.error(f"regions.{region}", node, f"each node once; it is in {placed[node]} already")
                placed[node] = region

    def link(self, index: int, table: dict[str, Any], regions: Mapping[str, tuple[str, ...]]) -> Link:
        values = self.read(table, LINK_KEYS, f"links[{index}].")
        for needed in ("between", "latency_ms"):
            if needed not in values:
                raise self.error(f"links[{index}].{needed}", Words("nothing"), LINK_KEYS[needed].allowed)
        for region in values["between"]:
            if region not in regions:
                allowed = f"{_one_of(regions)}{_meant(region, regions)}" if regions else "names of [regions]"
                raise self.error(f"links[{index}].between", region, allowed)
        return Link(**values)


# --- Small things others use too -------------------------------------------------------------------------------------


def words_of(given: Any) -> list[str]:
    """The words of an address option: a list, or a text with commas."""
    texts = given if isinstance(given, list) else [given]
    return [word.strip() for text in texts for word in str(text).split(",") if word.strip()]


def weighted(word: str) -> tuple[str, str]:
    """`web=2` → ("web", "=2"), `web` → ("web", ""): a balancer's upstreams may have weights."""
    name, sign, weight = word.partition("=")
    return name, sign + weight


def target_of(word: str, groups: Iterable[str]) -> tuple[str, int | None] | None:
    """What a word names: (group, None), or (group, index of a node) for `store-1` and `store[0]`; None for neither."""
    known = list(groups)
    if word in known:
        return word, None
    for pattern, first in ((NODE_NAME, 1), (NODE_INDEX, 0)):
        match = pattern.fullmatch(word)
        if match and match[1] in known:
            return match[1], int(match[2]) - first
    return None


def nodes_of(names: Iterable[str], groups: Mapping[str, Group]) -> tuple[str, ...]:
    """The nodes that names of groups and nodes stand for."""
    return tuple(node for name in names for node in (groups[name].node_names() if name in groups else [name]))


def options_and_aliases(config_type: type[Config]) -> list[str]:
    """Every key by which a TOML table may call an option of this Config."""
    names = []
    for option in options_of(config_type).values():
        names += [option.name, option.name.replace("_", "-"), *option.aliases]
    return names


def env_prefix(group: str) -> str:
    """`my-cache` → `MY_CACHE`, the start of its variables in `minidist env`."""
    return group.upper().replace("-", "_")


def _map_texts(given: Any, change: Callable[[str], str]) -> Any:
    if isinstance(given, str):
        return change(given)
    return [_map_texts(each, change) for each in given] if isinstance(given, list) else given


class Words:
    """A description shown without quotes, in the place of a given value."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _as_key(text: str, prefix: str) -> str:
    """Options as the file calls them: `--tls-cert` → `groups.cache.tls_cert`."""
    return re.sub(r"--([a-z][a-z-]*)", lambda option: prefix + option[1].replace("-", "_"), text)


def _shown(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 100 else text[:97] + "…"


def _one_of(names: Collection[str]) -> str:
    return "one of " + ", ".join(names) if names else "nothing: there is no other"


def _meant(given: str, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(given, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
