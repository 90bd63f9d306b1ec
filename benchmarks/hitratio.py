#!/usr/bin/env python3
"""How many of a program's questions each eviction policy answers: hit ratios on the same traces, with a picture.

    benchmarks/hitratio.py                 # ours beside exact LRU and the optimum, about a minute
    benchmarks/hitratio.py --redis         # and redis-server's own policies, a few minutes more

A trace is a sequence of keys. For each the cache is asked, and on a miss the key is stored (cache-aside). The cache has
room for a tenth of the keys; our node and redis-server get the memory that so many keys were seen to take.

    zipf    few keys are asked for most of the time (exponent 1.0), as in most caches
    shift   the same, but every tenth of the trace other keys are the popular ones
    scan    zipf, and twice in the trace something reads through all keys once
    loop    the same keys round and round, a fifth more of them than fit

Beside them `exact lru` evicts the least recently used key without sampling, and `optimum` (Belady) the one that is
asked for again latest: nobody can do better. Everything is drawn from one seed, so ours is the same in every run. Ours
lives by service time, a millisecond for each request; redis-server by its own clock, which for LRU ticks in seconds,
while a trace takes some ten: its LRU would do better in a longer run.
"""

import argparse
import heapq
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from lab import machine  # noqa: E402

from minidist.engines.keyspace.commands import all_commands  # noqa: E402
from minidist.engines.keyspace.eviction import Policy  # noqa: E402
from minidist.engines.keyspace.service import Service  # noqa: E402
from minidist.structures import patterns  # noqa: E402

KEYS, ROOM = 20_000, 2_000
EXPONENT = 1.0
VALUE = b"x" * 200
MS_PER_REQUEST = 1  # of service time: LFU forgets by the minute
OURS = [policy for policy in Policy if policy.value.startswith("allkeys")]
REDIS = ["allkeys-lru", "allkeys-lfu", "allkeys-random"]
Trace = list[int]
Cache = Callable[[int], bool]
"""Asks for a key, and stores it on a miss; whether it was a hit."""


# --- traces -----------------------------------------------------------------------------------------------------------


def zipf(rng: random.Random, length: int, keys: int) -> Trace:
    names, draw = rng.sample(range(keys), keys), patterns.zipf(rng, keys, EXPONENT)
    return [names[draw()] for _ in range(length)]


