"""When something breaks: what the client is told, what is sent again and what never is, and who is not poisoned."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import h11
import pytest

from minidist.components.balancer.client_stream import ClientState
from minidist.components.balancer.server import Balancer
from minidist.runtime.config import Address
from tests.components.balancer.conftest import OK, Client, Turn, World, answering, get, post, until, unused_address


def counted(node: Balancer, what: str) -> int:
    return node.data.counted.get(what, 0)


def request(method: str, target: str = "/", body: bytes = b"") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body or method in ("POST", "PUT") else ""
    return f"{method} {target} HTTP/1.1\r\nHost: x\r\n{length}\r\n".encode() + body


# --- Nothing was sent: 503, or another upstream ---------------------------------------------------------------------


async def test_without_upstreams(world: World) -> None:
    client = await world.client(await world.balancer())
    answer = await client.ask(get())
    assert (answer.status, answer.body) == (503, b"no upstream is up\n")
    assert (await client.ask(get())).status == 503, "the connection is kept"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_an_upstream_that_refuses_is_passed_over(world: World, method: str) -> None:
    """Even a POST may go elsewhere: certainly nothing has happened."""
    upstream = await world.upstream()
    node = await world.balancer(str(unused_address()), upstream)
    client = await world.client(node)
    for _ in range(4):
        assert (await client.ask(request(method, body=b"hello"), method)).status == 200
    assert [seen.body for seen in upstream.requests] == [b"hello"] * 4
    assert counted(node, "retries") == 2


async def test_when_all_refuse_the_client_learns_that_nothing_happened(world: World) -> None:
    node = await world.balancer(str(unused_address()), str(unused_address()), eject_after=0)
    client = await world.client(node)
    answer = await client.ask(post(b"x" * 100_000), "POST")
    assert answer.status == 503
    assert b"cannot connect to" in answer.body
    assert counted(node, "retries") == 3


@contextlib.contextmanager
def full_listener() -> Iterator[str]:
    """The address of a listener whose queue is full: it says nothing at all."""
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(full.getsockname())
        yield f"127.0.0.1:{full.getsockname()[1]}"


async def test_an_upstream_that_does_not_take_connections(world: World) -> None:
    with full_listener() as address:
        node = await world.balancer(address, connect_timeout="50ms", retries=0)
        client = await world.client(node)
        assert (await client.ask(post(b"x"), "POST")).status == 503


async def test_a_client_that_goes_while_its_upstream_is_dialled(world: World) -> None:
    with full_listener() as address:
        node = await world.balancer(address)
        client = await world.client(node)
        await client.send(get())
        origin = node.data.upstreams.members[address]
        await until(lambda: origin.active == 1)
        await client.close()
        await until(lambda: counted(node, "client_aborts") == 1)
        assert (origin.active, origin.open) == (0, 1)


async def test_too_many_connections_to_an_upstream(world: World) -> None:
    release = asyncio.Event()

    async def serve(turn: Turn) -> None:
        await release.wait()
        await turn.write(OK)

    upstream = await world.upstream(serve)
    node = await world.balancer(upstream, upstream_connections=2)
    clients = [await world.client(node) for _ in range(3)]
    for client in clients[:2]:
        await client.send(get())
    await until(lambda: len(upstream.requests) == 2)
    assert (await clients[2].ask(get())).status == 503
    release.set()
    assert [(await client.answer()).status for client in clients[:2]] == [200, 200]


# --- Something was sent ---------------------------------------------------------------------------------------------


async def close_silently(turn: Turn) -> bool:
    return True


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_idempotent_requests_are_sent_again(world: World, method: str) -> None:
    good = await world.upstream()
    node = await world.balancer(await world.upstream(close_silently), good)
    client = await world.client(node)
    for _ in range(4):
        assert (await client.ask(request(method, body=b"body" if method == "PUT" else b""), method)).status == 200
    assert len(good.requests) == 4
    assert {seen.body for seen in good.requests} == {b"body" if method == "PUT" else b""}


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_others_are_never_sent_twice(world: World, method: str) -> None:
    """502: a byte was written, so it may have happened."""
    bad, good = await world.upstream(close_silently), await world.upstream()
    client = await world.client(await world.balancer(bad, good))
    statuses = [(await client.ask(request(method, f"/{i}", b"x"), method)).status for i in range(6)]
    assert sorted(statuses) == [200, 200, 200, 502, 502, 502]
    seen = [each.target for each in bad.requests + good.requests]
    assert sorted(seen) == [f"/{i}" for i in range(6)]


async def test_a_post_that_meets_a_closing_connection(world: World) -> None:
    """The race of every keep-alive pool: the upstream closes as the request is written. 502, not a second POST."""
    posted = False

    async def serve(turn: Turn) -> bool:
        nonlocal posted
        if turn.seen.method == "POST":
            posted = True
            return True
        await turn.write(OK)
        return False

    upstream = await world.upstream(serve)
    node = await world.balancer(upstream)
    client = await world.client(node)
    assert (await client.ask(get())).status == 200
    assert (await client.ask(post(b"x"), "POST")).status == 502
    assert [seen.method for seen in upstream.requests] == ["GET", "POST"]
    assert upstream.connections == 1
    origin = node.data.upstreams.members[upstream.name]
    assert origin.failures == 0, "nobody's failure"
    assert (await client.ask(get())).status == 200


async def test_a_get_that_meets_a_closing_connection_goes_to_the_same_upstream_again(world: World) -> None:
    async def serve(turn: Turn) -> bool:
        if turn.seen.connection == 1 and len(upstream.requests) > 1:
            return True
        await turn.write(OK)
        return False

    upstream = await world.upstream(serve)
    node = await world.balancer(upstream)
    client = await world.client(node)
    assert [(await client.ask(get())).status for _ in range(3)] == [200, 200, 200]
    assert upstream.connections == 2
    assert counted(node, "retries") == 1


async def test_a_restarted_upstream_breaks_no_idempotent_request(world: World) -> None:
    upstream = await world.upstream()
    other = await world.upstream()
    node = await world.balancer(upstream, other)
    clients = [await world.client(node) for _ in range(8)]
    for _ in range(5):
        for client in clients:
            await client.send(get())
        assert {(await client.answer()).status for client in clients} == {200}
        await upstream.kill()
        for client in clients:
            await client.send(get())
        assert {(await client.answer()).status for client in clients} == {200}
        await upstream.start()


async def test_a_large_body_is_not_kept_for_a_retry(world: World) -> None:
    bad, good = await world.upstream(close_silently), await world.upstream()
    client = await world.client(await world.balancer(bad, good, retry_buffer="1kb"))
    answers = [(await client.ask(request("PUT", body=b"x" * 5000), "PUT")).status for _ in range(2)]
    assert sorted(answers) == [200, 502]


async def test_retries_are_counted_and_end(world: World) -> None:
    upstream = await world.upstream(close_silently)
    node = await world.balancer(upstream, retries=2, eject_after=0)
    client = await world.client(node)
    answer = await client.ask(get())
    assert answer.status == 502
    assert len(upstream.requests) == 3


async def test_after_a_failed_write_a_refused_retry_is_still_a_502(world: World) -> None:
    """The second attempt certainly did nothing; the first may have."""

    async def serve(turn: Turn) -> bool:
        assert upstream._server is not None
        upstream._server.close()
        return True

    upstream = await world.upstream(serve)
    client = await world.client(await world.balancer(upstream, eject_after=0))
    assert (await client.ask(get())).status == 502


# --- Answers that end early or lie ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ],
)
async def test_a_cut_answer_is_seen_to_be_cut(world: World, start: bytes) -> None:
    async def serve(turn: Turn) -> bool:
        await turn.write(start)
        return True

    node = await world.balancer(await world.upstream(serve))
    client = await world.client(node)
    await client.send(get())
    with pytest.raises((h11.RemoteProtocolError, ConnectionResetError)):
        await client.answer()
    await until(lambda: counted(node, "truncated") == 1)
    assert [origin.active for origin in node.data.upstreams.members.values()] == [0]


async def test_an_answer_until_close_that_is_reset_is_seen_to_be_cut(world: World) -> None:
    """To an HTTP/1.0 client an orderly end would look like the end of the body."""

    async def serve(turn: Turn) -> bool:
        await turn.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        turn.writer.transport.abort()
        return True

    client = await world.client(await world.balancer(await world.upstream(serve)))
    await client.send(get(version="1.0"))
    with pytest.raises(ConnectionResetError):
        await client.rest()


LIES = {
    "a second answer": OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "more than the length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
    "after the last chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_what_follows_an_answer_poisons_nobody(world: World, lie: str) -> None:
    async def serve(turn: Turn) -> None:
        await turn.write(LIES[lie] if turn.seen.target == "/lie" else OK)

    upstream = await world.upstream(serve)
    client = await world.client(await world.balancer(upstream))
    assert (await client.ask(get("/lie"))).body == b"ok"
    for _ in range(2):
        assert (await client.ask(get())).body == b"ok"
    assert upstream.connections == 2


async def test_an_upstream_that_speaks_between_requests_loses_its_connection(world: World) -> None:
    async def serve(turn: Turn) -> bool:
        await turn.write(OK)
        if turn.seen.target == "/lie":
            await released.wait()
            await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        return False

    released = asyncio.Event()
    upstream = await world.upstream(serve)
    node = await world.balancer(upstream)
    client = await world.client(node)
    assert (await client.ask(get("/lie"))).body == b"ok"
    released.set()
    await until(lambda: counted(node, "unasked") == 1)
    assert all(origin.talkative for origin in node.data.upstreams.members.values())
    assert (await client.ask(get())).body == b"ok"
    assert upstream.connections == 2


@contextlib.asynccontextmanager
async def kept_connection(world: World) -> AsyncIterator[tuple[Balancer, Client, socket.socket]]:
    """A balancer with one connection in its pool, a client that has had an answer, and the upstream's end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        node = await world.balancer(f"127.0.0.1:{server.getsockname()[1]}")
        client = await world.client(node)
        await client.send(get())
        await until(lambda: node.data.dialler.connections)
        upstream, _ = server.accept()
        with upstream:
            upstream.send(OK)
            assert (await client.answer()).body == b"ok"
            await until(lambda: next(iter(node.data.upstreams.members.values())).idle)
            yield node, client, upstream


