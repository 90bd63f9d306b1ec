"""Slots as Redis Cluster's specification has them."""

from binascii import crc_hqx

import pytest

from minidist.structures.slots import key_slot, tagged_slot


@pytest.mark.parametrize(
    ("key", "slot"), [(b"123456789", 0x31C3), (b"", 0), (b"foo", 12182), (b"hello", 866), (b"somekey", 11058)]
)
def test_known_slots(key, slot):
    assert key_slot(key) == slot == tagged_slot(key)


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"{user1000}.following", b"user1000"),
        (b"foo{}{bar}", b"foo{}{bar}"),
        (b"foo{{bar}}zap", b"{bar"),
        (b"foo{bar}{zap}", b"bar"),
        (b"foo{bar", b"foo{bar"),
        (b"foo}bar{", b"foo}bar{"),
    ],
)
def test_hash_tags(key, hashed):
    assert key_slot(key) == crc_hqx(hashed, 0) % 16384
