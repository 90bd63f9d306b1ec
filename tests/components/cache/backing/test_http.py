"""A cache before an HTTP server: strategies over real connections, and what a bad server does to clients."""

import asyncio

import pytest

from minidist.wire.resp_client import ReplyError


def figures(place):
    return place.node.backing.strategy.information()


class TestReadThrough:
    async def test_a_missing_key_is_loaded_once(self, start, backing):
        place = await start(backing=backing.url)
        backing.values[b"k \xff/?"] = b"value"
        client = await place.client()
        assert [await client.ask("GET", b"k \xff/?") for _ in range(3)] == [b"value"] * 3
        assert backing.asked == {"GET": 1}
        info = await client.ask("INFO", "stats")
        assert b"keyspace_hits:2\r\nkeyspace_misses:1\r\n" in info

    async def test_a_hundred_clients_are_one_load(self, start, backing, until):
        place = await start(backing=backing.url)
        backing.values[b"k"] = b"v"
        backing.hold = asyncio.Event()
        clients = [await place.client() for _ in range(100)]
        for client in clients:
            client.send("GET", "k")
        await until(lambda: place.node.service.waiting.count == 100)
        other = await place.client()
        assert await other.ask("PING") == b"PONG"  # nobody else waits
        assert await other.ask("SET", "l", 1) == b"OK"
        clients[0].writer.close()  # who leaves does not take the load with him
        backing.hold.set()
        assert [await client.read() for client in clients[1:]] == [b"v"] * 99
        assert backing.asked == {"GET": 1}

    async def test_what_is_not_there_is_known_for_a_while(self, start, backing):
        place = await start(backing=backing.url, negative_ttl="10s", ttl_jitter=0)
        client = await place.client()
        assert [await client.ask("GET", "k") for _ in range(3)] == [None] * 3
        assert backing.asked == {"GET": 1}
        assert figures(place)["backing_absent_hits"] == 2
        place.node.clock.advance(10_000)
        backing.values[b"k"] = b"v"
        assert await client.ask("GET", "k") == b"v"

    async def test_no_memory_of_what_is_not_there(self, start, backing):
        place = await start(backing=backing.url, negative_ttl="0")
        client = await place.client()
        assert await client.ask("MGET", "k", "l", "k") == [None] * 3
        assert await client.ask("GET", "k") is None
        assert backing.asked == {"GET": 3}

    async def test_several_keys(self, start, backing):
        place = await start(backing=backing.url)
        backing.values |= {b"a": b"1", b"c": b"3"}
        client = await place.client()
        assert await client.ask("MGET", "a", "b", "c", "a") == [b"1", None, b"3", b"1"]
        assert backing.asked == {"GET": 3}

    async def test_lifetimes_of_the_store(self, start, backing):
        place = await start(backing=backing.url, ttl_jitter=0)
        backing.values |= {
            b"a": b"1",
            b"b": b"2",
            b"c": b"3",
            b"d": b"4",
            b"e": b"5",
            b"f": b"6",
            b"g": b"7",
            b"h": b"8",
        }
        backing.headers |= {
            b"a": b"Cache-Control: public, max-age=60\r\nAge: 10\r\n",
            b"b": b"Expires: Thu, 01 Jan 2099 00:00:00 GMT\r\n",
            b"d": b"Expires: 0\r\n",
            b"e": b"Cache-Control: public, max-age=0\r\n",
            b"f": b"Cache-Control: no-store\r\n",
            b"g": b"Expires: Thu, 01 Jan 2009 00:00:00 GMT\r\n",
            b"h": b"Cache-Control: max-age=-5\r\n",
        }
        client = await place.client()
        assert await client.ask("MGET", "a", "b", "c") == [b"1", b"2", b"3"]
        assert await client.ask("TTL", "a") == 50
        assert await client.ask("EXPIRETIME", "b") == 4_070_908_800
        assert await client.ask("TTL", "c") == -1
        assert await client.ask("GET", "g") is None  # what has expired is not there
        for key in b"defh":  # what is stale is there, and not kept
            assert await client.ask("GET", bytes([key])) == backing.values[bytes([key])]
            place.node.clock.advance(1)
            assert await client.ask("EXISTS", bytes([key])) == 0

    async def test_load_ttl(self, start, backing):
        place = await start(backing=backing.url, load_ttl="100s", ttl_jitter=50)
        backing.values |= {b"%d" % n: b"v" for n in range(30)}
        client = await place.client()
        await client.ask("MGET", *range(30))
        ttls = [await client.ask("PTTL", n) for n in range(30)]
        assert all(50_000 <= ttl <= 100_000 for ttl in ttls)
        assert max(ttls) - min(ttls) > 10_000

    async def test_an_invalidation_beats_a_slow_load(self, start, backing, until):
        place = await start(backing=backing.url)
        backing.values[b"k"] = b"old"
        backing.hold = asyncio.Event()
        client, other = await place.client(), await place.client()
        client.send("GET", "k")
        await until(lambda: backing.asked["GET"])
        backing.values[b"k"] = b"new"
        assert await other.ask("DEL", "k") == 0
        backing.hold.set()
        assert await client.read() == b"new"
        assert await other.ask("GET", "k") == b"new"
        assert figures(place)["backing_loads_revoked"] == 1

    async def test_a_write_answers_who_waits_for_a_load(self, start, backing, until):
        place = await start(backing=backing.url)
        backing.hold = asyncio.Event()
        client, other = await place.client(), await place.client()
        client.send("GET", "k")
        await until(lambda: backing.asked["GET"])
        await other.ask("SET", "k", "mine")
        assert await client.read() == b"mine"

    async def test_transactions_and_other_databases_do_not_load(self, start, backing):
        place = await start(backing=backing.url)
        backing.values[b"k"] = b"v"
        client = await place.client()
        for words in (["MULTI"], ["GET", "k"]):
            await client.ask(*words)
        assert await client.ask("EXEC") == [None]
        assert await client.ask("EXISTS", "k") == 0
        await client.ask("SELECT", 1)
        assert await client.ask("GET", "k") is None
        assert not backing.asked

    async def test_stale_while_revalidate(self, start, backing, until):
        place = await start(backing=backing.url, load_ttl="10s", stale_ttl="60s", ttl_jitter=0)
        backing.values[b"k"] = b"1"
        client = await place.client()
        await client.ask("GET", "k")
        backing.values[b"k"] = b"2"
        place.node.clock.advance(9_000)
        assert await client.ask("GET", "k") == b"1"
        assert backing.asked == {"GET": 1}
        place.node.clock.advance(2_000)
        backing.hold = asyncio.Event()
        assert await client.ask("GET", "k") == b"1"  # at once, and renewed
        backing.hold.set()
        await until(lambda: figures(place)["backing_loading"] == 0)
        assert await client.ask("GET", "k") == b"2"
        assert backing.asked == {"GET": 2}
        assert figures(place)["backing_stale_hits"] == 1

    async def test_what_is_stale_outlives_a_store_that_fails(self, start, backing, until):
        place = await start(backing=backing.url, load_ttl="10s", stale_ttl="60s", ttl_jitter=0)
        backing.values[b"k"] = b"1"
        client = await place.client()
        await client.ask("GET", "k")
        await backing.stop()
        place.node.clock.advance(11_000)
        assert await client.ask("GET", "k") == b"1"
        await until(lambda: figures(place)["backing_loads_failed"] == 1)
        assert await client.ask("GET", "k") == b"1"
        place.node.clock.advance(60_000)
        assert "cannot connect" in str(await client.ask("GET", "k"))

    async def test_refresh_ahead(self, start, backing, until):
        place = await start(backing=backing.url, load_ttl="10s", refresh_ahead=20, ttl_jitter=0)
        backing.values[b"k"] = b"1"
        client = await place.client()
        await client.ask("GET", "k")
        backing.values[b"k"] = b"2"
        place.node.clock.advance(8_500)
        assert await client.ask("GET", "k") == b"1"
        await until(lambda: figures(place)["backing_loading"] == 0)
        assert await client.ask("GET", "k") == b"2"
        assert await client.ask("PTTL", "k") > 9_000

    async def test_a_small_cache_serves_many_keys(self, start, backing):
        place = await start(backing=backing.url, max_memory="100kb")
        backing.values |= {b"%d" % n: b"v" * 5000 for n in range(60)}
        client = await place.client()
        assert await client.ask("MGET", *range(60)) == [b"v" * 5000] * 60
        assert (await client.ask("INFO", "stats")).count(b"evicted_keys:0") == 0

    async def test_nothing_is_kept_without_room(self, start, backing):
        place = await start(backing=backing.url, max_memory="100kb", eviction="noeviction")
        backing.values |= {b"%d" % n: b"v" * 5000 for n in range(60)}
        client = await place.client()
        for n in range(60):
            assert await client.ask("GET", n) == b"v" * 5000
        assert place.node.service.keyspace.used_bytes < 110_000


