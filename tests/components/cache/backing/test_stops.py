"""What a stop that may not wait says of writes that have not reached the store."""

import asyncio

import pytest


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("write-through", "the outcome of writes under way is unknown"),
        ("write-behind", "acknowledged writes are lost"),
    ],
)
async def test_a_stop_says_what_becomes_of_writes(start, backing, until, caplog, strategy, words):
    place = await start(backing=backing.url, strategy=strategy)
    client = await place.client()
    backing.hold = asyncio.Event()
    client.send("SET", "k", "v")
    await until(lambda: place.node.backing.strategy.unwritten)
    await place.node.drain(0)
    assert [each.message for each in caplog.records if each.levelname == "ERROR"] == [words]
    backing.hold.set()
