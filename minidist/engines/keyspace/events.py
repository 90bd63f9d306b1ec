"""Kinds of keyspace events, as `notify-keyspace-events` names them by letters.

Source: https://redis.io/docs/latest/develop/use/keyspace-notifications/
"""

KEYSPACE, KEYEVENT = 1, 2
GENERIC, STRING, LIST, SET, HASH, SORTED_SET = 4, 8, 16, 32, 64, 128
EXPIRED, EVICTED, STREAM, MODULE, MISS, NEW = 256, 512, 1024, 2048, 4096, 8192
LETTERS = {
    "K": KEYSPACE, "E": KEYEVENT, "g": GENERIC, "$": STRING, "l": LIST, "s": SET, "h": HASH, "z": SORTED_SET,
    "x": EXPIRED, "e": EVICTED, "t": STREAM, "d": MODULE, "m": MISS, "n": NEW,
}  # fmt: skip
ALL = GENERIC | STRING | LIST | SET | HASH | SORTED_SET | EXPIRED | EVICTED | STREAM | MODULE
