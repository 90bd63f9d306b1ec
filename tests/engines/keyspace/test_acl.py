"""What users' rules do to their clients: on every path on which commands run, and when rules change under a client."""

import importlib.util
import subprocess
import sys

import pytest

from minidist.engines.keyspace.acl_log import AccessLog
from minidist.engines.keyspace.acl_rules import add_from_line
from minidist.engines.keyspace.commands import all_commands
from minidist.engines.keyspace.outputs import Admitted, End, Push, Release
from minidist.engines.keyspace.users import Users
from minidist.wire.resp import CommandReader, encode_command

has_lua = pytest.mark.skipif(importlib.util.find_spec("lupa") is None, reason="Lua is not installed")
NO_KEY = "!NOPERM No permissions to access a key"


@pytest.fixture
def user(world, client):
    """A client of a user with these rules, who is called u."""

    def user(*rules):
        client.send("ACL", "SETUSER", "u", "reset", "on", "nopass", *rules)
        mine = world.client()
        assert mine.show("AUTH", "u", "x") == "OK"
        return mine

    return user


def refused(command: str) -> str:
    return f"!NOPERM User u has no permissions to run the '{command}' command"


class TestEveryPath:
    """Whatever way a command takes, it is checked; and nothing is for those who may do everything."""

    def test_the_default_user_is_not_looked_at(self, client):
        assert not client.session.gated
        client.send("ACL", "SETUSER", "u", "on")
        assert not client.session.gated

    def test_nothing_is_loaded_before_it_is_needed(self):
        code = (
            "import sys, minidist.components.cache.server\n"
            "names = [name for name in sys.modules if name.startswith('minidist.')]\n"
            "print(*[name for name in names if 'acl' in name or 'key_access' in name or 'categories' in name])"
        )
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert shown.stdout.split() == []

    def test_one_command_alone(self, user, world):
        mine = user("+get", "~a")
        assert world.service.run_directly(mine.session, (b"GET", b"b"), world.now_ms) is None
        assert mine.show("GET", "a") == "nil"
        assert mine.show("GET", "b") == NO_KEY
        assert mine.show("get", "b") == NO_KEY
        assert mine.show("SET", "a", "1") == refused("set")

    def test_pipelines(self, user, world):
        mine = user("+get", "+set", "%R~a", "%W~b")
        reader = CommandReader()
        for words, expected in (((b"GET", b"b"), NO_KEY), ((b"SET", b"a", b"1"), NO_KEY), ((b"DEL", b"a"), None)):
            commands, _ = reader.feed(encode_command(words) * 20)
            done, replies = world.service.run(mine.session, commands, world.now_ms)
            assert done == 20
            assert replies == (f"-{(expected or refused('del'))[1:]}\r\n" * 20).encode()

    def test_users_with_equal_rights_are_not_looked_at_either(self, user):
        assert not user("~*", "&*", "+@all").session.gated
        assert not user("(~* &* +@all)").session.gated
        assert user("~*", "&*", "+@all", "-get", "+get").session.gated

    def test_rules_reach_clients_that_are_there(self, client, user):
        mine = user("~*", "&*", "+@all")
        client.send("ACL", "SETUSER", "u", "-get")
        assert mine.show("GET", "a") == refused("get")
        client.send("ACL", "SETUSER", "u", "+@all")
        assert mine.show("GET", "a") == "nil"
        assert not mine.session.gated

    def test_the_default_user_may_be_restricted(self, client):
        assert client.show("ACL", "SETUSER", "default", "-flushall") == "OK"
        assert client.show("FLUSHALL").startswith("!NOPERM User default has no permissions")

    def test_what_one_needs_to_come_in_is_always_allowed(self, user):
        mine = user()
        assert mine.show("PING") == refused("ping")
        assert mine.show("RESET") == "RESET"
        assert mine.show("ACL", "WHOAMI") == '"default"'
        assert user().show("HELLO", "2").startswith("[")
        assert user().show("QUIT") == "OK"

    def test_refusals_are_counted(self, world, user):
        mine = user("+get", "~a", "+publish")
        mine.send("SET", "a", 1)
        mine.send("GET", "b")
        mine.send("PUBLISH", "c", "m")
        mine.send("AUTH", "u2", "x")
        assert world.service.denied == {"auth": 1, "command": 1, "key": 1, "channel": 1}
        assert world.service.table.commands["SET"].rejected_calls == 1


