"""What is done to nodes: kill, stop, start, restart, pause, resume, scale, wait."""

import os
import signal
import threading

import pytest

TWO = """
[groups.web]
entry = "app:main"
replicas = 2
ready = "http:/"
"""

BALANCED = (
    TWO
    + """
[groups.edge]
component = "balancer"
upstream = "web"

[groups.worker]
entry = "app:main"
env = { SEEN = "{web.addresses}" }
"""
)


@pytest.fixture(scope="module")
def standing(shared_project):
    """For tests that change nothing."""
    shared_project.up(BALANCED)
    return shared_project


def test_kill_touches_only_what_was_named_and_its_port_refuses(project):
    project.up(TWO)
    before = project.ps()
    project.run("kill", "web-1")
    after = project.ps()
    assert (after["web-1"]["state"], after["web-1"]["exit"], after["web-1"]["pid"]) == ("killed", -9, None)
    assert after["web-2"]["pid"] == before["web-2"]["pid"]
    assert not project.is_alive(before["web-1"]["pid"])
    with pytest.raises(ConnectionRefusedError):
        project.get("web-1")
    project.run("start", "web")
    back = project.ps()["web-1"]
    assert (back["state"], back["restarts"], back["exit"]) == ("running", 1, None)
    assert back["address"] == before["web-1"]["address"]


def test_a_killed_node_comes_back_where_the_file_says_so(project):
    project.up(TWO + 'restart = "always"')
    pid = project.ps()["web-1"]["pid"]
    project.run("kill", "web-1")
    project.until(lambda: project.ps()["web-1"]["state"] == "running" and project.ps()["web-1"]["pid"] != pid)
    assert project.ps()["web-1"]["restarts"] == 1
    project.run("stop", "web-1")
    assert project.states() == {"web-1": "stopped", "web-2": "running"}


def test_stop_lets_a_program_end_and_kills_one_that_does_not(project):
    project.up(TWO.replace("replicas = 2", "") + '[groups.slow]\nentry = "app:main"\nenv = { MODE = "stubborn" }')
    project.run("stop", "web", "slow-1", "--timeout", "200ms")
    nodes = project.ps()
    assert (nodes["web-1"]["state"], nodes["web-1"]["exit"]) == ("stopped", 0)
    assert (nodes["slow-1"]["state"], nodes["slow-1"]["exit"]) == ("stopped", -9)


def test_components_have_the_time_to_drain_before_they_are_killed(standing):
    admin = standing.ps()["edge-1"]["admin"]
    assert '"drain_timeout":"4s"' in standing.fetch(f"http://{admin}/config")


def test_stop_ends_a_paused_node(project):
    project.up(TWO)
    project.run("pause", "web-1")
    project.run("stop", "web-1")
    assert (project.ps()["web-1"]["state"], project.ps()["web-1"]["exit"]) == ("stopped", 0)


def test_pause_and_resume(project):
    project.up(TWO)
    project.run("pause", "web-2")
    assert project.states() == {"web-1": "running", "web-2": "paused"}
    assert process_state(project.ps()["web-2"]["pid"]) == "T"
    project.run("wait")  # what is paused on purpose is not waited for
    project.run("resume", "web")
    assert project.states() == {"web-1": "running", "web-2": "running"}
    assert project.get("web-2").startswith("web-2")
    project.run("kill", "web-2")
    assert "web-2 is killed: nothing to pause" in project.error("pause", "web-2", code=1)


def process_state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_restart_gives_every_node_a_new_process(project):
    project.up(TWO)
    before = project.ps()
    project.run("restart", "web")
    after = project.ps()
    for name in before:
        assert after[name]["state"] == "running"
        assert after[name]["pid"] != before[name]["pid"]
        assert after[name]["address"] == before[name]["address"]


def test_a_rolling_restart_never_has_two_nodes_down(project):
    project.up(TWO)
    urls = [node["url"] for node in project.ps().values()]
    down_at_once, over = [], threading.Event()

    def watch():
        while not over.is_set():
            down_at_once.append(sum(not answers(project, url) for url in urls))

    watcher = threading.Thread(target=watch)
    watcher.start()
    rolled = project.run("restart", "web", "--rolling")
    over.set()
    watcher.join()
    assert rolled.stderr.splitlines() == ["web-1 ready", "web-2 ready"]
    assert max(down_at_once) <= 1


