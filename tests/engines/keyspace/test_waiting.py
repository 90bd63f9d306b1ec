"""Who waits for a key: in which order, for how long, and what ends it. All in service time, without a socket."""

import pytest

from minidist.engines.keyspace.outputs import Release, Signal


@pytest.fixture
def replies(world):
    """`replies(client)`: what was sent to it since the last call, for commands that had to wait."""

    def replies(client):
        mine = [each for each in world.service.outbox if isinstance(each, Release) and each.session is client.session]
        world.service.outbox = [each for each in world.service.outbox if each not in mine]
        return b"".join(each.reply for each in mine)

    return replies


def bulks(*values):
    return b"*%d\r\n" % len(values) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in values)


@pytest.fixture
def clients(world):
    return [world.client() for _ in range(4)]


class TestFairness:
    def test_first_come_first_served(self, clients, replies):
        a, b, c, pusher = clients
        for each in (b, c, a):
            assert each.send("BLPOP", "k", 0) == b""
        assert pusher.send("RPUSH", "k", "1", "2") == b":2\r\n"
        assert [replies(b), replies(c), replies(a)] == [bulks(b"k", b"1"), bulks(b"k", b"2"), b""]
        assert pusher.send("RPUSH", "k", "3", "4") == b":2\r\n"
        assert replies(a) == bulks(b"k", b"3")
        assert pusher.send("LRANGE", "k", 0, -1) == bulks(b"4")

    def test_several_elements_at_once_come_as_the_list_then_is(self, clients, replies):
        a, b, _, pusher = clients
        a.send("BLPOP", "k", 0)
        b.send("BRPOP", "k", 0)
        pusher.send("LPUSH", "k", "1", "2", "3")
        assert (replies(a), replies(b)) == (bulks(b"k", b"3"), bulks(b"k", b"1"))

    def test_several_keys_in_the_order_named(self, clients, replies):
        a, _, _, pusher = clients
        a.send("BLPOP", "k1", "k2", "k1", 0)
        pusher.send("MULTI")
        pusher.send("RPUSH", "k2", "two")
        pusher.send("RPUSH", "k1", "one")
        pusher.send("EXEC")
        assert replies(a) == bulks(b"k1", b"one")
        assert pusher.send("EXISTS", "k1", "k2") == b":1\r\n"

    def test_one_who_has_waited_longer_for_another_key_does_not_come_first_for_this_one(self, clients, replies):
        a, b, c, pusher = clients
        a.send("BLPOP", "x", "y", 0)
        b.send("BLPOP", "y", 0)
        c.send("BLPOP", "x", 0)
        pusher.send("RPUSH", "x", "1")
        pusher.send("RPUSH", "y", "2")
        pusher.send("RPUSH", "x", "3")
        assert [replies(a), replies(b), replies(c)] == [bulks(b"x", b"1"), bulks(b"y", b"2"), bulks(b"x", b"3")]

    def test_nobody_is_served_before_a_transaction_ends(self, clients, replies):
        a, b, _, pusher = clients
        a.send("BRPOP", "k", 0)
        b.send("BRPOP", "k", 0)
        pusher.send("MULTI")
        for word in ("1", "2", "3"):
            pusher.send("LPUSH", "k", word)
        pusher.send("LPOP", "k")
        assert pusher.send("EXEC") == b"*4\r\n:1\r\n:2\r\n:3\r\n$1\r\n3\r\n"
        assert (replies(a), replies(b)) == (bulks(b"k", b"1"), bulks(b"k", b"2"))

    def test_what_a_transaction_takes_back_serves_nobody(self, clients, replies):
        a, _, _, pusher = clients
        a.send("BLPOP", "k", 0)
        pusher.send("MULTI")
        pusher.send("RPUSH", "k", "1")
        pusher.send("DEL", "k")
        pusher.send("SET", "k", "text")
        pusher.send("EXEC")
        assert replies(a) == b""
        assert a.session.wait is not None
        pusher.send("DEL", "k")
        pusher.send("RPUSH", "k", "1")
        assert replies(a) == bulks(b"k", b"1")

    def test_thousands_wait_and_each_push_serves_one(self, world, replies):
        pusher, waiting = world.client(), [world.client() for _ in range(2000)]
        for each in waiting:
            each.send("BLPOP", "k", 0)
        for number, each in enumerate(waiting):
            pusher.send("RPUSH", "k", number)
            assert replies(each) == bulks(b"k", b"%d" % number)
        assert not world.keyspace.databases[0].watches
        assert world.service.waiting.count == 0


