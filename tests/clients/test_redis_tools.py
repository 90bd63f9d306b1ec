"""redis-cli and redis-benchmark, unmodified, where they are installed."""

import re
import shutil
import subprocess

import pytest

TOOLS = pytest.mark.skipif(shutil.which("redis-benchmark") is None, reason="redis-tools is not installed")
pytestmark = TOOLS


def cli(port: int, *words: str, given: str = "") -> str:
    run = subprocess.run(
        ["redis-cli", "-p", str(port), *words], input=given, capture_output=True, text=True, timeout=30
    )
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
    command = ["redis-benchmark", "-p", str(port), "-n", "2000", "-c", "50", "-P", pipeline, "-t", names, "--csv"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0
    assert "WARNING" not in run.stderr
    rows = re.findall(r'^"([^"]+)","([0-9.]+)"', run.stdout, re.M)
    assert [name.split()[0] for name, _ in rows] == ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET"]
    assert all(float(rate) > 0 for _, rate in rows)