def answers(project, url):
    try:
        return project.fetch(url) != ""
    except OSError:
        return False


def test_wait_reports_what_is_missing_and_leaves_out_what_is_down_on_purpose(project):
    project.up(TWO)
    project.run("stop", "web-1")
    project.run("wait")
    project.run("wait", "web-2", "--timeout", "5s")
    project.run("wait", "web")
    assert project.error("wait", "web-2", "web-1", code=1) == "minidist wait: web-1 is stopped\n"
    os.kill(project.ps()["web-2"]["pid"], signal.SIGKILL)
    project.until(lambda: project.states()["web-2"] == "failed")
    assert "web-2 failed (exit -9); its last lines:" in project.error("wait", code=1)


@pytest.mark.parametrize("verb", ["kill", "stop", "start", "restart", "pause", "resume", "wait", "status"])
def test_an_unknown_node_is_exit_2_and_nothing_is_done(standing, verb):
    error = standing.error(verb, "web-1", "wbe", code=2)
    assert "given 'wbe', allowed: a group or node of " in error
    assert error.endswith(": web, edge, worker, web-1, web-2, edge-1, worker-1\n")
    assert set(standing.states().values()) == {"running"}


# --- scale -----------------------------------------------------------------------------------------------------------


def test_scale_adds_at_the_end_and_the_balancer_hears_of_it(project):
    project.up(BALANCED)
    edge = project.ps()["edge-1"]["url"]
    scaled = project.run("scale", "web=4")
    assert scaled.stderr == "worker keeps the environment it was started with; restart it to see the change\n"
    assert [name for name in project.ps() if name.startswith("web")] == ["web-1", "web-2", "web-3", "web-4"]
    names = {"web-1", "web-2", "web-3", "web-4"}
    project.until(lambda: {project.fetch(edge).split()[0] for _ in range(12)} == names)
    project.run("restart", "edge", "worker")
    project.until(lambda: {project.fetch(edge).split()[0] for _ in range(12)} == names)
    assert len(project.get("worker-1").split()[2].split(",")) == 4


def test_scale_removes_from_the_end_after_requests_under_way_have_finished(project):
    project.up(BALANCED)
    edge = project.ps()["edge-1"]["url"]
    results = []
    requests = [threading.Thread(target=lambda: results.append(project.fetch(edge + "/slow"))) for _ in range(4)]
    for request in requests:
        request.start()
    logs = project.path / ".minidist" / project.path.name / "logs"
    project.until(lambda: sum(path.read_text().count("slow request") for path in logs.glob("web-*.log")) == 4)
    project.run("scale", "web=1")
    for request in requests:
        request.join()
    assert sorted(result.split()[0] for result in results) == ["web-1", "web-1", "web-2", "web-2"]
    assert [name for name in project.ps() if name.startswith("web")] == ["web-1"]
    assert project.fetch(edge).startswith("web-1")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("wbe=2",), "given 'wbe', allowed: a group: web, edge, worker"),
        (("web=0",), "web: given 0, allowed: 1 to 256"),
        (("web=two",), "given 'web=two', allowed: GROUP=N"),
        (("web",), "given 'web', allowed: GROUP=N"),
    ],
)
def test_what_cannot_be_scaled_is_exit_2(standing, words, expected):
    assert expected in standing.error("scale", *words, code=2)


def test_new_nodes_that_do_not_become_ready_are_taken_away_again(project):
    project.up(TWO + 'env = { MODE = "{web.name}" }')
    (project.path / "app.py").write_text("async def main(env): raise RuntimeError('no database')")
    error = project.error("scale", "web=3", code=1)
    assert "minidist scale: web-3 failed (exit 1)" in error
    assert "no database" in error
    assert project.states() == {"web-1": "running", "web-2": "running"}


def test_scale_keeps_what_is_referred_to_and_what_has_a_fixed_port(project):
    project.up(TWO + '[groups.worker]\nentry = "app:main"\nenv = { SEEN = "{web[1].url}" }')
    assert "allowed: at least 2, since web[1] is referred to" in project.error("scale", "web=1", code=2)
