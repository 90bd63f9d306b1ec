"""balancer against nginx with one worker, both in front of the same nginx, which answers 64 bytes at once.

The upstream shares the load's core: it is part of what the load costs. A request takes it and wrk together less time
than either balancer, so the balancer's core stays the limit; the table says where that was not so.
"""

import contextlib
from pathlib import Path

from lab import servers
from lab.figures import Result, Run, Target, compare, measured
from lab.machine import Cores
from lab.servers import Running
from lab.settings import Settings
from peers import nginx

SMALL, DOWNLOAD = "64-byte answers", "download"
DOWNLOAD_BYTES = 1_000_000_000
QUICK_DOWNLOAD_BYTES = 50_000_000
REQUESTS = Target(0.45, 0.7), Target(1 / 0.45, 1 / 0.7, higher=False)
BYTES = Target(0.8, 1.0), Target()


def run(settings: Settings, cores: Cores, folder: Path) -> Result:
    """Requests, then the download, pair by pair."""
    size = QUICK_DOWNLOAD_BYTES if settings.quick else DOWNLOAD_BYTES
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(nginx.upstream(cores.load, folder, size))
        address = f"{upstream.host}:{upstream.port}"
        ours = stack.enter_context(
            servers.minidist("balancer", "--upstream", address, core=cores.server, folder=folder)
        )
        theirs = stack.enter_context(nginx.balancer(cores.server, folder, upstream))
        result = Result(versions={ours.name: ours.version, theirs.name: theirs.version})
        result.settings["download_bytes"] = size
        for case in settings.chosen([SMALL, DOWNLOAD]):
            settings.say(case)
            requests(ours, 1, cores)
            requests(theirs, 1, cores)
            turns = [ours, theirs] * settings.pairs
            runs = [one(case, server, settings.seconds, size, cores) for server in turns]
            throughput, cpu = REQUESTS if case == SMALL else BYTES
            result.figures += compare(runs, ours.name, theirs.name, throughput, cpu, "/s" if case == SMALL else "MB/s")
            result.runs += runs
    return result


def requests(server: Running, seconds: float, cores: Cores) -> tuple[float, float]:
    return nginx.wrk(server, seconds, core=cores.load)


def one(case: str, server: Running, seconds: float, size: int, cores: Cores) -> Run:
    """An operation is a request, or a megabyte of the download."""

    def load() -> tuple[float, float]:
        if case == SMALL:
            return requests(server, seconds, cores)
        return size / 1e6, nginx.download(server, size, core=cores.load)

    return measured(case, server, cores, load)
