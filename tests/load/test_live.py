"""Progress: lines when piped, a panel on a terminal, nothing when quiet."""

import io
from typing import Any

from minidist.load.live import Display, Lines, Panel, curve, display_for
from minidist.load.plan import Plan
from minidist.load.recorder import Interval, Recorder


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def intervals(count: int, **errors: int) -> list[Interval]:
    recorder, made = Recorder(), []
    for number in range(count):
        recorder.offered = 10
        recorder.latencies.extend([0.002] * 10)
        for kind, times in errors.items():
            recorder.failed(kind, times)
        made.append(recorder.close((number + 1) / 10))
    return made


def shown(display: Display, plan: Plan, ticks: list[Interval]) -> None:
    with display:
        display.begin(plan)
        for each in ticks:
            display.tick(each)
        display.note("a note")


def test_lines_once_a_second() -> None:
    file = io.StringIO()
    shown(Lines(file), Plan(url="http://h/", rate=100.0), intervals(25))
    assert file.getvalue().splitlines() == [
        "   1.0 s  offered 100/s  ok 100/s  p50 2.00 ms  p99 2.00 ms",
        "   2.0 s  offered 100/s  ok 100/s  p50 2.00 ms  p99 2.00 ms",
        "a note",
    ]


def test_lines_say_what_failed() -> None:
    file = io.StringIO()
    shown(Lines(file), Plan(url="http://h/", rate=100.0), intervals(10, reset=1, timeout=2))
    assert file.getvalue().splitlines()[0].endswith("p99 2.00 ms  failed 30/s (reset, timeout)")


def test_a_long_load_has_a_line_every_ten_seconds() -> None:
    file = io.StringIO()
    shown(Lines(file), Plan(url="http://h/", rate=100.0, duration_ms=100_000), intervals(250))
    assert [line.split()[0] for line in file.getvalue().splitlines()] == ["10.0", "20.0", "a"]


def test_a_panel_on_a_terminal(monkeypatch: Any) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    file = Terminal()
    shown(Panel(file), Plan(url="http://u:secret@h/", rate=100.0, duration_ms=1000), intervals(10, reset=1))
    text = file.getvalue()
    for word in ("1.0 of 1 s", "100/s", "p99 2.00 ms", "reset", "█", "a note"):
        assert word in text
    assert "secret" not in text


def test_curves() -> None:
    assert curve([0.0, 1.0, 4.0, 8.0]) == " ▁▄█"
    assert curve([0.0]) == curve([]) == ""
    assert curve([8.0, 1.0, 4.0], width=2) == "▂█"


def test_which_display() -> None:
    assert type(display_for(Terminal(), quiet=True)) is Display
    assert type(display_for(Terminal(), quiet=False)) is Panel
    assert type(display_for(io.StringIO(), quiet=False)) is Lines