def shift(rng: random.Random, length: int, keys: int) -> Trace:
    return [key for _ in range(10) for key in zipf(rng, length // 10, keys)]


def scan(rng: random.Random, length: int, keys: int) -> Trace:
    trace = zipf(rng, length - 2 * keys, keys)
    for at in (2 * len(trace) // 3, len(trace) // 3):
        trace[at:at] = drawn(patterns.scan(keys), keys)
    return trace


def loop(rng: random.Random, length: int, keys: int) -> Trace:
    return drawn(patterns.scan(ROOM * 6 // 5), length)


def drawn(draw: patterns.Draw, length: int) -> Trace:
    return [draw() for _ in range(length)]


TRACES = {each.__name__: each for each in (zipf, shift, scan, loop)}

# --- caches -----------------------------------------------------------------------------------------------------------


class Nobody:
    """What carries the session of a client that is a loop."""

    peer = local = "none"


def ours(policy: Policy) -> Cache:
    """A keyspace of ours, without its server."""
    service = Service(all_commands(), 1, random.Random(1))
    session = service.open(Nobody(), 0)
    now = itertools.count(1_700_000_000_000, MS_PER_REQUEST)

    def run(*command: bytes) -> bytes:
        return service.run(session, [command], next(now))[1]

    for key in range(ROOM):
        run(b"SET", b"key:%08d" % key, VALUE)
    service.keyspace.limit(service.keyspace.used_bytes)
    run(b"FLUSHALL")
    while service.keyspace.alarm_ms == 0:
        service.wake(next(now))
    service.evict_by(policy)

    def ask(key: int) -> bool:
        name = b"key:%08d" % key
        if run(b"GET", name) != b"$-1\r\n":
            return True
        run(b"SET", name, VALUE)
        return False

    return ask


def exact_lru(trace: Trace) -> float:
    kept: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in trace:
        if key in kept:
            hits += 1
            kept.move_to_end(key)
        else:
            kept[key] = None
            if len(kept) > ROOM:
                kept.popitem(last=False)
    return hits / len(trace)


def optimum(trace: Trace) -> float:
    """Belady: evict what is asked for again latest."""
    again = [0] * len(trace)
    last: dict[int, int] = {}
    for at in range(len(trace) - 1, -1, -1):
        again[at] = last.get(trace[at], len(trace))
        last[trace[at]] = at
    kept: dict[int, int] = {}
    latest: list[tuple[int, int]] = []
    hits = 0
    for at, key in enumerate(trace):
        hits += key in kept
        kept[key] = again[at]
        heapq.heappush(latest, (-again[at], key))
        while len(kept) > ROOM:
            when, victim = heapq.heappop(latest)
            if kept.get(victim) == -when:
                del kept[victim]
    return hits / len(trace)


@contextmanager
def redis_server() -> Iterator[Any]:
    """A redis-server of our own on a Unix socket, and a client of it."""
    import redis

    with tempfile.TemporaryDirectory(prefix="minidist-benchmark-") as folder:
        path = f"{folder}/redis.sock"
        command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        client = redis.Redis(unix_socket_path=path, socket_timeout=10)
        try:
            deadline_s = time.monotonic() + 10
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    if time.monotonic() > deadline_s:
                        raise
                    time.sleep(0.02)
            yield client
        finally:
            server.kill()
            server.wait()


def theirs(client: Any, policy: str) -> Cache:
    """redis-server with the memory that ROOM keys took it."""
    client.config_set("maxmemory", 0)
    client.flushall()
    client.config_set("maxmemory-policy", policy)
    before = client.info("memory")["used_memory"]
    with client.pipeline(transaction=False) as pipe:
        for key in range(ROOM):
            pipe.set(b"key:%08d" % key, VALUE)
        pipe.execute()
    taken = client.info("memory")["used_memory"] - before
    client.flushall()
    client.config_set("maxmemory", client.info("memory")["used_memory"] + taken)

    def ask(key: int) -> bool:
        name = b"key:%08d" % key
        if client.get(name) is not None:
            return True
        client.set(name, VALUE)
        return False

    return ask


# --- the run ----------------------------------------------------------------------------------------------------------


def measure(length: int, with_redis: bool) -> dict[str, dict[str, float]]:
    """Hit ratio by trace and policy."""
    found: dict[str, dict[str, float]] = {}
    for name, make in TRACES.items():
        trace = make(random.Random(f"trace {name}"), length, KEYS)
        row = found[name] = {"optimum": optimum(trace), "exact lru": exact_lru(trace)}
        for policy in OURS:
            row[policy.value.removeprefix("allkeys-")] = sum(map(ours(policy), trace)) / len(trace)
        if with_redis:
            with redis_server() as client:
                for word in REDIS:
                    row["redis " + word.removeprefix("allkeys-")] = sum(map(theirs(client, word), trace)) / len(trace)
        print(f"{name:6}" + "".join(f"  {policy} {ratio:.3f}" for policy, ratio in row.items()), flush=True)
    return found


WIDTH, LEFT, BAR, SCALE = 860, 150, 15, 600
COLOURS = {"optimum": "#9a9a9a", "exact lru": "#c9c9c9", "redis": "#c8453b"}


def picture(found: dict[str, dict[str, float]]) -> str:
    """Bars by trace, as SVG."""
    parts: list[str] = []
    y = 50
    for name, row in found.items():
        parts.append(f'<text x="20" y="{y}" font-weight="bold">{escape(name)}</text>')
        y += 8
        for policy, ratio in row.items():
            colour = COLOURS.get(policy, COLOURS.get(policy.split()[0], "#2a7ab9"))
            parts += [
                f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(policy)}</text>',
                f'<rect x="{LEFT}" y="{y}" width="{ratio * SCALE:.0f}" height="{BAR - 3}" fill="{colour}"/>',
                f'<text x="{LEFT + ratio * SCALE + 6:.0f}" y="{y + 11}">{ratio:.1%}</text>',
            ]
            y += BAR
        y += 24
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" style="font:12px sans-serif">'
        f'<rect width="{WIDTH}" height="{y}" fill="white"/><text x="20" y="24" font-size="16" font-weight="bold">'
        f"Hit ratios with room for {ROOM:,} of {KEYS:,} keys</text>"
    )
    return head + "".join(parts) + "</svg>\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="hit ratios of the eviction policies")
    parser.add_argument("--requests", type=int, default=200_000, help="length of each trace (default %(default)s)")
    parser.add_argument("--redis", action="store_true", help="redis-server as well (it must be installed)")
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR", help="for the JSON and the SVG")
    options = parser.parse_args()
    if options.requests < 3 * KEYS:
        parser.error(f"--requests must be at least {3 * KEYS}")
    found = measure(options.requests, options.redis)
    document = {
        "subject": "hitratio",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": machine.commit(),
        "machine": machine.facts(),
        "requests": options.requests,
        "keys": KEYS,
        "room": ROOM,
        "ratios": found,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "hitratio.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.output / "hitratio.svg").write_text(picture(found))
    print(f"written: {options.output / 'hitratio.json'} and .svg")


if __name__ == "__main__":
    main()
