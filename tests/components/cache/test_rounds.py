"""One round of the loop: one service time for its commands, unless somebody moves the clock; replies in order."""


async def test_moving_the_clock_ends_a_round(start):
    place = await start()
    writer, mover = [await place.client() for _ in range(2)]
    await writer.ask("SET", "k", "v", "PX", 500)
    connection = next(iter(place.node.listeners["resp"].connections))
    seen = []
    connection.data_received(b"*2\r\n$4\r\nPTTL\r\n$1\r\nk\r\n")
    seen.append(len(place.node.round))
    place.node.clock.advance(600)
    seen.append(len(place.node.round))
    connection.data_received(b"*2\r\n$4\r\nPTTL\r\n$1\r\nk\r\n")
    assert seen == [1, 0], "what was asked before the jump was answered before it"
    assert 0 < await writer.read() <= 500
    assert await writer.read() == -2
    assert await mover.ask("GET", "k") is None


async def test_commands_of_one_round_see_one_time(start):
    place = await start()
    client = await place.client()
    await client.ask("PING")
    connection = next(iter(place.node.listeners["resp"].connections))
    wall_ms = place.node.clock.now_ms()
    place.node.clock.wall = iter(range(wall_ms + 1, wall_ms + 100)).__next__
    for _ in range(3):
        connection.data_received(b"*1\r\n$4\r\nTIME\r\n")
    times = [await client.read() for _ in range(3)]
    assert times[0] == times[1] == times[2]


async def test_every_client_of_a_round_is_answered_in_its_own_order(start):
    place = await start()
    clients = [await place.client() for _ in range(20)]
    for number, client in enumerate(clients):
        for word in (b"a", b"b" * 40_000, b"c"):
            client.send("ECHO", b"%d" % number + word)
        client.send_raw(b"PING\r\n")
    for number, client in enumerate(clients):
        assert [(await client.read())[: len(str(number)) + 1] for _ in range(3)] == [
            b"%d%b" % (number, word) for word in (b"a", b"b", b"c")
        ]
        assert await client.read() in ("PONG", b"PONG")


async def test_a_client_that_half_closes_gets_its_replies(start):
    place = await start()
    client = await place.client()
    client.send("SET", "k", "v")
    client.send("GET", "k")
    client.writer.write_eof()
    assert await client.read() in ("OK", b"OK")
    assert await client.read() == b"v"
    assert await client.closed()
