"""What hashes and sets account for, against what the process really takes; as test_memory.py does for strings."""

import pytest

PROGRAM = """
from minidist.engines.keyspace.hashes import Hash
from minidist.engines.keyspace.sets import Set

kind, size, value_bytes = arguments
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
"""


@pytest.mark.parametrize(
    ("kind", "size", "value_bytes"),
    [("hash", 5, 20), ("hash", 100, 64), ("hash", 100_000, 20), ("set", 5, 0), ("set", 100_000, 0), ("set", 1, 0)],
    ids=["hashes of 5", "hashes of 100", "hashes of 100,000", "sets of 5", "sets of 100,000", "sets of 1"],
)
def test_within_15_percent_of_the_growth_of_the_process(check_account, kind, size, value_bytes):
    check_account(PROGRAM, kind, size, value_bytes)
