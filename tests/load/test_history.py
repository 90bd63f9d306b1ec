"""`--history` and `--faults`: what a load on a real cache writes down, and whether a checker takes it."""

import asyncio
import json

import pytest

from minidist.engines.checking import Budget, check
from minidist.engines.checking.history import read
from minidist.load.command import main
from minidist.load.plan import Plan
from minidist.load.runner import run
from minidist.testing.inline import InlineNode


@pytest.fixture
async def cache():
    async with InlineNode("cache", "cache-1", {}, 1) as node:
        yield node


def load(cache, path, **options):
    driver = {"keys": 5} | options.pop("options", {})
    plan = Plan(url=cache.url, history=str(path), duration_ms=300, concurrency=5, options=driver, **options)
    return run(plan)


def judged(path, model):
    operations = read(path.read_text().splitlines())
    return operations, check(operations, model, Budget())


async def test_reads_and_writes_are_a_register(cache, tmp_path):
    report = await load(cache, tmp_path / "h.jsonl", options={"ratio": (1, 1)})
    operations, verdict = judged(tmp_path / "h.jsonl", "register")
    assert len(operations) == report.total.ok > 50
    assert {operation.f for operation in operations} == {"read", "write"}
    assert verdict.judgement.value == "holds"


async def test_incr_is_a_counter(cache, tmp_path):
    await load(cache, tmp_path / "h.jsonl", workload="incr", options={"ratio": (1, 1)})
    operations, verdict = judged(tmp_path / "h.jsonl", "counter")
    assert {operation.f for operation in operations} == {"add", "read"}
    assert max(operation.result or 0 for operation in operations) > 10
    assert verdict.judgement.value == "holds"


async def test_a_history_is_of_few_keys_unless_told_otherwise(cache, tmp_path):
    plan = Plan(url=cache.url, history=str(tmp_path / "h.jsonl"), duration_ms=300, concurrency=5)
    await run(plan)
    assert len({operation.key for operation in judged(tmp_path / "h.jsonl", "register")[0]}) <= 100


async def test_errors_and_lost_connections_are_what_they_are(cache, tmp_path):
    cache.faults.add("reply", match="SET", error="READONLY no", probability=0.2)
    cache.faults.add("reset", after_bytes=2000)
    await load(cache, tmp_path / "h.jsonl", options={"ratio": (1, 1)})
    operations, verdict = judged(tmp_path / "h.jsonl", "register")
    outcomes = {(operation.f, operation.outcome.value) for operation in operations}
    assert ("write", "fail") in outcomes
    assert ("write", "info") in outcomes
    assert ("read", "info") not in outcomes
    assert verdict.judgement.value == "holds"


async def test_a_cache_that_forgets_is_caught(cache, tmp_path):
    async def forget():
        for _ in range(5):
            await asyncio.sleep(0.05)
            await cache.reset()

    forgetting = asyncio.ensure_future(forget())
    await load(cache, tmp_path / "h.jsonl", options={"ratio": (50, 1), "keys": 1})
    await forgetting
    assert judged(tmp_path / "h.jsonl", "register")[1].judgement.value == "violated"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["redis://127.0.0.1:1", "--pipeline", "2"], "--pipeline: given 2, allowed: 1 with --history"),
        (["redis://127.0.0.1:1", "--ttl", "5s"], "--ttl"),
        (["redis://127.0.0.1:1", "--workload", "mset"], "--workload: given 'mset', allowed: one of get-set"),
        (["redis://127.0.0.1:1", "--processes", "2"], "--processes: given 2, allowed: 1 with --history"),
        (["redis://127.0.0.1:1", "--find-saturation"], "--history"),
        (["http://127.0.0.1:1/"], "--history: given"),
    ],
)
def test_what_a_history_cannot_tell_is_refused(capsys, tmp_path, arguments, complaint):
    assert main([*arguments, "--history", str(tmp_path / "h.jsonl")]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "h.jsonl").exists()


# --- faults -----------------------------------------------------------------------------------------------------------


def test_faults_are_set_in_the_cluster_and_drawn(minidist, capsys, tmp_path):
    cache = minidist.cache()
    run_dir = str(cache._supervision.run_dir.path)
    faults, page = tmp_path / "faults.json", tmp_path / "page.html"
    faults.write_text(
        json.dumps([{"kind": "reply", "on": cache.name, "match": "GET", "error": "ERR busy", "at": "200ms"}])
    )
    arguments = ["--duration", "1s", "--concurrency", "2", "--html", str(page), "--faults", str(faults), "--quiet"]
    assert main([cache.url, *arguments, "--run-dir", run_dir]) == 0
    assert "ERR " in capsys.readouterr().out
    assert f'"text":"reply {cache.name}"' in page.read_text()
    assert cache.faults.list() == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "a JSON list of faults"),
        ("{}", "a JSON list such as"),
        ('[{"kind": "kill", "at": "soon"}]', "--faults [0].at: given 'soon'"),
        ('[{"kind": "explode", "on": "cache"}]', "[0]: "),
        ('[{"kind": "delay", "ms": 1, "on": "moon"}]', "[0]: "),
    ],
)
def test_wrong_faults_are_named(minidist, capsys, tmp_path, text, complaint):
    cache = minidist.cache()
    run_dir = str(cache._supervision.run_dir.path)
    (tmp_path / "faults.json").write_text(text)
    assert main([cache.url, "--faults", str(tmp_path / "faults.json"), "--run-dir", run_dir]) == 2
    assert complaint in capsys.readouterr().err
