"""ACL: users, what they may do, and what they were refused.

The rules are read and written by acl_rules.py, checked by acl.py; here are the commands around them. Users live in
`Service.users` until the node stops; ACL LOAD and ACL SAVE reach their file through `Service.user_file`, which the
shell gives. What is shown of a user has Redis' order, so that it can be compared.
"""

from minidist.engines.keyspace.acl import (
    delete_users,
    denial,
    message,
    replace_users,
    set_user,
    shown_users,
)
from minidist.engines.keyspace.acl_log import Refusal
from minidist.engines.keyspace.acl_rules import Selector, bad_user_name, every_command, flags_of, selectors_of
from minidist.engines.keyspace.arguments import integer
from minidist.engines.keyspace.categories import CATEGORIES
from minidist.engines.keyspace.errors import CommandError, printable
from minidist.engines.keyspace.registry import CommandTable
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.users import DEFAULT_USER
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import EMPTY_ARRAY, OK, array, bulk, bulks, encode, map_header, set_header
from minidist.wire.resp_replies import integer as integer_reply

TABLE = CommandTable()
TABLE.container("ACL", since="6.0.0", group="server", summary="A container for Access List Control commands.")
command = TABLE.command

ADMIN = "admin noscript loading stale"
OPEN = "noscript loading stale"
MOST_BITS = 4096
USUAL_ENTRIES = 10
NO_FILE = (
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER "
    "command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store "
    "users in the Redis configuration."
)
NOT_SAVED = "ERR There was an error trying to save the ACLs. Please check the server logs for more information"


@command(
    "ACL CAT", arity=-2, flags=OPEN, since="6.0.0", group="server",
    summary="Lists the ACL categories, or the commands inside a category.",
    complexity="O(1) since the categories and commands are a fixed set.",
)  # fmt: skip
def acl_cat(session: Session, args: Arguments, now_ms: int) -> bytes:
    _at_most(args, 3)
    if len(args) == 2:
        return bulks([name.encode() for name in CATEGORIES])
    name = args[2].decode("latin-1").lower()
    if name not in CATEGORIES:
        raise CommandError(f"ERR Unknown category '{printable(args[2])[:128]}'")
    rows = every_command(session.service.table)
    return bulks([row.full_name.encode() for row in rows if "@" + name in row.categories])


def _at_most(args: Arguments, most: int) -> None:
    if len(args) > most:
        raise CommandError(
            f"ERR unknown subcommand or wrong number of arguments for '{printable(args[1])[:128]}'. Try ACL HELP."
        )


@command(
    "ACL DELUSER", arity=-3, flags=ADMIN, since="6.0.0", group="server",
    summary="Deletes ACL users, and terminates their connections.",
    complexity="O(1) amortized time considering the typical user.",
)  # fmt: skip
def acl_deluser(session: Session, args: Arguments, now_ms: int) -> bytes:
    if DEFAULT_USER in args[2:]:
        raise CommandError("ERR The 'default' user cannot be removed")
    return integer_reply(delete_users(session, args[2:]))


@command(
    "ACL DRYRUN", arity=-4, flags=ADMIN, since="7.0.0", group="server",
    summary="Simulates the execution of a command by a user, without executing the command.",
)  # fmt: skip
def acl_dryrun(session: Session, args: Arguments, now_ms: int) -> bytes:
    service = session.service
    user, words = service.users.by_name.get(args[2]), args[3:]
    if user is None:
        raise CommandError(f"ERR User '{printable(args[2])}' not found")
    row = service.table.find(words[0])
    if row is not None and row.is_container and len(words) > 1:
        row = row.subcommands.get(words[1].decode("latin-1").upper())
    if row is None:
        raise CommandError(f"ERR Command '{printable(words[0])}' not found")
    if not row.least <= len(words) <= row.most:
        raise CommandError(f"ERR wrong number of arguments for '{row.full_name}' command")
    found = denial(user, row, words)
    if found is None:
        return OK
    return bulk(message(user, found, row, words, verbose=True).encode("utf-8", "surrogateescape"))


