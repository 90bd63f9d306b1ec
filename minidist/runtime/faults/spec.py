"""What a fault is: the one vocabulary of all three worlds, read from a plain dict and checked.

The dict is what `minidist fault add` sends, what a schedule file holds and what a test's handle builds:

    {"kind": "delay", "ms": 50, "jitter_ms": 5, "peer": {"name": "web-1"}, "direction": "in", "times": 3}

`peer` is absent (everyone), one peer or a list. A peer is a name (`"store-2"`, `"client:jobs"`), an address
(`"127.0.0.1:4001"`) or an object `{"name", "addresses": […], "pgids": […]}`, with which the launcher describes a user's
program: it is recognised by the process group that holds the other end of a connection.
"""

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from minidist.runtime.config import parse_duration, parse_shift

Spec = Mapping[str, Any]


class FaultError(ValueError):
    """A fault that cannot be taken: which key, what was given, what is allowed."""

    def __init__(self, key: str, given: object, allowed: str) -> None:
        super().__init__(f"{key}: given {'nothing' if given is None else repr(given)}, allowed: {allowed}")

    @classmethod
    def said(cls, text: str) -> "FaultError":
        """The error that another process has put into words."""
        error = cls.__new__(cls)
        ValueError.__init__(error, text)
        return error


class Kind(Enum):
    """The kinds that a node applies itself; `kill` and `pause` are done to a process from outside."""

    PARTITION = "partition"
    DELAY = "delay"
    BANDWIDTH = "bandwidth"
    DROP = "drop"
    REFUSE = "refuse"
    RESET = "reset"
    HANG = "hang"
    REPLY = "reply"
    DISK = "disk"
    CLOCK = "clock"


class Direction(Enum):
    """Seen from the node: bytes that arrive, bytes that leave, or both."""

    IN = "in"
    OUT = "out"
    BOTH = "both"


COMMON_KEYS = ("id", "kind", "peer", "direction", "probability", "times", "duration", "seed", "at")
# The parameters of each kind: name → (how it is read, whether it must be given)
PARAMETERS: dict[Kind, dict[str, tuple[str, bool]]] = {
    Kind.PARTITION: {},
    Kind.DELAY: {"ms": ("number", True), "jitter_ms": ("number", False)},
    Kind.BANDWIDTH: {"bytes_per_s": ("rate", True)},
    Kind.DROP: {},
    Kind.REFUSE: {},
    Kind.RESET: {"after_bytes": ("count", False)},
    Kind.HANG: {"after_bytes": ("count", False)},
    Kind.REPLY: {"error": ("text", True), "match": ("text", False), "key": ("text", False)},
    Kind.DISK: {"what": ("disk", True), "ms": ("number", False)},
    Kind.CLOCK: {"by": ("shift", False), "rate": ("number", False)},
}
SMALLEST_RATE = 0.001  # bytes per second
DISK_FAULTS = ("slow", "full", "failing-fsync", "torn", "lost-unsynced")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who a fault is about: any of these marks is enough."""

    name: str = ""
    addresses: tuple[str, ...] = ()
    pgids: tuple[int, ...] = ()

    def shown(self) -> str:
        return self.name or ",".join(self.addresses)


@dataclass(slots=True)
class Fault:
    """One fault with its parameters. `fired` counts how often it took effect; `times_left` is None without a limit."""

    id: str
    kind: Kind
    peers: tuple[Peer, ...] = ()
    direction: Direction = Direction.BOTH
    probability: float = 1.0
    times: int | None = None
    duration_ms: int | None = None
    at_ms: int = 0
    seed: int | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    fired: int = 0

    @property
    def spent(self) -> bool:
        return self.times is not None and self.fired >= self.times

    def number(self, name: str) -> float:
        return float(self.parameters.get(name, 0))

    def matches_request(self, name: str, key: str) -> bool:
        """Whether a `reply` fault is about this request; patterns are globs, a match pattern is case-insensitive."""
        pattern, key_pattern = self.parameters.get("match", "*"), self.parameters.get("key", "*")
        return fnmatch.fnmatchcase(name.upper(), pattern.upper()) and fnmatch.fnmatchcase(key, key_pattern)

    def acts_on(self, direction: Direction) -> bool:
        return self.direction in (direction, Direction.BOTH)

    def spec(self) -> dict[str, Any]:
        """The dict that describes it to another process."""
        peers = [{"name": peer.name, "addresses": peer.addresses, "pgids": peer.pgids} for peer in self.peers]
        return {
            "id": self.id,
            "kind": self.kind.value,
            "peer": peers or None,
            "direction": self.direction.value,
            "probability": self.probability,
            "times": None if self.times is None else max(0, self.times - self.fired),
            "duration": self.duration_ms,
            "seed": self.seed,
        } | self.parameters

    def shown(self) -> dict[str, Any]:
        """As `GET /faults` lists it: the contract's keys, and how often it fired."""
        optional = {"times": self.times, "duration_ms": self.duration_ms, "seed": self.seed}
        return (
            {"id": self.id, "kind": self.kind.value, "peer": [peer.shown() for peer in self.peers]}
            | {"direction": self.direction.value, "probability": self.probability}
            | {key: value for key, value in optional.items() if value is not None}
            | self.parameters
            | {"fired": self.fired}
        )


