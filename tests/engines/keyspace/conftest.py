"""Transcripts: commands and the replies they must get, to be played on the engine or on a real server.

> SET key value        a command, in redis-cli's quoting
OK                     the reply on one line: OK  5  "text"  nil  [a, b]  {k: v}  {member}  !ERR an error
~ 10s                  service time passes
unordered [...]        the elements of the innermost lists may come in any order
# protocol 3           the client says HELLO 3 first
"""

import contextlib
import json
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from minidist.engines.keyspace.commands import all_commands
from minidist.engines.keyspace.service import Service
from minidist.engines.keyspace.session import Session
from minidist.wire.resp import encode_command
from minidist.wire.resp_client import NOTHING
from minidist.wire.resp_plain import split_inline

START_MS = 1_700_000_000_000


@dataclass
class Step:
    """One command and its expected reply, or a wait."""

    line: int
    command: list[bytes]
    expected: str
    wait_ms: int = 0


def read_transcript(text: str) -> tuple[list[Step], int]:
    """The steps, and the protocol version."""
    steps: list[Step] = []
    protocol = 2
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#"):
            protocol = 3 if line == "# protocol 3" else protocol
        elif line.startswith("> "):
            steps.append(Step(number, split_inline(line[2:].encode()), ""))
        elif line.startswith("~ "):
            amount, unit = re.fullmatch(r"~ (\d+)(ms|s)", line).groups()  # type: ignore[union-attr]
            steps.append(Step(number, [], "", int(amount) * (1000 if unit == "s" else 1)))
        elif line:
            assert steps, f"line {number}: a reply without a command"
            assert not steps[-1].expected, f"line {number}: a second reply"
            steps[-1].expected = line
    return steps, protocol


class ShowingReader:
    """Reads replies and shows each on one line, statuses told apart from bulk strings."""

    def __init__(self) -> None:
        self.buffer = b""

    def feed(self, data: bytes) -> None:
        self.buffer += data

    def next(self) -> Any:
        try:
            shown, self.buffer = self._show(self.buffer)
        except IndexError:
            return NOTHING
        return shown

    def _show(self, data: bytes) -> tuple[str, bytes]:
        line, crlf, rest = data.partition(b"\r\n")
        if not crlf:
            raise IndexError
        kind, text = chr(line[0]), line[1:].decode("utf-8", "backslashreplace")
        if kind in "+:,#":
            return text, rest
        if kind == "-":
            return "!" + text, rest
        if kind == "_" or text == "-1":
            return "nil", rest
        length = int(text)
        if kind in "$=":
            if len(rest) < length + 2:
                raise IndexError
            return quoted(rest[4 * (kind == "=") : length]), rest[length + 2 :]
        parts = []
        for _ in range(length * 2 if kind == "%" else length):
            part, rest = self._show(rest)
            parts.append(part)
        if kind == "%":
            pairs = [f"{key}: {value}" for key, value in zip(parts[::2], parts[1::2], strict=True)]
            return "{" + ", ".join(pairs) + "}", rest
        brackets = {"*": "[]", "~": "{}", ">": "<>"}[kind]
        return brackets[0] + ", ".join(parts) + brackets[1], rest


def quoted(data: bytes) -> str:
    """A bulk string as in Python, with double quotes."""
    return '"' + repr(data)[2:-1].replace('"', '\\"') + '"'


def same(expected: str, shown: str) -> bool:
    if expected.startswith("unordered "):
        return sorted(re.findall(r"[^\[\], ]+", expected[10:])) == sorted(re.findall(r"[^\[\], ]+", shown))
    return expected.strip() == shown.strip()


class Carrier:
    """Where a test's session comes from."""

    peer = "127.0.0.1:50000"
    local = "127.0.0.1:6379"


class Client:
    """One client of a Service that lives in the test."""

    def __init__(self, service: Service, world: "World") -> None:
        self.service = service
        self.world = world
        self.session: Session = service.open(Carrier(), world.now_ms)

    def send(self, *words: bytes | str | int) -> bytes:
        """Run one command; the raw reply."""
        command = tuple(word if isinstance(word, bytes) else str(word).encode() for word in words)
        return self.service.run(self.session, [command], self.world.now_ms)[1]

    def show(self, *words: bytes | str | int) -> str:
        """Run one command; the reply as in a transcript."""
        reader = ShowingReader()
        reader.feed(self.send(*words))
        return str(reader.next())


