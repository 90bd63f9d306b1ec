"""memcached on the engine: meta commands, beside a real server where there is one; timers; counts of uses."""

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace.eviction import Policy
from minidist.engines.keyspace.memcached import Memcached
from minidist.wire.memcached import MemcachedInspector, Refused, Request, RequestReader

Ask = Callable[[bytes], bytes]


class Timers:
    """What is to happen at which service time."""

    def __init__(self, world):
        self.world = world
        self.due = []

    def call_at(self, at_ms, callback):
        timers = self

        class Timer:
            def cancel(self):
                timers.due = [each for each in timers.due if each[1] is not callback]

        self.due.append((at_ms, callback))
        return Timer()

    def wait(self, ms):
        self.world.wait(ms)
        for at_ms, callback in list(self.due):
            if at_ms <= self.world.now_ms:
                self.due.remove((at_ms, callback))
                callback()


def asks(world) -> tuple[Ask, Timers, Memcached]:
    timers = Timers(world)
    memcached = Memcached(world.service, "test", timers.call_at)
    reader = RequestReader(1024**2)

    def ask(data: bytes) -> bytes:
        requests = reader.feed(data)
        return b"".join(
            each.reply if isinstance(each, Refused) else memcached.run(each, world.now_ms) or b"" for each in requests
        )

    return ask, timers, memcached


@pytest.fixture
def ask(world) -> Ask:
    return asks(world)[0]


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Iterator[Ask]:
    """Asks a real memcached; every answer is followed by that of `mn`, so that silence is known."""
    if shutil.which("memcached") is None:
        pytest.skip("memcached is not installed")
    path = str(tmp_path_factory.mktemp("memcached") / "s")
    with subprocess.Popen(["memcached", "-s", path, "-u", "root"]) as process:
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.settimeout(10)
            while connection.connect_ex(path):
                assert process.poll() is None

            def ask(data: bytes) -> bytes:
                connection.sendall(data + b"mn\r\n")
                received = b""
                while not received.endswith(b"MN\r\n"):
                    received += connection.recv(65536)
                return received.removesuffix(b"MN\r\n")

            yield ask
        process.terminate()


# --- beside a real one ----------------------------------------------------------------------------------------------

