"""Reading arguments as Redis reads them: strict numbers, options in any case, lifetimes."""

import math

from minidist.engines.keyspace.errors import NOT_A_FLOAT, NOT_AN_INTEGER, SYNTAX, CommandError
from minidist.wire.resp_plain import strict_integer

LARGEST = (1 << 63) - 1
SMALLEST = -(1 << 63)
NOT_A_TIMEOUT = "ERR timeout is not a float or out of range"


def integer(text: bytes, error: str = NOT_AN_INTEGER) -> int:
    """A 64-bit integer. Raises CommandError."""
    value = strict_integer(text)
    if value is None:
        raise CommandError(error)
    return value


def count_argument(text: bytes, error: str) -> int:
    """An integer of at least 0."""
    value = strict_integer(text)
    if value is None or value < 0:
        raise CommandError(error)
    return value


def decimal(text: bytes, error: str = NOT_A_FLOAT) -> float:
    """A floating point number, `inf` and `-inf` included; no blanks, no NaN. Raises CommandError."""
    try:
        value = float(text)
    except ValueError:
        raise CommandError(error) from None
    if math.isnan(value) or text != text.strip() or b"_" in text:
        raise CommandError(error)
    return value


def expiry_ms(text: bytes, unit: bytes, command: str, now_ms: int) -> int:
    """The service time that an EX, PX, EXAT or PXAT argument means, which must be positive. Raises CommandError."""
    value = integer(text)
    at_ms = value * UNITS_MS[unit]
    if value <= 0 or at_ms > LARGEST:
        raise CommandError(f"ERR invalid expire time in '{command}' command")
    if unit in RELATIVE:
        at_ms += now_ms
        if at_ms > LARGEST:
            raise CommandError(f"ERR invalid expire time in '{command}' command")
    return at_ms if at_ms < FAR_FUTURE_MS else FAR_FUTURE_MS


def timeout_ms(text: bytes, now_ms: int) -> int:
    """How long a client wants to wait, from seconds and parts of one; 0 for ever. Raises CommandError."""
    ms = (_hexadecimal(text) if text[:2].lower() == b"0x" else decimal(text, NOT_A_TIMEOUT)) * 1000
    if ms >= LARGEST - now_ms:
        raise CommandError("ERR timeout is out of range")
    if ms <= -1:
        raise CommandError("ERR timeout is negative")
    return math.ceil(ms)


def _hexadecimal(text: bytes) -> float:
    """C's floating point numbers in hexadecimal, which Redis reads as well."""
    try:
        return float.fromhex(text.decode("latin-1"))
    except (ValueError, OverflowError):
        raise CommandError(NOT_A_TIMEOUT) from None


UNITS_MS = {b"EX": 1000, b"PX": 1, b"EXAT": 1000, b"PXAT": 1}
RELATIVE = (b"EX", b"PX")
# Lifetimes beyond (146 million years) are kept as this: NEVER is the only larger value.
FAR_FUTURE_MS = (1 << 62) - 1


def option(word: bytes, choices: tuple[bytes, ...]) -> bytes:
    """One of some words in capitals, in any spelling. Raises the syntax error."""
    word = word.upper()
    if word not in choices:
        raise CommandError(SYNTAX)
    return word
