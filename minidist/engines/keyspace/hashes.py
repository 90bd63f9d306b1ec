"""Hashes: fields, each with a value, both plain bytes; see members.py for how large ones are kept."""

from typing import ClassVar

from minidist.engines.keyspace.members import Members
from minidist.engines.keyspace.memory import BYTES_OBJECT

# Redis keeps a hash up to this size in one piece, and says so in OBJECT ENCODING.
COMPACT_FIELDS = 512
COMPACT_BYTES = 64


class Hash(Members[bytes]):
    """Fields and their values."""

    __slots__ = ()

    type_name: ClassVar[str] = "hash"

    @property
    def encoding(self) -> str:
        """The name that Redis would give to a hash that was written like this at once."""
        if self.count > COMPACT_FIELDS:
            return "hashtable"
        longest = max(max(len(field), len(value)) for field, value in self.items())
        return "listpack" if longest <= COMPACT_BYTES else "hashtable"

    def get(self, field: bytes) -> bytes | None:
        return (self.part(field) if self.whole is None else self.whole).get(field)

    def set(self, field: bytes, value: bytes) -> bool:
        """Give a field a value; whether the field is new."""
        part = self.part(field) if self.whole is None else self.whole
        before = part.get(field)
        if before is None:
            self._insert(part, field, value, len(value) + BYTES_OBJECT)
            return True
        part[field] = value
        if len(value) != len(before):
            self.memory_bytes += len(value) - len(before)
        return False

    def change(self, field: bytes, value: bytes) -> bool:
        """`set` for a value that only goes on, as a count does: a lifetime stays (hash_ttl.py)."""
        return self.set(field, value)

    def remove(self, field: bytes) -> bool:
        """Delete a field; whether it was there."""
        value = self.part(field).pop(field, None)
        if value is None:
            return False
        self._removed(field, len(value) + BYTES_OBJECT)
        return True
