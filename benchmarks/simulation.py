#!/usr/bin/env python3
"""How fast the simulated world turns: `benchmarks/simulation.py [CASE …]`.

steps   loop steps per second of CPU, trace hash on: two hosts that exchange lines over streams
idle    virtual seconds per second of CPU: a balancer with health checks, three web programs and a cache, no load
load    the same under load: eight clients that ask the balancer again and again; virtual seconds and requests

Each case runs five times with one seed, which must give one hash; the median counts. A case must reach its figure. Exit
code 3 when one does not.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from minidist.components import node_type  # noqa: E402
from minidist.runtime.config import from_table  # noqa: E402
from minidist.sim.host import Host  # noqa: E402
from minidist.sim.world import World  # noqa: E402

RUNS = 5
MIN_STEPS_PER_S = 100_000
MIN_IDLE_FACTOR = 500
OK, MISSED = 0, 3
LINES = 20_000
IDLE_S, LOAD_S = 600.0, 10.0


@dataclass(frozen=True)
class Turn:
    """One run: CPU and virtual seconds, loop steps, what was done, the hash."""

    cpu_s: float
    virtual_s: float
    steps: int
    done: int
    digest: str


async def lines(world: World) -> int:
    """Lines there and back, one after another."""
    server, client = world.host("server"), world.host("client")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    async def ask() -> int:
        reader, writer = await asyncio.open_connection("server", 7000)
        for _ in range(LINES):
            writer.write(b"a line\n")
            await reader.readline()
        writer.close()
        return LINES

    await server.start(asyncio.start_server(answer, "server", 7000))
    done: int = await client.start(ask())
    return done


async def component(host: Host, name: str, **options: Any) -> None:
    """A node of ours, as its daemon starts it."""
    kind = node_type(name)
    table = {"admin": f"{host.ip}:9000", "name": host.name, "seed": 1, **options}
    await kind(from_table(kind.config_type, table), host.ports()).start()
    await asyncio.get_running_loop().create_future()


async def web(host: Host) -> None:
    """A program that answers every request alike."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()

    server = await asyncio.start_server(answer, host.ip, 8000)
    await server.serve_forever()


async def topology(world: World) -> None:
    webs = [world.host(f"web-{number}") for number in range(3)]
    for each in webs:
        each.start(web(each))
    cache, edge = world.host("cache"), world.host("edge")
    cache.start(component(cache, "cache", listen=f"{cache.ip}:6379"))
    upstream = ",".join(f"{each.ip}:8000" for each in webs)
    edge.start(component(edge, "balancer", listen=f"{edge.ip}:8080", upstream=upstream, check="/"))
    await asyncio.sleep(1)


async def idle(world: World) -> int:
    await topology(world)
    await asyncio.sleep(IDLE_S)
    return 0


async def load(world: World) -> int:
    await topology(world)
    answered = 0

    async def ask() -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection("edge", 8080)
        while world.now_s < LOAD_S:
            writer.write(b"GET / HTTP/1.1\r\nhost: edge\r\n\r\n")
            await reader.readuntil(b"hello")
            answered += 1
            await asyncio.sleep(0.005)
        writer.close()

    await asyncio.gather(*(world.host(f"client-{number}").start(ask()) for number in range(8)))
    return answered


def turn(main: Callable[[World], Coroutine[Any, Any, int]]) -> Turn:
    with World(seed=1) as world:
        started_s = time.process_time()
        done = world.run(main(world))
        cpu_s = time.process_time() - started_s
        assert not world.errors, world.errors
        return Turn(cpu_s, world.now_s, world.loop.steps, done, world.trace.digest())


CASES: dict[str, Callable[[World], Coroutine[Any, Any, int]]] = {"steps": lines, "idle": idle, "load": load}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="How fast the simulated world turns.")
    parser.add_argument("case", nargs="*", choices=[[], *CASES])
    missed = False
    for name in parser.parse_args(argv).case or CASES:
        turns = [turn(CASES[name]) for _ in range(RUNS)]
        assert len({each.digest for each in turns}) == 1, "one seed gave two hashes"
        middle = statistics.median(each.cpu_s for each in turns)
        steps_per_s, factor = turns[0].steps / middle, turns[0].virtual_s / middle
        print(
            f"{name:6} {steps_per_s:10,.0f} steps/s  {factor:8,.0f} × real time  {turns[0].steps:8,} steps"
            f"  {turns[0].virtual_s:6.0f} s virtual  {middle:6.3f} s CPU  {turns[0].done:,} done"
        )
        missed |= (name == "steps" and steps_per_s < MIN_STEPS_PER_S) or (name == "idle" and factor < MIN_IDLE_FACTOR)
    return MISSED if missed else OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