def ask_in_this_round(node: Balancer, request: bytes) -> None:
    """The client's request is read before whatever waits in the upstream's socket."""
    assert node.data.listener is not None
    (connection,) = node.data.listener.connections
    connection.data_received(request)


def unasked(upstream: socket.socket) -> None:
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")


def ended(upstream: socket.socket) -> None:
    upstream.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("news", [unasked, ended])
async def test_what_waits_in_a_kept_connection_is_seen_before_a_post_uses_it(
    world: World, news: Callable[[socket.socket], None]
) -> None:
    other = await world.upstream()
    async with kept_connection(world) as (node, client, upstream):
        (origin,) = node.data.upstreams.members.values()
        origin.address = Address.parse(other.name)  # where it is dialled again
        news(upstream)
        ask_in_this_round(node, post(b"hello"))
        assert (await client.answer("POST")).body == b"ok"
        assert [seen.body for seen in other.requests] == [b"hello"]
        await until(lambda: len(node.data.dialler.connections) == 1)
        assert counted(node, "unasked") == (1 if news is unasked else 0)


async def test_after_an_unasked_word_of_an_upstream_every_request_looks_first(world: World) -> None:
    other = await world.upstream()
    async with kept_connection(world) as (node, client, upstream):
        (origin,) = node.data.upstreams.members.values()
        origin.address = Address.parse(other.name)
        origin.talkative = True
        unasked(upstream)
        ask_in_this_round(node, get())
        assert (await client.answer()).body == b"ok"
        assert len(other.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    ],
)
async def test_a_204_that_speaks_of_a_body_ends_the_connection(world: World, answer: bytes) -> None:
    upstream = await world.upstream(answering(answer))
    client = await world.client(await world.balancer(upstream))
    for _ in range(2):
        assert (await client.ask(get())).status == 204
    assert upstream.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 40_000,
    ],
)
async def test_a_broken_head_is_a_502(world: World, answer: bytes) -> None:
    async def serve(turn: Turn) -> None:
        await turn.write(answer if turn.seen.target == "/bad" else OK)

    node = await world.balancer(await world.upstream(serve), retries=0)
    client = await world.client(node)
    for _ in range(3):
        assert (await client.ask(get("/bad"))).status == 502
        assert (await client.ask(get("/good"))).status == 200


