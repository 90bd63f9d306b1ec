"""The cache over real sockets: framing, order, back-pressure, time, authentication, faults, figures."""

import pytest

from minidist.runtime.config import ConfigError
from minidist.runtime.endpoint import ListenError
from minidist.wire.resp import encode_command
from minidist.wire.resp_client import ReplyError


async def test_commands_and_replies(start):
    place = await start()
    client = await place.client()
    assert await client.ask("SET", "k", "v") == b"OK"
    assert await client.ask("GET", "k") == b"v"
    assert await client.ask("GET", "nope") is None
    with pytest.raises(ReplyError, match="ERR wrong number of arguments for 'get' command"):
        raise await client.ask("GET")
    client.send_raw(b"ping\r\n")
    assert await client.read() == b"PONG"


async def test_a_unix_socket(start, tmp_path):
    place = await start(listen=f"unix:{tmp_path}/s")
    client = await place.client()
    assert await client.ask("PING") == b"PONG"
    assert b"addr=unix" in await client.ask("CLIENT", "INFO")


async def test_a_port_in_use(start):
    place = await start()
    with pytest.raises(ListenError, match="cannot listen on"):
        await start(listen=str(place.node.address))


class TestFraming:
    async def test_bytes_one_by_one(self, start):
        client = await (await start()).client()
        for byte in encode_command([b"SET", b"k", b"a\r\nb"]) + encode_command([b"GET", b"k"]):
            client.send_raw(bytes([byte]))
            await client.writer.drain()
        assert await client.read() == b"OK"
        assert await client.read() == b"a\r\nb"

    async def test_a_long_pipeline_keeps_its_order(self, start):
        place = await start()
        client, other = await place.client(), await place.client()
        client.send_raw(b"".join(encode_command([b"INCR", b"n"]) for _ in range(20_000)))
        assert await other.ask("PING") == b"PONG"
        assert [await client.read() for _ in range(20_000)] == list(range(1, 20_001))

    async def test_a_long_value(self, start):
        client = await (await start()).client()
        value = bytes(range(256)) * 20_000
        assert await client.ask("SET", "k", value) == b"OK"
        assert await client.ask("GET", "k") == value

    @pytest.mark.parametrize(
        ("wire", "text"),
        [
            (b"*200000000\r\n", "Protocol error: invalid multibulk length"),
            (b"*1\r\n:1\r\n", "Protocol error: expected '$', got ':'"),
            (b"*1\r\n$999999999\r\n", "Protocol error: invalid bulk length"),
            (b'GET "\r\n', "Protocol error: unbalanced quotes in request"),
        ],
    )
    async def test_violations_are_answered_then_the_connection_is_closed(self, start, wire, text):
        client = await (await start()).client()
        client.send_raw(encode_command([b"PING"]) + wire + encode_command([b"PING"]))
        assert await client.read() == b"PONG"
        with pytest.raises(ReplyError, match=text.replace("$", r"\$")):
            raise await client.read()
        assert await client.closed()

    async def test_proto_max_bulk_len_changes_for_open_connections(self, start):
        client = await (await start(max_bulk="1mb")).client()
        assert await client.ask("CONFIG", "SET", "proto-max-bulk-len", "2mb") == b"OK"
        assert await client.ask("SET", "k", b"x" * 1_500_000) == b"OK"
        assert await client.ask("CONFIG", "SET", "proto-max-bulk-len", "1mb") == b"OK"
        with pytest.raises(ReplyError, match="invalid bulk length"):
            raise await client.ask("SET", "k", b"x" * 1_500_000)


