"""Time and chance for code on simulated hosts, and the fence round them.

While a world runs, the functions below answer simulated values to code on a host (a context variable tells) and real
ones to everybody else: the clocks of `time`, `datetime.now` and friends, the functions of `random` and generators made
without a seed, os.urandom (and with it uuid, secrets), socket.getaddrinfo, gethostname, os.getpid, select.poll.
What would go round the simulation is a leak: threads, subprocesses, real sockets and files, waiting for real time.

Names that were bound before (`from time import time`) are replaced too: every module that is loaded when a world begins
to run is searched for the very objects that are replaced. What remains is C code that asks the operating system by
itself, and `time` bound as a default argument or in a class. Running a seed twice shows those.

The replacements are made once and know nothing of any world: a module imported by simulated code may keep them, and
finds the real thing behind them when it is used elsewhere.
"""

import builtins
import datetime
import functools
import gc
import io
import os
import random
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import uuid
from collections.abc import Callable
from types import ModuleType
from typing import Any

from minidist.sim.current import current_host, leak
from minidist.sim.host import Host
from minidist.sim.sockets import SimPoll

RANDOM_FUNCTIONS = (
    "betavariate", "binomialvariate", "choice", "choices", "expovariate", "gammavariate", "gauss", "getrandbits",
    "getstate", "lognormvariate", "normalvariate", "paretovariate", "randbytes", "randint", "random", "randrange",
    "sample", "seed", "setstate", "shuffle", "triangular", "uniform", "vonmisesvariate", "weibullvariate",
)  # fmt: skip
FIRST_PID = 1000
# What code may read while it runs: sources (tracebacks show them), and data that packages bring with them.
READABLE_ENDINGS = (".py", ".pyc", ".pem", ".toml", ".json", ".html")
READABLE_FILES = (os.devnull, "/etc/mime.types", "/etc/ssl", "/usr/share/zoneinfo")
MAX_UUID_NODE = (1 << 48) - 1
GREGORIAN_NS = 0x01B21DD213814000 * 100  # from the beginning of the Gregorian calendar to the Unix epoch

Replacement = tuple[Any, str, Any]  # the module or class, the name in it, what takes its place


# --- time -----------------------------------------------------------------------------------------------------------


def _elapsed_s(host: Host) -> float:
    return host.loop_time_s(host.world.loop.now_s)


def _elapsed_ns(host: Host) -> int:
    return round(_elapsed_s(host) * 1e9)


