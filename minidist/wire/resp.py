"""RESP, the protocol of Redis: commands in, on the hot path of every daemon that speaks it.

One read usually holds a few whole, well-formed commands. Such a read is taken apart with a single `bytes.split` at
CRLF, and then every argument is checked: the line before it must be exactly the header that its length demands. When
all headers agree, the cut was right: no argument contained a CRLF, and nothing was believed that had not arrived. At
the first disagreement (a partial command, a CRLF inside a value, an inline command, nonsense) the rest is left to the
plain parser, so that both together accept exactly what the plain parser accepts.

Pipelines mostly repeat one command. They come out by column (`Pipeline`), which is checked and run column by column;
and where the arguments have always the same lengths, too, the whole read is cut at fixed distances.

Why not hiredis for commands: its reader reserves what a header claims and does not look at terminators, so every header
must be checked before it may see the bytes, and walking the headers is already the work. Per GET, CPython 3.11 on one
machine, alone / sixteen in one read: this 0.32 / 0.24 µs (0.17 where all are of one shape); hiredis behind a check of
each header 1.17 / 0.89 µs; hiredis with the result packed again and compared 1.17 / 0.48 µs; hiredis unguarded
0.27 / 0.10 µs.
Replies on the client's side (resp_client.py) are read by hiredis.

A connection between commands holds no bytes and no parser, only a `CommandReader` of a few words.
"""

import functools
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

from minidist.wire.resp_plain import (
    CRLF,
    DEFAULT_LIMITS,
    UNAUTHENTICATED_LIMITS,
    Command,
    Limits,
    PlainParser,
    ProtocolError,
    strict_integer,
)

__all__ = [
    "DEFAULT_LIMITS",
    "UNAUTHENTICATED_LIMITS",
    "Command",
    "CommandReader",
    "Limits",
    "Pipeline",
    "ProtocolError",
    "RespInspector",
    "StrangerReader",
    "encode_command",
    "strict_integer",
]

# Headers as they usually come, so that checking one is a dict lookup; what is longer goes to the plain parser.
_COUNTS = {b"*%d" % count: count for count in range(1, 1025)}
_HEADERS = {length: b"$%d" % length for length in range(4097)}
_LENGTHS = {header: length for length, header in _HEADERS.items()}
FIRST_LINES = 9  # which one command of four arguments has
SHAPES = 1024  # remembered
MOST_SHAPED, LONGEST_NAME = 3, 32  # arguments after the name, and bytes of the name
MOST_COLUMNS = 8  # commands with more arguments gain nothing
# A longer read whose first bytes hold few lines has a long value in it, which `split` would search in vain: the plain
# parser steps over it. (60 kB: 8 µs instead of 50.)
LONG_READ_BYTES, FIRST_BYTES, FEW_LINES = 4500, 4096, 16


Shape = tuple[bytes, list[bytes], int, Callable[[bytes], Iterator[tuple[bytes, ...]]]]
"""The head that a read begins with, the separators after each argument, the bytes of a command, and what cuts them."""


class Pipeline(Sequence[Command]):
    """Commands of one name and one number of arguments, by column: all names, all first arguments, and so on.

    It is how most pipelines arrive; cutting them into columns, checking and running those takes three quarters of the
    time that one command after the other takes.
    """

    __slots__ = ("_commands", "columns")

    def __init__(self, *columns: Sequence[bytes]) -> None:
        self.columns = columns
        self._commands: list[Command] | None = None

    @property
    def commands(self) -> list[Command]:
        """The same by command."""
        if self._commands is None:
            self._commands = list(zip(*self.columns, strict=True))
        return self._commands

    def __len__(self) -> int:
        return len(self.columns[0])

    def __iter__(self) -> Iterator[Command]:
        return iter(self.commands)

    @overload
    def __getitem__(self, at: int) -> Command: ...
    @overload
    def __getitem__(self, at: slice) -> "Pipeline": ...
    def __getitem__(self, at: int | slice) -> "Command | Pipeline":
        if isinstance(at, slice):
            return Pipeline(*[column[at] for column in self.columns])
        return self.commands[at]


def _commands_of(lines: list[bytes]) -> tuple[Sequence[Command], int]:
    """The commands that the lines of a read begin with, and how many lines they took."""
    pipeline, at = _pipeline_of(lines)
    return (pipeline, at) if pipeline is not None else _walk(lines)


def _walk(lines: list[bytes]) -> tuple[list[Command], int]:
    """Command by command, up to the first that is not whole and plain."""
    count_of, header_of = _COUNTS.get, _HEADERS.get
    whole = len(lines) - 1  # the last line has no CRLF
    commands: list[Command] = []
    at = 0
    while at < whole:
        count = count_of(lines[at])
        if count is None or at + 2 * count >= whole:
            break
        end = at + 2 * count + 1
        arguments = lines[at + 2 : end : 2]
        if lines[at + 1 : end : 2] != list(map(header_of, map(len, arguments))):
            break
        commands.append(tuple(arguments))
        at = end
    return commands, at


