"""What the tests of unmodified clients share: a daemon of their own."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def daemon_options() -> list[str]:
    """For the daemon; a file may want others."""
    return []


@pytest.fixture(scope="module")
def port(daemon_options) -> Iterator[int]:
    """A cache daemon for this file."""
    command = [
        sys.executable,
        "-m",
        "minidist",
        "cache",
        "--listen",
        "127.0.0.1:0",
        "--log-level",
        "error",
        *daemon_options,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(json.loads(process.stdout.readline())["address"].rsplit(":", 1)[1])
        finally:
            process.kill()
