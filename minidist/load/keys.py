"""Which keys a load asks for: the options that say so, and `draw`, which makes what draws a key's number each time.

The patterns are those of structures/patterns.py; the names beside ours are YCSB's. The keys are numbered from 0, and
the popular ones have the lowest numbers: a server that spreads keys by their hash has them all over the place.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping
from typing import Any

from minidist.runtime.config import KINDS, ConfigError, Kind, Option
from minidist.structures import patterns

PATTERNS = ("uniform", "zipf", "hot", "scan")
_ALSO = {"zipfian": "zipf", "hotspot": "hot", "sequential": "scan"}
STEEPEST = 10.0


def _pattern(text: str) -> str:
    name = _ALSO.get(text, text)
    if name not in PATTERNS:
        raise ValueError(text)
    return name


def parse_share(text: str) -> float:
    """`0.9`, `90%` → 0.9. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,15})?)(%?)", text, re.ASCII)
    share = float(match[1]) / (100 if match[2] else 1) if match else 2.0
    if share > 1:
        raise ValueError(text)
    return share


KEYS = Option("Different keys in use.", name="keys", kind=KINDS[int], default=10_000, minimum=1)
KEY_OPTIONS = (
    KEYS,
    Option(
        "Which keys are asked for: all alike, few of them most of the time, --hot-keys, or one after the other.",
        name="key_pattern", kind=Kind("|".join(PATTERNS), "one of " + ", ".join(PATTERNS), _pattern),
        default="uniform",
    ),
    Option(
        "With --key-pattern zipf: the key of rank k is asked for as often as k to the power of minus X.",
        name="zipf_exponent", kind=KINDS[float], default=0.99, minimum=0, maximum=STEEPEST,
    ),
    Option(
        "With --key-pattern hot: so many keys get --hot-share of the requests.",
        name="hot_keys", kind=KINDS[int], default=10, minimum=1,
    ),
    Option(
        "With --key-pattern hot: their share of the requests; the other keys get the rest.",
        name="hot_share", kind=Kind("SHARE", "a share such as 0.9 or 90%", parse_share, "{:.4g}".format), default=0.9,
    ),
)  # fmt: skip
_OF_PATTERN = {"zipf_exponent": "zipf", "hot_keys": "hot", "hot_share": "hot"}


def check(values: Mapping[str, Any], given: Collection[str]) -> None:
    """Whether the options, of which these were given, go together. Raises ConfigError."""
    for name, pattern in _OF_PATTERN.items():
        if name in given and values["key_pattern"] != pattern:
            raise ConfigError("--" + name.replace("_", "-"), values[name], f"with --key-pattern {pattern}")
    if "hot_keys" in given and values["hot_keys"] > values["keys"]:
        raise ConfigError("--hot-keys", values["hot_keys"], f"at most --keys, here {values['keys']}")


def draw(values: Mapping[str, Any], rng: random.Random, share: int, processes: int) -> patterns.Draw:
    """What draws the keys of one process, number `share` of so many. Scans of several begin evenly spread."""
    keys: int = values["keys"]
    if values["key_pattern"] == "zipf":
        return patterns.zipf(rng, keys, values["zipf_exponent"])
    if values["key_pattern"] == "hot":
        return patterns.hot(rng, keys, values["hot_keys"], values["hot_share"])
    if values["key_pattern"] == "scan":
        return patterns.scan(keys, keys * share // processes)
    return patterns.uniform(rng, keys)
