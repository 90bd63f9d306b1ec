"""How long clients wait while a million keys expire: p99.9 of GETs in an open loop, beside redis-server.

A million keys are written that all expire within the same second; the load, of other keys without a lifetime, begins
before it and ends when the last of them is gone. The loop is open (2,000 requests a second, whatever the server does),
so a stop counts for every request that came while it lasted; redis-benchmark has no such loop, hence our own load
generator, at a rate that both servers and the client handle while mostly idle. How late the client itself was at worst
is printed. The same load without anything that expires is shown beside it.
"""

import time
from pathlib import Path

from lab import loads, servers
from lab.client import Client
from lab.figures import Figure, Result, Target
from lab.machine import Cores
from lab.servers import Running
from lab.settings import Settings
from peers import redis

KEYS, QUICK_KEYS = 1_000_000, 100_000
LOADED_KEYS = 10_000
RATE = 2000
EXPIRING = Target(2.0, higher=False)
# From the end of the writing to the second in which all expires, and how long that may take to be cleared away.
HEAD_START_S, CLEARING_S, QUICK_CLEARING_S = 2, 18, 5
SPREAD_MS = 1000
# What writing takes at most; it is waited for before the second comes.
WRITING_S, QUICK_WRITING_S = 25, 6


def run(settings: Settings, cores: Cores, folder: Path) -> Result:
    """Quiet, then while keys expire; each pair on fresh servers."""
    result = Result(settings={"rate": RATE, "keys": QUICK_KEYS if settings.quick else KEYS})
    for case in settings.chosen(["GET, quiet", "GET while 1M keys expire"]):
        expiring = case != "GET, quiet"
        settings.say(case)
        found: dict[bool, list[float]] = {True: [], False: []}
        for mine in [True, False] * settings.pairs:
            starting = (
                servers.minidist("cache", "--max-memory", "4gb", core=cores.server, folder=folder)
                if mine
                else redis.start(cores.server, folder)
            )
            with starting as server:
                result.versions[server.name] = server.version
                found[mine].append(p99_9(server, settings, cores, folder, expiring=expiring))
        result.figures.append(figure(case, found[True], found[False], EXPIRING if expiring else Target()))
    return result


def figure(case: str, mine: list[float], theirs: list[float], target: Target) -> Figure:
    """The ratio of medians, and of the pairs."""
    pairs = [one / two for one, two in zip(mine, theirs, strict=True)]
    a, b = sorted(mine)[len(mine) // 2], sorted(theirs)[len(theirs) // 2]
    return Figure(case, "p99.9", a, b, "ms", a / b, target, spread=(min(pairs), max(pairs)))


def p99_9(server: Running, settings: Settings, cores: Cores, folder: Path, *, expiring: bool) -> float:
    """Of one load, in ms."""
    keys = QUICK_KEYS if settings.quick else KEYS
    writing_s = QUICK_WRITING_S if settings.quick else WRITING_S
    clearing_s = QUICK_CLEARING_S if settings.quick else CLEARING_S
    report = folder / "latency.json"
    with Client(server) as client:
        at_ms = int((time.time() + writing_s) * 1000)
        client.send_all((b"SET", b"key:%012d" % key, b"x" * 64) for key in range(LOADED_KEYS))
        if expiring:
            client.send_all(
                (b"SET", b"gone:%012d" % key, b"x" * 64, b"PXAT", at_ms + key % SPREAD_MS) for key in range(keys)
            )
            wait_until(at_ms / 1000 - HEAD_START_S)
        if client.ask("DBSIZE") != LOADED_KEYS + keys * expiring:
            raise RuntimeError(f"{server.name}: the keys were not written in {writing_s} s")
        seconds = HEAD_START_S + clearing_s if expiring else clearing_s
        options = ["--workload", "get", "--rate", str(RATE), "--keys", str(LOADED_KEYS), "--duration", f"{seconds}s"]
        figures = loads.result(loads.start(server, cores.load, report, *options), report, seconds)
        left = client.ask("DBSIZE") - LOADED_KEYS
    latency = figures["latency_ms"]
    settings.say(
        f"{server.name}: p50 {latency['p50']} p99 {latency['p99']} p99.9 {latency['p99_9']} max {latency['max']} ms, "
        f"client late by {figures['schedule_lag_ms']} ms at worst, {left} keys left"
    )
    return float(latency["p99_9"])


def wait_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.time()))
