"""Commands as they travel in RESP, read plainly: one header and one argument at a time, in order, every check visible.

A client sends a command as an array of bulk strings (`*2 $3 GET $1 k`, each followed by CRLF) or, typed by hand, as an
inline line of words with shell-like quotes (`GET "my key"`). This parser takes bytes as they come, cut anywhere, and
yields whole commands. It is the oracle of the fast path in resp.py and finishes what that path leaves: partial
commands, inline commands, values with CRLF inside, and everything that is wrong.

Nothing is allocated for what a header merely claims: arguments are appended as they arrive, and bytes are held only
once they are received. The error texts are those of Redis (networking.c, `processMultibulkBuffer`), which stops reading
at the first violation: framing is lost, so the caller answers the error and closes. Two additions of ours: the two
bytes after a bulk string must be CRLF, and a command has a limit in all, not only per argument.

Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from dataclasses import dataclass

Command = tuple[bytes, ...]

CRLF = b"\r\n"
STAR, DOLLAR, MINUS = b"*$-"
BACKSLASH, DOUBLE_QUOTE, SINGLE_QUOTE = b"\\\"'"
ZERO_DIGIT = ord("0")
WHITE_SPACE = b" \t\r\n\v\f\0"
ESCAPES = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one command may claim. The defaults are Redis' own."""

    arguments: int = 1024 * 1024
    bulk_bytes: int = 512 * 1024**2
    line_bytes: int = 64 * 1024  # a header, or a whole inline command
    command_bytes: int = 1024**3
    prefix: str = ""  # how Redis words the two limits for clients that have not yet authenticated


DEFAULT_LIMITS = Limits()
UNAUTHENTICATED_LIMITS = Limits(arguments=10, bulk_bytes=16 * 1024, command_bytes=256 * 1024, prefix="unauthenticated ")


class ProtocolError(Exception):
    """The bytes are no RESP. The text is Redis' own, to be answered as `-ERR Protocol error: TEXT`."""


class PlainParser:
    """Bytes in, commands out, for one connection.

    `feed()` bytes, then call `next()` until it returns None. `rest()` takes back what no command has begun to use.
    """

    __slots__ = ("_arguments", "_buffer", "_bulk_bytes", "_held_bytes", "_missing", "_position", "limits")

    def __init__(self, limits: Limits = DEFAULT_LIMITS, data: bytes = b"") -> None:
        self.limits = limits
        self._buffer = bytearray(data)
        self._position = 0
        self._arguments: list[bytes] = []
        self._missing = 0  # arguments still to come; 0 between commands
        self._bulk_bytes = -1  # length of the bulk string under way; -1 before its header
        self._held_bytes = 0

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Command | None:
        """The next whole command, or None until more is fed. Raises ProtocolError, after which it is of no more use."""
        while True:
            whole = bool(self._missing) or self._start()
            while whole and self._missing:
                whole = self._take_argument()
            if not whole:
                del self._buffer[: self._position]
                self._position = 0
                return None
            if self._arguments:
                command, self._arguments, self._held_bytes = tuple(self._arguments), [], 0
                return command

    @property
    def between_commands(self) -> bool:
        """Nothing is held: the parser can be forgotten."""
        return not self._missing and self._position == len(self._buffer)

    def rest(self) -> bytes:
        """The bytes after the last command that `next` returned. Only between commands."""
        data = bytes(memoryview(self._buffer)[self._position :])
        self._buffer.clear()
        self._position = 0
        return data

    def _start(self) -> bool:
        """Read the first line of a command: an array header, or a whole inline command."""
        if self._position == len(self._buffer):
            return False
        if self._buffer[self._position] != STAR:
            return self._take_inline()
        header = self._header("mbulk count string")
        if header is None:
            return False
        count = strict_integer(header[1:])
        if count is None or count > max(self.limits.arguments, DEFAULT_LIMITS.arguments):
            raise ProtocolError("invalid multibulk length")
        if count > self.limits.arguments:
            raise ProtocolError(self.limits.prefix + "multibulk length")
        self._missing = max(count, 0)  # `*0` and `*-1` are legal and mean nothing
        return True

    def _take_inline(self) -> bool:
        end = self._buffer.find(b"\n", self._position)
        if end < 0 or end - self._position > self.limits.line_bytes:
            if len(self._buffer) - self._position > self.limits.line_bytes:
                raise ProtocolError("too big inline request")
            return False
        line = bytes(memoryview(self._buffer)[self._position : end])
        self._position = end + 1
        self._arguments = split_inline(line.removesuffix(b"\r"))
        return True

    def _take_argument(self) -> bool:
        if self._bulk_bytes < 0 and not self._take_bulk_header():
            return False
        end = self._position + self._bulk_bytes
        if len(self._buffer) < end + 2:
            return False
        if self._buffer[end : end + 2] != CRLF:
            raise ProtocolError("expected CRLF after bulk string")
        self._arguments.append(bytes(memoryview(self._buffer)[self._position : end]))
        self._position = end + 2
        self._bulk_bytes = -1
        self._missing -= 1
        return True

    def _take_bulk_header(self) -> bool:
        header = self._header("bulk count string")
        if header is None:
            return False
        if header[:1] != b"$":
            raise ProtocolError(f"expected '$', got '{header[:1].decode('latin-1') or chr(13)}'")
        length = strict_integer(header[1:])
        limits = self.limits
        if (
            length is None
            or length < 0
            or length > max(limits.bulk_bytes, DEFAULT_LIMITS.bulk_bytes * bool(limits.prefix))
        ):
            raise ProtocolError("invalid bulk length")
        if length > limits.bulk_bytes:
            raise ProtocolError(limits.prefix + "bulk length")
        self._held_bytes += length
        if self._held_bytes > limits.command_bytes:
            raise ProtocolError("too big command")
        self._bulk_bytes = length
        return True

    def _header(self, what: str) -> bytes | None:
        """The line at the position without its CRLF, and step over it; None when it is not yet whole."""
        end = self._buffer.find(b"\r", self._position)
        if end < 0 or end - self._position > self.limits.line_bytes:
            if len(self._buffer) - self._position > self.limits.line_bytes:
                raise ProtocolError("too big " + what)
            return None
        if end + 1 == len(self._buffer):
            return None
        line = bytes(memoryview(self._buffer)[self._position : end])
        if self._buffer[end + 1] != CRLF[1]:
            raise ProtocolError("expected LF after CR")
        self._position = end + 2
        return line