class TestWhatMakesAKeyReady:
    @pytest.mark.parametrize(
        "steps",
        [
            ["RPUSH other 1", "RENAME other k"],
            ["RPUSH other 1", "RENAMENX other k"],
            ["RPUSH other 1", "COPY other k"],
            ["RPUSH other 1", "LMOVE other k LEFT LEFT"],
            ["RPUSH other 1", "SORT other STORE k"],
            ["SELECT 1", "RPUSH k 1", "MOVE k 0"],
            ["SELECT 1", "RPUSH k 1", "SWAPDB 0 1"],
            ["SET k text", "DEL k", "RPUSH k 1"],
            ["FLUSHALL", "RPUSH k 1"],
            ["MULTI", "RPUSH k 1", "EXEC"],
        ],
        ids=" ".join,
    )
    def test_commands(self, clients, replies, steps):
        a, pusher = clients[:2]
        a.send("BLPOP", "k", 0)
        for step in steps:
            pusher.send(*step.split())
        assert replies(a) == bulks(b"k", b"1")

    def test_a_chain(self, clients, replies):
        a, b, c, pusher = clients
        a.send("BLMOVE", "x", "y", "LEFT", "LEFT", 0)
        b.send("BLMOVE", "y", "z", "LEFT", "LEFT", 0)
        c.send("BLPOP", "z", 0)
        pusher.send("RPUSH", "x", "1")
        assert [replies(a), replies(b), replies(c)] == [b"$1\r\n1\r\n", b"$1\r\n1\r\n", bulks(b"z", b"1")]
        assert pusher.send("DBSIZE") == b":0\r\n"

    def test_a_circle(self, clients, replies):
        a, b, _, pusher = clients
        a.send("BRPOPLPUSH", "x", "y", 0)
        b.send("BRPOPLPUSH", "y", "x", 0)
        pusher.send("RPUSH", "x", "1")
        assert [replies(a), replies(b)] == [b"$1\r\n1\r\n"] * 2
        assert pusher.send("LRANGE", "x", 0, -1) == bulks(b"1")

    def test_onto_itself(self, clients, replies):
        a, _, _, pusher = clients
        a.send("BLMOVE", "x", "x", "LEFT", "RIGHT", 0)
        pusher.send("RPUSH", "x", "1", "2")
        assert replies(a) == b"$1\r\n1\r\n"
        assert pusher.send("LRANGE", "x", 0, -1) == bulks(b"2", b"1")

    def test_a_wrong_destination_costs_nothing(self, clients, replies):
        a, b, _, pusher = clients
        pusher.send("SET", "text", "x")
        a.send("BLMOVE", "k", "text", "LEFT", "LEFT", 0)
        b.send("BLMOVE", "k", "list", "LEFT", "LEFT", 0)
        pusher.send("RPUSH", "k", "1")
        assert replies(a).startswith(b"-WRONGTYPE")
        assert replies(b) == b"$1\r\n1\r\n"
        assert pusher.send("LRANGE", "list", 0, -1) == bulks(b"1")

    def test_other_databases_are_other_keys(self, clients, replies):
        a, _, _, pusher = clients
        a.send("SELECT", 2)
        a.send("BLPOP", "k", 0)
        pusher.send("RPUSH", "k", "0")
        assert replies(a) == b""
        pusher.send("SELECT", 2)
        pusher.send("RPUSH", "k", "2")
        assert replies(a) == bulks(b"k", b"2")


