"""Redis' glob patterns (KEYS, SCAN MATCH, CONFIG GET, PSUBSCRIBE) as regular expressions over bytes.

`*` any run, `?` any byte, `[abc]`, `[a-z]`, `[^a]` one byte of (not of) a class, `\\x` the byte x. A class left open
ends with the pattern, as in Redis (util.c, `stringmatchlen`). The piece after each `*` is matched at its first place
and never tried again (an atomic group), which loses nothing and keeps matching linear, however many stars a client
sends.
"""

import re
from collections.abc import Callable

Matcher = Callable[[bytes], object]


def glob_matcher(pattern: bytes) -> Matcher:
    """A function that is true for the keys that match."""
    pieces = _pieces(pattern)
    if len(pieces) == 1:
        expression = pieces[0]
    else:
        middle = b"".join(b"(?>.*?%b)" % piece for piece in pieces[1:-1] if piece)
        expression = pieces[0] + middle + b".*" + pieces[-1]
    return re.compile(expression, re.DOTALL).fullmatch


def _pieces(pattern: bytes) -> list[bytes]:
    """The pattern cut at its stars, each piece as a regular expression of fixed length."""
    pieces = [b""]
    at = 0
    while at < len(pattern):
        byte = pattern[at : at + 1]
        at += 1
        if byte == b"*":
            pieces.append(b"")
        elif byte == b"?":
            pieces[-1] += b"."
        elif byte == b"[":
            expression, at = _class(pattern, at)
            pieces[-1] += expression
        else:
            if byte == b"\\" and at < len(pattern):
                byte = pattern[at : at + 1]
                at += 1
            pieces[-1] += re.escape(byte)
    return pieces


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The class that starts after `[` at a position, as a regular expression, and the position after it."""
    negated = pattern[at : at + 1] == b"^"
    at += negated
    members = bytearray(256)
    while at < len(pattern) and pattern[at] != ord("]"):
        if pattern[at] == ord("\\") and at + 1 < len(pattern):
            at += 1
            members[pattern[at]] = 1
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < len(pattern):
            low, high = sorted((pattern[at], pattern[at + 2]))
            members[low : high + 1] = b"\1" * (high + 1 - low)
            at += 2
        else:
            members[pattern[at]] = 1
        at += 1
    chosen = b"".join(b"\\x%02x" % byte for byte in range(256) if members[byte])
    if not chosen:
        return (b"." if negated else b"(?!)"), at + 1
    return b"[%b%b]" % (b"^" if negated else b"", chosen), at + 1