def strict_integer(text: bytes) -> int | None:
    """A decimal integer as Redis reads it (`string2ll`): no plus sign, no leading zeros, no blanks; 64 bits."""
    if text.isdigit() and len(text) < 19 and (text[0] != ZERO_DIGIT or len(text) == 1):
        return int(text)
    if len(text) > 20 or not text.removeprefix(b"-").isdigit():
        return None
    value = int(text)
    if b"%d" % value != text or not -(1 << 63) <= value < 1 << 63:
        return None
    return value


def split_inline(line: bytes) -> list[bytes]:
    """The words of an inline command. Quotes as in redis-cli: "…" with \\n \\r \\t \\b \\a \\xHH, '…' with \\'.

    Raises ProtocolError when a quote is left open or its end is not followed by a blank.
    """
    if DOUBLE_QUOTE not in line and SINGLE_QUOTE not in line:
        return line.split(None) if 0 not in line else line.replace(b"\0", b" ").split(None)
    words: list[bytes] = []
    position = 0
    while True:
        while position < len(line) and line[position] in WHITE_SPACE:
            position += 1
        if position == len(line):
            return words
        word, position = _inline_word(line, position)
        words.append(word)


def _inline_word(line: bytes, position: int) -> tuple[bytes, int]:
    word = bytearray()
    while position < len(line):
        byte = line[position]
        if byte in WHITE_SPACE:
            break
        if byte in (DOUBLE_QUOTE, SINGLE_QUOTE):
            position = _inline_quoted(line, position + 1, byte, word)
            if position < len(line) and line[position] not in WHITE_SPACE:
                raise ProtocolError("unbalanced quotes in request")
            break
        word.append(byte)
        position += 1
    return bytes(word), position


def _inline_quoted(line: bytes, position: int, quote: int, word: bytearray) -> int:
    """Append what stands up to the closing quote to `word`; the position after it."""
    while position < len(line):
        byte = line[position]
        if byte == quote:
            return position + 1
        if byte == BACKSLASH and position + 1 < len(line):
            following = line[position + 1]
            if quote == SINGLE_QUOTE:
                if following == SINGLE_QUOTE:
                    byte, position = following, position + 1
            elif following == ord("x") and _is_hex(line[position + 2 : position + 4]):
                byte, position = int(line[position + 2 : position + 4], 16), position + 3
            else:
                byte, position = ESCAPES.get(following, following), position + 1
        word.append(byte)
        position += 1
    raise ProtocolError("unbalanced quotes in request")


def _is_hex(text: bytes) -> bool:
    return len(text) == 2 and all(byte in b"0123456789abcdefABCDEF" for byte in text)
