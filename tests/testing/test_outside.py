"""A user's own test run, in a directory of its own, as a process: what it prints, and what it leaves behind."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

TESTS = """
import redis
import pytest

def test_sync(minidist):
    cache = minidist.cache()
    with redis.Redis.from_url(cache.url) as r:
        assert r.ping()

@pytest.mark.asyncio
async def test_asyncio(minidist):
    import redis.asyncio
    cache = minidist.cache()
    r = redis.asyncio.Redis.from_url(cache.url)
    assert await r.ping()
    await r.aclose()

def test_view_one(minidist_cache):
    with redis.Redis.from_url(minidist_cache.url) as r:
        assert r.incr("n") == 1

def test_view_two(minidist_cache):
    with redis.Redis.from_url(minidist_cache.url) as r:
        assert r.incr("n") == 1
"""


def run_pytest(folder, *arguments):
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"MINE": str(folder), "TMPDIR": str(folder / "tmp")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=100, env=environment,
    )  # fmt: skip


def processes_of(folder):
    """Processes that name the folder in their command line or environment, ours aside."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if os.fsencode(str(folder)) in file.read() and int(pid) != os.getpid():
                    found.append(int(pid))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_users_test_file_passes(tmp_path, workers):
    (tmp_path / "test_mine.py").write_text(TESTS)
    run = run_pytest(tmp_path, "-q", *workers)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "4 passed" in run.stdout


def test_a_failing_test_shows_its_nodes(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "def test_it(minidist):\n    cache = minidist.cache()\n    cache.faults.delay(ms=5)\n    assert False\n"
    )
    run = run_pytest(tmp_path, "-q", "--minidist-seed=77")
    assert run.returncode == 1
    assert "minidist cache-1 (--minidist-seed=77)" in run.stdout
    assert "state: running" in run.stdout
    assert re.search(r"faults: .*delay", run.stdout)
    assert "cache-1 running address=" in run.stdout


def test_logs_can_be_kept(tmp_path):
    (tmp_path / "test_mine.py").write_text("def test_it(minidist):\n    print(minidist.cache().log_path)\n")
    places = []
    for arguments in ((), ("--minidist-keep",)):
        run = run_pytest(tmp_path, "-q", "-s", *arguments)
        match = re.search(r"^(/\S+cache-1\.log)", run.stdout, re.M)
        assert match, run.stdout
        places.append(match[1])
    assert not os.path.exists(places[0])
    assert os.path.exists(places[1])
    subprocess.run(["rm", "-r", places[1].split("/run/")[0]], check=True)


def test_nothing_survives_a_test_run_that_is_killed(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "import os, signal\n"
        "def test_it(minidist):\n"
        "    cache = minidist.cache()\n"
        "    cache.pause()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = run_pytest(tmp_path, "-q")
    assert run.returncode == -signal.SIGKILL
    while processes_of(tmp_path) or os.listdir(tmp_path / "tmp"):  # until the test's own time limit
        time.sleep(0.01)


@pytest.mark.parametrize("how", ["minidist.cache()", "minidist.up('shop.toml')", "minidist.up('wrong.toml')"])
def test_nothing_is_left_in_the_temporary_directory(tmp_path, how):
    (tmp_path / "shop.toml").write_text('[groups.cache]\ncomponent = "cache"\n')
    (tmp_path / "wrong.toml").write_text('[groups.web]\ncommand = ["false"]\n')
    (tmp_path / "test_mine.py").write_text(f"def test_it(minidist):\n    {how}\n")
    run = run_pytest(tmp_path, "-q")
    assert run.returncode == (1 if "wrong" in how else 0), run.stdout
    assert os.listdir(tmp_path / "tmp") == []


def test_a_run_that_does_not_use_it_imports_nothing(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    ours = sorted(name for name in sys.modules if name.startswith('minidist'))\n"
        "    assert ours == ['minidist', 'minidist.testing', 'minidist.testing.plugin'], ours\n"
    )
    run = run_pytest(tmp_path, "-q")
    assert run.returncode == 0, run.stdout
