"""redis-server, and redis-benchmark as the neutral client of everything that speaks RESP."""

import contextlib
import csv
import io
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lab.servers import Running, free_port, need, output_of, peer, pinned

PACKAGE = "redis-server"
CLIENT_PACKAGE = "redis-tools"
KEYS_PER_MGET = 100
CLIENT_TIMEOUT_S = 120  # it retries for ever when its server is gone


def version() -> str:
    found = re.search(r"v=(\S+)", output_of(need("redis-server", PACKAGE), "--version"))
    return found[1] if found else "?"


@contextlib.contextmanager
def start(core: int, folder: Path) -> Iterator[Running]:
    """A plain in-memory cache: no snapshots, no append-only file, which ours does not have either."""
    port = free_port()
    command = [
        need("redis-server", PACKAGE),
        "--port",
        str(port),
        "--save",
        "",
        "--appendonly",
        "no",
        "--bind",
        "127.0.0.1",
    ]
    with peer("redis-server", version(), command, port, core, folder) as server:
        yield server


def benchmark(
    server: Running,
    test: str,
    count: int,
    *,
    core: int,
    clients: int = 50,
    pipeline: int = 1,
    keys: int = 100_000,
    size: int = 64,
) -> float:
    """Send `count` commands of one of redis-benchmark's tests, with values of `size` bytes; operations per second.

    Keys are drawn from `keys` names. `mget` is one of ours: `KEYS_PER_MGET` keys of its test `set`. Raises RuntimeError
    when the server answered with errors.
    """
    command = [need("redis-benchmark", CLIENT_PACKAGE), "-h", server.host, "-p", str(server.port), "--csv"]
    command += ["-n", str(count), "-c", str(clients), "-P", str(pipeline), "-d", str(size), "-r", str(keys)]
    command += ["MGET", *["key:__rand_int__"] * KEYS_PER_MGET] if test == "mget" else ["-t", test]
    done = subprocess.run(pinned(core, command), capture_output=True, text=True, timeout=CLIENT_TIMEOUT_S)
    if done.returncode or "Error from server" in done.stdout + done.stderr:
        raise RuntimeError(f"redis-benchmark against {server.name}: {(done.stdout + done.stderr).strip()[-300:]}")
    rates = [float(row[1]) for row in csv.reader(io.StringIO(done.stdout)) if len(row) > 1 and row[0] != "test"]
    if len(rates) != 1:
        raise RuntimeError(f"redis-benchmark printed {len(rates)} results where one was expected: {done.stdout}")
    return rates[0]