class TestWriteThrough:
    async def test_the_store_has_it_before_the_client_knows(self, start, backing, until):
        place = await start(backing=backing.url, strategy="write-through")
        client, other = await place.client(), await place.client()
        backing.hold = asyncio.Event()
        client.send("SET", "k", "v")
        await until(lambda: backing.asked["PUT"])
        other.send("GET", "k")
        await until(lambda: place.node.service.waiting.count == 2)  # nobody sees what may be refused
        backing.hold.set()
        assert await client.read() == b"OK"
        assert await other.read() == b"v"
        assert backing.values == {b"k": b"v"}

    async def test_commands(self, start, backing):
        place = await start(backing=backing.url, strategy="write-through")
        backing.values |= {b"n": b"41", b"s": b"abc", b"gone": b"1"}
        client = await place.client()
        assert await client.ask("INCR", "n") == 42
        assert await client.ask("APPEND", "s", "def") == 6
        assert await client.ask("DEL", "gone") == 0  # it was not in the cache
        assert await client.ask("SET", "s", "x", "NX") is None
        assert await client.ask("MSET", "a", 1, "b", 2) == b"OK"
        assert await client.ask("RENAME", "b", "c") == b"OK"
        assert await client.ask("RPUSH", "list", 1) == 1  # other types are the cache's alone
        assert await client.ask("GETDEL", "a") == b"1"
        assert backing.values == {b"n": b"42", b"s": b"abcdef", b"c": b"2"}
        assert await client.ask("FLUSHALL") == b"OK"
        assert await client.ask("GET", "n") == b"42"

    async def test_a_transaction_is_written_as_a_whole(self, start, backing):
        place = await start(backing=backing.url, strategy="write-through")
        client = await place.client()
        for words in (["MULTI"], ["SET", "a", 1], ["INCR", "a"], ["SET", "b", 1], ["DEL", "c"]):
            await client.ask(*words)
        assert await client.ask("EXEC") == [b"OK", 2, b"OK", 0]
        assert sorted(backing.log) == [("DELETE", b"c"), ("PUT", b"a"), ("PUT", b"b")]
        assert backing.values == {b"a": b"2", b"b": b"1"}

    async def test_a_refused_write_is_an_error_and_not_kept(self, start, backing):
        place = await start(backing=backing.url, strategy="write-through", negative_ttl="0")
        client = await place.client()
        await client.ask("SET", "k", "old")
        backing.lie = lambda method, key: b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n" if method == "PUT" else None
        error = await client.ask("SET", "k", "new")
        assert str(error) == f"ERR backing {backing.url}: answered 403"
        assert await client.ask("GET", "k") == b"old"

    async def test_who_writes_at_the_same_time_does_so_in_turn(self, start, backing):
        place = await start(backing=backing.url, strategy="write-through")
        clients = [await place.client() for _ in range(20)]
        for _ in range(5):
            for client in clients:
                client.send("INCR", "n")
        answers = [await client.read() for client in clients for _ in range(5)]
        assert sorted(answers) == list(range(1, 101))
        assert backing.values == {b"n": b"100"}

    async def test_a_pipeline_waits_and_goes_on(self, start, backing):
        place = await start(backing=backing.url, strategy="write-through")
        client = await place.client()
        for n in range(50):
            client.send("SET", f"k{n % 7}", n)
            client.send("GET", f"k{n % 7}")
        replies = [await client.read() for _ in range(100)]
        assert replies == [reply for n in range(50) for reply in (b"OK", b"%d" % n)]