# --- Time ------------------------------------------------------------------------------------------------------------


async def test_no_answer_in_time_is_a_504(world: World) -> None:
    """It was sent and may have happened: so no retry either, though it is a GET."""
    forever = asyncio.Event()

    async def serve(turn: Turn) -> None:
        if turn.seen.target == "/slow":
            await forever.wait()
        await turn.write(OK)

    upstream = await world.upstream(serve)
    node = await world.balancer(upstream, response_timeout="50ms")
    client = await world.client(node)
    assert (await client.ask(get("/slow"))).status == 504
    assert (await client.ask(get("/quick"))).status == 200
    assert [seen.target for seen in upstream.requests] == ["/slow", "/quick"]
    assert node.data.upstreams.members[upstream.name].failures == 1


async def test_a_slow_head_is_a_408(world: World) -> None:
    upstream = await world.upstream()
    client = await world.client(await world.balancer(upstream, head_timeout="300ms"))
    await client.send(b"GET / HT")
    for byte in b"TP/1.1\r\nX: ":  # dribbling does not help: the time is for the whole head
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
    assert upstream.requests == []


async def test_a_slow_body_is_a_408(world: World) -> None:
    upstream = await world.upstream()
    node = await world.balancer(upstream, stream_timeout="100ms")
    client = await world.client(node)
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhal")
    assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
    await until(lambda: upstream.ended == 1)


