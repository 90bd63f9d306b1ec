"""Lists: pushing, popping, reading, changing. Moving elements between lists and waiting for them is list_moves.py's.

LPUSH and RPUSH of one element onto a list that is there look into the tables themselves: they are most of what a queue
is asked.
"""

from binascii import crc_hqx
from collections.abc import Iterable, Sequence

from minidist.engines.keyspace import events
from minidist.engines.keyspace.arguments import SMALLEST, count_argument, integer, option
from minidist.engines.keyspace.errors import INDEX_OUT_OF_RANGE, NO_SUCH_KEY, SYNTAX, CommandError, wrong_arity
from minidist.engines.keyspace.lists import List
from minidist.engines.keyspace.registry import FIRST_KEY, CommandTable, Run, RunColumns
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.values import changing, find, look, make, settle
from minidist.structures.slots import OPENING_BRACE, SLOT_MASK, tagged_slot
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import EMPTY_ARRAY, OK, ZERO, bulk, bulks, null_array
from minidist.wire.resp_replies import array as array_reply
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

NOT_POSITIVE = "ERR value is out of range, must be positive"
NOT_A_RANK = f"ERR value is out of range, value must between {SMALLEST + 1} and {-(SMALLEST + 1)}"
LEFT, RIGHT = True, False
PUSHES = {LEFT: b"lpush", RIGHT: b"rpush"}
POPS = {LEFT: b"lpop", RIGHT: b"rpop"}


# --- pushing ----------------------------------------------------------------------------------------------------------


def push(session: Session, key: bytes, value: List, elements: Iterable[bytes], left: bool, now_ms: int) -> None:
    """Push elements one after the other at one end."""
    before_bytes = value.memory_bytes
    add = value.push_left if left else value.push_right
    for element in elements:
        add(element)
    settle(session.database, key, value, before_bytes, events.LIST, PUSHES[left])


def pusher(left: bool) -> Run:
    """LPUSH or RPUSH."""

    def run(session: Session, args: Arguments, now_ms: int) -> bytes:
        key = args[1]
        database = session.database
        slot = (tagged_slot(key) if OPENING_BRACE in key else crc_hqx(key, 0)) & SLOT_MASK
        entry = database.tables[slot].get(key)
        if entry is None or entry.value.__class__ is not List or entry.expires_ms <= now_ms or len(args) != 3:
            value = make(session, key, now_ms, List)
            push(session, key, value, args[2:], left, now_ms)
            return integer_reply(value.length)
        value, element = entry.value, args[2]
        keyspace = database.keyspace
        entry.touched_ms = now_ms
        keyspace.used_bytes -= value.memory_bytes
        if left:
            value.push_left(element)
        else:
            value.push_right(element)
        keyspace.used_bytes += value.memory_bytes
        if database.watches:
            database.changed(key)
        if keyspace.notified:
            database.notify(events.LIST, PUSHES[left], key)
        return integer_reply(value.length)

    return run


def column_pusher(left: bool) -> RunColumns:
    """LPUSHes or RPUSHes of one element in a pipeline."""
    add = List.push_left if left else List.push_right

    def run(session: Session, columns: Sequence[Sequence[bytes]], now_ms: int) -> tuple[int, bytes]:
        _, keys, elements = columns
        replies = []
        for value, element in zip(changing(session, keys, now_ms, List), elements, strict=False):
            add(value, element)
            replies.append(integer_reply(value.length))
        return len(replies), b"".join(replies)

    return run


command(
    "LPUSH", arity=-3, flags="write denyoom fast", keys=FIRST_KEY, since="1.0.0", group="list",
    summary="Prepends one or more elements to a list. Creates the key if it doesn't exist.",
    complexity="O(1) for each element added", run_columns=column_pusher(LEFT),
)(pusher(LEFT))  # fmt: skip

command(
    "RPUSH", arity=-3, flags="write denyoom fast", keys=FIRST_KEY, since="1.0.0", group="list",
    summary="Appends one or more elements to a list. Creates the key if it doesn't exist.",
    complexity="O(1) for each element added", run_columns=column_pusher(RIGHT),
)(pusher(RIGHT))  # fmt: skip


def _push_if_there(session: Session, args: Arguments, left: bool, now_ms: int) -> bytes:
    value = find(session, args[1], now_ms, List)
    if value is None:
        return ZERO
    push(session, args[1], value, args[2:], left, now_ms)
    return integer_reply(value.length)


