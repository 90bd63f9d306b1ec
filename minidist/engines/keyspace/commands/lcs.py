"""LCS: the longest common subsequence of two strings.

The table of lengths is kept as one big integer per byte of the first string, with a bit for each byte of the second:
bit j is clear where the length grows from column j to j+1 (H. Hyyrö, "Bit-parallel LCS-length computation revisited",
2004). Python adds such integers thousands of columns at a time. Walking back through the table needs one bit per step.
"""

from minidist.engines.keyspace.arguments import integer, option
from minidist.engines.keyspace.errors import SYNTAX, CommandError
from minidist.engines.keyspace.registry import TWO_KEYS, CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.texts import is_string, text
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import bulk, encode
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()

# 32 MB of bits, and some 50 ms of work.
MOST_CELLS = 1 << 28


@TABLE.command(
    "LCS", arity=-3, flags="readonly", keys=TWO_KEYS, since="7.0.0", group="string",
    summary="Finds the longest common substring.", complexity="O(N*M) where N and M are the lengths of the strings",
)  # fmt: skip
def lcs(session: Session, args: Arguments, now_ms: int) -> bytes:
    words, least = _options(args)
    one, two = (_text(session, key, now_ms) for key in args[1:3])
    if b"LEN" in words and b"IDX" in words:
        raise CommandError("ERR If you want both the length and indexes, please just use IDX.")
    if len(one) * len(two) > MOST_CELLS:
        raise CommandError("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")
    matches = common_subsequence(one, two)
    if b"LEN" in words:
        return integer_reply(len(matches))
    if b"IDX" not in words:
        return bulk(bytes(one[at] for at, _ in matches))
    shown = []
    for first, second, length in reversed(runs(matches)):
        if length >= least:
            ranges: list[object] = [[first, first + length - 1], [second, second + length - 1]]
            shown.append(ranges + [length] * (b"WITHMATCHLEN" in words))
    return encode({"matches": shown, "len": len(matches)}, session.resp3)


def _options(args: Arguments) -> tuple[list[bytes], int]:
    words, least = [], 0
    at = 3
    while at < len(args):
        words.append(option(args[at], (b"LEN", b"IDX", b"WITHMATCHLEN", b"MINMATCHLEN")))
        if words[-1] == b"MINMATCHLEN":
            at += 1
            if at == len(args):
                raise CommandError(SYNTAX)
            least = max(integer(args[at]), 0)
        at += 1
    return words, least


def _text(session: Session, key: bytes, now_ms: int) -> bytes:
    entry = session.database.read(key, now_ms)
    if entry is None:
        return b""
    if not is_string(entry):
        raise CommandError("ERR The specified keys must contain string values")
    return text(entry)


def common_subsequence(one: bytes, two: bytes) -> list[tuple[int, int]]:
    """The pairs of positions of a longest common subsequence, in order; of several the one that Redis chooses."""
    places: dict[int, int] = {}
    for at, byte in enumerate(two):
        places[byte] = places.get(byte, 0) | 1 << at
    everywhere = (1 << len(two)) - 1
    rows = []
    row = everywhere
    for byte in one:
        hits = row & places.get(byte, 0)
        row = ((row + hits) | (row - hits)) & everywhere
        rows.append(row)
    matches = []
    i, j = len(one) - 1, len(two) - 1
    while i >= 0 and j >= 0:
        if one[i] == two[j]:
            matches.append((i, j))
            i, j = i - 1, j - 1
        elif rows[i] >> j & 1:
            j -= 1
        else:
            i -= 1
    return matches[::-1]


def runs(matches: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Neighbouring matches joined: (position in the first, in the second, length)."""
    found: list[tuple[int, int, int]] = []
    for i, j in matches:
        if found and (i, j) == (found[-1][0] + found[-1][2], found[-1][1] + found[-1][2]):
            found[-1] = (*found[-1][:2], found[-1][2] + 1)
        else:
            found.append((i, j, 1))
    return found
