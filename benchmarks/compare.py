#!/usr/bin/env python3
"""Measure minidist beside the real servers: `benchmarks/compare.py cache|balancer|startup|footprint`.

Run it with the checkout's interpreter on a quiet machine with two cores; the head of each file in subjects/ says what
it measures, lab/figures.py how runs become verdicts, README.md how to read the table. A component gets a file in
subjects/, a peer a file in peers/.

Exit codes: 0 done; 1 something is missing or failed; 2 wrong usage; 3 a target that must be reached is missed.
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from lab import machine, plot, table  # noqa: E402
from lab.figures import Result, Verdict  # noqa: E402
from lab.servers import PeerMissing  # noqa: E402
from lab.settings import MIN_PAIRS, Settings  # noqa: E402

SUBJECTS = tuple(sorted(path.stem for path in (HERE / "subjects").glob("*.py")))
BUSY = 0.1  # of the whole machine, by others: more than this and the result is not kept
OK, FAILED, MISSED = 0, 1, 3


def main() -> int:
    options = arguments()
    settings = Settings(options.pairs, options.seconds, options.quick, options.only)
    busy = machine.busy_before()
    if busy > BUSY:
        sys.stderr.write(f"others use {busy:.0%} of this machine: the figures mean little\n")
    try:
        result = measure(options.subject, settings)
    except (PeerMissing, RuntimeError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    document = describe(options.subject, settings, result, busy)
    print(table.render(document))
    folder = options.output or (HERE / "results" if worth_keeping(settings, busy) else None)
    if folder is None:
        sys.stderr.write(f"not recorded: needs a quiet machine, every case, and {MIN_PAIRS} pairs\n")
    else:
        keep(document, folder, options.plot)
    return MISSED if any(figure.verdict is Verdict.MISSED for figure in result.figures) else OK


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="measure minidist beside the real servers")
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument(
        "--pairs", type=int, default=MIN_PAIRS, help="measurements of each, in turn (default %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one measurement (default %(default)s)")
    parser.add_argument("--only", default="", metavar="WORD", help="only cases whose name holds this word")
    parser.add_argument("--quick", action="store_true", help="a try-out: small data, one pair of a second, no record")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where to write the JSON (default benchmarks/results)"
    )
    parser.add_argument("--plot", action="store_true", help="write a picture (SVG) beside the JSON")
    options = parser.parse_args()
    if options.pairs < 1 or options.seconds <= 0:
        parser.error("--pairs and --seconds must be positive")
    if options.quick:
        options.pairs, options.seconds = 1, 1.0
    return options


def measure(subject: str, settings: Settings) -> Result:
    with tempfile.TemporaryDirectory(prefix="minidist-benchmark-") as folder:
        result: Result = importlib.import_module(f"subjects.{subject}").run(
            settings, machine.pick_cores(), Path(folder)
        )
    return result


def describe(subject: str, settings: Settings, result: Result, busy: float) -> dict[str, Any]:
    """The JSON document: everything that was measured, and on what."""
    document = result.document()
    return {
        "subject": subject,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": machine.commit(),
        "machine": machine.facts(),
        "busy_before": round(busy, 3),
        **document,
        "settings": {**settings.document(), **document["settings"]},
    }


def worth_keeping(settings: Settings, busy: float) -> bool:
    return settings.pairs >= MIN_PAIRS and not settings.quick and not settings.only and busy <= BUSY


def keep(document: dict[str, Any], folder: Path, with_plot: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{document['subject']}-{document['time'][:10]}-{document['commit'].rstrip('+')}"
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(f"recorded: {folder / name}.json")
    if with_plot:
        (folder / f"{name}.svg").write_text(plot.render(document))
        print(f"picture: {folder / name}.svg")


if __name__ == "__main__":
    sys.exit(main())
