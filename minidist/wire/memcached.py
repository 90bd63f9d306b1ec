"""memcached's text protocol: requests in, for the cache's second listener.

A request is a line of words; those that store are followed by a block of so many bytes and a CRLF. `RequestReader`
takes reads cut anywhere and yields whole requests, and for what is wrong the protocol's own words, after which reading
goes on, as memcached does. A `get` of many keys comes in parts, so that its answer need not be held as a whole.

Source: https://github.com/memcached/memcached/blob/master/doc/protocol.txt
"""

from dataclasses import dataclass

LONGEST_LINE_BYTES = 64 * 1024
LONGEST_KEY_BYTES = 250
KEYS_AT_ONCE = 64
STORING = frozenset({b"set", b"add", b"replace", b"append", b"prepend", b"cas"})
META = frozenset({b"mg", b"ms", b"md", b"ma", b"mn", b"me"})
READING = frozenset({b"get", b"gets", b"gat", b"gats"})
BAD_FORMAT = b"CLIENT_ERROR bad command line format\r\n"
BAD_CHUNK = b"CLIENT_ERROR bad data chunk\r\n"
TOO_LARGE = b"SERVER_ERROR object too large for cache\r\n"
LINE_TOO_LONG = b"CLIENT_ERROR line too long\r\n"
BINARY = b"SERVER_ERROR the binary protocol is not spoken here\r\n"


LARGEST = (1 << 64) - 1


def number(word: bytes) -> int | None:
    """A whole number of 64 bits; None for anything else. What is longer would stop Python."""
    if not word.isdigit() or len(word) > 20:
        return None
    value = int(word)
    return value if value <= LARGEST else None


def only_get(data: bytes) -> bytes | None:
    """The key of a read that is one `get` of one key, as most reads are; None for any other."""
    if data[:4] != b"get " or data[-2:] != b"\r\n":
        return None
    key = data[4:-2]
    return key if len(key) <= LONGEST_KEY_BYTES and key.split() == [key] else None


@dataclass(slots=True)
class Request:
    """One request: its words, and the block that came with it. `last` is False for a part of a `get` with more."""

    words: list[bytes]
    block: bytes = b""
    last: bool = True


@dataclass(slots=True)
class Refused:
    """What was wrong, in the protocol's words. `fatal`: the connection cannot go on."""

    reply: bytes
    fatal: bool = False


