"""partition, heal, fault: who applies what, what comes of it on the wire, and what survives a restart."""

import json
import socket

import pytest

TOPOLOGY = """
name = "shop"
[groups.web]
entry = "app:main"
replicas = 2
ready = "http:/"

[groups.edge]
component = "balancer"
upstream = "web"
response_timeout = "300ms"
connect_timeout = "300ms"
check_interval = "50ms"
check_timeout = "200ms"

[groups.cache]
component = "cache"
"""


@pytest.fixture
def shop(project):
    project.up(TOPOLOGY)
    return project


@pytest.fixture(scope="module")
def standing_shop(shared_project):
    """For tests that change nothing."""
    shared_project.up(TOPOLOGY)
    return shared_project


def ask(project, command, timeout_s=5.0):
    """The cache's reply to an inline command, first line only."""
    node = project.ps()["cache-1"]
    host, port = node["address"].split(":")
    with socket.create_connection((host, int(port)), timeout=timeout_s) as connection:
        connection.sendall(command.encode() + b"\r\n")
        return connection.makefile("rb").readline().decode().strip()


def listed(project):
    return project.answer("fault-ls")


def set_on(project, node):
    """The ids of the faults that a node has set, as it says itself."""
    return [fault["id"] for fault in faults_of(project, node)]


def faults_of(project, node):
    """The faults that a node has set, as it says itself."""
    (status,) = project.answer("status", nodes=[node])
    return status["faults"]


def test_a_fault_prints_its_id_and_acts_until_it_is_removed(shop):
    added = shop.run("fault", "add", "reply", "--on", "cache", "--match", "GET", "--error", "ERR busy")
    fault_id = added.stdout.strip()
    assert added.stdout == f"{fault_id}\n"
    assert ask(shop, "GET a") == "-ERR busy"
    assert ask(shop, "PING") == "+PONG"
    (fault,) = json.loads(shop.run("fault", "ls", "--json").stdout)["faults"]
    assert fault == {
        "id": fault_id, "kind": "reply", "on": ["cache"], "peer": [], "error": "ERR busy", "match": "GET", "fired": 1,
    }  # fmt: skip
    row = shop.run("fault", "ls").stdout.splitlines()[1]
    assert row.split(maxsplit=4) == [fault_id, "reply", "cache", "1", "error=ERR busy match=GET"]
    shop.run("fault", "rm", fault_id)
    assert ask(shop, "GET a") == "$-1"
    assert listed(shop) == []
    assert f"given {fault_id!r}, allowed: a fault of" in shop.error("fault", "rm", fault_id, code=2)


def test_numbers_are_numbers_in_the_list_and_durations_are_as_given(shop):
    words = "--ms 5 --jitter-ms 0.5 --probability 1 --times 3 --duration 1h"
    shop.run("fault", "add", "delay", "--on", "cache", "--peer", "client:jobs", *words.split())
    (fault,) = json.loads(shop.run("fault", "ls", "--json").stdout)["faults"]
    assert fault == {
        "id": fault["id"], "kind": "delay", "on": ["cache"], "peer": ["client:jobs"],
        "probability": 1, "times": 3, "duration": "1h", "ms": 5, "jitter_ms": 0.5, "fired": 0,
    }  # fmt: skip


def test_a_fault_that_has_struck_often_enough_is_gone(shop):
    shop.run("fault", "add", "reply", "--on", "cache", "--error", "ERR busy", "--times", "2")
    assert [ask(shop, "PING") for _ in range(3)] == ["-ERR busy", "-ERR busy", "+PONG"]
    shop.until(lambda: listed(shop) == [])
    shop.run("restart", "cache")
    assert ask(shop, "PING") == "+PONG"


def test_a_fault_outlives_the_nodes_it_names(shop):
    shop.run("fault", "add", "delay", "--on", "edge", "--peer", "web-2", "--ms", "1")
    shop.run("scale", "web=1")
    shop.run("fault", "add", "delay", "--on", "edge", "--peer", "web", "--ms", "1")
    faults = faults_of(shop, "edge")
    assert [fault["peer"] for fault in faults] == [["web-1"]]


def test_a_fault_is_set_again_when_its_node_restarts(shop):
    shop.run("fault", "add", "reply", "--on", "cache", "--match", "GET", "--error", "ERR busy")
    shop.run("restart", "cache")
    assert ask(shop, "GET a") == "-ERR busy"


