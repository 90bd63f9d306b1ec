"""The plot of the demo and its report: when the node dies and comes back, and what that did to the requests. Pure.

A round is a stretch of load in three phases: before the kill, down, after the restart. With `--seconds N` there is one
round of N seconds, cut at half and three quarters; without, rounds of 20 seconds follow one another, cut at 10 and 15.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ENDLESS_ROUND_S = 20.0
PHASES = ("before", "down", "after")


@dataclass(frozen=True, slots=True)
class Round:
    """Times of one round in seconds since its load began."""

    length_s: float

    @property
    def kill_s(self) -> float:
        return self.length_s / 2

    @property
    def restart_s(self) -> float:
        return self.length_s * 3 / 4

    def phases(self) -> list[tuple[str, float, float]]:
        """(name, from, to) in order."""
        cuts = [0.0, self.kill_s, self.restart_s, self.length_s]
        return list(zip(PHASES, cuts[:-1], cuts[1:], strict=True))


@dataclass(frozen=True, slots=True)
class Chapter:
    """One round that was run: its plan, how long it really was, what the load generator reports, when it began."""

    plan: Round
    played_s: float
    report: Any  # load.report.Report
    began_at_s: float  # since the demo's load began


def report_json(chapters: Sequence[Chapter], events: list[dict[str, Any]], cache: dict[str, int]) -> dict[str, Any]:
    """The object of the contract. `events` have `time` in seconds since the epoch."""
    totals = [chapter.report.total for chapter in chapters]
    errors: dict[str, int] = {}
    for total in totals:
        for kind, count in total.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    ok, failed = sum(total.ok for total in totals), sum(total.failed for total in totals)
    seconds = sum(chapter.played_s for chapter in chapters)
    start = chapters[0].report.started_at if chapters else 0.0
    return {
        "seconds": round(seconds, 3),
        "offered_per_s": round(sum(total.offered for total in totals) / seconds, 1) if seconds else 0.0,
        "requests": {"sent": ok + failed, "ok": ok, "failed": failed},
        "errors": dict(sorted(errors.items())),
        "phases": [phase for chapter in chapters for phase in phases_json(chapter)],
        "events": [
            {"time_s": round(event["time"] - start, 3), "event": event["event"], "node": event["node"]}
            for event in events
        ],
        "cache": cache,
    }


def phases_json(chapter: Chapter) -> list[dict[str, Any]]:
    """The phases of one round as far as it was played; answers that came after the end belong to the last."""
    played = [phase for phase in chapter.plan.phases() if phase[1] < chapter.played_s]
    rows = []
    for name, from_s, to_s in played:
        last = name == played[-1][0]
        part = chapter.report.between(from_s, chapter.report.intervals[-1].end_s if last else to_s)
        p50, p99 = part.percentiles_ms(50, 99)
        rows.append(
            {
                "name": name,
                "from_s": round(chapter.began_at_s + from_s, 3),
                "to_s": round(chapter.began_at_s + min(to_s, chapter.played_s), 3),
                "ok": part.ok,
                "failed": part.failed,
                "p50_ms": p50,
                "p99_ms": p99,
            }
        )
    return rows


def report_text(report: dict[str, Any], victim: str) -> str:
    """The report for people."""
    requests, cache = report["requests"], report["cache"]
    lines = [
        f"{requests['sent']} requests in {report['seconds']:g} s ({report['offered_per_s']:g} per second): "
        f"{requests['ok']} answered, {requests['failed']} failed",
    ]
    lines += [f"    {kind}: {count}" for kind, count in report["errors"].items()]
    lines += ["", f"{'':10}{'from':>8}{'to':>8}{'ok':>9}{'failed':>9}{'p50 ms':>9}{'p99 ms':>9}"]
    words = {"before": "before", "down": f"{victim} dead", "after": "after"}
    for phase in report["phases"]:
        p50, p99 = (f"{phase[key]:.1f}" if phase[key] is not None else "–" for key in ("p50_ms", "p99_ms"))
        lines.append(
            f"{words[phase['name']]:10}{phase['from_s']:>8g}{phase['to_s']:>8g}"
            f"{phase['ok']:>9}{phase['failed']:>9}{p50:>9}{p99:>9}"
        )
    reads = cache["hits"] + cache["misses"]
    share = f", {100 * cache['hits'] / reads:.0f} % from the cache" if reads else ""
    lines += ["", f"cache: {cache['hits']} hits, {cache['misses']} misses{share}"]
    return "\n".join(lines)
