"""Commands that take elements from one of several lists: LMOVE, RPOPLPUSH, LMPOP, and those that wait for one.

Those that wait do what the others do, and raise `Block` when there is nothing: the service (waiting.py) then keeps the
client and runs the command again when one of the keys may have something for it.
"""

from minidist.engines.keyspace.arguments import option, timeout_ms
from minidist.engines.keyspace.commands.lists import LEFT, RIGHT, pop, push
from minidist.engines.keyspace.errors import SYNTAX, CommandError
from minidist.engines.keyspace.lists import List
from minidist.engines.keyspace.registry import COUNTED_KEYS, TWO_KEYS, CommandTable, Keys
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.values import find, make
from minidist.engines.keyspace.waiting import Block
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_plain import strict_integer
from minidist.wire.resp_replies import bulk, bulks, null_array

TABLE = CommandTable()
command = TABLE.command

ALL_BUT_LAST = Keys(1, -2, 1)


# --- from one list to another -----------------------------------------------------------------------------------------


def move_element(
    session: Session, source: bytes, destination: bytes, from_left: bool, to_left: bool, now_ms: int
) -> bytes | None:
    """Take an element from one end of a list to one end of another, or the same; None where there is none. Raises
    CommandError, having changed nothing, when one of them is no list."""
    value = find(session, source, now_ms, List)
    if value is None:
        return None
    target = make(session, destination, now_ms, List)
    element = value[0 if from_left else value.length - 1]
    push(session, destination, target, (element,), to_left, now_ms)
    pop(session, source, value, 1, from_left, now_ms)
    return element


def _end(word: bytes) -> bool:
    return LEFT if option(word, (b"LEFT", b"RIGHT")) == b"LEFT" else RIGHT


@command(
    "LMOVE", arity=5, flags="write denyoom", keys=TWO_KEYS, since="6.2.0", group="list",
    summary="Returns an element after popping it from one list and pushing it to another. Deletes the list if the last "
    "element was moved.",
)  # fmt: skip
def lmove(session: Session, args: Arguments, now_ms: int) -> bytes:
    element = move_element(session, args[1], args[2], _end(args[3]), _end(args[4]), now_ms)
    return session.null if element is None else bulk(element)


@command(
    "RPOPLPUSH", arity=3, flags="write denyoom", keys=TWO_KEYS, since="1.2.0", group="list",
    summary="Returns the last element of a list after removing and pushing it to another list. Deletes the list if the "
    "last element was popped.",
)  # fmt: skip
def rpoplpush(session: Session, args: Arguments, now_ms: int) -> bytes:
    element = move_element(session, args[1], args[2], RIGHT, LEFT, now_ms)
    return session.null if element is None else bulk(element)


@command(
    "BLMOVE", arity=6, flags="write denyoom blocking", keys=TWO_KEYS, since="6.2.0", group="list",
    summary="Pops an element from a list, pushes it to another list and returns it. Blocks until an element is "
    "available otherwise. Deletes the list if the last element was moved.",
)  # fmt: skip
def blmove(session: Session, args: Arguments, now_ms: int) -> bytes:
    from_left, to_left = _end(args[3]), _end(args[4])
    wait_ms = timeout_ms(args[5], now_ms)
    element = move_element(session, args[1], args[2], from_left, to_left, now_ms)
    if element is None:
        raise Block([args[1]], List, wait_ms, session.null)
    return bulk(element)


@command(
    "BRPOPLPUSH", arity=4, flags="write denyoom blocking", keys=TWO_KEYS, since="2.2.0", group="list",
    summary="Pops an element from a list, pushes it to another list and returns it. Block until an element is "
    "available otherwise. Deletes the list if the last element was popped.",
)  # fmt: skip
def brpoplpush(session: Session, args: Arguments, now_ms: int) -> bytes:
    wait_ms = timeout_ms(args[3], now_ms)
    element = move_element(session, args[1], args[2], RIGHT, LEFT, now_ms)
    if element is None:
        raise Block([args[1]], List, wait_ms, session.null)
    return bulk(element)


