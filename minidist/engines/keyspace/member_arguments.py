"""Arguments that commands of several collections share: of HSCAN, SSCAN and ZSCAN, of HRANDFIELD and its kin."""

from minidist.engines.keyspace.arguments import LARGEST, integer, option
from minidist.engines.keyspace.errors import SYNTAX, CommandError
from minidist.structures.glob import Matcher, glob_matcher
from minidist.wire.resp_plain import Command as Arguments

USUAL_COUNT = 10
# HRANDFIELD and SRANDMEMBER with a negative count repeat themselves, but without end they would stop all clients and
# take all memory: this is a third of a second, as long as a reply with all of a million members.
MOST_REPEATED = 1_000_000


def scan_cursor(text: bytes) -> int:
    """Raises CommandError, also for a collection that does not exist."""
    if not text.isdigit() or len(text) > 20:
        raise CommandError("ERR invalid cursor")
    return int(text)


def scan_options(args: Arguments) -> tuple[Matcher | None, int]:
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