@command(
    "ACL GENPASS", arity=-2, flags=OPEN, since="6.0.0", group="server",
    summary="Generates a pseudorandom, secure password that can be used to identify ACL users.",
)  # fmt: skip
def acl_genpass(session: Session, args: Arguments, now_ms: int) -> bytes:
    _at_most(args, 3)
    bits = integer(args[2]) if len(args) == 3 else 256
    if not 0 < bits <= MOST_BITS:
        raise CommandError(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to "
            f"{MOST_BITS}"
        )
    letters = (bits + 3) // 4
    return bulk(session.service.random_bytes((letters + 1) // 2).hex()[:letters].encode())


@command(
    "ACL GETUSER", arity=3, flags=ADMIN, since="6.0.0", group="server", summary="Lists the ACL rules of a user.",
    complexity="O(N). Where N is the number of password, command and pattern rules that the user has.",
)  # fmt: skip
def acl_getuser(session: Session, args: Arguments, now_ms: int) -> bytes:
    user = session.service.users.by_name.get(args[2])
    if user is None:
        return session.null
    resp3 = session.resp3
    flags = flags_of(user)
    root, *others = selectors_of(user)
    parts = [
        map_header(6, resp3),
        bulk(b"flags"), set_header(len(flags), resp3), *map(bulk, flags),
        bulk(b"passwords"), bulks(user.passwords),
        _fields(root),
        bulk(b"selectors"), array([map_header(3, resp3) + _fields(each) for each in others]),
    ]  # fmt: skip
    return b"".join(parts)


def _fields(selector: Selector) -> bytes:
    shown = {
        b"commands": selector.shown_commands(),
        b"keys": selector.shown_keys(),
        b"channels": selector.shown_channels(),
    }
    return b"".join([bulk(name) + bulk(value) for name, value in shown.items()])


@command(
    "ACL LIST", arity=2, flags=ADMIN, since="6.0.0", group="server",
    summary="Dumps the effective rules in ACL file format.",
    complexity="O(N). Where N is the number of configured users.",
)  # fmt: skip
def acl_list(session: Session, args: Arguments, now_ms: int) -> bytes:
    return bulks(shown_users(session.service.users))


@command(
    "ACL LOAD", arity=2, flags=ADMIN, since="6.0.0", group="server",
    summary="Reloads the rules from the configured ACL file.",
    complexity="O(N). Where N is the number of configured users.",
)  # fmt: skip
def acl_load(session: Session, args: Arguments, now_ms: int) -> bytes:
    file = session.service.user_file
    if file is None:
        raise CommandError(NO_FILE)
    try:
        users = file.load()
    except (OSError, ValueError) as problem:
        raise CommandError(
            f"ERR {file.path}: {problem}. WARNING: ACL errors detected, no change to the previously active ACL rules "
            "was performed"
        ) from None
    replace_users(session.service, users, session)
    return OK


@command(
    "ACL SAVE", arity=2, flags=ADMIN, since="6.0.0", group="server",
    summary="Saves the effective ACL rules in the configured ACL file.",
    complexity="O(N). Where N is the number of configured users.",
)  # fmt: skip
def acl_save(session: Session, args: Arguments, now_ms: int) -> bytes:
    file = session.service.user_file
    if file is None:
        raise CommandError(NO_FILE)
    try:
        file.save(b"".join([line + b"\n" for line in shown_users(session.service.users)]))
    except OSError:
        raise CommandError(NOT_SAVED) from None
    return OK


@command(
    "ACL LOG", arity=-2, flags=ADMIN, since="6.0.0", group="server",
    summary="Lists recent security events generated due to ACL rules.",
    complexity="O(N) with N being the number of entries shown.",
)  # fmt: skip
def acl_log(session: Session, args: Arguments, now_ms: int) -> bytes:
    _at_most(args, 3)
    log = session.service.access_log
    if len(args) == 3 and args[2].upper() == b"RESET":
        if log is not None:
            log.entries.clear()
        return OK
    count = max(integer(args[2]), 0) if len(args) == 3 else USUAL_ENTRIES
    if log is None:
        return EMPTY_ARRAY
    resp3 = session.resp3
    return array([_entry(each, now_ms, resp3) for _, each in zip(range(count), log.entries, strict=False)])


def _entry(refusal: Refusal, now_ms: int, resp3: bool) -> bytes:
    fields: dict[str, object] = {
        "count": refusal.count,
        "reason": refusal.kind,
        "context": refusal.context,
        "object": refusal.object,
        "username": refusal.user,
        "age-seconds": (now_ms - refusal.updated_ms) / 1000,
        "client-info": refusal.client,
        "entry-id": refusal.number,
        "timestamp-created": refusal.created_ms,
        "timestamp-last-updated": refusal.updated_ms,
    }
    return encode(fields, resp3)


@command(
    "ACL SETUSER", arity=-3, flags=ADMIN, since="6.0.0", group="server",
    summary="Creates and modifies an ACL user and its rules.",
    complexity="O(N). Where N is the number of rules provided.",
)  # fmt: skip
def acl_setuser(session: Session, args: Arguments, now_ms: int) -> bytes:
    if bad_user_name(args[2]):
        raise CommandError("ERR Usernames can't contain spaces or null characters")
    set_user(session, args[2], list(args[3:]))
    return OK


@command(
    "ACL USERS", arity=2, flags=ADMIN, since="6.0.0", group="server", summary="Lists all ACL users.",
    complexity="O(N). Where N is the number of configured users.",
)  # fmt: skip
def acl_users(session: Session, args: Arguments, now_ms: int) -> bytes:
    return bulks(sorted(session.service.users.by_name))


@command(
    "ACL WHOAMI", arity=2, flags=OPEN, since="6.0.0", group="server",
    summary="Returns the authenticated username of the current connection.",
)  # fmt: skip
def acl_whoami(session: Session, args: Arguments, now_ms: int) -> bytes:
    return bulk(session.user.name)
