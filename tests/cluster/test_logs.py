"""Logs stay bounded while a program floods them, and reading them stays linear."""

import asyncio
import json
import sys

import pytest

from minidist.cluster import cluster, events, tail
from minidist.cluster.rundir import RunDir
from minidist.cluster.topology import parse

WEB = """
[groups.web]
command = ["true"]
"""


@pytest.fixture
def run_dir(tmp_path):
    made = RunDir(tmp_path)
    made.logs.mkdir()
    return made


def test_a_long_log_begins_anew_and_only_its_end_is_kept(run_dir, monkeypatch):
    monkeypatch.setattr(cluster, "KEPT_LOG_BYTES", 10)
    log = run_dir.log_of("web-1")
    with open(log, "ab", buffering=0) as writer:
        writer.write(b"x" * 100 + b"the end...")
        cluster.begin_anew(log)
        assert (run_dir.logs / "web-1.log.old").read_bytes() == b"the end..."
        writer.write(b"on")
    assert log.read_bytes() == b"on"


async def test_the_supervisors_own_log_is_looked_at_too(run_dir, monkeypatch):
    monkeypatch.setattr(cluster, "MAX_LOG_BYTES", 10)
    run_dir.supervisor_log.write_bytes(b"x" * 11)
    looked_at = cluster.Cluster(parse(WEB, file="f", directory_name="d"), run_dir, None, None, None)
    looking = asyncio.create_task(looked_at.keep_logs_short())
    while run_dir.supervisor_log.stat().st_size:
        await asyncio.sleep(0)
    looking.cancel()
    assert run_dir.supervisor_log.with_suffix(".log.old").read_bytes() == b"x" * 11


async def test_of_many_events_the_newest_are_kept(run_dir, monkeypatch):
    monkeypatch.setattr(events, "MAX_FILE_BYTES", 4000)
    monkeypatch.setattr(events, "KEPT_FILE_BYTES", 1000)
    log = events.Events(run_dir.events)
    with open(run_dir.events) as reader:
        for number in range(1000):
            log.emit("web-1", "counted", number=number)
            assert run_dir.events.stat().st_size <= 4000
        kept = [event["detail"]["number"] for event in log.kept()]
        assert len(kept) > 5
        assert kept == list(range(kept[0], 1000))
        assert json.loads(next(reader))["detail"]["number"] == 0, "who reads the old file reads on"
    log.close()
    again = events.Events(run_dir.events)
    again.emit("web-1", "counted", number=1000)
    assert [event["detail"]["number"] for event in again.kept()] == [*kept, 1000]
    again.close()


async def test_without_room_for_the_newest_events_all_go(run_dir, monkeypatch):
    monkeypatch.setattr(events, "MAX_FILE_BYTES", 4000)
    (run_dir.path / "events.jsonl.new").mkdir()
    log = events.Events(run_dir.events)
    for number in range(100):
        log.emit("web-1", "counted", number=number)
        assert run_dir.events.stat().st_size <= 4000
    log.close()


def test_a_log_that_cannot_be_kept_is_emptied_all_the_same(run_dir):
    log = run_dir.log_of("web-1")
    log.write_bytes(b"x")
    (run_dir.logs / "web-1.log.old").mkdir()
    cluster.begin_anew(log)
    assert log.read_bytes() == b""


def test_a_flood_is_cut_also_while_the_node_is_starting(project):
    flood = f'command = ["{sys.executable}", "-c", "while True: print(9999 * chr(120))"]'
    project.topology(f"[groups.web]\n{flood}\n")
    up = project.begin("up", "-d")
    old = project.path / ".minidist" / project.path.name / "logs" / "web-1.log.old"
    project.until(old.exists, timeout_s=30)
    project.until(lambda: old.stat().st_size == cluster.KEPT_LOG_BYTES)
    up.terminate()
    up.wait()


def test_a_line_without_an_end_is_shown_in_pieces(run_dir, monkeypatch):
    monkeypatch.setattr(tail, "MAX_READ_BYTES", 4)
    monkeypatch.setattr(tail, "MAX_LINE_BYTES", 6)
    run_dir.log_of("web-1").write_bytes(b"a" * 20 + b"\nb")
    found = [line for _, line in tail.Tail(run_dir).read(last=True)]
    assert found == ["a" * 8, "a" * 8, "a" * 4, "b"]


def test_what_is_written_while_we_read_is_left_for_the_next_time(run_dir, monkeypatch):
    monkeypatch.setattr(tail, "MAX_READ_BYTES", 2)
    log = run_dir.log_of("web-1")
    log.write_bytes(b"1\n")
    follower = tail.Tail(run_dir)
    with open(log, "ab", buffering=0) as writer:
        found = []
        for _, line in follower.read():
            found.append(line)
            writer.write(b"2\n")
        assert found == ["1"]
    assert [line for _, line in follower.read()] == ["2"]
