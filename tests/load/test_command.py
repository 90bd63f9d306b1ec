"""`minidist load` as a user meets it: exit codes, one-line errors, files, signals."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidist.load.command import main

QUICK = ("--duration", "200ms", "--rate", "100")
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


def url(server: Any) -> str:
    return f"http://127.0.0.1:{server.port}/"


def test_a_load_that_went_well(elsewhere: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([url(elsewhere()), *QUICK]) == 0
    shown = capsys.readouterr()
    assert "20 ok in 0.2" in shown.out
    assert "offered   100/s" in shown.out


def test_json_to_a_file_and_to_standard_output(
    elsewhere: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = elsewhere()
    assert main([url(server), *QUICK, "--json", str(tmp_path / "r.json")]) == 0
    capsys.readouterr()
    assert main([url(server), *QUICK, "--json", "-"]) == 0
    shown = capsys.readouterr()
    for text in ((tmp_path / "r.json").read_text(), shown.out):
        figures = json.loads(text)
        assert set(figures) == {
            "url", "workload", "mode", "duration_s", "offered_per_s", "achieved_per_s", "ok", "errors", "latency_ms",
            "bytes_in", "bytes_out", "client_cpu_s", "schedule_lag_ms",
        }  # fmt: skip
        assert set(figures["latency_ms"]) == {"min", "mean", "p50", "p90", "p99", "p99_9", "max"}
        assert (figures["url"], figures["workload"], figures["mode"]) == (url(server), "get", "open")
        assert (figures["ok"], figures["errors"], figures["offered_per_s"]) == (20, {}, 100.0)
    assert "20 ok" in shown.err


def test_an_exceeded_objective_is_exit_3(elsewhere: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    server = elsewhere(lambda number, request: BUSY if number % 2 else b"HTTP/1.1 204 OK\r\n\r\n")
    assert main([url(server), *QUICK, "--slo", "p99=1h,error-rate=0.1"]) == 3
    assert "error-rate 0.5, at most 0.1: EXCEEDED" in capsys.readouterr().out
    assert main([url(server), *QUICK, "--slo", "p99=1h,error-rate=50%"]) == 0


def test_a_search_for_saturation(elsewhere: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    search = ("--find-saturation", "--ramp", "50:100", "--duration", "100ms")
    assert main([*search, url(elsewhere()), "--json", "-"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["mode"] == "saturation"
    assert "saturation: above 100/s" in shown.err
    assert main([*search, url(elsewhere(lambda number, request: BUSY))]) == 3
    assert "saturation: below" in capsys.readouterr().out


def test_the_page_needs_nothing_but_itself(elsewhere: Callable[..., Any], tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    assert main([url(elsewhere()), *QUICK, "--html", str(page)]) == 0
    text = page.read_text()
    assert "{{" not in text
    assert not re.search(r"""(src|href)=|@import|url\(|fetch\(|XMLHttp""", text)


def test_nobody_there_is_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["http://127.0.0.1:1/", *QUICK]) == 1
    assert capsys.readouterr().err == "minidist load: cannot connect to 127.0.0.1 port 1: refused\n"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("nosuch/report", "a file in a directory that exists"),
        ("directory", "a file, not a directory"),
        ("mine/report", "a file that this user may write"),
    ],
)
@pytest.mark.parametrize("option", ["--json", "--html", "--history"])
def test_a_report_that_cannot_be_written_is_exit_1_before_there_is_a_load(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    path: str,
    allowed: str,
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root, who may write anywhere
    given = str(tmp_path / path)
    assert main(["redis://127.0.0.1:1", *QUICK, option, given]) == 1  # where nobody would answer
    assert capsys.readouterr().err == f"minidist load: {option}: given {given!r}, allowed: {allowed}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "given 'the following arguments are required: URL'"),
        (("http://h/", "--bogus"), "--bogus: given '--bogus', allowed: the options of minidist load --help"),
        (("http://h/", "--history", "f"), "--history: given 'f', allowed: not with a http URL"),
        (("http://h/", "--json", ""), "--json: given '', allowed: a file"),
        (("http://h/", "--faults", "f"), "--faults: given 'f', allowed: a JSON list of faults"),
        (("http://h/", "--hysteria", "f"), "--hysteria: given '--hysteria f', allowed: the options of"),
        (("http://h/", "--rate"), "--rate: given 'expected one argument'"),
        (("http://h/", "--rate", "fast"), "--rate: given 'fast', allowed: requests per second such as 500, 2.5k, 1m"),
        (("http://h/", "--duration", "10"), "--duration: given '10', allowed: a duration such as"),
        (("http://h/", "--ramp", "5"), "--ramp: given '5', allowed: two rates such as"),
        (("http://h/", "--processes", "0"), "--processes: given '0', allowed: a whole number, at least 1"),
        (("http://h/", "--slo", "p99=fast"), "--slo: given 'p99=fast', allowed: limits such as"),
        (("http://h/", "--rate", "5", "--concurrency", "2"), "--concurrency: given 2, allowed: without --rate"),
        (("http://h/", "--find-saturation", "--concurrency", "2"), "--concurrency: given 2, allowed: without"),
        (("http://h/", "--pipeline", "5"), "--pipeline: given 5, allowed: not with a http URL"),
        (("http://h/", "--header", "no colon"), "--header: given 'no colon', allowed: NAME: VALUE"),
        (("http://h/", "--workload", "ping"), "--workload: given 'ping', allowed: one of get, mix for http"),
        (("gopher://h/",), "URL: given 'gopher://h/', allowed: http://, https://, redis://, rediss://"),
        (("redis://h/", "--workload", "x"), "allowed: one of get-set, get, set, incr, mset, ping for redis"),
    ],
)
def test_wrong_usage_is_exit_2_and_one_line(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("minidist load: ")
    assert error.count("\n") == 1


def test_help_names_every_workload_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--rate", "--find-saturation", "--pipeline", "--header", "get-set", "mset", "exit codes"):
        assert word in text


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_load_reports_what_was(elsewhere: Callable[..., Any], which: signal.Signals) -> None:
    with started(elsewhere) as process:
        process.send_signal(which)
        out, err = process.communicate()
    assert process.returncode == 0
    assert json.loads(out)["ok"] >= 5
    assert "(interrupted after " in err
    assert "Traceback" not in err


def test_a_second_interruption_ends_it_without_a_report(elsewhere: Callable[..., Any]) -> None:
    with started(elsewhere, answers=5) as process:
        process.send_signal(signal.SIGINT)
        # The first waits a second for the requests that never get an answer; the second does not.
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert "Traceback" not in err


def started(elsewhere: Callable[..., Any], answers: int = 1_000_000) -> "subprocess.Popen[str]":
    """An hour-long load, once its fifth request has arrived at a server that answers so many."""
    fifth = threading.Event()

    def answer(number: int, request: bytes) -> bytes | None:
        if number == 5:
            fifth.set()
        return b"HTTP/1.1 204 OK\r\n\r\n" if number < answers else None

    program = "import sys; from minidist.load.command import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, url(elsewhere(answer)), "--rate", "50", "--duration", "1h", "--json", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    fifth.wait()
    return process
