"""The order of checks, pauses, muted replies, authentication: what happens around a command."""

import pytest

from minidist.engines.keyspace.acl import shown_users
from minidist.engines.keyspace.acl_rules import add_from_line
from minidist.engines.keyspace.commands import all_commands
from minidist.engines.keyspace.outputs import Admitted, End, Named, Signal
from minidist.engines.keyspace.users import Users, hashed

SECRET = {b"default": b"secret", b"ann": b"pw"}


def parse(text: str) -> Users:
    return Users.parse(text, lambda users, words: add_from_line(users, words, all_commands()))


def run(client, *commands: str) -> tuple[int, bytes]:
    """Several commands of one read: how many were run, and the replies."""
    return client.service.run(client.session, [tuple(c.encode().split()) for c in commands], client.world.now_ms)


class TestAuthentication:
    @pytest.fixture
    def stranger(self, world):
        world.service.users = Users(dict(SECRET))
        return world.client()

    def test_nothing_without_it(self, stranger):
        assert stranger.show("GET", "a") == "!NOAUTH Authentication required."
        assert stranger.show("MULTI") == "!NOAUTH Authentication required."
        assert stranger.show("CLIENT", "LIST") == "!NOAUTH Authentication required."
        assert stranger.show("HELLO", "3").startswith("!NOAUTH HELLO must be called")
        assert stranger.show("NOSUCH").startswith("!ERR unknown command")
        assert stranger.show("GET") == "!ERR wrong number of arguments for 'get' command"

    def test_with_password(self, stranger, world):
        assert stranger.show("AUTH", "wrong").startswith("!WRONGPASS")
        assert stranger.show("AUTH", "secret") == "OK"
        assert world.service.outbox == [Admitted(stranger.session)]
        assert stranger.show("GET", "a") == "nil"
        assert world.service.denied["auth"] == 1

    def test_with_user_and_password(self, stranger):
        assert stranger.show("AUTH", "ann", "secret").startswith("!WRONGPASS")
        assert stranger.show("AUTH", "ann", "pw") == "OK"
        assert " user=ann " in stranger.show("CLIENT", "INFO")

    def test_in_hello(self, stranger):
        assert stranger.show("HELLO", "3", "AUTH", "ann", "no").startswith("!WRONGPASS")
        assert not stranger.session.resp3
        assert '"proto": 3' in stranger.show("HELLO", "3", "AUTH", "default", "secret", "SETNAME", "me")
        assert stranger.show("CLIENT", "GETNAME") == '"me"'

    def test_reset_takes_it_away(self, stranger):
        stranger.send("AUTH", "secret")
        assert stranger.show("RESET") == "RESET"
        assert stranger.show("GET", "a") == "!NOAUTH Authentication required."

    @pytest.mark.parametrize("text", ["", "# only comments\n", "nopassword\n", "user:\n", ":password\n"])
    def test_files_that_are_refused(self, text):
        with pytest.raises(ValueError, match=r"line|no user"):
            parse(text)

    def test_a_file(self):
        users = parse("# people\n\nann:p:w\ndefault:x\n")
        assert users.accepted(b"ann", b"p:w") is users.by_name[b"ann"]
        assert users.accepted(b"default", b"x") is users.default
        assert users.accepted(b"default", b"p:w") is None
        assert not users.default.restricted

    def test_a_file_with_rules(self):
        users = parse("ann:pw\nuser bob on >bo ~b:* (+get ~x) +@read\n")
        assert shown_users(users)[1] == (
            b"user bob on sanitize-payload #" + hashed(b"bo") + b" ~b:* resetchannels -@all +@read "
            b"(~x resetchannels -@all +get)"
        )
        assert users.accepted(b"bob", b"bo").restricted
        assert not users.default.enabled
        with pytest.raises(ValueError, match=r"line 1 Error in ACL SETUSER modifier 'nonsense': Syntax error"):
            parse("user bob nonsense\n")
        with pytest.raises(ValueError, match="line 2 defines the user 'bob' again"):
            parse("user bob on\nuser bob off\n")

    def test_the_default_user_of_a_file_is_off_unless_it_is_named(self):
        assert parse("user bob on\n").password_needed
        assert parse("user default on >x ~* &* +@all\n").accepted(b"default", b"x")
        assert not parse("user default on nopass ~* &* +@all\n").password_needed


