"""The node itself: INFO, CONFIG, TIME, ROLE, DEBUG."""

from minidist.engines.keyspace.arguments import decimal, integer, option
from minidist.engines.keyspace.errors import CommandError, Postponed, printable, wrong_arity
from minidist.engines.keyspace.registry import CommandTable, Keys
from minidist.engines.keyspace.session import Session
from minidist.structures.glob import glob_matcher
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import OK, bulks, encode, map_header, simple, verbatim

TABLE = CommandTable()
command = TABLE.command

# --- INFO -----------------------------------------------------------------------------------------------------------

EVERYTHING = {b"all", b"everything"}
# Shown only when asked for by name or with everything else.
NOT_BY_DEFAULT = {b"commandstats", b"latencystats"}


@command(
    "INFO", arity=-1, flags="loading stale", since="1.0.0", group="server",
    summary="Returns information and statistics about the server.",
)  # fmt: skip
def info(session: Session, args: Arguments, now_ms: int) -> bytes:
    wanted = {word.lower() for word in args[1:]} or {b"default"}
    parts = []
    for section, fields in session.service.information(now_ms).items():
        name = section.lower().encode()
        if name in wanted or wanted & EVERYTHING or (b"default" in wanted and name not in NOT_BY_DEFAULT):
            lines = [f"# {section}", *(f"{field}:{value}" for field, value in fields.items())]
            parts.append("\r\n".join(lines) + "\r\n")
    return verbatim("\r\n".join(parts).encode(), session.resp3)


# --- CONFIG ---------------------------------------------------------------------------------------------------------

TABLE.container("CONFIG", since="2.0.0", group="server", summary="A container for server configuration commands.")


@command(
    "CONFIG GET", arity=-3, flags="admin noscript loading stale", since="2.0.0", group="server",
    summary="Returns the effective values of configuration parameters.",
    complexity="O(N) where N is the number of parameters provided",
)  # fmt: skip
def config_get(session: Session, args: Arguments, now_ms: int) -> bytes:
    matchers = [glob_matcher(pattern.lower()) for pattern in args[2:]]
    settings = session.service.settings.values()
    found = [name for name in settings if any(matches(name.encode()) for matches in matchers)]
    flat = [text.encode() for name in found for text in (name, settings[name])]
    return map_header(len(found), session.resp3) + bulks(flat).split(b"\r\n", 1)[1]


@command(
    "CONFIG SET", arity=-4, flags="admin noscript loading stale", since="2.0.0", group="server",
    summary="Sets configuration parameters in-flight.",
    complexity="O(N) where N is the number of parameters provided",
)  # fmt: skip
def config_set(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) % 2:
        raise wrong_arity("config|set")
    values: dict[str, str] = {}
    for at in range(2, len(args), 2):
        name = printable(args[at]).lower()
        if name in values:
            raise CommandError(f"ERR CONFIG SET failed (possibly related to argument '{name}') - duplicate parameter")
        values[name] = printable(args[at + 1])
    session.service.settings.change(values)
    if "requirepass" in values:
        from minidist.engines.keyspace.acl import settle

        settle(session.service)
    return OK


@command(
    "CONFIG RESETSTAT", arity=2, flags="admin noscript loading stale", since="2.0.0", group="server",
    summary="Resets the server's statistics.",
)  # fmt: skip
def config_resetstat(session: Session, args: Arguments, now_ms: int) -> bytes:
    session.service.reset_statistics()
    return OK


@command(
    "CONFIG REWRITE", arity=2, flags="admin noscript loading stale", since="2.8.0", group="server",
    summary="Persists the effective configuration to file.",
)  # fmt: skip
def config_rewrite(session: Session, args: Arguments, now_ms: int) -> bytes:
    raise CommandError("ERR The server is running without a config file")


# --- TIME, ROLE, CLUSTER --------------------------------------------------------------------------------------------


