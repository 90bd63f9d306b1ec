"""Faults on simulated hosts, random schedules, links between regions, what a capture keeps."""

import asyncio
import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from minidist.cluster import demo
from minidist.cluster.topology import Group, parse
from minidist.engines.checking import Budget, check
from minidist.engines.checking.history import read
from minidist.engines.checking.verdict import Judgement
from minidist.runtime.config import Address, ClusterConfig, Config, option
from minidist.runtime.disk.port import DiskFull
from minidist.runtime.disk.recordlog import RecordLog
from minidist.runtime.faults.spec import FaultError
from minidist.runtime.node import Node
from minidist.sim.cluster import LAUNCHER, SimCluster
from minidist.sim.faults import CLIENTS, KINDS, Schedule
from minidist.sim.record import History
from minidist.sim.run import Ending, Settings, run_seed
from minidist.sim.simulation import LAST_WORDS_S
from minidist.sim.summary import summary
from minidist.sim.swarm import MIN_FAULTS, draw
from minidist.sim.world import World
from minidist.wire.frames import Encoder, Kind

DEMO = Path(demo.__file__).with_name("minidist.toml")

REGIONS = """
[groups.web]
entry = "minidist.cluster.demo.web:main"
env = { CACHE_URL = "{cache.url}" }

[groups.cache]
component = "cache"

[regions]
eu = ["web-1"]
us = ["cache-1"]

[[links]]
between = ["eu", "us"]
latency_ms = 40
"""


@pytest.fixture
def cluster():
    with World(1) as world:
        cluster = SimCluster(world)
        cluster.add(parse(DEMO.read_text(), file=str(DEMO), directory_name="demo"))
        yield cluster


@dataclass(frozen=True, kw_only=True)
class JournalConfig(Config):
    component = "journal"

    listen: Address = option(Address("127.0.0.1", 7000), "Nobody.")


class Journal(Node):
    """A node with a record log."""

    config_type = JournalConfig

    async def open_data(self):
        disk = await self.ports.open_disk()
        self.journal = await RecordLog.open(disk, "journal", rng=self.random)


def kinds(scenario, **settings):
    outcome = run_seed(scenario, 1, Settings(**settings))
    assert (outcome.ending, outcome.problems) == (Ending.OK, [])
    return outcome.faults


# --- schedules ------------------------------------------------------------------------------------------------------


def test_a_schedule_is_drawn_from_its_seed_alone(cluster):
    first, second, other = (draw(cluster, random.Random(seed), 60.0) for seed in (7, 7, 8))
    assert first == second != other
    assert len(first) >= MIN_FAULTS


def test_schedules_name_what_there_is_and_end_in_time(cluster):
    for seed in range(100):
        specs = draw(cluster, random.Random(seed), 60.0)
        assert Schedule(cluster).declare(specs)
        assert all(spec["at"] + spec["duration"] <= 60_000 for spec in specs if spec["kind"] != "disk")
        assert len({spec["kind"] for spec in specs}) >= 3
        assert {spec["kind"] for spec in specs} <= set(KINDS)


def test_partners_are_those_who_talk_to_each_other(cluster):
    pairs = set()
    for seed in range(200):
        for spec in draw(cluster, random.Random(seed), 60.0):
            if "peer" in spec:
                pairs.add(tuple(sorted((spec["on"], spec["peer"]))))
    assert ("edge-1", "web-1") in pairs
    assert ("cache-1", CLIENTS) in pairs
    assert ("web-1", "web-2") not in pairs


@dataclass(frozen=True, kw_only=True)
class VoterConfig(ClusterConfig):
    component = "voter"

    listen: Address = option(Address("127.0.0.1", 7000), "Nobody.")


class Voter(Node):
    """One of a group of peers."""

    config_type = VoterConfig


def test_partitions_split_a_group_of_peers():
    with World(1) as world:
        cluster = SimCluster(world)
        cluster.add_group(Group("voter", "voter", replicas=5), kind=Voter)
        drawn = [spec for seed in range(50) for spec in draw(cluster, random.Random(seed), 60.0)]
        splits = [spec["sides"] for spec in drawn if "sides" in spec]
        assert Schedule(cluster).declare(drawn)
    sizes = {tuple(sorted(sum(name != CLIENTS for name in side) for side in sides)) for sides in splits}
    assert sizes == {(1, 4), (2, 3)}
    assert {CLIENTS in few for few, _ in splits} == {False}
    assert {CLIENTS in many for _, many in splits} == {True, False}
    assert any(spec["kind"] == "partition" and "sides" not in spec for spec in drawn)


