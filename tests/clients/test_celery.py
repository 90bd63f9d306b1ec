"""Unmodified Celery with the cache as broker and store of results; its workers are processes of their own.

What the tests lean on in the cache: BRPOP over the lists of all priorities, pub/sub patterns and channels for results
and remote control, MULTI, sorted sets and hashes for what is not acknowledged, a lock for who restores it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from celery import Celery, chain, chord, group
from celery.exceptions import TaskRevokedError

PATIENCE_S = 60.0
WORKERS = Path(__file__).parent / "workers"


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


@contextmanager
def worker(url: str, *options: str) -> Iterator[subprocess.Popen]:
    """A worker with its children in a process group of its own, all of which is gone in the end."""
    command = [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "--loglevel", "error", *options]
    environment = {**os.environ, "REDIS_URL": url, "C_FORCE_ROOT": "1"}
    process = subprocess.Popen(command, cwd=WORKERS, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    """kill -9, children included."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


@pytest.fixture(scope="module")
def url(port) -> str:
    return f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="module")
def app(url) -> Iterator[Celery]:
    """A producer; it knows the tasks by their names only."""
    with Celery("producer", broker=url, backend=url) as app:
        app.conf.broker_transport_options = {"priority_steps": [0, 3, 6, 9]}
        yield app


@pytest.fixture(scope="module")
def running(url) -> Iterator[None]:
    """One worker for the tests that do not harm it."""
    with worker(url, "--concurrency", "2", "-Q", "celery"):
        yield


@pytest.fixture
def r(url) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        yield client


@pytest.mark.usefixtures("running")
class TestWithAWorker:
    def test_a_result(self, app):
        result = app.send_task("add", (1, 2))
        assert result.get(timeout=PATIENCE_S) == 3
        assert result.state == "SUCCESS"
        result.forget()

    def test_retries(self, app, r):
        assert app.send_task("flaky", ("retried", 3)).get(timeout=PATIENCE_S) == 3
        assert r.llen("retried") == 4

    def test_a_task_that_fails_for_good(self, app, r):
        result = app.send_task("flaky", ("failing", 100))
        with pytest.raises(Exception, match=r"\ANotYet|\A\Z"):
            result.get(timeout=PATIENCE_S)
        assert (result.state, r.llen("failing")) == ("FAILURE", 6)

    def test_a_countdown(self, app):
        sent_s = time.time()
        assert app.send_task("note", ("late", "x"), countdown=0.5).get(timeout=PATIENCE_S) >= sent_s + 0.5

    def test_groups_chains_and_chords(self, app):
        add = app.signature("add")
        results = group([add.clone((n, n)) for n in range(20)], app=app).apply_async()
        assert results.get(timeout=PATIENCE_S) == [2 * n for n in range(20)]
        steps = chain(add.clone((1, 1)), add.clone((10,)), add.clone((100,)), app=app)
        assert steps.apply_async().get(timeout=PATIENCE_S) == 112
        header = [add.clone((n, 1)) for n in range(20)]
        assert chord(header, app=app)(app.signature("total")).get(timeout=PATIENCE_S) == sum(range(20)) + 20

    def test_a_running_task_is_revoked(self, app, r):
        result = app.send_task("hang once", ("revoked",))
        wait_for(lambda: r.llen("revoked"))
        app.control.revoke(result.id, terminate=True, signal="SIGKILL")
        with pytest.raises(TaskRevokedError):
            result.get(timeout=PATIENCE_S)

    def test_remote_control(self, app):
        """A broadcast over pub/sub, and the answers."""
        ((_, answer),) = app.control.inspect(timeout=PATIENCE_S, limit=1).ping().items()
        assert answer == {"ok": "pong"}


def test_the_most_urgent_task_goes_first(app, url, r):
    """On Redis 0 is the most urgent priority."""
    for priority in (9, 6, 0, 3):
        app.send_task("note", ("order", str(priority)), queue="urgent", priority=priority)
    with worker(url, "--pool", "solo", "-Q", "urgent"):
        wait_for(lambda: r.llen("order") == 4)
    assert r.lrange("order", 0, -1) == ["0", "3", "6", "9"]


def test_a_task_whose_worker_was_killed_is_run_by_another(app, url, r):
    """Not acknowledged within the visibility timeout, it is put back into its queue by whichever worker looks."""
    result = app.send_task("hang once", ("killed",), queue="precious")
    with worker(url, "--concurrency", "1", "-Q", "precious") as first:
        wait_for(lambda: r.llen("killed"))
        kill(first)
    with worker(url, "--concurrency", "1", "-Q", "precious"):
        assert result.get(timeout=PATIENCE_S) == "done"
    assert r.llen("killed") == 2
    wait_for(lambda: r.hlen("unacked") == 0)
