#!/usr/bin/env python3
"""How long the checkers take and how much memory they need: `benchmarks/checking.py [CASE …]`.

Each case makes a history of a correct object, in which clients overlap as much as they can and some operations end
without an answer, and judges it in a process of its own; then the same history with some answers falsified. A case must
take at most 60 s and 1 GB, and give the right judgement. Exit code 3 when one does not.

`history` is also what the tests make their histories with.
"""

import argparse
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from minidist.engines.checking.history import event_line, read  # noqa: E402
from minidist.engines.checking.operation import Operation  # noqa: E402

MAX_S, MAX_BYTES = 60, 1_000_000_000
OK, MISSED = 0, 3


@dataclass(frozen=True)
class Shape:
    """What a history looks like: `values` is how many different ones are written; 0 means that each is new."""

    model: str
    operations: int
    keys: int = 1
    clients: int = 10
    values: int = 0
    info: float = 0.0
    reads: float = 0.5
    #: How much slower than their neighbours answers come: 1 keeps all clients busy at once.
    overlap: float = 1.0
    #: False where a falsified answer may be possible all the same: so much is written that anything may be read.
    telling: bool = True


class _Client:
    def __init__(self, process: int) -> None:
        self.process = process
        self.stage = 0  # 0 idle, 1 invoked, 2 took effect
        self.key = self.f = ""
        self.argument: Any = None
        self.result: Any = None
        self.done = True


class _World:
    """Correct objects, and clients that are between an invocation, the moment of its effect, and its answer."""

    def __init__(self, shape: Shape, rng: random.Random) -> None:
        self.shape = shape
        self.rng = rng
        self.lines: list[str] = []
        self.objects: dict[str, Any] = {}
        self.clients = [_Client(number) for number in range(shape.clients)]
        self.processes = shape.clients
        self.next_value = 0
        self.late: list[tuple[str, str, Any]] = []  # effects of unanswered operations, still to come
        self.invoked = 0

    def run(self) -> list[str]:
        shape, rng = self.shape, self.rng
        while self.invoked < shape.operations or any(client.stage for client in self.clients):
            if self.late and rng.random() < 0.02:
                self.effect(*self.late.pop(rng.randrange(len(self.late))))
            client = rng.choice(self.clients)
            if client.stage == 0 and self.invoked < shape.operations:
                if rng.random() < shape.overlap:
                    self.invoke(client)
            elif client.stage == 1:
                client.done, client.result = self.effect(client.key, client.f, client.argument)
                client.stage = 2
            elif client.stage == 2:
                self.answer(client)
        return self.lines

    def say(self, client: _Client, type_: str, value: Any) -> None:
        time_ns = 1_000 * len(self.lines)
        self.lines.append(event_line(client.process, type_, client.f, time_ns, key=client.key, value=value))

    def invoke(self, client: _Client) -> None:
        shape, rng = self.shape, self.rng
        self.invoked += 1
        client.key = f"k{rng.randrange(shape.keys)}"
        client.f, client.argument = self.choose(client.key)
        client.stage = 1
        self.say(client, "invoke", client.argument)
        if rng.random() < shape.info:
            # Nobody will know: it takes effect at once, later, or never.
            fate = rng.randrange(3)
            if fate == 0:
                self.effect(client.key, client.f, client.argument)
            elif fate == 1:
                self.late.append((client.key, client.f, client.argument))
            self.say(client, "info", client.argument)
            client.stage, client.process = 0, self.processes
            self.processes += 1

    def choose(self, key: str) -> tuple[str, Any]:
        shape, rng = self.shape, self.rng
        if rng.random() < shape.reads:
            return "read", None
        if shape.model == "counter":
            return "add", 1 + rng.randrange(max(1, shape.values))
        if shape.model == "set":
            return "add", self.value()
        if shape.model == "cas-register" and rng.random() < 0.5:
            return "cas", [self.objects.get(key) if rng.random() < 0.7 else self.value(), self.value()]
        return "write", self.value()

    def value(self) -> int:
        if self.shape.values:
            return self.rng.randrange(self.shape.values)
        self.next_value += 1
        return self.next_value

    def effect(self, key: str, f: str, argument: Any) -> tuple[bool, Any]:
        """Whether it succeeded, and what it returned."""
        model, state = self.shape.model, self.objects.get(key)
        if f == "read":
            return True, sorted(state or ()) if model == "set" else state
        if f == "write":
            self.objects[key] = argument
        elif f == "cas":
            if state != argument[0]:
                return False, None
            self.objects[key] = argument[1]
        elif model == "set":
            self.objects.setdefault(key, set()).add(argument)
        else:
            self.objects[key] = (state or 0) + argument
        return True, argument

    def answer(self, client: _Client) -> None:
        self.say(client, "ok" if client.done else "fail", client.result if client.done else client.argument)
        client.stage = 0


