"""Our own load generator, for what the neutral clients cannot do: an open loop, mixes of sizes, patterns of keys.

It is written in Python, as one of the servers is: what it may say of both is their latency at one rate that leaves it
idle most of the time, and their memory, never their throughput.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from lab.servers import Running, pinned, python

PATIENCE_S = 60


def start(server: Running, core: int, report: Path, *options: str) -> "subprocess.Popen[str]":
    """Begin a load; `result` waits for its end."""
    command = [python(), "-m", "minidist", "load", f"redis://{server.host}:{server.port}/0"]
    command += ["--json", str(report), "--quiet", *options]
    return subprocess.Popen(
        pinned(core, command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=report.parent
    )


def result(load: "subprocess.Popen[str]", report: Path, seconds: float) -> dict[str, Any]:
    """The report of a load of so many seconds. Raises RuntimeError when it could not be made or requests failed."""
    try:
        _, errors = load.communicate(timeout=seconds + PATIENCE_S)
    except subprocess.TimeoutExpired:
        load.kill()
        load.wait()
        raise
    if load.returncode:
        raise RuntimeError(f"minidist load: {errors.strip()[-300:]}")
    figures: dict[str, Any] = json.loads(report.read_text())
    if figures["errors"]:
        raise RuntimeError(f"minidist load: {figures['errors']}")
    return figures
