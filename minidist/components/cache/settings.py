"""CONFIG GET and CONFIG SET: the options that Redis knows, under its names and in its units.

The names are the aliases of the options (config.py), so nothing is listed twice: sizes are plain bytes, durations whole
seconds. `requirepass` is the default user's password. A few settings that clients look for are answered as they are
here, and cannot be changed. The sizes at which Redis changes a value's encoding are kept and shown, since programs set
them as a matter of course, and mean nothing: values are not stored in those ways.
"""

import dataclasses
from collections.abc import Callable

from minidist.components.cache.config import CacheConfig
from minidist.components.cache.limits import parse_limits, show_limits
from minidist.engines.keyspace.errors import CommandError
from minidist.engines.keyspace.events import parse_events, show_events
from minidist.engines.keyspace.users import Users
from minidist.runtime.config import KINDS, Address, ConfigError, Duration, Option, Size, options_of
from minidist.wire.resp_plain import strict_integer

FIXED = {"appendonly": "no", "save": "", "maxmemory-samples": "64", "hz": "10"}
FIXED |= {"acllog-max-len": "128", "acl-pubsub-default": "resetchannels"}

# With the defaults of Redis 7.2 (redis.conf).
KEPT = {
    "hash-max-listpack-entries": "512",
    "hash-max-listpack-value": "64",
    "hll-sparse-max-bytes": "3000",
    "list-compress-depth": "0",
    "list-max-listpack-size": "-2",
    "set-max-intset-entries": "512",
    "set-max-listpack-entries": "128",
    "set-max-listpack-value": "64",
    "stream-node-max-bytes": "4096",
    "stream-node-max-entries": "100",
    "zset-max-listpack-entries": "128",
    "zset-max-listpack-value": "64",
}
# What some of them were called before Redis 7.
OLD_NAMES = {name.replace("listpack", "ziplist"): name for name in KEPT if "listpack" in name and name[:4] != "set-"}

OPTIONS = {alias: each for each in options_of(CacheConfig).values() for alias in each.aliases}


class CacheSettings:
    """Implements engines.keyspace.settings.Settings over a node's Config.

    `config` reads the node's options, `apply` gives it changed ones, `address` says where it listens.
    """

    def __init__(
        self,
        config: Callable[[], CacheConfig],
        apply: Callable[[CacheConfig], None],
        address: Callable[[], Address],
        users: Users,
    ) -> None:
        self._config = config
        self._apply = apply
        self._address = address
        self.users = users
        self._kept = dict(KEPT)

    def values(self) -> dict[str, str]:
        config, address = self._config(), self._address()
        shown = {name: shown_value(each, getattr(config, each.name)) for name, each in OPTIONS.items()}
        shown |= {"bind": address.host, "port": str(address.port), "unixsocket": address.path}
        shown["requirepass"] = self.users.requirepass.decode("utf-8", "surrogateescape")
        shown |= self._kept | {old: self._kept[name] for old, name in OLD_NAMES.items()}
        return dict(sorted((shown | FIXED).items()))

    def change(self, values: dict[str, str]) -> None:
        """All of them or none. Raises CommandError in Redis' words."""
        config = self._config()
        known = self.values()
        kept = dict(self._kept)
        for name, text in values.items():
            if name not in known:
                raise CommandError(f"ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
            if name in OPTIONS:
                config = changed_config(config, name, text)
            elif (new_name := OLD_NAMES.get(name, name)) in KEPT:
                kept[new_name] = kept_number(name, text)
            elif name != "requirepass" and text != known[name]:
                raise refusal(name, "can't set immutable config")
        self._kept = kept
        if config is not self._config():
            self._apply(config)
        if "requirepass" in values:
            self.users.require(values["requirepass"].encode("utf-8", "surrogateescape"))


# Options of a form of their own: how they are shown, from the text they are kept as.
WORDED: dict[str, Callable[[str], str]] = {
    "notify": lambda text: show_events(parse_events(text)),
    "output_limits": lambda text: show_limits(parse_limits(text)),
}


def shown_value(option: Option, value: object) -> str:
    """A value as Redis shows it."""
    if option.name in WORDED and isinstance(value, str):
        return WORDED[option.name](value)
    if option.kind is KINDS[Duration] and isinstance(value, int):
        return str(value // 1000)
    return str(value)


def changed_config(config: CacheConfig, name: str, text: str) -> CacheConfig:
    """The options with one of them changed. Raises CommandError."""
    option = OPTIONS[name]
    if not option.live:
        if text == shown_value(option, getattr(config, option.name)):
            return config
        raise refusal(name, "can't set immutable config")
    if option.kind is KINDS[Duration]:
        text += "s"
    if option.name in WORDED:
        if option.name == "output_limits":
            text = f"{config.output_limits} {text}"  # only the classes that are named change
        try:
            text = WORDED[option.name](text)
        except ValueError as problem:
            raise refusal(name, str(problem)) from None
    try:
        return dataclasses.replace(config, **{option.name: option.read(text, name)})
    except ConfigError:
        raise refusal(name, _expected(option, text)) from None


def kept_number(name: str, text: str) -> str:
    if strict_integer(text.encode("utf-8", "surrogateescape")) is None:
        raise refusal(name, "argument couldn't be parsed into an integer")
    return text


def refusal(name: str, why: str) -> CommandError:
    return CommandError(f"ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")


def _expected(option: Option, text: str) -> str:
    if option.kind is KINDS[Size]:
        return "argument must be a memory value"
    if option.allowed.startswith("one of "):
        return "argument(s) must be one of the following: " + option.allowed.removeprefix("one of ")
    if option.kind is KINDS[int] and option.maximum is not None:
        if strict_integer(text.encode()) is None:
            return "argument couldn't be parsed into an integer"
        return f"argument must be between {option.minimum} and {option.maximum} inclusive"
    return f"argument must be {option.allowed}"
