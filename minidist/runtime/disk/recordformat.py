"""The bytes of a record log's segment files. All numbers are little-endian; checksums are CRC32C (RFC 3720, B.4).

    segment = header record*                      then zeros, as far as room has been allocated

    header, 32 bytes                              record, 24 bytes and the payload
      0  8  magic "mdreclog"                        0  4  marker of the segment
      8  2  version of the format, 1                4  4  checksum of marker, the 16 bytes below, payload
     10  2  length of this header                   8  4  length of the payload in bytes; top bit: a seal
     12  4  marker, random, not zero               12  4  unsynced: see below
     16  8  sequence of the first record           16  8  sequence
     24  4  zero                                   24     payload
     28  4  checksum of the 28 bytes above

Each record says what was durable when it was written: all records up to `sequence - unsynced`. That is what tells a
torn tail from damage in the middle. Between two syncs the kernel may bring pages to the device in any order, so after a
loss of power the last writes can have holes with good records behind them; nothing there was durable, and all of it
from the first hole on may be cut. A record that *was* durable and is bad now is damage, and must never be cut. So:

    A bad record is damage when any good record, anywhere behind it in the segment, was written knowing it durable;
    and always in a segment that is not the last, because a segment is synced before the next one begins.
    Else it is the torn tail: it and what lies behind it are cut.

Good records behind the bad one are found by the marker, whatever happened to lengths in between; the marker keeps zeros
and payloads that look like records of other logs out. A seal is an empty record at the end of a log that was closed in
order; it has the next record's sequence and its only content is that claim: after a clean stop no damage passes for a
torn tail. What cannot be told from a torn tail: damage to the writes of the very last sync before a crash, since no
later record bears witness for them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import google_crc32c

MAGIC = b"mdreclog"
VERSION = 1
SEGMENT_HEADER_BYTES = 32
RECORD_HEADER_BYTES = 24
MAX_PAYLOAD_BYTES = (1 << 31) - 1

_SEAL = 1 << 31
_SEGMENT_HEADER = struct.Struct("<8sHHIQ4x")
_RECORD_HEADER = struct.Struct("<IIIIQ")
_RECORD_START = struct.Struct("<II")
_RECORD_REST = struct.Struct("<IIQ")
_U32 = struct.Struct("<I")


class SegmentHeader(NamedTuple):
    marker: int
    first_sequence: int


class WrongVersion(Exception):
    """The header belongs to a format of another version; the argument is its number."""


class RecordHead(NamedTuple):
    """A record's header. `durable` is the last sequence that was durable when the record was written."""

    checksum: int
    length: int
    is_seal: bool
    unsynced: int
    sequence: int

    @property
    def durable(self) -> int:
        return self.sequence - self.unsynced


def encode_segment_header(header: SegmentHeader) -> bytes:
    head = _SEGMENT_HEADER.pack(MAGIC, VERSION, SEGMENT_HEADER_BYTES, header.marker, header.first_sequence)
    return head + _U32.pack(google_crc32c.value(head))


def decode_segment_header(data: bytes) -> SegmentHeader:
    """Raises ValueError (with the reason) when it is damaged or none at all, WrongVersion when it is not of ours."""
    if len(data) < SEGMENT_HEADER_BYTES:
        raise ValueError("the file ends inside its header")
    if data[:8] != MAGIC:
        raise ValueError("it is not a record log")
    _, version, _, marker, first_sequence = _SEGMENT_HEADER.unpack_from(data)
    if version != VERSION:  # before the checksum, whose place may be another in that version
        raise WrongVersion(version)
    if _U32.unpack_from(data, 28)[0] != google_crc32c.value(data[:28]):
        raise ValueError("the header's checksum does not match")
    return SegmentHeader(marker, first_sequence)


def encode_records(marker: int, first_sequence: int, durable: int, payloads: list[bytes]) -> bytes:
    """The records of one write, numbered from `first_sequence`; each bears witness that `durable` is durable."""
    seed = google_crc32c.value(_U32.pack(marker))
    extend, pack_rest, pack_start = google_crc32c.extend, _RECORD_REST.pack, _RECORD_START.pack
    parts: list[bytes] = []
    sequence = first_sequence
    for payload in payloads:
        rest = pack_rest(len(payload), sequence - durable, sequence)
        parts += (pack_start(marker, extend(extend(seed, rest), payload)), rest, payload)
        sequence += 1
    return b"".join(parts)


def encode_seal(marker: int, next_sequence: int) -> bytes:
    """Bears witness that everything before `next_sequence` is durable."""
    rest = _RECORD_REST.pack(_SEAL, 1, next_sequence)
    return _RECORD_START.pack(marker, google_crc32c.extend(google_crc32c.value(_U32.pack(marker)), rest)) + rest


def read_head(data: bytes, position: int, marker: int) -> RecordHead | None:
    """The header at `position`, which has 24 bytes; None when the marker is not there. Unverified."""
    found, checksum, length, unsynced, sequence = _RECORD_HEADER.unpack_from(data, position)
    if found != marker:
        return None
    return RecordHead(checksum, length & ~_SEAL, bool(length & _SEAL), unsynced, sequence)


def payload_of(head: RecordHead, data: bytes, position: int, marker: int) -> bytes | None:
    """The payload of the record at `position`, all of which is in `data`; None when the checksum does not match."""
    start = position + RECORD_HEADER_BYTES
    payload = data[start : start + head.length]
    checksum = google_crc32c.value(_U32.pack(marker) + data[position + 8 : start])
    return payload if google_crc32c.extend(checksum, payload) == head.checksum else None


def marker_positions(data: bytes, marker: int) -> Iterator[int]:
    """Where in `data` the marker is found with room for a header behind it."""
    wanted = _U32.pack(marker)
    position = data.find(wanted)
    while 0 <= position <= len(data) - RECORD_HEADER_BYTES:
        yield position
        position = data.find(wanted, position + 1)


def is_zero(data: bytes) -> bool:
    return data.count(0) == len(data)