async def test_an_answer_that_stalls_is_cut(world: World) -> None:
    forever = asyncio.Event()

    async def serve(turn: Turn) -> None:
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal")
        await forever.wait()

    node = await world.balancer(await world.upstream(serve), stream_timeout="100ms")
    client = await world.client(node)
    await client.send(get())
    with pytest.raises((h11.RemoteProtocolError, ConnectionResetError)):
        await client.answer()
    assert counted(node, "stalled") == 1


async def test_a_stream_that_goes_on_is_not_cut(world: World) -> None:
    async def serve(turn: Turn) -> None:
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(40):
            await turn.write(b"3\r\n: \n\r\n")
            await asyncio.sleep(0.02)
        await turn.write(b"0\r\n\r\n")

    node = await world.balancer(await world.upstream(serve), stream_timeout="400ms", response_timeout="100ms")
    client = await world.client(node)
    assert (await client.ask(get())).body == b": \n" * 40


async def test_an_idle_client_is_closed(world: World) -> None:
    node = await world.balancer(await world.upstream(), idle_timeout="50ms")
    client = await world.client(node)
    assert (await client.ask(get())).status == 200
    assert await client.rest() == b""


async def test_an_unused_upstream_connection_is_closed(world: World) -> None:
    upstream = await world.upstream()
    node = await world.balancer(upstream, upstream_idle_timeout="50ms")
    client = await world.client(node)
    assert (await client.ask(get())).status == 200
    await until(lambda: upstream.ended == 1)
    assert (await client.ask(get())).status == 200