def read_fault(spec: Spec, default_id: str) -> Fault:
    """The fault a dict describes. Raises FaultError naming the key."""
    kinds = ", ".join(kind.value for kind in Kind)
    try:
        kind = Kind(spec.get("kind"))
    except ValueError as error:
        raise FaultError("kind", spec.get("kind"), f"one of {kinds}") from error
    allowed = PARAMETERS[kind]
    for key in spec:
        if key not in COMMON_KEYS and key not in allowed:
            raise FaultError(key, spec[key], f"for {kind.value} one of {', '.join((*COMMON_KEYS, *allowed))}")
    parameters = {}
    for name, (form, needed) in allowed.items():
        if spec.get(name) is not None:
            parameters[name] = _read(form, name, spec[name])
        elif needed:
            raise FaultError(name, None, f"{FORMS[form][0]}; {kind.value} needs it")
    if kind is Kind.CLOCK and not parameters:
        raise FaultError("by", None, "a duration, or a rate")
    times = _read_optional("count", "times", spec)
    if times == 0:
        raise FaultError("times", spec["times"], "a whole number, at least 1")
    return Fault(
        id=_read("text", "id", spec.get("id") or default_id),
        kind=kind,
        peers=_read_peers(spec.get("peer")),
        direction=_read_direction(spec.get("direction", "both")),
        probability=_read_probability(spec.get("probability", 1.0)),
        times=times,
        duration_ms=_read_optional("span", "duration", spec),
        at_ms=_read_optional("span", "at", spec) or 0,
        seed=_read_optional("count", "seed", spec),
        parameters=parameters,
    )


def numeric_parameters(fault: Fault, names: Iterable[str]) -> dict[str, Any]:
    """Of these keys of a fault's dict those that are plain numbers, as numbers; durations stay as they were given."""
    numeric = [name for name, (form, _) in PARAMETERS[fault.kind].items() if form in ("number", "rate", "count")]
    read = {"probability": fault.probability, "times": fault.times, "seed": fault.seed}
    read |= {name: fault.parameters[name] for name in numeric if name in fault.parameters}
    return {name: read[name] for name in names if name in read}


# How a value is read: what it may be, and from what.
FORMS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "number": ("a number that is not negative", lambda given: _number(given, 0)),
    "rate": ("a number above 0", lambda given: _number(given, SMALLEST_RATE)),
    "count": ("a whole number that is not negative", lambda given: _whole(_number(given, 0))),
    "span": ("a duration such as 1500ms, 30s, 2h", lambda given: _span(given, parse_duration, 0)),
    "shift": ("a duration such as 1500ms, 30s, -2h", lambda given: _span(given, parse_shift, None)),
    "disk": ("one of " + ", ".join(DISK_FAULTS), lambda given: _word(given, DISK_FAULTS)),
    "text": ("text", lambda given: _word(given, None)),
}


def _read(form: str, key: str, given: Any) -> Any:
    allowed, read = FORMS[form]
    try:
        return read(given)
    except (ValueError, TypeError, OverflowError) as error:
        raise FaultError(key, given, allowed) from error


def _read_optional(form: str, key: str, spec: Spec) -> Any:
    return None if spec.get(key) is None else _read(form, key, spec[key])


def _number(given: Any, at_least: float | None) -> float:
    """A number, or text that is one (as from a command line)."""
    if isinstance(given, bool):
        raise TypeError
    number = float(given)
    if not math.isfinite(number) or (at_least is not None and number < at_least):
        raise ValueError
    return int(number) if number == int(number) else number


def _whole(number: float) -> int:
    if number != int(number):
        raise ValueError
    return int(number)


def _span(given: Any, parse: Callable[[str], int], at_least: float | None) -> int:
    """Milliseconds, from text with a unit or from a number."""
    return parse(given) if isinstance(given, str) else round(_number(given, at_least))


def _word(given: Any, words: tuple[str, ...] | None) -> str:
    if not isinstance(given, str) or (words is not None and given not in words):
        raise ValueError
    return given


def _read_direction(given: Any) -> Direction:
    try:
        return Direction(given)
    except ValueError as error:
        raise FaultError("direction", given, "in, out or both") from error


def _read_probability(given: Any) -> float:
    try:
        probability = _number(given, 0)
    except (ValueError, TypeError, OverflowError):
        probability = 2.0
    if probability > 1:
        raise FaultError("probability", given, "a number from 0 to 1")
    return float(probability)


def _read_peers(given: Any) -> tuple[Peer, ...]:
    if given is None:
        return ()
    peers = given if isinstance(given, list | tuple) else [given]
    if not peers:
        raise FaultError("peer", given, "at least one peer; leave the key out to mean everyone")
    return tuple(_read_peer(peer) for peer in peers)


def _read_peer(given: Any) -> Peer:
    if isinstance(given, str) and given:
        host, colon, port = given.rpartition(":")
        is_address = bool(colon and host and port.isdigit() and not given.startswith("client:"))
        return Peer(addresses=(given,)) if is_address else Peer(name=given)
    try:
        peer = Peer(
            name=_word(given.get("name", ""), None),
            addresses=tuple(_word(address, None) for address in given.get("addresses", ())),
            pgids=tuple(_whole(_number(pgid, 1)) for pgid in given.get("pgids", ())),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise FaultError("peer", given, "a name, an address, or {name, addresses, pgids}") from error
    if peer == Peer():
        raise FaultError("peer", given, "a name, an address, or {name, addresses, pgids}")
    return peer
