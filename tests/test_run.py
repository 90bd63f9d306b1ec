"""`python -m minidist.run`: how it ends, and what it says about names that are no entry."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio

not_async = print

async def serve(env):
    print("serving on", env["PORT"], flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("cleaned up", flush=True)

async def deaf(env):
    print("serving", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("not now", flush=True)

async def ends(env):
    pass

async def fails(env):
    raise RuntimeError("no database")
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    started = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "minidist.run", *words],
            cwd=tmp_path,
            env={"PORT": "4711"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_and_the_exit_code_is_0(start, number):
    program = start("program:serve")
    assert program.stdout.readline() == "serving on 4711\n"
    program.send_signal(number)
    out, err = program.communicate(timeout=20)
    assert (program.returncode, out, err) == (0, "cleaned up\n", "")


def test_a_second_signal_ends_at_once(start):
    program = start("program:deaf")
    program.stdout.readline()
    program.terminate()
    assert program.stdout.readline() == "not now\n"
    program.terminate()
    assert program.wait(timeout=20) == 0


def test_a_program_that_ends_or_fails_by_itself(start):
    assert start("program:ends").wait(timeout=20) == 0
    failing = start("program:fails")
    assert "RuntimeError: no database" in failing.communicate(timeout=20)[1]
    assert failing.returncode == 1


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ((), 2, "minidist.run: given 0 arguments, allowed: one, package.module:function\n"),
        (("program",), 2, "minidist.run: given 'program', allowed: package.module:function\n"),
        (("nosuch.module:main",), 2, "given 'nosuch.module:main', allowed: a module that can be imported from"),
        (("program:nosuch",), 2, "given 'program:nosuch', allowed: a coroutine function of program (async def)\n"),
        (("program:not_async",), 2, "allowed: a coroutine function of program (async def)\n"),
        (("broken:main",), 1, "No module named 'no_such_module'"),
    ],
)
def test_what_is_no_entry(start, words, code, expected):
    program = start(*words)
    error = program.communicate(timeout=20)[1]
    assert expected in error
    assert program.returncode == code
    assert ("Traceback" in error) == (code == 1)
