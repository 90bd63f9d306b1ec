"""Configuration: one frozen dataclass per component, from which everything else derives.

A component describes each option once, as a dataclass field made by `option()`: its type, default, help, the reason for
the number, which clock a duration runs on, its aliases, whether it can change at run time. From that description come
the command-line flags, the environment variables, the keys of the TOML file, `--help`, the reference page and the
checks of `CONFIG SET`. Nothing about an option is written down twice.

Where a value comes from, strongest first: flag, environment (`MINIDIST_CACHE_MAX_MEMORY`), file (`max_memory`),
default. Wherever it comes from it is text (or a TOML value) that passes the same parser, and a value that cannot be
read raises `ConfigError`, which names the option as the user wrote it, what was given and what is allowed.

The types of values (addresses, sizes, durations) are in units.py.
"""

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from minidist.runtime.units import (
    FALSE_WORDS,
    KINDS,
    TRUE_WORDS,
    Address,
    Duration,
    Kind,
    Size,
    parse_duration,
    parse_shift,
    parse_size,
    show_duration,
    show_size,
)

__all__ = [
    "KINDS", "Address", "ClusterConfig", "Config", "ConfigError", "Duration", "Kind", "Option", "Size", "WorkersConfig",
    "from_table", "help_text", "kind_of", "load", "option", "options_of", "parse_duration", "parse_shift", "parse_size",
    "reference", "show_duration", "show_size",
]  # fmt: skip

C = TypeVar("C", bound="Config")


class ConfigError(Exception):
    """An option that cannot be taken: which, what was given, what is allowed. Ends a program with exit code 2."""

    def __init__(self, option: str, given: object, allowed: str) -> None:
        super().__init__(f"{option}: given {given!r}, allowed: {allowed}")
        self.option = option
        self.given = given
        self.allowed = allowed