def _pipeline_of(lines: list[bytes]) -> tuple[Pipeline | None, int]:
    """The same, if at least two whole commands came and all whole ones have one name and one number of arguments."""
    arguments = _COUNTS.get(lines[0], 0)
    lines_each = 1 + 2 * arguments
    count = (len(lines) - 1) // lines_each
    if count < 2 or arguments > MOST_COLUMNS:
        return None, 0
    end = count * lines_each
    names = lines[2:end:lines_each]
    if (
        lines[:end:lines_each].count(lines[0]) != count
        or names.count(names[0]) != count
        or lines[1:end:lines_each].count(_HEADERS.get(len(names[0]), b"")) != count
    ):
        return None, 0
    columns: list[Sequence[bytes]] = [names]
    for at in range(4, lines_each, 2):
        column = lines[at:end:lines_each]
        if list(map(_LENGTHS.get, lines[at - 1 : end : lines_each])) != list(map(len, column)):
            return None, 0
        columns.append(column)
    return Pipeline(*columns), end


def _same_shape(data: bytes, lines: list[bytes]) -> Pipeline | None:
    """All of a read, if it is GET key or SET key value, say, over and over, with arguments of always the same lengths.

    `lines` are the first of it. What stands between the arguments is then always the same, too, and stands at equal
    distances: with its head moved to its end, the read is `argument separator argument separator …`, cut by a Struct.
    """
    count, header, name, header_1, _, header_2, _, header_3, _, _ = lines
    if count == b"*2":
        shape = _shape(count, header, name, header_1)
    elif count == b"*3":
        shape = _shape(count, header, name, header_1, header_2)
    else:
        shape = _shape(count, header, name, header_1, header_2, header_3)
    if shape is None:
        return None
    head, separators, size, cut = shape
    times, rest = divmod(len(data), size)
    if rest:
        return None
    columns = list(zip(*cut(data[len(head) :] + head), strict=True))
    at = 1
    for separator in separators:
        if columns[at].count(separator) != times:
            return None
        at += 2
    return Pipeline([name] * times, *columns[::2])


@functools.lru_cache(SHAPES)
def _shape(count: bytes, name_header: bytes, name: bytes, *headers: bytes) -> Shape | None:
    """How a read of nothing but commands with this name and these headers is cut; None where that is not plain."""
    lengths = [_LENGTHS.get(header) for header in headers]
    if (
        _COUNTS.get(count) != len(headers) + 1
        or len(headers) > MOST_SHAPED
        or _LENGTHS.get(name_header) != len(name)
        or len(name) > LONGEST_NAME
        or None in lengths
    ):
        return None
    head = CRLF.join([count, name_header, name, headers[0], b""])
    separators = [b"\r\n%b\r\n" % header for header in headers[1:]]
    separators.append(CRLF + head)
    pieces = [piece for pair in zip(lengths, map(len, separators), strict=True) for piece in pair]
    layout = struct.Struct("".join(f"{length}s" for length in pieces))
    return head, separators, layout.size, layout.iter_unpack


class CommandReader:
    """The commands of one connection. Holds memory only while a command is partly received."""

    __slots__ = ("_plain", "limits")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._plain: PlainParser | None = None

    def feed(self, data: bytes) -> tuple[Sequence[Command], ProtocolError | None]:
        """The commands that are whole with this read, and the violation that ends the connection, if there is one.

        The commands came before the violation and are to be answered; after it, nothing more may be fed.
        """
        if self._plain is not None:
            return self._resume(self._plain, data)
        if len(data) > LONG_READ_BYTES and data.count(b"\n", 0, FIRST_BYTES) < FEW_LINES:
            return self._read_plainly([], PlainParser(self.limits, data))
        lines = data.split(CRLF, FIRST_LINES)
        # Most reads are one command of two to four arguments, or a pipeline.
        length_of = _LENGTHS.get
        if len(lines) == 6:
            count, header, name, header_1, first, rest = lines
            if count == b"*2" and length_of(header) == len(name) and length_of(header_1) == len(first) and not rest:
                return [(name, first)], None
        elif len(lines) == 8:
            count, header, name, header_1, first, header_2, second, rest = lines
            if (
                count == b"*3"
                and length_of(header) == len(name)
                and length_of(header_1) == len(first)
                and length_of(header_2) == len(second)
                and not rest
            ):
                return [(name, first, second)], None
        elif len(lines) == 10:
            count, header, name, header_1, first, header_2, second, header_3, third, rest = lines
            if rest:
                pipeline = _same_shape(data, lines)
                if pipeline is not None:
                    return pipeline, None
                lines = data.split(CRLF)
            elif (
                count == b"*4"
                and length_of(header) == len(name)
                and length_of(header_1) == len(first)
                and length_of(header_2) == len(second)
                and length_of(header_3) == len(third)
            ):
                return [(name, first, second, third)], None
        commands, at = _commands_of(lines)
        if at == len(lines) - 1 and not lines[at]:
            return commands, None
        return self._read_plainly([*commands], PlainParser(self.limits, data[sum(map(len, lines[:at])) + 2 * at :]))

    def _resume(self, plain: PlainParser, data: bytes) -> tuple[Sequence[Command], ProtocolError | None]:
        """Finish what an earlier read began, then go back to the fast path with the rest of this one."""
        plain.limits = self.limits
        plain.feed(data)
        try:
            command = plain.next()
        except ProtocolError as error:
            return [], error
        if command is None:
            return [], None
        rest = plain.rest()
        self._plain = None
        if not rest:
            return [command], None
        commands, violation = self.feed(rest)
        return [command, *commands], violation

    def _read_plainly(self, commands: list[Command], plain: PlainParser) -> tuple[list[Command], ProtocolError | None]:
        try:
            while (command := plain.next()) is not None:
                commands.append(command)
        except ProtocolError as error:
            return commands, error
        self._plain = None if plain.between_commands else plain
        return commands, None

    @property
    def idle(self) -> bool:
        """No command is partly received."""
        return self._plain is None


