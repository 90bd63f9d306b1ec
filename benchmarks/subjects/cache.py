"""cache against redis-server, by redis-benchmark: 64-byte values, 50 connections, without pipeline and 16 deep."""

import contextlib
from pathlib import Path

from lab import servers
from lab.figures import Result, Run, Target, compare, measured
from lab.machine import Cores
from lab.servers import Running
from lab.settings import Settings
from peers import redis

KEYS = 100_000
WARM_UP_COUNT = 20_000
# (test of redis-benchmark, pipeline) -> (must, aim) for throughput, must for CPU. MSET counts commands of ten keys.
TARGETS = {1: (Target(0.8, 1.0), Target(1.4, higher=False)), 16: (Target(0.5, 0.8), Target(2.0, higher=False))}
TESTS = ("get", "set", "incr", "lpush", "hset", "zadd")
CASES = [(test, pipeline) for pipeline in (1, 16) for test in TESTS]
OTHERS = [(test, pipeline) for pipeline in (1, 16) for test in ("mset", "ping_mbulk")]


def run(settings: Settings, cores: Cores, folder: Path) -> Result:
    """All cases, pair by pair."""
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(servers.minidist("cache", core=cores.server, folder=folder))
        theirs = stack.enter_context(redis.start(cores.server, folder))
        result = Result(versions={ours.name: ours.version, theirs.name: theirs.version})
        for server in (ours, theirs):
            # GET should find its keys: nearly all names have been drawn after ten draws for each.
            redis.benchmark(
                server, "set", KEYS * (1 if settings.quick else 10), core=cores.load, pipeline=16, keys=KEYS
            )
        for test, pipeline in settings.chosen(CASES + OTHERS):
            case = f"{test.partition('_')[0].upper()}, pipeline {pipeline}"
            settings.say(case)
            counts = {s.name: warm_up(s, test, pipeline, settings.seconds, cores) for s in (ours, theirs)}
            turns = [ours, theirs] * settings.pairs
            runs = [one(case, server, test, pipeline, counts[server.name], cores) for server in turns]
            throughput, cpu = TARGETS[pipeline] if (test, pipeline) in CASES else (Target(), Target())
            result.figures += compare(runs, ours.name, theirs.name, throughput, cpu, "/s")
            result.runs += runs
    return result


def warm_up(server: Running, test: str, pipeline: int, seconds: float, cores: Cores) -> int:
    """How many commands keep this server busy for about so long."""
    rate = redis.benchmark(server, test, WARM_UP_COUNT, core=cores.load, pipeline=pipeline, keys=KEYS)
    return max(WARM_UP_COUNT, round(rate * seconds))


def one(case: str, server: Running, test: str, pipeline: int, count: int, cores: Cores) -> Run:
    def load() -> tuple[float, float]:
        return count, count / redis.benchmark(server, test, count, core=cores.load, pipeline=pipeline, keys=KEYS)

    return measured(case, server, cores, load)