class RequestReader:
    """The requests of one connection. `longest_block` is the largest value taken."""

    __slots__ = ("_buffer", "_lost", "_skip", "_storing", "longest_block")

    def __init__(self, longest_block: int) -> None:
        self.longest_block = longest_block
        self._buffer = bytearray()
        self._storing: tuple[list[bytes], int] | None = None  # a request that waits for a block of so many bytes
        self._lost = False  # somewhere in a line that means nothing
        self._skip = 0  # bytes of a block that was refused

    @property
    def idle(self) -> bool:
        """No request is partly received."""
        return not self._buffer and self._storing is None and not self._skip and not self._lost

    def feed(self, data: bytes) -> list[Request | Refused]:
        """What is whole with this read, in order."""
        self._buffer += data
        found: list[Request | Refused] = []
        while self._step(found):
            if found and isinstance(found[-1], Refused) and found[-1].fatal:
                self._buffer.clear()
                break
        return found

    def _step(self, found: list[Request | Refused]) -> bool:
        """Take one line, or one block; False when more must come first."""
        buffer = self._buffer
        if self._skip:
            skipped = min(self._skip, len(buffer))
            del buffer[:skipped]
            self._skip -= skipped
            return not self._skip and bool(buffer)
        if self._lost:
            end = buffer.find(b"\n")
            del buffer[: end + 1 if end >= 0 else len(buffer)]
            self._lost = end < 0
            return not self._lost
        if self._storing is not None:
            return self._take_block(*self._storing, found)
        end = buffer.find(b"\n")
        if buffer[:1] == b"\x80":
            found.append(Refused(BINARY, fatal=True))
            return True
        if end < 0 or end > LONGEST_LINE_BYTES:
            if max(end, len(buffer)) > LONGEST_LINE_BYTES:
                found.append(Refused(LINE_TOO_LONG, fatal=True))
                return True
            return False
        line = bytes(buffer[:end]).removesuffix(b"\r")
        del buffer[: end + 1]
        self._take_line(line.split(), found)
        return True

    def _take_line(self, words: list[bytes], found: list[Request | Refused]) -> None:
        if not words:
            found.append(Refused(b"ERROR\r\n"))
        elif words[0] in STORING:
            self._begin_block(words, found)
        elif words[0] == b"ms":
            self._begin_meta_block(words, found)
        elif words[0] in READING:
            self._split_reading(words, found)
        else:
            found.append(Request(words))

    def _split_reading(self, words: list[bytes], found: list[Request | Refused]) -> None:
        fixed = 2 if words[0] in (b"gat", b"gats") else 1
        keys = words[fixed:]
        if not keys:
            found.append(Refused(b"ERROR\r\n"))
        elif any(len(key) > LONGEST_KEY_BYTES for key in keys):
            found.append(Refused(BAD_FORMAT))
        else:
            for at in range(0, len(keys), KEYS_AT_ONCE):
                part = words[:fixed] + keys[at : at + KEYS_AT_ONCE]
                found.append(Request(part, last=at + KEYS_AT_ONCE >= len(keys)))

    def _begin_block(self, words: list[bytes], found: list[Request | Refused]) -> None:
        usual = 6 if words[0] == b"cas" else 5
        numbers = [number(word) for word in words[2:3] + words[4:usual]]
        length = numbers[1] if len(words) in (usual, usual + 1) and None not in numbers else None
        if length is None or len(words[1]) > LONGEST_KEY_BYTES:
            found.append(Refused(BAD_FORMAT if len(words) >= usual else b"ERROR\r\n"))
        elif length > self.longest_block:
            self._skip = length + 2
            found.append(Refused(TOO_LARGE))
        else:
            self._storing = (words, length)

    def _begin_meta_block(self, words: list[bytes], found: list[Request | Refused]) -> None:
        """ms KEY LENGTH FLAG…; what is wrong with the flags is said when the block has been read."""
        if len(words) < 3 or not words[2].isdigit() or len(words[2]) > 10:
            found.append(Refused(BAD_FORMAT if len(words) > 1 else b"ERROR\r\n"))
        elif int(words[2]) > self.longest_block:
            self._skip = int(words[2]) + 2
            found.append(Refused(TOO_LARGE))
        else:
            self._storing = (words, int(words[2]))

    def _take_block(self, words: list[bytes], length: int, found: list[Request | Refused]) -> bool:
        buffer = self._buffer
        if len(buffer) < length + 2:
            return False
        self._storing = None
        if buffer[length : length + 2] == b"\r\n":
            found.append(Request(words, bytes(buffer[:length])))
            del buffer[: length + 2]
            return True
        del buffer[:length]
        self._lost = True  # where the block really ended nobody knows: behind the next line end, probably
        found.append(Refused(BAD_CHUNK))
        return True


class MemcachedInspector:
    """Requests and error replies for faults and toxics (see wire/inspection.py)."""

    def requests(self, buffer: bytes) -> list[tuple[str, str, int]]:
        found = []
        at = 0
        while (end := buffer.find(b"\n", at)) >= 0:
            words = buffer[at:end].split()
            end += 1
            if not words:
                break
            at_length = 2 if words[0] == b"ms" else 4
            length = number(words[at_length]) if len(words) > at_length else None
            if (words[0] in STORING or words[0] == b"ms") and length is not None:
                end += length + 2
                if end > len(buffer):
                    break
            key = words[2 if words[0] in (b"gat", b"gats") else 1] if len(words) > 2 - (words[0] in READING) else b""
            found.append((words[0].decode("latin-1").upper(), key.decode("utf-8", "backslashreplace"), end))
            at = end
        return found

    def error_reply(self, request: bytes, text: str) -> bytes:
        text = text.replace("\r", " ").replace("\n", " ")
        return f"SERVER_ERROR {text}\r\n".encode()
