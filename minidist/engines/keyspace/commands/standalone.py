"""What a node that stands alone answers to those who ask for files, replicas or modules.

Nothing fails that a program may send as a matter of course, since nothing is wrong: without a file for snapshots
(`service.snapshots`), SAVE and its kin have nothing to write and say that it is done, as Redis would with an empty
`save` and nobody to read the file; LASTSAVE tells when. WAIT waits for replicas that never come. What would need
another node or a module is refused.
"""

from minidist.engines.keyspace.arguments import integer
from minidist.engines.keyspace.errors import NOT_AN_INTEGER, SYNTAX, CommandError
from minidist.engines.keyspace.registry import CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.waiting import Block
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import EMPTY_ARRAY, OK, ZERO, array, error, simple
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

UNDER_WAY = "ERR Background save already in progress"
NO_CLUSTER = "ERR This instance has cluster support disabled"

# --- files ----------------------------------------------------------------------------------------------------------


@command(
    "SAVE", arity=1, flags="admin noscript no_multi", since="1.0.0", group="server",
    summary="Saves the database to disk, and answers when it is done; others are served meanwhile.",
)  # fmt: skip
def save(session: Session, args: Arguments, now_ms: int) -> bytes:
    snapshots = session.service.snapshots
    if snapshots is None:
        session.service.saved_ms = now_ms
        return OK
    if not snapshots.start(session):
        raise CommandError(UNDER_WAY)
    raise Block([], object, 0, error("ERR nobody waits any more for the snapshot, which goes on"))


@command(
    "BGSAVE", arity=-1, flags="admin noscript", since="1.0.0", group="server",
    summary="Saves the database to disk in the background.",
)  # fmt: skip
def bgsave(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) > 2 or (len(args) == 2 and args[1].upper() != b"SCHEDULE"):
        raise CommandError(SYNTAX)
    snapshots = session.service.snapshots
    if snapshots is None:
        session.service.saved_ms = now_ms
    elif not snapshots.start():
        raise CommandError(UNDER_WAY)
    return simple("Background saving started")


@command(
    "BGREWRITEAOF", arity=1, flags="admin noscript", since="1.0.0", group="server",
    summary="Rewrites the append-only file: there is none, so there is nothing to do.",
)  # fmt: skip
def bgrewriteaof(session: Session, args: Arguments, now_ms: int) -> bytes:
    return simple("Background append only file rewriting started")


@command(
    "LASTSAVE", arity=1, flags="loading stale fast", since="1.0.0", group="server",
    summary="Returns the Unix timestamp of the last SAVE or BGSAVE, or of the start.",
)  # fmt: skip
def lastsave(session: Session, args: Arguments, now_ms: int) -> bytes:
    return integer_reply((session.service.saved_ms or session.service.started_ms) // 1000)


@command(
    "SHUTDOWN", arity=-1, flags="admin noscript loading stale no_multi allow_busy", since="1.0.0", group="server",
    summary="Ends the node as SIGTERM does: what has begun is finished, a snapshot written unless NOSAVE is given.",
)  # fmt: skip
def shutdown(session: Session, args: Arguments, now_ms: int) -> bytes:
    service, words = session.service, {word.upper() for word in args[1:]}
    if not words <= {b"NOSAVE", b"SAVE", b"NOW", b"FORCE", b"ABORT"} or words >= {b"NOSAVE", b"SAVE"}:
        raise CommandError(SYNTAX)
    if b"ABORT" in words:
        raise CommandError(SYNTAX if len(words) > 1 else "ERR No shutdown in progress.")
    if service.end_process is None:
        raise CommandError("ERR this node shares its process with others, which SHUTDOWN would end")
    service.save_at_stop = b"NOSAVE" not in words
    service.end_process()
    session.end()
    return b""


# --- replicas -------------------------------------------------------------------------------------------------------


def _timeout_ms(text: bytes) -> int:
    timeout_ms = integer(text, "ERR timeout is not an integer or out of range")
    if timeout_ms < 0:
        raise CommandError("ERR timeout is negative")
    return timeout_ms


@command(
    "WAIT", arity=3, since="3.0.0", group="generic",
    summary="Blocks until the asynchronous replication of all preceding write commands sent by the connection is "
    "completed: there are no replicas, so only the timeout ends it.",
)  # fmt: skip
def wait(session: Session, args: Arguments, now_ms: int) -> bytes:
    replicas, timeout_ms = integer(args[1]), _timeout_ms(args[2])
    if replicas > 0:
        raise Block([], object, timeout_ms, ZERO)
    return ZERO


@command(
    "WAITAOF", arity=4, flags="noscript", since="7.2.0", group="generic",
    summary="Blocks until all of the preceding write commands sent by the connection are written to the append-only "
    "file of the master and/or replicas: there are none, so only the timeout ends it.",
)  # fmt: skip
def waitaof(session: Session, args: Arguments, now_ms: int) -> bytes:
    local = integer(args[1], NOT_AN_INTEGER)
    if local not in (0, 1):
        raise CommandError("ERR value is out of range, value must between 0 and 1")
    out_of_range = "ERR value is out of range, must be positive"
    replicas = integer(args[2], out_of_range)
    if replicas < 0:
        raise CommandError(out_of_range)
    timeout_ms = _timeout_ms(args[3])
    if local:
        raise CommandError("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.")
    none = array([ZERO, ZERO])
    if replicas:
        raise Block([], object, timeout_ms, none)
    return none


def replicaof(session: Session, args: Arguments, now_ms: int) -> bytes:
    """REPLICAOF and SLAVEOF."""
    if [word.upper() for word in args[1:]] != [b"NO", b"ONE"]:
        raise CommandError("ERR this node does not replicate others; only NO ONE can be asked for")
    return OK


command(
    "REPLICAOF", arity=3, flags="admin noscript stale", since="5.0.0", group="server",
    summary="Configures a server as replica of another, or promotes it to a master, which this node always is.",
)(replicaof)  # fmt: skip
command(
    "SLAVEOF", arity=3, flags="admin noscript stale", since="1.0.0", group="server",
    summary="Sets a Redis server as a replica of another, or promotes it to being a master.",
)(replicaof)  # fmt: skip


def no_cluster(session: Session, args: Arguments, now_ms: int) -> bytes:
    """READONLY and its kin, as Redis answers them outside of a cluster."""
    raise CommandError(NO_CLUSTER)


command(
    "READONLY", arity=1, flags="loading stale fast", since="3.0.0", group="cluster",
    summary="Enables read-only queries for a connection to a Redis Cluster replica node.",
)(no_cluster)  # fmt: skip
command(
    "READWRITE", arity=1, flags="loading stale fast", since="3.0.0", group="cluster",
    summary="Enables read-write queries for a connection to a Redis Cluster replica node.",
)(no_cluster)  # fmt: skip
command(
    "ASKING", arity=1, flags="fast", since="3.0.0", group="cluster",
    summary="Signals that a cluster client is following an -ASK redirect.",
)(no_cluster)  # fmt: skip


# --- modules --------------------------------------------------------------------------------------------------------

TABLE.container("MODULE", since="4.0.0", group="server", summary="A container for module commands.")


@command(
    "MODULE LIST", arity=2, flags="admin noscript", since="4.0.0", group="server",
    summary="Returns all loaded modules: none.",
)  # fmt: skip
def module_list(session: Session, args: Arguments, now_ms: int) -> bytes:
    return EMPTY_ARRAY
