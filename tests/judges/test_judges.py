"""The judges themselves: which cases count, and that docs/compatibility.md is what the results say."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"


@pytest.fixture
def judges(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


CASES = """
import socket, pytest

def speak():
    socket.create_connection(("127.0.0.1", {port})).close()

def test_speaks(): speak()
def test_of_the_client(): pass
def test_fails():
    speak()
    assert 1 == 2
@pytest.mark.cluster
def test_marked(): speak()
def test_sentinel_of_another(): speak()
@pytest.mark.skip(reason="too old")
def test_skips_itself(): speak()
"""


def test_the_referee_tells_cases_apart(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (tmp_path / "test_it.py").write_text(CASES.format(port=port))
        extra = {
            "PYTHONPATH": str(HERE),
            "REFEREE_EXCLUSIONS": json.dumps([("@cluster", "CLUSTER"), ("*test_sentinel*", "SENTINEL")]),
            "REFEREE_RESULTS": str(tmp_path / "results"),
            "REFEREE_PORTS": str(port),
            "REFEREE_ONLY": "[]",
        }
        command = [sys.executable, "-m", "pytest", "-p", "referee", "-p", "no:minidist", "-q", str(tmp_path)]
        subprocess.run(command, env=os.environ | extra, cwd=tmp_path, capture_output=True, check=False)
    lines = [json.loads(line) for line in (tmp_path / "results").read_text().splitlines()]
    told = {each["case"].partition("::")[2]: (each["outcome"], each["why"], each["spoke"]) for each in lines}
    assert told == {
        "test_speaks": ("passed", "", True),
        "test_of_the_client": ("passed", "", False),
        "test_fails": ("failed", "assert 1 == 2", True),
        "test_marked": ("skipped", "CLUSTER", False),
        "test_sentinel_of_another": ("skipped", "SENTINEL", False),
        "test_skips_itself": ("skipped", "too old", False),
    }


def test_what_counts(judges):
    from playing import Case, Played
    from report import count

    cases = [
        Case("a", "passed"),
        Case("b", "passed", spoke=False),
        Case("c", "failed", "why"),
        Case("d", "failed", "port closed", spoke=False),
        Case("e", "failed", "as in Redis"),
        Case("f", "skipped", "too old"),
    ]
    result = count(Played("redis-py", "protocol 2", cases, as_real=["e"]))
    assert (result.passed, result.failed, result.applicable, result.share) == (1, {"c": "why"}, 2, "50.0 %")
    assert (result.of_client, result.elsewhere) == (1, {"d": "port closed"})
    assert (result.as_real, result.skipped) == ({"e": "as in Redis"}, {"too old": 1})


def test_the_output_of_resp_compatibility(judges):
    from playing import Case, read_output

    text = (
        "test: get command passed\ntest: a b failed\ntest: c tags skipped\ntest: d version skipped\n"
        "FailedTest(name='a b', reason=expected: 1, result: 2)\n"
    )
    assert read_output(text, ()) == [
        Case("get command", "passed"),
        Case("a b", "failed", "expected: 1, result: 2"),
        Case("c", "skipped", "CLUSTER: the same case in the form for clusters"),
        Case("d", "skipped", "a later version's"),
    ]


def test_the_page_is_what_the_results_say(judges):
    from report import page, read

    kept = json.loads((DOCS / "compatibility.json").read_text())
    assert (DOCS / "compatibility.md").read_text() == page(read(kept["results"]), kept["made"])
