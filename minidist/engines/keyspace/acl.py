"""What users' rules mean for their sessions: the check before a command, and what happens when rules change.

Loaded when the first restricted user's command comes, or the first ACL command: sessions of users who may do everything
never get here. A check costs a look-up for the command, and a match of each key against the user's patterns.

Source: redis 7.2, src/acl.c `ACLCheckAllUserCommandPerm`, `ACLKillPubsubClientsIfNeeded`, `ACLLoadFromFile`
"""

from typing import TYPE_CHECKING, NamedTuple

from minidist.engines.keyspace.acl_log import AccessLog
from minidist.engines.keyspace.acl_rules import BadRule, Selector, changed_user, new_user, selectors_of, shown_user
from minidist.engines.keyspace.errors import CommandError, printable
from minidist.engines.keyspace.key_access import READ, Use, key_uses
from minidist.engines.keyspace.outputs import Admitted, End
from minidist.engines.keyspace.registry import Command
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.users import User, Users
from minidist.wire.resp_plain import Command as Arguments

if TYPE_CHECKING:
    from minidist.engines.keyspace.service import Service

# In Redis' order: of several selectors' refusals, the highest counts.
COMMAND, KEY, CHANNEL = "command", "key", "channel"
RANK = {COMMAND: 1, KEY: 2, CHANNEL: 4}
# Arguments that are channels; PSUBSCRIBE's are patterns, which must be allowed word by word.
FIRST_ONLY, ALL = slice(1, 2), slice(1, None)
CHANNELS = {
    "PUBLISH": FIRST_ONLY, "SPUBLISH": FIRST_ONLY, "SUBSCRIBE": ALL, "SSUBSCRIBE": ALL, "PSUBSCRIBE": ALL,
}  # fmt: skip
CHANGED_MEANWHILE = (
    "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is "
    "no longer allowed for the following reason: "
)
REASONS = {
    COMMAND: "no permission to execute the command or subcommand",
    KEY: "no permission to touch the specified keys",
    CHANNEL: "no permission to access one of the channels used as arguments to the command",
}


class Denial(NamedTuple):
    """Why a command may not run: what is forbidden, and which argument is the key or channel."""

    kind: str
    at: int = 0


def denial(user: User, row: Command, args: Arguments) -> Denial | None:
    """None if the user may run this command; a subcommand is meant by its own row."""
    if not user.restricted:
        return None
    worst = Denial(COMMAND)
    uses: list[Use] | None = None
    for selector in selectors_of(user):
        if not allows_command(selector, row, args):
            continue
        if uses is None:
            uses = key_uses(row, args) if row.keys else []
        found = _forbidden_key(selector, uses, args) or _forbidden_channel(selector, row, args)
        if found is None:
            return None
        if (RANK[found.kind], found.at) > (RANK[worst.kind], worst.at):
            worst = found
    return worst


def allows_command(selector: Selector, row: Command, args: Arguments) -> bool:
    """What one needs to come in is always allowed."""
    if selector.allowed is None or row in selector.allowed or "no_auth" in row.flags:
        return True
    return len(args) > 1 and args[1].lower() in selector.first_arguments.get(row, ())


def _forbidden_key(selector: Selector, uses: list[Use], args: Arguments) -> Denial | None:
    if selector.all_keys:
        return None
    for at, needed in uses:
        for pattern, rights in selector.keys.items():
            if rights & needed == needed and selector.matchers[pattern](args[at]):
                break
        else:
            return Denial(KEY, at)
    return None


def _forbidden_channel(selector: Selector, row: Command, args: Arguments) -> Denial | None:
    if selector.all_channels or row.name not in CHANNELS:
        return None
    literal = row.name == "PSUBSCRIBE"
    for at, channel in enumerate(args[CHANNELS[row.name]], 1):
        if not is_allowed_channel([selector], channel, literal=literal):
            return Denial(CHANNEL, at)
    return None


def is_allowed_channel(selectors: list[Selector], channel: bytes, *, literal: bool) -> bool:
    return any(
        pattern == channel if literal else selector.matchers[pattern](channel)
        for selector in selectors
        for pattern in selector.channels
    )


def reads_every_key(user: User, row: Command, args: Arguments) -> bool:
    """Whether SORT may look at keys that are made up on the way (BY, GET)."""
    return not user.restricted or any(
        denial_of_one(selector, row, args) is None and (selector.all_keys or bool(selector.keys.get(b"*", 0) & READ))
        for selector in selectors_of(user)
    )


def denial_of_one(selector: Selector, row: Command, args: Arguments) -> Denial | None:
    if not allows_command(selector, row, args):
        return Denial(COMMAND)
    return _forbidden_key(selector, key_uses(row, args) if row.keys else [], args)


