"""The values of options: addresses, sizes, durations, and how each is read from text and shown as text.

Sizes are typed text in Redis' units: `64mb` = 64 × 1024², `64m` = 64 × 1000², a bare number is bytes. Durations need a
unit (`1500ms`, `30s`, `2h`), except `0`. Numbers are plain ASCII digits: no `1_000`, no spaces, no `nan`.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NewType

Size = NewType("Size", int)
"""Bytes."""

Duration = NewType("Duration", int)
"""Milliseconds."""

ADDRESS = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?)\]|(?P<host>[\w.-]+)):(?P<port>[0-9]{1,5})", re.A
)
LOOPBACK_V4 = re.compile(r"127(?:\.[0-9]{1,3}){3}")


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
            if len(text) == 5 or "\0" in text:
                raise ValueError("a Unix socket needs a path")
            return cls("", 0, text[5:])
        match = ADDRESS.fullmatch(text)
        if match is None or int(match["port"]) > 65535:
            raise ValueError("not HOST:PORT")
        return cls(match["v6"] or match["host"], int(match["port"]))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect. A name other than localhost may resolve to anything."""
        return bool(self.path) or self.host.lower() in ("localhost", "::1") or bool(LOOPBACK_V4.fullmatch(self.host))

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# --- Kinds: how the text of an option becomes a value, by the type of its field -------------------------------------

SIZE_UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3}
DURATION_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
TRUE_WORDS = ("true", "yes", "on", "1")
FALSE_WORDS = ("false", "no", "off", "0")
# What fits everywhere a number may go: the kernel, msgpack, an event loop's timers.
LARGEST = 2**63 - 1
LONGEST_MS = 100 * 365 * DURATION_UNITS_MS["d"]


def parse_size(text: str) -> Size:
    """`64mb` → 67108864. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,19}) ?([A-Za-z]*)", text)
    unit = SIZE_UNITS.get(match[2].lower()) if match else None
    if not match or unit is None or int(match[1]) * unit > LARGEST:
        raise ValueError(text)
    return Size(int(match[1]) * unit)


def parse_duration(text: str) -> Duration:
    """`1500ms`, `30s`, `1.5h`, `0` → milliseconds, at most 100 years. Raises ValueError."""
    if text == "0":
        return Duration(0)
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?([A-Za-z]+)", text)
    unit_ms = DURATION_UNITS_MS.get(match[2].lower()) if match else None
    if not match or unit_ms is None:
        raise ValueError(text)
    duration_ms = round(float(match[1]) * unit_ms)
    # 0 often means "never", so what is merely very short must not become it.
    if duration_ms > LONGEST_MS or (duration_ms == 0 and float(match[1]) > 0):
        raise ValueError(text)
    return Duration(duration_ms)


def parse_shift(text: str) -> int:
    """A duration with a sign: `1h`, `+1h`, `-30s` → milliseconds. Raises ValueError."""
    sign, rest = (text[0], text[1:]) if text[:1] in ("+", "-") else ("+", text)
    return -parse_duration(rest) if sign == "-" else parse_duration(rest)


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


def _parse_int(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text) or abs(int(text)) > LARGEST:
        raise ValueError(text)
    return int(text)


def _parse_float(text: str) -> float:
    if not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", text, re.A | re.I) or math.isinf(float(text)):
        raise ValueError(text)
    return float(text)


def _parse_bool(text: str) -> bool:
    word = text.lower()
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
    int: Kind("N", "a whole number", _parse_int),
    float: Kind("X", "a number", _parse_float),
    bool: Kind("yes|no", "yes or no", _parse_bool, lambda value: "yes" if value else "no"),
    Size: Kind("SIZE", "a size such as 64mb (b, k, kb, m, mb, g, gb)", parse_size, show_size),
    Duration: Kind("DURATION", "a duration such as 1500ms, 30s, 2h", parse_duration, show_duration),
    Address: Kind("HOST:PORT", "HOST:PORT, [IPV6]:PORT or unix:/path", Address.parse),
}
