"""The Redis driver: commands, pipelines, greetings, errors by their first word."""

from typing import Any

import pytest

from minidist.load.plan import LoadError, Plan
from minidist.load.report import Report
from minidist.load.runner import run


async def load(server: Any, user: str = "", path: str = "/0", **changes: Any) -> Report:
    described: dict[str, Any] = {"rate": 1000.0, "connections": 1, "duration_ms": 100} | changes
    return await run(Plan(url=f"redis://{user}127.0.0.1:{server.port}{path}", **described))


def commands(server: Any) -> list[list[bytes]]:
    return [request.split(b" ") for request in server.requests]


async def test_the_default_is_a_mix_of_get_and_set(resp_server: Any) -> None:
    server = await resp_server()
    report = await load(server, options={"ratio": (1, 1), "keys": 3, "value_size": 0})
    names = [command[0] for command in commands(server)]
    assert len(names) == report.total.ok == 100
    assert 20 < names.count(b"GET") < 80
    assert names.count(b"GET") + names.count(b"SET") == 100
    assert {command[1] for command in commands(server)} == {b"key:%012d" % key for key in range(3)}
    assert report.workload == "get-set"


@pytest.mark.parametrize(
    ("workload", "shape"),
    [
        ("ping", [b"PING"]),
        ("get", [b"GET", b"key:000000000000"]),
        ("set", [b"SET", b"key:000000000000", b""]),
        ("incr", [b"INCR", b"counter:000000000000"]),
        ("mset", [b"MSET", *[b"key:000000000000", b""] * 10]),
    ],
)
async def test_workloads(resp_server: Any, workload: str, shape: list[bytes]) -> None:
    server = await resp_server()
    report = await load(server, workload=workload, options={"keys": 1, "value_size": 0})
    assert commands(server) == [shape] * 100
    assert report.total.errors == {}


async def test_values_are_taken_as_they_are_and_may_expire(resp_server: Any) -> None:
    server = await resp_server()
    await load(server, workload="set", seed=7, options={"value_size": 4096, "ttl": 1500})
    assert all(request.endswith(b" PX 1500") for request in server.requests)
    assert {len(request) for request in server.requests} == {len(b"SET key:000000000000  PX 1500") + 4096}


@pytest.mark.parametrize("depth", [1, 16])
async def test_a_pipeline_is_as_deep_as_it_says(resp_server: Any, depth: int) -> None:
    server = await resp_server()
    described = {"rate": None, "connections": None, "concurrency": 2}
    report = await load(server, workload="ping", options={"pipeline": depth}, **described)
    assert server.largest_batch == depth
    assert report.total.ok == len(server.requests)


async def test_errors_are_counted_by_their_first_word(resp_server: Any) -> None:
    replies = [b"-LOADING the dataset\r\n", b"-MOVED 1 127.0.0.1:7001\r\n", b"$-1\r\n", b"-ERR\r\n", b":1\r\n"]
    server = await resp_server(lambda number, request: replies[number % 5])
    report = await load(server)
    assert report.total.ok == 40
    assert report.total.errors == {"LOADING": 20, "MOVED": 20, "ERR": 20}


async def test_authentication_and_database_come_first_and_are_not_counted(resp_server: Any) -> None:
    server = await resp_server()
    report = await load(server, "me:p%20w@", "/3", workload="ping")
    assert server.requests[:3] == [b"AUTH me p w", b"SELECT 3", b"PING"]
    assert report.total.ok == 100


async def test_a_password_alone(resp_server: Any) -> None:
    server = await resp_server()
    await load(server, ":pw@", workload="ping")
    assert server.requests[:2] == [b"AUTH pw", b"PING"]


async def test_refused_authentication_ends_the_load_before_it_starts(resp_server: Any) -> None:
    server = await resp_server(lambda number, request: b"-WRONGPASS invalid\r\n")
    with pytest.raises(LoadError, match="WRONGPASS"):
        await load(server, ":pw@")


async def test_preload_sets_every_key_first(resp_server: Any) -> None:
    server = await resp_server()
    report = await load(server, workload="get", options={"preload": True, "keys": 1200, "value_size": 1})
    assert [request.split(b" ")[1] for request in server.requests[:1200]] == [b"key:%012d" % key for key in range(1200)]
    assert report.total.ok == len(server.requests) - 1200 == 100


async def test_preload_that_is_refused_says_why(resp_server: Any) -> None:
    server = await resp_server(lambda number, request: b"-READONLY no\r\n")
    with pytest.raises(LoadError, match="READONLY no"):
        await load(server, options={"preload": True})


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n+unasked\r\n"])
async def test_what_is_no_reply_costs_the_connection(resp_server: Any, answer: bytes) -> None:
    server = await resp_server(lambda number, request: answer)
    report = await load(server, rate=100.0)
    assert server.accepted > 1
    if answer.startswith(b"H"):
        assert report.total.errors == {"bad-reply": 10}


async def test_a_lost_connection_fails_all_that_was_under_way(resp_server: Any) -> None:
    server = await resp_server(lambda number, request: None)
    taken = server.take

    def take(connection: Any, request: bytes) -> None:
        taken(connection, request)
        if len(server.requests) % 8 == 0:
            connection.transport.abort()

    server.take = take
    described: dict[str, Any] = {"rate": None, "connections": None, "concurrency": 1}
    report = await load(server, options={"pipeline": 8}, **described)
    assert report.total.ok == 0
    assert report.total.failed == report.total.offered
    assert report.total.failed % 8 == 0