def kind_of(annotation: Any) -> tuple[Kind, bool, bool]:
    """The kind of a field's type, whether it is a list (`tuple[X, ...]`), and whether None is a value (`X | None`)."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return (*kind_of(inner)[:2], True)
    if origin is tuple:
        return kind_of(arguments[0])[0], True, False
    if origin is Literal:
        words = tuple(str(argument) for argument in arguments)
        return (
            Kind("|".join(words), "one of " + ", ".join(words), functools.partial(_parse_choice, words)),
            False,
            False,
        )
    return KINDS[annotation], False, False


def _parse_choice(words: tuple[str, ...], text: str) -> str:
    if text not in words:
        raise ValueError(text)
    return text


# --- Options: the description of one field --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """What is known about one option. `clock` names the clock a duration runs on: "loop" or "service" time."""

    summary: str
    why: str = ""
    clock: Literal["", "loop", "service"] = ""
    aliases: tuple[str, ...] = ()
    live: bool = False
    minimum: int | float | None = None
    maximum: int | float | None = None
    secret: bool = False
    # Filled in by options_of():
    name: str = ""
    kind: Kind = KINDS[str]
    is_list: bool = False
    optional: bool = False
    default: Any = None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def flags(self) -> list[str]:
        """As it may be written on a command line: its name, and its aliases."""
        return list(dict.fromkeys([self.flag, *("--" + alias for alias in self.aliases)]))

    @property
    def allowed(self) -> str:
        limits = [f"at least {self.minimum}"] * (self.minimum is not None)
        limits += [f"at most {self.maximum}"] * (self.maximum is not None)
        return ", ".join([self.kind.allowed + (", comma-separated" if self.is_list else ""), *limits])

    def read(self, given: Any, named: str) -> Any:
        """The value of a text, or of a TOML value. Raises ConfigError naming the option as `named`."""
        shown = "***" if self.secret else given
        try:
            value = self._parse(given)
        except (ValueError, TypeError) as error:
            raise ConfigError(named, shown, self.allowed) from error
        for each in value if self.is_list else (value,):
            too_small = each is not None and self.minimum is not None and each < self.minimum
            if too_small or (each is not None and self.maximum is not None and each > self.maximum):
                raise ConfigError(named, shown, self.allowed)
        return value

    def _parse(self, given: Any) -> Any:
        if self.is_list:
            # A comma separates wherever the list comes from, so that a list can be shown as text and read again.
            given = given if isinstance(given, list | tuple) else (given,)
            parts = [part.strip() for each in given for part in _text(each, self.kind).split(",")]
            return tuple(self.kind.parse(part) for part in parts if part)
        text = _text(given, self.kind)
        return None if self.optional and text == "" else self.kind.parse(text)

    def show(self, value: Any) -> str:
        if value is None:
            return ""
        return ",".join(self.kind.show(each) for each in value) if self.is_list else self.kind.show(value)


def _text(given: Any, kind: Kind) -> str:
    """A TOML value as text. Raises TypeError for a type that the option does not have."""
    if isinstance(given, str):
        return given
    if not isinstance(given, bool | int | float) or isinstance(given, bool) != (kind is KINDS[bool]):
        raise TypeError
    return str(given)


def option(default: Any, summary: str, **description: Any) -> Any:
    """A field of a Config: `max_memory: Size = option(Size(0), "…", aliases=("maxmemory",), live=True)`. See Option."""
    return field(default=default, metadata={"option": Option(summary=summary, **description)})


CONFIG_FILE = Option(
    "A TOML file of options; flags and environment beat it.", name="config", kind=Kind("FILE", "a file", str)
)

_options_of: "dict[type[Config], dict[str, Option]]" = {}


def options_of(config_type: "type[Config]") -> dict[str, Option]:
    """Every option of a Config type by name, in the order of declaration (the common ones first)."""
    if config_type in _options_of:
        return _options_of[config_type]
    hints = typing.get_type_hints(config_type)
    options = {}
    for each in dataclasses.fields(config_type):
        kind, is_list, optional = kind_of(hints[each.name])
        options[each.name] = dataclasses.replace(
            each.metadata["option"], name=each.name, kind=kind, is_list=is_list, optional=optional, default=each.default
        )
    _options_of[config_type] = options
    return options


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options that every daemon has. A component's Config inherits from it and overrides `listen`'s default."""

    component: ClassVar[str] = ""
    # Components whose port is safe to show to anyone (proxy, balancer, authoritative dns) set this.
    may_listen_anywhere: ClassVar[bool] = False

    listen: Address = option(Address("127.0.0.1", 0), "Where clients connect; port 0 takes any free one.")
    admin: Address = option(Address("127.0.0.1", 0), "The admin port (HTTP): status, metrics, faults, clock.")
    admin_token_file: str = option("", "File with the token that the admin port asks for; needed off loopback.")
    auth_file: str = option("", "File of `user:password` lines; `default:password` is for clients without a user.")
    data_dir: str = option(
        "", "An existing directory for data. Without it: a temporary one that goes with the process."
    )
    name: str = option("", "The node's name in logs, events and clusters; by default COMPONENT-1.")
    log_level: Literal["debug", "info", "warning", "error"] = option("info", "The least serious log line written.")
    log_format: Literal["text", "json"] = option("text", "Log lines for people or for machines, on stderr.")
    seed: int | None = option(None, "Seeds every random choice; by default drawn at start and logged.")
    tls_cert: str = option("", "PEM file with the certificate chain; with --tls-key the listener speaks TLS.")
    tls_key: str = option("", "PEM file with the certificate's private key.")
    tls_ca: str = option("", "PEM file with the authorities clients' certificates must come from (mutual TLS).")
    insecure: bool = option(False, "Allow a listen address off loopback without authentication or TLS.")
    drain_timeout: Duration = option(
        Duration(5000), "How long a stop waits for work under way.", clock="loop", why="long enough for a slow request"
    )
    reuse_port: bool = option(False, "Listen with SO_REUSEPORT, beside a process that holds the port reserved.")
    die_with_parent: bool = option(False, "End when the process that started this one ends.")
    max_clients: int = option(
        10_000, "Connections taken at once on each listener.", aliases=("maxclients",), live=True, minimum=1,
        why="Redis' default; bounds descriptors and memory",
    )  # fmt: skip
    idle_timeout: Duration = option(
        Duration(0), "Close a client silent for so long; 0 never does.", clock="loop", aliases=("timeout",), live=True
    )
    client_buffer: Size = option(
        Size(64 * 1024**2), "Most bytes waiting for one client that does not read; beyond it the client is cut off.",
        live=True, minimum=65_536, why="many large replies, far from the memory of a laptop",
    )  # fmt: skip

    def validate(self) -> None:
        """Rules between options; raises ConfigError. Overriders call super()."""
        if self.name and not re.fullmatch(r"[\w.-]{1,128}", self.name, re.A):
            raise ConfigError("--name", self.name, "letters, digits, `-`, `_` and `.`")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("--tls-cert/--tls-key", self.tls_cert or self.tls_key, "both or neither")
        if self.tls_ca and not self.tls_cert:
            raise ConfigError("--tls-ca", self.tls_ca, "only with --tls-cert and --tls-key")
        if not self.admin.is_loopback and not self.admin_token_file:
            raise ConfigError("--admin", str(self.admin), "a loopback address, or any with --admin-token-file")
        self.refuse_exposed("listen")

    def refuse_exposed(self, name: str) -> None:
        """Raises ConfigError when the listen address in this option is off loopback and nothing guards it."""
        address: Address | None = getattr(self, name)
        guarded = self.may_listen_anywhere or self.insecure or self.auth_file or self.tls_cert
        if address is not None and not address.is_loopback and not guarded:
            raise ConfigError(
                options_of(type(self))[name].flag,
                str(address),
                "a loopback address, or any with --auth-file, --tls-cert or --insecure",
            )

    @property
    def node_name(self) -> str:
        return self.name or f"{self.component}-1"

    def changed(self: C, **texts: str) -> C:
        """A copy with some live options set from text, all or none. Raises ConfigError; the original stays."""
        options = options_of(type(self))
        for name in texts:
            if name not in options or not options[name].live:
                live = ", ".join(each.name for each in options.values() if each.live)
                raise ConfigError(name, texts[name], f"what can change at run time: {live}")
        copy = dataclasses.replace(self, **{name: options[name].read(text, name) for name, text in texts.items()})
        copy.validate()
        return copy

    def shown(self) -> dict[str, str]:
        """Every option's value as text, secrets starred: what `GET /config` answers."""
        return {
            name: "***" if each.secret and getattr(self, name) else each.show(getattr(self, name))
            for name, each in options_of(type(self)).items()
        }


