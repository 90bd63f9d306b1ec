"""Running it: health, membership at run time, what the admin port shows, draining, reset, and the two halves apart."""

import asyncio
import json
from typing import Any

import msgpack
import pytest
from prometheus_client.parser import text_string_to_metric_families

from minidist.components.balancer.config import BalancerConfig
from minidist.components.balancer.server import Balancer
from minidist.runtime.admin_client import AdminRefused, call
from minidist.runtime.config import ConfigError, from_table
from minidist.runtime.node import Halves, Message
from minidist.runtime.ports import real_ports
from tests.components.balancer.conftest import OK, Client, Turn, Upstream, World, answering, get, until


async def admin(node: Balancer, method: str, path: str, body: Any = None) -> Any:
    assert node.admin is not None
    return await call(node.admin.address, method, path, body)


def states(node: Balancer) -> list[str]:
    return [origin.state.value for origin in node.data.upstreams.members.values()]


def changes(node: Balancer) -> list[str]:
    return [
        f"{each['detail']['before']}>{each['detail']['after']}"
        for each in node.events.since()
        if each["event"] == "upstream"
    ]


# --- Health ----------------------------------------------------------------------------------------------------------

QUICK: dict[str, Any] = {"check": "/healthz", "check_interval": "10ms", "check_timeout": "2s"}


