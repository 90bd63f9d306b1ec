"""The fork server: children with groups, descriptors and environments of their own; their ends; its own end.

A fork needs a process without threads, which a test run is not: each test is a script in a process of its own.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PRELUDE = """
import os, signal, sys
from forkserver_client import Client, is_alive
client = Client()
"""


@pytest.fixture
def run(tmp_path):
    def run(script):
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OUTER": "outer", "GONE": "gone"}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(script)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return run


def test_a_command_gets_its_directory_environment_and_output(run):
    run("""
        script = "import os, sys; e = os.environ; print(os.getcwd(), e['A'], e['OUTER'], e.get('GONE')); sys.exit(3)"
        pid = client.spawn(argv=[sys.executable, "-c", script], env={"A": "1", "GONE": None}, cwd="/")
        assert client.code(pid) == 3
        assert client.said() == "/ 1 outer None\\n", client.said()
        client.server.close()
    """)


def test_a_command_that_cannot_be_started_ends_as_in_a_shell(run):
    run("""
        assert client.code(client.spawn(argv=["nosuchprogram"])) == 127
        assert client.code(client.spawn(argv=["/etc/passwd"])) == 126
        said = client.said().splitlines()
        assert said == ["cannot start nosuchprogram: not found in PATH", "cannot start /etc/passwd: Permission denied"]
        client.server.close()
    """)


def test_a_function_runs_as_a_program_of_its_own(run, tmp_path):
    (tmp_path / "program.py").write_text(
        textwrap.dedent("""
            import atexit, os, sys, threading

            def work():
                threading.main_thread().join()
                print("a thread")

            async def main(env):
                atexit.register(print, "at exit")
                threading.Thread(target=work).start()
                print(env["A"], os.getpgid(0) == os.getpid(), repr(sys.stdin.read()))
                sys.exit(4)
        """)
    )
    run("""
        pid = client.spawn(target="minidist.run:main", args=["program:main"], env={"A": "1"}, title="web-1")
        assert client.code(pid) == 4
        assert client.said() == "1 True ''\\na thread\\nat exit\\n", client.said()
        client.server.close()
    """)


def test_a_function_that_raises_is_a_traceback_and_exit_1(run):
    run("""
        assert client.code(client.spawn(target="os:nosuch")) == 1
        assert "AttributeError" in client.said()
        client.server.close()
    """)


def test_what_a_child_forked_ends_with_it(run):
    run("""
        pid = client.spawn(argv=["sh", "-c", "sleep 1000 & echo $!; kill -9 $$"])
        assert client.code(pid) == -signal.SIGKILL
        background = int(client.said())
        client.until(lambda: not is_alive(background))
        client.server.close()
    """)


def test_a_signal_reaches_the_whole_group_and_nobody_after_its_end(run):
    run("""
        pid = client.spawn(argv=["sh", "-c", "sleep 1000 & echo $!; trap 'exit 9' TERM; wait"])
        background = int(client.until(lambda: client.said()))
        client.server.signal(pid, signal.SIGSTOP)
        client.server.signal(pid, signal.SIGTERM)
        client.server.signal(pid, signal.SIGCONT)
        assert client.code(pid) in (9, -signal.SIGTERM)
        client.until(lambda: not is_alive(background))
        client.server.signal(pid, signal.SIGTERM)
        assert client.code(client.spawn(argv=["true"])) == 0
        client.server.close()
    """)


def test_children_are_announced_and_taken_back(run):
    run("""
        pid = client.spawn(argv=["true"])
        client.code(pid)
        server, *others = client.announced()
        assert server == f"s {client.server.pid}"
        assert set(others[:-1]) == {f"+ {pid}"}
        assert others[-1] == f"- {pid}"
        client.server.close()
    """)


def test_the_servers_end_takes_its_children_along(run):
    run("""
        pid = client.spawn(argv=["sleep", "1000"])
        client.server.close()
        client.server = None
        assert not is_alive(pid)
    """)


def test_the_client_hears_of_the_servers_end(run):
    run("""
        os.kill(client.server.pid, signal.SIGKILL)
        try:
            client.until(lambda: False)
        except EOFError:
            client.server.close()
        else:
            raise AssertionError
    """)


def test_a_request_that_is_too_long_is_refused(run):
    run("""
        try:
            client.spawn(argv=["x" * 2_000_000])
        except ValueError as error:
            assert "at most 1048576" in str(error)
        else:
            raise AssertionError
        client.server.close()
    """)
