"""The cache as a process: its ready line, its exit codes, and what an idle client costs."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

IDLE_CLIENTS = 800
LIMIT_BYTES_PER_CLIENT = 4096
IDLE_NODE_BYTES = 40 * 1024**2


@contextlib.contextmanager
def daemon(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    command = [sys.executable, "-m", "minidist", "cache", "--listen", "127.0.0.1:0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def connect(ready: dict[str, object]) -> socket.socket:
    host, port = str(ready["address"]).rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


def ask(connection: socket.socket, command: bytes) -> bytes:
    connection.sendall(command + b"\r\n")
    return connection.recv(65536)


def test_ready_line_and_orderly_end():
    with daemon("--name", "c") as (process, ready):
        assert (ready["event"], ready["component"], ready["name"]) == ("ready", "cache", "c")
        with connect(ready) as connection:
            assert ask(connection, b"SET k v") == b"+OK\r\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
            assert connection.recv(1) == b""


def test_shutdown_ends_the_process(tmp_path):
    with daemon("--data-dir", str(tmp_path), "--snapshot", "dump.rdb") as (process, ready):
        with connect(ready) as connection:
            assert ask(connection, b"SET k v") == b"+OK\r\n"
            assert ask(connection, b"SHUTDOWN NOSAVE") == b""
        assert process.wait(10) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--eviction", "lru"], "--eviction: given 'lru', allowed: one of noeviction"),
        (["--max-memory", "lots"], "--max-memory: given 'lots', allowed: a size"),
        (["--listen", "0.0.0.0:0"], "--auth-file"),
        (["--databases", "0"], "--databases"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_options_are_exit_2(options, said):
    command = [sys.executable, "-m", "minidist", "cache", *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (run.returncode, run.stdout) == (2, "")
    assert said in run.stderr
    assert run.stderr.count("\n") == 1


def test_what_cannot_be_had_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for options, code, said in (
            (["--listen", f"127.0.0.1:{taken.getsockname()[1]}"], 1, "cannot listen on"),
            (["--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "missing")], 1, "a directory that exists"),
            (["--listen", "127.0.0.1:0", "--auth-file", str(tmp_path / "missing")], 2, "--auth-file: given"),
        ):
            command = [sys.executable, "-m", "minidist", "cache", "--log-level", "error", *options]
            run = subprocess.run(command, capture_output=True, text=True, timeout=30)
            assert run.returncode == code
            assert said in run.stderr
            assert run.stderr.count("\n") == 1


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_client_is_small():
    files, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * IDLE_CLIENTS), hard))
    try:
        with daemon() as (process, ready), contextlib.ExitStack() as stack:
            # The first connections pay for code and buffers that all share.
            for _ in range(50):
                assert ask(stack.enter_context(connect(ready)), b"PING") == b"+PONG\r\n"
            assert ask(stack.enter_context(connect(ready)), b"COMMAND COUNT").startswith(b":")  # all modules are there
            assert rss_bytes(process.pid) < IDLE_NODE_BYTES
            before = rss_bytes(process.pid)
            for _ in range(IDLE_CLIENTS):
                assert ask(stack.enter_context(connect(ready)), b"*1\r\n$4\r\nPING\r\n") == b"+PONG\r\n"
            grown = rss_bytes(process.pid) - before
            assert grown / IDLE_CLIENTS < LIMIT_BYTES_PER_CLIENT
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_node_uses_no_processor():
    with daemon() as (process, ready), connect(ready) as connection:
        assert ask(connection, b"SET k v") == b"+OK\r\n"
        assert ask(connection, b"COMMAND COUNT").startswith(b":")  # loads what it would load by and by

        def ticks() -> int:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        before, until_s = ticks(), time.monotonic() + 0.5
        while time.monotonic() < until_s:
            assert process.poll() is None
            connection.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                connection.recv(1)
        assert ticks() - before <= 1
