"""Coming in: HELLO, AUTH, PING, ECHO, QUIT, RESET."""

from minidist.engines.keyspace.arguments import integer
from minidist.engines.keyspace.errors import SYNTAX, WRONG_PASSWORD, CommandError, printable, wrong_arity
from minidist.engines.keyspace.outputs import Admitted, Named
from minidist.engines.keyspace.publishing import pong
from minidist.engines.keyspace.registry import CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.users import DEFAULT_USER
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import OK, PONG, RESET, bulk, encode

TABLE = CommandTable()
command = TABLE.command

NO_PASSWORD_SET = (
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
HELLO_NEEDS_AUTH = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> "
    "option can be used to authenticate the client and select the RESP protocol version at the same time"
)


@command(
    "PING", arity=-1, flags="fast", since="1.0.0", group="connection",
    summary="Returns the server's liveliness response.",
)  # fmt: skip
def ping(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) > 2:
        raise wrong_arity("ping")
    if session.gated and session.subscriptions and not session.resp3:
        return pong(args[1:])
    if len(args) == 1:
        return PONG
    return bulk(args[1])


@command(
    "ECHO", arity=2, flags="loading stale fast", since="1.0.0", group="connection",
    summary="Returns the given string.",
)  # fmt: skip
def echo(session: Session, args: Arguments, now_ms: int) -> bytes:
    return bulk(args[1])


@command(
    "AUTH", arity=-2, flags="noscript loading stale fast no_auth allow_busy skip_monitor", since="1.0.0",
    group="connection", summary="Authenticates the connection.",
)  # fmt: skip
def auth(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) > 3:
        raise CommandError(SYNTAX)
    users = session.service.users
    if len(args) == 2 and users.default.nopass:
        raise CommandError(NO_PASSWORD_SET)
    name, password = (DEFAULT_USER, args[1]) if len(args) == 2 else args[1:]
    _authenticate(session, name, password, args[0], now_ms)
    return OK


def _authenticate(session: Session, name: bytes, password: bytes, command: bytes, now_ms: int) -> None:
    """Raises CommandError, and keeps it in the log of ACLs."""
    user = session.service.users.accepted(name, password)
    if user is None:
        from minidist.engines.keyspace.acl import log  # not for a node's start

        log(session, "auth", "toplevel" if session.transaction is None else "multi", command, name, now_ms)
        raise CommandError(WRONG_PASSWORD)
    session.user = user
    if not session.authenticated:
        session.authenticated = True
        session.service.outbox.append(Admitted(session))
    session.regate()


@command(
    "HELLO", arity=-1, flags="noscript loading stale fast no_auth allow_busy", since="6.0.0", group="connection",
    summary="Handshakes with the Redis server.",
)  # fmt: skip
def hello(session: Session, args: Arguments, now_ms: int) -> bytes:
    resp3 = session.resp3
    if len(args) > 1:
        version = integer(args[1], "ERR Protocol version is not an integer or out of range")
        if version not in (2, 3):
            raise CommandError("NOPROTO unsupported protocol version")
        resp3 = version == 3
    credentials, name = _hello_options(args)
    if credentials:
        _authenticate(session, *credentials, args[0], now_ms)
    if not session.authenticated:
        raise CommandError(HELLO_NEEDS_AUTH)
    if name is not None:
        set_name(session, name)
    session.speak(resp3)
    return encode(
        {
            "server": "redis",
            "version": session.service.redis_version,
            "proto": 3 if resp3 else 2,
            "id": session.id,
            "mode": "standalone",
            "role": "master",
            "modules": [],
        },
        resp3,
    )


def _hello_options(args: Arguments) -> tuple[tuple[bytes, bytes] | None, bytes | None]:
    """AUTH's user and password, and SETNAME's name, where given."""
    credentials, name = None, None
    at = 2
    while at < len(args):
        word, left = args[at].upper(), len(args) - at - 1
        if word == b"AUTH" and left >= 2:
            credentials = (args[at + 1], args[at + 2])
            at += 3
        elif word == b"SETNAME" and left >= 1:
            name = args[at + 1]
            check_name(name, "Client names")
            at += 2
        else:
            raise CommandError(f"ERR Syntax error in HELLO option '{printable(args[at])}'")
    return credentials, name


def check_name(name: bytes, what: str) -> None:
    """Names travel in lines of CLIENT LIST: only visible ASCII. Raises CommandError."""
    if any(not 33 <= byte <= 126 for byte in name):
        raise CommandError(f"ERR {what} cannot contain spaces, newlines or special characters.")


def set_name(session: Session, name: bytes) -> None:
    check_name(name, "Client names")
    session.name = name
    session.service.outbox.append(Named(session))


@command(
    "QUIT", arity=-1, flags="noscript loading stale fast no_auth allow_busy", since="1.0.0", group="connection",
    summary="Closes the connection.",
)  # fmt: skip
def quit_(session: Session, args: Arguments, now_ms: int) -> bytes:
    session.end()
    return OK


@command(
    "RESET", arity=1, flags="noscript loading stale fast no_auth allow_busy", since="6.2.0", group="connection",
    summary="Resets the connection.",
)  # fmt: skip
def reset(session: Session, args: Arguments, now_ms: int) -> bytes:
    session.unwatch()
    session.service.silence(session)
    session.begin()
    set_name(session, b"")
    return RESET