@dataclass(frozen=True, kw_only=True)
class WorkersConfig(Config):
    """Added by the components that can run as several processes (balancer, proxy, dns)."""

    workers: int = option(1, "Processes that share the listen port.", minimum=1, maximum=64, why="one per core")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig(Config):
    """Added by the components whose nodes form a cluster (kv, broker, shard, pubsub)."""

    peer_listen: Address = option(Address("127.0.0.1", 0), "Where the other nodes of the cluster connect.")
    peers: tuple[str, ...] = option((), "All members as NAME=HOST:PORT, this node included; the same on every node.")
    cluster_id: str = option("", "Nodes of another cluster id are refused.")
    cluster_secret_file: str = option("", "File with the secret nodes prove to each other; or MINIDIST_CLUSTER_SECRET.")


# --- Sources: flags, environment, file ------------------------------------------------------------------------------


def load(config_type: type[C], argv: Sequence[str], environ: Mapping[str, str]) -> C:
    """The Config of a daemon from its command line (without program and component name) and environment.

    `--help` prints and raises SystemExit(0). Raises ConfigError for anything that cannot be taken.
    """
    options = options_of(config_type)
    flags = _from_flags(config_type, argv)
    path = flags.pop("config", "")
    values = _from_file(options, path) if path else {}
    values |= _from_environment(options, config_type.component, environ)
    values |= flags
    config = config_type(**values)
    config.validate()
    return config


