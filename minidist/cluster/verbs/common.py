"""What all verbs share: their parser, which cluster they are about, and how they print."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from minidist.cluster.control import VerbError
from minidist.cluster.rundir import BASE, RunDir, running
from minidist.cluster.verbs import VERBS
from minidist.runtime.config import parse_duration

OK, FAILED, USAGE = 0, 1, 2


class Parser(argparse.ArgumentParser):
    """A verb's parser: `--name` and `--run-dir` everywhere, and errors in one line."""

    def __init__(self, verb: str) -> None:
        super().__init__(prog=f"minidist {verb}", description=VERBS.get(verb.split()[0]), allow_abbrev=False)
        self.add_argument("--name", default="", help="the cluster, when several run")
        self.add_argument("--run-dir", default="", metavar="DIR", help="its run directory, instead of .minidist/NAME")

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(USAGE)


def seconds(text: str) -> float:
    """An argument that is a duration, in seconds."""
    try:
        return parse_duration(text) / 1000
    except ValueError:
        raise argparse.ArgumentTypeError(f"given {text!r}, allowed: a duration such as 1500ms, 30s, 2h") from None


def add_timeout(parser: argparse.ArgumentParser, default: str, text: str) -> None:
    parser.add_argument(
        "--timeout", type=seconds, default=seconds(default), metavar="DURATION", help=f"{text} ({default})"
    )


def chosen(options: argparse.Namespace, *, even_if_down: bool = False) -> RunDir:
    """The cluster a verb is about: the one named, else the only one that runs. Raises VerbError.

    With `even_if_down`, one that is named may be over: its logs and events can still be read.
    """
    if options.run_dir or options.name:
        run_dir = RunDir(Path(options.run_dir or Path(BASE) / options.name))
        if run_dir.in_use() or (even_if_down and run_dir.path.is_dir()):
            return run_dir
        raise VerbError(f"no cluster runs in {run_dir.path}{_others()}")
    found = running()
    if len(found) > 1:
        names = ", ".join(directory.name for directory in found)
        raise VerbError(f"several clusters run; given no --name, allowed: one of {names}", USAGE)
    if not found:
        raise VerbError(f"no cluster runs in {Path(BASE).absolute()}")
    return found[0]


def _others() -> str:
    names = ", ".join(directory.name for directory in running())
    return f"; running: {names}" if names else ""


def say(text: str) -> None:
    """Progress, for people: on stderr."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be, with two blanks between; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


COLOURS = (36, 33, 32, 35, 34, 31)


def prefixer(nodes: Sequence[str]) -> Callable[[str], str]:
    """Makes `web-1 | ` in front of log lines: aligned, and in a colour per node where a terminal shows it."""
    colourful = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    known = {node: index for index, node in enumerate(nodes)}

    def prefix(node: str) -> str:
        width = max(map(len, known), default=0)
        text = f"{node.ljust(width)} | "
        index = known.setdefault(node, len(known))
        return f"\x1b[{COLOURS[index % len(COLOURS)]}m{text}\x1b[0m" if colourful else text

    return prefix
