"""The account of memory against what the process really grows by, at 100 MB of data."""

import json
import subprocess
import sys

import pytest

# Run in a process of its own, whose growth is nothing but the data. 30 MB are loaded first, so that what the
# interpreter and the allocator take once is not counted.
PROGRAM = """
import gc, json, random, sys
from minidist.engines.keyspace.tables import NEVER
from minidist.engines.keyspace.keyspace import Keyspace

def rss_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

key_bytes, value_bytes, expiring = json.loads(sys.argv[1])
rng = random.Random(1)
keyspace = Keyspace(16, rng)
gc.disable()
number = now = 0
def load(until):
    global number, now
    while keyspace.used_bytes < until:
        number += 1
        key = b"%0*d" % (key_bytes, number)
        value = bytes(rng.randint(1, value_bytes * 2) if value_bytes > 0 else -value_bytes)
        if number % 50 == 1:  # the service shares one integer per millisecond
            now = 1_700_000_000_000 + number // 50
        keyspace.databases[0].put(key, value, now, now + 10_000_000 + number if expiring else NEVER)
load(30_000_000)
before, accounted = rss_bytes(), keyspace.used_bytes
load(130_000_000)
print(json.dumps([rss_bytes() - before, keyspace.used_bytes - accounted]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("key_bytes", "value_bytes", "expiring"),
    [(16, -64, False), (16, 64, True), (40, 1000, False), (12, -3, False), (30, 20_000, True)],
    ids=["64-byte values", "mixed, expiring", "about 1 kB", "counters", "about 20 kB, expiring"],
)
def test_within_15_percent_of_the_growth_of_the_process(key_bytes, value_bytes, expiring):
    arguments = json.dumps([key_bytes, value_bytes, expiring])
    run = subprocess.run([sys.executable, "-c", PROGRAM, arguments], capture_output=True, text=True, check=True)
    grown, accounted = json.loads(run.stdout)
    assert 0.85 <= accounted / grown <= 1.15, f"{accounted / grown:.3f}: accounted {accounted}, grown by {grown}"
