"""memcached, and memaslap (`memcaslap` on Debian) as the neutral client of what speaks its text protocol."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lab.servers import PeerMissing, Running, free_port, need, output_of, peer, pinned

PACKAGE = "memcached"
CLIENT_PACKAGE = "libmemcached-tools"
CLIENTS = ("memcaslap", "memaslap")
CLIENT_TIMEOUT_S = 120
# Its GETs are for keys that it has set: so many for each connection, the least it takes.
KEYS_PER_CONNECTION = "1k"


def version() -> str:
    return output_of(need("memcached", PACKAGE), "-V").rpartition(" ")[2]


@contextlib.contextmanager
def start(core: int, folder: Path) -> Iterator[Running]:
    """One worker thread, as ours is one process on one core; a gigabyte, as ours has by default."""
    port = free_port()
    command = [need("memcached", PACKAGE), "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-t", "1", "-m", "1024"]
    command += ["-u", "nobody"]  # which it wants to be told when root starts it
    with peer("memcached", version(), command, port, core, folder) as server:
        yield server


def benchmark(
    server: Running, get_share: float, seconds: float, folder: Path, *, core: int, size: int, clients: int = 50
) -> tuple[float, float]:
    """GETs (this share) and SETs of 16-byte keys without pipeline; (operations, seconds), those SETs included with
    which it begins. Raises RuntimeError when something failed or a key was not found."""
    config = folder / "memaslap.conf"
    config.write_text(
        f"key\n16 16 1\nvalue\n{size} {size} 1\ncmd\n0 {1 - get_share:g}\n1 {get_share:g}\n", encoding="ascii"
    )
    command = [client(), "-s", f"{server.host}:{server.port}", "-T", "1", "-c", str(clients)]
    command += ["-w", KEYS_PER_CONNECTION, "-t", f"{max(1, round(seconds))}s", "-F", str(config)]
    done = subprocess.run(pinned(core, command), capture_output=True, text=True, timeout=CLIENT_TIMEOUT_S)
    found = re.search(r"Run time: ([0-9.]+)s Ops: ([0-9]+)", done.stdout)
    misses = re.search(r"get_misses: ([0-9]+)", done.stdout)
    if done.returncode or not found or (misses and int(misses[1])):
        raise RuntimeError(f"memaslap against {server.name}: {(done.stdout + done.stderr).strip()[-300:]}")
    return float(found[2]), float(found[1])


def client() -> str:
    """The path of memaslap under one of its names."""
    for name in CLIENTS:
        if path := shutil.which(name):
            return path
    raise PeerMissing(f"memaslap is not installed: apt install {CLIENT_PACKAGE} (benchmarks/peers.sh installs it)")
