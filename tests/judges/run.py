"""The judges: runs other projects' test suites against the cache and writes docs/compatibility.md and .json.

    .venv/bin/python tests/judges/run.py [--only SUITE] [--source SUITE=DIR] [--out DIR]

Files and logs of the runs are kept in .minidist/judges of the checkout. With `--only`, results of the other suites are
taken over from the last time. Without a network, every suite needs a `--source`, and pip an index of its own.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from obtaining import environment, obtain
from playing import ROOT, isolated, play_apart
from report import Result, count, page, read
from suites import SUITES, Suite

WORK = ROOT / ".minidist" / "judges"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=SUITES, default=[], help="run this suite; may be repeated")
    parser.add_argument("--source", action="append", default=[], metavar="SUITE=DIR", help="take its files from here")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="where the page and the JSON go")
    return parser.parse_args()


def results_of(suite: Suite, given: Path | None, apart: bool) -> list[Result]:
    source = obtain(suite, WORK, given)
    python = environment(suite, WORK)
    results = []
    for run in suite.runs:
        folder = WORK / "runs" / f"{suite.name} {run.name}".replace(" ", "-")
        result = count(play_apart(suite, run, source, python, folder, apart))
        print(f"{suite.name} {run.name}: {result.passed} of {result.applicable}, {result.took_s} s", flush=True)
        results.append(result)
    return results


def made() -> dict[str, str]:
    """When, of what and with what the results were made."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {"date": time.strftime("%Y-%m-%d"), "commit": commit or "?", "python": platform.python_version()}


def main() -> int:
    args = arguments()
    sources = {name: Path(folder) for name, _, folder in (each.partition("=") for each in args.source)}
    if unknown := sources.keys() - SUITES.keys():
        sys.exit(f"no such suite: {', '.join(sorted(unknown))}")
    WORK.mkdir(parents=True, exist_ok=True)
    apart = isolated()
    kept = args.out / "compatibility.json"
    results: dict[str, list[Result]] = {name: [] for name in SUITES}
    if args.only and kept.exists():
        for each in read(json.loads(kept.read_text())["results"]):
            results[each.suite].append(each)
    about = made()
    for name in args.only or SUITES:
        results[name] = results_of(SUITES[name], sources.get(name), apart)
        flat = [each for group in results.values() for each in group]
        kept.write_text(json.dumps({"made": about, "results": [asdict(each) for each in flat]}, indent=1) + "\n")
        (args.out / "compatibility.md").write_text(page(flat, about))
    return 0


if __name__ == "__main__":
    sys.exit(main())
