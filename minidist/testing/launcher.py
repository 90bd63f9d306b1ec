"""The process between a test run and its cluster: `python -m minidist.testing.launcher FILE RUN-DIR TIMEOUT`.

A supervisor must be forked by a process without threads, which a test run seldom is; and it must go when the test run
goes, however it goes. So the test run starts this process and holds its stdin: it launches the supervisor, prints one
JSON line (`{"run_dir"}` once everything is ready, or `{"error", "exit"}`), and ends at end-of-file, and with it the
cluster (the guard watches it, see minidist.cluster.guard).
"""

import json
import sys

from minidist.cluster.control import VerbError, call
from minidist.cluster.supervisor import LaunchError, UpOptions, launch


def main(file: str, run_dir: str, timeout_s: float) -> None:
    try:
        launched = launch(UpOptions(file=file, run_dir=run_dir, timeout_s=timeout_s))
        call(launched.run_dir, "attach")
        message: dict[str, object] = {"run_dir": str(launched.run_dir.path)}
    except (LaunchError, VerbError) as error:
        message = {"error": str(error), "exit": error.exit_code}
    print(json.dumps(message), flush=True)  # noqa: T201
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
