"""What commands of several collections share: HSCAN, SSCAN and ZSCAN, HRANDFIELD and its kin, SINTERCARD.

Collections are `Members` (members.py); what differs is given as an argument.
"""

from collections.abc import Callable
from typing import Any

from minidist.engines.keyspace.arguments import LARGEST, count_argument, integer, option
from minidist.engines.keyspace.errors import SYNTAX, CommandError
from minidist.engines.keyspace.members import Members
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.values import look
from minidist.structures.glob import Matcher, glob_matcher
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import array, bulk

USUAL_COUNT = 10
# HRANDFIELD and SRANDMEMBER with a negative count repeat themselves, but without end they would stop all clients and
# take all memory: this is a third of a second, as long as a reply with all of a million members.
MOST_REPEATED = 1_000_000


def scan_reply(
    session: Session,
    args: Arguments,
    now_ms: int,
    kind: type[Any],
    shown: Callable[[bytes, Any], tuple[bytes, ...]],
) -> bytes:
    """The reply of a step of HSCAN and its kin. `kind` is a class of Members; `shown` says what stands for a member."""
    cursor = _cursor(args[2])
    found: list[tuple[bytes, Any]] = []
    value: Members[Any] | None = look(session, args[1], now_ms, kind)
    if value is None:
        cursor = 0
    else:
        matches, count = _scan_options(args)
        cursor, found = value.scan(cursor, count)
        if matches is not None:
            found = [pair for pair in found if matches(pair[0])]
    return b"*2\r\n" + bulk(b"%d" % cursor) + array([bulk(part) for pair in found for part in shown(*pair)])


def _cursor(text: bytes) -> int:
    """Raises CommandError, also for a collection that does not exist."""
    if not text.isdigit() or len(text) > 20:
        raise CommandError("ERR invalid cursor")
    return int(text)


def _scan_options(args: Arguments) -> tuple[Matcher | None, int]:
    """What MATCH and COUNT say, from the fourth argument on. Redis reads them only where there is something to scan."""
    matches, count = None, USUAL_COUNT
    for at in range(3, len(args), 2):
        word = option(args[at], (b"MATCH", b"COUNT"))
        if at + 1 == len(args):
            raise CommandError(SYNTAX)
        if word == b"COUNT":
            count = integer(args[at + 1])
            if count < 1:
                raise CommandError(SYNTAX)
        else:
            matches = None if args[at + 1] == b"*" else glob_matcher(args[at + 1])
    return matches, count


def repeatable_count(text: bytes) -> int:
    """How many elements to choose: a negative number for that many that may repeat. Raises CommandError."""
    count = integer(text)
    if count < -LARGEST:
        raise CommandError(f"ERR value is out of range, value must between -{LARGEST} and {LARGEST}")
    if count < -MOST_REPEATED:
        raise CommandError("ERR value is out of range")
    return count


def limit_option(args: Arguments, at: int) -> int:
    """LIMIT of SINTERCARD and ZINTERCARD, from an argument on: the most members to count; 0 for all."""
    most = 0
    for word_at in range(at, len(args), 2):
        option(args[word_at], (b"LIMIT",))
        if word_at + 1 == len(args):
            raise CommandError(SYNTAX)
        most = count_argument(args[word_at + 1], "ERR LIMIT can't be negative")
    return most
