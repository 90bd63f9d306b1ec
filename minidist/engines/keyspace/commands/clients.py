"""CLIENT: what is known about connections, and what one may do to others.

A command that concerns another connection (KILL, UNPAUSE) only marks its session and leaves an output in the service's
outbox; the shell closes or resumes the connection. Fields of CLIENT LIST that describe Redis' own buffers are shown as
0, since parsers expect them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from minidist.engines.keyspace.arguments import LARGEST, integer
from minidist.engines.keyspace.commands.connection import check_name, set_name
from minidist.engines.keyspace.errors import SYNTAX, CommandError, printable
from minidist.engines.keyspace.outputs import End
from minidist.engines.keyspace.registry import CommandTable
from minidist.engines.keyspace.session import Session
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_plain import strict_integer
from minidist.wire.resp_replies import OK, ONE, ZERO, bulk, bulks, map_header, set_header, verbatim
from minidist.wire.resp_replies import integer as integer_reply

if TYPE_CHECKING:
    from minidist.engines.keyspace.tracking import Tracker

TABLE = CommandTable()
TABLE.container("CLIENT", since="2.4.0", group="connection", summary="A container for client connection commands.")
command = TABLE.command

CLIENT_TYPES = (b"normal", b"master", b"slave", b"replica", b"pubsub")
LONGEST_PAUSE_MS = LARGEST // 2


def describe(session: Session, now_ms: int) -> str:
    """The line of CLIENT LIST and CLIENT INFO."""
    name = session.last_command.name.lower().replace(" ", "|") if session.last_command else "NULL"
    transaction = session.transaction
    fields = {
        "id": session.id,
        "addr": session.carrier.peer,
        "laddr": session.carrier.local,
        "fd": session.id,
        "name": session.name.decode(),
        "age": (now_ms - session.created_ms) // 1000,
        "idle": max(now_ms - session.last_ms, 0) // 1000,
        "flags": flags(session),
        "db": session.database.number,
        "sub": len(session.subscriptions.channels),
        "psub": len(session.subscriptions.patterns),
        "ssub": len(session.subscriptions.shard_channels),
        "multi": -1 if transaction is None else len(transaction.commands),
        "watch": len(session.watches),
        "qbuf": 0,
        "qbuf-free": 0,
        "argv-mem": 0,
        "multi-mem": 0,
        "rbs": 0,
        "rbp": 0,
        "obl": 0,
        "oll": 0,
        "omem": 0,
        "tot-mem": 0,
        "events": "r",
        "cmd": name,
        "user": session.user.name.decode("utf-8", "backslashreplace"),
        "redir": _redirection(session),
        "resp": 3 if session.resp3 else 2,
        "lib-name": session.lib_name.decode(),
        "lib-ver": session.lib_version.decode(),
    }
    return " ".join(f"{field}={value}" for field, value in fields.items())


def flags(session: Session) -> str:
    """One letter for each thing that is special; N for none."""
    letters = "O" * (session in session.service.monitors)
    letters += "P" * bool(session.subscriptions)
    letters += "x" * (session.transaction is not None)
    letters += "b" * (session.wait is not None)
    if session.tracker is not None:
        letters += "t" + "R" * session.tracker.broken + "B" * session.tracker.broadcast
    letters += "c" * session.ended
    letters += "e" * session.no_evict
    letters += "T" * session.no_touch
    return letters or "N"


def on_or_off(word: bytes) -> bool:
    if word.upper() not in (b"ON", b"OFF"):
        raise CommandError(SYNTAX)
    return word.upper() == b"ON"


@command(
    "CLIENT ID", arity=2, flags="noscript loading stale", since="5.0.0", group="connection",
    summary="Returns the unique client ID of the connection.",
)  # fmt: skip
def client_id(session: Session, args: Arguments, now_ms: int) -> bytes:
    return integer_reply(session.id)


@command(
    "CLIENT INFO", arity=2, flags="noscript loading stale", since="6.2.0", group="connection",
    summary="Returns information about the connection.",
)  # fmt: skip
def client_info(session: Session, args: Arguments, now_ms: int) -> bytes:
    return verbatim(describe(session, now_ms).encode() + b"\n", session.resp3)


@command(
    "CLIENT LIST", arity=-2, flags="admin noscript loading stale", since="2.4.0", group="connection",
    summary="Lists open connections.", complexity="O(N) where N is the number of client connections",
)  # fmt: skip
def client_list(session: Session, args: Arguments, now_ms: int) -> bytes:
    chosen = list(session.service.sessions.values())
    if len(args) == 4 and args[2].upper() == b"TYPE":
        of_type = _type_condition(args[3])
        chosen = [each for each in chosen if of_type(each)]
    elif len(args) > 3 and args[2].upper() == b"ID":
        wanted = {integer(text, "ERR Invalid client ID") for text in args[3:]}
        chosen = [each for each in chosen if each.id in wanted]
    elif len(args) > 2:
        raise CommandError(SYNTAX)
    lines = "".join(describe(each, now_ms) + "\n" for each in chosen)
    return verbatim(lines.encode(), session.resp3)


Condition = Callable[[Session], bool]


def _type_condition(given: bytes) -> Condition:
    """For clients of this type: those with subscriptions, or others. Raises CommandError for no such type."""
    if given.lower() not in CLIENT_TYPES:
        raise CommandError(f"ERR Unknown client type '{printable(given)}'")
    wanted = {b"normal": False, b"pubsub": True}.get(given.lower())
    return lambda each: bool(each.subscriptions) is wanted


@command(
    "CLIENT SETNAME", arity=3, flags="noscript loading stale", since="2.6.9", group="connection",
    summary="Sets the connection name.",
)  # fmt: skip
def client_setname(session: Session, args: Arguments, now_ms: int) -> bytes:
    set_name(session, args[2])
    return OK


@command(
    "CLIENT GETNAME", arity=2, flags="noscript loading stale", since="2.6.9", group="connection",
    summary="Returns the name of the connection.",
)  # fmt: skip
def client_getname(session: Session, args: Arguments, now_ms: int) -> bytes:
    return bulk(session.name) if session.name else session.null


@command(
    "CLIENT SETINFO", arity=4, flags="noscript loading stale", since="7.2.0", group="connection",
    summary="Sets information specific to the client or connection.",
)  # fmt: skip
def client_setinfo(session: Session, args: Arguments, now_ms: int) -> bytes:
    attribute = args[2].upper()
    if attribute not in (b"LIB-NAME", b"LIB-VER"):
        raise CommandError(f"ERR Unrecognized option '{printable(args[2])}'")
    check_name(args[3], attribute.decode().lower())
    if attribute == b"LIB-NAME":
        session.lib_name = args[3]
    else:
        session.lib_version = args[3]
    return OK


@command(
    "CLIENT KILL", arity=-3, flags="admin noscript loading stale", since="2.4.0", group="connection",
    summary="Terminates open connections.", complexity="O(N) where N is the number of client connections",
)  # fmt: skip
def client_kill(session: Session, args: Arguments, now_ms: int) -> bytes:
    sessions = list(session.service.sessions.values())
    if len(args) == 3:
        address = printable(args[2])
        found = [each for each in sessions if each.carrier.peer == address]
        if not found:
            raise CommandError("ERR No such client")
        _end(session, found)
        return OK
    conditions = _kill_conditions(session, args)
    found = [each for each in sessions if all(condition(each) for condition in conditions)]
    _end(session, found)
    return integer_reply(len(found))


def _kill_conditions(session: Session, args: Arguments) -> list[Condition]:
    if len(args) % 2:
        raise CommandError(SYNTAX)
    conditions: list[Condition] = []
    skip_me = True
    for at in range(2, len(args), 2):
        word, value = args[at].upper(), args[at + 1]
        if word == b"SKIPME":
            if value.upper() not in (b"YES", b"NO"):
                raise CommandError(SYNTAX)
            skip_me = value.upper() == b"YES"
        else:
            conditions.append(_kill_condition(session, word, value))
    if skip_me:
        conditions.append(lambda each: each is not session)
    return conditions


def _kill_condition(session: Session, word: bytes, value: bytes) -> Condition:
    if word == b"ID":
        number = strict_integer(value)
        if number is None or number < 1:
            raise CommandError("ERR client-id should be greater than 0")
        return lambda each: each.id == number
    if word in (b"ADDR", b"LADDR"):
        address = printable(value)
        return lambda each: (each.carrier.peer if word == b"ADDR" else each.carrier.local) == address
    if word == b"USER":
        if value not in session.service.users.by_name:
            raise CommandError(f"ERR No such user '{printable(value)}'")
        return lambda each: each.user.name == value
    if word == b"TYPE":
        return _type_condition(value)
    raise CommandError(SYNTAX)


def _end(killer: Session, sessions: list[Session]) -> None:
    for session in sessions:
        session.end()
        if session is not killer:  # which still gets its reply
            session.service.outbox.append(End(session, at_once=True))


@command(
    "CLIENT NO-EVICT", arity=3, flags="admin noscript loading stale", since="7.0.0", group="connection",
    summary="Sets the client eviction mode of the connection.",
)  # fmt: skip
def client_no_evict(session: Session, args: Arguments, now_ms: int) -> bytes:
    session.no_evict = on_or_off(args[2])
    return OK


@command(
    "CLIENT NO-TOUCH", arity=3, flags="noscript loading stale", since="7.2.0", group="connection",
    summary="Controls whether commands sent by the client affect the LRU/LFU of accessed keys.",
)  # fmt: skip
def client_no_touch(session: Session, args: Arguments, now_ms: int) -> bytes:
    session.no_touch = on_or_off(args[2])
    session.regate()
    return OK


@command(
    "CLIENT REPLY", arity=3, flags="noscript loading stale", since="3.2.0", group="connection",
    summary="Instructs the server whether to reply to commands.",
)  # fmt: skip
def client_reply(session: Session, args: Arguments, now_ms: int) -> bytes:
    mode = args[2].upper()
    if mode not in (b"ON", b"OFF", b"SKIP"):
        raise CommandError(SYNTAX)
    if mode == b"SKIP":
        session.skip_replies = 0 if session.replies_off else 2  # this one's, and the next one's
    else:
        session.replies_off = mode == b"OFF"
    session.regate()
    return OK


@command(
    "CLIENT PAUSE", arity=-3, flags="admin noscript loading stale", since="3.0.0", group="connection",
    summary="Suspends commands processing.",
)  # fmt: skip
def client_pause(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) > 4:
        raise CommandError(SYNTAX)
    mode = args[3].upper() if len(args) == 4 else b"ALL"
    if mode not in (b"WRITE", b"ALL"):
        raise CommandError("ERR CLIENT PAUSE mode must be WRITE or ALL")
    timeout_ms = integer(args[2], "ERR timeout is not an integer or out of range")
    if timeout_ms < 0:
        raise CommandError("ERR timeout is negative")
    session.service.pause(now_ms + min(timeout_ms, LONGEST_PAUSE_MS), everything=mode == b"ALL")
    session.gated = True
    return OK


@command(
    "CLIENT UNPAUSE", arity=2, flags="admin noscript loading stale", since="6.2.0", group="connection",
    summary="Resumes processing commands from paused clients.",
)  # fmt: skip
def client_unpause(session: Session, args: Arguments, now_ms: int) -> bytes:
    session.service.unpause()
    return OK


@command(
    "CLIENT UNBLOCK", arity=-3, flags="admin noscript loading stale", since="5.0.0", group="connection",
    summary="Unblocks a client blocked by a blocking command from a different connection.",
)  # fmt: skip
def client_unblock(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) > 4:
        raise CommandError(SYNTAX)
    if len(args) == 4 and args[3].upper() not in (b"TIMEOUT", b"ERROR"):
        raise CommandError("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    waiting = session.service.sessions.get(integer(args[2]))
    if waiting is None or waiting.wait is None:
        return ZERO
    block = waiting.wait.block
    reply: bytes = block.nothing
    if len(args) == 4 and args[3].upper() == b"ERROR" and not block.ran:  # what has run may not look as if it had not
        reply = session.service.error_reply(CommandError("UNBLOCKED client unblocked via CLIENT UNBLOCK"))
    if waiting.transaction is not None:  # EXEC waits for a backing store
        waiting.leave_transaction()
    session.service.release(waiting, reply)
    return ONE


# --- tracking -------------------------------------------------------------------------------------------------------


@command(
    "CLIENT TRACKING", arity=-3, flags="noscript loading stale", since="6.0.0", group="connection",
    summary="Controls server-assisted client-side caching for the connection.",
)  # fmt: skip
def client_tracking(session: Session, args: Arguments, now_ms: int) -> bytes:
    from minidist.engines.keyspace.tracking import check_prefixes, track  # only for those who track

    wanted, prefixes = _tracking_options(session, args)
    if not on_or_off(args[2]):
        if session.service.tracking is not None:
            session.service.tracking.leave(session)
        return OK
    before = session.tracker
    if prefixes and not wanted.broadcast:
        raise CommandError("ERR PREFIX option requires BCAST mode to be enabled")
    if before is not None and before.broadcast is not wanted.broadcast:
        raise CommandError("ERR You can't switch BCAST mode on/off" + TURN_OFF_FIRST)
    if wanted.broadcast and (wanted.opt_in or wanted.opt_out):
        raise CommandError("ERR OPTIN and OPTOUT are not compatible with BCAST")
    if wanted.opt_in and wanted.opt_out:
        raise CommandError("ERR You can't specify both OPTIN mode and OPTOUT mode")
    if before is not None and ((wanted.opt_in and before.opt_out) or (wanted.opt_out and before.opt_in)):
        raise CommandError("ERR You can't switch OPTIN/OPTOUT mode" + TURN_OFF_FIRST)
    check_prefixes(prefixes, {} if before is None else before.prefixes)
    track(session, prefixes, wanted)
    return OK


TURN_OFF_FIRST = " before disabling tracking for this client, and then re-enabling it with a different mode."


def _tracking_options(session: Session, args: Arguments) -> "tuple[Tracker, list[bytes]]":
    """What is wanted, and the prefixes. Raises CommandError."""
    from minidist.engines.keyspace.tracking import Tracker

    wanted, prefixes = Tracker(), []
    words = iter(args[3:])
    for given in words:
        word = given.upper()
        if word == b"BCAST":
            wanted.broadcast = True
        elif word == b"OPTIN":
            wanted.opt_in = True
        elif word == b"OPTOUT":
            wanted.opt_out = True
        elif word == b"NOLOOP":
            wanted.no_loop = True
        elif word not in (b"REDIRECT", b"PREFIX") or (value := next(words, None)) is None:
            raise CommandError(SYNTAX)
        elif word == b"PREFIX":
            prefixes.append(value)
        elif wanted.redirect:
            raise CommandError("ERR A client can only redirect to a single other client")
        else:
            wanted.redirect = integer(value)
            if wanted.redirect not in session.service.sessions:
                raise CommandError("ERR The client ID you want redirect to does not exist")
    return wanted, prefixes


@command(
    "CLIENT CACHING", arity=3, flags="noscript loading stale", since="6.0.0", group="connection",
    summary="Instructs the server whether to track the keys in the next request.",
)  # fmt: skip
def client_caching(session: Session, args: Arguments, now_ms: int) -> bytes:
    tracker, word = session.tracker, args[2].upper()
    if tracker is None:
        raise CommandError(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode "
            "with OPTIN or OPTOUT mode enabled"
        )
    if word not in (b"YES", b"NO"):
        raise CommandError(SYNTAX)
    if not (tracker.opt_in if word == b"YES" else tracker.opt_out):
        mode = "OPTIN" if word == b"YES" else "OPTOUT"
        raise CommandError(f"ERR CLIENT CACHING {word.decode()} is only valid when tracking is enabled in {mode} mode.")
    tracker.caching = True
    return OK


def _redirection(session: Session) -> int:
    """The id that tracking is redirected to: 0 for nobody else, -1 without tracking."""
    return -1 if session.tracker is None else session.tracker.redirect


@command(
    "CLIENT GETREDIR", arity=2, flags="noscript loading stale", since="6.0.0", group="connection",
    summary="Returns the client ID to which the connection's tracking notifications are redirected.",
)  # fmt: skip
def client_getredir(session: Session, args: Arguments, now_ms: int) -> bytes:
    return integer_reply(_redirection(session))


@command(
    "CLIENT TRACKINGINFO", arity=2, flags="noscript loading stale", since="6.2.0", group="connection",
    summary="Returns information about server-assisted client-side caching for the connection.",
)  # fmt: skip
def client_trackinginfo(session: Session, args: Arguments, now_ms: int) -> bytes:
    tracker, resp3 = session.tracker, session.resp3
    shown = ["off"] if tracker is None else tracker.flags
    parts = [map_header(3, resp3), bulk(b"flags"), set_header(len(shown), resp3)]
    parts += [bulk(flag.encode()) for flag in shown]  # in Redis' order
    parts += [bulk(b"redirect"), integer_reply(_redirection(session))]
    parts += [bulk(b"prefixes"), bulks(sorted(tracker.prefixes) if tracker is not None else [])]
    return b"".join(parts)
