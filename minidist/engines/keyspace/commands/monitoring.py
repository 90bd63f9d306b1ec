"""SLOWLOG, LATENCY and MONITOR. What is slow is found by timing.py; without a stopwatch, nothing is."""

from minidist.engines.keyspace.errors import CommandError
from minidist.engines.keyspace.latency import graph
from minidist.engines.keyspace.registry import CommandTable
from minidist.engines.keyspace.session import Session
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_plain import strict_integer
from minidist.wire.resp_replies import EMPTY_ARRAY, OK, array, bulk, bulks, integer, map_header, verbatim

TABLE = CommandTable()
command = TABLE.command

ADMIN = "admin noscript loading stale"
USUAL_ENTRIES = 10
DISABLED = """\
I'm sorry, Dave, I can't do that. Latency monitoring is disabled in this Redis instance. \
You may use "CONFIG SET latency-monitor-threshold <milliseconds>." in order to enable it. \
If we weren't in a deep space mission I'd suggest to take a look at https://redis.io/topics/latency-monitor.
"""
QUIET = """\
Dave, no latency spike was observed during the lifetime of this Redis instance, not in the slightest bit. \
I honestly think you ought to sit down calmly, take a stress pill, and think things over.
"""

# --- SLOWLOG --------------------------------------------------------------------------------------------------------

TABLE.container("SLOWLOG", since="2.2.12", group="server", summary="A container for slow log commands.")


@command(
    "SLOWLOG GET", arity=-2, flags="admin loading stale", since="2.2.12", group="server",
    summary="Returns the slow log's entries.", complexity="O(N) where N is the number of entries returned",
)  # fmt: skip
def slowlog_get(session: Session, args: Arguments, now_ms: int) -> bytes:
    entries = session.service.timing.slow_log.entries
    count = USUAL_ENTRIES if len(args) == 2 else strict_integer(args[2])
    if count is None or count < -1 or len(args) > 3:
        raise CommandError("ERR count should be greater than or equal to -1")
    shown = [
        array([
            integer(each.number), integer(each.at_ms // 1000), integer(each.took_us), bulks(each.args),
            bulk(each.peer), bulk(each.client_name),
        ])
        for _, each in zip(range(len(entries) if count == -1 else count), entries, strict=False)
    ]  # fmt: skip
    return array(shown)


@command(
    "SLOWLOG LEN", arity=2, flags="admin loading stale", since="2.2.12", group="server",
    summary="Returns the number of entries in the slow log.",
)  # fmt: skip
def slowlog_len(session: Session, args: Arguments, now_ms: int) -> bytes:
    return integer(len(session.service.timing.slow_log.entries))


@command(
    "SLOWLOG RESET", arity=2, flags="admin loading stale", since="2.2.12", group="server",
    summary="Clears all entries from the slow log.", complexity="O(N) where N is the number of entries in the slowlog",
)  # fmt: skip
def slowlog_reset(session: Session, args: Arguments, now_ms: int) -> bytes:
    session.service.timing.slow_log.entries.clear()
    return OK


# --- LATENCY --------------------------------------------------------------------------------------------------------

TABLE.container("LATENCY", since="2.8.13", group="server", summary="A container for latency diagnostics commands.")


@command(
    "LATENCY LATEST", arity=2, flags=ADMIN, since="2.8.13", group="server",
    summary="Returns the latest latency samples for all events.",
)  # fmt: skip
def latency_latest(session: Session, args: Arguments, now_ms: int) -> bytes:
    return array([
        array([bulk(name.encode()), *map(integer, event.samples[-1]), integer(event.worst_ms)])
        for name, event in session.service.timing.latency.events.items()
    ])  # fmt: skip


@command(
    "LATENCY HISTORY", arity=3, flags=ADMIN, since="2.8.13", group="server",
    summary="Returns timestamp-latency samples for an event.",
)  # fmt: skip
def latency_history(session: Session, args: Arguments, now_ms: int) -> bytes:
    event = session.service.timing.latency.events.get(args[2].decode("latin-1"))
    if event is None:
        return EMPTY_ARRAY
    return array([array([integer(second), integer(took_ms)]) for second, took_ms in event.samples])


@command(
    "LATENCY RESET", arity=-2, flags=ADMIN, since="2.8.13", group="server",
    summary="Resets the latency data for one or more events.",
)  # fmt: skip
def latency_reset(session: Session, args: Arguments, now_ms: int) -> bytes:
    return integer(session.service.timing.latency.reset([name.decode("latin-1") for name in args[2:]]))


@command(
    "LATENCY GRAPH", arity=3, flags=ADMIN, since="2.8.13", group="server",
    summary="Returns a latency graph for an event.",
)  # fmt: skip
def latency_graph(session: Session, args: Arguments, now_ms: int) -> bytes:
    name = args[2].decode("utf-8", "surrogateescape")
    event = session.service.timing.latency.events.get(name)
    if event is None:
        raise CommandError(f"ERR No samples available for event '{name}'")
    return verbatim(graph(name, event, now_ms).encode(), session.resp3)


@command(
    "LATENCY DOCTOR", arity=2, flags=ADMIN, since="2.8.13", group="server",
    summary="Returns a human-readable latency analysis report.",
)  # fmt: skip
def latency_doctor(session: Session, args: Arguments, now_ms: int) -> bytes:
    latency = session.service.timing.latency
    if not latency.events:
        report = QUIET if latency.threshold_ms else DISABLED
    else:
        lines = [
            f"{number}. {name}: {len(event.samples)} latency spikes, worst all time event {event.worst_ms}ms."
            for number, (name, event) in enumerate(latency.events.items(), 1)
        ]
        report = "\n".join(["Latency spikes were observed:", *lines, "SLOWLOG GET shows the slowest commands.", ""])
    return verbatim(report.encode(), session.resp3)


@command(
    "LATENCY HISTOGRAM", arity=-2, flags=ADMIN, since="7.0.0", group="server",
    summary="Returns the cumulative distribution of latencies of commands: none, only slow commands are timed.",
)  # fmt: skip
def latency_histogram(session: Session, args: Arguments, now_ms: int) -> bytes:
    return map_header(0, session.resp3)


# --- MONITOR --------------------------------------------------------------------------------------------------------


@command(
    "MONITOR", arity=1, flags=ADMIN, since="1.0.0", group="server",
    summary="Listens for all requests received by the server in real-time.",
)  # fmt: skip
def monitor(session: Session, args: Arguments, now_ms: int) -> bytes:
    if session.executing:
        raise CommandError("ERR MONITOR isn't allowed for DENY BLOCKING client")
    session.service.monitor(session)
    return OK
