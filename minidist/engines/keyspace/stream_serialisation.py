"""Streams in the RDB format: listpacks of entries, what the stream remembers, and its groups.

A listpack begins with a master entry, whose fields most entries share and then do not repeat:

    live entries, deleted entries, number of fields, field …, 0
    flags, id minus master id (milliseconds, sequence), [number of fields, field,] value …, size of this in elements

There are three forms: Redis 5 wrote the first; the second, of Redis 7.0, has counters besides; the third, of 7.2, also
knows when a consumer was active. We write the second, which 7.0 and 7.2 read; so that time is not kept.

Source: https://github.com/redis/redis/blob/7.2/src/t_stream.c (listpacks), …/rdb.c (rdbLoadObject)
"""

from collections.abc import Iterator
from itertools import islice

from minidist.engines.keyspace.listpacks import Element, element_text, listpack, read_elements
from minidist.engines.keyspace.rdb_strings import Malformed, Reader, length_bytes
from minidist.engines.keyspace.stream_groups import Consumer, Group, Pending
from minidist.engines.keyspace.streams import LAST_SEQUENCE, SEQUENCE_BITS, Stream
from minidist.wire.resp_plain import strict_integer

FORM_7, FORM_7_2 = 2, 3
DELETED, SAME_FIELDS = 1, 2
ID_BYTES, TIME_BYTES = 16, 8
LARGEST = (1 << 63) - 1
# -1 as a length: how many entries a group has read is not known.
UNKNOWN = (1 << 64) - 1
NEVER_ACTIVE = -1
# How much larger than its listpack all that shares the master's fields may be: Redis has at most 100 entries in one.
MOST_EXPANSION = 128


# --- writing --------------------------------------------------------------------------------------------------------


def stream_parts(stream: Stream) -> Iterator[bytes]:
    """What follows the type, in the form of Redis 7.0."""
    blocks = stream.entries
    yield length_bytes(len(blocks.ids))
    for ids, bodies in zip(blocks.ids, blocks.values, strict=True):
        yield _text(ids[0].to_bytes(ID_BYTES, "big"))
        yield _text(_block_listpack(ids, [_texts(body) for body in bodies]))
    yield length_bytes(len(stream))
    for entry_id in (stream.last_id, blocks.first_id or 0, stream.max_deleted_id):
        yield _id_lengths(entry_id)
    yield length_bytes(stream.entries_added)
    yield length_bytes(len(stream.groups))
    for group in stream.sorted_groups():
        yield from _group_parts(group)


def _text(text: bytes) -> bytes:
    """A string that is never written as an integer."""
    return length_bytes(len(text)) + text


def _id_lengths(entry_id: int) -> bytes:
    return length_bytes(entry_id >> SEQUENCE_BITS) + length_bytes(entry_id & LAST_SEQUENCE)


def _texts(body: bytes) -> list[bytes]:
    """Fields and values in turns, from an entry's body: a reply of bulk strings."""
    texts, at = [], body.index(b"\n") + 1
    while at < len(body):
        start = body.index(b"\n", at) + 1
        end = start + int(body[at + 1 : start])
        texts.append(body[start:end])
        at = end + 2
    return texts


