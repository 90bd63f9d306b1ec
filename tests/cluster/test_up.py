"""`up` and `down`: in the background, in the foreground, a second time, and when something is wrong."""

import json
import os
import signal
import socket
import sys

import pytest

TWO_GROUPS = """
name = "shop"
[groups.web]
entry = "app:main"
replicas = 2
ready = "http:/"
env = { SEEN = "{back.urls}" }
[groups.back]
entry = "app:main"
"""


def test_up_in_the_background_returns_when_all_is_ready_and_down_leaves_nothing(project):
    project.topology(TWO_GROUPS)
    up = project.run("up", "-d")
    assert up.stdout == ""
    assert [line.partition(" (")[0] for line in up.stderr.splitlines()] == ["back ready", "web ready", "shop is up"]
    assert project.states() == {"web-1": "running", "web-2": "running", "back-1": "running"}
    back = project.ps()["back-1"]["url"]
    assert project.get("web-2").split() == ["web-2", str(project.ps()["web-2"]["pid"]), back]
    processes = project.family(project.supervisor())
    assert len(processes) == 6  # with the guard and the fork server
    project.run("down")
    project.until_gone(processes)
    assert "no cluster runs" in project.error("ps", code=1)


def test_ps_json_has_the_contracts_fields(project):
    project.up(project.WEB)
    answer = json.loads(project.run("ps", "--json").stdout)
    assert list(answer) == ["name", "file", "run_dir", "supervisor_pid", "nodes"]
    assert answer["file"] == str(project.path / "minidist.toml")
    assert answer["run_dir"] == str(project.path / ".minidist" / answer["name"])
    (node,) = answer["nodes"]
    assert list(node) == [
        "name", "group", "component", "pid", "state", "exit", "restarts",
        "address", "admin", "url", "listeners", "role", "region", "uptime_s",
    ]  # fmt: skip
    assert (node["name"], node["group"], node["component"]) == ("web-1", "web", "command")
    assert (node["exit"], node["restarts"], node["admin"]) == (None, 0, None)
    assert node["url"] == f"http://{node['address']}"


def test_in_the_foreground_logs_are_streamed_and_ctrl_c_is_down(project):
    project.topology(project.WEB)
    up = project.begin("up")
    project.until(lambda: project.begin("wait").wait() == 0, "a cluster that is ready")
    processes = project.family(up.pid)
    project.get("web-1", "/slow")
    project.until(
        lambda: "slow request" in (project.path / ".minidist" / project.path.name / "logs/web-1.log").read_text()
    )
    up.send_signal(signal.SIGINT)
    out, err = up.communicate(timeout=20)
    assert up.returncode == 0, err
    lines = out.splitlines()
    assert "web-1 | a warning" in lines
    assert "web-1 | slow request" in lines
    assert [line for line in lines if line.startswith("web-1 | serving on ")]
    assert "is up" in err
    project.until_gone(processes)


def test_down_from_elsewhere_ends_the_foreground(project):
    project.topology(project.WEB)
    up = project.begin("up")
    project.until(lambda: project.begin("wait").wait() == 0, "a cluster that is ready")
    project.run("down")
    up.communicate(timeout=20)
    assert up.returncode == 0


def test_two_signals_end_everything_at_once(project):
    project.topology(project.WEB + 'env = { MODE = "stubborn" }')
    up = project.begin("up")
    project.until(lambda: project.begin("wait").wait() == 0, "a cluster that is ready")
    processes = project.family(up.pid)
    log = project.path / ".minidist" / project.path.name / "logs/web-1.log"
    up.send_signal(signal.SIGINT)
    project.until(lambda: "ignored" in log.read_text())
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=20)
    assert up.returncode == -signal.SIGINT
    project.until_gone(processes)


# --- a second up -----------------------------------------------------------------------------------------------------


def test_a_second_up_starts_what_is_missing(project):
    project.up(TWO_GROUPS)
    before = project.ps()
    project.run("kill", "web-1")
    project.topology(TWO_GROUPS.replace("replicas = 2", "replicas = 3") + '[groups.new]\nentry = "app:main"\n')
    project.run("up", "-d")
    after = project.ps()
    assert set(project.states().values()) == {"running"}
    assert list(after) == ["web-1", "web-2", "web-3", "back-1", "new-1"]
    assert after["web-2"]["pid"] == before["web-2"]["pid"]
    assert after["web-1"]["pid"] != before["web-1"]["pid"]
    assert after["web-1"]["address"] == before["web-1"]["address"]