def history(shape: Shape, seed: int) -> list[str]:
    """The lines of a history that holds."""
    return _World(shape, random.Random(seed)).run()


def falsified(operations: list[Operation], seed: int) -> list[Operation]:
    """A tenth of the reads in the second half return what some earlier read of the same key returned."""
    rng = random.Random(seed)
    returned: dict[Any, list[Any]] = {}
    changed = list(operations)
    for place, each in enumerate(operations):
        if each.f != "read" or not each.is_ok:
            continue
        older = returned.setdefault(each.key, [])
        if place > len(operations) // 2 and older and rng.random() < 0.1:
            changed[place] = msgspec.structs.replace(each, result=rng.choice(older))
        older.append(each.result)
    return changed


CASES: dict[str, Shape] = {
    "register": Shape("register", 100_000, keys=100, info=0.01),
    "register-few-values": Shape("register", 100_000, keys=100, info=0.01, values=5),
    "cas-register": Shape("cas-register", 100_000, keys=100, info=0.01, values=5),
    "cas-register-new-values": Shape("cas-register", 100_000, keys=100, info=0.01),
    "counter": Shape("counter", 100_000, keys=100, info=0.01),
    "set": Shape("set", 100_000, keys=100, info=0.01),
    "one-key-register": Shape("register", 2_000, info=0.015),
    "one-key-register-few-values": Shape("register", 2_000, info=0.015, values=5),
    "one-key-cas-register": Shape("cas-register", 2_000, info=0.015, values=5),
    "one-key-cas-register-new-values": Shape("cas-register", 2_000, info=0.015),
    "one-key-counter": Shape("counter", 2_000, info=0.015),
    "one-key-counter-amounts": Shape("counter", 2_000, info=0.015, values=10),
    "one-key-set": Shape("set", 2_000, info=0.015),
    "one-key-write-heavy": Shape("register", 2_000, info=0.015, values=5, reads=0.1, telling=False),
    "one-key-read-heavy": Shape("register", 2_000, info=0.15, values=5, reads=0.9),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="measure the checkers")
    parser.add_argument("case", nargs="*", choices=[*CASES, []], help="default: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inside", choices=("right", "wrong"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.case or list(CASES)
    if options.inside:
        return judge(names[0], options.seed, options.inside == "wrong")
    print(f"{'case':<34} {'history':<7} {'judgement':<10} {'seconds':>8} {'MB':>6}  evidence")
    held = True
    for name in names:
        for inside in ("right", "wrong"):
            command = [sys.executable, __file__, name, "--seed", str(options.seed), "--inside", inside]
            held = subprocess.run(command, check=False).returncode == OK and held
    return OK if held else MISSED


def judge(name: str, seed: int, wrong: bool) -> int:
    """One case, in this process; one line of the table."""
    from minidist.engines.checking import Budget, check

    shape = CASES[name]
    operations = read(history(shape, seed))
    if wrong:
        operations = falsified(operations, seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
    began = time.perf_counter()
    verdict = check(operations, shape.model, Budget(_until(began + MAX_S)))
    took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
    evidence = f"{len(verdict.violations[0].evidence)} operations" if verdict.violations else ""
    print(
        f"{name:<34} {'wrong' if wrong else 'right':<7} {verdict.judgement.value:<10} {took:8.2f} {peak / 1e6:6.0f}"
        f"  {evidence} (history alone {before / 1e6:.0f} MB)",
        flush=True,
    )
    expected = {"violated" if wrong else "holds"} | ({"holds"} if not shape.telling else set())
    return OK if verdict.judgement.value in expected and took <= MAX_S and peak <= MAX_BYTES else MISSED


_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def _until(end: float) -> Callable[[], bool]:
    return lambda: time.perf_counter() > end


if __name__ == "__main__":
    sys.exit(main())
