"""Reading what sorted-set commands are given: scores, ranges by score and by member, positions; and their replies."""

import math
import re
from collections.abc import Iterable

from minidist.engines.keyspace.arguments import integer
from minidist.engines.keyspace.errors import NOT_A_FLOAT, SYNTAX, CommandError
from minidist.engines.keyspace.sortedsets import MemberRange, Pair, ScoreRange
from minidist.wire.resp_replies import array, bulk, double

NOT_A_SCORE_RANGE = "ERR min or max is not a float"
NOT_A_MEMBER_RANGE = "ERR min or max not valid string range item"
NOT_A_NUMBER = "ERR resulting score is not a number (NaN)"

# Nearly all scores: nothing here can be too large, or padded, or no number. `float` reads them as they are meant.
is_plain = re.compile(rb"[+-]?[0-9]{1,17}(?:\.[0-9]{1,17})?").fullmatch
_hexadecimal = re.compile(rb"[+-]?0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?[0-9]+)?", re.IGNORECASE).fullmatch
_infinite = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE).fullmatch
_zero = re.compile(rb"[+-]?[0.]+(?:e[+-]?[0-9]+)?", re.IGNORECASE).fullmatch
WHITE_SPACE = b" \t\n\v\f\r"


def score_argument(text: bytes, error: str = NOT_A_FLOAT) -> float:
    """A score as C's strtod reads it, but no NaN, and nothing too large or too small for a double."""
    if is_plain(text):
        return float(text)
    value = _strtod(text)
    if value is None or (math.isinf(value) and not _infinite(text)) or (value == 0 and not _is_zero(text)):
        raise CommandError(error)
    return value


def _is_zero(text: bytes) -> bool:
    return _zero(text) is not None or _hexadecimal(text) is not None


def _strtod(text: bytes) -> float | None:
    """A number without blanks around it; None for what is none."""
    if text != text.strip() or b"_" in text:
        return None
    try:
        value = float.fromhex(text.decode("latin-1")) if _hexadecimal(text) else float(text)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(value) else value


def score_range(low: bytes, high: bytes) -> ScoreRange:
    """From MIN and MAX: numbers, with `(` before one that is left out itself. Raises CommandError."""
    return ScoreRange(_bound(low), _bound(high), low[:1] == b"(", high[:1] == b"(")


def _bound(text: bytes) -> float:
    """One end of a range by score. Redis takes nothing for 0 here, skips blanks before, and knows no overflow."""
    text = text.removeprefix(b"(")
    value = _strtod(text.lstrip(WHITE_SPACE)) if text else 0.0
    if value is None:
        raise CommandError(NOT_A_SCORE_RANGE)
    return value


def member_range(low: bytes, high: bytes) -> MemberRange:
    """From MIN and MAX: `[` or `(` before a member, or `-`, or `+`. Raises CommandError."""
    return MemberRange(_member_bound(low), _member_bound(high), low[:1] == b"(", high[:1] == b"(")


def _member_bound(text: bytes) -> bytes | None:
    if text == b"-":
        return b""
    if text == b"+":
        return None
    if text[:1] not in (b"(", b"["):
        raise CommandError(NOT_A_MEMBER_RANGE)
    return text[1:]


def rank_range(start: bytes, stop: bytes) -> tuple[int, int]:
    """Positions as given: both included, negative ones counted from the end. Raises CommandError."""
    return integer(start), integer(stop)


def resolved(start: int, stop: int, length: int) -> tuple[int, int]:
    """Positions in a collection of this length, the last not included; start is not before stop where it is empty."""
    if start < 0:
        start = max(start + length, 0)
    if stop < 0:
        stop += length
    return start, min(stop + 1, length)


def counted_keys(args: tuple[bytes, ...], at: int, name: str) -> tuple[list[bytes], int]:
    """The keys after their number, which is argument `at`, and where the arguments go on. Raises CommandError."""
    count = integer(args[at])
    if count < 1:
        raise CommandError(f"ERR at least 1 input key is needed for '{name}' command")
    if count > len(args) - at - 1:
        raise CommandError(SYNTAX)
    return list(args[at + 1 : at + 1 + count]), at + 1 + count


# --- replies --------------------------------------------------------------------------------------------------------


def members_reply(pairs: Iterable[Pair]) -> bytes:
    return array([bulk(member) for _, member in pairs])


def pairs_reply(pairs: list[Pair], resp3: bool) -> bytes:
    """Members with their scores: an array of pairs, or one flat array for RESP2."""
    if resp3:
        return nested_pairs_reply(pairs, resp3)
    return b"*%d\r\n" % (2 * len(pairs)) + b"".join([bulk(member) + double(score, False) for score, member in pairs])


def nested_pairs_reply(pairs: list[Pair], resp3: bool) -> bytes:
    return array([b"*2\r\n" + bulk(member) + double(score, resp3) for score, member in pairs])


def range_reply(pairs: list[Pair], with_scores: bool, resp3: bool) -> bytes:
    return pairs_reply(pairs, resp3) if with_scores else members_reply(pairs)