class StrangerReader:
    """The commands of a client that has not yet authenticated: under stricter limits, and one at a time.

    What follows AUTH in the same read must not be judged before AUTH has run. So `feed` returns one command at most;
    call it again without data until it returns none, or go on with a CommandReader and `rest()`.
    """

    __slots__ = ("_plain",)

    def __init__(self) -> None:
        self._plain = PlainParser(UNAUTHENTICATED_LIMITS)

    def feed(self, data: bytes = b"") -> tuple[list[Command], ProtocolError | None]:
        self._plain.feed(data)
        try:
            command = self._plain.next()
        except ProtocolError as error:
            return [], error
        return ([] if command is None else [command]), None

    @property
    def idle(self) -> bool:
        """No command is partly received, and none waits."""
        return self._plain.between_commands

    def rest(self) -> bytes:
        """What was received behind the last command."""
        return self._plain.rest()


def encode_command(arguments: Sequence[bytes]) -> bytes:
    """A command as clients send it: an array of bulk strings."""
    return b"*%d\r\n" % len(arguments) + b"".join([b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments])


# Where the first key stands, for commands whose first argument is not it. Containers of subcommands have it one later.
_KEY_AT = {
    **dict.fromkeys(("OBJECT", "MEMORY", "XGROUP", "XINFO", "BITOP"), 2),
    **dict.fromkeys(("EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO", "BLMPOP", "BZMPOP"), 3),
    **dict.fromkeys(("LMPOP", "ZMPOP", "SINTERCARD", "ZUNION", "ZINTER", "ZDIFF", "ZINTERCARD"), 2),
}
_KEYLESS = (
    "ACL AUTH CLIENT CLUSTER COMMAND CONFIG DBSIZE DEBUG DISCARD ECHO EXEC FLUSHALL FLUSHDB FUNCTION HELLO INFO "
    "LATENCY MODULE MONITOR MULTI PING PSUBSCRIBE PUBLISH PUBSUB QUIT RANDOMKEY RESET ROLE SCAN SCRIPT SELECT SHUTDOWN "
    "SLOWLOG SUBSCRIBE SWAPDB TIME UNWATCH WAIT WAITAOF"
)
_WITHOUT_KEY = frozenset(_KEYLESS.split())


class RespInspector:
    """Requests and error replies of RESP for faults and toxics (see wire/inspection.py)."""

    def requests(self, buffer: bytes) -> list[tuple[str, str, int]]:
        """Name in capitals, first key (or ""), end. Bytes that are no RESP end the list: they belong to no request."""
        found = []
        end = 0
        while end < len(buffer):
            plain = PlainParser(DEFAULT_LIMITS, buffer[end:])
            try:
                command = plain.next()
            except ProtocolError:
                break
            if command is None:
                break
            end = len(buffer) - len(plain.rest())
            found.append((*name_and_key(command), end))
        return found

    def error_reply(self, request: bytes, text: str) -> bytes:
        """A RESP error. A text without an upper-case code in front gets Redis' generic one, ERR."""
        text = text.replace("\r", " ").replace("\n", " ")
        code = text.partition(" ")[0]
        return f"-{text if code.isupper() else 'ERR ' + text}\r\n".encode()


def name_and_key(command: Iterable[bytes]) -> tuple[str, str]:
    """A command's name in capitals and its first key, "" for commands without one."""
    words = tuple(command)
    name = words[0].decode("latin-1").upper()
    at = _KEY_AT.get(name, 1)
    if name in _WITHOUT_KEY or at >= len(words):
        return name, ""
    return name, words[at].decode("utf-8", "backslashreplace")
