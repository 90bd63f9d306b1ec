"""Nothing is left when the launcher or the supervisor dies, however it dies and whatever the nodes are doing."""

import os
import signal

import pytest

TOPOLOGY = """
[groups.web]
entry = "app:main"
replicas = 2

[groups.forking]
command = ["sh", "-c", "sleep 1000 & sleep 1000 & exec python app.py"]

[groups.fleeing]
command = ["sh", "-c", "setsid sleep 1000 & exec python app.py"]
"""


@pytest.fixture
def cluster(project):
    """The supervisor and every process under it, a paused node and programs that forked among them."""
    project.up(TOPOLOGY)
    project.run("pause", "web-1")
    processes = project.until(lambda: len(found := project.family(project.supervisor())) == 10 and found)
    return processes[0], processes


def test_when_the_supervisor_is_killed(project, cluster):
    supervisor, processes = cluster
    os.kill(supervisor, signal.SIGKILL)
    project.until_gone(processes)
    assert "no cluster runs" in project.error("ps", code=1)
    project.run("up", "-d")  # the directory it left is nobody's
    assert set(project.states().values()) == {"running"}


@pytest.mark.parametrize("which", ["guard", "fork server"])
def test_when_one_of_its_helpers_is_killed(project, cluster, which):
    supervisor, processes = cluster
    guard, fork_server = sorted(pid for pid in processes if parent_of(pid) == supervisor)
    os.kill(guard if which == "guard" else fork_server, signal.SIGKILL)
    project.until_gone(processes)


def parent_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def test_when_the_launcher_is_killed(project):
    project.topology(TOPOLOGY)
    up = project.begin("up")
    project.until(lambda: project.begin("wait").wait() == 0, "a cluster that is ready")
    project.run("pause", "web-1")
    processes = project.family(up.pid)
    up.kill()
    up.wait()
    project.until_gone(processes)


@pytest.mark.parametrize("already_up", [False, True])
def test_when_the_launcher_of_a_command_is_killed(project, already_up):
    project.topology(project.WEB)
    if already_up:
        project.run("up", "-d")
    run = project.begin("run", "--", "sh", "-c", "setsid sleep 1000 & echo $$; sleep 1000 & sleep 1000")
    leader = int(run.stdout.readline())
    command = project.until(lambda: len(found := project.family(leader)) == 4 and found)
    assert os.getpgid(leader) == os.getpgid(run.pid)  # Ctrl-C reaches it
    processes = command if already_up else [*command, *project.family(run.pid)]
    run.kill()
    run.wait()
    project.until_gone(processes)
    if already_up:
        assert project.states() == {"web-1": "running"}


def test_when_the_launcher_is_killed_and_the_supervisor_stopped(project):
    project.topology(TOPOLOGY)
    up = project.begin("up")
    project.until(lambda: project.begin("wait").wait() == 0, "a cluster that is ready")
    os.kill(project.supervisor(), signal.SIGSTOP)
    processes = project.family(up.pid)
    up.kill()
    up.wait()
    project.until_gone(processes)


def test_when_the_demo_is_killed_its_directory_goes_too(project):
    place = project.path / "tmp"
    place.mkdir()
    project.environment["TMPDIR"] = str(place)
    demo = project.begin("demo", "--json")
    processes = project.until(lambda: len(found := project.family(demo.pid)) >= 7 and found)
    assert [each.name for each in place.iterdir() if each.name.startswith("minidist-demo-")]
    demo.kill()
    demo.wait()
    project.until_gone(processes)
    project.until(lambda: not list(place.glob("minidist-demo-*")), "the end of its directory")


def test_when_a_launcher_that_waits_in_the_background_is_killed(project):
    project.topology(project.WEB.replace('ready = "http:/"', 'env = { MODE = "silent" }'))
    up = project.begin("up", "-d")
    processes = project.until(lambda: len(found := project.family(up.pid)) == 5 and found)
    up.kill()
    up.wait()
    project.until_gone(processes)


def test_down_of_a_supervisor_that_does_not_answer(project, cluster, monkeypatch):
    supervisor, processes = cluster
    os.kill(supervisor, signal.SIGSTOP)
    down = project.run("down", "--timeout", "0", "--grace", "200ms")
    assert f"the supervisor (pid {supervisor}) does not answer; killing it" in down.stderr
    project.until_gone(processes)


def test_what_a_dead_node_forked_dies_with_it(project):
    project.up(TOPOLOGY)
    leader = project.ps()["forking-1"]["pid"]
    group = project.family(leader)
    assert len(group) == 3
    os.kill(leader, signal.SIGKILL)
    project.until_gone(group)
    project.until(lambda: project.states()["forking-1"] == "failed")
    assert project.ps()["forking-1"]["exit"] == -9


def test_down_ends_paused_nodes_at_once(project, cluster):
    _, processes = cluster
    project.run("down")
    project.until_gone(processes)
