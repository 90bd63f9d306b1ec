"""The report as one HTML page without any reference to the network: page.html with the figures put in as JSON.

The page draws its charts itself (SVG, a few functions of JavaScript in page.html). Here the series are made: intervals
are joined until at most `MAX_POINTS` are left and each has enough requests for its percentiles to mean something.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidist import __version__
from minidist.load.recorder import Interval, merged
from minidist.load.report import Report
from minidist.load.slo import Verdict

if TYPE_CHECKING:
    from minidist.load.faults import Window

TEMPLATE = Path(__file__).with_name("page.html")
MAX_POINTS = 300
#: Requests that a point should stand for, on average.
REQUESTS_PER_POINT = 20
#: Where the distribution is drawn: eight points per halving of the distance to 100 %, as HdrHistogram's own plots.
_POINTS_PER_HALVING = 8


def page(report: Report, verdicts: Sequence[Verdict] = (), faults: Sequence[Window] = ()) -> str:
    """The whole page. Slow (a millisecond per point): not for a loop that serves anything else."""
    figures = json.dumps(_figures(report, verdicts, faults), ensure_ascii=False, separators=(",", ":"))
    title = escape(f"{report.workload} on {report.to_json()['url']}")
    # "</script>" within a string of the data would end the script.
    template = TEMPLATE.read_text(encoding="utf-8")
    return template.replace("{{title}}", title).replace("{{figures}}", figures.replace("<", "\\u003c"))


def _figures(report: Report, verdicts: Sequence[Verdict], faults: Sequence[Window]) -> dict[str, Any]:
    return {
        "report": report.to_json(),
        "started": datetime.fromtimestamp(report.started_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "version": __version__,
        "processes": report.plan.processes,
        "connections": report.plan.channels,
        "interrupted": report.interrupted,
        "window_s": report.window_s,
        "client_busy": report.client_busy,
        "warnings": report.warnings(),
        "objectives": [{"text": str(each), "kept": each.kept} for each in verdicts],
        "faults": [{"text": each.text, "from": each.from_s, "to": each.to_s} for each in faults],
        "points": [_point(each) for each in _points(report)],
        "distribution": _distribution(report.total),
        "trials": [
            {
                "rate": each.rate,
                "held": each.held,
                "reason": each.reason,
                "achieved": each.report.achieved_per_s,
                "p99": each.report.total.percentile_ms(99),
            }
            for each in report.trials
        ],
    }


def _points(report: Report) -> list[Interval]:
    intervals = report.intervals
    requests = max(1, report.total.ok + report.total.failed)
    wanted = max(1, min(MAX_POINTS, requests // REQUESTS_PER_POINT, len(intervals)))
    at_once = -(-len(intervals) // wanted)
    # The last answers of a run are not a rate: they join the last full interval.
    points = [list(intervals[first : first + at_once]) for first in range(0, len(intervals), at_once)]
    if len(points) > 1 and sum(each.seconds for each in points[-1]) < sum(each.seconds for each in points[-2]) / 2:
        last = points.pop()
        points[-1] += last
    return [merged(each) for each in points]


def _point(interval: Interval) -> dict[str, Any]:
    p50, p90, p99 = interval.percentiles_ms(50, 90, 99)
    seconds = interval.seconds
    return {
        "from": round(interval.start_s, 3),
        "to": round(interval.end_s, 3),
        "offered": round(interval.offered / seconds, 2),
        "ok": round(interval.ok / seconds, 2),
        "failed": round(interval.failed / seconds, 2),
        "errors": interval.errors,
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "max": interval.max_ms,
        "lag": interval.lag_s * 1000,
    }


def _distribution(total: Interval) -> list[list[float | None]]:
    """[share above, latency in ms] from 1 (the minimum) down to the share of a single request."""
    if not total.ok:
        return []
    shares = [1.0]
    while shares[-1] * total.ok > 1:
        shares.append(shares[-1] * 2 ** (-1 / _POINTS_PER_HALVING))
    values = total.percentiles_ms(*(100 * (1 - share) for share in shares))
    return [[share, value] for share, value in zip(shares, values, strict=True)]