class TestWriteBehind:
    async def test_acknowledged_at_once_and_written_later(self, start, backing, until):
        place = await start(backing=backing.url, strategy="write-behind", write_behind_lag="20ms")
        client = await place.client()
        for n in range(100):
            assert await client.ask("SET", "k", n) == b"OK"
        assert await client.ask("DEL", "k2") == 0
        await until(lambda: not place.node.backing.strategy.unwritten)
        assert backing.values == {b"k": b"99"}
        assert backing.asked["PUT"] < 100

    async def test_nothing_is_lost_while_the_store_is_down(self, start, backing, until):
        place = await start(backing=backing.url, strategy="write-behind", write_behind_lag="1ms", max_memory="100kb")
        client = await place.client()
        port = backing.port
        await backing.stop()
        for n in range(200):
            assert await client.ask("SET", n, b"v" * 1000) == b"OK"  # most are evicted
        await until(lambda: figures(place)["backing_retries"] > 2)
        assert await client.ask("GET", 0) == b"v" * 1000  # newer than what the store has
        assert figures(place)["backing_queue_keys"] == 200
        assert "cannot connect" in str(figures(place)["backing_last_failure"])
        await backing.start(port)
        await until(lambda: not place.node.backing.strategy.unwritten)
        assert len(backing.values) == 200
        assert figures(place)["backing_queue_bytes"] == 0

    async def test_the_queue_has_a_limit(self, start, backing):
        place = await start(backing=backing.url, strategy="write-behind", write_behind_limit="10kb")
        await backing.stop()
        client = await place.client()
        replies = [await client.ask("SET", n, b"v" * 1000) for n in range(10)]
        assert replies[:7] == [b"OK"] * 7
        assert str(replies[9]).startswith("ERR write-behind queue is full: 11")
        assert backing.url in str(replies[9])
        assert await client.ask("GET", 3) == b"v" * 1000
        assert await client.ask("PING") == b"PONG"

    async def test_a_stop_writes_what_waits(self, start, backing):
        place = await start(backing=backing.url, strategy="write-behind", write_behind_lag="1h")
        client = await place.client()
        for n in range(500):
            client.send("SET", n, n)
        assert [await client.read() for _ in range(500)] == [b"OK"] * 500
        assert not backing.asked
        await place.node.drain()
        assert backing.values == {b"%d" % n: b"%d" % n for n in range(500)}

    async def test_a_key_that_the_store_refuses_holds_up_no_other(self, start, backing, until):
        place = await start(backing=backing.url, strategy="write-behind", write_behind_lag="1ms")
        no = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
        backing.lie = lambda method, key: no if key == b"bad" else None
        client = await place.client()
        await client.ask("SET", "bad", 1)
        for n in range(50):
            await client.ask("SET", n, n)
        await until(lambda: len(backing.values) == 50)
        assert figures(place)["backing_queue_keys"] == 1


