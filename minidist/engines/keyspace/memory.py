"""What keys and values weigh: the accounting behind `used_memory` and `maxmemory`.

The sum is kept while keys come and go, so it must be cheap: lengths plus constants. The constants are what CPython's
allocator takes on average, measured by tests/engines/keyspace/test_memory.py, which holds the account within 15 % of
the growth of the process at 100 MB of data. The memory of a table's dict is not estimated: it is asked for
(`__sizeof__`) whenever a key is inserted.
"""

from typing import Any

# bytes object: 33 bytes around its contents, and on average 8 lost to the allocator's rounding up to 16.
BYTES_OBJECT = 41
# bytearray object: 56 bytes, the allocation's own header and rounding.
BYTEARRAY_OBJECT = 80
# Entry object of three slots: 40 bytes and the collector's 16, rounded up.
ENTRY_OBJECT = 64
# An integer of its own for the time of expiry.
EXPIRY_BYTES = 32
# All that a key costs, besides its length and its value.
ENTRY_BYTES = ENTRY_OBJECT + BYTES_OBJECT


def value_bytes(value: Any) -> int:
    """Memory of a value: a string's by its length; other types keep count themselves, in `memory_bytes`."""
    kind = value.__class__
    if kind is bytes:
        return len(value) + BYTES_OBJECT
    if kind is bytearray:
        return int(value.__alloc__()) + BYTEARRAY_OBJECT
    return int(value.memory_bytes)