class TestTime:
    @pytest.mark.parametrize(
        ("command", "nothing"),
        [
            ("BLPOP k {}", b"*-1\r\n"),
            ("BRPOP k other {}", b"*-1\r\n"),
            ("BLMOVE k other LEFT LEFT {}", b"$-1\r\n"),
            ("BRPOPLPUSH k other {}", b"$-1\r\n"),
            ("BLMPOP {} 2 k other LEFT COUNT 3", b"*-1\r\n"),
        ],
    )
    def test_a_fraction_of_a_second(self, world, client, replies, command, nothing):
        assert client.send(*command.format("1.5").split()) == b""
        world.wait(1499)
        assert replies(client) == b""
        world.wait(1)
        assert replies(client) == nothing
        assert client.send("PING") == b"+PONG\r\n"

    def test_no_shorter_than_a_millisecond(self, world, client, replies):
        assert client.send("BLPOP", "k", "0.0000001") == b""
        assert replies(client) == b""
        world.wait(1)
        assert replies(client) == b"*-1\r\n"

    def test_zero_is_for_ever(self, world, client, replies):
        client.send("BLPOP", "k", "0")
        world.wait(10**10)
        assert replies(client) == b""

    def test_resp3_answers_null(self, world, client, replies):
        client.send("HELLO", 3)
        client.send("BLPOP", "k", 1)
        world.wait(1000)
        assert replies(client) == b"_\r\n"

    def test_who_was_served_is_not_told_that_time_is_up(self, world, clients, replies):
        a, pusher = clients[:2]
        a.send("BLPOP", "k", 1)
        pusher.send("RPUSH", "k", "1")
        assert replies(a) == bulks(b"k", b"1")
        a.send("BLPOP", "k", 5)
        world.wait(1000)
        assert replies(a) == b""
        world.wait(4000)
        assert replies(a) == b"*-1\r\n"

    def test_many_run_out_of_time_in_steps(self, world, replies):
        waiting = [world.client() for _ in range(1000)]
        for each in waiting:
            each.send("BLPOP", "k", 1)
        world.now_ms += 1000
        world.service.wake(world.now_ms)
        assert 0 < world.service.waiting.count < 1000
        world.wait(0)
        assert world.service.waiting.count == 0
        assert {replies(each) for each in waiting} == {b"*-1\r\n"}

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("inf", b"timeout is out of range"),
            ("-inf", b"timeout is negative"),
            ("0x7FFFFFFFFFFFFF", b"timeout is out of range"),
            ("9223372036854775807", b"timeout is out of range"),
            ("1e400", b"timeout is out of range"),
            ("-1", b"timeout is negative"),
            ("0xg", b"timeout is not a float or out of range"),
            ("0x1p99999", b"timeout is not a float or out of range"),
            ("1_0", b"timeout is not a float or out of range"),
            ("abc", b"timeout is not a float or out of range"),
        ],
    )
    def test_bad_timeouts(self, client, text, problem):
        assert client.send("BLPOP", "k", text) == b"-ERR %b\r\n" % problem
        assert client.send("BLMOVE", "k", "l", "LEFT", "LEFT", text) == b"-ERR %b\r\n" % problem
        assert client.send("BLMPOP", text, 1, "k", "LEFT") == b"-ERR %b\r\n" % problem


class TestEnds:
    def test_unblock(self, clients, replies):
        a, b, _, other = clients
        a.send("BLPOP", "k", 0)
        b.send("BLMOVE", "k", "l", "LEFT", "LEFT", 0)
        assert b"blocked" not in other.send("CLIENT", "UNBLOCK", other.session.id)
        assert other.send("CLIENT", "UNBLOCK", a.session.id) == b":1\r\n"
        assert replies(a) == b"*-1\r\n"
        assert other.send("CLIENT", "UNBLOCK", a.session.id, "TIMEOUT") == b":0\r\n"
        assert other.send("CLIENT", "UNBLOCK", b.session.id, "ERROR") == b":1\r\n"
        assert replies(b) == b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"
        other.send("RPUSH", "k", "1")
        assert other.send("LLEN", "k") == b":1\r\n"

    def test_a_killed_client_gets_nothing_any_more(self, clients, replies):
        a, b, _, other = clients
        a.send("BLPOP", "k", 0)
        b.send("BLPOP", "k", 0)
        other.send("CLIENT", "KILL", "ID", a.session.id)
        other.send("RPUSH", "k", "1")
        assert (replies(a), replies(b)) == (b"", bulks(b"k", b"1"))

    def test_a_client_that_is_gone_gets_nothing(self, world, clients, replies):
        a, b, _, other = clients
        a.send("BLPOP", "k", "l", 0)
        b.send("BLPOP", "k", 0)
        world.service.close(a.session)
        other.send("RPUSH", "k", "1")
        assert (replies(a), replies(b)) == (b"", bulks(b"k", b"1"))
        assert not world.keyspace.databases[0].watches

    def test_what_it_leaves_behind_does_not_grow(self, world, client):
        for _ in range(1000):
            client.send("BLPOP", "k", 1000)
            world.service.release(client.session, b"")
        assert len(world.service.waiting._deadlines) <= 66