async def test_checks_find_out_who_is_up(world: World) -> None:
    good, bad = await world.upstream(), await world.upstream(answering(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"))
    node = await world.balancer(good, bad, **QUICK)
    await until(lambda: states(node) == ["up", "down"])
    client = await world.client(node)
    for _ in range(4):
        assert (await client.ask(get())).body == b"ok"
    (_, down) = (await admin(node, "GET", "/upstreams"))["upstreams"]
    assert down["why"] == "check: GET /healthz failed with 500"
    assert bad.requests == []


async def test_an_upstream_that_dies_falls_and_one_that_returns_rises(world: World) -> None:
    upstream = await world.upstream()
    node = await world.balancer(upstream, **QUICK)
    await until(lambda: states(node) == ["up"])
    await upstream.kill()
    await until(lambda: states(node) == ["down"])
    client = await world.client(node)
    assert (await client.ask(get())).status == 503
    await upstream.start()
    await until(lambda: states(node) == ["up"])
    assert (await client.ask(get())).status == 200
    assert changes(node) == [">unknown", "unknown>up", "up>down", "down>up"]


@pytest.mark.parametrize(
    ("status", "expect", "state"), [(404, "200-499", "up"), (404, "200-399", "down"), (204, "204", "up")]
)
async def test_what_a_check_expects(world: World, status: int, expect: str, state: str) -> None:
    upstream = await world.upstream(
        answering(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, b"" if status == 204 else b"Content-Length: 0\r\n"))
    )
    node = await world.balancer(upstream, **QUICK, check_expect=expect)
    await until(lambda: states(node) == [state])


async def test_a_check_that_only_connects(world: World) -> None:
    upstream = await world.upstream()
    node = await world.balancer(upstream, **QUICK | {"check": "tcp"})
    await until(lambda: states(node) == ["up"])
    await upstream.kill()
    await until(lambda: states(node) == ["down"])


async def test_failing_requests_eject_and_time_readmits(world: World) -> None:
    broken = True

    async def serve(turn: Turn) -> bool:
        if not broken:
            await turn.write(OK)
        return broken

    bad, good = await world.upstream(serve), await world.upstream()
    node = await world.balancer(bad, good, eject_after=3, eject_base="300ms")
    client = await world.client(node)
    for _ in range(8):
        assert (await client.ask(get())).status == 200, "the others take over"
    assert states(node) == ["ejected", "unknown"]
    assert len(bad.requests) == 3
    listed = await admin(node, "GET", "/upstreams")
    assert listed["upstreams"][0]["why"].startswith("3 requests in a row failed: closed the connection")
    broken = False
    await until(lambda: states(node) == ["unknown", "unknown"])
    for _ in range(2):
        assert (await client.ask(get())).status == 200
    assert len(bad.requests) == 4


async def test_a_success_between_failures_prevents_ejection(world: World) -> None:
    async def serve(turn: Turn) -> bool:
        if turn.seen.target == "/good":
            await turn.write(OK)
        return turn.seen.target != "/good"

    node = await world.balancer(await world.upstream(serve), await world.upstream(serve), eject_after=3, retries=0)
    client = await world.client(node)
    for _ in range(5):
        for target in ("/bad", "/bad", "/bad", "/bad", "/good", "/good"):
            await client.ask(get(target))
    assert states(node) == ["unknown", "unknown"]


async def test_panic_is_seen(world: World) -> None:
    upstream = await world.upstream(answering(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"))
    node = await world.balancer(upstream, **QUICK, panic_percent=50)
    await until(lambda: states(node) == ["down"])
    client = await world.client(node)
    assert (await client.ask(get())).status == 500, "the upstream's own answer, not our 503"
    assert (await admin(node, "GET", "/upstreams"))["panic"]
    assert [each["event"] for each in node.events.since() if "panic" in each["event"]] == ["panic"]


# --- Membership -----------------------------------------------------------------------------------------------------


async def test_upstreams_come_and_go_at_run_time(world: World) -> None:
    first, second = await world.upstream(), await world.upstream()
    node = await world.balancer(first)
    client = await world.client(node)
    answer = await admin(node, "POST", "/upstreams", {"add": second.name})
    assert [each["name"] for each in answer["upstreams"]] == [first.name, second.name]
    for _ in range(4):
        await client.ask(get())
    assert (len(first.requests), len(second.requests)) == (2, 2)
    await admin(node, "POST", "/upstreams", {"drain": first.name})
    for _ in range(4):
        await client.ask(get())
    assert (len(first.requests), len(second.requests)) == (2, 6)
    await admin(node, "POST", "/upstreams", {"remove": [first.name]})
    await until(lambda: first.ended == 1)
    assert [each["name"] for each in (await admin(node, "GET", "/upstreams"))["upstreams"]] == [second.name]


async def test_a_removed_upstream_finishes_what_it_has(world: World) -> None:
    release = asyncio.Event()

    async def serve(turn: Turn) -> None:
        await release.wait()
        await turn.write(OK)

    upstream = await world.upstream(serve)
    node = await world.balancer(upstream)
    client = await world.client(node)
    await client.send(get())
    await until(lambda: upstream.requests)
    await admin(node, "POST", "/upstreams", {"remove": upstream.name})
    release.set()
    assert (await client.answer()).status == 200
    await until(lambda: upstream.ended == 1)
    assert (await client.ask(get())).status == 503


async def test_weights_can_change(world: World) -> None:
    first, second = await world.upstream(), await world.upstream()
    node = await world.balancer(f"{first.name}=3", second)
    await admin(node, "POST", "/upstreams", {"add": second.name, "weight": 3})
    await admin(node, "POST", "/upstreams", {"add": f"{first.name}=1"})
    client = await world.client(node)
    for _ in range(8):
        await client.ask(get())
    assert (len(first.requests), len(second.requests)) == (2, 6)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ([], 400),
        ({"add": "nonsense"}, 400),
        ({"add": 5}, 400),
        ({"add": "127.0.0.1:1", "weight": 0}, 400),
        ({"add": "127.0.0.1:1", "weight": "x"}, 400),
        ({"drain": "127.0.0.1:1"}, 404),
        ({"remove": "127.0.0.1:1"}, 404),
        ({"add": "127.0.0.1:2", "remove": "127.0.0.1:1"}, 404),
    ],
)
async def test_changes_that_are_refused_change_nothing(world: World, body: Any, status: int) -> None:
    node = await world.balancer("127.0.0.1:9")
    with pytest.raises(AdminRefused) as refused:
        await admin(node, "POST", "/upstreams", body)
    assert refused.value.status == status
    assert list(node.data.upstreams.members) == ["127.0.0.1:9"]


async def test_least_connections_avoids_the_busy_one(world: World) -> None:
    release = asyncio.Event()

    async def serve(turn: Turn) -> None:
        if turn.seen.target == "/slow":
            await release.wait()
        await turn.write(OK)

    upstreams = [await world.upstream(serve), await world.upstream(serve)]
    node = await world.balancer(*upstreams, balance="least-connections")
    waiting, client = await world.client(node), await world.client(node)
    await waiting.send(get("/slow"))
    await until(lambda: any(each.requests for each in upstreams))
    for _ in range(6):
        await client.ask(get())
    assert sorted(len(each.requests) for each in upstreams) == [1, 6]
    release.set()
    assert (await waiting.answer()).status == 200


# --- What others see ------------------------------------------------------------------------------------------------


async def test_status_and_metrics(world: World) -> None:
    upstream = await world.upstream()
    node = await world.balancer(upstream, "127.0.0.1:9=2", retries=3)
    client = await world.client(node)
    for _ in range(9):
        assert (await client.ask(get())).status == 200
    status = await admin(node, "GET", "/status")
    assert status["figures"]["requests_total"] == 9
    (first, second) = status["upstreams"]
    assert (first["state"], first["requests"], first["active"], first["failures"]) == ("unknown", 9, 0, 0)
    assert (second["state"], second["failures"], second["weight"]) == ("ejected", 5, 2)
    families = {each.name: each for each in text_string_to_metric_families(await admin(node, "GET", "/metrics"))}

    def samples(name: str) -> dict[tuple[str, ...], float]:
        return {tuple(each.labels.values()): each.value for each in families[name].samples}

    assert samples("minidist_requests")[()] == 9
    assert samples("minidist_responses")[("2xx",)] == 9
    assert samples("minidist_upstream_requests")[(upstream.name,)] == 9
    assert samples("minidist_balancer_events")[("retries",)] == 5
    assert samples("minidist_upstream_state")[("127.0.0.1:9", "ejected")] == 1
    count = next(each.value for each in families["minidist_request_seconds"].samples if each.name.endswith("_count"))
    assert count == 9


async def test_the_access_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    upstream = await world.upstream()
    client = await world.client(await world.balancer(upstream, access_log=True))
    with caplog.at_level("INFO", logger="minidist"):
        await client.ask(get("/shop?q=1"))
    (record,) = [each for each in caplog.records if each.message == "request"]
    fields = record.__dict__["fields"]
    assert fields.pop("ms") >= 0
    assert fields == {
        "client": "127.0.0.1", "method": "GET", "target": "/shop?q=1", "host": "shop.example", "status": 200,
        "bytes": len(OK), "upstream": upstream.name, "attempts": 1,
    }  # fmt: skip


async def test_draining_finishes_requests_and_refuses_new_clients(world: World) -> None:
    release = asyncio.Event()

    async def serve(turn: Turn) -> None:
        await release.wait()
        await turn.write(OK)

    upstream = await world.upstream(serve)
    node = await world.balancer(upstream)
    busy, idle = await world.client(node), await world.client(node)
    await busy.send(get() + get("/second"))
    await until(lambda: upstream.requests)
    draining = asyncio.create_task(node.drain())
    assert await idle.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        await world.client(node)
    release.set()
    answer = await busy.answer()
    assert (answer.status, answer.header("connection")) == (200, "close")
    assert await busy.rest() == b""
    await asyncio.wait_for(draining, 10)
    assert [seen.target for seen in upstream.requests] == ["/"]


async def open_tunnel(world: World) -> tuple[Balancer, Client]:
    async def echo(turn: Turn) -> bool:
        await turn.write(b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        while data := await turn.reader.read(65536):
            await turn.write(data)
        return True

    node = await world.balancer(await world.upstream(echo))
    client = await world.client(node)
    await client.send(get("/chat", "Connection: upgrade", "Upgrade: websocket"))
    await client.reader.readuntil(b"\r\n\r\n")
    return node, client


async def test_draining_leaves_tunnels_open_until_they_end(world: World) -> None:
    """Nobody here can say goodbye in a tunnel's own words, so it is waited for, as HAProxy and nginx do."""
    node, client = await open_tunnel(world)
    draining = asyncio.create_task(node.drain(timeout_s=60))
    await until(lambda: not node.listeners["http"].accepting)
    for _ in range(3):
        await client.send(b"still here")
        assert await client.reader.readexactly(10) == b"still here"
    assert not draining.done()
    client.writer.write_eof()
    assert await client.rest() == b""
    await asyncio.wait_for(draining, 10)


async def test_a_tunnel_is_cut_when_the_time_to_drain_is_over(world: World) -> None:
    node, client = await open_tunnel(world)
    await asyncio.wait_for(node.drain(timeout_s=0.01), 10)
    assert await client.rest() == b""
    await until(lambda: not node.listeners["http"].connections)


async def test_reset_restores_upstreams_and_counters(world: World) -> None:
    first, second = await world.upstream(), await world.upstream()
    node = await world.balancer(first)
    client = await world.client(node)
    await client.ask(get())
    await admin(node, "POST", "/upstreams", {"add": second.name})
    await admin(node, "POST", "/upstreams", {"drain": first.name})
    await admin(node, "POST", "/reset")
    (only,) = (await admin(node, "GET", "/upstreams"))["upstreams"]
    assert (only["name"], only["state"], only["requests"]) == (first.name, "unknown", 0)
    assert (await admin(node, "GET", "/status"))["figures"]["requests_total"] == 0
    assert (await client.ask(get())).status == 200, "connections stay"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"upstream": "nonsense"}, "--upstream"),
        ({"upstream": "127.0.0.1:1=0"}, "--upstream"),
        ({"upstream": "127.0.0.1:1=1000"}, "--upstream"),
        ({"check": "healthz"}, "--check"),
        ({"check_expect": "ok"}, "--check-expect"),
        ({"balance": "random"}, "balance"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        from_table(BalancerConfig, options)
    assert refused.value.option == named


def test_upstreams_may_be_written_as_urls() -> None:
    config = from_table(BalancerConfig, {"upstream": "http://127.0.0.1:80/,localhost:81=7"})
    assert config.upstreams() == [("127.0.0.1:80", 1), ("localhost:81", 7)]


# --- The halves apart -----------------------------------------------------------------------------------------------


class Wire:
    """Joins a control half and data halves that share nothing: every message is packed, and arrives later."""

    def __init__(self, control: Balancer, workers: dict[int, Balancer]) -> None:
        self.control = control
        self.workers = workers
        self.messages: list[Message] = []

    def carry(self, message: Message) -> Message:
        unpacked: Message = msgpack.unpackb(msgpack.packb(message))
        assert unpacked == json.loads(json.dumps(message)), "plain data only"
        self.messages.append(unpacked)
        return unpacked


class ControlLink:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def decide(self, decision: Message) -> None:
        for worker in self.wire.workers.values():
            asyncio.get_running_loop().call_soon(worker.decided, self.wire.carry(decision))

    def report(self, report: Message) -> None:
        raise AssertionError("the control half does not report")


class DataLink:
    def __init__(self, wire: Wire, index: int) -> None:
        self.wire = wire
        self.index = index

    def decide(self, decision: Message) -> None:
        raise AssertionError("a data half does not decide")

    def report(self, report: Message) -> None:
        asyncio.get_running_loop().call_soon(self.wire.control.reported, self.index, self.wire.carry(report))


async def apart(
    world: World, *upstreams: Upstream, workers: int = 2, **options: Any
) -> tuple[Balancer, list[Balancer]]:
    """A control half and some data halves, as workers have them."""
    table = {"listen": "127.0.0.1:0", "upstream": [each.name for each in upstreams], "check": "off"} | options
    config = from_table(BalancerConfig, table)
    control = Balancer(config, real_ports("", seed=1), Halves.CONTROL)
    halves = {index: Balancer(config, real_ports("", seed=index), Halves.DATA) for index in range(1, workers + 1)}
    wire = Wire(control, halves)
    control.link = ControlLink(wire)
    await control.open_control()
    world.stack.push_async_callback(control.close_all)
    for index, worker in halves.items():
        worker.link = DataLink(wire, index)
        for decision in control.standing_decisions():
            worker.decided(wire.carry(decision))
        world.stack.push_async_callback(worker.stop)
        await worker.start()
    return control, list(halves.values())


async def test_health_is_decided_once_for_all_workers(world: World) -> None:
    """Failures that two workers see add up, and both stop using the upstream."""

    async def serve(turn: Turn) -> bool:
        return True

    bad, good = await world.upstream(serve), await world.upstream()
    control, workers = await apart(world, bad, good, eject_after=4)
    clients = [await world.client(worker) for worker in workers]
    for _ in range(2):
        for client in clients:
            for _ in range(2):
                assert (await client.ask(get())).status == 200
    assert len(bad.requests) == 4
    for worker in workers:
        await until(lambda worker=worker: states(worker) == ["ejected", "unknown"])
    assert changes(control)[-1] == "unknown>ejected"


async def test_a_success_at_one_worker_ends_the_row_of_another(world: World) -> None:
    async def serve(turn: Turn) -> bool:
        if turn.seen.target == "/good":
            await turn.write(OK)
        return turn.seen.target != "/good"

    upstream = await world.upstream(serve)
    control, workers = await apart(world, upstream, await world.upstream(), eject_after=3, retries=0)
    clients = [await world.client(worker) for worker in workers]
    for _ in range(4):
        for _ in range(2):
            await clients[0].ask(get("/bad"))
        await until(lambda: workers[1].data.upstreams.members[upstream.name].suspect)
        for _ in range(2):
            await clients[1].ask(get("/good"))
        await until(lambda: not workers[0].data.upstreams.members[upstream.name].suspect)
    assert changes(control) == [">unknown", ">unknown"]


async def test_checks_run_once_whatever_the_number_of_workers(world: World) -> None:
    upstream = await world.upstream(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    _, workers = await apart(world, upstream, workers=3, check="/", check_interval="1h")
    for worker in workers:
        await until(lambda worker=worker: states(worker) == ["up"])
    assert upstream.connections == 1


async def test_figures_are_of_all_workers(world: World) -> None:
    upstream = await world.upstream()
    control, workers = await apart(world, upstream)
    for worker in workers:
        client = await world.client(worker)
        for _ in range(3):
            await client.ask(get())

    def total() -> Any:
        return control.control.listed()["upstreams"][0]["requests"]

    await until(lambda: total() == 6)
    assert control.control.listed()["upstreams"][0]["connections"] == 2


# --- Faults ---------------------------------------------------------------------------------------------------------


async def test_a_fault_answers_in_place_of_the_upstream(world: World) -> None:
    upstream = await world.upstream()
    node = await world.balancer(upstream)
    client = await world.client(node)
    await admin(node, "POST", "/faults", {"kind": "reply", "match": "GET /shop", "error": "429 slow down", "times": 2})
    statuses = [(await client.ask(get(target))).status for target in ("/shop", "/", "/shop", "/shop")]
    assert statuses == [429, 200, 429, 200]
    assert [seen.target for seen in upstream.requests] == ["/", "/shop"]


async def test_a_fault_answers_pipelined_requests_in_their_order(world: World) -> None:
    async def echo(turn: Turn) -> None:
        await asyncio.sleep(0)
        body = turn.seen.target.encode()
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    node = await world.balancer(await world.upstream(echo))
    client = await world.client(node)
    await admin(node, "POST", "/faults", {"kind": "reply", "match": "GET /x", "error": "busy"})
    targets = ["/a", "/b", "/x", "/c", "/x", "/x", "/d", "/x"]
    for _ in range(3):
        await client.send(b"".join(get(target) for target in targets))
        answers = [await client.answer() for _ in targets]
        assert [answer.body.decode() for answer in answers] == [
            "busy\n" if target == "/x" else target for target in targets
        ]
