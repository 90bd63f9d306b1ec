"""Glob patterns against a plain translation of Redis' rules, and their speed on patterns made to be slow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidist.structures.glob import glob_matcher


def matches_slowly(pattern: bytes, key: bytes) -> bool:
    """Redis' rules by recursion, one byte at a time."""
    if not pattern:
        return not key
    first = pattern[0:1]
    if first == b"*":
        return any(matches_slowly(pattern[1:], key[at:]) for at in range(len(key) + 1))
    if not key:
        return False
    if first == b"?":
        return matches_slowly(pattern[1:], key[1:])
    if first == b"[":
        matched, rest = class_matches(pattern[1:], key[0])
        return matched and matches_slowly(rest, key[1:])
    if first == b"\\" and len(pattern) > 1:
        pattern = pattern[1:]
    return pattern[0] == key[0] and matches_slowly(pattern[1:], key[1:])


def class_matches(pattern: bytes, byte: int) -> tuple[bool, bytes]:
    negated = pattern[:1] == b"^"
    pattern = pattern[negated:]
    matched = False
    while pattern and pattern[:1] != b"]":
        if pattern[:1] == b"\\" and len(pattern) > 1:
            matched |= pattern[1] == byte
            pattern = pattern[2:]
        elif len(pattern) > 2 and pattern[1:2] == b"-":
            matched |= min(pattern[0], pattern[2]) <= byte <= max(pattern[0], pattern[2])
            pattern = pattern[3:]
        else:
            matched |= pattern[0] == byte
            pattern = pattern[1:]
    return matched != negated, pattern[1:]


LETTERS = st.text("ab-^]*?[\\\n", max_size=7).map(str.encode)


@given(LETTERS, st.text("ab-^]\n", max_size=7).map(str.encode))
def test_the_rules(pattern, key):
    assert bool(glob_matcher(pattern)(key)) == matches_slowly(pattern, key)


@pytest.mark.parametrize("pattern", [b"a*" * 100 + b"b", b"*?" * 50 + b"b", b"*a*a*a*a*a*a*a*a*a*a*b"])
def test_many_stars_are_no_trap(pattern):
    assert not glob_matcher(pattern)(b"a" * 5000)
