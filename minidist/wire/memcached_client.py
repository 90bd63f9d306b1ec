"""memcached's text protocol as clients speak it: requests for one key each, and their replies, for the load generator.

What `next` returns says what came: a value as bytes, None for a key that is not there, a status line (`STORED`, the
number that an `incr` gives) as text, and as `ReplyError` that nothing was done (`NOT_FOUND`, `NOT_STORED`, `EXISTS`,
and the three errors). A reader belongs to a connection on which each `get` names one key, since then `END` alone is a
miss.

Source: https://github.com/memcached/memcached/blob/master/doc/protocol.txt
"""

from typing import Any

from minidist.wire.resp_client import NOTHING, ReplyError
from minidist.wire.resp_plain import ProtocolError

CRLF = b"\r\n"
END = b"\r\nEND\r\n"
#: A status line is short; a line of VALUE holds a key of 250 bytes and three numbers.
LONGEST_LINE_BYTES = 2048
LARGEST_VALUE_BYTES = 1024**3
DONE = frozenset({b"STORED", b"DELETED", b"TOUCHED", b"OK"})
NOT_DONE = frozenset({b"NOT_FOUND", b"NOT_STORED", b"EXISTS", b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR"})


def get(key: bytes) -> bytes:
    return b"get %b\r\n" % key


def store(verb: bytes, key: bytes, value: bytes, ttl_s: int = 0) -> bytes:
    """`set`, `add` or `replace`. At most 30 days of lifetime: what is more is taken for a date."""
    return b"%b %b 0 %d %d\r\n%b\r\n" % (verb, key, ttl_s, len(value), value)


def incr(key: bytes, amount: int = 1) -> bytes:
    return b"incr %b %d\r\n" % (key, amount)


class ReplyReader:
    """The replies of one connection, cut anywhere. Raises ProtocolError for what is no reply."""

    __slots__ = ("_at", "_buffer", "_end")

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0  # where the next reply begins
        self._end = 0  # of a value that is being received: how long the buffer must be

    def feed(self, data: bytes) -> None:
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._end = max(0, self._end - self._at)
        self._at = 0

    def next(self) -> Any:
        """The next reply, or NOTHING until more is fed."""
        buffer, at = self._buffer, self._at
        if self._end > len(buffer):
            return NOTHING
        line_end = buffer.find(CRLF, at)
        if line_end < 0:
            if len(buffer) - at > LONGEST_LINE_BYTES:
                raise ProtocolError("a line without an end")
            return NOTHING
        line = buffer[at:line_end]
        if line.startswith(b"VALUE "):
            return self._value(line, line_end + 2)
        self._at = line_end + 2
        if line == b"END":
            return None
        if line in DONE or line.isdigit():
            return line.decode()
        if line.partition(b" ")[0] in NOT_DONE:
            return ReplyError(line.decode("utf-8", "replace"))
        raise ProtocolError("a line that is no reply")

    def _value(self, line: bytes, begin: int) -> Any:
        size_text = line.split(b" ")[3:4]
        if not size_text or not size_text[0].isdigit() or (size := int(size_text[0])) > LARGEST_VALUE_BYTES:
            raise ProtocolError("a value without a length")
        buffer, end = self._buffer, begin + size
        if len(buffer) < end + len(END):
            self._end = end + len(END)
            return NOTHING
        if buffer[end : end + len(END)] != END:
            raise ProtocolError("a value that does not end")
        self._at, self._end = end + len(END), 0
        return buffer[begin:end]
