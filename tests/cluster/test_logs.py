"""Logs stay bounded while a program floods them, and reading them stays linear."""

import sys

import pytest

from minidist.cluster import cluster, tail
from minidist.cluster.rundir import RunDir


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
