"""DUMP and RESTORE: every type and encoding between us and a real redis-server; damaged payloads."""

import copy
import random
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace.eviction import Policy
from minidist.engines.keyspace.hashes import Hash
from minidist.engines.keyspace.listpacks import listpack, read_elements
from minidist.engines.keyspace.lists import List
from minidist.engines.keyspace.rdb_strings import Malformed, decompress, length_bytes, string_bytes
from minidist.engines.keyspace.serialisation import FOOTER_BYTES, dump, is_whole, restore
from minidist.engines.keyspace.sets import Set
from minidist.engines.keyspace.sortedsets import SortedSet
from minidist.engines.keyspace.stream_groups import Pending
from minidist.engines.keyspace.streams import LAST_ID, Stream
from minidist.structures.crc64 import crc64

BINARY = bytes(range(256))
NUMBERS = [0, 1, -1, 63, 64, 127, 128, 4095, -4096, 4096, 32767, -32768, 1 << 23, -(1 << 31), 1 << 31, -(1 << 63)]
TEXTS = [b"%d" % each for each in NUMBERS] + [b"", BINARY, b"x" * 64, b"y" * 5000, b"007", b"+1", b"-0"]


def commands() -> dict[str, list[tuple[bytes, ...]]]:
    """What to put under `k`, by a name that says the form in which Redis writes it."""
    many = [b"%d:%d" % (at, at * at) for at in range(10_000)]
    wide = [b"-170000", b"5", b"70000", b"9000000000"]
    pairs = [each for at in range(10_000) for each in (b"%.17g" % (at / 7), b"m%d" % at)]
    scores = [b"-inf", b"a", b"inf", b"b", b"-1.5", b"c", b"3", BINARY, b"1e300", b"d", b"0.1", b"e", b"-4096", b"7"]
    cases = {f"string-{at}": [(b"SET", b"k", text)] for at, text in enumerate(TEXTS)}
    return cases | {
        "string-lzf": [(b"SET", b"k", b"abc" * 10_000 + BINARY)],
        "list-listpack": [(b"RPUSH", b"k", *TEXTS[:-4])],
        "list-nodes": [(b"RPUSH", b"k", *many, *TEXTS)],
        "list-plain-node": [(b"RPUSH", b"k", b"a", random.Random(1).randbytes(10_000), b"b" * 9000, b"c")],
        "set-integers": [(b"SADD", b"k", b"3", b"-2", b"1")],
        "set-integers-32": [(b"SADD", b"k", *wide[:3])],
        "set-integers-64": [(b"SADD", b"k", *wide)],
        "set-small": [(b"SADD", b"k", b"a", b"1", b"")],
        "set-plain": [(b"SADD", b"k", *many, *TEXTS)],
        "hash-listpack": [(b"HSET", b"k", b"f", b"v", b"1", b"-5000", b"", b"", b"b", BINARY[:64])],
        "hash-plain": [(b"HSET", b"k", *many, *TEXTS[:14])],
        "zset-listpack": [(b"ZADD", b"k", *scores[:6], *scores[8:])],
        "zset-plain": [(b"ZADD", b"k", *pairs, *scores)],
        "hyperloglog": [(b"PFADD", b"k", *many[:500])],
        "stream": [(b"XADD", b"k", b"%d-%d" % (at // 7 + 1, at % 7), b"f", b"%d" % at) for at in range(250)],
        "stream-fields": [
            (b"XADD", b"k", b"5-9", b"a", b"1"),
            (b"XADD", b"k", b"6-1", b"a", b"x", b"b", BINARY),
            (b"XADD", b"k", b"7-1", b"a", b"x" * 5000),
            (b"XADD", b"k", b"18446744073709551615-3", b"", b""),
            (b"XDEL", b"k", b"6-1"),
        ],
        "stream-empty": [(b"XADD", b"k", b"5-5", b"a", b"1"), (b"XTRIM", b"k", b"MAXLEN", b"0")],
        "stream-groups": [
            *((b"XADD", b"k", b"%d-1" % at, b"f", b"%d" % at) for at in range(1, 150)),
            (b"XGROUP", b"CREATE", b"k", b"1", b"0"),
            (b"XGROUP", b"CREATE", b"k", b"h", b"77-3"),
            (b"XGROUP", b"CREATECONSUMER", b"k", b"1", b"idle"),
            (b"XREADGROUP", b"GROUP", b"1", b"ann", b"COUNT", b"70", b"STREAMS", b"k", b">"),
            (b"XREADGROUP", b"GROUP", b"1", b"bob", b"COUNT", b"40", b"STREAMS", b"k", b">"),
            (b"XACK", b"k", b"1", b"3-1", b"80-1"),
            (b"XCLAIM", b"k", b"1", b"bob", b"0", b"4-1", b"5-1"),
            (b"XDEL", b"k", b"2-1"),
        ],
    }


SHOWING = {
    "string": [(b"GET", b"k")],
    "list": [(b"LRANGE", b"k", b"0", b"-1")],
    "set": [(b"SMEMBERS", b"k")],
    "hash": [(b"HGETALL", b"k")],
    "zset": [(b"ZRANGE", b"k", b"0", b"-1", b"WITHSCORES")],
    "stream": [
        (b"XRANGE", b"k", b"-", b"+"),
        (b"XREVRANGE", b"k", b"+", b"-", b"COUNT", b"150"),
        (b"XINFO", b"GROUPS", b"k"),
        (b"XPENDING", b"k", b"1"),
        (b"XLEN", b"k"),
    ],
}


def contents(client) -> list[str]:
    """All that can be asked about `k`, whoever has it."""
    kind = client.show(b"TYPE", b"k")
    shown = [kind, *(client.show(*each) for each in SHOWING[kind])]
    if kind in ("hash", "set"):  # whose order is everyone's own
        shown = [kind, str(sorted(shown[1].strip("[]").split(", ")))]
    if kind == "zset":  # Redis 7.0 and 7.2 show the same number in different ways
        words = shown[1].strip("[]").split(", ")
        shown[1] = str([float(each.strip('"')) if at % 2 else each for at, each in enumerate(words)])
    if shown[1].startswith('"HYLL'):  # which may be sparse or dense
        shown[1] = client.show(b"PFCOUNT", b"k")
    return shown


def payload_of(client) -> bytes:
    """DUMP k, through a client that only shows replies."""
    shown = client.show(b"DUMP", b"k")
    return eval("b" + shown)  # noqa: S307 - our own test's notation for bytes


@pytest.mark.parametrize("case", commands())
def test_like_a_real_server(case, client, redis_client):
    redis = redis_client()
    for command in commands()[case]:
        client.show(*command)
        redis.show(*command)
    expected = contents(redis)
    assert contents(client) == expected
    ours, theirs = payload_of(client), payload_of(redis)
    for each, payload in ((client, theirs), (redis, ours), (client, ours)):
        assert each.show(b"RESTORE", b"k", b"0", payload, b"REPLACE") == "OK"
        assert contents(each) == expected
    assert client.world.keyspace.used_bytes >= 0


def test_keys_small_values_are_written_as_redis_does(client, redis_client):
    redis = redis_client()
    for text in TEXTS[:-4]:
        client.show(b"SET", b"k", text)
        redis.show(b"SET", b"k", text)
        assert payload_of(client) == payload_of(redis) or len(text) > 20


# --- round trips ----------------------------------------------------------------------------------------------------

TEXT = st.binary(max_size=80) | st.sampled_from(TEXTS) | st.integers(-(1 << 65), 1 << 65).map(lambda each: b"%d" % each)
ID = st.integers(1, LAST_ID) | st.integers(1, 300)


def filled_hash(items):
    made = Hash()
    for field, value in items.items():
        made.set(field, value)
    return made


def filled_list(elements):
    made = List()
    for each in elements:
        made.push_right(each)
    return made


@st.composite
def streams(draw):
    made = Stream()
    ids = sorted(draw(st.sets(ID, max_size=20)))
    for entry_id in ids:
        made.add(entry_id, draw(st.lists(TEXT, min_size=1, max_size=2)) * 2)
    for entry_id in ids:
        if draw(st.integers(0, 3)) == 0:
            made.delete(entry_id)
    for name in draw(st.sets(TEXT, max_size=2)):
        made.add_group(name, draw(ID), draw(st.none() | st.integers(0, 100)))
        group = made.groups[name]
        consumers = [group.add_consumer(each, draw(st.integers(0, 1 << 40))) for each in sorted(draw(st.sets(TEXT)))]
        for consumer in consumers:
            consumer.active_ms = consumer.seen_ms
        for entry_id in ids if consumers else ():
            owner = draw(st.sampled_from(consumers))
            group.add_pending(entry_id, Pending(owner, draw(st.integers(0, 1 << 40)), draw(st.integers(0, 9))))
    return made


VALUES = (
    TEXT
    | st.lists(TEXT, min_size=1).map(filled_list)
    | st.sets(TEXT, min_size=1).map(sorted).map(Set.of)
    | st.dictionaries(TEXT, TEXT, min_size=1).map(filled_hash)
    | st.dictionaries(TEXT, st.floats(allow_nan=False), min_size=1).map(lambda each: SortedSet.of(each.items()))
    | streams()
)


def plain(value):
    """A value as something that can be compared."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Stream):
        groups = [
            (
                group.name,
                group.last_id,
                group.entries_read,
                [(each.name, each.seen_ms, each.active_ms) for each in group.sorted_consumers()],
                [
                    (at, each.consumer.name, each.delivered_ms, each.deliveries)
                    for at, each in group.pending.ascending(0, LAST_ID)
                ],
            )
            for group in value.sorted_groups()
        ]
        counters = value.last_id, value.entries_added, value.max_deleted_id
        return list(value.entries.ascending(0, LAST_ID)), counters, groups
    return list(value) if isinstance(value, List) else list(value.items())


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_there_and_back(value):
    payload = dump(value)
    assert is_whole(payload)
    back = restore(payload)
    assert type(back) is type(value)
    if isinstance(value, SortedSet):
        assert list(back.order) == list(value.order)
    else:
        assert plain(back) == plain(value)


def test_there_and_back_through_a_real_server(redis_client):
    """What we write, as Redis understands it and writes it itself, in its own forms."""
    redis = redis_client()

    @given(VALUES)
    @settings(max_examples=100, deadline=None)
    def passes(value):
        assert redis.show(b"RESTORE", b"k", b"0", dump(value), b"REPLACE") == "OK"
        back = restore(payload_of(redis))
        if isinstance(value, SortedSet):
            assert list(back.order) == list(value.order)
        elif isinstance(value, Hash | Set):
            assert sorted(back.items()) == sorted(value.items())
        else:
            assert plain(back) == plain(value)

    passes()


@given(st.lists(st.binary(max_size=300) | st.integers(-(1 << 63), (1 << 63) - 1)))
@settings(max_examples=100)
def test_listpacks(elements):
    assert read_elements(listpack(elements)) == elements


@pytest.mark.parametrize("size", [0, 63, 64, 125, 126, 4095, 4096, 16_379, 16_380, 16_381, 2_097_145, 2_097_146])
def test_listpack_sizes(size):
    assert read_elements(listpack([b"x" * size, 1, b"y" * size])) == [b"x" * size, 1, b"y" * size]


# --- damaged payloads -----------------------------------------------------------------------------------------------


def sealed(content: bytes, version: int = 10) -> bytes:
    """With a right footer."""
    payload = content + version.to_bytes(2, "little")
    return payload + crc64(payload).to_bytes(8, "little")


def small_payloads(client) -> list[bytes]:
    """One of each form that we and Redis write, without footers."""
    ours = []
    for case, lines in commands().items():
        if "plain" not in case and "string-" not in case and "nodes" not in case and "hyper" not in case:
            client.show(b"DEL", b"k")
            for line in lines[:6] if case.startswith("stream-") else lines[:2]:
                client.show(*line[:30])
            if len(payload := payload_of(client)) < 1000:
                ours.append(payload[:-FOOTER_BYTES])
    texts = listpack([b"a", 1, b"b", 70_000, b"ccc", b"1.5"])
    integers = struct.pack("<IIhh", 2, 2, -5, 7)
    packed = bytes((11,)) + string_bytes(integers)
    theirs = [bytes((kind,)) + length_bytes(len(texts)) + texts for kind in (16, 17, 20)]
    theirs += [bytes((kind,)) + stream_content(form) for kind, form in STREAM_FORMS]
    return [*ours, *theirs, packed, b"\x12\x02\x01\x01a\x02" + length_bytes(len(texts)) + texts, b"\x00\xc1ab"]


def test_damaged_payloads(client):
    good = refused = 0
    rng = random.Random(7)
    for content in small_payloads(client):
        damaged = [content[:at] for at in range(len(content))]
        for at in range(len(content)):
            values = {0, 1, 0x7F, 0x80, 0x81, 0xC3, 0xFF, content[at] ^ 1, content[at] + 1 & 0xFF, rng.randrange(256)}
            damaged += [content[:at] + bytes((each,)) + content[at + 1 :] for each in sorted(values - {content[at]})]
        for each in damaged:
            reply = client.show(b"RESTORE", b"k", b"0", sealed(each), b"REPLACE")
            assert reply in ("OK", "!ERR Bad data format"), each
            good += reply == "OK"
            refused += reply != "OK"
            if reply == "OK":
                contents(client)
                copy.copy(client.service.keyspace.databases[0].peek(b"k", client.world.now_ms).value)
    assert good > 1000
    assert refused > 1000


def test_truncated_payloads_are_refused(client):
    for content in small_payloads(client):
        for at in range(len(content)):
            assert client.show(b"RESTORE", b"t", b"0", sealed(content[:at])) == "!ERR Bad data format"
        assert client.show(b"RESTORE", b"t", b"0", sealed(content)[:-1]).startswith("!ERR DUMP payload")


@given(st.integers(0, 22), st.binary(max_size=60))
@settings(max_examples=200)
def test_any_bytes(kind, content):
    try:
        restore(sealed(bytes((kind,)) + content))
    except Malformed:
        pass


HUGE = [b"\x81" + b"\xff" * 8, b"\x80\x7f\xff\xff\xff", b"\x80\x00\xff\xff\xff"]


@pytest.mark.parametrize(
    "content", [bytes((kind,)) + each for kind in (*range(6), 11, *range(15, 22)) for each in HUGE]
)
def test_claimed_sizes_are_not_believed(content):
    for each in (content, content + b"\x01a" * 5, b"\x00\xc3\x05" + content[1:] + b"aaaaa"):
        payload = sealed(each)
        tracemalloc.start()
        try:
            with pytest.raises(Malformed):
                restore(payload)
            assert tracemalloc.get_traced_memory()[1] < 20_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        b"\x02\x02\x01a\x01a",  # a member twice
        b"\x04\x02\x01a\x01b\x01a\x01c",
        b"\x05\x02\x01a" + struct.pack("<d", 1) + b"\x01a" + struct.pack("<d", 2),
        b"\x05\x01\x01a" + struct.pack("<d", float("nan")),
        b"\x02\x00",  # empty
        b"\x01\x00",
        b"\x04\x00",
        b"\x05\x00",
        b"\x0b" + string_bytes(struct.pack("<IIhh", 2, 2, 7, 7)),
        b"\x0b" + string_bytes(struct.pack("<III", 3, 1, 7)),
        b"\x10" + string_bytes(listpack([b"a", b"b", b"c"])),
        b"\x11" + string_bytes(listpack([b"a", b"b"])),
        b"\x11" + string_bytes(listpack([b"a", b"nan"])),
        b"\x00\x01ab",  # more than a value
    ],
)
def test_what_cannot_be(content, client):
    assert client.show(b"RESTORE", b"k", b"0", sealed(content)) == "!ERR Bad data format"


def test_versions(client):
    for version, expected in ((0, "OK"), (12, "OK"), (13, "!ERR DUMP payload version or checksum are wrong")):
        assert client.show(b"RESTORE", b"k", b"0", sealed(b"\x00\x01a", version), b"REPLACE") == expected


def test_compressed_strings():
    assert decompress(b"\x00a\xe0\xff\x00", 265) == b"a" * 265
    assert decompress(b"\x02abc\x20\x02", 6) == b"abcabc"
    for data, size in ((b"\x00a\xe0\xff\x00", 264), (b"\x00a\x20\x05", 4), (b"\x05ab", 6), (b"\x00a\xe0", 9), (b"", 1)):
        with pytest.raises(Malformed):
            decompress(data, size)


def test_shared_fields_cannot_multiply():
    """A long name of a field, and many entries of a few bytes that all share it."""
    entries = [each for at in range(5000) for each in (2, 0, at + 1, 0, 4)]
    block = listpack([5000, 0, 1, b"f" * 100_000, 0, *entries])
    content = b"\x0f\x01\x10" + bytes(16) + length_bytes(len(block)) + block
    with pytest.raises(Malformed):
        restore(sealed(content + length_bytes(5000) + b"\x00\x50\x00\x00"))


# --- times and uses -------------------------------------------------------------------------------------------------


def test_lifetimes_and_idle_times(client, world):
    client.show("SET", "k", "v")
    payload = payload_of(client)
    assert client.show("RESTORE", "a", 5000, payload, "IDLETIME", 100) == "OK"
    assert client.show("OBJECT", "IDLETIME", "a") == "100"
    assert client.show("PTTL", "a") == "5000"
    assert client.show("RESTORE", "a", world.now_ms + 10, payload, "ABSTTL", "REPLACE") == "OK"
    assert client.show("PTTL", "a") == "10"
    world.wait(10)
    assert client.show("EXISTS", "a") == "0"


def test_how_often_it_was_used(client, world):
    """FREQ counts under an LFU policy, where IDLETIME is ignored."""
    world.keyspace.evictor.policy = Policy.ALLKEYS_LFU
    client.show("SET", "k", "v")
    payload = payload_of(client)
    assert client.show("RESTORE", "a", 0, payload, "FREQ", 200) == "OK"
    assert client.show("OBJECT", "FREQ", "a") == "200"
    assert client.show("RESTORE", "b", 0, payload, "IDLETIME", 10**6) == "OK"
    assert client.show("OBJECT", "FREQ", "b") == "5"


def test_every_change_is_booked(client, world):
    before = world.keyspace.used_bytes
    for lines in commands().values():
        client.show("DEL", "k")
        for line in lines:
            client.show(*line)
        payload = payload_of(client)
        assert client.show("RESTORE", "r", 0, payload, "REPLACE") == "OK"
        assert client.show("RESTORE", "k", 1, payload, "ABSTTL", "REPLACE") == "OK"
    client.show("DEL", "r")
    assert world.keyspace.used_bytes == before


def test_who_waits_for_a_key_is_served(client, world):
    client.show("RPUSH", "k", "a", "b")
    payload = payload_of(client)
    waiter = world.client()
    assert waiter.send("BLPOP", "r", 0) == b""
    assert client.show("RESTORE", "r", 0, payload) == "OK"
    assert client.show("LRANGE", "r", 0, -1) == '["b"]'


def test_watches_see_it(client, world):
    client.show("SET", "k", "v")
    payload = payload_of(client)
    other = world.client()
    other.show("WATCH", "k")
    client.show("RESTORE", "k", 0, payload, "REPLACE")
    other.show("MULTI")
    other.show("GET", "k")
    assert other.show("EXEC") == "nil"


def stream_content(form: int) -> bytes:
    """One entry, one group, two consumers: one has the entry pending, the other was never active."""
    entries = listpack([1, 0, 1, b"f", 0, 2, 0, 0, b"v", 4])
    stream = b"\x01\x10" + (7 << 64).to_bytes(16, "big") + length_bytes(len(entries)) + entries + b"\x01\x07\x00"
    counters = b"\x07\x00\x03\x00\x09" if form >= 2 else b""
    pending = b"\x01" + (7 << 64).to_bytes(16, "big") + struct.pack("<q", 5000) + b"\x02"
    group = b"\x01g\x07\x00" + (b"\x09" if form >= 2 else b"") + pending + b"\x02"
    active, never = (struct.pack("<q", each) if form >= 3 else b"" for each in (4000, -1))
    ann = b"\x03ann" + struct.pack("<q", 6000) + active + b"\x01" + (7 << 64).to_bytes(16, "big")
    bob = b"\x03bob" + struct.pack("<q", 6000) + never + b"\x00"
    return stream + counters + b"\x01" + group + ann + bob


STREAM_FORMS = [(15, 1), (19, 2), (21, 3)]


@pytest.mark.parametrize(("kind", "form"), STREAM_FORMS)
def test_streams_of_every_version(kind, form, client):
    stream = restore(sealed(bytes((kind,)) + stream_content(form), 11))
    group = stream.groups[b"g"]
    assert [(each.name, each.seen_ms, each.active_ms) for each in group.sorted_consumers()] == [
        (b"ann", 6000, 4000 if form == 3 else 6000),
        (b"bob", 6000, None if form == 3 else 6000),
    ]
    pending = group.pending.get(7 << 64)
    assert (pending.consumer.name, pending.delivered_ms, pending.deliveries) == (b"ann", 5000, 2)
    assert (stream.last_id, stream.entries_added, stream.max_deleted_id) == (
        (7 << 64, 9, 3 << 64) if form > 1 else (7 << 64, 1, 0)
    )
    assert plain(restore(dump(stream)))[:2] == plain(stream)[:2]
    content = bytes((kind,)) + stream_content(form)
    for at in range(len(content)):
        with pytest.raises(Malformed):
            restore(sealed(content[:at]))
