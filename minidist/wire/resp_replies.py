"""Replies as they travel in RESP2 and RESP3: plain functions from values to bytes.

RESP3 has types that RESP2 lacks; for a RESP2 client each is written as the RESP2 type that Redis maps it to: a map is a
flat array, a set an array, a double and a verbatim text a bulk string, a boolean 0 or 1, a push an array, null the null
bulk string. Functions that differ take `resp3`. Whatever is frequent is encoded once, here.

Source: https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md
"""

import math
from collections.abc import Iterable, Mapping, Sequence

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
QUEUED = b"+QUEUED\r\n"
RESET = b"+RESET\r\n"
NULL = b"_\r\n"
NULL_BULK = b"$-1\r\n"
NULL_ARRAY = b"*-1\r\n"
EMPTY_ARRAY = b"*0\r\n"
EMPTY_BULK = b"$0\r\n\r\n"

_INTEGERS = tuple(b":%d\r\n" % value for value in range(1024))
ZERO, ONE = _INTEGERS[:2]
# Whole doubles up to here are written in full.
LARGEST_WHOLE = float(1 << 62)
# `$N\r\n` for the usual lengths: joining three pieces is cheaper than formatting.
BULK_HEADERS = tuple(b"$%d\r\n" % length for length in range(2048))


def integer(value: int) -> bytes:
    return _INTEGERS[value] if 0 <= value < 1024 else b":%d\r\n" % value


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def simple(text: str) -> bytes:
    """A status line; the text must not contain CR or LF."""
    return b"+%b\r\n" % text.encode()


def error(text: str) -> bytes:
    """An error line. What cannot stand in one (CR, LF; the text may quote a client's bytes) becomes a blank."""
    return b"-%b\r\n" % text.encode("utf-8", "surrogateescape").replace(b"\r", b" ").replace(b"\n", b" ")


def null(resp3: bool) -> bytes:
    return NULL if resp3 else NULL_BULK


def null_array(resp3: bool) -> bytes:
    return NULL if resp3 else NULL_ARRAY


def array(encoded: Sequence[bytes]) -> bytes:
    """An array of replies that are already encoded."""
    return b"*%d\r\n%b" % (len(encoded), b"".join(encoded))


def bulks(values: Iterable[bytes]) -> bytes:
    """An array of bulk strings."""
    return array([bulk(value) for value in values])


def map_header(pairs: int, resp3: bool) -> bytes:
    return b"%%%d\r\n" % pairs if resp3 else b"*%d\r\n" % (2 * pairs)


def set_header(count: int, resp3: bool) -> bytes:
    return b"~%d\r\n" % count if resp3 else b"*%d\r\n" % count


def push_header(count: int, resp3: bool) -> bytes:
    return b">%d\r\n" % count if resp3 else b"*%d\r\n" % count


def boolean(value: bool, resp3: bool) -> bytes:
    if resp3:
        return b"#t\r\n" if value else b"#f\r\n"
    return ONE if value else ZERO


def double_text(value: float) -> bytes:
    """A double as Redis 7.2 writes it: the fewest digits that mean it, `3` for 3.0, `inf`, `-inf`, `nan`, `-0`.

    Source: redis 7.2, util.c `d2string` and fpconv's `emit_digits`, which decide between 0.00001 and 1e-5.
    """
    if value.is_integer() and abs(value) <= LARGEST_WHOLE:
        return b"%d" % value if value or math.copysign(1, value) > 0 else b"-0"
    text = repr(value)
    if not math.isfinite(value) or (len(text) < 9 and "e" not in text):
        return text.encode()
    mantissa, _, exponent = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    power = int(exponent or 0) - len(fraction) + len(digits)  # of ten, of what is written as 0.DIGITS
    digits = digits.rstrip("0")
    sign, last = "-" * (value < 0), power - len(digits)
    if last >= 0 and power <= len(digits) + 7:
        return f"{sign}{digits}{'0' * last}".encode()
    if last < 0 and (last > -7 or abs(power - 1) < 4):
        shown = f"0.{'0' * -power}{digits}" if power <= 0 else f"{digits[:power]}.{digits[power:]}"
        return f"{sign}{shown}".encode()
    point = "." * (len(digits) > 1)
    return f"{sign}{digits[0]}{point}{digits[1:]}e{power - 1:+d}".encode()


def double(value: float, resp3: bool) -> bytes:
    text = double_text(value)
    return b",%b\r\n" % text if resp3 else bulk(text)


def big_number(digits: bytes, resp3: bool) -> bytes:
    """An integer of any size."""
    return b"(%b\r\n" % digits if resp3 else bulk(digits)


def verbatim(text: bytes, resp3: bool, form: bytes = b"txt") -> bytes:
    return b"=%d\r\n%b:%b\r\n" % (len(text) + 4, form, text) if resp3 else bulk(text)


def encode(value: object, resp3: bool) -> bytes:
    """Any value by its Python type, for replies that are rare and deep.

    bytes and str are bulk strings, int an integer, float a double, bool a boolean, None null, a list or tuple an array,
    a set or frozenset a set (sorted, so that replies are the same in every run), a mapping a map.
    """
    if isinstance(value, bytes):
        return bulk(value)
    if isinstance(value, str):
        return bulk(value.encode())
    if isinstance(value, bool):
        return boolean(value, resp3)
    if isinstance(value, int):
        return integer(value)
    if isinstance(value, float):
        return double(value, resp3)
    if value is None:
        return null(resp3)
    if isinstance(value, Mapping):
        pairs = [encode(each, resp3) for pair in value.items() for each in pair]
        return map_header(len(value), resp3) + b"".join(pairs)
    if isinstance(value, set | frozenset):
        return set_header(len(value), resp3) + b"".join(sorted(encode(each, resp3) for each in value))
    if isinstance(value, Sequence):
        return array([encode(each, resp3) for each in value])
    if isinstance(value, Status):
        return simple(value.text)
    raise TypeError(f"no RESP type for {type(value).__name__}")


class Status:
    """A text that `encode` writes as a status line (`+text`) instead of a bulk string."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text
