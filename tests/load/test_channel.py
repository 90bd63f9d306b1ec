"""Channels without a network: answers in any pieces, and what a loss costs."""

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.load.channel import Endpoint, StreamChannel, Wiring
from minidist.load.dispatch import ClosedLoop, OpenLoop
from minidist.load.driver import driver_for
from minidist.load.plan import Plan
from minidist.load.recorder import Interval, Recorder

HTTP_ANSWERS = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc": "",
    b"HTTP/1.1 204 No Content\r\n\r\n": "",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n": "",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n": "http-503",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx": "http-404",
}
RESP_ANSWERS = {
    b"+OK\r\n": "",
    b"$-1\r\n": "",
    b":12\r\n": "",
    b"$10\r\n\r\n-ERR x\r\n\r\n": "",
    b"*2\r\n$1\r\na\r\n-ERR inside\r\n": "",
    b"-LOADING wait\r\n": "LOADING",
    b"-MOVED 5 127.0.0.1:7000\r\n": "MOVED",
}


class Transport:
    """Keeps what was written; `dead` once aborted or closed."""

    def __init__(self) -> None:
        self.written = b""
        self.dead = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.dead = True

    close = abort


class Loop:
    """The loop that a closed loop's channel would dial and pause on."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.dials = 0

    def create_task(self, work: Any) -> None:
        work.close()
        self.dials += 1

    def call_later(self, delay_s: float, dial: Callable[[], None]) -> None:
        self.pauses.append(delay_s)
        dial()


def busy_channel(url: str, **options: Any) -> tuple[StreamChannel, Recorder, ClosedLoop]:
    """A channel in a closed loop that has been started, about to connect."""
    recorder = Recorder()
    dispatcher = ClosedLoop(recorder, timeout_s=5.0)
    dispatcher.started = True
    wiring = Wiring(
        dispatcher=dispatcher,
        recorder=recorder,
        endpoint=Endpoint(host="h", port=1),
        timeout_s=5.0,
        rng=random.Random(1),
    )
    channel = driver_for(Plan(url=url, options=options)).channel(wiring)
    assert isinstance(channel, StreamChannel)
    dispatcher.channels = [channel]
    return channel, recorder, dispatcher


def connect(channel: StreamChannel) -> Transport:
    transport = Transport()
    channel.connection_made(transport)  # type: ignore[arg-type]
    return transport


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return loop


def fed(url: str, answers: list[bytes], cuts: list[int], **options: Any) -> Interval:
    """What is counted when these answers come in pieces cut at these places."""
    loop = Loop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "get_running_loop", lambda: loop)
        channel, recorder, dispatcher = busy_channel(url, **options)
        channel._dial()
        connect(channel)
        data = b"".join(answers)
        edges = [0, *sorted({cut % len(data) for cut in cuts}), len(data)]
        for start, end in itertools.pairwise(edges):
            channel.data_received(data[start:end])
        interval = recorder.close(1.0)
        assert loop.dials == 1
        assert dispatcher.in_flight == channel.depth == interval.offered - interval.ok - interval.failed
        return interval


def expected(answers: list[bytes], kinds: dict[bytes, str]) -> tuple[int, dict[str, int]]:
    errors: dict[str, int] = {}
    for kind in filter(None, map(kinds.__getitem__, answers)):
        errors[kind] = errors.get(kind, 0) + 1
    return len(answers) - sum(errors.values()), errors


cuts = st.lists(st.integers(0, 10_000), max_size=30)


@given(st.lists(st.sampled_from(list(HTTP_ANSWERS)), min_size=1, max_size=6), cuts)
@settings(max_examples=100, deadline=None)
def test_http_answers_in_any_pieces(answers: list[bytes], cuts: list[int]) -> None:
    # One request at a time: a server sends the next answer only after the next request.
    total_ok, total_errors = 0, 0
    for answer in answers:
        interval = fed("http://h/", [answer], cuts)
        total_ok += interval.ok
        total_errors += interval.failed
    ok, errors = expected(answers, HTTP_ANSWERS)
    assert (total_ok, total_errors) == (ok, sum(errors.values()))


@given(st.lists(st.sampled_from(list(RESP_ANSWERS)), min_size=1, max_size=40), cuts)
@settings(max_examples=100, deadline=None)
def test_redis_answers_in_any_pieces(answers: list[bytes], cuts: list[int]) -> None:
    interval = fed("redis://h/", answers, cuts, pipeline=50)
    assert (interval.ok, interval.errors) == expected(answers, RESP_ANSWERS)


@given(st.sampled_from(["http://h/", "redis://h/"]), st.lists(st.binary(min_size=1, max_size=60), max_size=5))
@settings(max_examples=200, deadline=None)
def test_any_bytes_at_all_end_as_answers_or_a_lost_connection(url: str, pieces: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "get_running_loop", Loop)
        channel, recorder, dispatcher = busy_channel(url)
        channel._dial()
        transport = connect(channel)
        for piece in pieces:
            if not transport.dead:
                channel.data_received(piece)
        channel.eof_received()
        channel.connection_lost(None)
    interval = recorder.close(1.0)
    assert interval.ok + interval.failed == interval.offered
    assert dispatcher.in_flight == 0


def test_a_connection_that_was_of_use_is_made_again_at_once(loop: Loop) -> None:
    channel, recorder, _ = busy_channel("redis://h/")
    channel._dial()
    connect(channel)
    channel.data_received(b"+OK\r\n")
    channel.connection_lost(ConnectionResetError(104, "reset"))
    assert (loop.dials, loop.pauses) == (2, [])
    interval = recorder.close(1.0)
    assert (interval.ok, interval.errors) == (1, {"reset": 1})


def test_pauses_grow_until_an_answer_comes(loop: Loop) -> None:
    channel, recorder, _ = busy_channel("redis://h/")
    channel._dial()
    for _ in range(8):
        connect(channel)
        channel.connection_lost(None)
    # The first loss is free; each pause is between a half and one and a half times 10, 20 … 250 ms.
    wanted = [0.02, 0.04, 0.08, 0.16, 0.25, 0.25, 0.25]
    assert all(0.5 * want <= pause <= 1.5 * want for want, pause in zip(wanted, loop.pauses, strict=True))
    assert recorder.close(1.0).errors == {"closed": 8}
    connect(channel)
    channel.data_received(b"+OK\r\n")
    channel.connection_lost(None)
    assert len(loop.pauses) == len(wanted)


def test_a_timeout_takes_the_connection_and_all_behind_it(loop: Loop) -> None:
    channel, recorder, dispatcher = busy_channel("redis://h/", pipeline=3)
    channel._dial()
    transport = connect(channel)
    sent_s = channel._sent[0]
    channel.expire(sent_s + 4.9)
    assert not transport.dead
    channel.expire(sent_s + 5.1)
    assert transport.dead
    channel.connection_lost(None)
    assert recorder.close(1.0).errors == {"timeout": 3}
    assert dispatcher.in_flight == 0


def test_a_greeting_that_is_not_answered_times_out_too(loop: Loop) -> None:
    channel, recorder, _ = busy_channel("redis://:pw@h/")
    channel._dial()
    transport = connect(channel)
    assert transport.written == b"*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n"
    channel.expire(channel._connected_s + 5.1)
    assert transport.dead
    channel.connection_lost(None)
    assert recorder.close(1.0).errors == {}


async def test_arrivals_go_round_the_channels_and_wait_when_all_are_busy() -> None:
    recorder = Recorder()
    dispatcher = OpenLoop(recorder, 5.0, iter([]), max_in_flight=100)

    class Slot:
        depth, queued, counted_up = 1, False, False

        def __init__(self) -> None:
            self.got: list[float] = []
            self.free = 1

        def submit(self, intended_s: list[float], now_s: float) -> None:
            self.got += intended_s
            self.free -= len(intended_s)

    slots = [Slot(), Slot()]
    for slot in slots:
        dispatcher.available(slot, 0.0)  # type: ignore[arg-type]
    dispatcher._waiting.extend([1.0, 2.0, 3.0, 4.0])
    dispatcher._hand_out(4.0)
    assert [slot.got for slot in slots] == [[1.0], [2.0]]
    assert dispatcher.backlog == 2
    slots[1].free = 1
    dispatcher.available(slots[1], 5.0)  # type: ignore[arg-type]
    assert [slot.got for slot in slots] == [[1.0], [2.0, 3.0]]
    # Nobody is left: what waits fails with the reason, and so does what comes.
    for slot in slots:
        dispatcher.went_down(slot, 6.0)  # type: ignore[arg-type]
    assert dispatcher.backlog == 1
    dispatcher.pausing("refused", False, 6.0)
    assert dispatcher.backlog == 0
    assert recorder.close(1.0).errors == {"refused": 1}
    dispatcher.close()
