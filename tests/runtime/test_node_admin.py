"""The routes of every node's admin port."""

import asyncio
import json

import pytest
from line_server import LineConfig, LineServer
from prometheus_client.parser import text_string_to_metric_families

from minidist.runtime.admin_client import AdminRefused, call
from minidist.runtime.config import ConfigError
from minidist.runtime.node import NodeState


@pytest.fixture
async def node(start_node):
    return await start_node(name="n1", password="hunter2")


@pytest.fixture
def ask(node):
    async def ask(method, path, body=None):
        return await call(node.admin.address, method, path, body)

    return ask


async def refusal(awaitable):
    with pytest.raises(AdminRefused) as refused:
        await awaitable
    return refused.value.status, refused.value.text


async def test_status(node, ask, connect):
    await (await connect(node)).ask("x")
    status = await ask("GET", "/status")
    promised = "name component version pid state role uptime_s address listeners peers faults clock_offset_ms"
    assert set(promised.split()) <= set(status)
    assert (status["name"], status["component"], status["state"]) == ("n1", "line", "running")
    assert status["listeners"] == {"line": str(node.address)}
    assert status["figures"]["requests_total"] == 1


async def test_config_hides_secrets(ask):
    config = await ask("GET", "/config")
    assert config["password"] == "***"
    assert config["name"] == "n1"
    assert config["drain_timeout"] == "5s"


async def test_metrics_are_prometheus_text(node, ask, connect):
    await (await connect(node)).ask("x")
    families = {family.name: family for family in text_string_to_metric_families(await ask("GET", "/metrics"))}
    assert families["minidist_lines"].samples[0].value == 1
    assert families["minidist_connections"].samples[0].labels == {"endpoint": "line"}
    assert families["minidist_info"].samples[0].labels["component"] == "line"
    assert all(family.documentation for family in families.values())


async def test_healthz_while_draining(node, ask, connect, eventually, monkeypatch):
    assert await ask("GET", "/healthz") == {"ok": True, "state": "running"}
    client = await connect(node)
    await client.ask("x")
    monkeypatch.setattr("line_server.LineConnection.draining", lambda connection: None)
    draining = asyncio.ensure_future(ask("POST", "/drain"))
    await eventually(lambda: node.state is NodeState.DRAINING)
    assert (await refusal(ask("GET", "/healthz")))[0] == 503
    assert await client.ask("still") == "STILL"
    client.writer.close()
    assert await draining == {"state": "draining"}
    with pytest.raises(ConnectionRefusedError):
        await connect(node)
    assert await ask("POST", "/drain") == {"state": "draining"}


async def test_faults_by_their_routes(node, ask, connect):
    client = await connect(node)
    first = (await ask("POST", "/faults", {"kind": "reply", "error": "no"}))["id"]
    second = (await ask("POST", "/faults", {"kind": "delay", "ms": 1, "id": "mine"}))["id"]
    assert second == "mine"
    assert await client.ask("x") == "!no"
    listed = (await ask("GET", "/faults"))["faults"]
    assert [(fault["id"], fault["kind"], fault["fired"] > 0) for fault in listed] == [
        (first, "reply", True),
        ("mine", "delay", True),
    ]
    assert await refusal(ask("POST", "/faults", {"kind": "delay", "ms": 1, "id": "mine"})) == (
        400,
        "id: given 'mine', allowed: an id that is not in use",
    )
    assert await ask("DELETE", f"/faults?id={first}") == {"removed": [first]}
    assert await client.ask("x") == "X"
    assert await refusal(ask("DELETE", "/faults?id=nothing")) == (404, "id: given 'nothing', allowed: mine")
    await ask("POST", "/faults", {"kind": "delay", "ms": 1, "at": "1h"})
    assert [fault.get("at_ms") for fault in (await ask("GET", "/faults"))["faults"]] == [None, 3_600_000]
    assert len((await ask("DELETE", "/faults"))["removed"]) == 2
    assert await ask("GET", "/faults") == {"faults": []}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"kind": "melt"}, "kind: given 'melt', allowed: one of partition, delay,"),
        ({"kind": ["delay"]}, "kind: given ['delay'], allowed: one of partition,"),
        ({}, "kind: given nothing, allowed: one of partition,"),
        ([], "body: given list, allowed: a JSON object"),
        ({"kind": "delay", "ms": 1, "times": 0}, "times: given 0, allowed: a whole number, at least 1"),
        ({"kind": "delay", "ms": 1, "times": 1.5}, "times: given 1.5, allowed: a whole number"),
        ({"kind": "delay", "ms": 1, "seed": -1}, "seed: given -1, allowed: a whole number"),
        ({"kind": "delay", "ms": 1, "duration": "-1s"}, "duration: given '-1s', allowed: a duration"),
        ({"kind": "delay", "ms": 1, "duration": -5}, "duration: given -5, allowed: a duration"),
        ({"kind": "delay", "ms": 1, "probability": True}, "probability: given True, allowed: a number from 0 to 1"),
        ({"kind": "delay", "ms": 1, "peer": []}, "peer: given [], allowed: at least one peer"),
        ({"kind": "delay", "ms": 1, "peer": {}}, "peer: given {}, allowed: a name, an address"),
        ({"kind": "delay", "ms": 1, "peer": {"name": 5}}, "peer: given {'name': 5}, allowed: a name, an address"),
        ({"kind": "delay", "ms": 1, "id": {}}, None),
        ({"kind": "bandwidth", "bytes_per_s": 0}, "bytes_per_s: given 0, allowed: a number above 0"),
        ({"kind": "reply", "error": "no", "match": 5}, "match: given 5, allowed: text"),
        ({"kind": "clock", "rate": -1}, "rate: given -1, allowed: a number that is not negative"),
    ],
)
async def test_faults_that_cannot_be_taken(ask, body, text):
    if text is None:
        assert (await ask("POST", "/faults", body))["id"] == "f1"  # an empty id is none
        return
    status, said = await refusal(ask("POST", "/faults", body))
    assert status == 400
    assert said.startswith(text)


