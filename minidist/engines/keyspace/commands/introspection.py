"""COMMAND, OBJECT, MEMORY: the node about its commands and its keys.

COMMAND in all its forms is read from the command table, so it cannot say anything that the node does not do. OBJECT and
MEMORY look at entries without touching them; the encodings are the names Redis would use for such a value.
"""

from minidist.engines.keyspace.arguments import integer
from minidist.engines.keyspace.errors import NOT_AN_INTEGER, SYNTAX, CommandError
from minidist.engines.keyspace.eviction import uses
from minidist.engines.keyspace.key_access import key_flags, keys_of
from minidist.engines.keyspace.memory import ENTRY_BYTES, EXPIRY_BYTES, value_bytes
from minidist.engines.keyspace.registry import Command, CommandTable, Keys
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.tables import EMPTY, NEVER, Entry
from minidist.structures.glob import glob_matcher
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_plain import strict_integer
from minidist.wire.resp_replies import OK, ONE, Status, bulk, bulks, encode, null_array, verbatim
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
command = TABLE.command

SECOND_ARGUMENT = Keys(2, 2, 1)

# --- COMMAND --------------------------------------------------------------------------------------------------------


def describe(row: Command) -> list[object]:
    """A command as COMMAND and COMMAND INFO show it."""
    keys = row.keys
    return [
        row.name.lower().replace(" ", "|"),
        row.arity,
        {Status(flag) for flag in row.flags},
        keys.first,
        keys.last,
        keys.step,
        {Status(category) for category in row.categories},
        [],
        _key_specifications(row),
        [describe(each) for each in row.subcommands.values()],
    ]


def _key_specifications(row: Command) -> list[object]:
    keys = row.keys
    all_flags = key_flags(row)
    first, others = ({Status(flag) for flag in flags.split()} for flags in (all_flags[0], all_flags[-1]))
    found: list[object] = []
    if keys.first:
        last = keys.last - keys.first if keys.last > 0 else keys.last
        where = {"type": "range", "spec": {"lastkey": last, "keystep": keys.step, "limit": 0}}
        begin = {"type": "index", "spec": {"index": keys.first}}
        found.append({"flags": first, "begin_search": begin, "find_keys": where})
    if keys.counted:
        where = {"type": "keynum", "spec": {"keynumidx": 0, "firstkey": 1, "keystep": 1}}
        begin = {"type": "index", "spec": {"index": keys.counted}}
        found.append({"flags": others, "begin_search": begin, "find_keys": where})
    return found


def document(row: Command) -> dict[str, object]:
    """A command as COMMAND DOCS shows it."""
    shown: dict[str, object] = {
        "summary": row.summary,
        "since": row.since,
        "group": row.group,
        "complexity": row.complexity,
    }
    if row.subcommands:
        shown["subcommands"] = {_full_name(each): document(each) for each in row.subcommands.values()}
    return shown


def _full_name(row: Command) -> str:
    return row.name.lower().replace(" ", "|")


def _row(session: Session, name: bytes) -> Command | None:
    """A command by name; `client|kill` names a subcommand."""
    first, _, rest = name.partition(b"|")
    row = session.service.table.find(first)
    return row.subcommands.get(rest.decode("latin-1").upper()) if row is not None and rest else row


def command_(session: Session, args: Arguments, now_ms: int) -> bytes:
    """COMMAND alone lists everything; otherwise it is a container."""
    if len(args) == 1:
        return encode([describe(each) for each in session.service.table.complete().commands.values()], session.resp3)
    table = session.service.table
    subcommand = table.subcommand(table.commands["COMMAND"], args)
    subcommand.calls += 1
    return subcommand.run(session, args, now_ms)


TABLE.container(
    "COMMAND", arity=-1, run=command_, flags="loading stale", since="2.8.13", group="server",
    summary="Returns detailed information about all commands.",
)  # fmt: skip


@command(
    "COMMAND COUNT", arity=2, flags="loading stale", since="2.8.13", group="server",
    summary="Returns a count of commands.",
)  # fmt: skip
def command_count(session: Session, args: Arguments, now_ms: int) -> bytes:
    return integer_reply(len(session.service.table.complete().commands))


@command(
    "COMMAND INFO", arity=-2, flags="loading stale", since="2.8.13", group="server",
    summary="Returns information about one, multiple or all commands.",
    complexity="O(N) where N is the number of commands to look up",
)  # fmt: skip
def command_info(session: Session, args: Arguments, now_ms: int) -> bytes:
    if len(args) == 2:
        return encode([describe(each) for each in session.service.table.complete().commands.values()], session.resp3)
    parts = [b"*%d\r\n" % (len(args) - 2)]
    for name in args[2:]:
        row = _row(session, name)
        parts.append(null_array(session.resp3) if row is None else encode(describe(row), session.resp3))
    return b"".join(parts)