BAD = {
    "truncated": (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nabc", "answered wrongly"),
    "too long": (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc", "answered wrongly"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9\r\n\r\n", "answered wrongly"),
    "500": (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "answered 500"),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "answered 302"),
    "closed": (b"", "connection"),
    "too large": (b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2_000_000, "larger than"),
    "silent": (b"HTTP/1.1 200", "timed out"),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_store_is_named(start, backing, what):
    answer, text = BAD[what]
    place = await start(backing=backing.url, backing_timeout="100ms", max_bulk="1mb", strategy="write-through")
    client = await place.client()
    good = backing.lie
    backing.lie = lambda method, key: answer
    load = str(await client.ask("GET", "k"))
    assert load.startswith(f"ERR backing {backing.url}: ")
    assert text in load
    if b"200" not in answer:
        write = str(await client.ask("SET", "k", 1))
        code = "ERR" if what == "redirect" else "UNKNOWN outcome:"
        assert write.startswith(f"{code} backing {backing.url}: ")
    backing.lie = good
    backing.values[b"k"] = b"2"
    assert await client.ask("GET", "k") == b"2"
    assert place.node.unexpected_count == 0


async def test_a_store_that_is_away(start, backing):
    await backing.stop()
    place = await start(backing=backing.url, strategy="write-through")
    client = await place.client()
    for words in (["GET", "k"], ["SET", "k", 1], ["INCR", "k"], ["MGET", "k", "l"]):
        reply = await client.ask(*words)
        assert isinstance(reply, ReplyError)
        assert str(reply).startswith(f"ERR backing {backing.url}: cannot connect")
    assert await client.ask("EXISTS", "k") == 0


async def test_loads_have_a_limit(start, backing, until):
    place = await start(backing=backing.url, load_limit=3)
    backing.hold = asyncio.Event()
    client, other = await place.client(), await place.client()
    client.send("MGET", "a", "b", "c")
    await until(lambda: place.node.service.waiting.count)
    assert str(await other.ask("GET", "d")) == f"ERR backing {backing.url}: 3 loads are waiting already"
    backing.hold.set()
    assert await client.read() == [None] * 3


async def test_figures(start, backing):
    place = await start(backing=backing.url, strategy="write-behind")
    client = await place.client()
    await client.ask("GET", "k")
    await client.ask("SET", "k", 1)
    info = (await client.ask("INFO", "backing")).decode()
    assert f"backing:{backing.url}\r\nbacking_strategy:write-behind\r\nbacking_loads:1\r\n" in info
    assert "backing_queue_keys:1\r\n" in info
    assert place.node.status()["backing"]["backing_loads"] == 1
    names = {family.name for family in place.node.families()}
    assert {"cache_backing_loads_total", "cache_backing_queue_lag_seconds"} <= names


async def test_a_reset_forgets(start, backing, until):
    place = await start(backing=backing.url, strategy="write-behind", write_behind_lag="1h")
    client = await place.client()
    await client.ask("SET", "k", 1)
    backing.hold = asyncio.Event()
    client.send("GET", "l")
    await until(lambda: place.node.service.waiting.count)
    await place.node.reset()
    assert "nobody waits" in str(await client.read())
    backing.hold.set()
    assert await client.ask("GET", "k") is None
    assert place.node.backing.strategy.unwritten == 0


class TestWritesThatComeLate:
    async def test_a_newer_write_does_not_overtake_one_that_timed_out(self, start, backing, until):
        place = await start(backing=backing.url, strategy="write-through", backing_timeout="100ms", negative_ttl="0")
        client = await place.client()
        await client.ask("SET", "k", "1")
        backing.hold = asyncio.Event()
        hold = backing.hold
        assert str(await client.ask("SET", "k", "2")) == f"UNKNOWN outcome: backing {backing.url}: timed out"
        backing.hold = None
        assert await client.ask("GET", "k") == b"1"  # so it is in the store, still
        refused = f"ERR backing {backing.url}: an earlier write of this key has not ended"
        assert str(await client.ask("SET", "k", "3")) == refused
        assert str(await client.ask("DEL", "k")) == refused
        assert await client.ask("SET", "other", "1") == b"OK"
        hold.set()
        await until(lambda: not place.node.backing.strategy.through.any_uncertain)
        assert await client.ask("GET", "k") == b"2"
        assert await client.ask("SET", "k", "3") == b"OK"
        assert backing.values[b"k"] == b"3"

    async def test_write_behind_waits_with_the_next_one(self, start, backing, until):
        place = await start(
            backing=backing.url, strategy="write-behind", backing_timeout="50ms", write_behind_lag="1ms"
        )
        client = await place.client()
        backing.hold = asyncio.Event()
        await client.ask("SET", "k", "1")
        await until(lambda: backing.asked["PUT"])
        await client.ask("SET", "k", "2")
        hold, backing.hold = backing.hold, None
        await client.ask("SET", "other", "1")
        await until(lambda: b"other" in backing.values)
        assert backing.values == {b"other": b"1"}
        hold.set()
        await until(lambda: not place.node.backing.strategy.unwritten)
        assert backing.values[b"k"] == b"2"


class TestTransactionsAndScripts:
    async def test_a_load_is_no_change_to_who_watches(self, start, backing):
        place = await start(backing=backing.url, strategy="write-through")
        backing.values[b"k"] = b"1"
        client = await place.client()
        await client.ask("WATCH", "k")
        assert await client.ask("GET", "k") == b"1"
        await client.ask("MULTI")
        await client.ask("INCR", "k")
        assert await client.ask("EXEC") == [2]
        assert backing.values == {b"k": b"2"}

    async def test_a_script_is_written_even_if_it_fails_half_way(self, start, backing):
        pytest.importorskip("lupa")
        place = await start(backing=backing.url, strategy="write-through")
        client = await place.client()
        script = "redis.call('SET', KEYS[1], '1') redis.call('SET', 'undeclared', '2') return redis.call('NO', 'SUCH')"
        assert "Unknown Redis command" in str(await client.ask("EVAL", script, 1, "k"))
        assert backing.values == {b"k": b"1", b"undeclared": b"2"}

    async def test_a_refused_transaction_is_an_error_and_not_kept(self, start, backing):
        place = await start(backing=backing.url, strategy="write-through", negative_ttl="0")
        client = await place.client()
        no = b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n"
        backing.lie = lambda method, key: no if (method, key) == ("PUT", b"b") else None
        for words in (["MULTI"], ["SET", "a", 1], ["SET", "b", 1]):
            await client.ask(*words)
        assert str(await client.ask("EXEC")) == f"UNKNOWN outcome: backing {backing.url}: answered 400"
        assert await client.ask("MGET", "a", "b") == [b"1", None]

    async def test_databases_cannot_be_swapped(self, start, backing):
        place = await start(backing=backing.url)
        client = await place.client()
        assert "cannot be swapped" in str(await client.ask("SWAPDB", 1, 0))
        assert await client.ask("SWAPDB", 1, 2) == b"OK"


async def test_who_leaves_in_the_middle_of_a_write_leaves_it_running(start, backing, until):
    place = await start(backing=backing.url, strategy="write-through")
    client, other = await place.client(), await place.client()
    backing.hold = asyncio.Event()
    client.send("SET", "k", "v")
    await until(lambda: backing.asked["PUT"])
    client.writer.close()
    await until(lambda: len(place.node.service.sessions) == 1)
    backing.hold.set()
    assert await other.ask("GET", "k") == b"v"
    assert backing.values == {b"k": b"v"}


async def test_a_client_can_be_freed(start, backing, until):
    place = await start(backing=backing.url, strategy="write-through")
    client, other = await place.client(), await place.client()
    number = await client.ask("CLIENT", "ID")
    backing.hold = asyncio.Event()
    for words in (["GET", "k"], ["SET", "l", "v"]):
        client.send(*words)
        await until(lambda: place.node.service.waiting.count)
        assert await other.ask("CLIENT", "UNBLOCK", number) == 1
        assert "nobody waits" in str(await client.read())
    backing.hold.set()
    assert await client.ask("PING") == b"PONG"


async def test_a_transaction_that_was_refused_is_over(start, backing):
    place = await start(backing=backing.url, strategy="write-behind", write_behind_limit="1kb")
    backing.hold = asyncio.Event()
    client = await place.client()
    assert await client.ask("SET", "k", "x" * 1000) == b"OK"
    assert await client.ask("MULTI") == b"OK"
    assert await client.ask("SET", "l", "v") == b"QUEUED"
    assert str(await client.ask("EXEC")).startswith("EXECABORT Transaction discarded because of: write-behind queue is")
    assert await client.ask("GET", "k") == b"x" * 1000
    backing.hold.set()


async def test_a_transaction_that_is_freed_is_over(start, backing, until):
    place = await start(backing=backing.url, strategy="write-through")
    client, writer, other = [await place.client() for _ in range(3)]
    number = await client.ask("CLIENT", "ID")
    backing.hold = asyncio.Event()
    writer.send("SET", "k", "v")
    await until(lambda: place.node.service.waiting.count == 1)
    assert [await client.ask(*words.split()) for words in ("MULTI", "GET k")] == [b"OK", b"QUEUED"]
    client.send("EXEC")
    await until(lambda: place.node.service.waiting.count == 2)
    assert await other.ask("CLIENT", "UNBLOCK", number) == 1
    assert "nobody waits" in str(await client.read())
    assert "without MULTI" in str(await client.ask("DISCARD"))
    assert await other.ask("CLIENT", "UNBLOCK", waiting_id(place), "ERROR") == 1
    assert "UNKNOWN outcome" in str(await writer.read())  # it has run
    backing.hold.set()


def waiting_id(place):
    """The id of a client that waits."""
    (number,) = [each.id for each in place.node.service.sessions.values() if each.wait is not None]
    return number


async def test_a_stop_answers_who_waits(start, backing, until):
    place = await start(backing=backing.url, strategy="write-through")
    client = await place.client()
    backing.hold = asyncio.Event()
    client.send("SET", "k", "v")
    await until(lambda: backing.asked["PUT"])
    draining = asyncio.create_task(place.node.drain())
    await until(lambda: not place.node.listeners["resp"].accepting)
    backing.hold.set()
    assert await client.read() == b"OK"
    assert await client.closed()
    await draining
