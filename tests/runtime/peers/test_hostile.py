"""Whoever else knocks at the peer port: garbage, silence, replays, and members that break the protocol."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.runtime.config import Address
from minidist.runtime.peers import PeerLimits
from minidist.runtime.peers.handshake import Handshake, Self
from minidist.runtime.peers.streams import WINDOW_BYTES
from minidist.wire.frames import LENGTH, Decoder, Encoder, Frame, Kind

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


class Stranger:
    """A raw connection to a node's peer port that can speak frames, and can pass for the member `b`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.decoder = Decoder()
        self.frames: list[Frame] = []
        self.sent = b""

    def say(self, *frames: tuple[Any, ...]) -> None:
        self.raw(b"".join(Encoder(2**31).encode(*frame) for frame in frames))

    def raw(self, data: bytes) -> None:
        self.sent += data
        self.writer.write(data)

    async def hear(self) -> Frame:
        """The next frame; [] when the node has closed the connection."""
        while not self.frames:
            try:
                data = await self.reader.read(65536)
            except ConnectionError:
                return []
            if not data:
                return []
            self.frames += self.decoder.feed(data)
        return self.frames.pop(0)

    async def hear_all(self) -> list[Frame]:
        heard = []
        while frame := await self.hear():
            heard.append(frame)
        return heard

    async def greet(self) -> None:
        """The whole handshake, as `b`."""
        me = Self("b", "test", b"s3cret", os.urandom(16), ("a", "b"), {})
        handshake = Handshake(me, os.urandom(32), dials="a")
        self.say(handshake.hello())
        self.say(*handshake.received(await self.hear()).send)
        assert handshake.received(await self.hear()).identity is not None


@pytest.fixture
async def node(cluster: Any) -> Any:
    """The node `a`, which does not dial."""
    return (await cluster("ab", start="a", dials=lambda me, peer: False))["a"]


@pytest.fixture
async def knock(node: Any) -> Any:
    """A factory of strangers at its door."""
    strangers = []

    async def connect() -> Stranger:
        strangers.append(Stranger(*await asyncio.open_connection("127.0.0.1", node.listener.address.port)))
        return strangers[-1]

    yield connect
    for stranger in strangers:
        stranger.writer.transport.abort()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "bad frame: frame of 1195725856 bytes, allowed are 4096"),
        (LENGTH.pack(4097), "bad frame: frame of 4097 bytes, allowed are 4096"),
        (LENGTH.pack(1) + b"\xc1", "bad frame: not msgpack"),
        (LENGTH.pack(2) + b"\x91\x63", "bad frame: unknown frame kind 99"),
        (Encoder().encode(Kind.PING, 1), "PING came where the other side expects HELLO"),
        (Encoder().encode(Kind.SEND, "echo", 1), "SEND came where the other side expects HELLO"),
        (Encoder().encode(Kind.HELLO, "minidist-peer", 1, 1, {}), "identity: purpose must be text"),
    ],
)
async def test_garbage_is_answered_in_one_line_and_closed(node: Any, knock: Any, data: bytes, reason: str) -> None:
    stranger = await knock()
    stranger.raw(data)
    (answer,) = await stranger.hear_all()
    assert answer[:2] == [Kind.REFUSED, "protocol"]
    assert answer[2].startswith(reason)
    assert not node.peers._all


async def test_who_says_nothing_is_let_go(node: Any, knock: Any) -> None:
    silent, slow = await knock(), await knock()
    slow.raw(LENGTH.pack(100) + b"\x95")
    for each in (silent, slow):
        assert await each.hear_all() == [[Kind.REFUSED, "slow", "no handshake within 0.5 s"]]
    assert not node.peers._all


async def test_who_hangs_up_leaves_nothing_behind(node: Any, knock: Any, eventually: Eventually) -> None:
    stranger = await knock()
    await eventually(lambda: len(node.peers._all) == 1)
    stranger.writer.transport.abort()
    await eventually(lambda: not node.peers._all)
    assert node.events == []


async def test_only_so_many_strangers_at_once(cluster: Any) -> None:
    c = await cluster("ab", start="a", dials=lambda me, peer: False, limits=PeerLimits(max_greeting=3))
    port = c["a"].listener.address.port
    strangers = []
    for _ in range(4):
        strangers.append(Stranger(*await asyncio.open_connection("127.0.0.1", port)))
        while not c["a"].peers._all:
            await asyncio.sleep(0)
    refused = await strangers[3].hear()
    assert refused == [Kind.REFUSED, "busy", "too many strangers are being greeted"]
    for stranger in strangers:
        stranger.writer.transport.abort()


async def test_a_recorded_conversation_does_not_open_the_door_again(node: Any, knock: Any) -> None:
    honest = await knock()
    await honest.greet()
    honest.say((Kind.REQUEST, 1, 1000, "echo", "hello"))
    assert await honest.hear() == [Kind.REPLY, 1, ["b", "hello"]]
    honest.writer.transport.abort()
    replay = await knock()
    replay.raw(honest.sent)
    heard = await replay.hear_all()
    assert [frame[0] for frame in heard] == [Kind.CHALLENGE, Kind.REFUSED]
    assert heard[1][1:] == ["secret", "the cluster secret is not the same"]