@command(
    "COMMAND DOCS", arity=-2, flags="loading stale", since="7.0.0", group="server",
    summary="Returns documentary information about one, multiple or all commands.",
    complexity="O(N) where N is the number of commands to look up",
)  # fmt: skip
def command_docs(session: Session, args: Arguments, now_ms: int) -> bytes:
    rows = list(session.service.table.complete().commands.values())
    if len(args) > 2:
        rows = [row for name in args[2:] if (row := _row(session, name)) is not None]
    return encode({_full_name(row): document(row) for row in rows}, session.resp3)


@command(
    "COMMAND LIST", arity=-2, flags="loading stale", since="7.0.0", group="server",
    summary="Returns a list of command names.", complexity="O(N) where N is the number of commands",
)  # fmt: skip
def command_list(session: Session, args: Arguments, now_ms: int) -> bytes:
    commands = session.service.table.complete().commands
    rows = [each for row in commands.values() for each in (row, *row.subcommands.values())]
    if len(args) == 2:
        return encode([_full_name(row) for row in rows], session.resp3)
    if len(args) != 5 or args[2].upper() != b"FILTERBY":
        raise CommandError(SYNTAX)
    kind = args[3].upper()
    if kind == b"PATTERN":
        matches = glob_matcher(args[4].lower())
        return encode([_full_name(row) for row in rows if matches(_full_name(row).encode())], session.resp3)
    if kind == b"ACLCAT":
        wanted = "@" + args[4].decode("latin-1").lower()
        return encode([_full_name(row) for row in rows if wanted in row.categories], session.resp3)
    if kind == b"MODULE":
        return encode([], session.resp3)
    raise CommandError(SYNTAX)


def _keys_of(session: Session, args: Arguments) -> tuple[Command, list[bytes]]:
    """The row that some arguments call, and the keys among them. Raises CommandError as COMMAND GETKEYS does."""
    row = session.service.table.find(args[0])
    if row is not None and row.is_container and len(args) > 1:
        row = row.subcommands.get(args[1].decode("latin-1").upper())
    if row is None:
        raise CommandError("ERR Invalid command specified")
    if not row.keys:
        raise CommandError("ERR The command has no key arguments")
    if not row.least <= len(args) <= row.most:
        raise CommandError("ERR Invalid number of arguments specified for command")
    keys = keys_of(row, args)
    if not keys and "no_mandatory_keys" not in row.flags:
        raise CommandError("ERR Invalid arguments specified for command")
    return row, keys


@command(
    "COMMAND GETKEYS", arity=-3, flags="loading stale", since="2.8.13", group="server",
    summary="Extracts the key names from an arbitrary command.",
    complexity="O(N) where N is the number of arguments to the command",
)  # fmt: skip
def command_getkeys(session: Session, args: Arguments, now_ms: int) -> bytes:
    return bulks(_keys_of(session, args[2:])[1])


@command(
    "COMMAND GETKEYSANDFLAGS", arity=-3, flags="loading stale", since="7.0.0", group="server",
    summary="Extracts the key names and access flags for an arbitrary command.",
    complexity="O(N) where N is the number of arguments to the command",
)  # fmt: skip
def command_getkeysandflags(session: Session, args: Arguments, now_ms: int) -> bytes:
    row, keys = _keys_of(session, args[2:])
    flags = key_flags(row)
    shown = [
        [key, {Status(flag) for flag in flags[-1 if number else 0].split() if flag != "variable_flags"}]
        for number, key in enumerate(keys)
    ]
    return encode(shown, session.resp3)


# --- OBJECT ---------------------------------------------------------------------------------------------------------

TABLE.container("OBJECT", since="2.2.3", group="generic", summary="A container for object introspection commands.")
LONGEST_EMBEDDED_BYTES = 44


ADJUSTING = (
    "Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust."
)


def encoding(entry: Entry) -> str:
    """The name Redis would give to the way a value is stored; ours may be stored otherwise."""
    value = entry.value
    if isinstance(value, bytes):
        if strict_integer(value) is not None:
            return "int"
        return "embstr" if len(value) <= LONGEST_EMBEDDED_BYTES else "raw"
    return "raw" if value.__class__ is bytearray else str(value.encoding)


@command(
    "OBJECT ENCODING", arity=3, flags="readonly", keys=SECOND_ARGUMENT, since="2.2.3", group="generic",
    summary="Returns the internal encoding of a Redis object.",
)  # fmt: skip
def object_encoding(session: Session, args: Arguments, now_ms: int) -> bytes:
    entry = session.database.peek(args[2], now_ms)
    return session.null if entry is None else bulk(encoding(entry).encode())