class TestTransactions:
    def test_a_refusal_spoils_it(self, user):
        mine = user("+multi", "+exec", "+get", "~a")
        mine.send("MULTI")
        assert mine.show("GET", "a") == "QUEUED"
        assert mine.show("GET", "b") == NO_KEY
        assert mine.show("EXEC").startswith("!EXECABORT")

    def test_rights_that_shrink_before_exec(self, client, user):
        mine = user("+multi", "+exec", "+get", "+ping", "~a")
        for words in (["MULTI"], ["GET", "a"], ["PING"]):
            mine.send(*words)
        client.send("ACL", "SETUSER", "u", "resetkeys", "-ping")
        changed = "!NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. "
        changed += "This command is no longer allowed for the following reason: "
        assert mine.show("EXEC") == (
            f"[{changed}no permission to touch the specified keys, "
            f"{changed}no permission to execute the command or subcommand]"
        )
        assert '"context", "multi", "object", "ping"' in client.show("ACL", "LOG", 1)


@has_lua
class TestScripts:
    def test_commands_of_a_script_are_checked(self, client, user):
        mine = user("+eval", "+get", "~a")
        assert mine.show("EVAL", "return redis.call('GET', 'a')", 0) == "nil"
        assert mine.show("EVAL", "return redis.call('GET', 'b')", 0).startswith(
            "!ERR ACL failure in script: No permissions to access a key script: "
        )
        shown = mine.show("EVAL", "return redis.pcall('SET', 'a', 1).err", 0)
        assert shown == "\"ERR ACL failure in script: User u has no permissions to run the 'set' command\""
        logged = client.show("ACL", "LOG", 1)
        assert '"context", "lua", "object", "set"' in logged
        assert " cmd=eval user=u " in logged

    def test_keys_of_a_script_must_be_writable(self, user):
        mine = user("+eval", "%R~a", "~b")
        assert mine.show("EVAL", "return 1", 1, "a") == NO_KEY
        assert mine.show("EVAL", "return 1", 1, "b") == "1"

    def test_scripts_may_ask(self, user):
        mine = user("+eval", "+get", "~a", "-client", "+client|id")
        asked = [
            mine.show("EVAL", f"return tostring(redis.acl_check_cmd({words}))", 0)
            for words in ("'get', 'a'", "'get', 'b'", "'set', 'a', '1'", "'client', 'id'", "'client', 'list'", "'get'")
        ]
        assert asked == ['"true"', '"false"', '"false"', '"true"', '"false"', '"true"']
        shown = mine.show("EVAL", "return redis.acl_check_cmd('client', 'nosuch')", 0)
        assert shown.startswith("!ERR Invalid command passed to redis.acl_check_cmd()")


class TestMessages:
    def test_channels(self, user):
        mine = user("+@pubsub", "&news.*", "&x")
        mine.session.speak(True)
        assert mine.show("SUBSCRIBE", "news.a") == '<"subscribe", "news.a", 1>'
        no_channel = "!NOPERM No permissions to access a channel"
        assert mine.show("SUBSCRIBE", "x", "y") == no_channel
        assert mine.show("SSUBSCRIBE", "y") == no_channel
        assert mine.show("PUBLISH", "y", "m") == no_channel
        assert mine.show("SPUBLISH", "y", "m") == no_channel
        assert mine.show("PSUBSCRIBE", "news.a") == no_channel  # patterns must be allowed word by word
        assert mine.show("PSUBSCRIBE", "news.*") == '<"psubscribe", "news.*", 2>'
        assert mine.show("UNSUBSCRIBE", "y") == '<"unsubscribe", "y", 2>'

    @pytest.mark.parametrize(
        ("kind", "name"), [("SUBSCRIBE", "news.a"), ("PSUBSCRIBE", "news.*"), ("SSUBSCRIBE", "news.a")]
    )
    def test_subscribers_are_cut_off_when_rights_shrink(self, world, client, user, kind, name):
        mine, idle = user("+@pubsub", "&news.*"), world.client()
        idle.send("AUTH", "u", "x")
        mine.send(kind, name)
        world.service.outbox.clear()
        client.send("ACL", "SETUSER", "u", "&other")
        assert world.service.outbox == []
        client.send("ACL", "SETUSER", "u", "resetchannels", "(&news.*)")
        assert world.service.outbox == []
        client.send("ACL", "SETUSER", "u", "clearselectors", "&other")
        assert world.service.outbox == [End(mine.session, at_once=True)]
        assert mine.session.ended
        assert not idle.session.ended

    def test_one_who_cuts_himself_off_gets_his_reply(self, world, client):
        client.session.speak(True)
        client.send("SUBSCRIBE", "a")
        assert client.show("ACL", "SETUSER", "default", "resetchannels") == "OK"
        assert client.session.ended
        assert world.service.outbox == []


