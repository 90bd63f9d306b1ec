"""Sets of plain bytes, and what can be made of several; see members.py for how large ones are kept.

Members come in the order in which they were added, or, in large sets, in that of their checksums: never in one that
differs from run to run.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from minidist.engines.keyspace.members import Members
from minidist.wire.resp_plain import strict_integer

# Redis keeps sets up to these sizes in one piece, and says so in OBJECT ENCODING.
COMPACT_INTEGERS = 512
COMPACT_MEMBERS = 128
COMPACT_BYTES = 64


class Set(Members[None]):
    """Different members."""

    __slots__ = ()

    type_name: ClassVar[str] = "set"

    @classmethod
    def of(cls, members: Iterable[bytes]) -> "Set":
        made = cls()
        for member in members:
            made.add(member)
        return made

    @property
    def encoding(self) -> str:
        """The name that Redis would give to a set that was written like this at once."""
        if self.count <= COMPACT_INTEGERS and all(strict_integer(member) is not None for member in self):
            return "intset"
        if self.count <= COMPACT_MEMBERS and max(map(len, self)) <= COMPACT_BYTES:
            return "listpack"
        return "hashtable"

    def add(self, member: bytes) -> bool:
        """Whether the member is new."""
        part = self.part(member) if self.whole is None else self.whole
        if member in part:
            return False
        self._insert(part, member, None, 0)
        return True

    def remove(self, member: bytes) -> bool:
        """Whether the member was there."""
        part = self.part(member)
        if member not in part:
            return False
        del part[member]
        self._removed(member, 0)
        return True


def intersection(sets: Sequence[Set | None], most: int = 0) -> list[bytes]:
    """What all have in common; None is an empty set. Stops at `most` members, if that is given.

    O(N × M) with N members in the smallest of M sets.
    """
    present = [each for each in sets if each is not None]
    if len(present) < len(sets):
        return []
    smallest, *larger = sorted(present, key=len)
    others = [_container(each) for each in larger]
    found: list[bytes] = []
    for member in smallest:
        if all(member in other for other in others):
            found.append(member)
            if len(found) == most:
                break
    return found


def _container(members: Set) -> Set | dict[bytes, None]:
    """The same members, to look them up: a dict does so without a call of ours."""
    return members if members.whole is None else members.whole


def union(sets: Sequence[Set | None]) -> Set:
    """What is in any. O(N) with N members in all."""
    made = Set()
    for each in sets:
        for member in each or ():
            made.add(member)
    return made


def difference(sets: Sequence[Set | None]) -> list[bytes]:
    """What is in the first and in no other. O(N × M) with N members in the first of M sets."""
    others = [_container(each) for each in sets[1:] if each is not None]
    return [member for member in sets[0] or () if not any(member in other for other in others)]