DIALOGUE = [
    (b"mg a\r\n", b"EN\r\n"),
    (b"mg\r\n", b"ERROR\r\n"),
    (b"ms\r\n", b"ERROR\r\n"),
    (b"ms a\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    (b"ms a x\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    (b"mx a\r\n", b"ERROR\r\n"),
    (b"ms a 2 T0 F5\r\nhi\r\n", b"HD\r\n"),
    (b"mg a\r\n", b"HD\r\n"),
    (b"mg a s v f t k Oopaque q\r\n", b"VA 2 s2 f5 t-1 ka Oopaque\r\nhi\r\n"),
    (b"mg none q k\r\n", b""),
    (b"mg none k Ox\r\n", b"EN knone Ox\r\n"),
    (b"mg a v v\r\n", b"CLIENT_ERROR duplicate flag\r\n"),
    (b"mg a !\r\n", b"CLIENT_ERROR invalid flag\r\n"),
    (b"mg a Tx\r\n", b"CLIENT_ERROR bad token in command line format\r\n"),
    (b"mg a O" + b"x" * 31 + b"\r\n", b"HD O" + b"x" * 31 + b"\r\n"),
    (b"mg a O" + b"x" * 32 + b"\r\n", b"CLIENT_ERROR opaque token too long\r\n"),
    (b"mg a t T100 t\r\n", b"CLIENT_ERROR duplicate flag\r\n"),
    (b"mg a T100 t\r\n", b"HD t100\r\n"),
    (b"mg a L/path P/path\r\n", b"HD\r\n"),
    (b"mg " + b"k" * 251 + b"\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    # Modes of ms.
    (b"ms a 1 ME\r\nx\r\n", b"NS\r\n"),
    (b"ms n 1 MR\r\nx\r\n", b"NS\r\n"),
    (b"ms n 1 MA\r\nx\r\n", b"NS\r\n"),
    (b"ms a 1 MA k\r\n!\r\n", b"HD ka\r\n"),
    (b"ms a 1 MP q\r\n>\r\n", b""),
    (b"mg a v f t\r\n", b"VA 4 f5 t100\r\n>hi!\r\n"),
    (b"ms a 1 MR Oz\r\nr\r\n", b"HD Oz\r\n"),
    (b"ms a 1 MX\r\nx\r\n", b"CLIENT_ERROR invalid mode for ms M token\r\n"),
    (b"ms a 1 MSS\r\nx\r\n", b"CLIENT_ERROR incorrect length for M token\r\n"),
    (b"ms flags 1 F18446744073709551615\r\nx\r\n", b"HD\r\n"),
    (b"mg flags f\r\n", b"HD f4294967295\r\n"),
    (b"ms a 1 Fx\r\nx\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    (b"ms a 1 T-1\r\nx\r\n", b"HD\r\n"),
    (b"mg a\r\n", b"EN\r\n"),
    (b"ms a 1\r\nxyz\r\n", None),  # where such a block ends is anybody's guess
    # Keys in base64.
    (b"ms AAH/ 2 b k\r\nhi\r\n", b"HD kAAH/ b\r\n"),
    (b"mg AAH/ b v k\r\n", b"VA 2 kAAH/ b\r\nhi\r\n"),
    (b"md AAH/ b k\r\n", b"HD kAAH/ b\r\n"),
    (b"mg ! b\r\n", b"CLIENT_ERROR error decoding key\r\n"),
    # md.
    (b"md a\r\n", b"NF\r\n"),
    (b"md a k Ox\r\n", b"NF ka Ox\r\n"),
    (b"md a k k\r\n", b"CLIENT_ERROR invalid or duplicate flag\r\n"),
    (b"ms a 1\r\nx\r\n", b"HD\r\n"),
    (b"md a C18446744073709551615\r\n", b"EX\r\n"),
    (b"md a q\r\n", b""),
    # Numbers.
    (b"ma n\r\n", b"NF\r\n"),
    (b"ma n N0 J13 v t\r\n", b"VA 2 t-1\r\n13\r\n"),
    (b"ma n v\r\n", b"VA 2\r\n14\r\n"),
    (b"ma n MD D20 v\r\n", b"VA 1\r\n0\r\n"),
    (b"ma n M+ D18446744073709551615 v k\r\n", b"VA 20 kn\r\n18446744073709551615\r\n"),
    (b"ma n MI D2 v T30 t\r\n", b"VA 1 t30\r\n1\r\n"),
    (b"ma n M- q\r\n", b""),
    (b"ma n MX\r\n", b"CLIENT_ERROR invalid mode for ma M token\r\n"),
    (b"ma n Dx\r\n", b"CLIENT_ERROR invalid or duplicate flag\r\n"),
    (b"ma n C18446744073709551615\r\n", b"EX\r\n"),
    (b"ms n 1\r\nx\r\n", b"HD\r\n"),
    (b"ma n\r\n", b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
    # One client fetches: at a miss, before the end, when it is stale.
    (b"mg v N30 v t\r\n", b"VA 0 t30 W\r\n\r\n"),
    (b"mg v N30 v t\r\n", b"VA 0 t30 Z\r\n\r\n"),
    (b"ms v 3 T90\r\nnew\r\n", b"HD\r\n"),
    (b"mg v R30 v\r\n", b"VA 3\r\nnew\r\n"),
    (b"mg v R100 v\r\n", b"VA 3 W\r\nnew\r\n"),
    (b"mg v R100 v\r\n", b"VA 3 Z\r\nnew\r\n"),
    (b"ms v 3 T90\r\nnew\r\n", b"HD\r\n"),
    (b"md v I T50\r\n", b"HD\r\n"),
    (b"mg v v t\r\n", b"VA 3 t50 X W\r\nnew\r\n"),
    (b"mg v v\r\n", b"VA 3 Z X\r\nnew\r\n"),
    (b"ms v 5 C0 I\r\nnewer\r\n", b"EX\r\n"),
    (b"ms v 5 C1 I T90\r\nolder\r\n", b"HD\r\n"),
    (b"mg v v t\r\n", b"VA 5 t50 Z X\r\nolder\r\n"),
    (b"ms v 5\r\nfresh\r\n", b"HD\r\n"),
    (b"mg v v t\r\n", b"VA 5 t-1\r\nfresh\r\n"),
    (b"ms none 1 C1\r\nx\r\n", b"NF\r\n"),
    (b"me none\r\n", b"EN\r\n"),
    (b"me\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    (b"mn\r\n", b"MN\r\n"),
    (b"ms h 1\r\nx\r\n", b"HD\r\n"),
    (b"mg h h l u\r\n", b"HD h0 l0\r\n"),
    (b"mg h h\r\n", b"HD h0\r\n"),
    (b"mg h h\r\n", b"HD h1\r\n"),
]


def hold(dialogue, ask):
    """Every answer is what it must be."""
    for request, expected in dialogue:
        if expected is not None:
            assert ask(request) == expected, request


def test_the_dialogue_on_the_engine(ask):
    hold(DIALOGUE, ask)


def test_the_dialogue_on_a_real_one(real):
    real(b"flush_all\r\n")
    hold([each for each in DIALOGUE if each[0] != b"mn\r\n"], real)


KEYS = st.sampled_from([b"a", b"b"])
TIME = st.sampled_from([b"0", b"100", b"x"])
PAST = st.one_of(TIME, st.just(b"-1"))  # for which `t` shows nonsense
NUMBER = st.sampled_from([b"0", b"1", b"7", b"18446744073709551615", b"18446744073709551616", b"x"])
ECHOES = [st.just(flag) for flag in (b"k", b"Oo", b"q", b"Lx", b"zz")]


def flags(*more):
    return st.lists(st.one_of(*ECHOES, *more), max_size=5).map(lambda flags: b"".join(b" " + flag for flag in flags))


def token(letter, values):
    return values.map(lambda value: letter + value)


GET = flags(*map(st.just, (b"s", b"t", b"f", b"v")), *(token(each, TIME) for each in (b"N", b"T", b"R")))
SET = flags(token(b"M", st.sampled_from([b"E", b"A", b"P", b"R", b"S", b"Z"])), token(b"T", PAST), token(b"F", NUMBER))
DELETE = flags(st.just(b"I"), token(b"T", PAST))
COUNT = flags(
    *map(st.just, (b"v", b"t")),
    *(token(each, TIME) for each in (b"N", b"T")),
    *(token(each, NUMBER) for each in (b"J", b"D")),
    token(b"M", st.sampled_from([b"I", b"D", b"+", b"-", b"Z"])),
)
BLOCKS = st.sampled_from([b"", b"x", b"12", b"value"])
REQUESTS = st.one_of(
    st.builds(lambda key, flags: b"mg %b%b\r\n" % (key, flags), KEYS, GET),
    st.builds(lambda key, block, flags: b"ms %b %d%b\r\n%b\r\n" % (key, len(block), flags, block), KEYS, BLOCKS, SET),
    st.builds(lambda key, flags: b"md %b%b\r\n" % (key, flags), KEYS, DELETE),
    st.builds(lambda key, flags: b"ma %b%b\r\n" % (key, flags), KEYS, COUNT),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(REQUESTS, min_size=1, max_size=12))
def test_any_requests_beside_a_real_one(real, world_type, requests):
    ask = asks(world_type())[0]
    real(b"flush_all\r\n")
    for at, request in enumerate(requests):
        assert ask(request) == real(request), requests[: at + 1]


# --- what only we decide --------------------------------------------------------------------------------------------


def test_explicit_unique_ids(ask):
    assert ask(b"ms a 1 E1000 c\r\nx\r\n") == b"HD c1000\r\n"
    assert ask(b"mg a c\r\n") == b"HD c1000\r\n"
    assert ask(b"ms a 1 C999\r\ny\r\n") == b"EX\r\n"
    assert ask(b"ms a 1 C1000 E1001 c s\r\ny\r\n") == b"HD c1001 s1\r\n"
    assert ask(b"ms a 1 C1000 I\r\nz\r\n") == b"HD\r\n"
    assert ask(b"mg a v\r\n") == b"VA 1 X W\r\nz\r\n"


def test_a_lifetime_leaves_the_unique_id(ask):
    ask(b"ms a 1\r\nx\r\n")
    before = ask(b"mg a c\r\n")
    assert ask(b"touch a 100\r\n") == b"TOUCHED\r\n"
    assert ask(b"mg a c T50\r\n") == ask(b"mg a c\r\n") == before


def test_append_makes_what_is_not_there(ask):
    assert ask(b"ms a 1 MA N50\r\nx\r\n") == b"HD\r\n"
    assert ask(b"mg a t v\r\n") == b"VA 1 t50\r\nx\r\n"


def test_resp_ends_what_meta_commands_know(ask, client):
    ask(b"ms a 1 T100\r\nx\r\n")
    ask(b"md a I\r\n")
    assert client.show("GET", "a") == '"x"'
    client.send("SET", "a", "y")
    assert ask(b"mg a v\r\n") == b"VA 1\r\ny\r\n"


def test_the_account_is_kept(world, ask):
    for request, _ in DIALOGUE:
        ask(request)
    world.keyspace.flush()
    world.wait(1000)
    assert world.keyspace.used_bytes == 0


def test_the_last_flush_counts_and_a_reset_forgets_it(world):
    ask, timers, memcached = asks(world)
    ask(b"set a 0 0 1\r\nx\r\n")
    for delay_s in (b"10", b"100", b"50"):
        assert ask(b"flush_all %b\r\n" % delay_s) == b"OK\r\n"
        assert len(timers.due) == 1
    timers.wait(49_000)
    assert ask(b"get a\r\n").startswith(b"VALUE")
    timers.wait(1_000)
    assert ask(b"get a\r\n") == b"END\r\n"
    ask(b"flush_all 10\r\n")
    memcached.forget_everything()
    assert timers.due == []


@pytest.mark.parametrize("request_", [b"get a\r\n", b"mg a\r\n", b"mg YQ== b\r\n", b"touch a 100\r\n", b"incr a 1\r\n"])
def test_lfu_counts_uses(world, ask, request_):
    world.service.evict_by(Policy.ALLKEYS_LFU)
    ask(b"set a 0 0 1\r\n1\r\n")
    ask(request_)
    before = world.keyspace.databases[0].peek(b"a", world.now_ms).mark
    for _ in range(200):
        ask(request_)
    assert world.keyspace.databases[0].peek(b"a", world.now_ms).mark > before


NINES = b"9" * 5000  # more digits than Python reads


@pytest.mark.parametrize(
    "request_",
    [
        b"set k %b 0 1\r\n", b"set k 0 0 %b\r\n", b"cas k 0 0 1 %b\r\n", b"incr k %b\r\n", b"cache_memlimit %b\r\n",
        b"touch k %b\r\n", b"flush_all %b\r\n", b"mg k T%b\r\n", b"ma k D%b\r\n", b"ms k %b\r\n", b"gat %b k\r\n",
    ],
)  # fmt: skip
def test_numbers_that_are_too_long_are_refused(ask, request_):
    assert ask(request_ % NINES).startswith(b"CLIENT_ERROR ")
    MemcachedInspector().requests(request_ % NINES)  # raises nothing


def test_a_value_that_is_too_long_a_number_is_none(ask):
    assert ask(b"set k 0 0 %d\r\n%b\r\n" % (len(NINES), NINES)) == b"STORED\r\n"
    assert ask(b"incr k 1\r\n").startswith(b"CLIENT_ERROR cannot increment")
    assert ask(b"ma k\r\n").startswith(b"CLIENT_ERROR cannot increment")


def test_get_of_one_key_is_what_run_answers(world):
    client = world.client()
    client.send("SET", "plain", "v")
    client.send("SET", "timed", "v", "PX", "100")
    client.send("APPEND", "long", "x" * 300)
    client.send("APPEND", "long", "y")
    client.send("LPUSH", "list", "v")
    memcached = Memcached(world.service, "x", lambda at_ms, callback: None)
    memcached.run(Request([b"set", b"flagged", b"7", b"0", b"1"], b"v"), world.now_ms)
    for policy in (Policy.ALLKEYS_LRU, Policy.ALLKEYS_LFU):
        world.service.evict_by(policy)
        for key in (b"plain", b"{plain}", b"timed", b"long", b"list", b"flagged", b"nothing"):
            hits, count = world.keyspace.hits, memcached.counts["cmd_get"]
            got = memcached.get(key, world.now_ms)
            after = (world.keyspace.hits - hits, memcached.counts["cmd_get"] - count)
            hits, count = world.keyspace.hits, memcached.counts["cmd_get"]
            assert memcached.run(Request([b"get", key]), world.now_ms) == got
            assert after == (world.keyspace.hits - hits, memcached.counts["cmd_get"] - count)
    world.wait(200)
    assert memcached.get(b"timed", world.now_ms) == b"END\r\n"
