"""The bit-parallel table against the textbook's."""

from hypothesis import given
from hypothesis import strategies as st

from minidist.engines.keyspace.commands.lcs import common_subsequence, runs

TEXTS = st.text("abc", max_size=12).map(str.encode)


def textbook(one: bytes, two: bytes) -> list[tuple[int, int]]:
    """The full table of lengths, walked back as Redis does."""
    lengths = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one, 1):
        for j, b in enumerate(two, 1):
            lengths[i][j] = lengths[i - 1][j - 1] + 1 if a == b else max(lengths[i - 1][j], lengths[i][j - 1])
    matches = []
    i, j = len(one), len(two)
    while i and j:
        if one[i - 1] == two[j - 1]:
            i, j = i - 1, j - 1
            matches.append((i, j))
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return matches[::-1]


@given(TEXTS, TEXTS)
def test_the_same_matches(one, two):
    assert common_subsequence(one, two) == textbook(one, two)


def test_runs_join_neighbours():
    assert runs([(0, 2), (1, 3), (3, 4)]) == [(0, 2, 2), (3, 4, 1)]


def test_long_strings():
    assert len(common_subsequence(b"ab" * 3000, b"ba" * 3000)) == 5999