def _from_flags(config_type: type[Config], argv: Sequence[str]) -> dict[str, Any]:
    """`--name VALUE` or `--name=VALUE`; yes-or-no options need no value; lists may be repeated; else the last wins."""
    options = options_of(config_type)
    by_flag = {flag: each for each in options.values() for flag in each.flags}
    by_flag["--config"] = CONFIG_FILE
    texts: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if word in ("-h", "--help"):
            print(help_text(config_type), end="")  # noqa: T201
            raise SystemExit(0)
        flag, equals, text = word.partition("=")
        each = by_flag.get(flag)
        if each is None:
            raise ConfigError(
                flag, text, f"the options of minidist {config_type.component} --help{_near(flag, by_flag)}"
            )
        if not equals:
            if each.kind is KINDS[bool]:
                text = words.pop(0) if words and words[0].lower() in TRUE_WORDS + FALSE_WORDS else "yes"
            elif words and not words[0].startswith("--"):
                text = words.pop(0)
            else:
                raise ConfigError(flag, "", each.allowed)
        texts.setdefault(each.name, []).append(text)
        values[each.name] = each.read(texts[each.name] if each.is_list else text, flag)
    return values


def _near(given: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(given, list(known), n=1)
    return f"; is {near[0]} meant?" if near else ""


def help_text(config_type: type[Config]) -> str:
    """What `minidist COMPONENT --help` prints."""
    lines = [f"usage: minidist {config_type.component} [--OPTION VALUE …]", ""]
    for each in (CONFIG_FILE, *options_of(config_type).values()):
        lines.append(f"  {', '.join(each.flags)} {each.kind.metavar}")
        default = each.show(each.default)
        lines.append(f"      {each.summary}" + (f" Default: {default}." if default else ""))
    prefix = f"MINIDIST_{config_type.component.upper()}_"
    lines += ["", f"Options are also read from the environment ({prefix}MAX_CLIENTS=100) and from --config FILE."]
    return "\n".join(lines) + "\n"


def from_table(config_type: type[C], table: Mapping[str, Any], named: str = "") -> C:
    """A Config from a TOML table (a config file, or a group of a topology); `named` prefixes the keys in errors."""
    config = config_type(**_from_table(options_of(config_type), table, named))
    config.validate()
    return config


def _from_table(options: dict[str, Option], table: Mapping[str, Any], named: str) -> dict[str, Any]:
    by_alias = {alias: each.name for each in options.values() for alias in each.aliases}
    values = {}
    for key, given in table.items():
        name = by_alias.get(key, key.replace("-", "_"))
        if name not in options:
            raise ConfigError(named + key, given, "one of " + ", ".join(options) + _near(key, options))
        if name in values:
            raise ConfigError(named + key, given, f"{name} once")
        values[name] = options[name].read(given, named + key)
    return values


def _from_file(options: dict[str, Option], path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("--config", path, f"a readable TOML file ({error})") from error
    return _from_table(options, table, f"{path}: ")


def _from_environment(options: dict[str, Option], component: str, environ: Mapping[str, str]) -> dict[str, Any]:
    prefix = f"MINIDIST_{component.upper()}_"
    values = {}
    for variable in sorted(environ):
        if variable.startswith(prefix):
            name = variable[len(prefix) :].lower()
            if name not in options:
                allowed = f"{prefix}… of " + ", ".join(options) + _near(name, options)
                raise ConfigError(variable, environ[variable], allowed)
            values[name] = options[name].read(environ[variable], variable)
    return values


def reference(config_type: type[Config]) -> str:
    """The options as a Markdown table, for the component's README and the reference page."""
    rows = ["| option | default | allowed | what it does |", "|---|---|---|---|"]
    for each in options_of(config_type).values():
        notes = [each.summary]
        notes += [f"Why: {each.why}."] * bool(each.why)
        notes += [f"Runs on {each.clock} time."] * bool(each.clock)
        notes += ["Also " + ", ".join(f"`{alias}`" for alias in each.aliases) + "."] * bool(each.aliases)
        notes += ["Can change at run time."] * each.live
        cells = (f"`{each.flag}`", each.show(each.default) or "–", each.allowed, " ".join(notes))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"
