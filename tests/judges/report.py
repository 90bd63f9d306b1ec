"""docs/compatibility.md from the results: what was run, what applies, what passed, each failure with its reason."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from playing import Played
from suites import SUITES

HEAD = """# Compatibility: what other projects' tests say

The cache against the test suites of others, run as they are published. Written by

    .venv/bin/python tests/judges/run.py

which gets the suites (PyPI's source archives; git where there is none), starts nodes of the cache, runs the suites
against them and writes this page and `compatibility.json`. `--source SUITE=DIR` takes a suite from a folder, `--only
SUITE` runs one. It takes half an hour and is no part of `bin/test`.

A case *applies* when it is about a command that Redis 7.2 has, outside CLUSTER, SENTINEL, modules and replication. Not
counted are cases that never speak to the server (the client's own parts: parsers, retries, pools with fakes), and
those that a real `redis-server` of this machine fails in the same place. Everything else that fails is listed.
"""
LONGEST_WHY = 160


@dataclass
class Result:
    """One run of a suite, counted."""

    suite: str
    version: str
    run: str
    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # case → why
    as_real: dict[str, str] = field(default_factory=dict)  # failed on the real server, too
    real: str = ""
    skipped: dict[str, int] = field(default_factory=dict)  # reason → cases
    of_client: int = 0  # cases that never spoke to the node, and passed
    elsewhere: dict[str, str] = field(default_factory=dict)  # failed without having spoken to the node
    took_s: float = 0

    @property
    def applicable(self) -> int:
        return self.passed + len(self.failed)

    @property
    def share(self) -> str:
        return f"{100 * self.passed / self.applicable:.1f} %" if self.applicable else "–"


def count(played: Played) -> Result:
    result = Result(played.suite, SUITES[played.suite].version, played.run, real=played.real, took_s=played.took_s)
    skipped: Counter[str] = Counter()
    for each in played.cases:
        if each.outcome == "skipped":
            skipped[" ".join(each.why.split())] += 1
        elif not each.spoke and each.outcome == "passed":
            result.of_client += 1
        elif not each.spoke:
            result.elsewhere[each.case] = each.why
        elif each.outcome == "passed":
            result.passed += 1
        elif each.case in played.as_real:
            result.as_real[each.case] = each.why
        else:
            result.failed[each.case] = each.why
    result.skipped = dict(sorted(skipped.items(), key=lambda item: (-item[1], item[0])))
    return result


def read(results: list[dict[str, Any]]) -> list[Result]:
    return [Result(**each) for each in results]


def page(results: list[Result], made: dict[str, str]) -> str:
    parts = [HEAD, f"\nOf {made['date']}, commit {made['commit']}, CPython {made['python']}.\n\n"]
    parts += ["| suite | run | apply | passed | failed | passed | left out | client only | real fails too |\n"]
    parts += ["|---|---|--:|--:|--:|--:|--:|--:|--:|\n"]
    parts += [summary(each) for each in results]
    total = Result("", "", "", passed=sum(each.passed for each in results))
    total.failed = {f"{each.suite} {each.run} {case}": "" for each in results for case in each.failed}
    parts.append(f"| all | | {total.applicable} | {total.passed} | {len(total.failed)} | {total.share} | | | |\n")
    for suite in dict.fromkeys(each.suite for each in results):
        parts += section(suite, [each for each in results if each.suite == suite])
    return "".join(parts)


def summary(result: Result) -> str:
    counts = (result.applicable, result.passed, len(result.failed), result.share)
    others = (sum(result.skipped.values()), result.of_client, len(result.as_real))
    cells = [f"{result.suite} {result.version}", result.run, *map(str, counts), *map(str, others)]
    return "| " + " | ".join(cells) + " |\n"


def section(name: str, results: list[Result]) -> list[str]:
    parts = [f"\n## {name}\n\n{SUITES[name].about}\n"]
    failed = {(case, why): None for each in results for case, why in each.failed.items()}
    if failed:
        parts.append("\nFailed:\n\n")
        parts += [f"- `{case}` ({runs_of(case, results)}): {short(why)}\n" for case, why in unique(failed)]
    else:
        parts.append("\nNothing fails.\n")
    as_real = {(case, why): None for each in results for case, why in each.as_real.items()}
    if as_real:
        real = next(each.real for each in results if each.real)
        parts.append(f"\nFailed, and {real} fails them here, too:\n\n")
        parts += [f"- `{case}`: {short(why)}\n" for case, why in unique(as_real)]
    elsewhere = {(case, why): None for each in results for case, why in each.elsewhere.items()}
    if elsewhere:
        parts.append("\nFailed before anything was said to the node (not counted):\n\n")
        parts += [f"- `{case}`: {short(why)}\n" for case, why in unique(elsewhere)]
    reasons: Counter[str] = Counter()
    for each in results:
        reasons.update(each.skipped)
    if reasons:
        parts.append("\nLeft out, by the suite or by the lists in `tests/judges/suites.py` (all runs together):\n\n")
        parts += [f"- {number}: {reason}\n" for reason, number in reasons.most_common()]
    return parts


def unique(cases: dict[tuple[str, str], None]) -> list[tuple[str, str]]:
    return list({case: (case, why) for case, why in cases}.values())


def runs_of(case: str, results: list[Result]) -> str:
    return ", ".join(each.run for each in results if case in each.failed)


def short(why: str) -> str:
    """A reason on one line of Markdown, without addresses that change from run to run."""
    text = re.sub(r"0x[0-9a-f]{6,}", "0x…", " ".join(why.split())).replace("`", "'")
    return f"`` {text[:LONGEST_WHY]} ``" if text else "no reason given"