class TestPausing:
    def test_everything_waits(self, world, client):
        other = world.client()
        assert client.show("CLIENT", "PAUSE", "1000") == "OK"
        assert run(other, "GET a", "GET b") == (0, b"")
        assert run(client, "PING") == (0, b"")
        world.wait(999)
        assert run(other, "GET a") == (0, b"")
        world.wait(1)
        assert Signal.RESUME in world.service.outbox
        assert run(other, "GET a", "GET b") == (2, b"$-1\r\n" * 2)

    def test_only_writes_wait(self, world, client):
        other = world.client()
        client.send("CLIENT", "PAUSE", "1000", "WRITE")
        assert run(other, "GET a", "SET a 1", "GET a") == (1, b"$-1\r\n")
        assert run(other, "MULTI", "SET a 1") == (2, b"+OK\r\n+QUEUED\r\n")
        assert run(other, "EXEC") == (0, b"")
        assert client.show("CLIENT", "UNPAUSE") == "OK"
        assert run(other, "EXEC") == (1, b"*1\r\n+OK\r\n")
        assert not other.session.gated

    def test_a_longer_pause_is_not_shortened(self, world, client):
        client.send("CLIENT", "PAUSE", "1000", "WRITE")
        client.send("CLIENT", "PAUSE", "10", "WRITE")
        world.wait(500)
        assert run(client, "SET a 1") == (0, b"")

    def test_debug_sleep_answers_when_it_is_over(self, world, client):
        other = world.client()
        assert run(client, "DEBUG SLEEP 1.5", "PING") == (0, b"")
        assert run(other, "PING") == (0, b"")
        world.wait(1500)
        assert run(client, "DEBUG SLEEP 1.5", "PING") == (2, b"+OK\r\n+PONG\r\n")
        assert run(other, "PING") == (1, b"+PONG\r\n")

    def test_the_alarm_tells_when(self, world, client):
        client.send("CLIENT", "PAUSE", "1000")
        assert Signal.ALARM in world.service.outbox
        assert world.keyspace.alarm_ms == world.now_ms + 1000


class TestReplies:
    def test_off_and_on(self, client):
        assert run(client, "CLIENT REPLY OFF", "SET a 1", "NOSUCH", "GET", "CLIENT REPLY ON") == (5, b"+OK\r\n")
        assert client.show("GET", "a") == '"1"'
        assert not client.session.gated

    def test_skip_is_for_one(self, client):
        assert run(client, "CLIENT REPLY SKIP", "SET a 1", "GET a") == (3, b"$1\r\n1\r\n")

    def test_a_long_reply_ends_the_run(self, client):
        client.send("SET", "a", b"x" * 20_000)
        assert run(client, "GET a", "GET a")[0] == 1

    def test_nothing_after_quit(self, client):
        assert run(client, "QUIT", "SET a 1") == (2, b"+OK\r\n")
        assert client.session.ended


