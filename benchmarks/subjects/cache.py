"""cache against redis-server, by redis-benchmark: 50 connections, pipeline 1 and 16, values of 64 bytes, 1 and 100 kB.

Large values are of fewer keys, so that each server holds about 100 MB at most. LPUSH makes its list longer with every
command; it is sent in bursts, and the list is dropped before each. INCR and ZADD have no value, MGET of 100 kB would be
10 MB for every one of 50 clients: these are not measured.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from lab import servers
from lab.client import Client
from lab.figures import Result, Run, Target, compare, measured
from lab.machine import Cores
from lab.servers import Running
from lab.settings import Settings
from peers import redis

SIZES = {64: "64 B", 1024: "1 kB", 102_400: "100 kB"}
MOST_BYTES = 100_000_000
MOST_KEYS = 100_000
WARM_UP_COUNT = 20_000
# Throughput (must, aim), CPU must; by pipeline, and for MGET.
TARGETS = {1: (Target(0.8, 1.0), Target(1.4, higher=False)), 16: (Target(0.5, 0.8), Target(2.0, higher=False))}
MGET_TARGETS = (Target(0.6, 0.8), Target(1.8, higher=False))
LIST = "mylist"  # redis-benchmark's


@dataclass(frozen=True)
class Case:
    """One test of redis-benchmark. MSET counts commands of ten keys."""

    test: str
    pipeline: int
    size: int = 64

    def __str__(self) -> str:
        name = self.test.partition("_")[0].upper() + " 100 keys" * (self.test == "mget")
        value = f" {SIZES[self.size]}" if self.size > 64 else ""
        return f"{name}{value}, pipeline {self.pipeline}"

    @property
    def keys(self) -> int:
        return min(MOST_KEYS, MOST_BYTES // self.size)

    @property
    def targets(self) -> tuple[Target, Target]:
        if self.test in ("mset", "ping_mbulk"):
            return Target(), Target()
        return MGET_TARGETS if self.test == "mget" else TARGETS[self.pipeline]


CASES = [
    *[Case(test, depth) for depth in (1, 16) for test in ("get", "set", "incr", "lpush", "hset", "zadd")],
    *[Case(test, depth) for depth in (1, 16) for test in ("mset", "ping_mbulk")],
    Case("mget", 1),
    *[Case(test, depth, 1024) for depth in (1, 16) for test in ("get", "set", "lpush", "hset")],
    Case("mget", 1, 1024),
    *[Case(test, 1, 102_400) for test in ("get", "set", "lpush", "hset")],
]


def run(settings: Settings, cores: Cores, folder: Path) -> Result:
    """All cases, pair by pair."""
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(servers.minidist("cache", core=cores.server, folder=folder))
        theirs = stack.enter_context(redis.start(cores.server, folder))
        result = Result(versions={ours.name: ours.version, theirs.name: theirs.version})
        held = 0
        for case in settings.chosen(CASES):
            settings.say(str(case))
            if case.size != held:
                held = case.size
                for server in (ours, theirs):
                    fill(server, case)
            counts = {s.name: warm_up(s, case, settings.seconds, cores) for s in (ours, theirs)}
            runs = [one(case, server, counts[server.name], cores) for server in [ours, theirs] * settings.pairs]
            result.figures += compare(runs, ours.name, theirs.name, *case.targets, "/s")
            result.runs += runs
    return result


def fill(server: Running, case: Case) -> None:
    """Every key that GET and MGET may ask for, and nothing else."""
    value = b"x" * case.size
    with Client(server) as client:
        client.ask("FLUSHALL")
        client.send_all((b"SET", b"key:%012d" % key, value) for key in range(case.keys))


def warm_up(server: Running, case: Case, seconds: float, cores: Cores) -> int:
    """How many commands keep this server busy for about so long."""
    count = WARM_UP_COUNT // (10 if case.test == "mget" or case.size > 10_000 else 1)
    rate = commands(server, case, count, cores)
    return max(count, round(rate * seconds))


def one(case: Case, server: Running, count: int, cores: Cores) -> Run:
    def load() -> tuple[float, float]:
        return count, count / commands(server, case, count, cores)

    return measured(str(case), server, cores, load)


def commands(server: Running, case: Case, count: int, cores: Cores) -> float:
    """Send so many; operations per second."""
    most = MOST_BYTES // case.size if case.test == "lpush" else count
    sent, seconds = 0, 0.0
    while sent < count:
        burst = min(most, count - sent)
        if case.test == "lpush":
            with Client(server) as client:
                client.ask("UNLINK", LIST)
        rate = redis.benchmark(
            server, case.test, burst, core=cores.load, pipeline=case.pipeline, keys=case.keys, size=case.size
        )
        sent, seconds = sent + burst, seconds + burst / rate
    return sent / seconds
