"""A pytest plugin, loaded into a suite's own run with `-p referee`: which cases apply, and how each one ended.

The suite stays as it is. Cases that a list of ours excludes are skipped with its reason, before any fixture runs.
Each case writes one line of JSON when it is over: its id, how it ended, why, and whether it spoke to the
node at all. Those that did not are tests of the client alone and say nothing about a server.

The environment tells REFEREE_EXCLUSIONS (a JSON list of pairs: pattern of ids or `@marker`, reason), REFEREE_ONLY (a
JSON list of ids; none means all), REFEREE_RESULTS (the file to write) and REFEREE_PORTS (of the node, with commas
between them).
"""

import fnmatch
import json
import os
import socket
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest

LONGEST_REASON = 300
PORTS = {int(port) for port in os.environ["REFEREE_PORTS"].split(",")}
RESULTS = Path(os.environ["REFEREE_RESULTS"])


class Case:
    """What is known of the case that runs."""

    def __init__(self) -> None:
        self.outcome = "passed"
        self.why = ""
        self.spoke = False


class Referee:
    def __init__(self) -> None:
        self.case = Case()
        self.exclusions: list[tuple[str, str]] = json.loads(os.environ["REFEREE_EXCLUSIONS"])
        self.only = frozenset(json.loads(os.environ["REFEREE_ONLY"]))

    def watch_connections(self) -> None:
        """Note what connects to the node or sends on a connection that an earlier case has left in a pool; blocking or
        not: asyncio, too, goes through the socket object."""
        to_node: WeakSet[socket.socket] = WeakSet()
        for name in ("connect", "connect_ex"):
            connect = getattr(socket.socket, name)

            def watched(sock: socket.socket, address: Any, connect: Any = connect) -> Any:
                if isinstance(address, tuple) and address[1] in PORTS:
                    self.case.spoke = True
                    to_node.add(sock)
                return connect(sock, address)

            setattr(socket.socket, name, watched)
        for name in ("send", "sendall"):
            send = getattr(socket.socket, name)

            def watched_send(sock: socket.socket, *data: Any, send: Any = send) -> Any:
                if sock in to_node:
                    self.case.spoke = True
                return send(sock, *data)

            setattr(socket.socket, name, watched_send)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.only:
            items[:] = [item for item in items if item.nodeid in self.only]
        for item in items:
            for pattern, reason in self.exclusions:
                if excludes(pattern, item):
                    item.add_marker(pytest.mark.skip(reason=reason), append=False)
                    break

    def pytest_runtest_logstart(self) -> None:
        self.case = Case()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.case.outcome != "failed":
            self.case.outcome, self.case.why = "failed", last_line(report)
        elif report.skipped and self.case.outcome == "passed":
            self.case.outcome = "skipped"
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
            self.case.why = reason.removeprefix("Skipped: ") or "the suite expects it to fail"

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        line = {"case": nodeid, "outcome": self.case.outcome, "why": self.case.why, "spoke": self.case.spoke}
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            line = {"case": report.nodeid, "outcome": "failed", "why": str(report.longrepr)[-LONGEST_REASON:]}
            with RESULTS.open("a") as file:
                file.write(json.dumps(line | {"spoke": False}) + "\n")


def excludes(pattern: str, item: pytest.Item) -> bool:
    if pattern.startswith("@"):
        return item.get_closest_marker(pattern[1:]) is not None
    return fnmatch.fnmatchcase(item.nodeid, pattern)


def last_line(report: pytest.TestReport) -> str:
    """The exception of a failed case, on one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    return " ".join(f"{report.when + ': ' if report.when != 'call' else ''}{text}".split())[:LONGEST_REASON]


def pytest_configure(config: pytest.Config) -> None:
    referee = Referee()
    referee.watch_connections()
    config.pluginmanager.register(referee)