class TestEndings:
    async def test_quit(self, start):
        client = await (await start()).client()
        client.send_raw(encode_command([b"QUIT"]) + encode_command([b"PING"]))
        assert await client.read() == b"OK"
        assert await client.closed()

    async def test_kill(self, start, until):
        place = await start()
        client, victim = await place.client(), await place.client()
        number = await victim.ask("CLIENT", "ID")
        assert await client.ask("CLIENT", "KILL", "ID", number) == 1
        assert await victim.closed()
        await until(lambda: len(place.node.service.sessions) == 1)
        assert await client.ask("CLIENT", "KILL", "ID", await client.ask("CLIENT", "ID"), "SKIPME", "no") == 1
        assert await client.closed()

    async def test_too_many_clients(self, start):
        place = await start(max_clients=1)
        client = await place.client()
        assert await client.ask("PING") == b"PONG"
        refused = await place.client()
        with pytest.raises(ReplyError, match="ERR max number of clients reached"):
            raise await refused.read()
        assert await refused.closed()

    async def test_disconnecting_forgets_the_session(self, start, until):
        place = await start()
        client = await place.client()
        await client.ask("WATCH", "k")
        client.writer.close()
        await until(lambda: not place.node.service.sessions)
        assert not place.node.service.keyspace.databases[0].watches

    async def test_draining_closes_idle_clients(self, start):
        place = await start()
        client = await place.client()
        await client.ask("PING")
        await place.node.drain()
        assert await client.closed()


class TestBackPressure:
    async def test_a_client_that_does_not_read_is_not_read_from(self, start, until):
        place = await start()
        client, other = await place.client(), await place.client()
        await client.ask("SET", "big", b"x" * 1_000_000)
        client.send_raw(encode_command([b"GET", b"big"]) * 200)
        connection = next(iter(place.node.listeners["resp"].connections))
        await until(lambda: connection.write_paused)
        for _ in range(50):
            assert await other.ask("PING") == b"PONG"
        assert connection.transport.get_write_buffer_size() < 3_000_000
        assert connection.left
        for _ in range(200):
            assert len(await client.read()) == 1_000_000
        assert await client.ask("PING") == b"PONG"
        assert connection.left is None

    async def test_closing_in_the_middle_of_it(self, start, until):
        place = await start()
        client = await place.client()
        await client.ask("SET", "big", b"x" * 1_000_000)
        client.send_raw(encode_command([b"GET", b"big"]) * 200)
        connection = next(iter(place.node.listeners["resp"].connections))
        await until(lambda: connection.write_paused)
        client.writer.transport.abort()
        await until(lambda: not place.node.service.sessions)


