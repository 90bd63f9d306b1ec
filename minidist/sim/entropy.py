"""Time and chance for code on simulated hosts, and the fence round them.

While a world runs, the functions below answer simulated values to code on a host (a context variable tells) and real
ones to everybody else: time.time, monotonic, perf_counter and their _ns forms; the functions of `random`; os.urandom
and with it uuid and secrets; socket.getaddrinfo; select.poll for simulated sockets. What would go round the simulation
raises LeakError with the stack of who did it: threads, subprocesses, real sockets, files, time.sleep.

Two holes cannot be closed from Python: names that were bound before the world began (`from time import time`), and C
code that reads the clock itself (`datetime.now()`). Both are caught where it matters, by running a seed twice.
"""

import builtins
import contextlib
import gc
import os
import random
import select
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from minidist.sim.errors import LeakError
from minidist.sim.loop import current_host
from minidist.sim.network import SIM_FD

if TYPE_CHECKING:
    from minidist.sim.world import World

RANDOM_FUNCTIONS = (
    "betavariate", "choice", "choices", "expovariate", "gammavariate", "gauss", "getrandbits", "lognormvariate",
    "normalvariate", "paretovariate", "randbytes", "randint", "random", "randrange", "sample", "shuffle", "triangular",
    "uniform", "vonmisesvariate", "weibullvariate",
)  # fmt: skip
READABLE_ENDINGS = (".py", ".pyc", ".pem", ".toml", ".json", ".html")


class Entropy:
    """A context manager: within it the patches are in place. Worlds may follow each other, not run inside each other."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> "Entropy":
        self._patch_time()
        self._patch_chance()
        self._patch_sockets()
        self._patch_leaks()
        if gc.isenabled():
            # Finalizers run at a collection, so a collection must not come at a moment that memory chooses.
            gc.disable()
            self._undo.append(gc.enable)
        return self

    def __exit__(self, *exception: object) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def _patch(self, module: Any, name: str, make: Callable[[Any], Any]) -> None:
        real = getattr(module, name)
        setattr(module, name, make(real))
        self._undo.append(lambda: setattr(module, name, real))

    # --- time -------------------------------------------------------------------------------------------------------

    def _patch_time(self) -> None:
        loop = self.world.loop

        def of_host(seconds: Callable[[Any], float], *, nanoseconds: bool) -> Callable[[Any], Any]:
            def make(real: Callable[[], float]) -> Callable[[], float]:
                def simulated() -> float:
                    host = current_host.get()
                    if host is None:
                        return real()
                    return int(seconds(host) * 1e9) if nanoseconds else seconds(host)

                return simulated

            return make

        def wall(host: Any) -> float:
            return float(host.wall_s())

        def elapsed(host: Any) -> float:
            return float(host.loop_time_s(loop.now_s))

        for name, source in (
            ("time", wall),
            ("monotonic", elapsed),
            ("perf_counter", elapsed),
            ("process_time", elapsed),
        ):
            self._patch(time, name, of_host(source, nanoseconds=False))
            self._patch(time, f"{name}_ns", of_host(source, nanoseconds=True))

    # --- chance -----------------------------------------------------------------------------------------------------

    def _patch_chance(self) -> None:
        def of_host(name: str) -> Callable[[Any], Any]:
            def make(real: Any) -> Any:
                def simulated(*args: Any, **options: Any) -> Any:
                    host = current_host.get()
                    return real(*args, **options) if host is None else getattr(host.entropy, name)(*args, **options)

                return simulated

            return make

        for name in RANDOM_FUNCTIONS:
            self._patch(random, name, of_host(name))
        for module, name in ((os, "urandom"), (random, "_urandom")):
            self._patch(module, name, of_host("randbytes"))

    # --- sockets ----------------------------------------------------------------------------------------------------

    def _patch_sockets(self) -> None:
        network = self.world.network

        def getaddrinfo(real: Any) -> Any:
            def simulated(host: Any, port: Any, *args: Any, **options: Any) -> Any:
                if current_host.get() is None:
                    return real(host, port, *args, **options)
                name = host.decode() if isinstance(host, bytes) else (host or "")
                address = network.address_of(name, int(port or 0))
                return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)]

            return simulated

        self._patch(socket, "getaddrinfo", getaddrinfo)
        if hasattr(select, "poll"):
            self._patch(select, "poll", lambda real: lambda: SimPoll(real, network.sockets))

    # --- leaks ------------------------------------------------------------------------------------------------------

    def _patch_leaks(self) -> None:
        def forbidden(what: str) -> Callable[[Any], Any]:
            def make(real: Any) -> Any:
                def guarded(*args: Any, **options: Any) -> Any:
                    if current_host.get() is not None:
                        leak(what)
                    return real(*args, **options)

                return guarded

            return make

        self._patch(threading.Thread, "start", forbidden("a thread"))
        self._patch(subprocess.Popen, "__init__", forbidden("a subprocess"))
        self._patch(socket.socket, "__init__", forbidden("a real socket"))
        self._patch(time, "sleep", forbidden("time.sleep"))
        self._patch(builtins, "open", guarded_open)


def guarded_open(real: Any) -> Any:
    """Code on a host may read its own sources and packaged data, nothing else."""

    def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if current_host.get() is not None:
            path = os.fspath(file) if not isinstance(file, int) else ""
            if set(mode) & set("wax+") or not str(path).endswith(READABLE_ENDINGS):
                leak(f"a real file ({path!r})")
        return real(file, mode, *args, **options)

    return opened


def leak(what: str) -> NoReturn:
    """Report what went round the simulation, with the stack of who did it."""
    host = current_host.get()
    where = "".join(traceback.format_stack(limit=12)[:-2])
    raise LeakError(f"{what} has no place in a simulation (host {host.name if host else '-'}):\n{where}")


class SimPoll:
    """`select.poll` that knows simulated sockets: httpcore polls an idle connection to see whether it was closed."""

    def __init__(self, real: Any, sockets: dict[int, Any]) -> None:
        self._sockets = sockets
        self._real = real()
        self._watched: dict[int, int] = {}

    def register(self, fd: Any, events: int = select.POLLIN | select.POLLOUT | select.POLLPRI) -> None:
        number = fd if isinstance(fd, int) else fd.fileno()
        if number >= SIM_FD:
            self._watched[number] = events
        else:
            self._real.register(number, events)

    def unregister(self, fd: Any) -> None:
        number = fd if isinstance(fd, int) else fd.fileno()
        if self._watched.pop(number, None) is None:
            self._real.unregister(number)

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        found = []
        for number in self._watched:
            known = self._sockets.get(number)
            if known is None or known.readable():
                found.append((number, select.POLLIN))
        if found or self._watched:
            return found
        with contextlib.suppress(OSError):
            return list(self._real.poll(timeout))
        return []
