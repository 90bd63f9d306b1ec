"""cache's memory: for a key with a 64-byte string, beside redis-server; and under churn, when the limit is on.

A key: resident memory grown by a million keys `key:000000000000` … over their number, and the same of keys with a
lifetime. Churn: keys of all sizes are written and read until more than the limit has gone through; the most that
was ever resident, less what an idle node has, is to stay within a quarter above the limit. Beside it, without a target:
small values only, where the overhead of each key is a large part, and sizes that change over time (small values, then
large ones, then small ones again), which is hard on any allocator; and redis-server with the same limit. Peaks are the
kernel's own (VmHWM), so none is missed.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lab import loads, servers
from lab.client import Client, Word
from lab.figures import Figure, Result, Target
from lab.machine import Cores, peak_bytes, resident_bytes
from lab.servers import Running
from lab.settings import Settings
from peers import redis

KEY, KEY_WITH_LIFETIME = "key with a 64-byte string", "the same with a lifetime"
CHURNED, SMALL, CHANGING = "growth under churn", "growth with small values", "growth when sizes change"
KEYS, QUICK_KEYS = 1_000_000, 100_000
VALUE = b"x" * 64
LIFETIME_MS = 3_600_000
PER_KEY = Target(1.8, higher=False)
CHURN = Target(1.25, higher=False)
LIMIT_MB, QUICK_LIMIT_MB = 256, 32
CHURN_S, QUICK_CHURN_S = 60, 10
# What is written, one after the other, and how large it is on average.
PHASES = {
    CHURNED: [("64:70,1kb:20,10kb:8,100kb:2", 3_100)],
    SMALL: [("64-200", 132)],
    CHANGING: [("64-200", 132), ("1kb-4kb", 2_560), ("10kb-100kb", 56_000), ("64-200", 132), ("100kb", 102_400)],
}
TIMES_LIMIT = 4  # so much would all keys take together


def run(settings: Settings, cores: Cores, folder: Path) -> Result:
    """Keys, then churn."""
    result = Result(settings={"sizes": PHASES})
    for case in settings.chosen([KEY, KEY_WITH_LIFETIME, *PHASES]):
        settings.say(case)
        ours, theirs = (
            churn(case, settings, cores, folder, mine=mine, result=result)
            if case in PHASES
            else per_key(settings, cores, folder, mine=mine, result=result, lifetime=case == KEY_WITH_LIFETIME)
            for mine in (True, False)
        )
        if case in PHASES:
            target = CHURN if case == CHURNED else Target()
            result.figures.append(Figure(case, "memory", ours, theirs, "× limit", ours, target, is_ratio=False))
        else:
            target = PER_KEY if case == KEY else Target()
            result.figures.append(Figure(case, "memory", ours, theirs, "bytes", ours / theirs, target))
    return result


@contextlib.contextmanager
def server(cores: Cores, folder: Path, *, mine: bool, limit_mb: int, result: Result) -> Iterator[Running]:
    """A fresh one of either, with a limit."""
    if mine:
        options = ("--max-memory", f"{limit_mb}mb")
        with servers.minidist("cache", *options, core=cores.server, folder=folder) as running:
            result.versions[running.name] = running.version
            yield running
    else:
        with redis.start(cores.server, folder) as running:
            with Client(running) as client:
                client.ask("CONFIG", "SET", "maxmemory", f"{limit_mb}mb", "maxmemory-policy", "allkeys-lru")
            result.versions[running.name] = running.version
            yield running


def per_key(settings: Settings, cores: Cores, folder: Path, *, mine: bool, result: Result, lifetime: bool) -> float:
    """Bytes that the process grew by for each key. The first keys pay for what is there once."""
    keys = QUICK_KEYS if settings.quick else KEYS
    words: tuple[Word, ...] = ("PX", LIFETIME_MS) if lifetime else ()

    def commands(first: int, last: int) -> Iterator[tuple[Word, ...]]:
        return ((b"SET", b"key:%012d" % number, VALUE, *words) for number in range(first, last))

    with server(cores, folder, mine=mine, limit_mb=4096, result=result) as running, Client(running) as client:
        client.send_all(commands(0, keys // 100))
        before = resident_bytes(running.pid)
        client.send_all(commands(keys // 100, keys))
        grown = resident_bytes(running.pid) - before
        if client.ask("DBSIZE") != keys:
            raise RuntimeError(f"{running.name} has lost keys")
        return grown / (keys - keys // 100)


def churn(case: str, settings: Settings, cores: Cores, folder: Path, *, mine: bool, result: Result) -> float:
    """How far the process ever grew, in limits."""
    limit_mb = QUICK_LIMIT_MB if settings.quick else LIMIT_MB
    seconds = (QUICK_CHURN_S if settings.quick else CHURN_S) / len(PHASES[case])
    limit = limit_mb * 1024**2
    with server(cores, folder, mine=mine, limit_mb=limit_mb, result=result) as running:
        idle, written = resident_bytes(running.pid), 0
        for sizes, mean_bytes in PHASES[case]:
            sent = write(running, cores, folder, sizes, TIMES_LIMIT * limit // mean_bytes, seconds)
            settings.say(f"{running.name}, {sizes}: {sent / limit:.1f} limits written")
            written += sent
        with Client(running) as client:
            lines = client.ask("INFO", "memory").split()
            used = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"used_memory_peak:"))
        grown, at_end = peak_bytes(running.pid) - idle, resident_bytes(running.pid) - idle
    if written < limit:
        raise RuntimeError(f"only {written} bytes were written: {running.name} was not churned")
    settings.say(
        f"{running.name}: grown by {grown / limit:.2f}, own account at most {used / limit:.2f}, "
        f"at the end {at_end / limit:.2f}"
    )
    result.settings[f"{case}, {running.name}"] = {
        "limits_written": written / limit,
        "own_account": used / limit,
        "at_end": at_end / limit,
    }
    return grown / limit


def write(server: Running, cores: Cores, folder: Path, sizes: str, keys: int, seconds: float) -> int:
    """Write and read keys of these sizes for so long; the bytes sent."""
    report = folder / "churn.json"
    options = ["--workload", "get-set", "--ratio", "1:4", "--key-pattern", "zipf", "--zipf-exponent", "0.7"]
    options += ["--value-size", sizes, "--keys", str(keys), "--concurrency", "8", "--pipeline", "32"]
    options += ["--duration", f"{seconds:g}s", "--timeout", "30s"]
    sent: int = loads.result(loads.start(server, cores.load, report, *options), report, seconds)["bytes_out"]
    return sent