@command(
    "TIME", arity=1, flags="loading stale fast", since="2.6.0", group="server",
    summary="Returns the server time: service time, in whole milliseconds.",
)  # fmt: skip
def time(session: Session, args: Arguments, now_ms: int) -> bytes:
    return bulks([b"%d" % (now_ms // 1000), b"%d" % (now_ms % 1000 * 1000)])


@command(
    "ROLE", arity=1, flags="noscript loading stale fast", since="2.8.12", group="server",
    summary="Returns the replication role.",
)  # fmt: skip
def role(session: Session, args: Arguments, now_ms: int) -> bytes:
    return encode(["master", 0, []], session.resp3)


@command(
    "CLUSTER", arity=-2, flags="stale", since="3.0.0", group="cluster",
    summary="Answers that this node is no part of a Redis Cluster.",
)  # fmt: skip
def cluster(session: Session, args: Arguments, now_ms: int) -> bytes:
    raise CommandError("ERR This instance has cluster support disabled")


@command(
    "LOLWUT", arity=-1, flags="readonly fast", since="5.0.0", group="server",
    summary="Displays the Redis version that this node is compatible with.",
)  # fmt: skip
def lolwut(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) > 2 and args[1].upper() == b"VERSION":
        integer(args[2])
    return verbatim(f"Redis ver. {session.service.redis_version}\n".encode(), session.resp3)


# --- DEBUG ----------------------------------------------------------------------------------------------------------

TABLE.container("DEBUG", since="1.0.0", group="server", summary="A container for debugging commands.", flags="admin")


@command(
    "DEBUG SLEEP", arity=3, flags="admin noscript loading stale", since="1.0.0", group="server",
    summary="Stops serving all clients for some seconds of service time.",
)  # fmt: skip
def debug_sleep(session: Session, args: Arguments, now_ms: int) -> bytes:
    sleep_ms = int(max(0, min(decimal(args[2]) * 1000, LONGEST_SLEEP_MS)))
    if session.executing:
        raise CommandError("ERR DEBUG SLEEP is not allowed inside a transaction")
    if not session.asleep:
        session.asleep = session.gated = True
        session.service.pause(now_ms + sleep_ms, everything=True)
        raise Postponed  # this command runs again when the pause is over
    session.asleep = False
    service = session.service
    service.timing.took(session, service.table.commands["DEBUG"], args, sleep_ms * 1000, now_ms)
    return OK


LONGEST_SLEEP_MS = 3_600_000


@command(
    "DEBUG ERROR", arity=3, flags="admin noscript loading stale", since="1.0.0", group="server",
    summary="Replies with an error of this text, to see what a client makes of it.",
)  # fmt: skip
def debug_error(session: Session, args: Arguments, now_ms: int) -> bytes:
    raise CommandError(printable(args[2]))


@command(
    "DEBUG SET-ACTIVE-EXPIRE", arity=3, flags="admin noscript loading stale", since="3.0.0", group="server",
    summary="Turns the removal of expired keys that nobody asks for on (1) or off (0).",
)  # fmt: skip
def debug_set_active_expire(session: Session, args: Arguments, now_ms: int) -> bytes:
    session.service.keyspace.use_active_expiry(option(args[2], (b"0", b"1")) == b"1")
    return OK


@command(
    "DEBUG OBJECT", arity=3, flags="admin noscript loading stale", keys=Keys(2, 2, 1), since="1.0.0", group="server",
    summary="Shows how a key is stored.",
)  # fmt: skip
def debug_object(session: Session, args: Arguments, now_ms: int) -> bytes:
    from minidist.engines.keyspace.commands.introspection import encoding

    entry = session.database.peek(args[2], now_ms)
    if entry is None:
        raise CommandError("ERR no such key")
    idle_s = max(now_ms - entry.touched_ms, 0) // 1000
    return simple(
        f"Value at:0x0 refcount:1 encoding:{encoding(entry)} serializedlength:0 lru:0 lru_seconds_idle:{idle_s}"
    )
