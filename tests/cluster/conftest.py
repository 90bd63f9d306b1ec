"""A user's project in a temporary directory, and the command line run in it, as a user would type it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minidist.cluster.control import call
from minidist.cluster.rundir import running

# The user's program: answers every request with its name and process id, forks and misbehaves on demand.
APP = """
import asyncio, os, signal, sys

async def main(env):
    name = env.get("MINIDIST_NODE", "?")
    async def serve(reader, writer):
        try:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
        except asyncio.IncompleteReadError:  # somebody only looked whether we accept
            return writer.close()
        if b" /slow" in head:
            print("slow request", flush=True)
            await asyncio.sleep(0.3)
        body = f"{name} {os.getpid()} {env.get('SEEN', '')}".encode()
        status = b"503 No" if b" /never" in head else b"200 OK"
        head = b"HTTP/1.1 %s\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % (status, len(body))
        writer.write(head + body)
        await writer.drain()
        writer.close()
    if env.get("MODE") == "fail":
        sys.exit("no database")
    if env.get("MODE") == "silent":
        await asyncio.Event().wait()
    if env.get("MODE") == "stubborn":
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, lambda: print("ignored", flush=True))
    server = await asyncio.start_server(serve, "127.0.0.1", int(env["PORT"]))
    print("serving on", env["PORT"])
    print("a warning", file=sys.stderr)
    async with server:
        await server.serve_forever()

if __name__ == "__main__":
    asyncio.run(main(os.environ))
"""

WEB = """
[groups.web]
entry = "app:main"
ready = "http:/"
"""


class Project:
    """The directory, and what a user does in it.

    (Test modules cannot import this file, so what they need hangs on the fixture.)
    """

    WEB = WEB

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started: list[subprocess.Popen[str]] = []
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("MINIDIST_")}
        (path / "app.py").write_text(APP)

    def topology(self, text: str, file: str = "minidist.toml") -> None:
        (self.path / file).write_text(text)

    def begin(self, *words: str, **options: object) -> "subprocess.Popen[str]":
        """Start `minidist WORDS` and go on."""
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "minidist", *words],
            cwd=self.path,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.started.append(process)
        return process

    def run(self, *words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run `minidist WORDS` to its end, which must have this exit code."""
        process = self.begin(*words)
        out, err = process.communicate(timeout=40)
        assert process.returncode == code, f"minidist {' '.join(words)}: exit {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def up(self, text: str, *words: str) -> None:
        self.topology(text)
        self.run("up", "-d", *words)

    def error(self, *words: str, code: int) -> str:
        """The one line that a verb which must fail says."""
        text = self.run(*words, code=code).stderr
        assert f"minidist {words[0]}" in text
        assert "Warning" not in text
        return text

    def ps(self, *words: str) -> dict[str, dict]:
        """The nodes by name, from `ps --json`, or (most tests only want to know) as its verb gets them."""
        answer = json.loads(self.run("ps", "--json", *words).stdout) if words else self.answer("ps")
        return {node["name"]: node for node in answer["nodes"]}

    def answer(self, verb: str, **arguments):
        """What the supervisor of the only running cluster answers."""
        (run_dir,) = running(self.path / ".minidist")
        return call(run_dir, verb, **arguments)

    def states(self) -> dict[str, str]:
        return {name: node["state"] for name, node in self.ps().items()}

    def supervisor(self) -> int:
        return self.answer("ps")["supervisor_pid"]

    def events(self) -> list[dict]:
        (run_dir,) = running(self.path / ".minidist")
        return [json.loads(line) for line in run_dir.events.read_text().splitlines()]

    def get(self, node: str, path: str = "/") -> str:
        return self.fetch(self.ps()[node]["url"] + path)

    @staticmethod
    def fetch(url: str) -> str:
        """The body of a GET; raises OSError when nobody answers."""
        import http.client
        import urllib.parse

        parts = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=5)
        try:
            connection.request("GET", parts.path or "/")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    @staticmethod
    def until(condition, what: str = "", timeout_s: float = 15.0):
        """Wait for a condition; its value."""
        deadline_s = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < deadline_s, f"never: {what or condition}"
            time.sleep(0.01)
        return value

    @staticmethod
    def is_alive(pid: int) -> bool:
        """Whether a process exists and is more than a zombie."""
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state not in "ZX"

    @staticmethod
    def family(pid: int) -> list[int]:
        """A process and all its descendants."""
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
        found = [pid]
        for each in found:
            found += [child for child, parent in parents.items() if parent == each]
        return found

    @staticmethod
    def until_gone(pids: list[int]) -> None:
        Project.until(lambda: not [pid for pid in pids if Project.is_alive(pid)], f"the end of {pids}")

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for directory in (self.path / ".minidist").glob("*"):
            subprocess.run(
                [sys.executable, "-m", "minidist", "down", "--run-dir", str(directory), "--timeout", "0"],
                capture_output=True,
                cwd=self.path,
                check=False,
            )


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_project(tmp_path_factory):
    """One project for several tests of a module that leave a cluster as they found it."""
    made = Project(tmp_path_factory.mktemp("shared"))
    yield made
    made.close()