@command(
    "OBJECT IDLETIME", arity=3, flags="readonly", keys=SECOND_ARGUMENT, since="2.2.3", group="generic",
    summary="Returns the time since the last access to a Redis object.",
)  # fmt: skip
def object_idletime(session: Session, args: Arguments, now_ms: int) -> bytes:
    entry = session.database.peek(args[2], now_ms)
    if entry is not None and session.service.keyspace.evictor.policy.counts_uses:
        raise CommandError("ERR An LFU maxmemory policy is selected, idle time not tracked. " + ADJUSTING)
    return session.null if entry is None else integer_reply(max(now_ms - entry.touched_ms, 0) // 1000)


@command(
    "OBJECT REFCOUNT", arity=3, flags="readonly", keys=SECOND_ARGUMENT, since="2.2.3", group="generic",
    summary="Returns the reference count of a value of a key.",
)  # fmt: skip
def object_refcount(session: Session, args: Arguments, now_ms: int) -> bytes:
    return session.null if session.database.peek(args[2], now_ms) is None else ONE


@command(
    "OBJECT FREQ", arity=3, flags="readonly", keys=SECOND_ARGUMENT, since="4.0.0", group="generic",
    summary="Returns the logarithmic access frequency counter of a Redis object.",
)  # fmt: skip
def object_freq(session: Session, args: Arguments, now_ms: int) -> bytes:
    entry = session.database.peek(args[2], now_ms)
    if entry is None:
        return session.null
    if session.service.keyspace.evictor.policy.counts_uses:
        return integer_reply(uses(entry, now_ms))
    raise CommandError("ERR An LFU maxmemory policy is not selected, access frequency not tracked. " + ADJUSTING)


# --- MEMORY ---------------------------------------------------------------------------------------------------------

TABLE.container("MEMORY", since="4.0.0", group="server", summary="A container for memory diagnostics commands.")


@command(
    "MEMORY USAGE", arity=-3, flags="readonly", keys=SECOND_ARGUMENT, since="4.0.0", group="server",
    summary="Estimates the memory usage of a key.",
)  # fmt: skip
def memory_usage(session: Session, args: Arguments, now_ms: int) -> bytes:
    for at in range(3, len(args), 2):
        if args[at].upper() != b"SAMPLES" or at + 1 == len(args):
            raise CommandError(SYNTAX)
        if integer(args[at + 1], NOT_AN_INTEGER) < 0:
            raise CommandError(SYNTAX)
    key = args[2]
    entry = session.database.peek(key, now_ms)
    if entry is None:
        return session.null
    table = session.database.table(key)
    share = table.allocated_bytes // len(table) if table is not EMPTY else 0
    lifetime = EXPIRY_BYTES * (entry.expires_ms != NEVER)
    return integer_reply(ENTRY_BYTES + len(key) + value_bytes(entry.value) + share + lifetime)


@command(
    "MEMORY DOCTOR", arity=2, since="4.0.0", group="server", summary="Outputs a memory problems report.",
)  # fmt: skip
def memory_doctor(session: Session, args: Arguments, now_ms: int) -> bytes:
    keyspace = session.service.keyspace
    report = f"{keyspace.count} keys take {keyspace.used_bytes} bytes"
    if keyspace.garbage_keys:
        report += f"; {keyspace.garbage_keys} keys of flushed databases wait to be freed"
    if keyspace.used_bytes > keyspace.limit_bytes:
        report += f"; that is more than maxmemory ({keyspace.limit_bytes})"
    return verbatim(report.encode() + b".\n", session.resp3)


@command(
    "MEMORY STATS", arity=2, since="4.0.0", group="server", summary="Returns details about memory usage.",
)  # fmt: skip
def memory_stats(session: Session, args: Arguments, now_ms: int) -> bytes:
    keyspace = session.service.keyspace
    count = keyspace.count
    return encode(
        {
            "peak.allocated": max(keyspace.peak_bytes, keyspace.used_bytes),
            "total.allocated": keyspace.used_bytes,
            "keys.count": count,
            "keys.bytes-per-key": keyspace.used_bytes // count if count else 0,
            "lazyfree.pending-objects": keyspace.garbage_keys,
        },
        session.resp3,
    )


@command(
    "MEMORY MALLOC-STATS", arity=2, since="4.0.0", group="server",
    summary="Returns the allocator's statistics: Python's allocator is used, and gives none.",
)  # fmt: skip
def memory_malloc_stats(session: Session, args: Arguments, now_ms: int) -> bytes:
    return verbatim(b"Stats not supported for the current allocator", session.resp3)


@command(
    "MEMORY PURGE", arity=2, since="4.0.0", group="server",
    summary="Asks the allocator to release memory: frees what flushed databases still hold.",
)  # fmt: skip
def memory_purge(session: Session, args: Arguments, now_ms: int) -> bytes:
    session.service.keyspace.free_step()
    return OK