def message(user: User, found: Denial, row: Command, args: Arguments, *, verbose: bool = False) -> str:
    """Redis' words; `verbose` names the key or channel."""
    name = printable(user.name)
    if found.kind == COMMAND:
        return f"User {name} has no permissions to run the '{row.full_name}' command"
    if verbose:
        return f"User {name} has no permissions to access the '{printable(args[found.at])}' {found.kind}"
    return f"No permissions to access a {found.kind}"


# --- before a command -----------------------------------------------------------------------------------------------


def authorise(session: Session, row: Command, args: Arguments, now_ms: int, context: str = "") -> None:
    """Raises CommandError, and keeps it in the log, if this session's user may not run this.

    `context` is "exec" or "lua" for what these run; otherwise the client itself has sent it.
    """
    user = session.user
    found = denial(user, row, args)
    if found is None:
        return
    inside = "multi" if context == "exec" or session.transaction is not None else "toplevel"
    what = row.full_name.encode() if found.kind == COMMAND else args[found.at]
    row.rejected_calls += 1
    log(session, found.kind, context if context == "lua" else inside, what, user.name, now_ms)
    if context == "exec":
        raise CommandError(CHANGED_MEANWHILE + REASONS[found.kind])
    text = message(user, found, row, args)
    raise CommandError(f"ERR ACL failure in script: {text}" if context == "lua" else f"NOPERM {text}")


def log(session: Session, kind: str, context: str, what: bytes, user: bytes, now_ms: int) -> None:
    """Keep a refusal for ACL LOG, and count it."""
    from minidist.engines.keyspace.commands.clients import describe

    service = session.service
    service.denied[kind] += 1
    if service.access_log is None:
        service.access_log = AccessLog()
    client = service.sessions.get(session.id, session)  # a script's commands have a session of their own
    service.access_log.add(kind, context, what, user, describe(client, now_ms), now_ms)


# --- changing users -------------------------------------------------------------------------------------------------


def set_user(session: Session, name: bytes, rules: list[bytes]) -> None:
    """ACL SETUSER: all rules or none. Raises CommandError."""
    service = session.service
    user = service.users.by_name.get(name)
    try:
        changed = changed_user(user or new_user(name), rules, service.table)
    except BadRule as problem:
        raise CommandError(f"ERR {problem}") from None
    if user is None:
        service.users.by_name[name] = changed
        return
    user.become(changed)
    _cut_subscribers(session, user)
    settle(service)


def settle(service: "Service") -> None:
    """Users have changed: see which sessions are checked from now on, and which need no password any more."""
    for session in service.sessions.values():
        if not session.authenticated and not session.ended and not service.users.password_needed:
            session.authenticated = True
            service.outbox.append(Admitted(session))
        session.regate()


def _cut_subscribers(changer: Session, user: User) -> None:
    """Disconnect those of this user who listen to what it may not hear any more."""
    selectors = selectors_of(user)
    if any(selector.all_channels for selector in selectors):
        return
    for session in list(changer.service.sessions.values()):
        heard = session.subscriptions
        if session.user is user and not (
            all(is_allowed_channel(selectors, each, literal=True) for each in heard.patterns)
            and all(
                is_allowed_channel(selectors, each, literal=False) for each in (*heard.channels, *heard.shard_channels)
            )
        ):
            _disconnect(changer, session)


def _disconnect(changer: Session, session: Session) -> None:
    """Close a connection at once; that of the command which runs, behind its reply."""
    session.end()
    if session is not changer:
        session.service.outbox.append(End(session, at_once=True))


def delete_users(session: Session, names: tuple[bytes, ...]) -> int:
    """How many there were. Their clients are disconnected."""
    by_name = session.service.users.by_name
    gone = [user for name in names if (user := by_name.pop(name, None)) is not None]
    _expel(session, gone)
    return len(gone)


def _expel(changer: Session, users: list[User]) -> None:
    service = changer.service
    for session in list(service.sessions.values()):
        if session.user in users:
            session.user = service.users.default
            session.authenticated = False
            _disconnect(changer, session)


def replace_users(service: "Service", users: Users, changer: Session | None = None) -> None:
    """Take over other users. If a client has asked for it, all are disconnected but those of the default user."""
    kept = service.users
    gone = [user for user in kept.by_name.values() if user is not kept.default]
    kept.default.become(users.default)
    kept.requirepass = users.requirepass
    kept.by_name = {**users.by_name, kept.default.name: kept.default}
    if changer is not None:
        _expel(changer, gone)
    for session in service.sessions.values():
        session.user = kept.by_name.get(session.user.name, kept.default)
    settle(service)


def shown_users(users: Users) -> list[bytes]:
    """The lines of ACL LIST."""
    return [shown_user(users.by_name[name]) for name in sorted(users.by_name)]
