"""`minidist check HISTORY --model MODEL`: is what the clients of a run saw possible?

The history is read, judged by `engines/checking`, and the verdict told: on standard output in words, or with `--json`
as one object; `--html` writes a page that draws the evidence. This file is what those pure parts lack: files, the clock
of the budget, arguments.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minidist.engines.checking import MODELS, Budget, HistoryError, Judgement, UnsuitableError, Verdict, check
from minidist.engines.checking.explain import table
from minidist.engines.checking.history import read
from minidist.engines.checking.operation import Operation
from minidist.engines.checking.picture import page
from minidist.engines.checking.words import count, words_for
from minidist.runtime.config import ConfigError
from minidist.runtime.units import KINDS, Duration

if TYPE_CHECKING:
    import argparse

PROGRAM = "minidist check"
TEMPLATE = Path(__file__).with_name("check.html")
HOLDS, FAILED, USAGE, VIOLATED = 0, 1, 2, 3
EXIT_CODES = {Judgement.HOLDS: HOLDS, Judgement.UNKNOWN: FAILED, Judgement.VIOLATED: VIOLATED}
EXPLANATION = f"""The history is JSON lines; - reads standard input. Exit code 0: it holds; 3: it does not, with the
smallest evidence that was found; 1: the budget was spent before it was certain, or the history cannot be read; 2: wrong
usage. Models: {", ".join(MODELS)}."""


def main(argv: Sequence[str]) -> int:
    """The exit code of `minidist check` with these arguments."""
    try:
        options = _options(argv)
        budget_ms = _duration(options.budget)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    except ConfigError as error:
        print_error(error)
        return USAGE
    end = time.monotonic() + budget_ms / 1000
    title = "standard input" if options.history == "-" else options.history
    try:
        operations = read(_lines(options.history))
        verdict = check(operations, options.model, Budget(lambda: time.monotonic() > end))
    except (HistoryError, UnsuitableError) as error:
        print_error(f"{title}: {error}")
        return FAILED
    except OSError as error:
        print_error(f"{title}: {error.strerror}")
        return FAILED
    told = json.dumps(verdict.to_json(), ensure_ascii=False) if options.json else tell(verdict, operations)
    sys.stdout.write(told + "\n")
    if not operations:
        print_error(f"{title}: no operations: nothing was judged")
    if options.html:
        try:
            Path(options.html).write_text(page(TEMPLATE.read_text("utf-8"), title, verdict, operations), "utf-8")
        except OSError as error:
            print_error(f"--html: {options.html}: {error.strerror}")
            return FAILED
    return EXIT_CODES[verdict.judgement]


def tell(verdict: Verdict, operations: Sequence[Operation]) -> str:
    """The verdict in words, as lines of text."""
    words = words_for(operations)
    outcomes = ", ".join(f"{number} {outcome}" for outcome, number in verdict.outcomes.items())
    lines = [f"{verdict.model}: {verdict.judgement.value} ({count(verdict.operations, 'operation')}: {outcomes})"]
    for violation in verdict.violations:
        lines += ["", f"{violation.headline}", f"  this breaks {violation.breaks} ({violation.name})"]
        if violation.before:
            lines.append(f"  {violation.before}.")
        lines += [f"  {number}. {reason}" for number, reason in enumerate(violation.reasons, 1)]
        rows = table(violation, words)
        names = violation.names or [""] * len(rows)
        lines += [f"    {name:<4}{row}" if name else f"    {row}" for name, row in zip(names, rows, strict=True)]
        if not violation.is_smallest:
            lines.append("  (smaller evidence may exist: the budget was spent)")
    if verdict.notes or verdict.gave_up:
        lines.append("")
    lines += [f"not decided: {each}" for each in verdict.gave_up]
    return "\n".join(lines + verdict.notes)


def wrong_usage(message: str) -> int:
    """Say what is wrong with the arguments."""
    print_error(f"{message}; see {PROGRAM} --help")
    return USAGE


def print_error(problem: object) -> None:
    """One line on standard error."""
    sys.stderr.write(f"{PROGRAM}: {problem}\n")


def _lines(path: str) -> Iterator[bytes]:
    if path == "-":
        yield from sys.stdin.buffer
        return
    with open(path, "rb") as file:
        yield from file


def _options(argv: Sequence[str]) -> argparse.Namespace:
    """Raises SystemExit (help) and ConfigError."""
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> None:  # type: ignore[override]
            raise SystemExit(wrong_usage(message))

    parser = Parser(prog=PROGRAM, description="Judge a history.", epilog=EXPLANATION, allow_abbrev=False)
    parser.add_argument("history", metavar="HISTORY", help="the file of the history")
    parser.add_argument("--model", metavar="MODEL", required=True, help="what the history is of")
    parser.add_argument("--json", action="store_true", help="print the verdict as one JSON object")
    parser.add_argument("--html", metavar="FILE", help="write a page that draws the evidence, complete in itself")
    parser.add_argument("--budget", metavar="DURATION", default="60s", help="give up after so long (default 60s)")
    options = parser.parse_args(list(argv))
    if options.model not in MODELS:
        raise ConfigError("--model", options.model, f"one of {', '.join(MODELS)}")
    return options


def _duration(text: str) -> int:
    kind = KINDS[Duration]
    try:
        return int(kind.parse(text))
    except ValueError:
        raise ConfigError("--budget", text, kind.allowed) from None
