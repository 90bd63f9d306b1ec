"""The process between a test run and its cluster: `python -m minidist.testing.launcher FILE RUN-DIR TIMEOUT TEMPORARY`.

A supervisor must be forked by a process without threads, which a test run seldom is; and it must go when the test run
goes, however it goes. So the test run starts this process and holds its stdin: it launches the supervisor, prints one
JSON line (`{"run_dir"}` once everything is ready, or `{"error", "exit"}`), and ends at end-of-file, and with it the
cluster (the guard watches it, see minidist.cluster.guard) and the directory TEMPORARY, unless that is empty.
"""

import json
import os
import signal
import sys
import threading

from minidist.cluster.control import VerbError, call
from minidist.cluster.supervisor import LaunchError, UpOptions, launch


def main(file: str, run_dir: str, timeout_s: float, temporary: str) -> None:
    try:
        launched = launch(UpOptions(file=file, run_dir=run_dir, timeout_s=timeout_s, temporary=temporary))
        # From here on there may be threads: this one notices the test run's end whatever the rest waits for.
        threading.Thread(target=end_with_stdin, daemon=True).start()
        call(launched.run_dir, "attach")
    except (LaunchError, VerbError) as error:
        print(json.dumps({"error": str(error), "exit": error.exit_code}), flush=True)  # noqa: T201
        return
    print(json.dumps({"run_dir": str(launched.run_dir.path)}), flush=True)  # noqa: T201
    signal.pause()


def end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4])
