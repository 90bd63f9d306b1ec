"""The campaigns that the simulation is judged by: `python tests/sim/campaigns.py [CASE …]`, or one by its name.

demo        the demo's topology under random faults, 500 seeds, each twice with equal traces
register    the replicated register under random faults, 2,000 seeds: nothing is wrong
strings, blocking, eviction, types
            the cache under random faults (tests/sim/cache), 1,000 seeds each: nothing is wrong
twice       the same four, 50 seeds each, each twice with equal traces
BUG         a planted bug (minidist sim --list-bugs): found within 500 seeds

Of all but the bugs every seed must count: 30 s, 300 operations of 4 clients that ended ok, 3 faults of 2 kinds that
took effect, a liveness phase. All of them together take about an hour and a half of one processor. Exit code 3 when
one does not hold.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from minidist.cluster import demo
from minidist.sim.bugs import BUGS
from minidist.sim.campaign import Sums, run_seeds, run_twice
from minidist.sim.run import Ending, Settings

DEMO = str(Path(demo.__file__).with_name("minidist.toml"))
REGISTER = str(Path(__file__).with_name("register") / "scenario.py")
CACHE = {
    name: str(Path(__file__).with_name("cache") / f"cache_{name}.py")
    for name in ("strings", "blocking", "eviction", "types")
}
DEMO_SEEDS, REGISTER_SEEDS, BUG_SEEDS = range(1, 501), range(1, 2001), range(1, 501)
CACHE_SEEDS, TWICE_SEEDS = range(1, 1001), range(1, 51)
# Where a bug is to be found; in the demo when it is not named here.
PLACES = {
    **{bug.name: REGISTER for bug in BUGS if bug.name.startswith("register-")},
    "cache-expired-read": CACHE["strings"],
    "cache-reads-an-old-clock": CACHE["strings"],
    "cache-exec-ignores-expiry": CACHE["strings"],
    "cache-exec-ignores-watch": CACHE["strings"],
    "cache-half-a-transaction": CACHE["strings"],
    "cache-feeds-the-dead": CACHE["blocking"],
    "cache-serves-last-first": CACHE["blocking"],
    "cache-skips-a-message": CACHE["blocking"],
    "cache-evicts-what-must-stay": CACHE["eviction"],
    "cache-passes-its-limit": CACHE["eviction"],
    "cache-keeps-a-removed-field": CACHE["types"],
}
SETTINGS = Settings(faults="random", duration_s=30.0)
TELL_EVERY = 100
OK, MISSED = 0, 3

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def holds(file: str, seeds: range, *, twice: bool) -> bool:
    """Whether every seed is ok and counts."""
    sums = Sums()
    run = run_twice if twice else run_seeds
    for outcome in run(file, seeds, SETTINGS, os.cpu_count() or 1):
        sums.add(outcome)
        for text in (*outcome.problems, *outcome.shortfalls()):
            print(f"seed {outcome.seed}: {text}", flush=True)
        if sums.seeds % TELL_EVERY == 0:
            print(f"{sums.seeds} of {len(seeds)} seeds", flush=True)
    print(sums.text(), sums.digest(), sep="\n")
    return sums.all_ok() and not sums.short


def is_found(file: str, bug: str) -> bool:
    """Whether a seed shows the bug, and not by getting stuck."""
    settings = Settings(faults=SETTINGS.faults, duration_s=SETTINGS.duration_s, bug=bug)
    for outcome in run_seeds(file, BUG_SEEDS, settings, os.cpu_count() or 1):
        if outcome.ending is Ending.FAILED:
            print(f"found by seed {outcome.seed}: {outcome.problems[0]}")
            return True
    print(f"not found in {len(BUG_SEEDS)} seeds")
    return False


def all_twice() -> bool:
    """Whether every workload of the cache is the same again in another process."""
    return all(holds(file, TWICE_SEEDS, twice=True) for file in CACHE.values())


CASES: dict[str, Callable[[], bool]] = {
    "demo": partial(holds, DEMO, DEMO_SEEDS, twice=True),
    "register": partial(holds, REGISTER, REGISTER_SEEDS, twice=False),
    **{name: partial(holds, file, CACHE_SEEDS, twice=False) for name, file in CACHE.items()},
    "twice": all_twice,
    **{bug.name: partial(is_found, PLACES.get(bug.name, DEMO), bug.name) for bug in BUGS},
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="the campaigns that the simulation is judged by")
    parser.add_argument("case", nargs="*", choices=[[], *CASES], help="default: all")
    code = OK
    for name in parser.parse_args(argv).case or CASES:
        print(f"== {name}", flush=True)
        began_s = time.perf_counter()
        held = CASES[name]()
        peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _RSS_UNIT / 1e6
        print(
            f"{'ok' if held else 'MISSED'}, {time.perf_counter() - began_s:.0f} s, {peak_mb:.0f} MB a process at most"
        )
        code = code if held else MISSED
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