def _instead(real: Callable[..., Any], simulated: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is `simulated(host, …)` for code on a host and `real(…)` for everybody else."""

    @functools.wraps(real)
    def either(*args: Any, **options: Any) -> Any:
        host = current_host.get()
        return real(*args, **options) if host is None else simulated(host, *args, **options)

    return either


def _clocks() -> list[Replacement]:
    clocks: list[tuple[str, Callable[[Host], float]]] = [("time", Host.wall_s), ("time_ns", Host.wall_ns)]
    for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
        clocks += [(name, _elapsed_s), (f"{name}_ns", _elapsed_ns)]
    known = [(name, answer) for name, answer in clocks if hasattr(time, name)]
    replaced = [(time, name, _instead(getattr(time, name), answer)) for name, answer in known]
    return replaced + [(time, name, _of_now(getattr(time, name))) for name in ("gmtime", "localtime", "ctime")]


def _of_now(real: Callable[..., Any]) -> Callable[..., Any]:
    """For functions of a moment that take the present one when none is given."""
    return _instead(real, lambda host, seconds=None: real(host.wall_s() if seconds is None else seconds))


class _SameKind(type):
    """Values of the real class count as instances of its replacement, which makes real ones."""

    replaces: type | None = None  # of the replacement itself; classes derived from it are ordinary

    def __instancecheck__(cls, value: object) -> bool:
        real = vars(cls).get("replaces")
        return super().__instancecheck__(value) if real is None else isinstance(value, real)

    def __subclasscheck__(cls, other: type) -> bool:
        real = vars(cls).get("replaces")
        return super().__subclasscheck__(other) if real is None else issubclass(other, real)


def _datetimes() -> list[Replacement]:
    real_datetime, real_date = datetime.datetime, datetime.date

    class SimDatetime(real_datetime, metaclass=_SameKind):  # type: ignore[valid-type, misc]
        replaces = real_datetime

        def __new__(cls, *args: Any, **options: Any) -> Any:
            return real_datetime.__new__(real_datetime if "replaces" in vars(cls) else cls, *args, **options)

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            host = current_host.get()
            return real_datetime.now(tz) if host is None else real_datetime.fromtimestamp(host.wall_s(), tz)

        @classmethod
        def today(cls) -> Any:
            return cls.now()

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(datetime.UTC).replace(tzinfo=None)

    class SimDate(real_date, metaclass=_SameKind):  # type: ignore[valid-type, misc]
        replaces = real_date

        def __new__(cls, *args: Any, **options: Any) -> Any:
            return real_date.__new__(real_date if "replaces" in vars(cls) else cls, *args, **options)

        @classmethod
        def today(cls) -> Any:
            host = current_host.get()
            return real_date.today() if host is None else real_date.fromtimestamp(host.wall_s())

    for replacement, real in ((SimDatetime, real_datetime), (SimDate, real_date)):
        replacement.__name__, replacement.__qualname__ = real.__name__, real.__qualname__
        replacement.__module__ = "datetime"
    return [(datetime, "datetime", SimDatetime), (datetime, "date", SimDate)]


# --- chance ---------------------------------------------------------------------------------------------------------


def _chance() -> list[Replacement]:
    def of_host(name: str) -> Callable[..., Any]:
        return lambda host, *args, **options: getattr(host.module_random, name)(*args, **options)

    names = [name for name in RANDOM_FUNCTIONS if hasattr(random, name)]
    replaced: list[Replacement] = [(random, name, _instead(getattr(random, name), of_host(name))) for name in names]
    urandom = _instead(os.urandom, lambda host, size: host.entropy.randbytes(size))
    replaced += [(os, "urandom", urandom), (random, "_urandom", urandom)]
    replaced += [(random.Random, "seed", _seed(random.Random.seed)), (uuid, "uuid1", _instead(uuid.uuid1, _uuid1))]
    replaced.append((uuid, "getnode", _instead(uuid.getnode, lambda host: _node(host))))
    # What the module remembers, so as to count on when two are made at one instant: nothing, when a run begins.
    remembered = [name for name in vars(uuid) if name.startswith(("_last_timestamp", "_last_counter"))]
    return replaced + [(uuid, name, None if "timestamp" in name else 0) for name in remembered]


def _seed(real: Callable[..., None]) -> Callable[..., None]:
    """`random.Random()` on a host has a seed of the host's."""

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        host = current_host.get()
        if a is None and host is not None:
            a = host.entropy.getrandbits(64)
        real(self, a, version)

    return functools.wraps(real)(seed)


def _node(host: Host) -> int:
    """The hardware address, for uuid1: the multicast bit says that it is none (RFC 9562 §6.10)."""
    return (1 << 40 | host.number) & MAX_UUID_NODE


def _uuid1(host: Host, node: int | None = None, clock_seq: int | None = None) -> uuid.UUID:
    """RFC 9562 §5.1, with a clock sequence drawn each time, since two may be made at one instant."""
    ticks = (host.wall_ns() + GREGORIAN_NS) // 100
    sequence = host.entropy.getrandbits(14) if clock_seq is None else clock_seq
    high, low = sequence >> 8 & 0x3F, sequence & 0xFF
    fields = (ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0x0FFF, high, low, node or _node(host))
    return uuid.UUID(fields=fields, version=1)


# --- the machine ----------------------------------------------------------------------------------------------------


def _machine() -> list[Replacement]:
    def resolve(host: Host, *args: Any, **options: Any) -> Any:
        return host.world.network.resolve(*args, **options)

    def address(host: Host, name: str) -> str:
        return host.world.network.address_of(name, 0)[0]

    replaced: list[Replacement] = [
        (socket, "getaddrinfo", _instead(socket.getaddrinfo, resolve)),
        (socket, "gethostbyname", _instead(socket.gethostbyname, address)),
        (socket, "gethostname", _instead(socket.gethostname, lambda host: host.name)),
        (os, "getpid", _instead(os.getpid, lambda host: FIRST_PID * host.number + host.incarnation)),
    ]
    if hasattr(select, "poll"):
        replaced.append((select, "poll", _instead(select.poll, lambda host: SimPoll())))
    return replaced


# --- leaks ----------------------------------------------------------------------------------------------------------


def _leaks() -> list[Replacement]:
    forbidden: list[tuple[Any, str, str]] = [
        (threading.Thread, "start", "a thread"),
        (time, "sleep", "time.sleep"),
        (select, "select", "select.select"),
        (subprocess.Popen, "__init__", "a subprocess"),
        (os, "system", "a subprocess"),
        (os, "fork", "a subprocess"),
        (os, "posix_spawn", "a subprocess"),
        (os, "kill", "a signal to a process"),
        (signal, "signal", "a signal handler"),
        (socket.socket, "__init__", "a real socket"),
        (os, "open", "a real file"),
        (os, "mkdir", "a real directory"),
        (os, "remove", "removing a real file"),
        (os, "unlink", "removing a real file"),
        (os, "rename", "renaming a real file"),
        (os, "replace", "renaming a real file"),
    ]
    replaced: list[Replacement] = [
        (owner, name, _instead(getattr(owner, name), _leaking(what)))
        for owner, name, what in forbidden
        if hasattr(owner, name)
    ]
    opened = _instead(open, _open)
    waits = _instead(threading.Condition.wait, _wait)
    return [*replaced, (builtins, "open", opened), (io, "open", opened), (threading.Condition, "wait", waits)]


def _leaking(what: str) -> Callable[..., Any]:
    def leaking(host: Host, *args: Any, **options: Any) -> Any:
        leak(what)

    return leaking


def _wait(host: Host, condition: threading.Condition, timeout: float | None = None) -> bool:
    """What locks, queues and futures of threads come down to. Nobody else runs: to look is fine, to wait is not."""
    if timeout is None or timeout > 0:
        leak("waiting for another thread")
    return False


def _open(host: Host, file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
    """Code on a host may read sources and what packages bring with them, nothing else."""
    path = os.path.abspath(os.fsdecode(file)) if not isinstance(file, int) else f"descriptor {file}"
    caching = f"{os.sep}__pycache__{os.sep}" in path  # an import that is being compiled
    if not caching and (set(mode) & set("wax+") or not _is_readable(path)):
        leak(f"a real file ({path})")
    return _REAL_OPEN(file, mode, *args, **options)


def _is_readable(path: str) -> bool:
    if path.endswith(READABLE_ENDINGS) or path in sys.path:
        return True
    return path.startswith((*READABLE_FILES, *_library_directories()))


@functools.cache
def _library_directories() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(sorted({f"{paths[name]}{os.sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib")}))


_REAL_OPEN = open


# --- putting them in place ------------------------------------------------------------------------------------------


@functools.cache
def _replacements() -> list[Replacement]:
    return [*_clocks(), *_datetimes(), *_chance(), *_machine(), *_leaks()]


class _Aliases:
    """Names in other modules that are bound to what is replaced: `from time import time`."""

    def __init__(self) -> None:
        self._found: list[Replacement] = []
        self._searched: dict[str, ModuleType] = {}
        of_modules = [(owner, name, new) for owner, name, new in _replacements() if isinstance(owner, ModuleType)]
        self._owners = {owner.__name__ for owner, _, _ in of_modules}
        self._wanted = {id(getattr(owner, name)): new for owner, name, new in of_modules if callable(new)}

    def find(self) -> list[Replacement]:
        """Called while nothing is replaced. Each module is searched once."""
        for name, module in list(sys.modules.items()):
            if self._searched.get(name) is module or name in self._owners or not isinstance(module, ModuleType):
                continue
            self._searched[name] = module
            if name.startswith(("minidist.sim.", "_pytest", "pytest", "asyncio.")):
                continue  # these need the real ones, or use the loop's
            for key, value in list(vars(module).items()):
                new = self._wanted.get(id(value))
                if new is not None:
                    self._found.append((module, key, new))
        return self._found


_aliases: _Aliases | None = None
_depth = 0
_undo: list[Replacement] = []


class Entropy:
    """A context manager: within it the replacements are in place. May be entered again while it is entered."""

    def __enter__(self) -> "Entropy":
        global _depth
        _depth += 1
        if _depth == 1:
            _put_in_place()
        return self

    def __exit__(self, *exception: object) -> None:
        global _depth
        _depth -= 1
        if _depth == 0:
            for owner, name, real in reversed(_undo):
                setattr(owner, name, real)
            _undo.clear()
            if self._collects:
                gc.enable()

    _collects = False


def _put_in_place() -> None:
    global _aliases
    if _aliases is None:
        _aliases = _Aliases()
    for owner, name, new in [*_replacements(), *_aliases.find()]:
        _undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, new)
    # Finalizers run at a collection, so a collection must not come at a moment that memory chooses.
    Entropy._collects = gc.isenabled()
    gc.disable()