async def test_not_a_number_is_no_number(node):
    reader, writer = await asyncio.open_connection(node.admin.address.host, node.admin.address.port)
    for value in ("NaN", "Infinity", "-Infinity", "1e999"):
        body = f'{{"kind":"delay","ms":{value}}}'.encode()
        writer.write(
            b"POST /faults HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (str(node.admin.address).encode(), len(body), body)
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 400")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length))["error"].startswith("ms: given ")
    writer.close()
    await writer.wait_closed()


async def test_the_clock_moves_both_ways(node, ask, connect):
    client = await connect(node)
    before = int(await client.ask("clock"))
    assert (await ask("POST", "/clock", {"advance": "1h"}))["clock_offset_ms"] == 3_600_000
    assert int(await client.ask("clock")) - before >= 3_600_000
    assert (await ask("POST", "/clock", {"advance": "-90m"}))["clock_offset_ms"] == -1_800_000
    assert (await ask("POST", "/clock", {"advance": "+1s"}))["clock_offset_ms"] == -1_799_000
    assert (await ask("GET", "/status"))["clock_offset_ms"] == -1_799_000


@pytest.mark.parametrize("given", ["1", "", "-", "--1h", "1h ", "soon", 5, None, ["1h"], "nan", "999999999d"])
async def test_clock_amounts_that_are_none(ask, given):
    status, text = await refusal(ask("POST", "/clock", {"advance": given}))
    shown = "nothing" if given is None else repr(given)
    assert (status, text) == (400, f"advance: given {shown}, allowed: a duration such as 1500ms, 30s, -2h")
    assert (await refusal(ask("POST", "/clock")))[0] == 400
    assert (await refusal(ask("POST", "/clock", [1])))[0] == 400


async def test_reset_is_as_new_and_connections_stay(node, ask, connect):
    client = await connect(node)
    await client.ask("x")
    node.configure(node.config.changed(max_clients="5"))
    await ask("POST", "/faults", {"kind": "reply", "error": "no"})
    await ask("POST", "/clock", {"advance": "1h"})
    assert await ask("POST", "/reset") == {"ok": True}
    assert await client.ask("same connection") == "SAME CONNECTION"
    status = await ask("GET", "/status")
    assert (status["faults"], status["clock_offset_ms"], status["figures"]["requests_total"]) == ([], 0, 1)
    assert node.listeners["line"].limits.max_connections == node.config.max_clients == 10_000
    assert node.listeners["line"].counters.opened == 0


async def test_events_after_and_followed(node, ask):
    await ask("POST", "/clock", {"advance": "1s"})
    await ask("POST", "/reset")
    lines = [json.loads(line) for line in (await ask("GET", "/events")).splitlines()]
    assert [line["event"] for line in lines] == ["running", "clock-moved", "reset"]
    assert set(lines[0]) == {"time", "node", "event", "detail"}
    assert lines[0]["node"] == "n1"
    assert (await ask("GET", "/events?after=2")).count("\n") == 1
    for after in ("x", "-1", "1.5", "%D9%A3", "9" * 30):
        status, text = await refusal(ask("GET", f"/events?after={after}"))
        assert (status, text.partition(":")[0]) == (400, "after")


async def test_a_bug_in_a_connection_is_counted(node, ask, connect, caplog):
    asyncio.get_running_loop().set_exception_handler(node.unexpected)
    client = await connect(node)
    client.writer.write(b"boom\n")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await client.reader.readexactly(1)
    assert "minidist_unexpected_errors_total 1\n" in await ask("GET", "/metrics")
    assert caplog.text.count("RuntimeError: boom") == 1
    assert await (await connect(node)).ask("still here") == "STILL HERE"


@pytest.mark.parametrize("content", [None, "", " \n", b"\xff"])
async def test_a_token_file_without_a_token_is_refused_before_anything_listens(start_node, tmp_path, content):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    node = LineServer(LineConfig(admin_token_file=str(path)), (await start_node()).ports)
    with pytest.raises(ConfigError, match=r"^--admin-token-file: given "):
        await node.start()
    assert node.listeners == {}


async def test_stopping_twice_and_after_a_failed_start(start_node):
    node = await start_node()
    await node.stop()
    await node.stop()
    with pytest.raises(ConfigError):
        await start_node(greeting="refuse to start")
