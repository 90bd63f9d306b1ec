"""One node as several processes: the port, restarts, faults, clock, limits and figures of the whole."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from minidist.runtime.admin_client import call
from minidist.runtime.config import Address
from minidist.runtime.endpoint import ListenError
from minidist.runtime.faults import FaultError
from minidist.runtime.workers import Workers


@pytest.fixture(params=["own sockets", "shared socket"])
def sharing(request, monkeypatch):
    """As on Linux, and as elsewhere."""
    monkeypatch.setattr("minidist.runtime.workers.SHARES_BY_PORT", request.param == "own sockets")
    monkeypatch.setattr(Workers.__init__, "__kwdefaults__", {"shares_by_port": request.param == "own sockets"})
    return request.param


def events_of(node, name):
    return [event["detail"] for event in node.events.since() if event["event"] == name]


def pids(node):
    return [process.pid for process in node.workers.processes.values() if process.returncode is None]


async def one_client_each(node, connect):
    """A client of every worker."""
    clients = {}
    while len(clients) < node.workers.count:
        client = await connect(node)
        clients[int(await client.ask("pid"))] = client
    return list(clients.values())


async def test_ready_when_all_listen_and_connections_spread(start_node, connect, sharing):
    node = await start_node(workers=3)
    clients = await one_client_each(node, connect)
    assert sorted([int(await client.ask("pid")) for client in clients]) == sorted(pids(node))
    line = node.ready_line()
    assert line["address"] == line["listeners"]["line"] == str(node.address)
    assert line["pid"] == os.getpid()
    status = await call(node.admin.address, "GET", "/status")
    assert [each["worker"] for each in status["workers"]] == [1, 2, 3]
    assert sorted(each["pid"] for each in status["workers"]) == sorted(pids(node))


async def test_decisions_reach_all_and_reports_come_back(start_node, connect, eventually):
    node = await start_node(workers=2, greeting="hello")
    clients = await one_client_each(node, connect)
    assert [await client.ask("decided") for client in clients] == ["hello", "hello"]
    assert await clients[0].ask("report news") == "REPORT NEWS"
    await eventually(lambda: len(node.reports) == 1)
    while [await client.ask("decided") for client in clients] != ["news", "news"]:
        await asyncio.sleep(0.001)
    assert await call(node.admin.address, "GET", "/reports") == [[node.reports[0][0], "news"]]


async def test_a_killed_worker_comes_back_with_everything_as_it_is(start_node, connect, eventually, sharing):
    node = await start_node(workers=2, greeting="first")
    admin = node.admin.address
    await call(admin, "POST", "/clock", {"advance": "1h"})
    await call(admin, "POST", "/faults", {"kind": "reply", "match": "get", "error": "no"})
    node.say("second")
    victim = pids(node)[0]
    os.kill(victim, signal.SIGKILL)
    # What changes while it is away, or starts, it learns as well.
    await eventually(lambda: bool(events_of(node, "worker-died")))
    await eventually(lambda: len(node.workers.channels) == 2)
    assert len(node.workers._started) == 1
    node.say("third")
    await call(admin, "POST", "/clock", {"advance": "1h"})
    await call(admin, "POST", "/faults", {"kind": "reply", "match": "put", "error": "no more"})
    await eventually(lambda: bool(events_of(node, "worker-started")))
    assert events_of(node, "worker-died") == [{"worker": 1, "exit": -signal.SIGKILL}]
    clients = await one_client_each(node, connect)
    assert [await client.ask("decided") for client in clients] == ["third", "third"]
    assert [await client.ask("get x") for client in clients] == ["!no", "!no"]
    assert [await client.ask("put x") for client in clients] == ["!no more", "!no more"]
    for client in clients:
        assert abs(int(await client.ask("clock")) - node.clock.now_ms()) < 5_000
    assert node.clock.offset_ms == 7_200_000
    assert "minidist_worker_restarts_total 1\n" in await call(admin, "GET", "/metrics")


async def test_totals_outlive_workers(start_node, connect, eventually):
    node = await start_node(workers=2)
    admin = node.admin.address

    async def lines():
        metrics = await call(admin, "GET", "/metrics")
        return int(re.search(r"^minidist_lines_total (\d+)$", metrics, re.M)[1])

    for client in await one_client_each(node, connect):
        await client.ask("one")
    before = await lines()
    status = await call(admin, "GET", "/status")
    for rounds in (1, 2):
        os.kill(pids(node)[0], signal.SIGKILL)
        await eventually(lambda rounds=rounds: len(events_of(node, "worker-started")) == rounds)
        assert await lines() == before
        assert (await call(admin, "GET", "/status"))["figures"] == status["figures"]
    await call(admin, "POST", "/reset")
    assert await lines() == 0


async def test_faults_clock_and_reset_have_reached_all_when_the_call_returns(start_node, connect):
    node = await start_node(workers=2)
    admin = node.admin.address
    clients = await one_client_each(node, connect)
    for _ in range(5):
        fault = (await call(admin, "POST", "/faults", {"kind": "reply", "match": "get", "error": "no"}))["id"]
        assert [await client.ask("get") for client in clients] == ["!no", "!no"]
        assert await call(admin, "DELETE", f"/faults?id={fault}") == {"removed": [fault]}
        assert [await client.ask("get") for client in clients] == ["GET", "GET"]
        before = [int(await client.ask("clock")) for client in clients]
        await call(admin, "POST", "/clock", {"advance": "1h"})
        after = [int(await client.ask("clock")) for client in clients]
        assert all(new - old >= 3_600_000 for old, new in zip(before, after, strict=True))
        await call(admin, "POST", "/faults", {"kind": "reply", "error": "no"})
        await call(admin, "POST", "/reset")
        assert await call(admin, "GET", "/faults") == {"faults": []}
        now = [int(await client.ask("clock")) for client in clients]
        assert all(abs(each - node.clock.now_ms()) < 5_000 for each in now)
    assert node.clock.offset_ms == 0
    # One event each, from the node and not from every worker.
    assert len(events_of(node, "reset")) == 5
    assert len(events_of(node, "fault-started")) == len(events_of(node, "fault-ended")) == 10


async def test_the_clock_fault_drifts_all_workers(start_node, connect):
    node = await start_node(workers=2)
    (client, _) = await one_client_each(node, connect)
    fault = await node.add_fault({"kind": "clock", "by": "1h", "rate": 0})
    standing = await client.ask("clock")
    assert int(standing) - node.clock.wall() > 3_500_000
    assert await client.ask("clock") == standing
    await node.remove_fault(fault)
    assert node.clock.rate == 1.0
    while await client.ask("clock") == standing:
        await asyncio.sleep(0.001)


async def test_times_are_counted_over_all_workers(start_node, connect, eventually):
    node = await start_node(workers=2)
    clients = await one_client_each(node, connect)
    await node.add_fault({"kind": "reply", "error": "no", "times": 5})
    answers = [await client.ask("x") for _ in range(6) for client in clients]
    assert answers.count("!no") == 5
    await eventually(lambda: node.faults.listed() == [])
    assert events_of(node, "fault-ended")[-1]["fired"] == 5
    assert [detail["fired"] for detail in events_of(node, "fault-fired")] == [1, 2, 3, 4, 5]
    await node.add_fault({"kind": "delay", "ms": 0})
    for client in clients:
        await client.ask("x")
    (listed,) = (await call(node.admin.address, "GET", "/faults"))["faults"]
    assert listed["fired"] >= 4


async def test_a_restarted_worker_gets_what_is_left_of_times(start_node, connect, eventually):
    node = await start_node(workers=2)
    victim = node.workers.processes[1].pid
    client = await connect(node)
    while int(await client.ask("pid")) != victim:
        client = await connect(node)
    await node.add_fault({"kind": "reply", "error": "no", "times": 4})
    assert await client.ask("x") == "!no"
    os.kill(victim, signal.SIGKILL)
    await eventually(lambda: bool(events_of(node, "worker-started")))
    answers = []
    while node.faults.faults:
        client = await connect(node)
        answers += [await client.ask("x") for _ in range(3)]
    assert answers.count("!no") == 3


async def test_a_fault_that_a_worker_refuses_is_set_nowhere(start_node, connect):
    node = await start_node(workers=2)
    with pytest.raises(FaultError, match="kind: given 'disk', allowed: only on a node that keeps data on disk"):
        await node.add_fault({"kind": "disk", "what": "slow"})
    with pytest.raises(FaultError, match="ms: given nothing"):
        await node.add_fault({"kind": "delay"})
    assert await node.whole_faults() == []


async def test_at_and_duration_hold_for_all_workers(start_node, connect, eventually):
    node = await start_node(workers=2)
    clients = await one_client_each(node, connect)
    await node.add_fault({"kind": "reply", "error": "no", "at": "20ms", "duration": "50ms"})
    assert [fault["at_ms"] for fault in await node.whole_faults()] == [20]
    while [await client.ask("x") for client in clients] != ["!no", "!no"]:
        await asyncio.sleep(0)
    while [await client.ask("x") for client in clients] != ["X", "X"]:
        await asyncio.sleep(0)
    assert await node.whole_faults() == []


async def test_refuse_is_refused_by_every_worker(start_node, connect, sharing):
    node = await start_node(workers=2)
    fault = await node.add_fault({"kind": "refuse"})
    for _ in range(10):
        with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
            client = await connect(node)
            assert await client.ask("x") == ""
            raise ConnectionResetError
    await node.remove_fault(fault)
    answer = ""
    while answer != "X":
        try:
            answer = await (await connect(node)).ask("x")
        except ConnectionRefusedError:
            await asyncio.sleep(0.001)


async def test_metrics_and_figures_are_sums(start_node, connect):
    node = await start_node(workers=2)
    for client in await one_client_each(node, connect):
        await client.ask("x")
    status = await call(node.admin.address, "GET", "/status")
    lines = sum(each["figures"]["requests_total"] for each in status["workers"])
    assert status["figures"] == {"requests_total": lines, "p99_ms": 1.5}
    text = await call(node.admin.address, "GET", "/metrics")
    assert f"minidist_lines_total {lines}\n" in text
    assert "minidist_workers 2\n" in text
    assert 'minidist_info{component="line",version="0.1.0"} 1\n' in text


@pytest.mark.parametrize("total", [7, 64])
async def test_the_limit_on_clients_is_exact_over_all_workers(start_node, connect, sharing, total):
    node = await start_node(workers=3, max_clients=total)
    for _ in range(20):  # often: which worker is asked what it can spare, and when, differs each time
        clients = [await connect(node) for _ in range(total + 10)]
        answers = await asyncio.gather(*(client.ask("x") for client in clients))
        assert sorted(answers) == ["!too many"] * 10 + ["X"] * total
        for client in clients:
            client.writer.close()
        # Closed connections are counted until their worker has seen the end.
        while await count_of_clients(node):
            await asyncio.sleep(0.001)


async def count_of_clients(node):
    text = await call(node.admin.address, "GET", "/metrics")
    return int(next(line for line in text.splitlines() if line.startswith("minidist_connections{")).split()[-1])


async def test_many_at_once_when_one_worker_has_all_the_room(start_node, connect):
    node = await start_node(workers=2, max_clients=20)
    first = [await connect(node) for _ in range(20)]
    assert await asyncio.gather(*(client.ask("x") for client in first)) == ["X"] * 20
    for client in first[:10]:
        client.writer.close()
    while await count_of_clients(node) != 10:
        await asyncio.sleep(0.001)
    burst = await asyncio.gather(*(connect(node) for _ in range(15)))
    answers = await asyncio.gather(*(client.ask("y") for client in burst))
    assert sorted(answers) == ["!too many"] * 5 + ["Y"] * 10


async def test_draining_refuses_what_is_new_and_ends_what_is_idle(start_node, connect, sharing):
    node = await start_node(workers=2)
    clients = await one_client_each(node, connect)
    await call(node.admin.address, "POST", "/drain")
    assert [await client.line() for client in clients] == ["", ""]
    with pytest.raises(ConnectionRefusedError):
        await connect(node)


async def test_a_port_in_use_and_a_worker_that_does_not_start(start_node):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(ListenError, match=f"^cannot listen on {address}: Address already in use$"):
            await start_node(workers=2, listen=address)
    with pytest.raises(ListenError, match=r"^--greeting: given 'refuse to start', allowed: anything else$"):
        await start_node(workers=2, greeting="refuse to start")
    with pytest.raises(ListenError, match="workers share a TCP port"):
        await start_node(workers=2, listen=Address("", 0, "/tmp/x.sock"))


async def test_stopping_leaves_no_process(start_node):
    node = await start_node(workers=3)
    living = [*node.workers.processes.values()]
    await node.stop()
    assert [process.returncode for process in living] == [0, 0, 0]


DAEMON = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from line_server import LineServer
from minidist.runtime.daemon import main
sys.exit(main(LineServer, sys.argv[1:]))
"""


def daemon(*argv):
    here = os.path.dirname(__file__)
    process = subprocess.Popen(
        [sys.executable, "-c", DAEMON, here, "--listen", "127.0.0.1:0", *argv],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().startswith('{"event":"ready"')
    return process


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(each) for each in file.read().split()]


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_workers_end_with_a_parent_that_was_killed(eventually):
    process = daemon("--workers", "2")
    workers = children_of(process.pid)
    assert len(workers) == 2
    process.kill()
    process.wait()
    await eventually(lambda: not any(map(is_alive, workers)))
    process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_ctrl_c_at_the_terminal_drains_and_ends_in_order(eventually):
    process = daemon("--workers", "2")
    workers = children_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "worker-died" not in errors
    await eventually(lambda: not any(map(is_alive, workers)))