class TestOtherStates:
    @pytest.mark.parametrize("key", [b"a", b"k", b"t"])
    def test_pipelines_of_set_go_on_by_column_up_to_a_key_that_is_waited_for(self, world, clients, key):
        from minidist.wire.resp import CommandReader, encode_command

        a, b, _, other = clients
        other.send("SET", "t", "x")
        a.send("BLPOP", "k", 0)
        b.send("WATCH", "t")
        commands, _ = CommandReader().feed(b"".join(encode_command([b"SET", each, b"v"]) for each in (b"a", key, b"z")))
        assert world.service.run(other.session, commands, world.now_ms) == (3, b"+OK\r\n" * 3)
        assert other.send("GET", key) == b"$1\r\nv\r\n"
        b.send("MULTI")
        assert b.send("EXEC") == (b"*-1\r\n" if key == b"t" else b"*0\r\n")

    def test_commands_behind_have_to_wait(self, world, client, replies):
        commands = [(b"BLPOP", b"k", b"1"), (b"SET", b"a", b"1")]
        assert world.service.run(client.session, commands, world.now_ms) == (1, b"")
        assert world.service.run(client.session, commands[1:], world.now_ms) == (0, b"")
        world.wait(1000)
        assert replies(client) == b"*-1\r\n"
        assert world.service.run(client.session, commands[1:], world.now_ms) == (1, b"+OK\r\n")

    def test_pause_delays_the_wait_itself(self, world, clients, replies):
        a, other = clients[:2]
        other.send("CLIENT", "PAUSE", 1000, "WRITE")
        commands = [(b"BLPOP", b"k", b"1")]
        assert world.service.run(a.session, commands, world.now_ms) == (0, b"")
        world.wait(1000)
        assert Signal.RESUME in world.service.outbox
        assert world.service.run(a.session, commands, world.now_ms) == (1, b"")
        world.wait(1000)
        assert replies(a) == b"*-1\r\n"

    def test_time_runs_out_during_a_pause(self, world, clients, replies):
        a, other = clients[:2]
        a.send("BLPOP", "k", 1)
        other.send("CLIENT", "PAUSE", 5000)
        world.wait(1000)
        assert replies(a) == b"*-1\r\n"

    def test_muted_clients(self, clients, replies):
        a, b, _, other = clients
        a.send("CLIENT", "REPLY", "SKIP")
        a.send("BLPOP", "k", 0)
        b.send("CLIENT", "REPLY", "OFF")
        b.send("BLPOP", "k", 0)
        other.send("RPUSH", "k", "1", "2")
        assert (replies(a), replies(b)) == (b"", b"")
        assert other.send("EXISTS", "k") == b":0\r\n"
        assert a.send("PING") == b"+PONG\r\n"

    def test_seen_by_others(self, clients):
        a, other = clients[:2]
        a.send("BLPOP", "k", 0)
        shown = other.send("CLIENT", "LIST", "ID", a.session.id)
        assert b" flags=b " in shown
        assert b" cmd=blpop " in shown

    def test_a_key_that_turns_to_another_type_is_waited_for_still(self, clients, replies):
        a, other = clients[:2]
        a.send("BLPOP", "k", 0)
        other.send("SET", "k", "text")
        assert replies(a) == b""
        other.send("DEL", "k")
        other.send("RPUSH", "k", "1")
        assert replies(a) == bulks(b"k", b"1")

    def test_an_error_on_waking_is_counted(self, clients):
        a, other = clients[:2]
        other.send("SET", "text", "x")
        a.send("BLMOVE", "k", "text", "LEFT", "LEFT", 0)
        other.send("RPUSH", "k", "1")
        assert a.service.table.commands["BLMOVE"].failed_calls == 1
        assert a.service.errors == {"WRONGTYPE": 1}
