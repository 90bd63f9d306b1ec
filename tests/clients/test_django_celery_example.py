"""The project of examples/django_celery passes its tests on a cache whose URL stands where Redis' stood."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "examples/django_celery"


def test_the_project_passes_its_tests(minidist_cache):
    command = [sys.executable, "manage.py", "test"]
    environment = {**os.environ, "REDIS_URL": minidist_cache.url}
    run = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "\nOK" in run.stderr