# --- Clients ----------------------------------------------------------------------------------------------------------


async def test_a_client_that_goes_takes_its_request_along(world: World) -> None:
    forever = asyncio.Event()

    async def serve(turn: Turn) -> bool:
        assert await turn.reader.read() == b""
        forever.set()
        return True

    upstream = await world.upstream(serve)
    node = await world.balancer(upstream)
    client = await world.client(node)
    await client.send(get())
    await until(lambda: upstream.requests)
    await client.close()
    await asyncio.wait_for(forever.wait(), 10)
    await until(lambda: counted(node, "client_aborts") == 1)
    origin = node.data.upstreams.members[upstream.name]
    assert (origin.active, origin.failures) == (0, 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000, 413),
     (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"200\r\n" + b"x" * 512 + b"\r\n200\r\n"
      + b"x" * 512 + b"\r\n0\r\n\r\n", 413),
     (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", 400)],
)  # fmt: skip
async def test_bodies_that_are_not_taken(world: World, body: bytes, status: int) -> None:
    upstream = await world.upstream()
    node = await world.balancer(upstream, max_body="1000")
    client = await world.client(node)
    await client.send(body)
    assert (await client.answer("POST")).status == status
    assert upstream.requests == [] or upstream.requests[0].body != b"x" * 1024
    await until(lambda: all(origin.active == 0 for origin in node.data.upstreams.members.values()))


async def test_one_client_too_many(world: World) -> None:
    node = await world.balancer(await world.upstream(), max_clients=1)
    first = await world.client(node)
    assert (await first.ask(get())).status == 200
    second = await world.client(node)
    assert (await second.rest()).startswith(b"HTTP/1.1 503 ")
    assert (await first.ask(get())).status == 200


async def test_a_client_that_does_not_read_holds_little_memory(world: World) -> None:
    """Pipelined requests without reading: we stop reading them instead of collecting answers."""
    body = b"x" * 10_000
    upstream = await world.upstream(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + body))
    node = await world.balancer(upstream)
    client = await world.client(node)
    count = 3000
    client.writer.write(get() * count)
    (connection,) = node.listeners["http"].connections

    await until(lambda: connection.write_paused and connection.state is ClientState.IDLE)
    assert connection.transport.get_write_buffer_size() < 1_000_000
    assert len(connection.buffer) < 1_000_000
    for _ in range(count):
        assert (await client.answer()).body == body


async def test_an_upstream_crash_in_the_middle_of_everything(world: World) -> None:
    """Counters come back to zero whatever the moment of the crash."""

    async def serve(turn: Turn) -> None:
        await turn.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await asyncio.sleep(0.01)
        await turn.write(b"0\r\n\r\n")

    upstreams = [await world.upstream(serve) for _ in range(3)]
    node = await world.balancer(*upstreams)

    async def visit() -> None:
        for _ in range(10):
            client = await world.client(node)
            with contextlib.suppress(h11.RemoteProtocolError, ConnectionError):
                await client.ask(get())
            await client.close()

    visits = [asyncio.create_task(visit()) for _ in range(10)]
    for upstream in upstreams * 2:
        await asyncio.sleep(0.01)
        await upstream.kill()
        await upstream.start()
    await asyncio.gather(*visits)
    await until(lambda: not node.listeners["http"].connections)
    for origin in node.data.upstreams.members.values():
        assert origin.active == 0
        assert origin.open == len(origin.idle)


async def test_a_malformed_request_is_not_counted_as_the_one_before(world: World) -> None:
    node = await world.balancer(await world.upstream())
    client = await world.client(node)
    assert (await client.ask(get())).status == 200
    await client.send(b"nonsense\r\n\r\n")
    assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
    assert (node.data.requests, node.data.latency.count, node.data.by_class[4]) == (1, 1, 0)
    assert counted(node, "bad_requests") == 1
