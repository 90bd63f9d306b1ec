"""The longest stop of the loop with a million keys, as another client sees it: expiry, eviction, FLUSHALL, DEL, SCAN.

A client that only sends PING (lab/pinger.py) shares the load's core with the one that acts. Its longest wait is an
upper bound of what any step of the server took: it contains whatever the machine did meanwhile, which the row of an
idle server shows. Of several runs the median of the longest waits counts, since what a server does it does every time.
redis-server is shown for orientation; it too frees in the background what UNLINK removes, but not what DEL and FLUSHALL
remove.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from lab import servers
from lab.client import Client, Word
from lab.figures import Figure, Result, Target
from lab.machine import Cores, staying_on
from lab.servers import Running, pinned, process
from lab.settings import Settings
from peers import redis

STOP_MS = Target(5.0, higher=False)
KEYS, QUICK_KEYS = 1_000_000, 100_000
VALUE = b"x" * 64
ELEMENTS_AT_ONCE = 200
# What a server may still be freeing after an action.
SETTLE_S, QUICK_SETTLE_S = 3.0, 1.0
EXPIRY_TIMEOUT_S = 60
PINGER = Path(__file__).resolve().parents[1] / "lab" / "pinger.py"


@dataclass(frozen=True)
class Stage:
    """A server with a client, and how large everything is."""

    server: Running
    client: Client
    keys: int
    settle_s: float

    def fill(self, *words: Word, name: bytes = b"key") -> None:
        self.client.send_all((b"SET", b"%b:%012d" % (name, key), VALUE, *words) for key in range(self.keys))


Act = Callable[[], None]


def idle(stage: Stage) -> Act:
    stage.fill()
    return lambda: time.sleep(stage.settle_s)


def writing(stage: Stage) -> Act:
    return stage.fill


def expiry(stage: Stage) -> Act:
    """All keys within the same millisecond."""
    begun_s = time.monotonic()
    stage.fill(name=b"other")
    took_s = time.monotonic() - begun_s
    stage.client.ask("FLUSHALL")
    time.sleep(stage.settle_s)
    at_ms = int((time.time() + 1.5 * took_s + 2) * 1000)
    stage.fill(b"PXAT", at_ms)
    if time.time() * 1000 > at_ms:
        raise RuntimeError("the keys expired while they were written: the machine is busy")

    def until_gone() -> None:
        deadline_s = time.monotonic() + EXPIRY_TIMEOUT_S
        while stage.client.ask("DBSIZE"):
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"{stage.server.name}: keys have not expired after {EXPIRY_TIMEOUT_S} s")
            time.sleep(0.1)

    return until_gone


def eviction(stage: Stage) -> Act:
    """The limit is reached, and a tenth as many new keys come."""
    limit = full(stage)
    stage.client.ask("CONFIG", "SET", "maxmemory", limit)
    return lambda: write_more(stage)


def lowering(stage: Stage) -> Act:
    """The limit is halved, and new keys come while the others go."""
    limit = full(stage)

    def act() -> None:
        stage.client.ask("CONFIG", "SET", "maxmemory", limit // 2)
        write_more(stage)

    return act


def full(stage: Stage) -> int:
    """All keys are there; the memory that they take."""
    stage.fill()
    stage.client.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    lines: list[bytes] = stage.client.ask("INFO", "memory").split()
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"used_memory:"))


def write_more(stage: Stage) -> None:
    stage.client.send_all((b"SET", b"new:%012d" % key, VALUE) for key in range(stage.keys // 10))


def flushall(stage: Stage) -> Act:
    stage.fill()
    return lambda: stage.client.ask("FLUSHALL")


def scan(stage: Stage) -> Act:
    """All keys, with the default COUNT."""
    stage.fill()

    def act() -> None:
        cursor = b"0"
        while (cursor := stage.client.ask("SCAN", cursor)[0]) != b"0":
            pass

    return act


def deletion(command: str, *elements: Callable[[int], bytes]) -> Callable[[Stage], Act]:
    """DEL of one value with as many elements as there are keys elsewhere."""

    def prepare(stage: Stage) -> Act:
        def commands() -> Iterator[tuple[Word, ...]]:
            for first in range(0, stage.keys, ELEMENTS_AT_ONCE):
                words = [of(each) for each in range(first, first + ELEMENTS_AT_ONCE) for of in elements]
                yield (command, "large", *words)

        stage.client.send_all(commands())
        return lambda: stage.client.ask("DEL", "large")

    return prepare


def member(number: int) -> bytes:
    return b"member:%09d" % number


def score(number: int) -> bytes:
    return b"%d" % number


CASES: dict[str, Callable[[Stage], Act]] = {
    "idle": idle,
    "writing 1M keys": writing,
    "expiry of 1M keys": expiry,
    "eviction at 1M keys": eviction,
    "limit halved at 1M keys": lowering,
    "FLUSHALL of 1M keys": flushall,
    "SCAN of 1M keys": scan,
    "DEL of a list of 1M": deletion("RPUSH", member),
    "DEL of a set of 1M": deletion("SADD", member),
    "DEL of a hash of 1M": deletion("HSET", member, member),
    "DEL of a sorted set of 1M": deletion("ZADD", score, member),
}


def run(settings: Settings, cores: Cores, folder: Path) -> Result:
    """Every case on a fresh server, ours and theirs in turn."""
    result = Result(settings={"keys": QUICK_KEYS if settings.quick else KEYS})
    with staying_on(cores.load):
        for case in settings.chosen(list(CASES)):
            settings.say(case)
            worst_ms: dict[bool, list[float]] = {True: [], False: []}
            for mine in [True, False] * settings.pairs:
                worst_ms[mine].append(longest_stop(case, settings, cores, folder, mine=mine, result=result))
            ours, theirs = median(worst_ms[True]), median(worst_ms[False])
            spread = min(worst_ms[True]), max(worst_ms[True])
            target = Target() if case == "idle" else STOP_MS
            result.figures.append(
                Figure(
                    case,
                    "stop",
                    ours,
                    theirs,
                    "ms",
                    ours,
                    target,
                    is_ratio=False,
                    note=f"{spread[0]:.1f} to {spread[1]:.1f} ms",
                )
            )
    return result


def longest_stop(case: str, settings: Settings, cores: Cores, folder: Path, *, mine: bool, result: Result) -> float:
    """In ms, from the beginning of the action until what it left behind has been freed."""
    settle_s = QUICK_SETTLE_S if settings.quick else SETTLE_S
    starting = (
        servers.minidist("cache", "--max-memory", "8gb", core=cores.server, folder=folder)
        if mine
        else redis.start(cores.server, folder)
    )
    with starting as server, Client(server) as client:
        result.versions[server.name] = server.version
        act = CASES[case](Stage(server, client, QUICK_KEYS if settings.quick else KEYS, settle_s))
        with pinging(server, cores, folder) as waits:
            act()
            time.sleep(settle_s)
    settings.say(f"{server.name}: longest waits {waits} ms")
    return waits[0]


@contextlib.contextmanager
def pinging(server: Running, cores: Cores, folder: Path) -> Iterator[list[float]]:
    """A list that holds the longest waits of a pinger, in ms, when the block has ended."""
    waits: list[float] = []
    command = [sys.executable, str(PINGER), server.host, str(server.port)]
    with process(pinned(cores.load, command), folder / "pinger.log", stdin=subprocess.PIPE) as pinger:
        assert pinger.stdin is not None
        assert pinger.stdout is not None
        if pinger.stdout.readline() != "ready\n":
            raise RuntimeError(f"the pinger did not start: {(folder / 'pinger.log').read_text()[-300:]}")
        yield waits
        pinger.stdin.close()
        waits += json.loads(pinger.stdout.readline())["worst_ms"]
