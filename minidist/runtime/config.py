"""Configuration: one frozen dataclass per component, from which everything else derives.

A component describes each option once, as a dataclass field made by `option()`: its type, default, help, the reason for
the number, which clock a duration runs on, its aliases, whether it can change at run time. From that description come
the command-line flags, the environment variables, the keys of the TOML file, `--help`, the reference page and the
checks of `CONFIG SET`. Nothing about an option is written down twice.

Where a value comes from, strongest first: flag, environment (`MINIDIST_CACHE_MAX_MEMORY`), file (`max_memory`),
default. Wherever it comes from it is text (or a TOML value) that passes the same parser, and a value that cannot be
read raises `ConfigError`, which names the option as the user wrote it, what was given and what is allowed.

Sizes are typed text in Redis' units: `64mb` = 64 × 1024², `64m` = 64 × 1000², a bare number is bytes. Durations need a
unit (`1500ms`, `30s`, `2h`), except `0`.
"""

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NewType, TypeVar

Size = NewType("Size", int)
"""Bytes."""

Duration = NewType("Duration", int)
"""Milliseconds."""

C = TypeVar("C", bound="Config")


class ConfigError(Exception):
    """An option that cannot be taken: which, what was given, what is allowed. Ends a program with exit code 2."""

    def __init__(self, option: str, given: object, allowed: str) -> None:
        super().__init__(f"{option}: given {given!r}, allowed: {allowed}")
        self.option = option
        self.given = given
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Address:
    """A place to listen or dial: `HOST:PORT`, `[V6]:PORT`, or `unix:/path` (then `path` is set and port is 0)."""

    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Raises ValueError when the text is no address."""
        if text.startswith("unix:"):
            if len(text) == 5:
                raise ValueError("a Unix socket needs a path")
            return cls("", 0, text[5:])
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError("an IPv6 address is written [ADDRESS]:PORT")
        if not colon or not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
            raise ValueError("not HOST:PORT")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        return bool(self.path) or self.host in ("localhost", "::1") or self.host.startswith("127.")

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# --- Kinds: how the text of an option becomes a value, by the type of its field -------------------------------------

SIZE_UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3}
DURATION_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
TRUE_WORDS = ("true", "yes", "on", "1")
FALSE_WORDS = ("false", "no", "off", "0")


def parse_size(text: str) -> Size:
    """`64mb` → 67108864. Raises ValueError."""
    match = re.fullmatch(r"([0-9]+)\s*([a-z]*)", text.strip().lower())
    if not match or match[2] not in SIZE_UNITS:
        raise ValueError(text)
    return Size(int(match[1]) * SIZE_UNITS[match[2]])


def parse_duration(text: str) -> Duration:
    """`1500ms`, `30s`, `1.5h`, `0` → milliseconds. Raises ValueError."""
    text = text.strip().lower()
    if text == "0":
        return Duration(0)
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)", text)
    if not match or match[2] not in DURATION_UNITS_MS:
        raise ValueError(text)
    return Duration(round(float(match[1]) * DURATION_UNITS_MS[match[2]]))


def show_size(size: int) -> str:
    for unit in ("gb", "mb", "kb"):
        if size and size % SIZE_UNITS[unit] == 0:
            return f"{size // SIZE_UNITS[unit]}{unit}"
    return str(size)


def show_duration(duration_ms: int) -> str:
    for unit in ("h", "s"):
        if duration_ms and duration_ms % DURATION_UNITS_MS[unit] == 0:
            return f"{duration_ms // DURATION_UNITS_MS[unit]}{unit}"
    return f"{duration_ms}ms" if duration_ms else "0"


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError(text)


@dataclass(frozen=True, slots=True)
class Kind:
    """How one type of option is read (text → value, ValueError when it cannot be), shown, and named in help."""

    metavar: str
    allowed: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str


KINDS: dict[Any, Kind] = {
    str: Kind("TEXT", "text", str),
    int: Kind("N", "a whole number", int),
    float: Kind("X", "a number", float),
    bool: Kind("yes|no", "yes or no", _parse_bool, lambda value: "yes" if value else "no"),
    Size: Kind("SIZE", "a size such as 64mb (b, k, kb, m, mb, g, gb)", parse_size, show_size),
    Duration: Kind("DURATION", "a duration such as 1500ms, 30s, 2h", parse_duration, show_duration),
    Address: Kind("HOST:PORT", "HOST:PORT, [IPV6]:PORT or unix:/path", Address.parse),
}


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
    def allowed(self) -> str:
        limits = [f"at least {self.minimum}"] * (self.minimum is not None)
        limits += [f"at most {self.maximum}"] * (self.maximum is not None)
        return ", ".join([self.kind.allowed + (", comma-separated" if self.is_list else ""), *limits])

    def read(self, given: Any, named: str) -> Any:
        """The value of a text, or of a TOML value. Raises ConfigError naming the option as `named`."""
        try:
            value = self._parse(given)
        except (ValueError, TypeError) as error:
            raise ConfigError(named, given, self.allowed) from error
        for each in value if self.is_list else (value,):
            if (self.minimum is not None and each < self.minimum) or (self.maximum is not None and each > self.maximum):
                raise ConfigError(named, given, self.allowed)
        return value

    def _parse(self, given: Any) -> Any:
        if self.is_list:
            parts = given.split(",") if isinstance(given, str) else given
            if not isinstance(parts, list | tuple):
                raise TypeError
            return tuple(self.kind.parse(str(part).strip()) for part in parts if str(part).strip())
        if isinstance(given, str):
            return None if self.optional and given == "" else self.kind.parse(given)
        if isinstance(given, bool) != (self.kind is KINDS[bool]) or not isinstance(given, bool | int | float):
            raise TypeError
        return self.kind.parse(str(given))

    def show(self, value: Any) -> str:
        if value is None:
            return ""
        return ",".join(self.kind.show(each) for each in value) if self.is_list else self.kind.show(value)


def option(default: Any, summary: str, **description: Any) -> Any:
    """A field of a Config: `max_memory: Size = option(Size(0), "…", aliases=("maxmemory",), live=True)`. See Option."""
    return field(default=default, metadata={"option": Option(summary=summary, **description)})


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
    data_dir: str = option("", "Where data is kept. Without it: a temporary directory that goes with the process.")
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
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("--tls-cert/--tls-key", self.tls_cert or self.tls_key, "both or neither")
        if self.admin.path == "" and not self.admin.is_loopback and not self.admin_token_file:
            raise ConfigError("--admin", str(self.admin), "a loopback address, or any with --admin-token-file")
        guarded = self.may_listen_anywhere or self.insecure or self.auth_file or self.tls_ca or self.tls_cert
        if not self.listen.is_loopback and not guarded:
            raise ConfigError(
                "--listen", str(self.listen), "a loopback address, or any with --auth-file, --tls-cert or --insecure"
            )

    @property
    def node_name(self) -> str:
        return self.name or f"{self.component}-1"

    def changed(self: C, **texts: str) -> C:
        """A copy with some options set from text, as CONFIG SET does. Raises ConfigError; the original stays."""
        options = options_of(type(self))
        values = {name: options[name].read(text, name) for name, text in texts.items()}
        copy = dataclasses.replace(self, **values)
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
    flags = vars(_parser(config_type).parse_args(argv))
    path = flags.pop("config")
    values: dict[str, Any] = {}
    if path:
        values |= _from_file(options, path)
    values |= _from_environment(options, config_type.component, environ)
    for name, given in flags.items():
        if given is not None:
            values[name] = options[name].read(given, options[name].flag)
    config = config_type(**values)
    config.validate()
    return config


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
            raise ConfigError(named + key, given, "one of " + ", ".join(options))
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
                raise ConfigError(variable, environ[variable], f"{prefix}… of " + ", ".join(options))
            values[name] = options[name].read(environ[variable], variable)
    return values


def _parser(config_type: type[Config]) -> Any:
    import argparse

    program = f"minidist {config_type.component}"

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> typing.NoReturn:
            raise ConfigError(program, message.removeprefix("unrecognized arguments: "), f"see {program} --help")

    parser = Parser(prog=program, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="A TOML file of options; flags and environment beat it.")
    for each in options_of(config_type).values():
        names = [each.flag, *("--" + alias for alias in each.aliases)]
        text = (each.summary + (f" Default: {each.show(each.default)}." if each.show(each.default) else "")).replace(
            "%", "%%"
        )
        shape: dict[str, Any] = {"nargs": "?", "const": "yes"} if each.kind is KINDS[bool] else {}
        if each.is_list:
            shape = {"action": "append"}
        parser.add_argument(*names, dest=each.name, metavar=each.kind.metavar, help=text, **shape)
    return parser


def reference(config_type: type[Config]) -> str:
    """The options as a Markdown table, for the component's README and the reference page."""
    rows = ["| option | default | allowed | what it does |", "|---|---|---|---|"]
    for each in options_of(config_type).values():
        notes = [each.summary]
        notes += [f"Why: {each.why}."] * bool(each.why)
        notes += [f"Runs on {each.clock} time."] * bool(each.clock)
        notes += ["Also " + ", ".join(f"`{alias}`" for alias in each.aliases) + "."] * bool(each.aliases)
        notes += ["Can change at run time."] * each.live
        allowed = each.allowed.replace("|", "\\|")
        rows.append(f"| `{each.flag}` | {each.show(each.default) or '–'} | {allowed} | {' '.join(notes)} |")
    return "\n".join(rows) + "\n"