@command(
    "LPUSHX", arity=-3, flags="write denyoom fast", keys=FIRST_KEY, since="2.2.0", group="list",
    summary="Prepends one or more elements to a list only when the list exists.",
    complexity="O(1) for each element added",
)  # fmt: skip
def lpushx(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _push_if_there(session, args, LEFT, now_ms)


@command(
    "RPUSHX", arity=-3, flags="write denyoom fast", keys=FIRST_KEY, since="2.2.0", group="list",
    summary="Appends an element to a list only when the list exists.", complexity="O(1) for each element added",
)  # fmt: skip
def rpushx(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _push_if_there(session, args, RIGHT, now_ms)


# --- popping ----------------------------------------------------------------------------------------------------------


def pop(session: Session, key: bytes, value: List, count: int, left: bool, now_ms: int) -> list[bytes]:
    """Take up to `count` elements, at least one, from one end of a list, which goes when it becomes empty."""
    before_bytes = value.memory_bytes
    count = min(count, value.length)
    take = value.pop_left if left else value.pop_right
    taken = [take() for _ in range(count)]
    settle(session.database, key, value, before_bytes, events.LIST, POPS[left])
    return taken


def _pop(session: Session, args: Arguments, left: bool, now_ms: int) -> bytes:
    if len(args) == 2:
        value = find(session, args[1], now_ms, List)
        if value is None:
            return session.null
        before_bytes = value.memory_bytes
        element = value.pop_left() if left else value.pop_right()
        settle(session.database, args[1], value, before_bytes, events.LIST, POPS[left])
        return bulk(element)
    count = count_argument(args[2], NOT_POSITIVE)
    value = find(session, args[1], now_ms, List)
    if value is None:
        return null_array(session.resp3)
    return bulks(pop(session, args[1], value, count, left, now_ms)) if count else EMPTY_ARRAY


@command(
    "LPOP", arity=-2, flags="write fast", keys=FIRST_KEY, since="1.0.0", group="list",
    summary="Returns and removes one or more elements from the beginning of a list. Deletes the list if the last "
    "element was popped.",
    complexity="O(N) where N is the number of elements returned",
)  # fmt: skip
def lpop(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) > 3:
        raise wrong_arity("lpop")
    return _pop(session, args, LEFT, now_ms)


@command(
    "RPOP", arity=-2, flags="write fast", keys=FIRST_KEY, since="1.0.0", group="list",
    summary="Returns and removes the last elements of a list. Deletes the list if the last element was popped.",
    complexity="O(N) where N is the number of elements returned",
)  # fmt: skip
def rpop(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) > 3:
        raise wrong_arity("rpop")
    return _pop(session, args, RIGHT, now_ms)


# --- reading ----------------------------------------------------------------------------------------------------------


@command(
    "LLEN", arity=2, flags="readonly fast", keys=FIRST_KEY, since="1.0.0", group="list",
    summary="Returns the length of a list.",
)  # fmt: skip
def llen(session: Session, args: Arguments, now_ms: int) -> bytes:
    value = look(session, args[1], now_ms, List)
    return ZERO if value is None else integer_reply(value.length)


def limits(first: bytes, last: bytes, length: int) -> tuple[int, int]:
    """What two indexes, inclusive and counted from the end where negative, mean: start and stop of a slice. Raises
    CommandError."""
    start, stop = integer(first), integer(last)
    if start < 0:
        start = max(start + length, 0)
    if stop < 0:
        stop += length
    return start, min(stop + 1, length)


@command(
    "LRANGE", arity=4, flags="readonly", keys=FIRST_KEY, since="1.0.0", group="list",
    summary="Returns a range of elements from a list.",
    complexity="O(S+N) where S is the distance of the start from the nearer end and N the number of elements",
)  # fmt: skip
def lrange(session: Session, args: Arguments, now_ms: int) -> bytes:
    limits(args[2], args[3], 0)
    value = look(session, args[1], now_ms, List)
    if value is None:
        return EMPTY_ARRAY
    return bulks(value.between(*limits(args[2], args[3], value.length)))


@command(
    "LINDEX", arity=3, flags="readonly", keys=FIRST_KEY, since="1.0.0", group="list",
    summary="Returns an element from a list by its index.", complexity="O(N) where N is the distance from an end",
)  # fmt: skip
def lindex(session: Session, args: Arguments, now_ms: int) -> bytes:
    value = look(session, args[1], now_ms, List)
    if value is None:
        return session.null
    index = integer(args[2])
    if index < 0:
        index += value.length
    return bulk(value[index]) if 0 <= index < value.length else session.null


@command(
    "LPOS", arity=-3, flags="readonly", keys=FIRST_KEY, since="6.0.6", group="list",
    summary="Returns the index of matching elements in a list.",
    complexity="O(N) where N is the number of elements looked at",
)  # fmt: skip
def lpos(session: Session, args: Arguments, now_ms: int) -> bytes:
    rank, count, most = _position_options(args)
    value = look(session, args[1], now_ms, List)
    if value is None:
        return session.null if count is None else EMPTY_ARRAY
    found = _positions(value, args[2], rank, count, most)
    if count is not None:
        return array_reply([integer_reply(at) for at in found])
    return integer_reply(found[0]) if found else session.null


def _position_options(args: Arguments) -> tuple[int, int | None, int]:
    """RANK, COUNT if given, MAXLEN. Raises CommandError."""
    rank, count, most = 1, None, 0
    for at in range(3, len(args), 2):
        word = option(args[at], (b"RANK", b"COUNT", b"MAXLEN"))
        if at + 1 == len(args):
            raise CommandError(SYNTAX)
        if word == b"RANK":
            rank = integer(args[at + 1])
            if rank == SMALLEST:
                raise CommandError(NOT_A_RANK)
            if rank == 0:
                raise CommandError(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... "
                    "or use negative to start from the end of the list"
                )
        elif word == b"COUNT":
            count = count_argument(args[at + 1], "ERR COUNT can't be negative")
        else:
            most = count_argument(args[at + 1], "ERR MAXLEN can't be negative")
    return rank, count, most


def _positions(value: List, element: bytes, rank: int, count: int | None, most: int) -> list[int]:
    """Where an element stands: from the rank-th match on (from the end if negative), `count` (0: all; None: one) of
    them, among the first `most` elements (0: all)."""
    if rank == 1 and count is None and not most:
        at = value.index(element)
        return [at] if at >= 0 else []
    found = []
    to_skip = abs(rank) - 1
    wanted = 1 if count is None else count or value.length
    to_look_at = most or value.length
    for at, each in enumerate(reversed(value) if rank < 0 else value):
        if at >= to_look_at:
            break
        if each != element:
            continue
        if to_skip:
            to_skip -= 1
            continue
        found.append(value.length - 1 - at if rank < 0 else at)
        if len(found) == wanted:
            break
    return found


# --- changing in the middle -------------------------------------------------------------------------------------------


@command(
    "LSET", arity=4, flags="write denyoom", keys=FIRST_KEY, since="1.0.0", group="list",
    summary="Sets the value of an element in a list by its index.",
    complexity="O(N) where N is the distance from an end",
)  # fmt: skip
def lset(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, key, index_text, element = args
    value = find(session, key, now_ms, List)
    if value is None:
        raise CommandError(NO_SUCH_KEY)
    index = integer(index_text)
    if index < 0:
        index += value.length
    if not 0 <= index < value.length:
        raise CommandError(INDEX_OUT_OF_RANGE)
    before_bytes = value.memory_bytes
    value[index] = element
    settle(session.database, key, value, before_bytes, events.LIST, b"lset")
    return OK


@command(
    "LINSERT", arity=5, flags="write denyoom", keys=FIRST_KEY, since="2.2.0", group="list",
    summary="Inserts an element before or after another element in a list.",
    complexity="O(N) where N is the number of elements before the pivot",
)  # fmt: skip
def linsert(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, key, where, pivot, element = args
    after = option(where, (b"BEFORE", b"AFTER")) == b"AFTER"
    value = find(session, key, now_ms, List)
    if value is None:
        return ZERO
    index = value.index(pivot)
    if index < 0:
        return integer_reply(-1)
    before_bytes = value.memory_bytes
    if index + after == value.length:
        value.push_right(element)
    else:
        value.insert(index + after, element)
    settle(session.database, key, value, before_bytes, events.LIST, b"linsert")
    return integer_reply(value.length)


@command(
    "LREM", arity=4, flags="write", keys=FIRST_KEY, since="1.0.0", group="list",
    summary="Removes elements from a list. Deletes the list if the last element was removed.",
    complexity="O(N) where N is the length of the list",
)  # fmt: skip
def lrem(session: Session, args: Arguments, now_ms: int) -> bytes:
    _, key, count_text, element = args
    count = integer(count_text)
    value = find(session, key, now_ms, List)
    if value is None:
        return ZERO
    before_bytes = value.memory_bytes
    removed = value.remove(element, count)
    if removed:
        settle(session.database, key, value, before_bytes, events.LIST, b"lrem")
    return integer_reply(removed)


@command(
    "LTRIM", arity=4, flags="write", keys=FIRST_KEY, since="1.0.0", group="list",
    summary="Removes elements from both ends a list. Deletes the list if all elements were trimmed.",
    complexity="O(N) where N is the number of elements removed",
)  # fmt: skip
def ltrim(session: Session, args: Arguments, now_ms: int) -> bytes:
    limits(args[2], args[3], 0)
    value = find(session, args[1], now_ms, List)
    if value is None:
        return OK
    before_bytes = value.memory_bytes
    value.trim(*limits(args[2], args[3], value.length))
    settle(session.database, args[1], value, before_bytes, events.LIST, b"ltrim")
    return OK