class TestWaiting:
    def test_rights_that_shrink_while_one_waits(self, world, client, user):
        mine = user("+blpop", "~a")
        assert mine.send("BLPOP", "a", 0) == b""
        client.send("ACL", "SETUSER", "u", "resetkeys")
        client.send("RPUSH", "a", "x")
        assert Release(mine.session, f"-{NO_KEY[1:]}\r\n".encode()) in world.service.outbox
        assert client.show("LLEN", "a") == "1"

    def test_somebody_else_gets_it(self, world, client, user):
        mine, other = user("+blpop", "~a"), world.client()
        mine.send("BLPOP", "a", 0)
        other.send("BLPOP", "a", 0)
        client.send("ACL", "DELUSER", "u")
        assert End(mine.session, at_once=True) in world.service.outbox
        client.send("RPUSH", "a", "x")
        assert any(isinstance(each, Release) and each.session is other.session for each in world.service.outbox)


class TestUsers:
    def test_deleting_one_disconnects_its_clients(self, world, client, user):
        mine, other = user("~*"), world.client()
        world.service.outbox.clear()
        assert client.show("ACL", "DELUSER", "u", "nobody") == "1"
        assert world.service.outbox == [End(mine.session, at_once=True)]
        assert not other.session.ended

    def test_deleting_oneself_still_answers(self, user):
        mine = user("~*", "+@all")
        assert mine.show("ACL", "DELUSER", "u") == "1"
        assert mine.session.ended

    def test_when_no_password_is_needed_any_more(self, world, client):
        world.service.users.require(b"x")
        stranger = world.client()
        assert stranger.show("GET", "a").startswith("!NOAUTH")
        client.send("ACL", "SETUSER", "default", "nopass")
        assert Admitted(stranger.session) in world.service.outbox
        assert stranger.show("GET", "a") == "nil"

    def test_one_who_is_off_stays_but_does_not_come_in(self, client, user):
        mine = user("+ping")
        client.send("ACL", "SETUSER", "u", "off")
        assert mine.show("PING") == "PONG"
        assert mine.show("AUTH", "u", "x").startswith("!WRONGPASS")

    def test_a_wrong_rule_changes_nothing(self, client):
        client.send("ACL", "SETUSER", "u", "on", "+get")
        assert client.show("ACL", "SETUSER", "u", "off", "+set", "nonsense").startswith("!ERR Error in ACL SETUSER")
        assert " on sanitize-payload resetchannels -@all +get" in client.show("ACL", "LIST")

    def test_sort_looks_at_other_keys_only_with_rights_to_all(self, client, user):
        client.send("RPUSH", "a", 2, 1)
        mine = user("+sort", "~a")
        assert mine.show("SORT", "a") == '["1", "2"]'
        assert mine.show("SORT", "a", "BY", "nosort") == '["2", "1"]'
        denied = "option of SORT denied due to insufficient ACL permissions."
        assert mine.show("SORT", "a", "BY", "w_*") == f"!ERR BY {denied}"
        assert mine.show("SORT", "a", "GET", "#") == f"!ERR GET {denied}"
        client.send("ACL", "SETUSER", "u", "%R~*")
        assert mine.show("SORT", "a", "GET", "#") == '["1", "2"]'
        assert mine.show("SORT", "a", "STORE", "b") == NO_KEY

    def test_passwords_are_made_of_as_many_bits(self, client):
        assert [len(client.show("ACL", "GENPASS", *bits)) - 2 for bits in ([], [1], [5], [4096])] == [64, 1, 2, 1024]
        assert client.show("ACL", "GENPASS") != client.show("ACL", "GENPASS")

    def test_rules_may_name_what_only_redis_has(self, client):
        assert client.show("ACL", "SETUSER", "u", "+@all", "-bgsave", "-cluster|slots", "-debug|jmap") == "OK"
        assert "+@all -bgsave -cluster|slots -debug|jmap" in client.show("ACL", "LIST")

    def test_subcommands_of_containers(self, user):
        mine = user("+client", "-client|kill", "+config|get")
        assert mine.show("CLIENT", "GETNAME") == "nil"
        assert mine.show("CLIENT", "KILL", "ID", 1) == refused("client|kill")
        assert mine.show("CONFIG", "SET", "timeout", 1) == refused("config|set")
        assert mine.show("CONFIG", "NOSUCH").startswith("!ERR unknown subcommand")


