"""cache's memcached listener against memcached, by memaslap: GET and SET over 50 connections, without pipeline."""

import contextlib
from dataclasses import replace
from pathlib import Path

from lab import servers
from lab.figures import Result, Run, Target, compare, measured
from lab.machine import Cores
from lab.servers import Running
from lab.settings import Settings
from peers import memcached

THROUGHPUT, CPU = Target(0.7), Target(1.6, higher=False)
SIZES = {"64 B": 64, "1 kB": 1024, "100 kB": 102_400}
# Share of GETs. What the work order names is the GET of 64 bytes.
CASES = [(name, share, size) for size in SIZES for name, share in (("GET", 1.0), ("SET", 0.0))]
JUDGED = ("GET", 1.0, "64 B")
# memaslap keeps a thousand keys for each connection: with large values there must be fewer connections.
CLIENTS = {"64 B": 50, "1 kB": 50, "100 kB": 5}


def run(settings: Settings, cores: Cores, folder: Path) -> Result:
    """All cases, pair by pair."""
    with contextlib.ExitStack() as stack:
        options = ("--memcached", "127.0.0.1:0")
        node = stack.enter_context(servers.minidist("cache", *options, core=cores.server, folder=folder))
        ours = replace(node, port=node.listener("memcached"))
        theirs = stack.enter_context(memcached.start(cores.server, folder))
        result = Result(versions={ours.name: ours.version, theirs.name: theirs.version})
        for case in settings.chosen(CASES):
            name, share, size = case
            settings.say(f"{name} {size}")
            turns = [ours, theirs] * settings.pairs
            runs = [one(f"{name} {size}", each, share, size, settings.seconds, cores, folder) for each in turns]
            targets = (THROUGHPUT, CPU) if case == JUDGED else (Target(), Target())
            result.figures += compare(runs, ours.name, theirs.name, *targets, "/s")
            result.runs += runs
    return result


def one(case: str, server: Running, share: float, size: str, seconds: float, cores: Cores, folder: Path) -> Run:
    def load() -> tuple[float, float]:
        return memcached.benchmark(
            server, share, seconds, folder, core=cores.load, size=SIZES[size], clients=CLIENTS[size]
        )

    return measured(case, server, cores, load)