def test_a_partition_parts_a_program_from_a_node_until_it_heals(shop):
    edge = shop.ps()["edge-1"]["url"]
    fault_id = shop.run("partition", "edge", "web-1").stdout.strip()
    assert set_on(shop, "edge") == [fault_id]
    shop.until(lambda: {shop.fetch(edge).split()[0] for _ in range(4)} == {"web-2"})
    assert shop.run("heal").stderr == f"removed {fault_id}\n"
    shop.until(lambda: {shop.fetch(edge).split()[0] for _ in range(4)} == {"web-1", "web-2"})


def test_a_partition_follows_a_program_to_its_next_process(shop):
    """What the program dials, after it was restarted, is told by its new process."""
    shop.run("partition", "web-1", "cache")
    before = faults_of(shop, "cache")
    shop.run("restart", "web-1")
    after = faults_of(shop, "cache")
    assert [fault["id"] for fault in after] == [fault["id"] for fault in before]
    events = [event for event in shop.events() if event["node"] == "cache-1" and event["event"].startswith("fault-")]
    assert [event["event"] for event in events] == ["fault-started", "fault-ended", "fault-started"]


@pytest.mark.parametrize(
    "sides", [("edge,cache", "web"), ("edge,cache | web",), ("edge", "cache", "|", "web"), ("edge,cache|web",)]
)
def test_sides_may_be_written_in_several_ways(standing_shop, sides):
    standing_shop.run("partition", *sides)
    (fault,) = listed(standing_shop)
    standing_shop.run("heal")
    assert (sorted(fault["on"]), fault["peer"]) == (["cache", "edge"], ["web"])


def test_heal_removes_partitions_and_heal_all_everything(shop):
    partition = shop.run("partition", "edge", "cache", "--one-way").stdout.strip()
    delay = shop.run("fault", "add", "delay", "--on", "cache", "--ms", "1").stdout.strip()
    assert set_on(shop, "cache") == [partition, delay]
    assert listed(shop)[0]["one_way"] is True
    assert shop.run("heal").stderr == f"removed {partition}\n"
    assert set_on(shop, "cache") == [delay]
    assert shop.run("heal", "--all").stderr == f"removed {delay}\n"
    assert set_on(shop, "cache") == []


def test_where_only_the_other_end_can_apply_a_fault_it_does_with_directions_swapped(shop):
    shop.run("fault", "add", "delay", "--on", "web", "--peer", "cache", "--ms", "20", "--direction", "out")
    (fault,) = faults_of(shop, "cache")
    assert (fault["kind"], fault["peer"], fault["direction"]) == ("delay", ["web-1", "web-2"], "in")
    assert set_on(shop, "edge") == []


def test_links_are_delays_set_at_the_start(project):
    regions = '[regions]\neu = ["edge"]\nus = ["web", "cache"]\n'
    project.up(TOPOLOGY + regions + '[[links]]\nbetween = ["eu", "us"]\nlatency_ms = 30\njitter_ms = 1\n')
    (fault,) = listed(project)
    assert (fault["kind"], fault["on"], fault["ms"]) == ("delay", ["edge"], 30)
    faults = faults_of(project, "edge")
    assert [(each["peer"], each["direction"]) for each in faults] == [
        (["cache-1"], "out"),
        (["web-1", "web-2"], "both"),
    ]
    (far,) = faults_of(project, "cache")
    assert (far["peer"], far["direction"]) == (["edge-1"], "out")

    project.run("scale", "web=3", "edge=2")
    assert (project.ps()["web-3"]["region"], project.ps()["edge-2"]["region"]) == ("us", "eu")
    for edge in ("edge-1", "edge-2"):
        assert (["web-1", "web-2", "web-3"], "both") in [
            (each["peer"], each["direction"]) for each in faults_of(project, edge)
        ]
    (far,) = faults_of(project, "cache")
    assert far["peer"] == ["edge-1", "edge-2"]