# --- from the first of several lists that has something --------------------------------------------------------------


def _pop_first(session: Session, args: Arguments, left: bool, now_ms: int) -> bytes:
    keys = list(args[1:-1])
    wait_ms = timeout_ms(args[-1], now_ms)
    for key in keys:
        value = find(session, key, now_ms, List)
        if value is not None:
            return bulks([key, *pop(session, key, value, 1, left, now_ms)])
    raise Block(keys, List, wait_ms, null_array(session.resp3))


@command(
    "BLPOP", arity=-3, flags="write blocking", keys=ALL_BUT_LAST, since="2.0.0", group="list",
    summary="Removes and returns the first element in a list. Blocks until an element is available otherwise. Deletes "
    "the list if the last element was popped.",
    complexity="O(N) where N is the number of keys",
)  # fmt: skip
def blpop(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _pop_first(session, args, LEFT, now_ms)


@command(
    "BRPOP", arity=-3, flags="write blocking", keys=ALL_BUT_LAST, since="2.0.0", group="list",
    summary="Removes and returns the last element in a list. Blocks until an element is available otherwise. Deletes "
    "the list if the last element was popped.",
    complexity="O(N) where N is the number of keys",
)  # fmt: skip
def brpop(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _pop_first(session, args, RIGHT, now_ms)


def _several(args: Arguments) -> tuple[list[bytes], bool, int]:
    """What `numkeys key … LEFT|RIGHT [COUNT count]` says. Raises CommandError."""
    number = strict_integer(args[0])
    if number is None or number < 1:
        raise CommandError("ERR numkeys should be greater than 0")
    if len(args) < number + 2:
        raise CommandError(SYNTAX)
    left, options = _end(args[number + 1]), args[number + 2 :]
    if not options:
        return list(args[1 : number + 1]), left, 1
    option(options[0], (b"COUNT",))
    if len(options) == 1:
        raise CommandError(SYNTAX)
    count = strict_integer(options[1])
    if count is None or count < 1:
        raise CommandError("ERR count should be greater than 0")
    if len(options) > 2:
        raise CommandError(SYNTAX)
    return list(args[1 : number + 1]), left, count


def _pop_several(session: Session, keys: list[bytes], left: bool, count: int, now_ms: int) -> bytes | None:
    for key in keys:
        value = find(session, key, now_ms, List)
        if value is not None:
            return b"*2\r\n" + bulk(key) + bulks(pop(session, key, value, count, left, now_ms))
    return None


@command(
    "LMPOP", arity=-4, flags="write movablekeys", keys=COUNTED_KEYS, since="7.0.0", group="list",
    summary="Returns multiple elements from a list after removing them. Deletes the list if the last element was "
    "popped.",
    complexity="O(N+M) where N is the number of keys and M the number of elements returned",
)  # fmt: skip
def lmpop(session: Session, args: Arguments, now_ms: int) -> bytes:
    return _pop_several(session, *_several(args[1:]), now_ms) or null_array(session.resp3)


@command(
    "BLMPOP", arity=-5, flags="write blocking movablekeys", keys=Keys(counted=2), since="7.0.0", group="list",
    summary="Pops the first element from one of multiple lists. Blocks until an element is available otherwise. "
    "Deletes the list if the last element was popped.",
    complexity="O(N+M) where N is the number of keys and M the number of elements returned",
)  # fmt: skip
def blmpop(session: Session, args: Arguments, now_ms: int) -> bytes:
    keys, left, count = _several(args[2:])
    wait_ms = timeout_ms(args[1], now_ms)
    reply = _pop_several(session, keys, left, count, now_ms)
    if reply is None:
        raise Block(keys, List, wait_ms, null_array(session.resp3))
    return reply
