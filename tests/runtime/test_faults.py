"""Faults in a listener, seen by a client over real sockets."""

import asyncio
import time

import pytest

from minidist.runtime.config import Address
from minidist.runtime.connection import Connection
from minidist.runtime.endpoint import DialError
from minidist.runtime.faults import FaultError
from minidist.runtime.faults.spec import read_fault


def events_of(node, name):
    return [event["detail"] for event in node.events.since() if event["event"] == name]


async def held(node, awaitable):
    """The task of something that a fault holds up: it is not done when the fault has fired for it."""
    fired = len(events_of(node, "fault-fired"))
    task = asyncio.ensure_future(awaitable)
    while len(events_of(node, "fault-fired")) == fired:
        await asyncio.sleep(0.001)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_without_a_fault_the_connection_sits_on_the_loops_transport(start_node, connect):
    node = await start_node()
    client = await connect(node)
    assert await client.ask("a") == "A"
    (connection,) = node.listeners["line"].connections
    fault = node.faults.add({"kind": "delay", "ms": 1})
    assert type(connection.transport).__name__ == "Shim"
    assert await client.ask("b") == "B"
    node.faults.remove(fault)
    assert await client.ask("c") == "C"
    assert type(connection.transport).__name__ != "Shim"


async def test_delay_holds_bytes_back_and_keeps_their_order(start_node, connect):
    node = await start_node()
    client = await connect(node)
    node.faults.add({"kind": "delay", "ms": 30, "jitter_ms": 20, "direction": "in"})
    started = time.monotonic()
    lines = [f"line {number}" for number in range(50)]
    for line in lines:
        client.writer.write(line.encode() + b"\n")
        await asyncio.sleep(0)
    assert [await client.line() for _ in lines] == [line.upper() for line in lines]
    assert time.monotonic() - started >= 0.01


async def test_partition_holds_both_directions_until_it_heals(start_node, connect):
    node = await start_node()
    client = await connect(node)
    assert await client.ask("before") == "BEFORE"
    fault = node.faults.add({"kind": "partition"})
    answer = await held(node, client.ask("during"))
    late = await connect(node)
    late_answer = await held(node, late.ask("late"))
    assert node.faults.remove(fault)
    assert await answer == "DURING"
    assert await late_answer == "LATE"


async def test_one_way_partition_lets_the_request_through(start_node, connect, eventually):
    node = await start_node()
    client = await connect(node)
    fault = node.faults.add({"kind": "partition", "direction": "out"})
    answer = await held(node, client.ask("name x"))
    (connection,) = node.listeners["line"].connections
    assert connection.peer_name == "x"
    node.faults.remove(fault)
    assert await answer == "NAME X"


async def test_a_partitioned_node_does_not_learn_that_its_peer_has_gone(start_node, connect, eventually):
    node = await start_node()
    client = await connect(node)
    await client.ask("hello")
    fault = node.faults.add({"kind": "partition"})
    (connection,) = node.listeners["line"].connections
    client.writer.close()
    await eventually(lambda: bool(connection.transport.incoming.queue))
    assert len(node.listeners["line"].connections) == 1
    node.faults.remove(fault)
    await eventually(lambda: not node.listeners["line"].connections)


async def test_faults_choose_by_the_name_a_client_gives(start_node, connect):
    node = await start_node()
    alice, bob = await connect(node), await connect(node)
    await alice.ask("name client:alice")
    await bob.ask("name client:bob")
    node.faults.add({"kind": "partition", "peer": "client:alice"})
    assert await bob.ask("hello") == "HELLO"
    task = await held(node, alice.ask("hello"))
    node.faults.clear()
    assert await task == "HELLO"


async def test_a_client_that_gets_its_name_later_comes_under_the_fault(start_node, connect):
    node = await start_node()
    client = await connect(node)
    node.faults.add({"kind": "delay", "ms": 5, "peer": "client:slow"})
    await client.ask("x")
    assert events_of(node, "fault-fired") == []
    await client.ask("name client:slow")
    await client.ask("y")
    assert events_of(node, "fault-fired")


async def test_faults_recognise_a_process_by_its_group(start_node, connect):
    import os

    node = await start_node()
    client = await connect(node)
    node.faults.add({"kind": "partition", "peer": {"name": "web-1", "pgids": [os.getpgid(0)]}})
    task = await held(node, client.ask("hello"))
    node.faults.clear()
    assert await task == "HELLO"
    node.faults.add({"kind": "partition", "peer": {"name": "web-2", "pgids": [1]}})
    assert await client.ask("again") == "AGAIN"


async def test_reply_answers_chosen_requests_in_their_place(start_node, connect, eventually):
    node = await start_node()
    client = await connect(node)
    node.faults.add({"kind": "reply", "match": "GET", "key": "a*", "error": "busy", "times": 2})
    client.writer.write(b"get a1\nset a1\nget b\nget a2\nget a3\n")
    assert [await client.line() for _ in range(5)] == ["!busy", "SET A1", "GET B", "!busy", "GET A3"]
    await eventually(lambda: node.faults.listed() == [])
    assert [detail["fired"] for detail in events_of(node, "fault-fired")] == [1, 2]
    assert events_of(node, "fault-ended")


async def test_reply_waits_for_the_end_of_a_request_in_pieces(start_node, connect):
    node = await start_node()
    client = await connect(node)
    node.faults.add({"kind": "reply", "match": "get", "error": "busy"})
    (connection,) = node.listeners["line"].connections
    for byte in b"get a\nset b\n":
        connection.transport.data_received(bytes([byte]))
    assert [await client.line(), await client.line()] == ["!busy", "SET B"]


