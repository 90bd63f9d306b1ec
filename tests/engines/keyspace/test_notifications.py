"""Keyspace events: which, in which order, on which channels; the same from a real redis-server where there is one."""

import pytest

from minidist.engines.keyspace.events import parse_events, show_events
from minidist.engines.keyspace.eviction import Policy
from minidist.engines.keyspace.outputs import Push
from minidist.wire.resp import Pipeline
from minidist.wire.resp_plain import split_inline

# Commands, and what follows from each: event and key, in order. Kinds: all there are.
STEPS = """
SET k v                       new k, set k
SET k w                       set k
SET k v EX 100                set k, expire k
SET k v KEEPTTL               set k
SET k v PX 90000 XX GET       set k, expire k
SET k v NX
GET k
GET nope                      keymiss nope
MGET k nope                   keymiss nope
EXISTS nope                   keymiss nope
SETNX k v
SETNX n v                     new n, set n
SETEX k 100 v                 set k, expire k
PSETEX k 100000 v             set k, expire k
GETSET k v                    set k
GETSET g v                    keymiss g, new g, set g
GETDEL g                      del g
GETDEL g                      keymiss g
GETEX k
GETEX k EX 100                expire k
GETEX k PERSIST               persist k
GETEX k PERSIST
GETEX k PXAT 1                del k
APPEND a 1                    new a, append a
APPEND a 1                    append a
SETRANGE a 1 x                setrange a
SETRANGE b 1 x                new b, setrange b
SETRANGE a 1 ""
MSET x 1 y 2                  new x, set x, new y, set y
MSETNX x 1 z 2
MSETNX p 1 q 2                new p, set p, new q, set q
INCR x                        incrby x
DECRBY x 3                    incrby x
INCR new                      new new, incrby new
INCRBYFLOAT x 1.5             incrbyfloat x
INCR a
EXPIRE x 100                  expire x
EXPIRE x 50 GT
PEXPIREAT x 9999999999999     expire x
PERSIST x                     persist x
PERSIST x
EXPIRE x -1                   del x
EXPIRE x 100
RENAME y z                    new z, rename_from y, rename_to z
RENAME z z
SET y 1                       new y, set y
RENAME z y                    new y, rename_from z, rename_to y
RENAMENX y z                  new z, rename_from y, rename_to z
RENAMENX z p
COPY z c                      new c, copy_to c
COPY z c
COPY z c REPLACE              new c, copy_to c
MOVE z 1                      new z, move_from z, move_to z
DEL p q nope                  del p, del q
UNLINK c                      del c
FLUSHALL
"""


def steps():
    for line in STEPS.strip().splitlines():
        command, _, events = line.partition("  ")
        expected = [tuple(each.split()) for each in events.strip().split(", ") if each]
        yield split_inline(command.encode()), expected


@pytest.fixture
def told(world):
    """(channel, message) of what was published to the listener, `told.listen(letters, *patterns)`, since last asked."""

    def told():
        pushes = [output.message for output in world.service.outbox if isinstance(output, Push)]
        world.service.outbox.clear()
        return [tuple(word.decode() for word in message.split(b"\r\n")[6::2][:2]) for message in pushes]

    def listen(letters, *patterns):
        world.service.notify(parse_events(letters))
        world.client().send("PSUBSCRIBE", *patterns)

    told.listen = listen
    return told


def test_of_every_command(world, told):
    told.listen("EAmn", "__key*")
    client = world.client()
    for command, expected in steps():
        client.send(*command)
        assert [(channel.partition("__:")[2], key) for channel, key in told()] == expected, command


def test_of_every_command_on_a_real_server(redis_client):
    client, listener = redis_client(), redis_client()
    client.show(b"CONFIG", b"SET", b"notify-keyspace-events", b"EAmn")
    listener.show(b"PSUBSCRIBE", b"__key*")
    for command, expected in steps():
        client.show(*command)
        client.show(b"PUBLISH", b"__key__:", b"end")
        shown = [""]
        while '"end"' not in shown[-1]:
            listener.reader.feed(listener.socket.recv(65536))
            while isinstance(each := listener.reader.next(), str):
                shown.append(each)
        pushes = [each[1:-1].split(", ")[2:] for each in shown[1:-1]]
        found = [(channel.strip('"').partition("__:")[2], key.strip('"')) for channel, key in pushes]
        assert found == expected, command


def test_both_channels_of_the_database(world, told):
    told.listen("KEA", "*")
    client = world.client()
    client.send("SELECT", "3")
    client.send("SET", "k", "v")
    assert told() == [("__keyspace@3__:k", "set"), ("__keyevent@3__:set", "k")]


def test_only_kinds_that_were_asked_for(world, told):
    told.listen("K$", "*")
    client = world.client()
    client.send("SET", "k", "v", "EX", "9")
    client.send("DEL", "k")
    assert told() == [("__keyspace@0__:k", "set")]


def test_nothing_without_k_or_e(world, told):
    told.listen("A", "*")
    world.client().send("SET", "k", "v")
    assert told() == []


def test_expired_when_its_time_has_come(world, told):
    told.listen("Ex", "*")
    world.client().send("SET", "k", "v", "PX", "5")
    assert told() == []
    world.wait(200)
    assert told() == [("__keyevent@0__:expired", "k")]


def test_expired_before_it_is_set_again(world, told):
    world.keyspace.use_active_expiry(False)
    told.listen("EAn", "*")
    client = world.client()
    client.send("SET", "k", "v", "PX", "5")
    told()
    world.now_ms += 10
    client.send("SET", "k", "w")
    assert [channel.partition("__:")[2] for channel, _ in told()] == ["expired", "new", "set"]
    assert world.keyspace.expired_keys == 1


def test_set_with_a_time_that_has_passed(world, told):
    told.listen("EAmn", "*")
    client = world.client()
    client.send("SET", "k", "v", "PXAT", "1")
    assert client.show("GET", "k") == "nil"
    assert [channel.partition("__:")[2] for channel, _ in told()] == ["new", "set", "expire", "expired", "keymiss"]


def test_evicted(world, told):
    world.service.evict_by(Policy.ALLKEYS_RANDOM)
    client = world.client()
    for number in range(100):
        client.send("SET", number, "v" * 100)
    told.listen("Ee", "*")
    world.keyspace.limit(world.keyspace.used_bytes - 1)
    world.wait(0)
    ((channel, key),) = told()
    assert channel == "__keyevent@0__:evicted"
    assert client.show("EXISTS", key) == "0"


def test_pipelines_tell_as_much(world, told):
    told.listen("EA", "*")
    client = world.client()
    pipeline = Pipeline([b"SET"] * 9, [b"%d" % number for number in range(9)], [b"v"] * 9)
    world.service.run(client.session, pipeline, world.now_ms)
    assert told() == [("__keyevent@0__:set", str(number)) for number in range(9)]


@pytest.mark.parametrize(
    ("given", "shown"),
    [("", ""), ("KEA", "AKE"), ("Kx$", "$xK"), ("gxe$lshzdtKE", "AKE"), ("KEAmn", "AnKEm"), ("KEmn", "nKEm")],
)
def test_letters(given, shown):
    assert show_events(parse_events(given)) == shown
    assert parse_events(shown) == parse_events(given)


def test_letters_that_mean_nothing():
    with pytest.raises(ValueError, match="Invalid event class character"):
        parse_events("KQ")
