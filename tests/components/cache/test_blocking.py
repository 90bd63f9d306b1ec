"""Waiting for keys over real connections: what is behind, what comes between, and how it ends."""

import asyncio

import pytest

from minidist.components.cache.server import HELD_WHILE_WAITING_BYTES
from minidist.wire.resp import encode_command
from minidist.wire.resp_client import ReplyError


def pipeline(*commands):
    return b"".join(encode_command([word.encode() for word in command.split()]) for command in commands)


def blocked(place):
    return lambda: place.node.service.waiting.count


async def test_served_by_another(start, until):
    place = await start()
    waiting, pusher = await place.client(), await place.client()
    waiting.send("BLPOP", "k", 0)
    await until(blocked(place))
    assert b"blocked_clients:1" in await pusher.ask("INFO", "clients")
    assert await pusher.ask("RPUSH", "k", "v") == 1
    assert await waiting.read() == [b"k", b"v"]
    assert await waiting.ask("PING") == b"PONG"
    assert b"blocked_clients:0" in await pusher.ask("INFO", "clients")


async def test_time_runs_out(start):
    place = await start()
    client = await place.client()
    assert await client.ask("BLPOP", "k", "0.01") is None
    assert await client.ask("BLMOVE", "k", "l", "LEFT", "LEFT", "0.01") is None


async def test_moving_the_clock(start, until):
    place = await start()
    client = await place.client()
    client.send("BLPOP", "k", 3600)
    await until(blocked(place))
    place.node.clock.advance(3_600_000)
    assert await client.read() is None


class TestCommandsBehind:
    async def test_in_the_same_read(self, start, until):
        place = await start()
        client, pusher = await place.client(), await place.client()
        client.send_raw(pipeline("SET a 1", "BLPOP k 0", "GET a", "BLPOP k 0", "INCR a"))
        assert await client.read() == b"OK"
        await until(blocked(place))
        assert await pusher.ask("SET", "a", 7) == b"OK"
        await pusher.ask("RPUSH", "k", "1")
        assert [await client.read() for _ in range(2)] == [[b"k", b"1"], b"7"]
        await until(blocked(place))
        await pusher.ask("RPUSH", "k", "2")
        assert [await client.read() for _ in range(2)] == [[b"k", b"2"], 8]

    async def test_in_later_reads(self, start, until):
        place = await start()
        client, pusher = await place.client(), await place.client()
        client.send("BLPOP", "k", 0)
        await until(blocked(place))
        connection = next(each for each in place.node.listeners["resp"].connections if each.session.wait)
        for number in range(20):
            client.send("ECHO", number)
            await until(lambda number=number: connection.left is not None and len(connection.left) > number)
        await pusher.ask("RPUSH", "k", "1")
        assert await client.read() == [b"k", b"1"]
        assert [await client.read() for _ in range(20)] == [b"%d" % number for number in range(20)]
        assert connection.left is None
        assert connection.held_bytes == 0

    async def test_behind_a_long_pipeline(self, start, until):
        place = await start()
        client, pusher = await place.client(), await place.client()
        client.send_raw(pipeline(*["INCR n"] * 1000, "BLPOP k 0", *["INCR n"] * 1000))
        await until(blocked(place))
        await pusher.ask("RPUSH", "k", "1")
        assert [await client.read() for _ in range(1000)] == list(range(1, 1001))
        assert await client.read() == [b"k", b"1"]
        assert [await client.read() for _ in range(1000)] == list(range(1001, 2001))

    async def test_a_violation_is_answered_in_its_turn(self, start, until):
        place = await start()
        client, pusher = await place.client(), await place.client()
        client.send("BLPOP", "k", 0)
        await until(blocked(place))
        client.send_raw(b"*1\r\n:1\r\n")
        assert await pusher.ask("RPUSH", "other", "1") == 1
        await until(lambda: place.node.waiting)
        await pusher.ask("RPUSH", "k", "1")
        assert await client.read() == [b"k", b"1"]
        with pytest.raises(ReplyError, match="Protocol error"):
            raise await client.read()
        assert await client.closed()

    async def test_too_much_behind_is_not_read(self, start, until):
        place = await start()
        client, pusher = await place.client(), await place.client()
        client.send("BLPOP", "k", 0)
        await until(blocked(place))
        connection = next(each for each in place.node.listeners["resp"].connections if each.session.wait)
        count = 40 * HELD_WHILE_WAITING_BYTES // 1000
        client.send_raw(encode_command([b"ECHO", b"x" * 1000]) * count)
        await until(lambda: connection.held_bytes > HELD_WHILE_WAITING_BYTES)
        for _ in range(20):
            await pusher.ask("PING")
        assert connection.held_bytes < 4 * HELD_WHILE_WAITING_BYTES
        await pusher.ask("RPUSH", "k", "1")
        assert await client.read() == [b"k", b"1"]
        for _ in range(count):
            assert await client.read() == b"x" * 1000

    async def test_a_chain_of_hundreds(self, start, until):
        """Each release lets the next connection go on: one after the other, not one inside the other."""
        place = await start()
        pusher = await place.client()
        clients = [await place.client() for _ in range(400)]
        for number, client in enumerate(clients):
            client.send_raw(pipeline(f"BLPOP k{number} 0", f"RPUSH k{number + 1} x"))
        await until(lambda: place.node.service.waiting.count == 400)
        await pusher.ask("RPUSH", "k0", "x")
        assert await clients[-1].read() == [b"k399", b"x"]
        assert await pusher.ask("LPOP", "k400") == b"x"


