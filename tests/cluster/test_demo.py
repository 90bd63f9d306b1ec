"""The demo: its plot and report, and one short run as a newcomer starts it."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from minidist.cluster.demo.command import main
from minidist.cluster.demo.show import curve
from minidist.cluster.demo.story import Chapter, Round, report_json, report_text
from minidist.load.plan import Plan
from minidist.load.recorder import Interval, Recorder
from minidist.load.report import Report


def interval(start_s: float, ok: int, failed: int = 0) -> Interval:
    recorder = Recorder()
    recorder.close(start_s)
    recorder.latencies.extend([0.005] * ok)
    recorder.settle(0.0)
    recorder.failed("connect-refused", failed)
    recorder.offered = ok + failed
    return recorder.close(start_s + 0.1)


def report_of(intervals: list[Interval], window_s: float) -> Report:
    plan = Plan(url="http://x:1/", rate=10, duration_ms=round(window_s * 1000))
    return Report(
        plan=plan, workload="get", started_at=1000.0, window_s=window_s, last_ok_s=window_s,
        intervals=intervals, client_cpu_s=0.1,
    )  # fmt: skip


def test_a_round_kills_at_half_and_restarts_at_three_quarters():
    assert Round(20).phases() == [("before", 0.0, 10.0), ("down", 10.0, 15.0), ("after", 15.0, 20)]


def test_the_report_is_the_contracts():
    intervals = [interval(step / 10, 2, failed=1 if 20 <= step < 30 else 0) for step in range(40)]
    chapter = Chapter(Round(4), 4.0, report_of(intervals, 4.0), 0.0)
    events = [{"time": 1002.0, "event": "killed", "node": "web-2", "detail": {}}]
    report = report_json([chapter], events, {"hits": 5, "misses": 1})
    assert list(report) == ["seconds", "offered_per_s", "requests", "errors", "phases", "events", "cache"]
    assert report["requests"] == {"sent": 90, "ok": 80, "failed": 10}
    assert report["errors"] == {"connect-refused": 10}
    assert [(phase["name"], phase["ok"], phase["failed"]) for phase in report["phases"]] == [
        ("before", 40, 0), ("down", 20, 10), ("after", 20, 0),
    ]  # fmt: skip
    assert set(report["phases"][0]) == {"name", "from_s", "to_s", "ok", "failed", "p50_ms", "p99_ms"}
    assert report["events"] == [{"time_s": 2.0, "event": "killed", "node": "web-2"}]
    text = report_text(report, "web-2")
    assert "90 requests in 4 s" in text
    assert "connect-refused: 10" in text
    assert "83 % from the cache" in text


def test_a_round_that_was_interrupted_has_the_phases_that_were_played():
    chapter = Chapter(Round(20), 12.0, report_of([interval(step / 10, 1) for step in range(120)], 12.0), 0.0)
    report = report_json([chapter], [], {"hits": 0, "misses": 0})
    assert [(phase["name"], phase["from_s"], phase["to_s"]) for phase in report["phases"]] == [
        ("before", 0.0, 10.0), ("down", 10.0, 12.0),
    ]  # fmt: skip


def test_curves():
    assert curve([0.0, 0.0]) == "  "
    assert curve([0.0, 0.01, 4.0, 8.0]) == " ▁▄█"


@pytest.mark.parametrize("given", ["0", "abc", "-5", "1e9"])
def test_a_wrong_length_is_exit_2(given, capsys):
    assert main([f"--seconds={given}"]) == 2
    assert "allowed: a number of seconds from 1 to 86400" in capsys.readouterr().err


def test_a_short_run(tmp_path):
    """Every request is answered although a third of the servers dies, and nothing is left behind."""
    run = subprocess.run(
        [sys.executable, "-m", "minidist", "demo", "--seconds", "4", "--json"],
        capture_output=True, text=True, timeout=90, cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["seconds"] == 4.0
    assert report["requests"]["sent"] == report["requests"]["ok"] + report["requests"]["failed"] == 800
    assert report["requests"]["failed"] == 0, report["errors"]
    assert [phase["name"] for phase in report["phases"]] == ["before", "down", "after"]
    happened = [(event["event"], event["node"]) for event in report["events"]]
    assert happened.index(("killed", "web-2")) < happened.index(("ready", "web-2"))
    # One lookup a request, and a second one where web-2 died between its lookup and its answer: that GET is retried.
    assert 800 <= report["cache"]["hits"] + report["cache"]["misses"] <= 810
    assert list(tmp_path.iterdir()) == []


def test_the_live_view_draws(monkeypatch):
    """On a terminal: the nodes with their states, the curves, what has happened."""
    from io import StringIO

    from minidist.cluster.demo.show import Live

    rows = [
        {"name": "web-1", "component": "command", "state": "running", "pid": 1, "address": "a:1", "uptime_s": 2.0},
        {"name": "web-2", "component": "command", "state": "killed", "pid": None, "address": "a:2", "uptime_s": None},
    ]
    file = StringIO()
    live = Live(file, lambda: rows)
    live._live.console.width = 100
    live.begin(SimpleNamespace(window_s=4.0), 0.0)
    live._nodes = rows
    live.tick(interval(0.0, 5))
    live.happened("web-2 killed (SIGKILL)")
    live.tick(interval(0.1, 5, failed=2))
    live._live.console.print(live._drawn())
    for text in ("web-1", "your program", "● running", "● killed", "web-2 killed", "10 answered, 2 failed in all"):
        assert text in file.getvalue()
