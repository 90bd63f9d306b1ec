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


# --- keys, values, hits -----------------------------------------------------------------------------------------------


def keys_of(server: Any) -> list[int]:
    return [int(command[1].partition(b":")[2]) for command in commands(server)]


async def test_zipf_asks_for_few_keys_most_of_the_time_and_the_same_by_seed(resp_server: Any) -> None:
    seen = []
    for seed in (3, 3, 4):
        server = await resp_server()
        await load(server, workload="get", seed=seed, options={"key_pattern": "zipf", "keys": 1000})
        seen.append(keys_of(server))
    assert seen[0] == seen[1] != seen[2]
    assert seen[0].count(0) > 5
    assert len(set(seen[0])) < 80


async def test_hot_keys_get_their_share(resp_server: Any) -> None:
    server = await resp_server()
    await load(server, workload="set", options={"key_pattern": "hot", "hot_keys": 2, "hot_share": 0.9})
    assert 80 <= sum(key < 2 for key in keys_of(server)) < 100


async def test_a_scan_is_one_over_all_connections(resp_server: Any) -> None:
    server = await resp_server()
    await load(server, workload="get", connections=5, options={"key_pattern": "scan", "keys": 40})
    assert sorted(keys_of(server)) == sorted([*range(40), *range(40), *range(20)])


async def test_processes_begin_their_scans_evenly_spread(resp_server: Any) -> None:
    server = await resp_server()
    described: dict[str, Any] = {"workload": "get", "connections": 2, "processes": 2, "rate": 20.0}
    await load(server, options={"key_pattern": "scan", "keys": 1000}, **described)
    assert sorted(keys_of(server))[:1] == [0]
    assert 500 in keys_of(server)


async def test_value_sizes_are_drawn(resp_server: Any) -> None:
    server = await resp_server()
    await load(server, workload="set", options={"value_size": "10:1,2000:1", "keys": 1})
    sizes = {len(request) - len(b"SET key:000000000000 ") for request in server.requests}
    assert sizes == {10, 2000}
    server = await resp_server()
    await load(server, workload="mset", options={"value_size": "0-3", "keys": 1})
    assert {len(value) for command in commands(server) for value in command[2::2]} <= {0, 1, 2, 3}


@pytest.mark.parametrize("workload", ["get", "get-set"])
async def test_hits_are_counted_of_reads_only(resp_server: Any, workload: str) -> None:
    def answer(number: int, request: bytes) -> bytes:
        if request.startswith(b"SET"):
            return b"+OK\r\n"
        key = int(request.partition(b":")[2])
        return b"-ERR\r\n" if key == 0 else b"$-1\r\n" if key < 3 else b"$2\r\nOK\r\n"

    server = await resp_server(answer)
    report = await load(server, workload=workload, options={"keys": 10, "ratio": (1, 1)})
    read = [int(command[1].partition(b":")[2]) for command in commands(server) if command[0] == b"GET"]
    assert report.total.hits == sum(key >= 3 for key in read)
    assert report.total.misses == sum(0 < key < 3 for key in read)
    assert report.to_json()["hit_ratio"] == pytest.approx(report.total.hits / (report.total.hits + report.total.misses))
    assert f"of {report.total.hits + report.total.misses} reads" in report.text()


async def test_what_reads_nothing_has_no_hits(resp_server: Any) -> None:
    server = await resp_server()
    report = await load(server, workload="set")
    assert report.total.hit_ratio is None
    assert "hit_ratio" not in report.to_json()
