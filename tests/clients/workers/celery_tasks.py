"""What the Celery workers of test_celery.py run: `celery -A celery_tasks worker`. Their traces are Redis lists."""

import os
import time

import redis
from celery import Celery, Task

URL = os.environ["REDIS_URL"]

app = Celery("tasks", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    task_track_started=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "priority_steps": [0, 3, 6, 9],
        "visibility_timeout": 1,
        "unacked_restore_interval": 0.1,  # by default workers look every 100 s for what is not acknowledged in time
        "unacked_restore_throttle": 1,
    },
)


class NotYet(Exception):
    """Failed, and worth another try."""


def trace(key: str, text: str) -> int:
    with redis.Redis.from_url(URL) as client:
        return int(client.rpush(key, text))


@app.task(name="add")
def add(*numbers: int) -> int:
    return sum(numbers)


@app.task(name="total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="note")
def note(key: str, text: str) -> float:
    trace(key, text)
    return time.time()


@app.task(name="flaky", bind=True, max_retries=5)
def flaky(self: Task, key: str, failures: int) -> int:
    """Fails so many times."""
    if trace(key, "try") <= failures:
        raise self.retry(exc=NotYet(), countdown=0.02)
    return int(self.request.retries)


@app.task(name="hang once")
def hang_once(key: str) -> str:
    """Never ends when it runs for the first time."""
    if trace(key, "run") == 1:
        time.sleep(3600)
    return "done"
