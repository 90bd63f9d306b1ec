"""Links between live nodes, on asyncio and on uvloop: who meets whom, requests, deadlines, loss, streams, faults."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from minidist.runtime.config import Address
from minidist.runtime.peers import (
    LinkLost,
    NotConnected,
    PeerLimits,
    PeerTooSlow,
    RequestFailed,
    Stream,
    StreamReset,
    Timeout,
)
from minidist.runtime.peers.streams import WINDOW_BYTES
from minidist.wire.frames import FrameTooLarge

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


async def linked(cluster: Any, eventually: Eventually, names: str = "ab", **options: Any) -> Any:
    """A cluster whose nodes are all connected with each other."""
    c = await cluster(names, **options)
    await eventually(lambda: all(len(member.peers.links) == len(names) - 1 for member in c.members.values()))
    return c


# --- meeting --------------------------------------------------------------------------------------------------------


async def test_every_two_nodes_get_one_link(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually, "abc")
    for name, dials in (("a", {"b", "c"}), ("b", {"c"}), ("c", set())):
        assert {peer for peer, link in c[name].peers.links.items() if link.dials} == dials
        assert sorted(c[name].events) == sorted(f"{peer} up" for peer in "abc" if peer != name)
        others = [peer for peer in "abc" if peer != name]
        assert c[name].peers.status() == [
            {"name": peer, "address": str(c.addresses[peer]), "connected": True, "lag": None} for peer in others
        ]


async def test_client_addresses_travel_in_the_hello(cluster: Any, eventually: Eventually) -> None:
    c = await cluster("ab", start="a", client_addresses={"resp": "127.0.0.1:1"})
    await c.add("b", client_addresses={"resp": "127.0.0.1:2"})
    await eventually(lambda: c["a"].peers.connected("b") and c["b"].peers.connected("a"))
    assert c["a"].peers.addresses_of("b") == {"resp": "127.0.0.1:2"}
    assert c["b"].peers.addresses_of("a") == {"resp": "127.0.0.1:1"}
    assert c["a"].peers.addresses_of("c") == {}


async def test_when_both_dial_one_link_stays(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually, "abcd", dials=lambda me, peer: True)
    for name in "abcd":
        for peer in "abcd":
            if peer != name:
                assert await c[name].peers.request(peer, "echo", 1, 5) == [name, 1]
                # Both sides use the same one: one has dialled it, the other has not.
                assert bool(c[name].peers.links[peer].dials) != bool(c[peer].peers.links[name].dials)
                assert c[name].peers.links[peer].local == c[peer].peers.links[name].peer


async def test_links_can_go_one_way_only(cluster: Any, eventually: Eventually) -> None:
    c = await cluster("abc", dials=lambda me, peer: me == "c")
    await eventually(lambda: len(c["c"].peers.links) == 2)
    await eventually(lambda: c["a"].peers.connected("c") and c["b"].peers.connected("c"))
    assert not c["a"].peers.connected("b")
    assert await c["a"].peers.request("c", "echo", "up the wire", 5) == ["a", "up the wire"]


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        ({"secret": b"wrong"}, "the cluster secret is not the same"),
        ({"cluster_id": "other"}, "cluster id is 'test', here it is 'other'"),
    ],
)
async def test_a_refusal_is_one_line_on_both_sides(
    cluster: Any, eventually: Eventually, caplog: pytest.LogCaptureFixture, theirs: dict[str, Any], reason: str
) -> None:
    c = await cluster("ab", start="a")
    await c.add("b", **theirs)
    await eventually(lambda: c["a"].peers.trouble("b") == reason)
    await eventually(lambda: c["b"].peers.counters.refusals > 2)  # it is tried again, and not logged each time
    lines = [(r.name, r.getMessage(), r.fields.get("reason")) for r in caplog.records if r.levelno == logging.WARNING]
    assert lines.count(("minidist.a", "no link to peer", reason)) == 1
    assert lines.count(("minidist.b", "peer refused", reason)) == 1
    with pytest.raises(NotConnected, match=f"^b: {reason}$"):
        c["a"].peers.request("b", "echo", 1, 1)


async def test_a_second_node_of_the_same_name_is_refused(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually, "ab")
    impostor = await cluster("ab", start="")
    impostor.addresses["b"] = c.addresses["b"]
    other = await impostor.add("a")
    await eventually(lambda: other.peers.trouble("b") == "another node is connected as 'a'")
    assert await c["a"].peers.request("b", "echo", 1, 5) == ["a", 1]
    await c["a"].kill()
    await eventually(lambda: other.peers.connected("b"))  # when the first is gone, it gets in


async def test_a_stranger_is_refused(cluster: Any, eventually: Eventually) -> None:
    c = await cluster("ab", start="b")
    strangers = await cluster("0b", start="")
    strangers.addresses["b"] = c.addresses["b"]
    stranger = await strangers.add("0")
    await eventually(lambda: stranger.peers.trouble("b") == "'b' knows no member '0'")


async def test_an_address_where_nobody_listens_is_dialled_again_until_somebody_does(
    cluster: Any, eventually: Eventually
) -> None:
    c = await cluster("ab", start="a")
    await eventually(lambda: "cannot connect" in c["a"].peers.trouble("b"))
    with pytest.raises(NotConnected):
        c["a"].peers.send("b", "echo", 1)
    await c.add("b")
    await eventually(lambda: c["a"].peers.connected("b"))
    assert c["a"].peers.trouble("b") == ""


async def test_a_killed_node_is_missed_and_found_again(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually, "ab")
    await c["b"].kill()
    await eventually(lambda: c["a"].events == ["b up", "b down"])
    await c.add("b")
    await eventually(lambda: c["a"].events == ["b up", "b down", "b up"] and c["b"].peers.connected("a"))
    assert await c["b"].peers.request("a", "echo", "back", 5) == ["b", "back"]
    await c["a"].kill()
    await eventually(lambda: not c["b"].peers.connected("a"))
    await c.add("a")
    await eventually(lambda: c["b"].peers.connected("a"))


async def test_backoff_doubles_is_drawn_from_the_upper_half_and_is_bounded(cluster: Any) -> None:
    peers = (await cluster("a", limits=PeerLimits(backoff_s=0.05, backoff_max_s=1.0)))["a"].peers
    for failures, longest in ((0, 0.05), (1, 0.1), (2, 0.2), (3, 0.4), (5, 1.0), (10_000, 1.0)):
        drawn = [peers._backoff_s(failures) for _ in range(200)]
        assert longest / 2 <= min(drawn) < 0.6 * longest
        assert 0.9 * longest < max(drawn) <= longest


# --- requests -------------------------------------------------------------------------------------------------------


async def test_requests_both_ways_and_many_at_once(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    bodies = [None, True, -1, 2**64 - 1, 1.5, "text", b"bytes", [1, [2]], {"k": b"v", b"b": {}}]
    for body in bodies:
        assert await c["a"].peers.request("b", "echo", body, 5) == ["a", body]
    futures = [c[name].peers.request(peer, "echo", n, 5) for n in range(500) for name, peer in ("ab", "ba")]
    answers = await asyncio.gather(*futures)
    assert answers == [[name, n] for n in range(500) for name in "ab"]


async def test_the_frames_of_one_wake_up_leave_in_one_write(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    writes = {"a": 0, "b": 0}

    def counted(name: str, link: Any) -> None:
        class Counting:
            def __init__(self, transport: Any) -> None:
                self.transport = transport

            def __getattr__(self, attribute: str) -> Any:
                return getattr(self.transport, attribute)

            def write(self, data: bytes) -> None:
                writes[name] += 1
                self.transport.write(data)

        link.transport = Counting(link.transport)

    counted("a", c["a"].peers.links["b"])
    counted("b", c["b"].peers.links["a"])
    await asyncio.gather(*(c["a"].peers.request("b", "echo", n, 5) for n in range(100)))
    assert writes["a"] <= 2  # a heartbeat may come between
    assert writes["b"] <= 3


async def test_one_way_messages_arrive_in_order(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    heard: list[Any] = []
    c["b"].peers.handlers["tell"] = lambda peer, body: heard.append((peer, body))
    for n in range(100):
        c["a"].peers.send("b", "tell", n)
    c["a"].peers.send("b", "nobody knows this", 0)
    assert await c["a"].peers.request("b", "echo", "flush", 5)
    assert heard == [("a", n) for n in range(100)]
    assert c["b"].peers.counters.unknown == 1


async def test_handlers_may_answer_later(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    promised: list[asyncio.Future[Any]] = []

    def promise(peer: str, body: Any) -> asyncio.Future[Any]:
        promised.append(asyncio.get_running_loop().create_future())
        return promised[-1]

    async def ask_back(peer: str, body: Any) -> Any:
        return await c["b"].peers.request(peer, "echo", body, 5)

    c["b"].peers.handlers |= {"promise": promise, "ask-back": ask_back}
    first, second = (c["a"].peers.request("b", "promise", n, 5) for n in range(2))
    await eventually(lambda: len(promised) == 2)
    promised[1].set_result("second")
    assert await second == "second"
    promised[0].set_result("first")
    assert await first == "first"
    assert await c["a"].peers.request("b", "ask-back", "ping-pong", 5) == ["b", "ping-pong"]


async def test_a_coroutine_may_handle_a_message_and_may_fail(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    bugs: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: bugs.append(context["exception"]))
    heard = []

    async def tell(peer: str, body: Any) -> None:
        heard.append(body)
        if body == 0:
            raise RequestFailed.answer("no", "nobody will know")
        raise ZeroDivisionError

    c["b"].peers.handlers["tell"] = tell
    c["a"].peers.send("b", "tell", 0)
    c["a"].peers.send("b", "tell", 1)
    await eventually(lambda: len(bugs) == 1)
    assert heard == [0, 1]


async def test_errors_of_a_handler_reach_the_asker(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    bugs: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: bugs.append(context["exception"]))

    def refuse(peer: str, body: Any) -> Any:
        raise RequestFailed.answer("not-leader", "ask c")

    async def refuse_later(peer: str, body: Any) -> Any:
        refuse(peer, body)

    def unfinished(peer: str, body: Any) -> Any:
        raise ZeroDivisionError("a bug")

    c["b"].peers.handlers |= {
        "refuse": refuse, "refuse-later": refuse_later, "bug": unfinished, "set": lambda peer, body: {1, 2},
        "large": lambda peer, body: bytes(17 * 1024**2),
    }  # fmt: skip
    for method, code, reason in (
        ("refuse", "not-leader", "ask c"),
        ("refuse-later", "not-leader", "ask c"),
        ("bug", "internal", "the handler failed"),
        ("set", "internal", "the handler failed"),
        ("large", "too-large", "the reply is a frame of"),
        ("missing", "unknown-method", "nothing is called 'missing'"),
    ):
        with pytest.raises(RequestFailed) as caught:
            await c["a"].peers.request("b", method, None, 5)
        assert caught.value.code == code
        assert caught.value.reason.startswith(reason)
        assert caught.value.peer == "b"
    assert [type(bug) for bug in bugs] == [ZeroDivisionError, TypeError]
    assert c["a"].events == ["b up"]  # the link has survived all of it


async def test_a_deadline_that_passes_leaves_the_outcome_unknown(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    late: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    c["b"].peers.handlers["wait"] = lambda peer, body: late
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(Timeout):
        await c["a"].peers.request("b", "wait", None, 0.05)
    assert loop.time() - started >= 0.045  # uvloop counts whole milliseconds
    late.set_result("too late")
    assert await c["a"].peers.request("b", "echo", "still there", 5) == ["a", "still there"]
    assert c["a"].peers.counters.timeouts == 1


async def test_a_coroutine_is_given_up_at_the_askers_deadline(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    given_up = asyncio.Event()

    async def forever(peer: str, body: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.set()
            raise

    c["b"].peers.handlers["forever"] = forever
    with pytest.raises(Timeout):
        await c["a"].peers.request("b", "forever", None, 0.05)
    await given_up.wait()


async def test_a_link_that_is_lost_leaves_the_outcome_unknown(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    asked = asyncio.Event()

    def never(peer: str, body: Any) -> asyncio.Future[Any]:
        asked.set()
        return asyncio.get_running_loop().create_future()

    c["b"].peers.handlers["never"] = never
    waiting = [c["a"].peers.request("b", "never", n, 5) for n in range(3)]
    await asked.wait()
    await c["b"].kill()
    for each in waiting:
        with pytest.raises(LinkLost):
            await each
    with pytest.raises(NotConnected):
        c["a"].peers.request("b", "never", 1, 5)


async def test_what_cannot_be_sent_is_not_sent_and_harms_nobody(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    with pytest.raises(FrameTooLarge):
        c["a"].peers.request("b", "echo", bytes(16 * 1024**2), 5)
    with pytest.raises(TypeError):
        c["a"].peers.send("b", "echo", {1, 2})
    assert await c["a"].peers.request("b", "echo", bytes(15 * 1024**2), 5) == ["a", bytes(15 * 1024**2)]


async def test_too_many_requests_that_wait_are_turned_away(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually, limits=PeerLimits(max_waiting_requests=3))
    futures: list[asyncio.Future[Any]] = []

    def wait(peer: str, body: Any) -> asyncio.Future[Any]:
        futures.append(asyncio.get_running_loop().create_future())
        return futures[-1]

    c["b"].peers.handlers["wait"] = wait
    asked = [c["a"].peers.request("b", "wait", n, 5) for n in range(4)]
    with pytest.raises(RequestFailed, match="busy: 3 requests are waiting already"):
        await asked[3]
    futures[0].set_result("done")
    assert await asked[0] == "done"
    again = c["a"].peers.request("b", "wait", 4, 5)
    await eventually(lambda: len(futures) == 5)
    futures[4].set_result("again")
    assert await again == "again"


# --- peers in trouble -----------------------------------------------------------------------------------------------


async def test_a_silent_peer_is_dropped_and_found_again(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    partition = c["b"].faults.add({"kind": "partition"})
    await eventually(lambda: not c["a"].peers.connected("b") and not c["b"].peers.connected("a"))
    assert "silent for 0.5 s" in c["a"].peers.trouble("b") + c["b"].peers.trouble("a")
    c["b"].faults.remove(partition)
    await eventually(lambda: c["a"].peers.connected("b") and c["b"].peers.connected("a"))


async def test_a_partition_from_one_peer_leaves_the_others_alone(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually, "abc")
    c["a"].faults.add({"kind": "partition", "peer": {"name": "b"}})
    await eventually(lambda: not c["a"].peers.connected("b") and not c["b"].peers.connected("a"))
    assert c["a"].peers.connected("c")
    assert await c["b"].peers.request("c", "echo", 1, 5) == ["b", 1]
    c["a"].faults.clear()
    await eventually(lambda: c["a"].peers.connected("b") and c["b"].peers.connected("a"))


async def test_a_refuse_fault_keeps_a_peer_out(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    c["b"].faults.add({"kind": "refuse", "peer": {"name": "a"}})
    c["a"].peers.links["b"].drop("test")
    await eventually(lambda: c["b"].faults.listed()[0]["fired"] > 2)
    assert not c["a"].peers.connected("b")
    c["b"].faults.clear()
    await eventually(lambda: c["a"].peers.connected("b"))


async def test_an_idle_link_stays_up(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually, limits=PeerLimits(heartbeat_s=0.01, silence_limit_s=0.1))
    pings = []
    link = c["a"].peers.links["b"]
    link._by_kind[6] = pings.append  # PONG
    await eventually(lambda: len(pings) > 20)
    assert c["a"].events == ["b up"]


async def test_a_peer_that_takes_nothing_cannot_hold_memory(cluster: Any, eventually: Eventually) -> None:
    limits = PeerLimits(max_buffered_bytes=4 * 1024**2)
    c = await linked(cluster, eventually, limits=limits)
    c["b"].peers.links["a"].transport.pause_reading()
    sent = 0
    with pytest.raises(PeerTooSlow, match="too slow"):
        while True:
            c["a"].peers.send("b", "tell", bytes(100_000))
            sent += 100_000
            await asyncio.sleep(0)
    assert sent < 30 * 1024**2
    assert c["a"].peers.counters.overflows == 1
    assert not c["a"].peers.connected("b")


async def test_two_nodes_that_flood_each_other_do_not_lock_up(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    body = bytes(500_000)
    asked = [c[name].peers.request(peer, "echo", body, 20) for _ in range(40) for name, peer in ("ab", "ba")]
    answers = await asyncio.gather(*asked)
    assert all(answer[1] == body for answer in answers)


async def test_stopping_sends_what_was_said_and_ends_all_tasks(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    heard: list[Any] = []
    c["b"].peers.handlers["tell"] = lambda peer, body: heard.append(body)
    c["a"].peers.send("b", "tell", "goodbye")
    await c["a"].stop()
    await eventually(lambda: heard == ["goodbye"])
    await eventually(lambda: c["b"].events == ["a up", "a down"])
    assert not c["a"].peers._tasks


async def test_a_draining_listener_lets_go_when_nothing_is_under_way(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually)
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    c["b"].peers.handlers["slow"] = lambda peer, body: answer
    asked = c["a"].peers.request("b", "slow", None, 5)
    await eventually(lambda: len(c["b"].peers.links["a"].answers) == 1)
    drained = asyncio.create_task(c["b"].listener.drain(5))
    await asyncio.sleep(0)
    answer.set_result("done")
    assert await asked == "done"
    await drained
    assert not c["b"].peers.connected("a")


# --- streams --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["shared", "own"])
def opens(request: pytest.FixtureRequest) -> Callable[..., Awaitable[Stream]]:
    """A stream on the link, or on a connection of its own."""

    async def open_stream(member: Any, peer: str, method: str, body: Any) -> Stream:
        if request.param == "own":
            return await member.peers.open_own_stream(peer, method, body)
        return member.peers.open_stream(peer, method, body)

    return open_stream


async def test_a_stream_carries_bytes_both_ways(cluster: Any, eventually: Eventually, opens: Any) -> None:
    c = await linked(cluster, eventually)

    async def shout(peer: str, body: Any, stream: Stream) -> None:
        async for chunk in stream:
            await stream.write(chunk.upper())
        await stream.write(f"bye {peer} {body}".encode())

    for member in c.members.values():
        member.peers.stream_handlers["shout"] = shout
    for name, peer in ("ab", "ba"):
        stream = await opens(c[name], peer, "shout", {"n": 1})
        data = b"some words " * 100_000
        writing = asyncio.create_task(stream.write(data))
        got = b""
        while len(got) < len(data):
            got += await stream.read()
        await writing
        stream.end()
        got += b"".join([chunk async for chunk in stream])
        assert got == data.upper() + f"bye {name} {{'n': 1}}".encode()
        assert await stream.read() == b""
    for member in c.members.values():
        await eventually(lambda member=member: len(member.peers._all) == 1)  # own connections are gone
        assert not member.peers.links["b" if member.name == "a" else "a"].streams


async def test_a_stream_that_nobody_reads_holds_one_window(cluster: Any, eventually: Eventually, opens: Any) -> None:
    c = await linked(cluster, eventually)
    go_on = asyncio.Event()
    got: list[int] = []

    async def slow(peer: str, body: Any, stream: Stream) -> None:
        await go_on.wait()
        got.extend([len(chunk) async for chunk in stream])

    c["b"].peers.stream_handlers["slow"] = slow
    stream = await opens(c["a"], "b", "slow", None)
    written = 0

    async def write() -> None:
        nonlocal written
        for _ in range(100):
            await stream.write(bytes(10_000))
            written += 10_000
        stream.end()

    writing = asyncio.create_task(write())
    await eventually(lambda: stream._credit == 0)
    for _ in range(3):  # whatever is exchanged meanwhile, the stream waits, and the link does not
        assert await c["a"].peers.request("b", "echo", 1, 5) == ["a", 1]
    assert written <= WINDOW_BYTES
    assert not writing.done()
    go_on.set()
    assert await stream.read() == b""
    await writing
    assert sum(got) == 1_000_000


async def test_a_stream_may_be_refused_reset_or_fail(cluster: Any, eventually: Eventually, opens: Any) -> None:
    c = await linked(cluster, eventually)
    bugs: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: bugs.append(context["exception"]))

    async def refuse(peer: str, body: Any, stream: Stream) -> None:
        raise RequestFailed.answer("not-leader", "ask c")

    async def fail(peer: str, body: Any, stream: Stream) -> None:
        raise ZeroDivisionError

    given_up = asyncio.Event()

    async def wait(peer: str, body: Any, stream: Stream) -> None:
        with pytest.raises(StreamReset, match="changed-my-mind"):
            await stream.read()
        given_up.set()

    c["b"].peers.stream_handlers |= {"refuse": refuse, "fail": fail, "wait": wait}
    for method, code in (("refuse", "not-leader"), ("fail", "internal"), ("missing", "unknown-method")):
        stream = await opens(c["a"], "b", method, None)
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert caught.value.code == code
        with pytest.raises(StreamReset):
            await stream.write(b"x")
    assert [type(bug) for bug in bugs] == [ZeroDivisionError]
    stream = await opens(c["a"], "b", "wait", None)
    stream.reset("changed-my-mind", "never mind")
    with pytest.raises(StreamReset, match="changed-my-mind"):
        await stream.read()
    await given_up.wait()


async def test_a_lost_link_ends_its_streams(cluster: Any, eventually: Eventually, opens: Any) -> None:
    c = await linked(cluster, eventually)
    opened = asyncio.Event()
    outcome: list[Exception] = []

    async def read(peer: str, body: Any, stream: Stream) -> None:
        opened.set()
        try:
            await stream.read()
        except LinkLost as error:
            outcome.append(error)
            raise

    c["b"].peers.stream_handlers["read"] = read
    stream = await opens(c["a"], "b", "read", None)
    await opened.wait()
    await c["a"].kill()
    with pytest.raises(LinkLost):
        await stream.read()
    with pytest.raises(LinkLost):
        await stream.write(b"x")
    await eventually(lambda: len(outcome) == 1)


async def test_streams_are_limited(cluster: Any, eventually: Eventually) -> None:
    c = await linked(cluster, eventually, limits=PeerLimits(max_streams=2))

    async def hold(peer: str, body: Any, stream: Stream) -> None:
        await stream.read()

    c["b"].peers.stream_handlers["hold"] = hold
    streams = [c["a"].peers.open_stream("b", "hold", None) for _ in range(3)]
    with pytest.raises(StreamReset, match="busy: 2 streams are open already"):
        await streams[2].read()
    streams[0].end()
    assert await streams[0].read() == b""


async def test_an_own_stream_to_nobody_is_not_connected(cluster: Any) -> None:
    c = await cluster("ab", start="a")
    with pytest.raises(NotConnected, match="cannot connect"):
        await c["a"].peers.open_own_stream("b", "x", None)
    with pytest.raises(NotConnected, match="no such member"):
        await c["a"].peers.open_own_stream("nobody", "x", None)


async def test_a_unix_socket_will_do(cluster: Any, eventually: Eventually, tmp_path: Any) -> None:
    c = await cluster("ab", start="")
    c.addresses |= {name: Address("", 0, str(tmp_path / name)) for name in "ab"}
    for name in "ab":
        await c.add(name, secret=b"")
    await eventually(lambda: c["a"].peers.connected("b"))
    assert await c["a"].peers.request("b", "echo", 1, 5) == ["a", 1]