class TestClients:
    def test_kill_by_id_address_and_user(self, world, client):
        victims = [world.client() for _ in range(3)]
        for number, victim in enumerate(victims):
            victim.session.carrier = type("Carrier", (), {"peer": f"10.0.0.{number}:1", "local": "l"})()
        assert client.show("CLIENT", "KILL", "ID", victims[0].session.id) == "1"
        assert client.show("CLIENT", "KILL", "10.0.0.1:1") == "OK"
        assert client.show("CLIENT", "KILL", "ADDR", "10.0.0.2:1", "USER", "default", "TYPE", "normal") == "1"
        assert world.service.outbox == [End(victim.session, at_once=True) for victim in victims]
        assert all(victim.session.ended for victim in victims)

    def test_killing_oneself_still_answers(self, world, client):
        assert client.show("CLIENT", "KILL", "ID", client.session.id) == "0"
        assert client.show("CLIENT", "KILL", "ID", client.session.id, "SKIPME", "no") == "1"
        assert client.session.ended
        assert world.service.outbox == []

    def test_list_and_info(self, world, client):
        other = world.client()
        other.send("CLIENT", "SETNAME", "other")
        other.send("CLIENT", "SETINFO", "LIB-NAME", "redis-py")
        other.send("CLIENT", "SETINFO", "lib-ver", "8")
        other.send("SELECT", 3)
        other.send("MULTI")
        other.send("GET", "a")
        world.now_ms += 5000
        lines = client.show("CLIENT", "LIST").strip('"').split("\\n")
        fields = dict(pair.split("=", 1) for pair in lines[1].split())
        assert len(lines) == 3
        assert fields["name"] == "other"
        assert (fields["db"], fields["multi"], fields["cmd"], fields["flags"]) == ("3", "1", "get", "x")
        assert (fields["lib-name"], fields["lib-ver"], fields["age"], fields["idle"]) == ("redis-py", "8", "5", "5")
        assert f"id={other.session.id} " in client.show("CLIENT", "LIST", "ID", other.session.id)
        assert client.show("CLIENT", "LIST", "TYPE", "pubsub") == '""'
        assert "cmd=client|info" in client.show("CLIENT", "INFO")

    @pytest.mark.parametrize("bad", [["LIB-NAME", "a b"], ["FOO", "x"]])
    def test_bad_library_names(self, client, bad):
        assert client.show("CLIENT", "SETINFO", *bad).startswith("!ERR")

    def test_names_are_told_to_the_shell(self, world, client):
        client.send("CLIENT", "SETNAME", "me")
        assert world.service.outbox == [Named(client.session)]

    def test_closing_forgets_watches(self, world, client):
        client.send("WATCH", "a")
        assert world.keyspace.databases[0].watches
        world.service.close(client.session)
        assert not world.keyspace.databases[0].watches
        assert not world.service.sessions


class TestHelpAndStatistics:
    def test_every_container_has_help(self, world, client):
        for row in world.service.table.commands.values():
            if row.is_container:
                assert f"{row.name} <subcommand>" in client.show(row.name, "HELP")

    def test_calls_are_counted_by_outcome(self, world, client):
        run(client, "GET a", "GET a", "GET", "INCR a", "SET a x", "INCR a", "CLIENT ID")
        commands = world.service.table.commands
        assert (commands["GET"].calls, commands["GET"].rejected_calls) == (2, 1)
        assert (commands["INCR"].calls, commands["INCR"].failed_calls) == (2, 1)
        assert commands["CLIENT"].subcommands["ID"].calls == 1
        assert world.service.errors == {"ERR": 2}
        assert world.service.commands_run == 6
        client.send("CONFIG", "RESETSTAT")
        assert commands["GET"].calls == 0

    def test_each_node_counts_for_itself(self, world):
        other = type(world)()
        other.client().send("PING")
        assert world.service.commands_run == 0

    def test_debug_error_is_counted_like_any_other(self, world, client):
        assert client.show("DEBUG", "ERROR", "WRONGPASS so it is") == "!WRONGPASS so it is"
        assert world.service.errors == {"WRONGPASS": 1}

    def test_unknown_commands_quote_at_most_128_bytes(self, client):
        shown = client.show("NOSUCH", "a" * 100, "b" * 100, "c" * 100)
        assert shown == f"!ERR unknown command 'NOSUCH', with args beginning with: '{'a' * 100}' '{'b' * 25}' "
        assert "\r" not in client.show("NO\r\nSUCH", "a\r\nb")


def test_memory_usage_counts_what_a_key_takes(world, client):
    client.send("SET", "key", b"x" * 1000, "EX", 100)
    assert client.show("MEMORY", "USAGE", "key") == str(world.keyspace.used_bytes)