class TestLog:
    def test_like_events_are_one_entry_for_a_minute(self, world, client, user):
        mine = user("+get")
        mine.send("GET", "a")
        world.now_ms += 1500
        mine.send("GET", "a")
        world.now_ms += 500
        shown = client.show("ACL", "LOG")
        assert shown.startswith(
            '[["count", 2, "reason", "key", "context", "toplevel", "object", "a", "username", "u", '
        )
        assert '"age-seconds", "0.5", "client-info", "id=2 addr=' in shown
        assert " cmd=get user=u " in shown
        created_ms = world.now_ms - 2000
        assert shown.endswith(
            f'"entry-id", 0, "timestamp-created", {created_ms}, "timestamp-last-updated", {created_ms + 1500}]]'
        )
        world.now_ms += 60_000
        mine.send("GET", "a")
        assert client.show("ACL", "LOG").count('"entry-id"') == 2
        assert client.show("ACL", "LOG", 1).count('"entry-id"') == 1
        assert client.show("ACL", "LOG", -1) == "[]"
        assert client.show("ACL", "LOG", "reset") == "OK"
        assert client.show("ACL", "LOG") == "[]"

    def test_logins_that_failed(self, client):
        client.send("auth", "nobody", "x")
        client.send("HELLO", 3, "AUTH", "nobody", "x")
        shown = client.show("ACL", "LOG")
        assert '"reason", "auth", "context", "toplevel", "object", "auth", "username", "nobody"' in shown
        assert '"object", "HELLO"' in shown

    def test_the_oldest_go(self):
        log = AccessLog(most=3)
        for number in range(5):
            log.add("key", "toplevel", b"%d" % number, b"u", "", 0)
        assert [entry.number for entry in log.entries] == [4, 3, 2]
        log.add("key", "toplevel", b"k" * 10_000, b"u", "", 0)
        assert len(log.entries[0].object) == 1024


def test_nobody_is_shown_passwords(world, client):
    monitor = world.client()
    monitor.send("MONITOR")
    client.send("CONFIG", "SET", "slowlog-log-slower-than", "0")
    for words in (["ACL", "SETUSER", "u", ">hidden1"], ["AUTH", "u", "hidden2"], ["HELLO", 2, "AUTH", "u", "hidden3"]):
        client.send(*words)
    client.send("GET", "a")
    pushed = b"".join(each.message for each in world.service.outbox if isinstance(each, Push))
    assert b'"GET" "a"' in pushed
    assert b"hidden" not in pushed
    assert b"SETUSER" not in pushed  # as in Redis, which shows nothing of administration
    assert "hidden" not in client.show("SLOWLOG", "GET")


class FileOfUsers:
    """A file that lives in the test."""

    path = "users"

    def __init__(self, text: str) -> None:
        self.text = text

    def load(self) -> Users:
        return Users.parse(self.text, lambda users, words: add_from_line(users, words, all_commands()))

    def save(self, lines: bytes) -> None:
        self.text = lines.decode()


class TestFiles:
    def test_load_replaces_all_users(self, world, client, user):
        mine = user("~*")
        file = world.service.user_file = FileOfUsers("user bob on nopass +get ~x\n")
        assert client.show("ACL", "LOAD") == "OK"
        assert client.show("ACL", "USERS") == '["bob", "default"]'
        assert mine.session.ended
        assert not client.session.ended
        file.text = "user bob on +nosuch\n"
        assert client.show("ACL", "LOAD").startswith("!ERR users: line 1 Error in ACL SETUSER modifier '+nosuch'")
        assert client.show("ACL", "USERS") == '["bob", "default"]'

    def test_what_is_saved_can_be_loaded(self, world, client):
        file = world.service.user_file = FileOfUsers("")
        client.send("ACL", "SETUSER", "u", "on", ">pw", "%R~a*", "&c", "+@read", "-get", "(~b +set)")
        listed = client.show("ACL", "LIST")
        assert client.show("ACL", "SAVE") == "OK"
        client.send("ACL", "DELUSER", "u")
        assert client.show("ACL", "LOAD") == "OK"
        assert client.show("ACL", "LIST") == listed
        assert file.text.startswith("user default on nopass")


RECORDED = {
    "get": "read string fast", "sort": "write set sortedset list slow dangerous", "zadd": "write sortedset fast",
    "client": "slow", "client|list": "admin slow dangerous connection", "config|get": "admin slow dangerous",
    "exec": "slow transaction", "eval": "slow scripting", "publish": "pubsub fast", "flushall":
    "keyspace write slow dangerous", "command|docs": "slow connection", "memory|usage": "read slow", "dbsize":
    "keyspace read fast", "acl|whoami": "slow", "acl|setuser": "admin slow dangerous", "blpop":
    "write list slow blocking", "xgroup|help": "stream slow", "pubsub|help": "slow",
}  # fmt: skip


def test_categories_as_redis_7_has_them():
    """Recorded; test_acl_redis.py compares all of them with a server."""
    rows = {
        each.full_name: each for row in all_commands().commands.values() for each in (row, *row.subcommands.values())
    }
    assert {name: [each[1:] for each in rows[name].categories] for name in RECORDED} == {
        name: words.split() for name, words in RECORDED.items()
    }


def test_uses_of_keys(client):
    shown = client.show("COMMAND", "GETKEYSANDFLAGS", "LMOVE", "a", "b", "LEFT", "LEFT")
    assert shown == '[["a", [RW, access, delete]], ["b", [RW, insert]]]'
