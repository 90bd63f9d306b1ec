"""The keys of the topology file, each described once: how its value is read, what is allowed, what it is for.

The checks of topology.py, its error texts and the JSON Schema all come from these tables. A reader raises ValueError or
TypeError for what it cannot take.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from minidist.runtime.config import Address

MAX_REPLICAS = 256  # a laptop's processes; also keeps a typing slip from starting thousands
MAX_DELAY_MS = 600_000

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
GROUP_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
ENTRY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table: how its value is read (ValueError when it cannot be), and what is allowed, in words.

    `schema` is the JSON Schema of the value. `of` says which kind of group may have it: "program", "component", "any".
    """

    read: Callable[[Any], Any]
    allowed: str
    schema: Mapping[str, Any]
    summary: str
    of: str = "any"


def _text(pattern: re.Pattern[str] | None = None) -> Callable[[Any], str]:
    def read(given: Any) -> str:
        if not isinstance(given, str) or (pattern and not pattern.fullmatch(given)):
            raise ValueError
        return given

    return read


def text_list(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ValueError
    return tuple(given)


def _command(given: Any) -> tuple[str, ...]:
    words = text_list(given)
    if not words or not words[0]:
        raise ValueError
    return words


def _replicas(given: Any) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= MAX_REPLICAS:
        raise ValueError
    return given


def _env(given: Any) -> dict[str, str]:
    if not isinstance(given, dict):
        raise TypeError
    for name, value in given.items():
        if not ENV_NAME.fullmatch(name) or not isinstance(value, str | int | float) or isinstance(value, bool):
            raise ValueError
    return {name: str(value) for name, value in given.items()}


def _ready(given: Any) -> str:
    if not isinstance(given, str):
        raise TypeError
    if given.startswith("log:") and len(given) > 4:
        re.compile(given[4:])  # re.error is reported like a ValueError
    elif given != "tcp" and not given.startswith("http:/"):
        raise ValueError
    return given


def _tcp_address(given: Any) -> Address:
    if not isinstance(given, str):
        raise TypeError
    address = Address.parse(given)
    if address.path:
        raise ValueError
    return address


def _restart(given: Any) -> bool:
    if given not in ("always", "no"):
        raise ValueError
    return bool(given == "always")


def _delay_ms(given: Any) -> float:
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0 <= given <= MAX_DELAY_MS:
        raise ValueError
    return float(given)


def _pair(given: Any) -> tuple[str, str]:
    names = text_list(given)
    if len(names) != 2 or names[0] == names[1]:
        raise ValueError
    return names[0], names[1]


def _table(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise TypeError
    return given


def _tables(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise ValueError
    return given


_STRINGS = {"type": "array", "items": {"type": "string"}}
_ADDRESS = {"type": "string", "pattern": ".+:[0-9]{1,5}"}

TOP_KEYS = {
    "name": Key(
        _text(NAME),
        "letters, digits, '.', '_' and '-', at most 64",
        {"type": "string", "pattern": f"^{NAME.pattern}$"},
        "The cluster's name; by default that of the file's directory.",
    ),
    "groups": Key(_table, "tables [groups.NAME]", {"type": "object"}, "The groups of nodes, by name."),
    "regions": Key(
        _table,
        "NAME = [nodes or groups]",
        {"type": "object", "additionalProperties": _STRINGS},
        "Where nodes are placed: region = [nodes or groups].",
    ),
    "links": Key(_tables, "tables [[links]]", {"type": "array"}, "What lies between two regions."),
}

GROUP_KEYS = {
    "component": Key(
        _text(), "the name of a component", {"type": "string"}, "Which of minidist's daemons.", "component"
    ),
    "command": Key(
        _command,
        'a list of words, such as ["python", "app.py"]',
        {**_STRINGS, "minItems": 1},
        "The user's own program; it serves on $PORT.",
        "program",
    ),
    "entry": Key(
        _text(ENTRY),
        "package.module:function",
        {"type": "string", "pattern": f"^{ENTRY.pattern}$"},
        "The same program as a coroutine function `async def main(env)`.",
        "program",
    ),
    "replicas": Key(
        _replicas,
        f"a whole number from 1 to {MAX_REPLICAS}",
        {"type": "integer", "minimum": 1, "maximum": MAX_REPLICAS},
        "How many nodes: GROUP-1 … GROUP-N.",
    ),
    "env": Key(
        _env,
        "a table of variables and texts or numbers",
        {"type": "object", "additionalProperties": {"type": ["string", "number"]}},
        "Environment variables; references such as {cache.url} are filled in.",
    ),
    "ready": Key(
        _ready,
        '"tcp", "http:/path" or "log:REGEX"',
        {"type": "string", "pattern": "^(tcp$|http:/|log:.)"},
        "When a node of the user's own program is ready.",
        "program",
    ),
    "listen": Key(
        _tcp_address,
        "HOST:PORT",
        _ADDRESS,
        "A fixed address (one node only), or HOST:0; by default a free port of 127.0.0.1.",
    ),
    "admin": Key(
        _tcp_address,
        "HOST:PORT",
        _ADDRESS,
        "A fixed admin address (one node only); by default a free port.",
        "component",
    ),
    "after": Key(text_list, "a list of group names", _STRINGS, "Groups that must be ready first."),
    "restart": Key(
        _restart,
        '"always" or "no"',
        {"enum": ["always", "no"]},
        "Whether a node that ended by itself or was killed is started again.",
    ),
}

LINK_KEYS = {
    "between": Key(_pair, "two different regions", {**_STRINGS, "minItems": 2, "maxItems": 2}, "The two regions."),
    "latency_ms": Key(
        _delay_ms,
        f"a number from 0 to {MAX_DELAY_MS}",
        {"type": "number", "minimum": 0, "maximum": MAX_DELAY_MS},
        "Delay in each direction.",
    ),
    "jitter_ms": Key(
        _delay_ms,
        f"a number from 0 to {MAX_DELAY_MS}",
        {"type": "number", "minimum": 0, "maximum": MAX_DELAY_MS},
        "How much the delay varies.",
    ),
}
