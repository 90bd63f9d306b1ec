"""One node in one process: its ready line, its signals, its exit codes, and what it says when something is wrong."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
DAEMON = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from line_server import LineServer
from minidist.runtime.daemon import main
sys.exit(main(LineServer, sys.argv[1:]))
"""
COMMAND = [sys.executable, "-c", DAEMON, HERE]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("MINIDIST_")}


@pytest.fixture
def start():
    """A factory of daemons that are ready; they are killed after the test."""
    processes = []

    def start(*argv, ready=True, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": CLEAN, "text": True} | options
        process = subprocess.Popen([*COMMAND, "--listen", "127.0.0.1:0", *argv], **options)
        processes.append(process)
        process.ready = json.loads(process.stdout.readline()) if ready else None
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def client_of(process):
    host, _, port = process.ready["address"].rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def ask(client, line):
    client.sendall(line.encode() + b"\n")
    return client.makefile().readline().rstrip("\n")


def failing(*argv, **environ):
    """Exit code, stdout and the lines of stderr of a daemon that does not start."""
    done = subprocess.run([*COMMAND, *argv], env=CLEAN | environ, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr.splitlines()


def test_the_ready_line_is_one_exact_json_line(start):
    process = start("--name", "line-7")
    ready = process.ready
    assert list(ready) == ["event", "component", "name", "address", "admin", "listeners", "pid"]
    assert (ready["event"], ready["component"], ready["name"], ready["pid"]) == ("ready", "line", "line-7", process.pid)
    assert ready["listeners"] == {"line": ready["address"]}
    assert re.fullmatch(r"127\.0\.0\.1:[1-9][0-9]*", ready["admin"])
    with client_of(process) as client:
        assert ask(client, "hello") == "HELLO"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert out == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_drains_and_exits_0(start, number):
    process = start()
    with client_of(process) as client:
        assert ask(client, "hello") == "HELLO"
        process.send_signal(number)
        assert client.recv(1) == b""
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "draining" in errors
    assert "Traceback" not in errors
    assert "exception" not in errors.lower()


def test_a_second_signal_ends_it_at_once(start):
    process = start("--drain-timeout", "1h")
    with client_of(process) as client:
        client.sendall(b"bye 50000000\n")
        assert client.recv(1) == b"."
        process.send_signal(signal.SIGTERM)
        while "draining" not in process.stderr.readline():
            pass
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_what_has_begun_is_finished_before_it_ends(start):
    process = start()
    with client_of(process) as client:
        client.sendall(b"big 50000000\n")
        assert client.recv(1) == b"."
        process.send_signal(signal.SIGTERM)
        received = 1
        while data := client.recv(1 << 20):
            received += len(data)
    assert received == 50_000_001
    assert process.wait(timeout=20) == 0


def test_a_port_in_use_is_one_line_and_exit_1():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = f"minidist line: cannot listen on {address}: Address already in use"
        assert failing("--listen", address) == (1, "", [text])
        code, out, lines = failing("--admin", address)
        assert (code, out, lines[-1]) == (1, "", text)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--max-clients", "0"], "minidist line: --max-clients: given '0', allowed: a whole number, at least 1"),
        (["--nothing"], "minidist line: --nothing: given '', allowed: the options of minidist line --help"),
        (["--config", "/no/such.toml"], "minidist line: --config: given '/no/such.toml', allowed: a readable TOML"),
        (
            ["--admin-token-file", "/no/such"],
            "minidist line: --admin-token-file: given '/no/such', allowed: a readable",
        ),
        (["--tls-cert", "/no", "--tls-key", "/no"], "minidist line: --tls-cert/--tls-key: given '/no', allowed: a PEM"),
        (["--greeting", "refuse to start"], "minidist line: --greeting: given 'refuse to start', allowed: anything"),
        (["--listen", "0.0.0.0:0"], "minidist line: --listen: given '0.0.0.0:0', allowed: a loopback address"),
    ],
)
def test_wrong_options_are_one_line_and_exit_2(argv, text):
    code, out, lines = failing(*argv)
    assert (code, out, len(lines)) == (2, "", 1)
    assert lines[0].startswith(text)


def test_options_from_the_environment():
    code, _, lines = failing(MINIDIST_LINE_MAX_CLIENTS="none")
    assert (code, lines) == (
        2,
        ["minidist line: MINIDIST_LINE_MAX_CLIENTS: given 'none', allowed: a whole number, at least 1"],
    )


def test_help_exits_0():
    code, out, lines = failing("--help")
    assert (code, lines) == (0, [])
    assert out.startswith("usage: minidist line ")