def test_nodes_that_do_not_talk_to_each_other_are_not_split(cluster):
    assert not any("sides" in spec for seed in range(50) for spec in draw(cluster, random.Random(seed), 60.0))


def test_what_a_scenario_cannot_use_is_not_drawn(cluster):
    for seed in range(50):
        specs = draw(cluster, random.Random(seed), 60.0, without=("reply", "kill"))
        assert {spec["kind"] for spec in specs}.isdisjoint({"reply", "kill"})


def test_the_wrong_fault_of_a_list_is_named(cluster):
    with pytest.raises(FaultError, match=r"faults\[1\]: on: given 'moon', allowed: one of web, edge, cache"):
        Schedule(cluster).declare([{"kind": "pause", "on": "web"}, {"kind": "pause", "on": "moon"}])


# --- their effects --------------------------------------------------------------------------------------------------


async def ask(node, line=b"PING\r\n", timeout_s=1.0):
    """One answer over a new connection, and how long it took."""
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(node.host, node.port)
        try:
            writer.write(line)
            answer = await reader.readline()
        finally:
            writer.close()
    return answer, asyncio.get_running_loop().time() - began


def test_a_delay_a_limit_and_a_times():
    async def scenario(sim):
        cache = await sim.cache()
        with cache.faults.delay(ms=100):
            _, took_s = await ask(cache)
            assert 0.2 <= took_s < 0.5
        once = cache.faults.reply(error="ERR once", times=1)
        assert (await ask(cache))[0] == b"-ERR once\r\n"
        assert (await ask(cache))[0] == b"+PONG\r\n"
        assert once.fired == 1
        cache.faults.delay(ms=100, times=2)
        assert (await ask(cache))[1] >= 0.1
        assert (await ask(cache))[1] < 0.1

    assert kinds(scenario) == {"delay": 2, "reply": 1}  # faults, not the messages they delayed


def test_one_way_and_sides():
    async def scenario(sim):
        cache = await sim.cache()
        with sim.partition([cache], ["test"], one_way=True), pytest.raises(TimeoutError):
            await ask(cache)
        assert (await ask(cache))[0] == b"+PONG\r\n"
        sim.schedule.set({"kind": "partition", "sides": "cache | clients", "duration": "2s"})
        with pytest.raises(TimeoutError):
            await ask(cache)
        await sim.until(lambda: sim.now_s > 5)
        assert (await ask(cache))[0] == b"+PONG\r\n"

    assert kinds(scenario) == {"partition": 2}


def test_what_a_refusing_node_never_sees_counts():
    """It has closed its listener: the kernel refuses. A client that has its connection already is not concerned."""

    async def scenario(sim):
        cache = await sim.cache()
        with cache.faults.refuse() as fault:
            assert fault.fired == 0
            for count in (1, 2):
                with pytest.raises(ConnectionRefusedError):
                    await ask(cache)
                assert fault.fired == count
        await cache.wait_ready()
        await ask(cache)
        await cache.stop()
        with pytest.raises(ConnectionRefusedError):
            await ask(cache)
        assert fault.fired == 2

    assert kinds(scenario) == {"refuse": 1}


def test_what_is_not_even_tried_on_a_full_disk_counts_and_so_does_what_a_power_loss_takes():
    async def scenario(sim):
        store = await sim.node(Journal)
        with store.faults.disk(what="full") as full:
            with pytest.raises(DiskFull):
                store.node.journal.append(b"refused")
            assert full.fired == 1
        with store.faults.disk(what="lost-unsynced") as lost:
            store.kill(power=True)
            assert lost.fired == 1

    assert kinds(scenario) == {"disk": 2}


