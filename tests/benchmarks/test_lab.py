"""The benchmarks' arithmetic: what counts, what is judged, and that a result can be shown. No server runs here."""

import json
import os
import sys
import xml.etree.ElementTree as ET

import pytest
from lab import machine, plot, table
from lab.figures import Figure, Result, Run, Target, Verdict, compare
from lab.machine import Cores
from lab.servers import PeerMissing, need
from lab.settings import Settings

THROUGHPUT, CPU = Target(0.8, 1.0), Target(1.4, higher=False)
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def runs(server: str, rates: list[float], core: float) -> list[Run]:
    return [Run("GET", server, rate * 2, 2.0, 1.0, core, 0.5) for rate in rates]


def test_the_throughput_ratio_is_of_medians_when_both_servers_were_the_limit():
    both = runs("minidist", [90, 80, 1000], 0.99) + runs("redis", [100, 100, 100], 0.96)
    throughput, cpu = compare(both, "minidist", "redis", THROUGHPUT, CPU, "/s")
    assert (throughput.ours, throughput.theirs, throughput.value) == (90, 100, 0.9)
    assert throughput.spread == (0.8, 10.0)
    assert throughput.verdict is Verdict.MUST
    assert cpu.value == pytest.approx((1 / 180) / (1 / 200))
    assert cpu.verdict is Verdict.MUST


@pytest.mark.parametrize(("ours", "theirs"), [(0.99, 0.94), (0.5, 0.99)])
def test_the_throughput_ratio_has_no_verdict_when_a_server_was_not_the_limit(ours, theirs):
    both = runs("minidist", [50], ours) + runs("redis", [100], theirs)
    throughput, cpu = compare(both, "minidist", "redis", THROUGHPUT, CPU, "/s")
    assert throughput.verdict is Verdict.NONE
    assert "not the limit" in throughput.note
    assert cpu.verdict is Verdict.MISSED


@pytest.mark.parametrize(
    ("target", "value", "verdict"),
    [
        (Target(0.8, 1.0), 1.0, Verdict.AIM),
        (Target(0.8, 1.0), 0.8, Verdict.MUST),
        (Target(0.8, 1.0), 0.79, Verdict.MISSED),
        (Target(1.6, 1.3, higher=False), 1.3, Verdict.AIM),
        (Target(1.6, 1.3, higher=False), 1.7, Verdict.MISSED),
        (Target(), 0.1, Verdict.NONE),
    ],
)
def test_a_target_judges_in_its_direction(target, value, verdict):
    assert target.judge(value) is verdict


@pytest.fixture
def document():
    result = Result(versions={"minidist": "1", "redis-server": "7"})
    result.runs = runs("minidist", [90], 0.5) + runs("redis", [100], 0.99)
    result.figures = compare(result.runs, "minidist", "redis", THROUGHPUT, CPU, "/s")
    result.figures.append(
        Figure("cache, idle", "memory", 30, 12, "MB", 30, Target(40, 32, higher=False), is_ratio=False)
    )
    facts = {"processor": "P <1>", "cores": 2, "system": "S", "python": "3"}
    about = {"subject": "cache", "time": "2030-01-02T03:04:05Z", "commit": "abc", "machine": facts}
    return json.loads(json.dumps({**about, **result.document()}))


def test_a_result_is_shown_as_a_table(document):
    text = table.render(document)
    assert "0.90×" in text
    assert "aim reached" in text
    assert "GET, minidist: server's core 50% busy, load's core 50%" in text
    assert "a server's core was only 50% busy" in text


def test_a_result_is_drawn(document):
    picture = ET.fromstring(plot.render(document))
    words = ["".join(node.itertext()) for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "GET: CPU" in words
    assert "30 MB" in words
    assert "GET: throughput" not in words, "what has no verdict has no bar"


@linux_only
def test_the_counters_see_what_this_process_does():
    cores = Cores(*sorted([*os.sched_getaffinity(0), 0])[:2])
    before = machine.sample([os.getpid()])
    while machine.process_seconds(os.getpid()) == before.process_s:
        sum(range(1000))
    used = machine.usage(before, machine.sample([os.getpid()]), cores)
    assert used.server_cpu_s > 0
    assert machine.resident_bytes(os.getpid()) > 1_000_000


def test_a_missing_peer_is_named_with_how_to_get_it():
    with pytest.raises(PeerMissing, match=r"no-such-server is not installed: apt install some-package"):
        need("no-such-server", "some-package")


def test_cases_are_chosen_by_a_word():
    assert Settings(only="GET").chosen([("get", 1), ("set", 1)]) == [("get", 1)]