def test_json_logs_are_json_lines(start):
    process = start("--log-format", "json", "--name", "n1")
    with client_of(process) as client:
        client.sendall(b"boom\n")
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    lines = [json.loads(line) for line in errors.splitlines()]
    assert {"time", "level", "node", "message"} <= set(lines[0])
    (bug,) = [line for line in lines if line["level"] == "error"]
    assert bug["exception"].endswith("RuntimeError: boom")
    assert bug["node"] == "n1"
    assert "seed" in {line["message"] for line in lines}


def test_a_bug_costs_one_connection_and_not_the_daemon(start):
    process = start()
    for _ in range(2):
        with client_of(process) as client:
            client.sendall(b"boom\n")
            try:
                assert client.recv(1) == b""
            except ConnectionResetError:
                pass
    with client_of(process) as client:
        assert ask(client, "still here") == "STILL HERE"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors.count("RuntimeError: boom") == 2


@pytest.mark.parametrize("how", ["closed pipe", "no descriptor", "full disk"])
def test_nobody_needs_to_read_the_ready_line(how):
    if how == "closed pipe":
        read, write = os.pipe()
        os.close(read)
    elif how == "full disk":
        write = os.open("/dev/full", os.O_WRONLY)
    else:
        write = os.open(os.devnull, os.O_WRONLY)
    script = "import os, sys\nos.close(1)\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [*COMMAND, "--listen", "127.0.0.1:0"]
    if how == "no descriptor":
        command = [sys.executable, "-c", script, *command[1:]]
    with subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, env=CLEAN, text=True) as process:
        os.close(write)
        lines = []
        while "running" not in (line := process.stderr.readline()):
            lines.append(line)
        address = re.search(r"address=(\S+)", line)[1].rpartition(":")
        with socket.create_connection((address[0], int(address[2])), timeout=20) as client:
            assert ask(client, "hello") == "HELLO"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Exception ignored" not in errors
    assert "Traceback" not in errors


PARENT = """
import subprocess, sys, threading
def run():
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
    print(process.stdout.readline().decode(), flush=True)
thread = threading.Thread(target=run)
thread.start()
thread.join()
sys.stdin.read()
"""


def test_die_with_parent_follows_the_process_and_not_its_thread():
    command = [*COMMAND, "--listen", "127.0.0.1:0", "--die-with-parent"]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=CLEAN,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    parent.ready = json.loads(parent.stdout.readline())
    with client_of(parent) as client:
        assert ask(client, "hello") == "HELLO"  # the thread that started it is gone
        parent.kill()
        parent.communicate()
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass


def test_die_with_a_parent_that_has_ended_before_we_looked():
    command = [*COMMAND, "--listen", "127.0.0.1:0", "--die-with-parent"]
    leave_at_once = "import os, subprocess, sys; subprocess.Popen(sys.argv[1:]); os._exit(0)"
    # In a session that nobody who may adopt the daemon is in.
    parent = subprocess.Popen(
        [sys.executable, "-c", leave_at_once, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=CLEAN,
        stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    said, _ = parent.communicate()  # to the end of the last process that holds the pipe
    assert said == ""


def test_a_seed_makes_the_same_choices(start):
    """The stream of node choices is a function of the seed: fault ids' generators are drawn from it."""
    outcomes = []
    for seed in ("42", "42", "43"):
        process = start("--seed", seed)
        host, _, port = process.ready["admin"].rpartition(":")
        body = json.dumps({"kind": "reply", "error": "no", "probability": 0.5}).encode()
        with socket.create_connection((host, int(port)), timeout=20) as admin:
            admin.sendall(
                b"POST /faults HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
                % (process.ready["admin"].encode(), len(body), body)
            )
            while admin.recv(65536):
                pass
        with client_of(process) as client:
            outcomes.append([ask(client, "x") for _ in range(40)])
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] != outcomes[2]
    assert 0 < outcomes[0].count("!no") < 40


def test_a_socket_file_left_by_a_killed_daemon_is_no_obstacle(start):
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/s"
        process = start("--listen", f"unix:{path}")
        assert process.ready["address"] == f"unix:{path}"
        code, _, lines = failing("--listen", f"unix:{path}")
        assert (code, lines[-1]) == (1, f"minidist line: cannot listen on unix:{path}: Address already in use")
        process.kill()
        process.wait()
        assert os.path.exists(path)
        again = start("--listen", f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            assert ask(client, "hello") == "HELLO"
        again.send_signal(signal.SIGTERM)
        assert again.wait(timeout=20) == 0
        assert not os.path.exists(path)
