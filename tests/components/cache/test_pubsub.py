"""Messages over real connections: to many, to the slow, to those who see every command."""

import asyncio

MEGABYTE = b"x" * 1024**2


async def test_a_message_reaches_everybody(start):
    place = await start()
    publisher = await place.client()
    subscribers = [await place.client() for _ in range(50)]
    for subscriber in subscribers:
        assert await subscriber.ask("SUBSCRIBE", "c") == [b"subscribe", b"c", 1]
    assert await publisher.ask("PUBLISH", "c", "hello") == 50
    for subscriber in subscribers:
        assert await subscriber.read() == [b"message", b"c", b"hello"]


async def test_messages_keep_their_order(start):
    place = await start()
    publisher, subscriber = await place.client(), await place.client()
    await subscriber.ask("SUBSCRIBE", "c")
    for number in range(2000):
        publisher.send("PUBLISH", "c", number)
    for number in range(2000):
        assert await subscriber.read() == [b"message", b"c", b"%d" % number]
    assert [await publisher.read() for _ in range(2000)] == [1] * 2000


async def test_expiry_is_told_unasked(start):
    place = await start(notify="Ex")
    client, subscriber = await place.client(), await place.client()
    await subscriber.ask("SUBSCRIBE", "__keyevent@0__:expired")
    await client.ask("SET", "k", "v", "PX", 3_600_000)
    place.node.clock.advance(3_600_001)
    assert await subscriber.read() == [b"message", b"__keyevent@0__:expired", b"k"]


async def test_a_client_that_is_gone_is_no_subscriber(start, until):
    place = await start()
    publisher, subscriber = await place.client(), await place.client()
    await subscriber.ask("SUBSCRIBE", "c")
    subscriber.writer.close()
    await until(lambda: len(place.node.service.sessions) == 1)
    assert await publisher.ask("PUBLISH", "c", "m") == 0


class TestSlowSubscribers:
    async def flood(self, place, publisher) -> int:
        """Publish until the subscriber is gone; how many megabytes that took."""
        for sent in range(200):
            if await publisher.ask("PUBLISH", "c", MEGABYTE) == 0:
                return sent
        return 200

    async def test_the_hard_limit(self, start):
        place = await start(output_limits="pubsub 8mb 0 0")
        publisher, subscriber = await place.client(), await place.client()
        await subscriber.ask("SUBSCRIBE", "c")
        subscriber.reader._transport.pause_reading()
        assert 8 <= await self.flood(place, publisher) < 50
        info = await publisher.ask("INFO", "stats")
        assert b"client_output_buffer_limit_disconnections:1\r\n" in info

    async def test_the_soft_limit(self, start):
        place = await start(output_limits="pubsub 0 4mb 0")
        publisher, subscriber = await place.client(), await place.client()
        await subscriber.ask("SUBSCRIBE", "c")
        subscriber.reader._transport.pause_reading()
        assert 4 <= await self.flood(place, publisher) < 50

    async def test_who_reads_stays(self, start):
        place = await start(output_limits="pubsub 1mb 512kb 60")
        publisher, subscriber = await place.client(), await place.client()
        await subscriber.ask("SUBSCRIBE", "c")
        for _ in range(20):
            assert await publisher.ask("PUBLISH", "c", MEGABYTE) == 1
            assert await subscriber.read() == [b"message", b"c", MEGABYTE]

    async def test_the_nodes_own_limit_holds_for_monitors(self, start, until):
        place = await start(client_buffer="4mb")
        client, watcher = await place.client(), await place.client()
        await watcher.ask("MONITOR")
        watcher.reader._transport.pause_reading()
        for _ in range(50):
            await client.ask("ECHO", MEGABYTE)
            if len(place.node.service.sessions) == 1:
                break
        assert place.node.service.messages_cut_off == 1


async def test_monitor(start):
    place = await start()
    client, watcher = await place.client(), await place.client()
    assert await watcher.ask("MONITOR") == b"OK"
    for number in range(300):  # more than a turn
        client.send("SET", "k", number)
    for number in range(300):
        assert (await watcher.read()).endswith(b'"SET" "k" "%d"' % number)
    assert [await client.read() for _ in range(300)] == [b"OK"] * 300


async def test_the_slow_log_is_timed_by_the_node(start):
    place = await start(slow_us=0)
    client = await place.client()
    await client.ask("SET", "k", "v")
    (entry,) = await client.ask("SLOWLOG", "GET")
    number, _, took_us, args, peer, name = entry
    assert (number, args, name) == (0, [b"SET", b"k", b"v"], b"")
    assert took_us >= 0
    assert peer.startswith(b"127.0.0.1:")
    await client.ask("CONFIG", "SET", "slowlog-log-slower-than", -1)
    await client.ask("SLOWLOG", "RESET")
    assert await client.ask("SLOWLOG", "LEN") == 0


async def test_debug_sleep_is_slow(start):
    place = await start()
    client = await place.client()
    asking = asyncio.ensure_future(client.ask("DEBUG", "SLEEP", "3600"))
    other = await place.client()
    place.node.clock.advance(1)
    other.send("PING")
    place.node.clock.advance(3_600_000)
    await asking
    assert await other.read() == b"PONG"
    ((_, _, took_us, args, *_),) = await client.ask("SLOWLOG", "GET")
    assert (took_us, args[0]) == (3_600_000_000, b"DEBUG")
