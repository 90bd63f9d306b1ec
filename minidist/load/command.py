"""`minidist load URL …`: reads the command line, runs the load in processes of its own, shows progress, writes reports.

The figures for people go to standard output, or to standard error when the JSON goes there (`--json -`). Ctrl-C ends
the load with a report of what was; a second one ends it without.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from minidist.load.live import Display, display_for
from minidist.load.plan import LoadError
from minidist.load.report import Report, Trial, rate_text
from minidist.runtime.config import ConfigError
from minidist.runtime.loop import run as run_loop

if TYPE_CHECKING:
    from minidist.load.faults import ClusterFaults, Window
    from minidist.load.options import Command

DONE, FAILED, USAGE, OBJECTIVE_MISSED = 0, 1, 2, 3


def main(argv: Sequence[str]) -> int:
    """The exit code of `minidist load` with these arguments."""
    from minidist.load.driver import driver_for
    from minidist.load.options import PROGRAM, read

    try:
        command = read(list(argv))
        driver_for(command.plan)
        if not command.find_saturation:
            command.plan.check()
        check_outputs({"--json": command.json, "--html": command.html, "--history": command.plan.history})
        if not command.faults:
            return _finish(command, run_loop(_run(command, None)), [])
        faults = _cluster_faults(command)
        try:
            report = run_loop(_run(command, faults.begin))
        finally:
            faults.end()
        return _finish(command, report, faults.windows(report.started_at))
    except SystemExit as exit_:  # --help
        return int(exit_.code or 0)
    except ConfigError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return USAGE
    except (LoadError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return FAILED


async def _run(command: Command, on_start: Callable[[], None] | None) -> Report:
    from minidist.load.runner import run
    from minidist.load.saturation import find

    display = display_for(sys.stderr, quiet=command.quiet)
    with _interruptible() as stop, display:
        if not command.find_saturation:
            display.begin(command.plan)
            return await run(command.plan, on_tick=display.tick, stop=stop, apart=True, on_start=on_start)
        return await find(
            command.plan,
            command.slo,
            on_try=display.begin,
            on_trial=lambda trial: _show_trial(display, trial),
            on_tick=display.tick,
            stop=stop,
            apart=True,
        )


@contextlib.contextmanager
def _interruptible() -> Iterator[asyncio.Event]:
    """Yields what the first SIGINT or SIGTERM sets; the second cancels."""
    loop, task, stop = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()
    cancelled = False

    def interrupt() -> None:
        nonlocal cancelled
        if not stop.is_set():
            stop.set()
        elif task:
            cancelled = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        yield stop
    except asyncio.CancelledError:
        if cancelled:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _show_trial(display: Display, trial: Trial) -> None:
    verdict = "held" if trial.held else f"not held: {trial.reason}"
    p99 = trial.report.total.percentile_ms(99)
    latency = f"p99 {p99:.2f} ms" if p99 is not None else "nothing succeeded"
    client = "; the client was the limit" if not trial.held and trial.report.warnings() else ""
    display.note(f"{rate_text(trial.rate):>12}  {latency}  {verdict}{client}")


def _cluster_faults(command: Command) -> ClusterFaults:
    """Raises ConfigError, LoadError."""
    from minidist.load.faults import ClusterFaults

    return ClusterFaults(command.faults or "", command.run_dir or "")


def _finish(command: Command, report: Report, windows: Sequence[Window]) -> int:
    """Write the reports; the exit code."""
    from minidist.load.saturation import verdict_text

    verdicts = [limit.verdict(report.total) for limit in command.slo]
    if command.json:
        _write(command.json, json.dumps(report.to_json(), ensure_ascii=False) + "\n")
    if command.html:
        from minidist.load.page import page

        _write(command.html, page(report, verdicts, windows))
    lines = [verdict_text(report)] if report.trials else []
    lines += [report.text(), *(f"  objective {verdict}" for verdict in verdicts)]
    print("\n".join(lines), file=sys.stderr if "-" in (command.json, command.html) else sys.stdout)
    nothing_held = bool(report.trials) and not any(trial.held for trial in report.trials)
    return OBJECTIVE_MISSED if nothing_held or not all(verdict.kept for verdict in verdicts) else DONE


def check_outputs(paths: Mapping[str, str | None]) -> None:
    """What the options name can be written, as far as that can be known before there is a load. Raises LoadError."""
    for option, path in paths.items():
        if not path or path == "-":
            continue
        directory = os.path.dirname(path) or "."
        if os.path.isdir(path):
            allowed = "a file, not a directory"
        elif not os.path.isdir(directory):
            allowed = "a file in a directory that exists"
        elif not os.access(path if os.path.exists(path) else directory, os.W_OK):
            allowed = "a file that this user may write"
        else:
            continue
        raise LoadError(f"{option}: given {path!r}, allowed: {allowed}")


def _write(path: str, text: str) -> None:
    if path == "-":
        sys.stdout.write(text)
        return
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