def test_a_second_up_is_refused_for_another_file_and_for_changed_groups(project):
    project.up(TWO_GROUPS)
    project.topology(TWO_GROUPS, "other.toml")
    assert "other.toml, allowed: " in project.error("up", "-d", "other.toml", code=2)
    project.topology(TWO_GROUPS.replace('ready = "http:/"', 'ready = "tcp"'))
    assert "groups.web reads differently since the cluster started" in project.error("up", "-d", code=2)
    project.topology(TWO_GROUPS.replace("[groups.back]", "[groups.front]").replace("back.", "front."))
    assert "reads differently" in project.error("up", "-d", code=2)
    assert set(project.states().values()) == {"running"}


# --- which cluster ---------------------------------------------------------------------------------------------------


def test_with_several_clusters_a_name_is_needed(project):
    project.up(project.WEB, "--name", "one")
    project.up(project.WEB, "--name", "two")
    assert "allowed: one of one, two" in project.error("ps", code=2)
    assert list(project.ps("--name", "two")) == ["web-1"]
    project.run("down", "--name", "one")
    assert list(project.ps()) == ["web-1"]
    assert "no cluster runs in" in project.error("ps", "--name", "one", code=1)
    assert "running: two" in project.error("ps", "--name", "one", code=1)


def test_the_run_directory_may_be_anywhere_and_deep(project):
    deep = project.path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    project.up(project.WEB, "--run-dir", str(deep))
    assert list(project.ps("--run-dir", str(deep))) == ["web-1"]
    assert (deep / "logs/web-1.log").exists()
    assert "no cluster runs" in project.error("ps", code=1)
    project.run("down", "--run-dir", str(deep))


def test_down_keeps_logs_and_clean_removes_everything(project):
    project.up(project.WEB)
    project.run("down")
    assert "serving on" in project.run("logs", "--name", project.path.name).stdout
    assert "ready" in project.run("events", "--name", project.path.name).stdout
    project.run("down", "--clean", "--name", project.path.name)
    assert not (project.path / ".minidist" / project.path.name).exists()


# --- when something is wrong -----------------------------------------------------------------------------------------


def test_a_node_that_fails_ends_up_with_its_last_lines_and_everything_stopped(project):
    project.topology(TWO_GROUPS.replace("env = {", 'env = { MODE = "fail",'))
    error = project.error("up", "-d", code=1)
    assert "minidist up: web-" in error
    assert "failed (exit 1); its last lines:\n  no database" in error
    assert "no cluster runs" in project.error("ps", code=1)


def test_a_node_that_never_becomes_ready_ends_up_after_the_timeout(project):
    project.topology(project.WEB.replace('"http:/"', '"http:/never"'))
    error = project.error("up", "-d", "--timeout", "300ms", code=1)
    assert "not ready within 0.3 s:\n  web-1: GET /never answers HTTP/1.1 503 No" in error
    assert "no cluster runs" in project.error("ps", code=1)


def test_a_program_that_listens_nowhere_is_told_about_its_port(project):
    project.topology(project.WEB.replace('ready = "http:/"', 'env = { MODE = "silent" }'))
    assert "web-1: nothing accepts on its $PORT (127.0.0.1:" in project.error("up", "-d", "--timeout", "300ms", code=1)


def test_a_port_in_use_is_one_line(project):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        project.topology(project.WEB + f'listen = "{address}"')
        assert project.error("up", "-d", code=1) == f"minidist up: {address} is in use\n"


def test_a_run_directory_that_cannot_be_made_is_one_line(project):
    project.topology(project.WEB)
    place = project.path / "app.py" / "run"
    assert project.error("up", "-d", "--run-dir", str(place), code=1) == f"minidist up: {place}: Not a directory\n"