class TestTime:
    async def test_moving_the_clock_expires_keys_at_once(self, start, until):
        place = await start()
        client = await place.client()
        await client.ask("MSET", *[f"{number}" for number in range(200)])
        for number in range(0, 200, 2):
            await client.ask("EXPIRE", number, 3600)
        place.node.clock.advance(3_600_000)
        await until(lambda: place.node.service.keyspace.count == 0)
        assert place.node.service.keyspace.expired_keys == 100

    async def test_a_million_ms_of_lifetimes_is_removed_in_steps(self, start, until):
        place = await start()
        client = await place.client()
        client.send_raw(b"".join(encode_command([b"SET", b"%d" % n, b"v", b"PX", b"5000"]) for n in range(10_000)))
        for _ in range(10_000):
            assert await client.read() == b"OK"
        place.node.clock.advance(5000)
        assert await client.ask("GET", 5) is None
        await until(lambda: place.node.service.keyspace.count == 0)

    async def test_going_back_never_unexpires(self, start):
        place = await start()
        client = await place.client()
        await client.ask("SET", "k", "v", "EX", "10")
        await client.ask("SET", "long", "v", "EX", "100")
        await client.ask("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        place.node.clock.advance(11_000)
        place.node.clock.advance(-11_000)
        assert await client.ask("GET", "k") is None
        assert await client.ask("TTL", "long") > 90

    async def test_an_idle_node_has_no_timer(self, start):
        place = await start()
        client = await place.client()
        assert await client.ask("SET", "k", "v") == b"OK"
        assert place.node._timer is None

    async def test_flushed_memory_is_freed_in_the_background(self, start, until):
        place = await start()
        client = await place.client()
        client.send_raw(b"".join(encode_command([b"SET", b"%d" % number, b"v"]) for number in range(10_000)))
        for _ in range(10_000):
            await client.read()
        assert await client.ask("FLUSHALL") == b"OK"
        assert await client.ask("DBSIZE") == 0
        await until(lambda: place.node.service.keyspace.used_bytes == 0)

    async def test_client_pause(self, start):
        place = await start()
        client, other = await place.client(), await place.client()
        assert await other.ask("CLIENT", "PAUSE", 60_000) == b"OK"
        client.send("SET", "k", "v")
        client.send("GET", "k")
        other.send("PING")
        await client.writer.drain()
        while len(place.node.waiting) < 2:
            await place.client()
        place.node.clock.advance(60_000)
        assert [await client.read(), await client.read(), await other.read()] == [b"OK", b"v", b"PONG"]
        assert await client.ask("PING") == b"PONG"

    async def test_debug_sleep_stops_everybody(self, start, until):
        place = await start()
        client, other = await place.client(), await place.client()
        client.send("DEBUG", "SLEEP", "60")
        await until(lambda: place.node.waiting)
        other.send("PING")
        await until(lambda: len(place.node.waiting) == 2)
        place.node.clock.advance(60_000)
        assert [await client.read(), await other.read()] == [b"OK", b"PONG"]


class TestAuthentication:
    @pytest.fixture
    def auth_file(self, tmp_path):
        (tmp_path / "auth").write_text("default:secret\nann:pw\n")
        return str(tmp_path / "auth")

    async def test_strangers_and_users(self, start, auth_file):
        place = await start(auth_file=auth_file)
        client = await place.client()
        with pytest.raises(ReplyError, match="NOAUTH"):
            raise await client.ask("GET", "k")
        assert await client.ask("AUTH", "ann", "pw") == b"OK"
        assert await client.ask("GET", "k") is None

    async def test_what_follows_auth_in_the_same_read(self, start, auth_file):
        place = await start(auth_file=auth_file)
        client = await place.client()
        commands = [
            [b"PING"],
            [b"AUTH", b"secret"],
            [b"SET", b"k", b"x" * 50_000],
            [b"MSET", *[b"a"] * 30],
            [b"GET", b"k"],
        ]
        client.send_raw(b"".join(encode_command(command) for command in commands))
        assert isinstance(await client.read(), ReplyError)
        assert [await client.read() for _ in range(3)] == [b"OK"] * 3
        assert await client.read() == b"x" * 50_000
        assert await client.ask("SET", "k", b"x" * 50_000) == b"OK"

    async def test_what_follows_auth_that_comes_first(self, start, auth_file):
        place = await start(auth_file=auth_file)
        client = await place.client()
        commands = [[b"AUTH", b"secret"], [b"SET", b"k", b"x" * 50_000], [b"STRLEN", b"k"]]
        client.send_raw(b"".join(encode_command(command) for command in commands))
        assert [await client.read() for _ in range(3)] == [b"OK", b"OK", 50_000]

    async def test_no_stranger_any_more_by_what_another_did(self, start, auth_file):
        place = await start(auth_file=auth_file)
        stranger, client = await place.client(), await place.client()
        with pytest.raises(ReplyError, match="NOAUTH"):
            raise await stranger.ask("GET", "k")
        await client.ask("AUTH", "secret")
        assert await client.ask("ACL", "SETUSER", "default", "nopass", "on") == b"OK"
        assert await stranger.ask("SET", "k", b"x" * 50_000) == b"OK"

    async def test_a_file_of_rules(self, start, tmp_path):
        path = tmp_path / "users"
        path.write_text("user default on nopass ~* &* +@all\nuser ann on >pw ~a +get +acl|whoami\n")
        path.chmod(0o600)
        place = await start(auth_file=str(path))
        client, ann = await place.client(), await place.client()
        assert await ann.ask("AUTH", "ann", "pw") == b"OK"
        with pytest.raises(ReplyError, match="No permissions to access a key"):
            raise await ann.ask("GET", "b")
        assert await client.ask("ACL", "SETUSER", "ann", "~b") == b"OK"
        assert await ann.ask("GET", "b") is None
        assert await client.ask("ACL", "SAVE") == b"OK"
        assert "pw" not in path.read_text()
        assert path.stat().st_mode & 0o777 == 0o600
        await client.ask("ACL", "DELUSER", "ann")
        assert await ann.closed()
        assert await client.ask("ACL", "LOAD") == b"OK"
        ann = await place.client()
        assert await ann.ask("AUTH", "ann", "pw") == b"OK"
        assert await ann.ask("GET", "b") is None
        await place.node.reset()
        assert await ann.ask("ACL", "WHOAMI") == b"ann"

    async def test_a_rule_that_is_wrong_is_wrong_configuration(self, start, tmp_path):
        (tmp_path / "auth").write_text("user ann +nosuch\n")
        with pytest.raises(ConfigError, match="line 1 Error in ACL SETUSER modifier"):
            await start(auth_file=str(tmp_path / "auth"))

    async def test_strangers_are_limited(self, start, auth_file):
        place = await start(auth_file=auth_file)
        client = await place.client()
        client.send_raw(b"*1\r\n$20000\r\n")
        with pytest.raises(ReplyError, match="unauthenticated bulk length"):
            raise await client.read()
        assert await client.closed()

    async def test_a_bad_auth_file_is_wrong_configuration(self, start, tmp_path):
        (tmp_path / "auth").write_text("nonsense\n")
        with pytest.raises(ConfigError, match="line 1 is not user:password"):
            await start(auth_file=str(tmp_path / "auth"))
        with pytest.raises(ConfigError, match=r"--auth-file: given .*missing.*, allowed: a readable file"):
            await start(auth_file=str(tmp_path / "missing"))

    async def test_off_loopback_only_with_authentication(self, start):
        with pytest.raises(ConfigError, match="--auth-file"):
            await start(listen="0.0.0.0:0")


class TestReset:
    async def test_everything_is_as_new_but_connections_stay(self, start, until):
        place = await start(databases=4)
        client = await place.client()
        await client.ask("SET", "k", "v")
        await client.ask("SELECT", 3)
        await client.ask("CONFIG", "SET", "maxmemory", "1mb", "maxmemory-policy", "noeviction", "requirepass", "x")
        await client.ask("MULTI")
        place.node.clock.advance(5000)
        await place.node.reset()
        assert place.node.clock.offset_ms == 0
        assert await client.ask("GET", "k") is None
        assert await client.ask("CONFIG", "GET", "maxmemory") == [b"maxmemory", b"1073741824"]
        assert await client.ask("CONFIG", "GET", "maxmemory-policy") == [b"maxmemory-policy", b"allkeys-lru"]
        assert await client.ask("CONFIG", "GET", "requirepass") == [b"requirepass", b""]
        assert b"db=0" in await client.ask("CLIENT", "INFO")
        assert place.node.service.keyspace.hits == 0

    async def test_paused_clients_go_on(self, start, until):
        place = await start()
        client, other = await place.client(), await place.client()
        await other.ask("CLIENT", "PAUSE", 60_000)
        client.send("PING")
        await until(lambda: place.node.waiting)
        await place.node.reset()
        assert await client.read() == b"PONG"


class TestFaults:
    async def test_a_scripted_reply(self, start):
        place = await start()
        client = await place.client()
        await client.ask("SET", "k", "v")
        await place.node.add_fault({"kind": "reply", "match": "GET", "error": "ERR busy", "times": 2})
        for _ in range(2):
            with pytest.raises(ReplyError, match="ERR busy"):
                raise await client.ask("GET", "k")
        assert await client.ask("GET", "k") == b"v"

    async def test_a_scripted_reply_keeps_its_place(self, start, until):
        place = await start()
        client = await place.client()
        await client.ask("SET", "big", b"x" * 1_000_000)
        client.send_raw(encode_command([b"GET", b"big"]) * 50)
        connection = next(iter(place.node.listeners["resp"].connections))
        await until(lambda: connection.write_paused)
        await place.node.add_fault({"kind": "reply", "match": "ECHO", "error": "ERR busy"})
        client.send("ECHO", "x")
        client.send("PING")
        assert [len(await client.read()) for _ in range(50)] == [1_000_000] * 50
        with pytest.raises(ReplyError, match="ERR busy"):
            raise await client.read()
        assert await client.read() == b"PONG"

    async def test_in_the_middle_of_a_request(self, start, until):
        place = await start()
        client = await place.client()
        client.send_raw(b"*2\r\n$3\r\nGET\r\n")
        connection_of = place.node.listeners["resp"].connections
        await until(lambda: connection_of and next(iter(connection_of)).mid_request())
        await place.node.add_fault({"kind": "reply", "match": "GET", "error": "ERR busy"})
        client.send_raw(b"$1\r\nk\r\n")
        assert await client.read() is None
        with pytest.raises(ReplyError, match="ERR busy"):
            raise await client.ask("GET", "k")

    async def test_clients_are_known_by_their_name(self, start):
        place = await start()
        worker, web = await place.client(), await place.client()
        assert await worker.ask("CLIENT", "SETNAME", "worker") == b"OK"
        assert await web.ask("HELLO", "3", "SETNAME", "web")
        await place.node.add_fault({"kind": "reply", "match": "GET", "error": "ERR busy", "peer": "client:worker"})
        with pytest.raises(ReplyError, match="ERR busy"):
            raise await worker.ask("GET", "k")
        assert await web.ask("GET", "k") is None


class TestFigures:
    async def test_status(self, start):
        place = await start()
        client = await place.client()
        await client.ask("SET", "k", "v")
        await client.ask("GET", "k")
        await client.ask("GET", "nope")
        status = place.node.status()
        assert (status["keys"], status["clients"]) == (1, 1)
        assert status["figures"]["requests_total"] == 3
        assert status["figures"]["hits_total"] == status["figures"]["misses_total"] == 1
        assert 0 < status["figures"]["p99_ms"] < 1000

    async def test_metrics(self, start):
        from prometheus_client.parser import text_string_to_metric_families

        from minidist.runtime.metrics import exposition

        place = await start()
        client = await place.client()
        await client.ask("SET", "k", "v")
        await client.ask("INCR", "k")
        families = {each.name: each for each in text_string_to_metric_families(exposition(place.node.all_families()))}
        calls = {sample.labels["command"]: sample.value for sample in families["minidist_cache_commands"].samples}
        assert calls == {"set": 1, "incr": 1}
        assert families["minidist_cache_keys"].samples[0].value == 1
        assert families["minidist_cache_errors"].samples[0].labels == {"code": "ERR"}
        assert families["minidist_cache_service_seconds"].samples[-1].value > 0

    async def test_info(self, start):
        place = await start()
        client = await place.client()
        await client.ask("SET", "k", "v", "EX", 100)
        text = (await client.ask("INFO")).decode()
        assert "redis_version:7.2" in text
        assert "minidist_version:" in text
        assert f"tcp_port:{place.node.address.port}\r\n" in text
        assert "db0:keys=1,expires=1,avg_ttl=0\r\n" in text
        assert "maxmemory_policy:allkeys-lru\r\n" in text
        assert "cmdstat_" not in text
        assert "cmdstat_set:calls=1," in (await client.ask("INFO", "commandstats")).decode()
        assert (await client.ask("INFO", "nosuch")) == b""
        assert "# Memory" in (await client.ask("INFO", "memory", "stats")).decode()
        assert "cmdstat_info:" in (await client.ask("INFO", "everything")).decode()
