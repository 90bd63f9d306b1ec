"""Hash slots of Redis Cluster: which of 16,384 slots a key belongs to.

The slot is CRC16/XMODEM of the key, modulo 16,384. Where a key contains `{…}` with something inside, only that (the
hash tag) is hashed, so that keys which share a tag share a slot.

Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

from binascii import crc_hqx
from collections.abc import Sequence

SLOTS = 16_384
SLOT_MASK = SLOTS - 1
OPENING_BRACE = ord("{")


def key_slot(key: bytes) -> int:
    """The slot of a key, 0 to 16383."""
    if OPENING_BRACE in key:  # an int, not b"{": five times cheaper
        return tagged_slot(key)
    return crc_hqx(key, 0) & SLOT_MASK


def tagged_slot(key: bytes) -> int:
    """The slot of a key that may have a hash tag."""
    opening = key.find(b"{")
    closing = key.find(b"}", opening + 1)
    if opening >= 0 and closing > opening + 1:
        key = key[opening + 1 : closing]
    return crc_hqx(key, 0) & SLOT_MASK


def key_slots(keys: Sequence[bytes]) -> list[int]:
    """The slots of several keys, without a call for each."""
    if OPENING_BRACE in b"".join(keys):
        return [key_slot(key) for key in keys]
    return [crc_hqx(key, 0) & SLOT_MASK for key in keys]
