"""Values in the format of Redis' RDB files, with the footer of DUMP: a version, and a checksum of all before.

We write the plain forms that every Redis of the last ten years reads, under version 10, that of Redis 7.0;
hashes with lifetimes of fields under version 12, that of Redis 7.4, which brought them. We read
besides what Redis 7.0 and 7.2 write: integers and LZF in strings, lists in nodes, sets of integers, and listpacks.
Ziplists and zipmaps, which Redis before 7.0 wrote, are not read.

A payload may come from anyone, so whatever it claims is checked, members that are there twice included, and nothing
is allocated before its bytes have been seen. Only a damage that leaves a well-formed payload goes unseen.

Source: https://github.com/redis/redis/blob/7.2/src/rdb.c
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TypeVar

from minidist.engines.keyspace.hash_ttl import END_MS, TimedHash
from minidist.engines.keyspace.hashes import Hash
from minidist.engines.keyspace.listpacks import read_listpack
from minidist.engines.keyspace.lists import List
from minidist.engines.keyspace.rdb_strings import Malformed, Reader, length_bytes, string_bytes
from minidist.engines.keyspace.sets import Set
from minidist.engines.keyspace.sortedsets import SortedSet
from minidist.engines.keyspace.stream_serialisation import read_stream, stream_parts
from minidist.engines.keyspace.streams import Stream
from minidist.engines.keyspace.tables import NEVER, Value
from minidist.structures.crc64 import crc64

WRITTEN_VERSION = 10
LAST_VERSION = 12  # that of Redis 7.4, in which fields of hashes have lifetimes
VERSION_BYTES, CHECKSUM_BYTES = 2, 8
FOOTER_BYTES = VERSION_BYTES + CHECKSUM_BYTES

STRING, LIST, SET, HASH, SORTED_SET = 0, 1, 2, 4, 5
INTEGER_SET, HASH_LISTPACK, SORTED_SET_LISTPACK, LIST_NODES, SET_LISTPACK = 11, 16, 17, 18, 20
STREAM_5, STREAM_7, STREAM_7_2 = 15, 19, 21
TIMED_HASH, TIMED_HASH_LISTPACK = 24, 25
TIME_BYTES = 8
LONGEST_TIME = 15  # digits
PLAIN_NODE, PACKED_NODE = 1, 2
INTEGER_SET_HEADER_BYTES = 8

C = TypeVar("C", List, Set, Hash, TimedHash, SortedSet)


def dump(value: Value) -> bytes:
    """A value as DUMP returns it. O(size)."""
    return with_footer(_content(value), LAST_VERSION if isinstance(value, TimedHash) else WRITTEN_VERSION)


def with_footer(content: bytes, version: int = WRITTEN_VERSION) -> bytes:
    """A payload: what it is to hold, the version, and the checksum of both."""
    payload = content + version.to_bytes(VERSION_BYTES, "little")
    return payload + crc64(payload).to_bytes(CHECKSUM_BYTES, "little")


def is_whole(payload: bytes) -> bool:
    """Whether the version is known and the checksum is right."""
    if len(payload) < FOOTER_BYTES:
        return False
    version = int.from_bytes(payload[-FOOTER_BYTES:-CHECKSUM_BYTES], "little")
    checksum = int.from_bytes(payload[-CHECKSUM_BYTES:], "little")
    return version <= LAST_VERSION and crc64(payload[:-CHECKSUM_BYTES]) == checksum


def restore(payload: bytes) -> Value:
    """The value of a payload that `is_whole`. Raises Malformed. O(size)."""
    reader = Reader(payload[:-FOOTER_BYTES])
    value = read_value(reader.byte(), reader)
    if reader.at != reader.end:
        raise Malformed("more than a value")
    return value


def read_value(kind: int, reader: Reader) -> Value:
    """The value of a type, which stands next. Raises Malformed."""
    read = READERS.get(kind)
    if read is None:
        raise Malformed(f"unknown type {kind}")
    return read(reader)


# --- writing --------------------------------------------------------------------------------------------------------

Parts = tuple[int, Iterable[bytes]]
"""The type, and the bytes that follow it."""


def parts_of(value: Value) -> Parts:
    """A value as it is written, element by element: it must not change meanwhile."""
    if isinstance(value, bytes | bytearray):
        return STRING, (string_bytes(bytes(value)),)
    return WRITERS[value.__class__](value)


def _content(value: Value) -> bytes:
    """The type and the value, without a footer."""
    kind, parts = parts_of(value)
    return bytes((kind,)) + b"".join(parts)


def _elements(value: Value) -> Iterator[bytes]:
    """Of a list or a set."""
    yield length_bytes(len(value))
    yield from map(string_bytes, value)


def _write_hash(value: Hash) -> Parts:
    items = (string_bytes(field) + string_bytes(text) for field, text in value.items())
    return HASH, chain((length_bytes(len(value)),), items)


def _write_sorted_set(value: SortedSet) -> Parts:
    """From the highest score down, as Redis writes them."""
    pairs = (string_bytes(member) + struct.pack("<d", score) for score, member in reversed(value.order))
    return SORTED_SET, chain((length_bytes(len(value)),), pairs)


def _write_timed_hash(value: TimedHash) -> Parts:
    """Before each field when it expires, counted from the earliest time, plus 1; 0 for never."""
    earliest_ms = value.due_ms

    def fields() -> Iterator[bytes]:
        for field, text in value.items():
            expires_ms = value.expires_ms(field)
            yield length_bytes(0 if expires_ms == NEVER else expires_ms - earliest_ms + 1)
            yield string_bytes(field) + string_bytes(text)

    return TIMED_HASH, chain((earliest_ms.to_bytes(TIME_BYTES, "little"), length_bytes(len(value))), fields())


WRITERS: dict[type, Callable[[Value], Parts]] = {
    List: lambda value: (LIST, _elements(value)),
    Set: lambda value: (SET, _elements(value)),
    Hash: _write_hash,
    TimedHash: _write_timed_hash,
    SortedSet: _write_sorted_set,
    Stream: lambda value: (STREAM_7, stream_parts(value)),
}


# --- reading --------------------------------------------------------------------------------------------------------


def _strings(reader: Reader) -> Iterator[bytes]:
    for _ in range(reader.length()):
        yield reader.string()


def _nodes(reader: Reader) -> Iterator[bytes]:
    """The elements of a list that is written as nodes, each a listpack or one long element."""
    for _ in range(reader.length()):
        kind, content = reader.length(), reader.string()
        if kind == PACKED_NODE:
            yield from read_listpack(content)
        elif kind == PLAIN_NODE:
            yield content
        else:
            raise Malformed("unknown kind of node")


def _list(elements: Iterable[bytes]) -> List:
    made = List()
    for element in elements:
        made.push_right(element)
    return _filled(made)


def _set(members: Iterable[bytes]) -> Set:
    made = Set()
    for member in members:
        if not made.add(member):
            raise Malformed("a member twice")
    return _filled(made)


def _integers(data: bytes) -> Iterator[bytes]:
    """The members of a set of integers, which ascend."""
    width, count = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:INTEGER_SET_HEADER_BYTES], "little")
    if width not in (2, 4, 8) or len(data) != INTEGER_SET_HEADER_BYTES + width * count:
        raise Malformed("no set of integers")
    before = -(1 << 63) - 1
    for at in range(INTEGER_SET_HEADER_BYTES, len(data), width):
        value = int.from_bytes(data[at : at + width], "little", signed=True)
        if value <= before:
            raise Malformed("integers do not ascend")
        yield b"%d" % value
        before = value


def _hash(texts: Iterator[bytes]) -> Hash:
    """Of fields and values in turns."""
    made = Hash()
    for field in texts:
        value = next(texts, None)
        if value is None or not made.set(field, value):
            raise Malformed("a field twice, or without a value")
    return _filled(made)


def _hash_items(reader: Reader) -> Iterator[bytes]:
    for _ in range(reader.length()):
        yield reader.string()
        yield reader.string()


def _timed_hash(fields: Iterable[tuple[bytes, bytes, int]]) -> Hash:
    """Of fields, values, and when they expire; 0 for never."""
    made = TimedHash()
    for field, value, expires_ms in fields:
        if not made.set(field, value) or expires_ms >= END_MS:
            raise Malformed("a field twice, or a time out of range")
        if expires_ms:
            made.expire(field, expires_ms)
    return _filled(made)


def _timed_items(reader: Reader) -> Iterator[tuple[bytes, bytes, int]]:
    earliest_ms = int.from_bytes(reader.take(TIME_BYTES), "little")
    for _ in range(reader.length()):
        after = reader.length()
        yield reader.string(), reader.string(), earliest_ms + after - 1 if after else 0


def _timed_listpack(reader: Reader) -> Iterator[tuple[bytes, bytes, int]]:
    reader.take(TIME_BYTES)  # the earliest time
    texts = iter(read_listpack(reader.string()))
    for field in texts:
        value, time = next(texts, None), next(texts, b"")
        if value is None or not time.isdigit() or len(time) > LONGEST_TIME:
            raise Malformed("a field without a value, or without a time")
        yield field, value, int(time)


def _sorted_set(scores: Iterable[tuple[bytes, float]]) -> SortedSet:
    made = SortedSet()
    for member, score in scores:
        if score != score or made.put(member, score) is not None:  # NaN differs from itself
            raise Malformed("a member twice, or without a score")
    return _filled(made)


def _scores(reader: Reader) -> Iterator[tuple[bytes, float]]:
    for _ in range(reader.length()):
        member = reader.string()
        yield member, struct.unpack("<d", reader.take(8))[0]


def _text_scores(data: bytes) -> Iterator[tuple[bytes, float]]:
    """Members and scores in turns."""
    texts = iter(read_listpack(data))
    for member in texts:
        score = next(texts, b"")
        if b"_" in score or score != score.strip():
            raise Malformed("no score")
        try:
            yield member, float(score)
        except ValueError:
            raise Malformed("no score") from None


def _filled(value: C) -> C:
    """A collection as it is. Raises Malformed for an empty one, which no key can have."""
    if not value:
        raise Malformed("empty")
    return value


READERS: dict[int, Callable[[Reader], Value]] = {
    STRING: lambda reader: reader.string(),
    LIST: lambda reader: _list(_strings(reader)),
    SET: lambda reader: _set(_strings(reader)),
    HASH: lambda reader: _hash(_hash_items(reader)),
    SORTED_SET: lambda reader: _sorted_set(_scores(reader)),
    INTEGER_SET: lambda reader: _set(_integers(reader.string())),
    HASH_LISTPACK: lambda reader: _hash(iter(read_listpack(reader.string()))),
    SORTED_SET_LISTPACK: lambda reader: _sorted_set(_text_scores(reader.string())),
    LIST_NODES: lambda reader: _list(_nodes(reader)),
    SET_LISTPACK: lambda reader: _set(read_listpack(reader.string())),
    TIMED_HASH: lambda reader: _timed_hash(_timed_items(reader)),
    TIMED_HASH_LISTPACK: lambda reader: _timed_hash(_timed_listpack(reader)),
    STREAM_5: lambda reader: read_stream(reader, 1),
    STREAM_7: lambda reader: read_stream(reader, 2),
    STREAM_7_2: lambda reader: read_stream(reader, 3),
}