class TestLeaving:
    @pytest.mark.parametrize(
        "behind", ["", "PING", "PING\r\n" * 300, "BLPOP other 0"], ids=["nothing", "one", "many", "another"]
    )
    async def test_the_element_is_for_the_next_one(self, start, until, behind):
        place = await start()
        gone, next_one, pusher = [await place.client() for _ in range(3)]
        gone.send_raw(pipeline("BLPOP k 0") + (behind + "\r\n").encode() * bool(behind))
        await until(blocked(place))
        next_one.send("BLPOP", "k", 0)
        await until(lambda: place.node.service.waiting.count == 2)
        gone.writer.close()
        await until(lambda: place.node.service.waiting.count == 1)
        await pusher.ask("RPUSH", "k", "v")
        assert await next_one.read() == [b"k", b"v"]
        assert len(place.node.service.sessions) == 2
        assert not place.node.waiting

    async def test_behind_a_long_pipeline_it_is_noticed_too(self, start, until):
        place = await start()
        client = await place.client()
        client.send_raw(pipeline(*["PING"] * 256, "BLPOP k 0", *["PING"] * 300))
        await until(blocked(place))
        client.writer.close()
        await until(lambda: not place.node.service.sessions)
        assert not place.node.service.keyspace.databases[0].watches

    async def test_killed(self, start, until):
        place = await start()
        victim, killer = await place.client(), await place.client()
        number = await victim.ask("CLIENT", "ID")
        victim.send_raw(pipeline("BLPOP k 0", "PING"))
        await until(blocked(place))
        killer.send_raw(pipeline(f"CLIENT KILL ID {number}", "RPUSH k v", "LLEN k"))
        assert [await killer.read() for _ in range(3)] == [1, 1, 1]
        assert await victim.closed()

    async def test_unblocked(self, start, until):
        place = await start()
        client, other = await place.client(), await place.client()
        number = await client.ask("CLIENT", "ID")
        client.send_raw(pipeline("BLPOP k 0", "PING"))
        await until(blocked(place))
        assert await other.ask("CLIENT", "UNBLOCK", number, "ERROR") == 1
        with pytest.raises(ReplyError, match="UNBLOCKED"):
            raise await client.read()
        assert await client.read() == b"PONG"

    async def test_a_stop_closes_who_waits(self, start, until):
        place = await start()
        client = await place.client()
        client.send("BLPOP", "k", 0)
        await until(blocked(place))
        await place.node.drain()
        assert await client.closed()

    async def test_a_reset_of_the_node(self, start, until):
        place = await start()
        client, other = await place.client(), await place.client()
        await client.ask("SELECT", 3)
        client.send("BLPOP", "k", 0)
        await until(blocked(place))
        await place.node.reset()
        assert await client.read() is None
        assert await other.ask("RPUSH", "k", "v") == 1
        assert await client.ask("LPOP", "k") == b"v"

    async def test_who_waits_is_not_idle(self, start, until):
        place = await start(idle_timeout="300ms")
        waiting, idle = await place.client(), await place.client()
        waiting.send("BLPOP", "k", 0)
        await until(blocked(place))
        assert await idle.closed()
        pusher = await place.client()
        assert await pusher.ask("RPUSH", "k", "v") == 1
        assert await waiting.read() == [b"k", b"v"]
        assert await waiting.closed(), "and is idle again afterwards"


async def test_paused_clients_begin_to_wait_later(start, until):
    place = await start()
    client, other = await place.client(), await place.client()
    assert await other.ask("CLIENT", "PAUSE", 100_000, "WRITE") == b"OK"
    client.send_raw(pipeline("BLPOP k 0", "PING"))
    await until(lambda: place.node.waiting)
    assert place.node.service.waiting.count == 0
    assert await other.ask("CLIENT", "UNPAUSE") == b"OK"
    await until(blocked(place))
    assert await other.ask("RPUSH", "k", "v") == 1
    assert [await client.read() for _ in range(2)] == [[b"k", b"v"], b"PONG"]


async def test_a_work_queue(start):
    """Every element goes to exactly one worker."""
    place = await start()
    pusher, workers = await place.client(), [await place.client() for _ in range(5)]
    done = []

    async def work(client):
        while (found := await client.ask("BLMPOP", 0, 2, "urgent", "queue", "LEFT", "COUNT", 3))[1] != [b"stop"]:
            done.extend(found[1])

    tasks = [asyncio.create_task(work(each)) for each in workers]
    for number in range(300):
        await pusher.ask("RPUSH", "urgent" if number % 7 == 0 else "queue", number)
    while await pusher.ask("EXISTS", "urgent", "queue"):
        pass
    for _ in workers:
        await pusher.ask("RPUSH", "queue", "stop")
        while await pusher.ask("EXISTS", "queue"):
            pass
    await asyncio.gather(*tasks)
    assert sorted(map(int, done)) == list(range(300))