async def test_a_link_is_up_only_after_the_dialler_has_answered_the_welcome(
    node: Any, knock: Any, eventually: Eventually
) -> None:
    stranger = await knock()
    await stranger.greet()
    assert node.events == []
    stranger.say((Kind.PING, 5))
    assert await stranger.hear() == [Kind.PONG, 5]
    assert node.events == ["b up"]


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([(Kind.HELLO, "minidist-peer", 1, 1, {})], "protocol broken: HELLO on a link that is up"),
        ([(Kind.WELCOME, b"")], "protocol broken: WELCOME on a link that is up"),
        ([(Kind.OPEN, 2, "hold", None)], "protocol broken: stream 2 cannot be opened"),
        ([(Kind.OPEN, 1, "hold", None)] * 2, "protocol broken: stream 1 cannot be opened"),
        (
            [(Kind.OPEN, 1, "hold", None), (Kind.CHUNK, 1, b"")],
            "protocol broken: stream 1: a chunk of 0 bytes that was not allowed",
        ),
        (
            [(Kind.OPEN, 1, "hold", None), *[(Kind.CHUNK, 1, bytes(WINDOW_BYTES))] * 2],
            f"protocol broken: stream 1: a chunk of {WINDOW_BYTES} bytes that was not allowed",
        ),
        (
            [(Kind.OPEN, 1, "hold", None), (Kind.END, 1), (Kind.CHUNK, 1, b"x")],
            "protocol broken: stream 1: a chunk of 1 bytes that was not allowed",
        ),
        (
            [(Kind.OPEN, 1, "hold", None), (Kind.CREDIT, 1, 2**63)],
            "protocol broken: stream 1: credit beyond the window",
        ),
    ],
)
async def test_a_member_that_breaks_the_protocol_is_told_and_dropped(
    node: Any, knock: Any, frames: list[tuple[Any, ...]], reason: str, eventually: Eventually
) -> None:
    async def hold(peer: str, body: Any, stream: Any) -> None:
        await asyncio.Event().wait()

    node.peers.stream_handlers["hold"] = hold
    stranger = await knock()
    await stranger.greet()
    stranger.say((Kind.PING, 1), *frames)
    assert await stranger.hear() == [Kind.PONG, 1]
    assert await stranger.hear_all() == [[Kind.REFUSED, "protocol", reason]]
    await eventually(lambda: node.events == ["b up", "b down"])


async def test_an_oversized_frame_on_a_link_drops_it_from_its_length(node: Any, knock: Any) -> None:
    stranger = await knock()
    await stranger.greet()
    stranger.say((Kind.PING, 1))
    stranger.raw(LENGTH.pack(16 * 1024**2 + 1))
    assert await stranger.hear() == [Kind.PONG, 1]
    (answer,) = await stranger.hear_all()
    assert answer[2] == "bad frame: frame of 16777217 bytes, allowed are 16777216"


async def test_answers_to_nobody_and_streams_that_are_over_are_let_pass(node: Any, knock: Any) -> None:
    stranger = await knock()
    await stranger.greet()
    stranger.say(
        (Kind.REPLY, 77, None), (Kind.ERROR, 78, "x", "y"), (Kind.CHUNK, 9, b"late"), (Kind.CREDIT, 9, 5),
        (Kind.END, 9), (Kind.RESET, 9, "x", "y"), (Kind.PONG, 3), (Kind.PING, 4),
    )  # fmt: skip
    assert await stranger.hear() == [Kind.PONG, 4]


async def test_a_refusal_with_strange_text_is_logged_as_one_line(
    node: Any, knock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = await knock()
    stranger.say((Kind.REFUSED, "no", "first\nERROR fake\x1b[2J"))
    assert await stranger.hear_all() == []
    (line,) = [r.fields["reason"] for r in caplog.records if r.levelno == logging.WARNING]
    assert line == "first?ERROR fake?[2J"


async def test_a_member_that_only_takes_what_waits_for_it_is_alive(node: Any, knock: Any, eventually: Any) -> None:
    stranger = await knock()
    await stranger.greet()
    stranger.say((Kind.PING, 1))
    assert await stranger.hear() == [Kind.PONG, 1]
    size = 16 * 1024**2 - 100
    node.peers.send("b", "bulk", bytes(size))
    loop = asyncio.get_running_loop()
    started, taken = loop.time(), 0
    while taken < size:  # slowly, and without a word, for longer than silence is tolerated
        taken += len(await stranger.reader.readexactly(100_000 if size - taken > 100_000 else size - taken))
        if loop.time() - started < 1.0:
            await asyncio.sleep(0.005)
    assert loop.time() - started > node.peers.limits.silence_limit_s
    assert node.events == ["b up"]
    await eventually(lambda: node.events == ["b up", "b down"])  # but taking nothing and saying nothing is not


@given(pieces=st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=4), proven=st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_bytes_make_it_raise(bare: Any, pieces: list[bytes], proven: bool) -> None:
    """Random bytes, before or after a handshake; a link that lives on must still answer."""

    async def run() -> None:
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        cluster_type, reserve = bare
        held, cluster = reserve(), cluster_type()
        cluster.addresses = {name: Address(*held.getsockname()) for name in "ab"}
        node = await cluster.add("a", dials=lambda me, peer: False)
        stranger = Stranger(*await asyncio.open_connection("127.0.0.1", node.listener.address.port))
        if proven:
            await stranger.greet()
            stranger.say((Kind.PING, 1))
        for piece in pieces:
            stranger.raw(LENGTH.pack(len(piece)) + piece)
        stranger.say((Kind.PING, 2))
        while frame := await stranger.hear():
            if frame == [Kind.PONG, 2]:
                break
        stranger.writer.transport.abort()
        await node.stop()
        held.close()
        assert problems == []

    asyncio.run(run())
