"""`minidist sim TOPOLOGY|SCENARIO.py …`: runs seeds and says how each ended. See docs/simulation.md.

On standard output, and nothing else there: a line per seed, `replay: …` after one that failed, at the end `trace …`.
With `--json` each of these is a JSON object. Everything for people goes to standard error.
"""

import argparse
import dataclasses
import json
import os
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from minidist.runtime.config import parse_duration
from minidist.sim.bugs import BUGS, UnknownBugError
from minidist.sim.bugs import find as find_bug
from minidist.sim.campaign import Sums, run_seeds, run_twice
from minidist.sim.run import Ending, Outcome, Settings, run_seed
from minidist.sim.scenario import UsageError, load
from minidist.sim.simulation import RANDOM

PROGRAM = "minidist sim"
DONE, FAILED, USAGE, NOT_HELD = 0, 1, 2, 3
MAX_SEEDS = 1_000_000
MAX_BUNDLES = 10


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, read."""

    file: str
    seeds: Sequence[int]
    faults: str
    duration: str
    settings: Settings
    twice: bool = False
    html: str = ""
    bundle: str = ""
    json: bool = False

    def replay(self, seed: int) -> str:
        """The command that runs one seed again."""
        words = ["minidist", "sim", self.file, "--seed", str(seed), "--duration", self.duration]
        words += ["--faults", self.faults] if self.faults else []
        words += ["--bug", self.settings.bug] if self.settings.bug else []
        words += ["--twice"] if self.twice else []
        return shlex.join(words)


def main(argv: Sequence[str]) -> int:
    """The exit code of `minidist sim` with these arguments."""
    try:
        arguments = _parser().parse_args(list(argv))
        if arguments.list_bugs:
            for bug in BUGS:
                _out(f"{bug.name:<28} {bug.summary}")
            return DONE
        return _run(_read(arguments))
    except SystemExit as exit_:  # --help
        return int(exit_.code or 0)
    except (UsageError, UnknownBugError) as error:
        _err(f"{PROGRAM}: {error}")
        return USAGE
    except OSError as error:
        _err(f"{PROGRAM}: {error}")
        return FAILED


# --- reading ----------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {PROGRAM} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Run a topology, or a scenario in Python, in a simulated world: the same seed, the same run.",
        epilog="exit codes: 0 every seed was ok, 3 a check failed or there was no progress, 2 wrong usage, 1 other",
    )
    parser.add_argument("file", nargs="?", metavar="TOPOLOGY|SCENARIO.py", help="what to simulate")
    parser.add_argument("--seed", metavar="N", help="one seed (default: 1)")
    parser.add_argument("--seeds", metavar="A..B", help="all seeds from A to B, on all processors")
    parser.add_argument("--twice", action="store_true", help="each seed in two processes, with equal traces")
    parser.add_argument("--faults", metavar="random|FILE", default="", help="drawn from the seed, or a JSON list")
    parser.add_argument("--duration", metavar="TIME", default="60s", help="how long the faults last (default: 60s)")
    parser.add_argument("--bug", metavar="NAME", default="", help="plant a known defect, which the checks must find")
    parser.add_argument("--list-bugs", action="store_true", help="the names of the defects")
    parser.add_argument("--html", metavar="FILE", default="", help="a picture of the seed (of the first that failed)")
    parser.add_argument(
        "--bundle", metavar="DIR", default="", help="everything about the seed, or about those that fail"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of text")
    return parser


def _read(arguments: Any) -> Command:
    """Raises UsageError, UnknownBugError."""
    if arguments.file is None:
        raise UsageError("given no file, allowed: a topology file or a Python file with a scenario")
    if arguments.bug:
        find_bug(arguments.bug)
    try:
        duration_s = parse_duration(arguments.duration) / 1000
    except ValueError:
        raise UsageError(f"--duration: given {arguments.duration!r}, allowed: a duration such as 60s, 5m") from None
    settings = Settings(faults=_read_faults(arguments.faults), duration_s=duration_s, bug=arguments.bug)
    return Command(
        file=arguments.file,
        seeds=_read_seeds(arguments.seed, arguments.seeds),
        faults=arguments.faults,
        duration=arguments.duration,
        settings=settings,
        twice=arguments.twice,
        html=arguments.html,
        bundle=arguments.bundle,
        json=arguments.json,
    )


def _read_seeds(seed: str | None, seeds: str | None) -> Sequence[int]:
    if seed is not None and seeds is not None:
        raise UsageError(f"--seeds: given {seeds!r} and --seed, allowed: one of them")
    if seeds is None:
        if seed is None or _is_number(seed):
            return [int(seed or 1)]
        raise UsageError(f"--seed: given {seed!r}, allowed: a whole number that is not negative")
    first, dots, last = seeds.partition("..")
    if not (dots and _is_number(first) and _is_number(last) and 0 <= int(last) - int(first) < MAX_SEEDS):
        raise UsageError(f"--seeds: given {seeds!r}, allowed: A..B, at most {MAX_SEEDS} seeds")
    return range(int(first), int(last) + 1)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _read_faults(given: str) -> Any:
    if given in ("", RANDOM):
        return given or None
    try:
        with open(given, encoding="utf-8") as file:
            specs = json.load(file)
    except OSError as error:
        raise UsageError(f"--faults: given {given!r} ({error.strerror}), allowed: random or a JSON file") from None
    except ValueError as error:
        raise UsageError(f"--faults: given {given!r}, allowed: a JSON list of faults ({error})") from None
    if not isinstance(specs, list) or not all(isinstance(spec, dict) for spec in specs):
        raise UsageError(f'--faults: given {given!r}, allowed: a JSON list such as [{{"kind": "kill", "on": "web-1"}}]')
    return specs


# --- running ----------------------------------------------------------------------------------------------------------


def _run(command: Command) -> int:
    load(command.file)  # what is wrong with it is said once, here
    sums = Sums()
    pictured: dict[int, str] = {}  # the traces of the seeds to be looked at
    run = run_twice if command.twice else run_seeds
    for outcome in run(command.file, command.seeds, command.settings, os.cpu_count() or 1):
        sums.add(outcome)
        _tell(command, outcome)
        if len(command.seeds) == 1 or (outcome.ending is not Ending.OK and len(pictured) < MAX_BUNDLES):
            pictured[outcome.seed] = outcome.digest
    _tell_sums(command, sums)
    _write_pictures(command, pictured)
    _out(json.dumps(sums.to_json()) if command.json else f"trace {sums.digest()}")
    return DONE if sums.all_ok() else NOT_HELD


def _tell(command: Command, outcome: Outcome) -> None:
    failed = outcome.ending is not Ending.OK
    if command.json:
        replay = {"replay": command.replay(outcome.seed)} if failed else {}
        _out(json.dumps(outcome.to_json() | replay))
    else:
        _out(outcome.line())
        if failed:
            _out(f"replay: {command.replay(outcome.seed)}")
    for problem in outcome.problems:
        _err(textwrap.indent(problem.rstrip("\n"), "  "))
    if len(command.seeds) == 1:
        for text in outcome.never_fired:
            _err(f"  this fault never took effect: {text}")
    if command.settings.faults is not None:
        for text in outcome.shortfalls():
            _err(f"  seed {outcome.seed}: too little happened to count: {text}")


def _tell_sums(command: Command, sums: Sums) -> None:
    if not command.json:
        _err(sums.text())


def _write_pictures(command: Command, digests: Mapping[int, str]) -> None:
    """Seeds are run again to be looked at; one that is not the same again is said to be so."""
    if not (command.html or command.bundle):
        return
    from minidist.sim.bundle import write_bundle, write_page

    single = len(command.seeds) == 1
    subject = load(command.file)
    for place, (seed, digest) in enumerate(digests.items()):
        again = run_seed(subject.scenario, seed, dataclasses.replace(command.settings, keep=True))
        if again.digest != digest:
            _err(f"seed {seed}: the run that is looked at differs from the one above: {again.digest}")
        if command.html and place == 0:
            write_page(command.html, again, command.replay(seed))
        if command.bundle:
            directory = command.bundle if single else os.path.join(command.bundle, f"seed-{seed}")
            write_bundle(directory, again, command.replay(seed), subject.file)
            _err(f"bundle: {directory}")


def _out(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _err(line: str) -> None:
    sys.stderr.write(line + "\n")
