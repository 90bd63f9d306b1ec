"""A tiny component for tests of the floor: a line server that answers each line with its upper case, and more.

It is a module of its own so that daemons and worker processes can import it. Lines with a meaning:

    name NAME      the client's name, for faults          boom          a bug: an exception in data_received
    pid            the process that answers               big N         N bytes and a line feed
    decided        what the control half has decided      bye N         N bytes and a line feed, then close
    report TEXT    the control half hears it              clock         service time
"""

import os
from dataclasses import dataclass
from typing import Any

from minidist.runtime.admin import Routes
from minidist.runtime.config import ConfigError, WorkersConfig, option
from minidist.runtime.connection import Connection
from minidist.runtime.endpoint import Listener
from minidist.runtime.metrics import Family, counter
from minidist.runtime.node import Halves, Message, Node


class LineInspector:
    """Each line is a request whose name is its first word and whose key is its second."""

    def requests(self, buffer: bytes) -> list[tuple[str, str, int]]:
        found, start = [], 0
        while (end := buffer.find(b"\n", start)) >= 0:
            words = buffer[start:end].decode().split()
            found.append((words[0] if words else "", words[1] if len(words) > 1 else "", end + 1))
            start = end + 1
        return found

    def error_reply(self, request: bytes, text: str) -> bytes:
        return f"!{text}\n".encode()


class LineConnection(Connection):
    __slots__ = ("buffer", "node")

    def __init__(self, listener: "Listener[LineConnection]", node: "LineServer") -> None:
        super().__init__(listener)
        self.node = node
        self.buffer = b""

    def refused(self) -> bytes:
        return b"!too many\n"

    def mid_request(self) -> bool:
        return bool(self.buffer)

    def data_received(self, data: bytes) -> None:
        self.touched = True
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        answers = [self.answer(line) for line in lines]
        self.transport.write(b"".join(answer + b"\n" for answer in answers))
        if any(line.startswith(b"bye ") for line in lines):
            self.close()

    def answer(self, line: bytes) -> bytes:
        self.node.lines += 1
        word, _, rest = line.partition(b" ")
        if word == b"name":
            self.named(rest.decode())
        if word == b"boom":
            raise RuntimeError("boom")
        if word in (b"big", b"bye"):
            return b"." * int(rest)
        if word == b"pid":
            return str(os.getpid()).encode()
        if word == b"decided":
            return self.node.heard.encode()
        if word == b"clock":
            return str(self.node.clock.now_ms()).encode()
        if word == b"report":
            self.node.report({"said": rest.decode()})
        return line.upper()


@dataclass(frozen=True, kw_only=True)
class LineConfig(WorkersConfig):
    component = "line"

    greeting: str = option("", "What the control half tells the data half at start.", live=True)
    password: str = option("", "A secret.", secret=True)


class LineServer(Node):
    config_type = LineConfig
    config: LineConfig
    names_clients = True  # `name client:NAME`

    def __init__(self, config: LineConfig, ports: Any, halves: Halves = Halves.BOTH) -> None:
        super().__init__(config, ports, halves)
        self.said = config.greeting  # control half
        self.heard = config.greeting  # data half
        self.reports: list[tuple[int, str]] = []
        self.lines = 0

    async def open_data(self) -> None:
        if self.config.greeting == "refuse to start":
            raise ConfigError("--greeting", self.config.greeting, "anything else")
        await self.listen(
            "line", self.config.listen, lambda listener: LineConnection(listener, self), inspector=LineInspector()
        )

    def say(self, text: str) -> None:
        self.said = text
        self.decide({"say": text})

    def decided(self, decision: Message) -> None:
        self.heard = decision["say"]

    def standing_decisions(self) -> list[Message]:
        return [{"say": self.said}]

    def reported(self, worker: int, report: Message) -> None:
        self.reports.append((worker, report["said"]))
        self.say(report["said"])

    def figures(self) -> Message:
        return {"requests_total": self.lines, "p99_ms": 1.5}

    def families(self) -> list[Family]:
        return [counter("lines_total", "Lines answered.", self.lines)]

    def routes(self) -> Routes:
        return {("GET", "/reports"): lambda request: self.reports}

    async def reset_data(self) -> None:
        self.lines = 0