def _block_listpack(ids: list[int], entries: list[list[bytes]]) -> bytes:
    """The entries of one block."""
    master, fields = ids[0], entries[0][::2]
    elements: list[Element] = [len(ids), 0, len(fields), *fields, 0]
    for entry_id, texts in zip(ids, entries, strict=True):
        ms = (entry_id >> SEQUENCE_BITS) - (master >> SEQUENCE_BITS)
        sequence = (entry_id & LAST_SEQUENCE) - (master & LAST_SEQUENCE)
        if texts[::2] == fields:
            entry: list[Element] = [SAME_FIELDS, _signed(ms), _signed(sequence), *texts[1::2]]
        else:
            entry = [0, _signed(ms), _signed(sequence), len(texts) // 2, *texts]
        elements += entry
        elements.append(len(entry))
    return listpack(elements)


def _signed(value: int) -> int:
    """The same modulo 2^64, within 64 bits with a sign."""
    value &= LAST_SEQUENCE
    return value - (1 << 64) if value > LARGEST else value


def _group_parts(group: Group) -> Iterator[bytes]:
    yield _text(group.name)
    yield _id_lengths(group.last_id)
    yield length_bytes(UNKNOWN if group.entries_read is None else group.entries_read)
    yield length_bytes(len(group.pending))
    for entry_id, pending in group.pending.ascending(0, group.pending.last_id or 0):
        yield entry_id.to_bytes(ID_BYTES, "big")
        yield pending.delivered_ms.to_bytes(TIME_BYTES, "little", signed=True) + length_bytes(pending.deliveries)
    yield length_bytes(len(group.consumers))
    for consumer in group.sorted_consumers():
        yield _text(consumer.name)
        yield consumer.seen_ms.to_bytes(TIME_BYTES, "little", signed=True) + length_bytes(len(consumer.pending))
        for entry_id, _ in consumer.pending.ascending(0, consumer.pending.last_id or 0):
            yield entry_id.to_bytes(ID_BYTES, "big")


# --- reading --------------------------------------------------------------------------------------------------------


def read_stream(reader: Reader, form: int) -> Stream:
    """What follows the type. Raises Malformed."""
    stream = Stream()
    for _ in range(reader.length()):
        _read_block(stream, reader.string(), reader.string())
    if reader.length() != len(stream):
        raise Malformed("another number of entries")
    greatest = stream.last_id
    stream.last_id = _read_id(reader)
    if stream.last_id < greatest:
        raise Malformed("an entry after the last")
    stream.entries_added = len(stream)
    if form >= FORM_7:
        _read_id(reader)  # of the first entry, which we know
        stream.max_deleted_id = _read_id(reader)
        stream.entries_added = _count(reader)
    for _ in range(reader.length()):
        _read_group(stream, reader, form)
    return stream


def _count(reader: Reader) -> int:
    """A number that a reply can show."""
    count = reader.length()
    if count > LARGEST:
        raise Malformed("too large")
    return count


def _read_id(reader: Reader) -> int:
    return reader.length() << SEQUENCE_BITS | reader.length()


def _raw_id(data: bytes) -> int:
    if len(data) != ID_BYTES:
        raise Malformed("no id")
    return int.from_bytes(data, "big")


class _Elements:
    """The elements of a listpack, one after the other. Raises Malformed at the end, or for one of another kind."""

    __slots__ = ("elements", "rest")

    def __init__(self, data: bytes) -> None:
        self.elements = read_elements(data)
        self.rest = iter(self.elements)

    def integer(self) -> int:
        """The next, written as an integer or as text."""
        element = next(self.rest, b"")
        value = element if isinstance(element, int) else strict_integer(element)
        if value is None:
            raise Malformed("no integer")
        return value

    def texts(self, count: int) -> list[bytes]:
        """So many elements."""
        found = [element_text(each) for each in islice(self.rest, count)] if 0 <= count <= len(self.elements) else []
        if len(found) != count:
            raise Malformed("more than there is")
        return found


def _read_block(stream: Stream, key: bytes, data: bytes) -> None:
    """Add the entries of a listpack, whose ids must ascend."""
    master = _raw_id(key)
    elements = _Elements(data)
    live, deleted = elements.integer(), elements.integer()
    fields = elements.texts(elements.integer())
    if elements.integer() != 0 or live < 0 or deleted < 0:
        raise Malformed("no master entry")
    shared_bytes, room_bytes = sum(map(len, fields)), len(data) * MOST_EXPANSION
    before, count_before = max(master - 1, stream.last_id), len(stream)
    for _ in range(live + deleted):
        flags = elements.integer()
        ms = (master >> SEQUENCE_BITS) + elements.integer() & LAST_SEQUENCE
        entry_id = ms << SEQUENCE_BITS | (master & LAST_SEQUENCE) + elements.integer() & LAST_SEQUENCE
        if flags & SAME_FIELDS:
            values = elements.texts(len(fields))
            room_bytes -= shared_bytes
            texts, size = [each for pair in zip(fields, values, strict=True) for each in pair], len(values) + 3
        else:
            texts = elements.texts(2 * elements.integer())
            size = len(texts) + 4
        if entry_id <= before or elements.integer() != size or not texts or room_bytes < 0:
            raise Malformed("no entry")
        before = entry_id
        if not flags & DELETED:
            stream.add(entry_id, texts)
    if len(stream) - count_before != live or next(elements.rest, None) is not None:
        raise Malformed("another number of entries")


def _read_group(stream: Stream, reader: Reader, form: int) -> None:
    name, last_id = reader.string(), _read_id(reader)
    read: int | None = None
    if form >= FORM_7:
        count = reader.length()
        read = count if count <= LARGEST else None
    elif last_id == stream.last_id:
        read = stream.entries_added
    if not stream.add_group(name, last_id, read):
        raise Malformed("a group twice")
    group = stream.groups[name]
    pending: dict[int, tuple[int, int]] = {}
    pending_count = reader.length()
    for _ in range(pending_count):
        entry_id = _raw_id(reader.take(ID_BYTES))
        pending[entry_id] = reader.little(TIME_BYTES), _count(reader)
    if len(pending) != pending_count:
        raise Malformed("pending twice")
    for _ in range(reader.length()):
        _read_consumer(group, pending, reader, form)
    if pending:
        raise Malformed("pending for nobody")


def _read_consumer(group: Group, pending: dict[int, tuple[int, int]], reader: Reader, form: int) -> None:
    """A consumer, who takes what is his of the pending entries."""
    name = reader.string()
    if name in group.consumers:
        raise Malformed("a consumer twice")
    consumer: Consumer = group.add_consumer(name, reader.little(TIME_BYTES))
    active_ms = reader.little(TIME_BYTES) if form >= FORM_7_2 else consumer.seen_ms
    consumer.active_ms = None if active_ms == NEVER_ACTIVE else active_ms
    for _ in range(reader.length()):
        entry_id = _raw_id(reader.take(ID_BYTES))
        if entry_id not in pending:
            raise Malformed("not pending, or for somebody else")
        delivered_ms, deliveries = pending.pop(entry_id)
        group.add_pending(entry_id, Pending(consumer, delivered_ms, deliveries))