def test_kill_and_pause_are_faults_too(shop):
    shop.run("fault", "add", "kill", "--on", "web-1")
    assert shop.states()["web-1"] == "killed"
    pause = shop.run("fault", "add", "pause", "--on", "web-2").stdout.strip()
    assert shop.states()["web-2"] == "paused"
    assert [fault["id"] for fault in listed(shop)] == [pause]
    shop.run("fault", "rm", pause)
    assert shop.states()["web-2"] == "running"
    shop.run("fault", "add", "pause", "--on", "web-2", "--duration", "50ms")
    shop.until(lambda: shop.states()["web-2"] == "running")


@pytest.mark.parametrize("restart", ["", 'restart = "always"'])
def test_a_kill_with_a_duration_ends_with_the_nodes_restart(project, restart):
    project.up(f"{project.WEB}{restart}\nreplicas = 2")
    killed = project.run("fault", "add", "kill", "--on", "web-1", "--duration", "1h").stdout.strip()
    assert [fault["id"] for fault in listed(project)] == [killed]
    assert project.states() == {"web-1": "killed", "web-2": "running"}
    project.run("fault", "rm", killed)
    project.until(lambda: project.states()["web-1"] == "running")
    project.run("fault", "add", "kill", "--on", "web-1", "--duration", "50ms")
    project.until(lambda: project.states()["web-1"] == "running")
    assert project.ps()["web-1"]["restarts"] == 2
    assert listed(project) == []


def test_a_fault_may_begin_later_and_end_by_itself(shop):
    shop.run("fault", "add", "reply", "--on", "cache", "--error", "ERR busy", "--at", "50ms", "--duration", "1s")
    shop.until(lambda: ask(shop, "PING") == "-ERR busy")
    shop.until(lambda: ask(shop, "PING") == "+PONG")
    assert listed(shop) == []
    told = [event["event"] for event in shop.events() if event["node"] == "" and event["event"].startswith("fault")]
    assert told == ["fault-set", "fault-removed"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("partition", "web-1", "web-2"), "web-1 and web-2 are both your own programs, so nobody can part them: put a"),
        (("partition", "web", "web-2"), "given 'web-2' on both sides, allowed: each node on one side"),
        (("partition", "web"), "allowed: two sides"),
        (("partition", "wbe", "cache"), "given 'wbe', allowed: a group or node of shop"),
        (("fault", "add", "delay", "--on", "web", "--ms", "5"), "allowed: with a minidist node as --peer; or put a"),
        (("fault", "add", "delay", "--on", "web", "--peer", "web-2", "--ms", "5"), "are both your own programs: put a"),
        (("fault", "add", "reply", "--on", "web", "--error", "x"), "given 'web-1', your own program"),
        (("fault", "add", "delay", "--on", "cache"), "ms: given nothing, allowed: a number that is not"),
        (("fault", "add", "delay", "--on", "cache", "--ms", "slow"), "ms: given 'slow', allowed: a number"),
        (("fault", "add", "delay", "--on", "cache", "--ms", "1", "--rate", "2"), "rate: given '2', allowed: for delay"),
        (
            ("fault", "add", "delay", "--on", "edge", "--peer", "client:jobs", "--ms", "1"),
            "edge-1: peer: given 'client:jobs', allowed: a node or an address: clients say no name here;",
        ),
        (("fault", "add", "fire", "--on", "cache"), "invalid choice: 'fire'"),
        (("fault", "add", "kill", "--on", "web", "--ms", "2"), "ms: given '2', allowed: for kill only duration, at"),
        (("fault", "add", "kill", "--on", "web", "--peer", "edge"), "peer: given 'edge', allowed: for kill only"),
        (
            ("fault", "add", "pause", "--on", "web", "--duration", "x"),
            "duration: given 'x', allowed: a duration",
        ),
        (("fault", "add", "delay", "--on", "", "--ms", "1"), "--on: given '', allowed: a node or group"),
        (("fault", "add", "delay", "--on", "cache", "--peer", "", "--ms", "1"), "--peer: given '', allowed: a node or"),
        (("fault", "add", "disk", "--on", "cache", "--what", "wet"), "what: given 'wet', allowed: one of slow, full"),
        (("fault", "mend"), "usage: minidist fault add KIND"),
    ],
)
def test_what_cannot_be_done_is_exit_2_and_says_why(standing_shop, words, expected):
    assert expected in standing_shop.run(*words, code=2).stderr
    assert listed(standing_shop) == []
