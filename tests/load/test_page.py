"""The figures that the page is made from."""

import json
import re
from typing import Any

from minidist.load.page import MAX_POINTS, page
from minidist.load.plan import Plan
from minidist.load.recorder import Recorder
from minidist.load.report import Report, Trial
from minidist.load.slo import Limit


def report(intervals: int, per_interval: int, url: str = "http://h/") -> Report:
    recorder, made = Recorder(), []
    for number in range(intervals):
        recorder.offered = per_interval
        recorder.latencies.extend([0.001 * (1 + each) for each in range(per_interval)])
        made.append(recorder.close((number + 1) / 10))
    return Report(
        plan=Plan(url=url, rate=per_interval * 10.0, duration_ms=intervals * 100), workload="get", started_at=0.0,
        window_s=intervals / 10, last_ok_s=intervals / 10, intervals=made, client_cpu_s=0.1,
    )  # fmt: skip


def figures(text: str) -> Any:
    found = re.search(r"^const F = (.*);$", text, re.MULTILINE)
    assert found
    return json.loads(found[1])


def test_points_are_few_and_stand_for_enough() -> None:
    assert len(figures(page(report(10, 50)))["points"]) == 10
    assert len(figures(page(report(10, 10)))["points"]) == 5
    assert len(figures(page(report(10, 0)))["points"]) == 1
    many = figures(page(report(700, 20)))["points"]
    assert len(many) <= MAX_POINTS
    assert round(sum((each["to"] - each["from"]) * each["ok"] for each in many)) == 700 * 20


def test_the_distribution_goes_from_the_fastest_to_the_slowest() -> None:
    distribution = figures(page(report(1, 100)))["distribution"]
    latencies = [each[1] for each in distribution]
    assert latencies == sorted(latencies)
    assert distribution[0][0] == 1.0
    assert abs(latencies[0] - 1) < 0.01
    assert abs(latencies[-1] - 100) < 1


def test_what_a_url_contains_cannot_become_markup() -> None:
    text = page(report(1, 1, "http://h/</script><script>alert(1)</script>"))
    assert "<script>alert" not in text
    assert figures(text)["report"]["url"].endswith("</script><script>alert(1)</script>")


def test_trials_and_verdicts_are_on_it() -> None:
    made = report(1, 10)
    trial = Trial(rate=100.0, held=False, reason="achieved 50.0% of it", report=made)
    object.__setattr__(made, "trials", [trial])
    found = figures(page(made, [Limit("p99", 1).verdict(made.total)]))
    assert found["trials"][0]["reason"] == "achieved 50.0% of it"
    assert found["objectives"] == [{"text": "p99 10.01 ms, at most 1 ms: EXCEEDED", "kept": False}]
