"""What the rq workers of test_rq.py run."""

import os
import signal

from redis import Redis
from rq import get_current_job


def connection() -> Redis:
    job = get_current_job()
    assert job is not None
    return job.connection


def add(*numbers: int) -> int:
    return sum(numbers)


def flaky(key: str, failures: int) -> int:
    """Fails so many times."""
    tries = int(connection().incr(key))
    if tries <= failures:
        raise ValueError("not yet")
    return tries


def note(key: str, text: str) -> None:
    connection().rpush(key, text)


def die() -> None:
    """The work horse, the worker's child, is killed in the middle of its job."""
    os.kill(os.getpid(), signal.SIGKILL)
