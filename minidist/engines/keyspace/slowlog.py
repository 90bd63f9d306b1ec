"""The slow log: the latest commands that took long, and what may be shown of a command's arguments.

Passwords are never kept: `without_secrets` blots them out, here and in what MONITOR shows.
"""

from collections import deque
from dataclasses import dataclass

from minidist.wire.resp_plain import Command as Arguments

SHOWN_ARGUMENTS = 32
SHOWN_BYTES = 128
REDACTED = b"(redacted)"
SECRET_SETTINGS = (b"requirepass", b"masterauth")


@dataclass(frozen=True, slots=True)
class SlowCommand:
    """One entry. `at_ms` is service time, `took_us` real time."""

    number: int
    at_ms: int
    took_us: int
    args: tuple[bytes, ...]
    peer: bytes
    client_name: bytes


class SlowLog:
    """At most `most` entries, the oldest go first. Numbers are never used again."""

    def __init__(self) -> None:
        self.most = 128
        self.entries: deque[SlowCommand] = deque()
        self._next = 0

    def add(self, at_ms: int, took_us: int, args: Arguments, peer: str, client_name: bytes) -> None:
        if self.most:
            shown = shortened(without_secrets(args))
            self.entries.appendleft(SlowCommand(self._next, at_ms, took_us, shown, peer.encode(), client_name))
            self._next += 1
            self.trim(self.most)

    def trim(self, most: int) -> None:
        """Keep at most so many, from now on."""
        self.most = most
        while len(self.entries) > most:
            self.entries.pop()


def shortened(args: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Arguments as Redis keeps them: few, and not too long."""
    shown = list(args)
    if len(args) > SHOWN_ARGUMENTS:
        left_out = len(args) - SHOWN_ARGUMENTS + 1
        shown[SHOWN_ARGUMENTS - 1 :] = [b"... (%d more arguments)" % left_out]
    for at, arg in enumerate(shown[:SHOWN_ARGUMENTS]):
        if len(arg) > SHOWN_BYTES:
            shown[at] = b"%b... (%d more bytes)" % (arg[:SHOWN_BYTES], len(arg) - SHOWN_BYTES)
    return tuple(shown)


def monitor_line(now_ms: int, database: int, peer: str, args: Arguments) -> bytes:
    """What MONITOR shows of a command."""
    who = f"{now_ms // 1000}.{now_ms % 1000:03}000 [{database} {peer}]"
    return b"+%b\r\n" % b" ".join([who.encode(), *map(quoted, without_secrets(args))])


def without_secrets(args: Arguments) -> tuple[bytes, ...]:
    """The arguments of a command, without passwords."""
    words = [word.upper() for word in args[:2]]
    shown = list(args)
    if words[0] == b"AUTH":
        shown[1:] = [REDACTED] * (len(args) - 1)
    elif words[0] == b"HELLO":
        for at in range(2, len(args)):
            if args[at].upper() == b"AUTH":
                shown[at + 1 : at + 3] = [REDACTED] * len(args[at + 1 : at + 3])
                break
    elif words == [b"CONFIG", b"SET"]:
        for at in range(3, len(args), 2):
            if args[at - 1].lower() in SECRET_SETTINGS:
                shown[at] = REDACTED
    elif words == [b"ACL", b"SETUSER"]:
        shown[2:] = [REDACTED] * (len(args) - 2)
    return tuple(shown)


# Bytes as redis-cli and MONITOR show them inside double quotes.
ESCAPES = {byte: f"\\x{byte:02x}" for byte in range(256) if not 32 <= byte < 127}
ESCAPES |= {ord(byte): "\\" + letter for byte, letter in zip('\\"\n\r\t\a\b', '\\"nrtab', strict=True)}


def quoted(word: bytes) -> bytes:
    """A word in double quotes, printable, as MONITOR shows it."""
    return b'"%b"' % word.decode("latin-1").translate(ESCAPES).encode()
