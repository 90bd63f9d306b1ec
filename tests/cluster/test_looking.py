"""The verbs that look: ps, logs, env, exec, run, status, events, top."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys

import pytest

TWO = """
name = "shop"
[groups.web]
entry = "app:main"
replicas = 2
[groups.my-cache]
component = "cache"
[regions]
eu = ["web-1", "my-cache"]
"""


@pytest.fixture(scope="module")
def standing(shared_project):
    """For tests that change nothing."""
    shared_project.up(TWO)
    return shared_project


def test_ps_is_a_table_without_empty_columns(project):
    project.up(TWO)
    project.run("kill", "web-2")
    header, *rows = project.run("ps").stdout.splitlines()
    assert header.split() == ["NODE", "STATE", "PID", "UP", "REGION", "URL"]
    cells = [re.split(r"  +", row) for row in rows]
    assert [row[:2] for row in cells] == [["web-1", "running"], ["web-2", "killed (-9)"], ["my-cache-1", "running"]]
    assert cells[0][4] == "eu"
    assert cells[2][5].startswith("redis://127.0.0.1:")


def test_logs_of_all_nodes_of_a_group_and_of_one(standing):
    web = standing.run("logs", "web").stdout.splitlines()
    assert [line for line in web if re.fullmatch(r"web-1 \| serving on \d+", line)]
    assert {line.split(" | ")[0] for line in web} == {"web-1", "web-2"}
    alone = standing.run("logs", "web-2").stdout.splitlines()
    assert re.fullmatch(r"serving on \d+", alone[0])
    everyone = standing.run("logs").stdout
    assert re.search(r"^my-cache-1 \| .* running", everyone, re.MULTILINE)
    error = standing.error("logs", "nosuch", code=2)
    assert error == "minidist logs: given 'nosuch', allowed: a node or group: web-1, web-2, my-cache-1\n"


def test_logs_are_followed_until_the_cluster_is_down(project):
    project.up(TWO)
    logs = project.begin("logs", "-f", "web-1")
    assert logs.stdout.readline().startswith("serving on")
    assert logs.stdout.readline() == "a warning\n"
    project.get("web-1", "/slow")
    assert logs.stdout.readline() == "slow request\n"
    project.run("restart", "web-1")
    assert logs.stdout.readline().startswith("serving on")
    project.run("down")
    assert logs.wait(timeout=20) == 0


def test_env_prints_shell_variables_and_exec_sets_them(standing):
    nodes = standing.ps()
    text = standing.run("env").stdout
    variables = dict(word.split("=", 1) for line in text.splitlines() for word in shlex.split(line)[1:])
    assert variables["WEB_URL"] == nodes["web-1"]["url"]
    assert variables["WEB_2_URL"] == nodes["web-2"]["url"]
    assert variables["WEB_URLS"] == f"{nodes['web-1']['url']},{nodes['web-2']['url']}"
    assert variables["WEB_BOOTSTRAP"] == f"{nodes['web-1']['address']},{nodes['web-2']['address']}"
    assert variables["MY_CACHE_URL"] == nodes["my-cache-1"]["url"]
    assert f"{variables['MY_CACHE_HOST']}:{variables['MY_CACHE_PORT']}" == variables["MY_CACHE_ADDRESS"]
    shell = subprocess.run(["sh", "-c", text + 'echo "$MY_CACHE_URL"'], capture_output=True, text=True, check=True)
    assert shell.stdout.strip() == variables["MY_CACHE_URL"]
    assert standing.run("exec", "--", "sh", "-c", "echo $WEB_2_PORT").stdout.strip() == variables["WEB_2_PORT"]
    standing.run("exec", "--", "sh", "-c", "exit 7", code=7)
    assert "cannot run nosuch: No such file" in standing.error("exec", "--", "nosuch", code=2)
    assert "given no command" in standing.error("exec", code=2)


def test_run_is_up_the_command_and_down(project):
    project.topology(TWO)
    ran = project.run("run", "--", "sh", "-c", "echo $WEB_URL; exit 5", code=5)
    assert ran.stdout.startswith("http://127.0.0.1:")
    assert "no cluster runs" in project.error("ps", code=1)
    assert "given no command" in project.error("run", "minidist.toml", code=2)
    project.topology(TWO.replace("app:main", "app:nothing"))
    assert "failed" in project.error("run", "--", "true", code=1)


def test_status_json_has_the_contracts_fields(project):
    project.up(TWO)
    fields = [
        "name", "component", "version", "pid", "state", "role", "uptime_s",
        "address", "listeners", "peers", "faults", "clock_offset_ms",
    ]  # fmt: skip
    cache = json.loads(project.run("status", "my-cache", "--json").stdout)
    assert list(cache)[:12] == fields
    assert (cache["name"], cache["component"], cache["state"]) == ("my-cache-1", "cache", "running")
    several = json.loads(project.run("status", "web", "--json").stdout)
    roles = [node["role"] for node in (cache, *several["nodes"], *project.ps().values())]
    assert roles == [None] * len(roles), "where there are none they are null everywhere"
    assert [node["name"] for node in several["nodes"]] == ["web-1", "web-2"]
    assert list(several["nodes"][0]) == fields
    project.run("pause", "my-cache")
    assert json.loads(project.run("status", "my-cache-1", "--json").stdout)["state"] == "paused"
    text = project.run("status", "web").stdout
    assert re.search(r"^name +web-1$", text, re.MULTILINE)


def test_events_are_the_launchers_and_the_nodes_own_in_order(project):
    project.up(TWO)
    project.run("kill", "web-1")
    project.run("clock", "my-cache", "advance", "1h")
    project.until(lambda: "clock-moved" in [event["event"] for event in project.events()])
    events = [json.loads(line) for line in project.run("events", "--json").stdout.splitlines()]
    assert [list(event) for event in events] == [["time", "node", "event", "detail"]] * len(events)
    assert [event["event"] for event in events if event["node"] == "web-1"] == ["started", "ready", "killed"]
    project.run("stop", "my-cache")
    own = [event["event"] for event in project.events() if event["node"] == "my-cache-1"]
    assert own[-2:] == ["draining", "stopped"]
    assert {"started", "ready", "running", "clock-moved"} <= {e["event"] for e in events if e["node"] == "my-cache-1"}
    line = project.run("events").stdout.splitlines()[0]
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}  -  +up  +file=.*minidist.toml", line)


def test_events_are_followed_until_the_cluster_is_down(project):
    project.up(TWO)
    following = project.begin("events", "-f", "--json")
    while json.loads(following.stdout.readline())["event"] != "running":
        pass
    project.run("kill", "web-2")
    while (event := json.loads(following.stdout.readline()))["event"] != "killed":
        pass
    assert event["node"] == "web-2"
    project.run("down")
    assert following.wait(timeout=20) == 0
    assert '"event": "down"' in following.stdout.read()


def test_clock_moves_minidists_nodes(project):
    project.up(TWO)
    assert project.run("clock", "my-cache", "advance", "1h").stdout == "my-cache-1  offset 3600000 ms\n"
    assert project.run("clock", "--all", "advance", "-30m").stdout == "my-cache-1  offset 1800000 ms\n"
    assert "given 'web-1', your own program" in project.error("clock", "web", "advance", "1h", code=2)
    for words in (("my-cache", "advance"), ("advance", "1h"), ("--all", "web", "advance", "1h"), ("web", "back", "1h")):
        assert "allowed" in project.error("clock", *words, code=2)
    assert "given 'soon', allowed: a duration" in project.error("clock", "my-cache", "advance", "soon", code=2)
    project.run("stop", "my-cache")
    assert "my-cache-1 is stopped" in project.error("clock", "my-cache", "advance", "1h", code=1)


# --- top -------------------------------------------------------------------------------------------------------------


def test_top_is_ps_when_it_is_piped(standing):
    assert standing.run("top").stdout.splitlines()[0].split()[:2] == ["NODE", "STATE"]


def test_top_on_a_terminal_is_a_live_table(project):
    project.up(TWO)
    ours, theirs = pty.openpty()
    environment = project.environment | {"TERM": "xterm", "COLUMNS": "120", "LINES": "30"}
    top = subprocess.Popen(
        [sys.executable, "-m", "minidist", "top", "--interval", "0.1"],
        cwd=project.path,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while not re.search(rb"my-cache-1.*running.*\d+ .*\n", shown):
        shown += os.read(ours, 65536)
    project.run("kill", "web-1")
    while b"killed (-9)" not in shown:
        shown += os.read(ours, 65536)
    os.write(ours, b"q")
    assert top.wait(timeout=20) == 0
    os.close(ours)
    for heading in (b"NODE", b"STATE", b"ROLE", b"REQ/S", b"P99 MS", b"CPU %", b"RSS MB"):
        assert heading in shown


@pytest.mark.parametrize("verb", ["ps", "logs", "wait", "env", "events", "top", "heal", "down"])
def test_without_a_cluster_a_verb_is_exit_1(project, verb):
    assert "no cluster runs in" in project.error(verb, code=1)
