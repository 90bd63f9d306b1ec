"""Values that are more than a string: what their types have in common, and how commands reach and change them.

A type is a class with `type_name`, `encoding`, a length, and `memory_bytes`, a sum that its own methods keep. A key
with an empty collection does not exist in Redis, so whoever has changed one says so by `settle`, which accounts for the
change, tells the watches, the listeners and the waiting clients, and removes what became empty. Empty is what is
false: a type whose keys stay without elements, as streams do, is always true (`__bool__`).

    value = look(session, key, now_ms, Hash)      # to answer with: counts as a hit or a miss; None where nothing is
    value = find(session, key, now_ms, Hash)      # to change what is there
    value = make(session, key, now_ms, Hash)      # to change; an empty one is put there if nothing was
    before_bytes = value.memory_bytes
    ...
    settle(session.database, key, value, before_bytes, events.HASH, b"hset")

Check all arguments before `make`: an empty collection must not stay behind when a command fails.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Protocol, Self, TypeVar

from minidist.engines.keyspace import events
from minidist.engines.keyspace.database import Database
from minidist.engines.keyspace.errors import WRONG_TYPE, CommandError
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.tables import NEVER, Entry
from minidist.structures.slots import key_slots


class Collection(Protocol):
    """What a type other than string must have. It is made empty, without arguments."""

    type_name: ClassVar[str]  #: what TYPE answers

    @property
    def memory_bytes(self) -> int:
        """What it takes, itself included; kept by its methods, since it is asked for often."""
        ...

    def __len__(self) -> int: ...

    def __copy__(self) -> Self:
        """A copy that shares nothing that can change, for COPY."""
        ...

    def pieces(self) -> list[list[Any]]:
        """The lists that hold a large one's parts: when it is gone they are emptied in steps. Nobody uses it after."""
        ...

    @property
    def encoding(self) -> str:
        """What OBJECT ENCODING answers: the name Redis would give to it."""
        ...


C = TypeVar("C", bound=Collection)


# The same twice, since a call between would be a tenth of a short command.


def look(session: Session, key: bytes, now_ms: int, kind: type[C]) -> C | None:
    """The value to answer with. Raises CommandError for another type."""
    entry = session.database.read(key, now_ms)
    if entry is None:
        return None
    value: C = entry.value
    if value.__class__ is not kind:
        return variant(session.database, key, entry, kind, now_ms)
    return value


def find(session: Session, key: bytes, now_ms: int, kind: type[C]) -> C | None:
    """The value to change, if there is one. Raises CommandError for another type."""
    entry = session.database.find(key, now_ms)
    if entry is None:
        return None
    value: C = entry.value
    if value.__class__ is not kind:
        return variant(session.database, key, entry, kind, now_ms)
    return value


def variant(database: Database, key: bytes, entry: Entry, kind: type[C], now_ms: int) -> C | None:
    """The value where it is of a variant of a type (hash_ttl.py), which says what it is by now; None if it has become
    empty. Raises CommandError for another type.
    """
    value: Any = entry.value
    if not issubclass(value.__class__, kind):
        raise CommandError(WRONG_TYPE)
    current: C | None = value.current(database, key, entry, now_ms)
    return current


def placed(database: Database, key: bytes, value: Any) -> None:
    """A value was put under a key as a whole: members of it may expire there."""
    due_ms = getattr(value, "due_ms", NEVER)
    if due_ms != NEVER:
        from minidist.engines.keyspace.hash_ttl import field_expiry  # loaded, as there is such a value

        field_expiry(database.keyspace)
        database.due_at(key, due_ms)


def make(session: Session, key: bytes, now_ms: int, kind: type[C]) -> C:
    """The value to change, or a new empty one. Raises CommandError for another type."""
    value = find(session, key, now_ms, kind)
    if value is None:
        value = kind()
        session.database.put(key, value, now_ms)
    return value


def changing(session: Session, keys: Sequence[bytes], now_ms: int, kind: type[C]) -> Iterator[C]:
    """For a pipeline of one command: the collections under its keys, each to be changed by one command before the next
    is asked for. A collection that is missing is made, so the command must not fail, nor leave it empty.

    Ends before the first that needs more than that: of another type, expired, watched or waited for, or when memory is
    short. With notifications it is empty. Whoever uses it takes all that it yields: the last change is accounted for
    when one more is asked for.
    """
    database = session.database
    keyspace, watches = database.keyspace, database.watches
    if keyspace.notified:
        return
    for key, slot in zip(keys, key_slots(keys), strict=True):
        if keyspace.used_bytes > keyspace.limit_bytes or (watches and key in watches):
            return
        entry = database.tables[slot].get(key)
        if entry is None:
            entry = database.put(key, kind(), now_ms)
        elif entry.value.__class__ is not kind or entry.expires_ms <= now_ms:
            return
        entry.touched_ms = now_ms
        value: C = entry.value
        before_bytes = value.memory_bytes
        yield value
        keyspace.used_bytes += value.memory_bytes - before_bytes


def settle(database: Database, key: bytes, value: Collection, before_bytes: int, kind: int, event: bytes) -> None:
    """A collection was changed in place: see above. `kind` and `event` are what keyspace notifications say of it."""
    database.resized(key, value.memory_bytes - before_bytes)
    if database.keyspace.notified:
        database.notify(kind, event, key)
    if not value:
        database.remove(key)
        if database.keyspace.notified:
            database.notify(events.GENERIC, b"del", key)


def store(database: Database, key: bytes, value: Collection, kind: int, event: bytes, now_ms: int) -> None:
    """Put a new collection under a key, in place of whatever was there; an empty one deletes the key."""
    if value:
        database.put(key, value, now_ms)
        database.notify(kind, event, key)
    elif database.delete(key, now_ms):
        database.notify(events.GENERIC, b"del", key)