def test_a_fixed_port_is_the_programs_and_free_again_after_down(project):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for _ in range(2):
        project.up(project.WEB + f'listen = "{address}"')
        assert project.fetch(f"http://{address}/").startswith("web-1")
        project.run("down")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[groups.web]\ncommand = ["nosuchprogram"]',
            "web-1 failed (exit 127); its last lines:\n  cannot start no",
        ),
        ('[groups.web]\ncommand = ["/etc/passwd"]', "web-1 failed (exit 126); its last lines:\n  cannot start /e"),
        ('[groups.web]\nentry = "app:nothing"', "allowed: a coroutine function of app (async def)"),
        ('[groups.web]\nentry = "nosuch:main"', "given 'nosuch:main', allowed: a module that can be imported from"),
        ('[groups.web]\ncommand = ["python", "-c", "raise SystemExit(0)"]', "web-1 failed (exit 0); its last lines:"),
    ],
)
def test_a_program_that_cannot_run_says_why(project, text, expected):
    project.topology(text)
    assert expected in project.error("up", "-d", code=1)


def test_a_program_that_ignores_the_reservation_gets_a_hint(project):
    program = "import os, socket; s = socket.socket(); s.bind(('127.0.0.1', int(os.environ['PORT'])))"
    project.topology(f'[groups.web]\ncommand = ["python", "-c", "{program}"]')
    assert "hint: the launcher keeps its $PORT reserved" in project.error("up", "-d", code=1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("up", "nosuch.toml"),
            "minidist up: no nosuch.toml here; give a FILE, or see docs/clusters.md for how to write one\n",
        ),
        (("up", "--timeout", "soon"), "given 'soon', allowed: a duration such as 1500ms, 30s, 2h"),
        (("up", "-d", "--name", "a/b"), "--name: given 'a/b', allowed: letters, digits"),
        (("up", "-x"), "unrecognized arguments: -x"),
    ],
)
def test_wrong_usage_is_exit_2(project, words, expected):
    project.topology(project.WEB)
    assert expected in project.error(*words, code=2)


def test_a_command_runs_in_the_files_directory_with_this_python_first(project):
    (project.path / "sub").mkdir()
    program = "import app, asyncio, os, sys; print(os.getcwd(), sys.executable); asyncio.run(app.main(os.environ))"
    project.topology(f'[groups.web]\ncommand = ["python", "-c", "{program}"]', "sub/topology.toml")
    (project.path / "sub/app.py").write_text((project.path / "app.py").read_text())
    project.run("up", "-d", "sub/topology.toml")
    first = project.run("logs", "web").stdout.splitlines()[0]
    directory, python = first.split()
    assert directory == str(project.path / "sub")
    assert os.path.dirname(python) == os.path.dirname(sys.executable)


def test_an_interrupted_up_in_the_background_takes_everything_down(project):
    project.topology(project.WEB.replace('ready = "http:/"', 'env = { MODE = "silent" }'))
    up = project.begin("up", "-d")
    project.until(lambda: (project.path / ".minidist" / project.path.name / "logs/web-1.log").exists())
    processes = project.until(lambda: len(found := project.family(up.pid)) >= 5 and found)
    up.send_signal(signal.SIGINT)
    assert up.wait(timeout=20) == 130
    project.until_gone([pid for pid in processes if pid != up.pid])
    assert not project.is_alive(processes[-1])


def test_a_log_that_cannot_be_written_is_one_line(project):
    project.topology(project.WEB)
    run_dir = project.path / "run"
    up = project.begin("up", "--run-dir", str(run_dir))
    project.until(lambda: project.begin("wait", "--run-dir", str(run_dir)).wait() == 0, "a cluster that is ready")
    project.run("stop", "web", "--run-dir", str(run_dir))
    (run_dir / "logs/web-1.log").unlink()
    (run_dir / "logs/web-1.log").mkdir()
    error = project.error("start", "web", "--run-dir", str(run_dir), code=1)
    assert error == f"minidist start: web-1 could not be started: {run_dir}/logs/web-1.log: Is a directory\n"
    (run_dir / "logs/web-1.log").rmdir()
    project.run("start", "web", "--run-dir", str(run_dir))
    project.run("down", "--run-dir", str(run_dir))
    assert up.wait(timeout=20) == 0