class World:
    """A service, and the time its clients see."""

    def __init__(self, seed: int = 1) -> None:
        self.now_ms = START_MS
        self.service = Service(all_commands(), 16, random.Random(seed))
        self.keyspace = self.service.keyspace

    def client(self) -> Client:
        return Client(self.service, self)

    def wait(self, ms: int) -> None:
        """Service time passes; what is due then is done."""
        self.now_ms += ms
        while self.keyspace.alarm_ms <= self.now_ms:
            self.service.wake(self.now_ms)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def world_type() -> type[World]:
    """For tests that need a new world for each example."""
    return World


@pytest.fixture(scope="session")
def reader_type() -> type[ShowingReader]:
    """For tests that read replies in pieces."""
    return ShowingReader


@pytest.fixture
def client(world: World) -> Client:
    return world.client()


@pytest.fixture
def play() -> Callable[[Path, Callable[[list[bytes]], str], Callable[[int], None]], None]:
    """Play a transcript: `send` runs a command and shows its reply, `wait` lets time pass."""

    def play(path: Path, send: Callable[[list[bytes]], str], wait: Callable[[int], None]) -> None:
        steps, protocol = read_transcript(path.read_text())
        if protocol == 3:
            send([b"HELLO", b"3"])
        for step in steps:
            if step.wait_ms:
                wait(step.wait_ms)
                continue
            shown = send(step.command)
            assert same(step.expected, shown), f"{path.name}:{step.line} {step.command} got {shown}"

    return play


class RedisClient:
    """A client of a real server."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self.reader = ShowingReader()

    def show(self, *words: bytes) -> str:
        """Run one command; the reply as in a transcript."""
        self.socket.sendall(encode_command(words))
        return self.read()

    def read(self) -> str:
        """The next reply, or message."""
        while not isinstance(shown := self.reader.next(), str):
            self.reader.feed(self.socket.recv(65536))
        return shown


@pytest.fixture(scope="module")
def redis_client(tmp_path_factory) -> Iterator[Callable[[], RedisClient]]:
    """Makes clients of a real redis-server that is a module's own; each call empties it. Skips where there is none."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    directory = tmp_path_factory.mktemp("redis")
    path = directory / "s"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(directory)]
    clients = []

    def connect() -> RedisClient:
        clients.append(RedisClient(path))
        clients[-1].show(b"FLUSHALL")
        return clients[-1]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "ready to accept connections" in line.lower():
                    break
            yield connect
        finally:
            for client in clients:
                client.socket.close()
            process.terminate()


@pytest.fixture
def redis_of(tmp_path):
    """A real redis-server that begins with a file, and saves to it. Skipped where there is none."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    options = ["--port", "0", "--unixsocket", str(tmp_path / "s"), "--save", "", "--dir", str(tmp_path)]
    with contextlib.ExitStack() as stack:

        def start(data):
            (tmp_path / "dump.rdb").write_bytes(data)
            command = ["redis-server", *options, "--dbfilename", "dump.rdb"]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.terminate)
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "ready to accept connections" in line.lower():
                    client = RedisClient(tmp_path / "s")
                    stack.callback(client.socket.close)
                    return client
            raise AssertionError("".join(lines))

        yield start


# Run in a process of its own, whose growth is nothing but the data. Some of it is loaded first, so that what the
# interpreter and the allocator take once is not counted.
LOADING = """
import gc, json, random, sys
from minidist.engines.keyspace.keyspace import Keyspace

def rss_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

arguments = json.loads(sys.argv[1])
rng = random.Random(1)
keyspace = Keyspace(16, rng)
gc.disable()
%s
load(25_000_000)
before, accounted = rss_bytes(), keyspace.used_bytes
load(100_000_000)
print(json.dumps([rss_bytes() - before, keyspace.used_bytes - accounted]))
"""


@pytest.fixture
def check_account() -> Callable[..., None]:
    """Whether 75 MB of accounted data are within 15 percent of what the process grows by.

    Takes the text of `load(until)`, which fills `keyspace` until it accounts for so many bytes, and its `arguments`.
    """
    if sys.platform != "linux":
        pytest.skip("reads /proc")

    def check(program: str, *arguments: object) -> None:
        command = [sys.executable, "-c", LOADING % program, json.dumps(arguments)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        grown, accounted = json.loads(run.stdout)
        assert 0.85 <= accounted / grown <= 1.15, f"{accounted / grown:.3f}: accounted {accounted}, grown by {grown}"

    return check
