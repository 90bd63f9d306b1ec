"""redis-cli and redis-benchmark, unmodified, where they are installed."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

TOOLS = pytest.mark.skipif(shutil.which("redis-benchmark") is None, reason="redis-tools is not installed")
pytestmark = TOOLS


@pytest.fixture(scope="module")
def port() -> Iterator[str]:
    command = [sys.executable, "-m", "minidist", "cache", "--listen", "127.0.0.1:0", "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["address"].rsplit(":", 1)[1]
        finally:
            process.kill()


def cli(port: str, *words: str, given: str = "") -> str:
    run = subprocess.run(["redis-cli", "-p", port, *words], input=given, capture_output=True, text=True, timeout=30)
    return run.stdout.strip()


def test_redis_cli(port):
    assert cli(port, "SET", "k", "v") == "OK"
    assert cli(port, "-3", "GET", "k") == "v"
    assert cli(port, "--no-raw", "INCR", "n") == "(integer) 1"
    assert cli(port, given="MULTI\nINCR n\nINCR n\nEXEC\n").split() == ["OK", "QUEUED", "QUEUED", "2", "3"]
    assert cli(port, "--scan", "--pattern", "n*") == "n"
    assert "used_memory:" in cli(port, "INFO", "memory")
    assert cli(port, "CLIENT", "LIST").startswith("id=")
    assert cli(port, "NOSUCH") == "ERR unknown command 'NOSUCH', with args beginning with:"


def test_redis_cli_sends_many_at_once(port):
    commands = "".join(f"SET pipe:{number} {number}\n" for number in range(1000))
    assert "errors: 0, replies: 1000" in cli(port, "--pipe", given=commands)


@pytest.mark.parametrize("pipeline", ["1", "16"])
def test_redis_benchmark(port, pipeline):
    names = "ping,set,get,incr,mset"
    command = ["redis-benchmark", "-p", port, "-n", "2000", "-c", "50", "-P", pipeline, "-t", names, "--csv"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0
    assert "WARNING" not in run.stderr
    rows = re.findall(r'^"([^"]+)","([0-9.]+)"', run.stdout, re.M)
    assert [name.split()[0] for name, _ in rows] == ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET"]
    assert all(float(rate) > 0 for _, rate in rows)
