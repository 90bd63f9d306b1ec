"""What hashes and sets account for, against what the process really takes; as test_memory.py does for strings."""

import json
import subprocess
import sys

import pytest

# 20 MB are loaded first, so that what the interpreter and the allocator take once is not counted.
PROGRAM = """
import gc, json, random, sys
from minidist.engines.keyspace.hashes import Hash
from minidist.engines.keyspace.keyspace import Keyspace
from minidist.engines.keyspace.sets import Set

def rss_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

kind, size, value_bytes = json.loads(sys.argv[1])
rng = random.Random(1)
keyspace = Keyspace(16, rng)
gc.disable()
number = now = 0
def load(until):
    global number, now
    database = keyspace.databases[0]
    while keyspace.used_bytes < until:
        number += 1
        key = b"key:%012d" % number
        if number % 50 == 1:  # the service shares one integer per millisecond
            now = 1_700_000_000_000 + number // 50
        value = Hash() if kind == "hash" else Set()
        for member in range(size):
            name = b"%d:%06d" % (number, member)
            if kind == "hash":
                value.set(name, bytes(rng.randint(1, value_bytes * 2)))
            else:
                value.add(name)
        database.put(key, value, now)
load(20_000_000)
before, accounted = rss_bytes(), keyspace.used_bytes
load(80_000_000)
print(json.dumps([rss_bytes() - before, keyspace.used_bytes - accounted]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("kind", "size", "value_bytes"),
    [("hash", 5, 20), ("hash", 100, 64), ("hash", 100_000, 20), ("set", 5, 0), ("set", 100_000, 0), ("set", 1, 0)],
    ids=["hashes of 5", "hashes of 100", "hashes of 100,000", "sets of 5", "sets of 100,000", "sets of 1"],
)
def test_within_15_percent_of_the_growth_of_the_process(kind, size, value_bytes):
    arguments = json.dumps([kind, size, value_bytes])
    run = subprocess.run([sys.executable, "-c", PROGRAM, arguments], capture_output=True, text=True, check=True)
    grown, accounted = json.loads(run.stdout)
    assert 0.85 <= accounted / grown <= 1.15, f"{accounted / grown:.3f}: accounted {accounted}, grown by {grown}"
