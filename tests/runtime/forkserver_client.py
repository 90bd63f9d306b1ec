"""A client of the fork server for test_forkserver.py, whose tests run it in a process without threads."""

import os
import select
import time
from pathlib import Path

from minidist.runtime.forkserver import ForkServer


class Client:
    """A fork server, and one output file for all its children."""

    def __init__(self):
        self.output = Path("output")
        self.output.touch()
        self.announcements, writing = os.pipe()
        self.server = ForkServer.start(writing, ("json", "no.such.module"))
        self.pids = {}
        self.codes = {}

    def spawn(self, **options):
        """Start a child; its pid."""
        descriptor = os.open(self.output, os.O_WRONLY | os.O_APPEND)
        common = {"env": {}, "cwd": os.getcwd(), "stdout": descriptor, "stderr": descriptor}
        request = self.server.spawn(**common | options)
        os.close(descriptor)
        return self.until(lambda: self.pids.get(request))

    def code(self, pid):
        """Wait for a child's end; its exit code, negative for a signal."""
        self.until(lambda: pid in self.codes)
        return self.codes[pid]

    def until(self, condition):
        """Wait for a condition; its value. The condition is looked at after every message, and every 10 ms."""
        deadline_s = time.monotonic() + 15
        while not (value := condition()):
            assert time.monotonic() < deadline_s, "never"
            if select.select([self.server.channel], [], [], 0.01)[0]:
                for message in self.server.receive():
                    if "spawned" in message:
                        self.pids[message["spawned"]] = message["pid"]
                    else:
                        self.codes[message["exited"]] = message["code"]
        return value

    def said(self):
        return self.output.read_text()

    def announced(self):
        return os.read(self.announcements, 65536).decode().splitlines()


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
