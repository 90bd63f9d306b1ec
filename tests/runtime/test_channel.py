"""Requests and messages between two processes, over a socket pair in one."""

import asyncio
import socket

import pytest

from minidist.runtime.channel import Channel, ChannelError, ChannelLost


@pytest.fixture
async def pair():
    """Two ends; the first one's handlers are given, `lost` counts."""
    ends = []

    async def make(handlers):
        lost = []
        for end, methods in zip(socket.socketpair(), (handlers, {}), strict=True):
            end.setblocking(False)
            channel = Channel(methods, lost=lambda: lost.append(1))
            await asyncio.get_running_loop().create_connection(lambda channel=channel: channel, sock=end)
            ends.append(channel)
        return ends[-1], ends[-2], lost

    yield make
    for channel in ends:
        channel.close()
    await asyncio.sleep(0)


async def test_answers_and_errors(pair):
    async def later(body):
        await asyncio.sleep(0)
        return [body]

    def wrong(body):
        raise ValueError(f"not {body}")

    async def wrong_later(body):
        await asyncio.sleep(0)
        raise ValueError("later")

    channel, _, _ = await pair({"now": lambda body: body, "later": later, "wrong": wrong, "wrong later": wrong_later})
    assert await channel.request("now", {"a": [1, None, b"x"]}) == {"a": [1, None, b"x"]}
    assert await asyncio.gather(*(channel.request("later", number) for number in range(50))) == [
        [number] for number in range(50)
    ]
    for method, text in (("wrong", "not 5"), ("wrong later", "later"), ("unknown", "'unknown'")):
        with pytest.raises(ChannelError, match=text):
            await channel.request(method, 5)


async def test_messages_and_requests_arrive_in_the_order_of_the_calls(pair, eventually):
    seen = []
    channel, _, _ = await pair({"note": seen.append})
    channel.send("note", 1)
    request = channel.request("note", 2)
    channel.send("note", 3)
    await request
    await eventually(lambda: seen == [1, 2, 3])


async def test_a_message_that_fails_is_a_logged_bug_and_the_channel_goes_on(pair, eventually):
    problems = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
    channel, _, lost = await pair({"bad": lambda body: 1 / 0, "good": lambda body: "fine"})
    channel.send("bad", None)
    assert await channel.request("good", None) == "fine"
    assert [type(problem["exception"]) for problem in problems] == [ZeroDivisionError]
    assert lost == []


async def test_what_cannot_be_sent_is_the_callers_error(pair):
    channel, _, _ = await pair({"now": lambda body: body})
    with pytest.raises(TypeError):
        channel.request("now", object())
    assert channel._waiting == {}
    assert await channel.request("now", 1) == 1


async def test_requests_under_way_hear_that_the_other_side_is_gone(pair, eventually):
    forever = asyncio.Event()
    channel, other, lost = await pair({"wait": lambda body: forever.wait()})
    answer = channel.request("wait", None)
    await asyncio.sleep(0.001)
    other.close()
    with pytest.raises(ChannelLost):
        await answer
    with pytest.raises(ChannelLost):
        await channel.request("wait", None)
    channel.send("wait", None)  # nothing happens
    await eventually(lambda: len(lost) == 2)


async def test_a_side_that_does_not_read_is_given_up(pair, monkeypatch, eventually):
    monkeypatch.setattr("minidist.runtime.channel.MAX_UNREAD_BYTES", 1_000_000)
    channel, other, lost = await pair({"note": lambda body: None})
    other.transport.pause_reading()
    for _ in range(40):
        channel.send("note", b"x" * 100_000)
    await eventually(lambda: bool(lost))