async def test_half_a_request_is_not_lost_when_the_fault_ends(start_node, connect, eventually):
    node = await start_node()
    client = await connect(node)
    fault = node.faults.add({"kind": "reply", "match": "get", "error": "busy"})
    client.writer.write(b"put so")
    (connection,) = node.listeners["line"].connections
    await eventually(lambda: connection.transport._requests == b"put so")
    node.faults.remove(fault)
    client.writer.write(b"me\n")
    assert await client.line() == "PUT SOME"


async def test_reset_after_bytes(start_node, connect):
    node = await start_node()
    client = await connect(node)
    node.faults.add({"kind": "reset", "after_bytes": 10, "direction": "in"})
    assert await client.ask("123") == "123"
    with pytest.raises(ConnectionResetError):
        await client.ask("456789abc")
        await client.line()


async def test_refuse_refuses_in_the_kernel_and_ends(start_node, connect, eventually):
    node = await start_node(reuse_port=True)
    client = await connect(node)
    fault = node.faults.add({"kind": "refuse"})
    assert not node.listeners["line"].accepting
    with pytest.raises(ConnectionRefusedError):
        await connect(node)
    assert await client.ask("still here") == "STILL HERE"
    node.faults.remove(fault)
    await eventually(lambda: node.listeners["line"].accepting)
    assert await (await connect(node)).ask("new") == "NEW"


async def test_refuse_twice_then_fine(start_node, connect):
    node = await start_node()
    node.faults.add({"kind": "refuse", "times": 2})
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            await (await connect(node)).ask("x")
    assert await (await connect(node)).ask("x") == "X"


async def test_hang_accepts_and_says_nothing(start_node, connect):
    node = await start_node()
    node.faults.add({"kind": "hang", "duration": "100ms"})
    client = await connect(node)
    task = await held(node, client.ask("x"))
    assert await task == "X"  # the fault's duration is over


async def test_bandwidth_is_kept(start_node, connect):
    node = await start_node()
    client = await connect(node)
    node.faults.add({"kind": "bandwidth", "bytes_per_s": 100_000, "direction": "in"})
    started = time.monotonic()
    assert await client.ask("x" * 20_000) == "X" * 20_000
    assert time.monotonic() - started >= 0.19


async def test_a_writer_faster_than_the_fault_meets_back_pressure(start_node, connect, eventually):
    node = await start_node()
    client = await connect(node)
    fault = node.faults.add({"kind": "partition", "direction": "in"})
    payload = b"y" * (1 << 20) + b"\n"
    for _ in range(40):
        client.writer.write(payload)
    (connection,) = node.listeners["line"].connections
    await eventually(lambda: connection.transport.incoming.size > 1 << 20)
    assert connection.transport.incoming.size < 4 << 20
    node.faults.remove(fault)
    for _ in range(40):
        assert len(await client.reader.readexactly(len(payload))) == len(payload)


async def test_dials_are_refused_or_hang(start_node):
    node = await start_node()
    dialler = node.dialler("test")
    target = node.address
    refuse = node.faults.add({"kind": "refuse", "peer": "web-1"})
    with pytest.raises(DialError, match="refused"):
        await dialler.dial(target, Connection, timeout_s=5, peer_name="web-1")
    (await dialler.dial(target, Connection, timeout_s=5, peer_name="web-2")).close()
    node.faults.remove(refuse)
    node.faults.add({"kind": "partition", "peer": str(target)})
    with pytest.raises(DialError):
        await dialler.dial(Address(target.host, target.port), Connection, timeout_s=0.01)


async def test_same_seed_same_choices(start_node, connect):
    outcomes = []
    for _ in range(2):
        node = await start_node()
        client = await connect(node)
        node.faults.add({"kind": "reply", "error": "no", "probability": 0.5, "seed": 42})
        outcomes.append([await client.ask(f"n{number}") for number in range(30)])
    assert outcomes[0] == outcomes[1]
    assert 0 < outcomes[0].count("!no") < 30


async def test_clock_fault_moves_service_time(start_node):
    node = await start_node()
    fired = []
    node.clock.call_later(3_600_000, lambda: fired.append(1))
    node.faults.add({"kind": "clock", "by": "1h"})
    assert fired == [1]
    assert node.clock.offset_ms == 3_600_000


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ({"kind": "fire"}, "kind"),
        ({"kind": "delay"}, "ms"),
        ({"kind": "delay", "ms": -1}, "ms"),
        ({"kind": "delay", "ms": "abc"}, "ms"),
        ({"kind": "delay", "ms": True}, "ms"),
        ({"kind": "delay", "ms": 1, "bytes_per_s": 5}, "bytes_per_s"),
        ({"kind": "partition", "direction": "up"}, "direction"),
        ({"kind": "partition", "probability": 2}, "probability"),
        ({"kind": "partition", "duration": "5 parsecs"}, "duration"),
        ({"kind": "partition", "peer": 5}, "peer"),
        ({"kind": "clock"}, "by"),
        ({"kind": "disk", "what": "melt"}, "what"),
        ({"kind": "reply"}, "error"),
    ],
)
def test_what_cannot_be_taken_is_named(spec, key):
    with pytest.raises(FaultError, match=f"^{key}: given .*, allowed: "):
        read_fault(spec, "f1")


async def test_a_disk_fault_needs_a_disk(start_node):
    node = await start_node()
    with pytest.raises(FaultError, match="keeps data on disk"):
        node.faults.add({"kind": "disk", "what": "slow", "ms": 5})
