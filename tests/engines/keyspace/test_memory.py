"""The account of memory against what the process really grows by, at 75 MB of data."""

import pytest

PROGRAM = """
from minidist.engines.keyspace.tables import NEVER

key_bytes, value_bytes, expiring = arguments
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
"""


@pytest.mark.parametrize(
    ("key_bytes", "value_bytes", "expiring"),
    [(16, -64, False), (16, 64, True), (40, 1000, False), (12, -3, False), (30, 20_000, True)],
    ids=["64-byte values", "mixed, expiring", "about 1 kB", "counters", "about 20 kB, expiring"],
)
def test_within_15_percent_of_the_growth_of_the_process(check_account, key_bytes, value_bytes, expiring):
    check_account(PROGRAM, key_bytes, value_bytes, expiring)
