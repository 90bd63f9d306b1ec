"""A daemon: one node in one process, from its command line to its exit code.

Options are read, logs set up, the node started; then one JSON line on stdout says that it serves. SIGTERM and SIGINT
drain and exit 0, a second one exits at once. What goes wrong at the start is one line on stderr: exit 2 for a wrong
option, exit 1 for what the machine refused (port taken, unreadable data, no such file).
"""

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence

from minidist.runtime import logs
from minidist.runtime.collector import Collector
from minidist.runtime.config import Config, ConfigError, WorkersConfig, load
from minidist.runtime.disk.port import DiskError
from minidist.runtime.endpoint import ListenError
from minidist.runtime.loop import run
from minidist.runtime.node import Halves, Node
from minidist.runtime.ports import real_ports
from minidist.runtime.randomness import fresh_seed

OK, FAILED, USAGE = 0, 1, 2
STDERR = 2
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main(node_type: type[Node], argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run a daemon to its end; the result is the exit code."""
    component = node_type.config_type.component
    hold_standard_descriptors()
    allow_descriptors()
    try:
        config = load(node_type.config_type, argv, environ)
    except ConfigError as error:
        print(f"minidist {component}: {error}", file=sys.stderr)  # noqa: T201
        return USAGE
    logs.set_up(config.log_level, config.log_format)
    if config.die_with_parent:
        from minidist.runtime.parent import die_with_parent

        die_with_parent()
    try:
        check_directory(config.data_dir)
        run(serve(node_type, config))
    except (ConfigError, ListenError, DiskError, OSError) as error:
        print(f"minidist {component}: {error}", file=sys.stderr)  # noqa: T201
        return USAGE if isinstance(error, ConfigError) else FAILED
    return OK


async def serve(node_type: type[Node], config: Config) -> None:
    """Start the node, say so, wait for a stop signal, drain."""
    seed = fresh_seed() if config.seed is None else config.seed
    halves = Halves.CONTROL if isinstance(config, WorkersConfig) and config.workers > 1 else Halves.BOTH
    node = node_type(config, real_ports(config.data_dir, seed), halves)
    stopping = asyncio.Event()
    handle_signals(stopping)
    node.end_process = stopping.set
    asyncio.get_running_loop().set_exception_handler(node.unexpected)
    await node.start()
    try:
        node.collector = Collector()
        node.collector.install()
        node.log.info("seed", seed=seed)
        announce(node)
        await stopping.wait()
        await node.drain()
    finally:
        await node.stop()


def check_directory(data_dir: str) -> None:
    """A data directory must be there and take files, before anything is started. Raises OSError."""
    if not data_dir:
        return
    if not os.path.isdir(data_dir):
        raise OSError(f"--data-dir: given {data_dir!r}, allowed: a directory that exists")
    room = os.statvfs(data_dir)
    if not os.access(data_dir, os.W_OK | os.X_OK) or not room.f_bavail or (room.f_files and not room.f_favail):
        raise OSError(f"--data-dir: given {data_dir!r}, allowed: a directory with room that this user may write to")


def hold_standard_descriptors() -> None:
    """Give the descriptors 0 to 2 that are closed to /dev/null: a socket that got one would make libuv abort."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)


def allow_descriptors() -> None:
    """As many as the system lets us have: the usual soft limit of 1024 is for programs that use select(2)."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


def handle_signals(stopping: asyncio.Event) -> None:
    """The first stop signal sets the event, the second ends the process at once."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            os._exit(OK)
        stopping.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)


def announce(node: Node) -> None:
    """Print the ready line. A stdout that nobody reads any more is no reason not to serve."""
    try:
        print(json.dumps(node.ready_line(), separators=(",", ":")), flush=True)  # noqa: T201
    except OSError:
        # What could not be written stays in the buffer; at the end Python would try again, and complain.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
