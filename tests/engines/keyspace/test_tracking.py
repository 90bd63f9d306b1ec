"""CLIENT TRACKING: conversations of several clients, on the engine and on a real server; and what only we decide.

NAME> COMMAND      a client's command; `$NAME` stands for a client's id
REPLY              as in a transcript (conftest.py); `...` for any, `(nothing)` for none
NAME: MESSAGE      what a client gets besides, after that command, in this order
NAME is gone       a client closes its connection
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from minidist.engines.keyspace.eviction import Policy
from minidist.engines.keyspace.outputs import Push, Release, Signal
from minidist.wire.resp import CommandReader, Limits, encode_command
from minidist.wire.resp_plain import split_inline
from minidist.wire.resp_replies import bulks

CONVERSATIONS = sorted((Path(__file__).parent / "conversations").glob("*.txt"))
NONSENSE = [b"CLIENT", b"KILL", b"ID", b"0"]
# What a real server cannot be asked.
NOT_ON_REDIS = {"tracking_unanswered.txt"}


@dataclass
class Step:
    """A command, its reply, and what clients get; or a client that goes."""

    line: int
    name: str
    command: str
    reply: str = ""
    messages: dict[str, list[str]] = field(default_factory=dict)


def read_conversation(path: Path) -> list[Step]:
    steps: list[Step] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if said := re.fullmatch(r"(\w+)> (.*)", line):
            steps.append(Step(number, said[1], said[2]))
        elif got := re.fullmatch(r"(\w+): (.*)", line):
            steps[-1].messages.setdefault(got[1], []).append(got[2])
        elif gone := re.fullmatch(r"(\w+) is gone", line):
            steps.append(Step(number, gone[1], ""))
        elif line and not line.startswith("#"):
            assert not steps[-1].reply, f"line {number}: a second reply"
            steps[-1].reply = line
    return steps


class OnTheEngine:
    """Clients of a Service in the test, with what each was sent and has not looked at."""

    def __init__(self, world, reader_type):
        self.world = world
        self.reader_type = reader_type
        self.clients = {}
        self.readers = {}

    def open(self, name):
        client = self.clients[name] = self.world.client()
        self.readers[name] = self.reader_type()
        return client.session.id

    def close(self, name):
        self.world.service.close(self.clients.pop(name).session)

    def say(self, name, words, answered):
        """Run a command, and do what is asked of the shell."""
        self.readers[name].feed(self.clients[name].send(*words))
        service = self.world.service
        while service.outbox:
            output = service.outbox.pop(0)
            if output is Signal.BROADCAST:
                service.tracking.broadcast()
            elif isinstance(output, Push):
                for session in output.sessions:
                    self._reader(session).feed(output.message)
            elif isinstance(output, Release):
                self._reader(output.session).feed(output.reply)

    def _reader(self, session):
        return next(self.readers[name] for name, client in self.clients.items() if client.session is session)

    def heard(self, name):
        """What a client was sent since it looked last."""
        shown = []
        while isinstance(each := self.readers[name].next(), str):
            shown.append(each)
        return shown


class OnARealServer:
    """The same of a real server: what a client was sent is what stands before the answer to a question."""

    def __init__(self, connect):
        self.connect = connect
        self.clients = {}
        self.ids = {}
        self.queueing = ""
        self.first = []  # that the last one who spoke was sent

    def open(self, name):
        self.clients[name] = self.connect()
        self.ids[name] = self.clients[name].show(b"CLIENT", b"ID")
        return int(self.ids[name])

    def close(self, name):
        self.clients.pop(name).socket.close()
        other = next(iter(self.clients.values()))
        while f"id={self.ids[name]} " in other.show(b"CLIENT", b"LIST"):
            pass

    def say(self, name, words, answered):
        """An answer is waited for: a question in the same read would be answered before what is broadcast."""
        self.clients[name].socket.sendall(encode_command(words))
        self.first = [self.clients[name].read()] if answered else []
        if words[0] in (b"MULTI", b"EXEC"):
            self.queueing = name if words[0] == b"MULTI" else ""

    def heard(self, name):
        client = self.clients[name]
        first, self.first = self.first, []
        if name == self.queueing:
            return first  # a question would be queued
        # A CLIENT command leaves CLIENT CACHING as it is; but in protocol 2 a subscriber may only say PING.
        client.socket.sendall(encode_command([b"PING", b"heard"] if name == "r" else NONSENSE))
        answers = ("!ERR client-id should be greater than 0", '"heard"', '["pong", "heard"]')
        return first + list(iter(lambda: "" if (shown := client.read()) in answers else shown, ""))


def play(path, side):
    """Play a conversation with clients that are all there from the beginning."""
    steps = read_conversation(path)
    ids = {name: str(side.open(name)) for name in dict.fromkeys(step.name for step in steps)}

    def filled(text):
        return re.sub(r"\$(\w+)", lambda found: ids[found[1]], text)

    there = list(ids)
    for step in steps:
        if not step.command:
            side.close(step.name)
            there.remove(step.name)
            continue
        side.say(step.name, split_inline(filled(step.command).encode()), step.reply != "(nothing)")
        for name in [step.name, *(other for other in there if other != step.name)]:
            expected = [filled(message) for message in step.messages.get(name, ())]
            if name == step.name and step.reply != "(nothing)":
                expected.insert(0, filled(step.reply))
            shown = side.heard(name)
            if expected[:1] == ["..."]:
                shown[:1] = ["..."]
            assert shown == expected, f"{path.name}:{step.line} {step.command}: {name}"


@pytest.mark.parametrize("path", CONVERSATIONS, ids=lambda path: path.stem)
def test_on_the_engine(path, world, reader_type):
    play(path, OnTheEngine(world, reader_type))


@pytest.mark.parametrize(
    "path", [path for path in CONVERSATIONS if path.name not in NOT_ON_REDIS], ids=lambda path: path.stem
)
def test_on_a_real_server(path, redis_client):
    play(path, OnARealServer(redis_client))


@pytest.fixture
def tracker(world):
    """A client that speaks protocol 3 and tracks."""
    client = world.client()
    client.send("HELLO", "3")
    client.send("CLIENT", "TRACKING", "on")
    world.service.outbox.clear()
    return client


@pytest.fixture
def told(world):
    """What was pushed since the last call: the messages, in order."""

    def told():
        service = world.service
        if Signal.BROADCAST in service.outbox:
            service.tracking.broadcast()
        pushed = [output.message for output in service.outbox if isinstance(output, Push)]
        service.outbox.clear()
        return pushed

    return told


def invalidation(*keys: bytes) -> bytes:
    return b">2\r\n$10\r\ninvalidate\r\n" + bulks(keys)


class TestKeysThatGoByThemselves:
    @pytest.mark.parametrize("how", ["by itself", "when somebody looks"])
    def test_expired(self, world, client, tracker, told, how):
        client.send("SET", "k", "v", "PX", "500")
        tracker.send("GET", "k")
        if how == "by itself":
            world.wait(1000)
        else:
            world.now_ms += 1000
            client.send("EXISTS", "k")
        assert told() == [invalidation(b"k")]

    def test_found_expired_by_the_one_who_tracks_it(self, world, client, tracker, told):
        client.send("SET", "k", "v", "PX", "500")
        client.send("SET", "l", "v")
        tracker.send("GET", "k")
        world.now_ms += 1000
        assert tracker.send("MGET", "l", "k") == b"*2\r\n$1\r\nv\r\n_\r\n" + invalidation(b"k")
        client.send("SET", "k", "again")
        assert told() == [invalidation(b"k")]

    @pytest.mark.parametrize("mode", [("NOLOOP",), ("NOLOOP", "BCAST")], ids=" ".join)
    def test_noloop_hears_of_them(self, world, client, told, mode):
        client.send("HELLO", "3")
        client.send("CLIENT", "TRACKING", "on", *mode)
        client.send("SET", "k", "v", "PX", "500")
        client.send("GET", "k")
        assert told() == []
        world.now_ms += 1000
        heard = client.send("GET", "k").removeprefix(b"_\r\n")
        assert [heard, *told()][-1 if "BCAST" in mode else 0] == invalidation(b"k")

    @pytest.mark.parametrize("mode", [(), ("NOLOOP",)], ids=" ".join)
    def test_evicted(self, world, told, mode):
        service = world.service
        client = world.client()
        client.send("HELLO", "3")
        client.send("CLIENT", "TRACKING", "on", *mode)
        service.evict_by(Policy.VOLATILE_TTL)
        client.send("SET", "k", "v", "EX", "1000")
        client.send("GET", "k")
        service.keyspace.limit(service.keyspace.used_bytes)
        client.send("SETRANGE", "large", "100000", "x")
        client.send("GET", "large")
        assert told() == [invalidation(b"k")]


class TestScripts:
    """As a real server answers; not in a conversation, since Lua may not be installed."""

    @pytest.fixture(autouse=True)
    def lua(self):
        pytest.importorskip("lupa.lua51")

    @pytest.mark.parametrize("command", ["EVAL", "EVAL_RO"])
    def test_reads_count_and_names_do_not(self, client, tracker, told, command):
        client.send("MSET", "a", "1", "b", "1")
        tracker.send(command, "return redis.call('get', 'b')", "2", "a", "b")
        client.send("MSET", "a", "2", "b", "2")
        assert told() == [invalidation(b"b")]

    def test_own_changes_follow_the_reply(self, tracker):
        tracker.send("GET", "a")
        reply = tracker.send("EVAL", "redis.call('set', 'a', 1) return redis.call('get', 'b')", "0")
        assert reply == b"_\r\n" + invalidation(b"a")

    def test_even_when_the_script_fails(self, tracker):
        tracker.send("GET", "a")
        reply = tracker.send("EVAL", "redis.call('set', 'a', 1) error('bad')", "0")
        assert reply.startswith(b"-ERR")
        assert reply.endswith(invalidation(b"a"))

    def test_noloop(self, client, told):
        client.send("HELLO", "3")
        client.send("CLIENT", "TRACKING", "on", "NOLOOP")
        client.send("GET", "a")
        assert client.send("EVAL", "return redis.call('set', 'a', 1)", "0") == b"+OK\r\n"
        assert told() == []


class TestLimit:
    def test_beyond_it_keys_are_forgotten_and_clients_told(self, world, client, tracker, told):
        world.service.most_tracked_keys = 10
        heard = b"".join(tracker.send("GET", f"k{number}") for number in range(100))
        assert world.service.tracking.keys == world.service.tracking.items == 10
        assert heard.count(b"invalidate") == 90
        for number in range(100):
            client.send("SET", f"k{number}", "v")
        assert len(told()) == 10

    def test_lowered(self, world, tracker, told):
        service = world.service
        tracker.send("MGET", *(f"k{number}" for number in range(1000)))
        service.most_tracked_keys = 1
        service.tracking.trim()
        assert 1 < service.tracking.keys < 1000
        while service.tracking.keys > 1:
            assert world.keyspace.alarm_ms <= world.now_ms
            service.wake(world.now_ms)
        assert len(told()) == 999

    def test_none(self, world, tracker):
        world.service.most_tracked_keys = 0
        tracker.send("MGET", *(f"k{number}" for number in range(1000)))
        assert world.service.tracking.keys == 1000


class TestCost:
    def test_nothing_is_kept_when_nobody_tracks(self, world, client, tracker, told):
        tracker.send("GET", "k")
        assert world.service.tracking is not None
        world.service.close(tracker.session)
        service = world.service
        assert (service.tracking, service.keyspace.on_change) == (None, None)
        assert service.execute == service.run_admitted
        assert not any(database.watches for database in service.keyspace.databases)
        assert not client.session.gated
        client.send("SET", "k", "v")
        assert told() == []

    def test_prefixes_go_with_their_last_client(self, world, tracker):
        one, two = world.client(), world.client()
        for client in (one, two):
            client.send("CLIENT", "TRACKING", "on", "BCAST", "PREFIX", "a", "PREFIX", "b")
        one.send("RESET")
        assert list(world.service.tracking.prefixes) == [b"a", b"b"]
        world.service.close(two.session)
        assert world.service.tracking.prefixes == {}

    def test_watches_of_transactions_stay(self, world, tracker):
        client = world.client()
        client.send("WATCH", "k")
        world.service.close(tracker.session)
        world.client().send("SET", "k", "v")
        client.send("MULTI")
        assert client.show("EXEC") == "nil"

    def test_pipelines_by_column_tell_of_each_key(self, world, client, tracker, told):
        tracker.send("MGET", "a", "b")
        client.send("SET", "a", "1")
        reader = CommandReader(Limits())
        commands, _ = reader.feed(b"".join(encode_command([b"SET", key, b"2"]) for key in (b"a", b"b") * 20))
        world.service.run(client.session, commands, world.now_ms)
        assert told() == [invalidation(b"a"), invalidation(b"b")]


class TestWhatOthersDo:
    def test_swapped_databases(self, client, tracker, told):
        tracker.send("GET", "k")
        client.send("SWAPDB", "0", "1")
        assert told() == [b">2\r\n$10\r\ninvalidate\r\n_\r\n"]

    def test_client_list_and_info(self, world, client, tracker):
        tracker.send("CLIENT", "TRACKING", "on", "REDIRECT", client.session.id)
        other = world.client()
        other.send("CLIENT", "TRACKING", "on", "BCAST")
        lines = client.send("CLIENT", "LIST").decode().splitlines()
        shown = [re.search(r"flags=(\w+) .* redir=(-?\d+)", line).groups() for line in lines if "flags" in line]
        assert shown == [("N", "-1"), ("t", str(client.session.id)), ("tB", "0")]
        tracker.send("GET", "k")
        world.service.close(client.session)
        other.send("SET", "k", "v")
        assert "flags=tR" in tracker.send("CLIENT", "INFO").decode()

    def test_tracking_turned_off_in_a_transaction(self, world, tracker, told):
        tracker.send("GET", "k")
        for command in (["MULTI"], ["SET", "k", "v"], ["CLIENT", "TRACKING", "off"]):
            tracker.send(*command)
        assert tracker.send("EXEC") == b"*2\r\n+OK\r\n+OK\r\n"
        assert told() == [invalidation(b"k")]

    def test_changes_of_one_read_are_one_broadcast(self, client, told):
        client.send("HELLO", "3")
        client.send("CLIENT", "TRACKING", "on", "BCAST")
        for key in ("b", "a", "b"):
            client.send("SET", key, "v")
        assert told() == [invalidation(b"a", b"b")]
