"""Unmodified rq on the cache: jobs, a worker in a process of its own, retries, registries, schedules, dependencies."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from rq import Queue, Retry
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry

PATIENCE_S = 60.0
WORKERS = Path(__file__).parent / "workers"


@pytest.fixture
def connection(port) -> Iterator[redis.Redis]:
    with redis.Redis(port=port) as connection:
        connection.flushall()
        yield connection


@pytest.fixture
def queue(connection) -> Queue:
    return Queue("work", connection=connection)


@pytest.fixture
def work(port) -> Callable[..., None]:
    """Have a worker do what is in the queue, and end."""

    def work(*options: str) -> None:
        command = [sys.executable, "-m", "rq.cli", "worker", "--burst", "--quiet", *options]
        command += ["--url", f"redis://127.0.0.1:{port}", "work"]
        environment = {**os.environ, "PYTHONPATH": str(WORKERS)}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
        assert run.returncode == 0, run.stderr

    return work


def state(job: Job) -> JobStatus:
    return job.get_status(refresh=True)


def test_results_dependencies_and_what_fails(queue, work, connection):
    jobs = [queue.enqueue("rq_tasks.add", number, number) for number in range(5)]
    first = queue.enqueue("rq_tasks.note", "order", "first")
    second = queue.enqueue("rq_tasks.note", "order", "second", depends_on=first)
    retried = queue.enqueue("rq_tasks.flaky", "tries", 2, retry=Retry(max=3))
    failing = queue.enqueue("rq_tasks.flaky", "failing", 100, retry=Retry(max=1))
    waiting = queue.enqueue("rq_tasks.note", "order", "never", depends_on=failing)
    killed = queue.enqueue("rq_tasks.die")
    assert (state(jobs[0]), state(second), len(queue)) == (JobStatus.QUEUED, JobStatus.DEFERRED, 9)
    work()
    assert [job.return_value() for job in jobs] == [0, 2, 4, 6, 8]
    assert connection.lrange("order", 0, -1) == [b"first", b"second"]
    assert (retried.return_value(), connection.get("failing")) == (3, b"2")
    assert [state(job) for job in (failing, waiting, killed)] == [
        JobStatus.FAILED,
        JobStatus.DEFERRED,
        JobStatus.FAILED,
    ]
    assert set(FailedJobRegistry(queue=queue).get_job_ids()) == {failing.id, killed.id}
    assert len(FinishedJobRegistry(queue=queue)) == 8
    assert "not yet" in failing.latest_result().exc_string


def test_failed_jobs_are_queued_again(queue, work):
    job = queue.enqueue("rq_tasks.flaky", "tries", 1)
    work()
    registry = FailedJobRegistry(queue=queue)
    assert job in registry
    registry.requeue(job)
    work()
    assert (len(registry), job.return_value()) == (0, 2)


def test_scheduled_jobs(queue, work, connection):
    """A scheduler, which holds a lock in the cache, moves what is due into the queue."""
    due = queue.enqueue_in(timedelta(seconds=-1), "rq_tasks.add", 1, 2)
    later = queue.enqueue_in(timedelta(hours=1), "rq_tasks.add", 3, 4)
    assert len(ScheduledJobRegistry(queue=queue)) == 2
    work("--with-scheduler")
    wait_for_result(due)
    assert due.return_value() == 3
    assert ScheduledJobRegistry(queue=queue).get_job_ids() == [later.id]
    assert connection.keys("rq:scheduler-lock:*") == []


def wait_for_result(job: Job) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while state(job) != JobStatus.FINISHED:
        assert time.monotonic() < deadline, state(job)
        time.sleep(0.01)