def test_random_faults_go_on_when_too_few_took_effect(monkeypatch):
    """Of what is drawn here, only the second time something takes effect."""
    pauses = [{"kind": "pause", "on": "cache", "at": f"{at_s}s", "duration": "1s"} for at_s in (1, 3, 5)]
    clock = {"kind": "clock", "on": "cache", "by": "1s", "at": "7s"}
    rounds = iter([[{"kind": "refuse", "on": "cache", "at": "1s", "duration": "1s"}], [*pauses, clock]])
    monkeypatch.setattr("minidist.sim.simulation.draw", lambda *given, **options: next(rounds))

    async def scenario(sim):
        await sim.cache()
        began_s = sim.now_s
        await sim.trial(duration_s=10)
        assert sim.now_s - began_s == pytest.approx(2 * 10 + LAST_WORDS_S, abs=0.1)

    assert kinds(scenario, faults="random") == {"pause": 3, "clock": 1}


def test_the_launcher_looks_on_from_outside():
    async def scenario(sim):
        cache = await sim.cache()
        with cache.faults.partition():
            await cache.wait_ready()
        assert LAUNCHER in sim.world.hosts

    assert kinds(scenario) == {}


def test_a_clock_jumps_and_drifts():
    async def scenario(sim):
        cache = await sim.cache()
        await ask(cache, b"SET key 1 PX 60000\r\n")
        cache.faults.clock(by="2m")
        assert (await ask(cache, b"GET key\r\n"))[0] == b"$-1\r\n"
        with cache.faults.clock(rate=2.0):
            before, began_s = cache.node.clock.now_ms(), sim.now_s
            await asyncio.sleep(10)
            elapsed_ms = cache.node.clock.now_ms() - before
            assert elapsed_ms == pytest.approx(2000 * (sim.now_s - began_s), rel=0.01)

    assert kinds(scenario) == {"clock": 2}


def test_links_between_regions_are_delays(tmp_path):
    file = tmp_path / "minidist.toml"
    file.write_text(REGIONS)

    async def scenario(sim):
        cluster = await sim.up(file)
        _, took_s = await ask(cluster["web"], b"GET /product/1 HTTP/1.1\r\n\r\n")
        assert took_s > 0.16  # GET and SET, there and back
        sim.heal(everything=True)
        assert (await ask(cluster["web"], b"GET /product/1 HTTP/1.1\r\n\r\n"))[1] > 0.08

    assert kinds(scenario) == {}


# --- what is kept for people ----------------------------------------------------------------------------------------


def test_what_hosts_say_is_kept_with_them():
    async def chatty(env):
        print("hello from", env["MINIDIST_NODE"])
        await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", int(env["PORT"]))
        await asyncio.get_running_loop().create_future()

    async def scenario(sim):
        await sim.program(chatty, replicas=2)
        await sim.cache()

    outcome = run_seed(scenario, 1, Settings(keep=True))
    assert outcome.kept.logs["program-2"] == ["hello from program-2"]
    assert any("running" in line for line in outcome.kept.logs["cache-1"])
    assert "CPython 3." in outcome.kept.header


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n5\r\n", "SET k 5"),
        (b"+OK\r\n$-1\r\n:3\r\n", "OK; nil; 3"),
        (b"-ERR no\r\n", "-ERR no"),
        (b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 OK  hi"),
        (Encoder().encode(Kind.SEND, "raft.append", {"term": 3}), "SEND raft.append term=3"),
        (b"plain words\n", "plain words"),
        (b"GET c0\n", "GET c0"),
        (b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n", "server=redis proto=3"),
        (b"\x00\x01\x02", "3 bytes"),
    ],
)
def test_bytes_in_a_few_words(data, text):
    assert summary(data) == text


def test_an_outcome_says_what_was_too_little():
    async def scenario(sim):
        await asyncio.sleep(1)

    outcome = run_seed(scenario, 1)
    assert len(outcome.shortfalls()) == 6
    assert json.dumps(outcome.to_json())


def test_what_something_other_than_a_client_did_happened_then_and_only_then():
    """A cache that crashed forgot a key; that excuses no other value, and no later loss."""
    with World(1) as world:
        history = History(world)
        process = history.process("client")

        def write(value):
            history.ok(history.invoke(process, "write", "k", value))

        def sees(value):
            history.ok(history.invoke(process, "read", "k"), value)

        write(1)
        history.happened("write", "k", None, "cache-1")
        sees(None)
        assert judged(history) is Judgement.HOLDS
        write(2)
        sees(None)
        assert judged(history) is Judgement.VIOLATED


def judged(history):
    return check(read(history.lines), "register", Budget()).judgement
