"""Strings as stored: bytes, or a bytearray once a command has changed them in place (APPEND, SETRANGE).

Immutable bytes are what GET and SET want. Appending to them copies, so the first APPEND turns a string into a
bytearray, which grows in amortised constant time; SET turns it back.
"""

from minidist.engines.keyspace.database import Database
from minidist.engines.keyspace.errors import STRING_TOO_LONG, WRONG_TYPE, CommandError
from minidist.engines.keyspace.tables import Entry

# bytes with a dict of attributes, and an integer.
FLAGGED_OBJECT = 240
LONGEST_STRING_BYTES = 512 * 1024**2
# Below this, copying is cheaper than a bytearray's own 56 bytes.
SHORT_STRING_BYTES = 256


def text(entry: Entry) -> bytes:
    """The value of a string. Raises CommandError for other types."""
    value = entry.value
    if isinstance(value, bytes):
        return value
    if value.__class__ is bytearray:
        return bytes(value)
    raise CommandError(WRONG_TYPE)


def is_string(entry: Entry) -> bool:
    return isinstance(entry.value, bytes | bytearray)


class Flagged(bytes):
    """A string with memcached's flags, or with what its meta commands know of it (memcached_meta.py)."""

    flags: int = 0
    stale: bool = False
    won: bool = False  # a client has been told to fetch it anew
    fetched: bool = False

    @classmethod
    def of(cls, value: bytes, flags: int, *, stale: bool = False, won: bool = False) -> bytes:
        """The value with its flags and marks; plain bytes where there are none."""
        if not (flags or stale or won):
            return bytes(value)
        flagged = cls(value)
        flagged.flags, flagged.stale, flagged.won = flags, stale, won
        return flagged

    @property
    def memory_bytes(self) -> int:
        return len(self) + FLAGGED_OBJECT


def text_slice(entry: Entry, start: int, stop: int) -> bytes:
    """Part of a string, without copying the rest."""
    if not is_string(entry):
        raise CommandError(WRONG_TYPE)
    return bytes(memoryview(entry.value)[start:stop])


def change(database: Database, key: bytes, entry: Entry, offset: int, data: bytes) -> int:
    """Overwrite part of a string in place, padded with zeros up to `offset`; its new length. Raises CommandError."""
    value = entry.value
    if not is_string(entry):
        raise CommandError(WRONG_TYPE)
    if isinstance(value, Flagged):
        database.replace(key, entry, bytes(value))
        value = entry.value
    end = offset + len(data)
    check_length(end)
    if end <= SHORT_STRING_BYTES and value.__class__ is bytes and len(value) <= SHORT_STRING_BYTES:
        database.replace(key, entry, value[:offset].ljust(offset, b"\0") + data + value[end:])
        return len(entry.value)
    if value.__class__ is bytes:
        database.replace(key, entry, bytearray(value))
        value = entry.value
    before_bytes = value.__alloc__()
    if offset > len(value):
        value += bytes(offset - len(value))
    value[offset:end] = data
    database.resized(key, value.__alloc__() - before_bytes)
    return len(value)


def check_length(length: int) -> None:
    if length > LONGEST_STRING_BYTES:
        raise CommandError(STRING_TOO_LONG)
