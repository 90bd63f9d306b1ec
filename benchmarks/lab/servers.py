"""Starting and stopping what is measured: minidist's daemons by their ready line, the others by their port.

Every server is pinned to the server's core before it executes a single instruction of its own (`taskset -c`).
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 10


class PeerMissing(Exception):
    """A program that the comparison needs is not installed; the text says how to get it."""


@dataclass(frozen=True)
class Running:
    """A server under test. `listeners` are the addresses of one of ours, by name."""

    name: str
    version: str
    host: str
    port: int
    pid: int
    listeners: Mapping[str, str] = field(default_factory=dict)

    def listener(self, name: str) -> int:
        """The port of another of its listeners."""
        return int(self.listeners[name].rpartition(":")[2])


def need(program: str, package: str) -> str:
    """The path of a program, or PeerMissing."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise PeerMissing(f"{program} is not installed: apt install {package} (benchmarks/peers.sh installs them all)")
    return path


def output_of(*command: str) -> str:
    """What a command prints, on either stream: `nginx -v` uses stderr."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=START_TIMEOUT_S)
    return done.stdout.strip()


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """The command, on one core."""
    return [need("taskset", "util-linux"), "-c", str(core), *command]


@contextlib.contextmanager
def process(command: Sequence[str], log: Path, stdin: int = subprocess.DEVNULL) -> Iterator["subprocess.Popen[str]"]:
    """Run a command until the block ends: SIGTERM, then SIGKILL. It runs in the folder of its log."""
    with log.open("ab") as errors:
        child = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=log.parent,
            env=environment(),
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout:
            child.stdout.close()


def environment() -> dict[str, str]:
    """Ours, with compiled modules kept as every installation has them."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def python() -> str:
    """The interpreter that runs minidist: ours, with its environment."""
    return sys.executable


@contextlib.contextmanager
def minidist(component: str, *options: str, core: int, folder: Path) -> Iterator[Running]:
    """One of our daemons on a free port, once it has printed its ready line."""
    command = [python(), "-m", "minidist", component, "--listen", "127.0.0.1:0", *options]
    log = folder / f"minidist-{component}.log"
    with process(pinned(core, command), log) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            raise RuntimeError(f"minidist {component} did not start: {log.read_text()[-500:]}")
        ready = json.loads(line)
        host, _, port = ready["address"].rpartition(":")
        from minidist import __version__

        yield Running("minidist", __version__, host, int(port), ready["pid"], ready["listeners"])


def free_port() -> int:
    """A port that was free a moment ago: good enough on a machine that is quiet for measuring."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def peer(name: str, version: str, command: Sequence[str], port: int, core: int, folder: Path) -> Iterator[Running]:
    """Another server, once its port accepts."""
    log = folder / f"{name}.log"
    with process(pinned(core, command), log) as child:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start: {log.read_text()[-500:]}")
            time.sleep(0.01)
        yield Running(name, version, "127.0.0.1", port, child.pid)
