"""What a user may do: the rules of ACL SETUSER, read into selectors, and written again as ACL LIST shows them.

A user has a root selector and any number of others, written in parentheses. A command is allowed if one selector allows
the command, all its keys and all its channels. Rules are worked out when they are given: a selector keeps the very set
of commands it allows, so that a check is one look-up however many commands and rules there are.

Redis 7.2 shows the rules of commands as they were given, each new one in place of earlier ones about the same command
(`command_rules`); before, it made up a shortest list. Errors are Redis' own.

A rule may name a command of Redis that is not here: it is kept and shown, so that rules written for Redis can be used.

Source: redis 7.2, src/acl.c; https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

import re

from minidist.engines.keyspace.categories import CATEGORIES
from minidist.engines.keyspace.key_access import READ, WRITE
from minidist.engines.keyspace.registry import Command, CommandTable
from minidist.engines.keyspace.users import User, Users, hashed
from minidist.structures.glob import Matcher, glob_matcher
from minidist.wire.resp_plain import ProtocolError, split_inline

UNKNOWN = "Unknown command or category name in ACL"
BAD_SYNTAX = "Syntax error"
AFTER_ALL_KEYS = (
    "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. "
    "Try 'resetkeys' to start with an empty list of patterns"
)
AFTER_ALL_CHANNELS = (
    "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. "
    "Try 'resetchannels' to start with an empty list of channels"
)
NO_SUCH_PASSWORD = "The password you are trying to remove from the user does not exist"
BAD_HASH = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
FIRST_ARGUMENT_OF_SUBCOMMAND = "Allowing first-arg of a subcommand is not supported"

HASH = re.compile(rb"[0-9a-f]{64}")
BLANK = re.compile(rb"[\0 \t\n\v\f\r]")
KEY_RULE = re.compile(rb"~|%(?:R|W|RW|WR)(?:~|$)", re.IGNORECASE)


class BadRule(ValueError):
    """A rule that cannot be followed; the text says why."""


class Selector:
    """What is allowed together: commands, keys, channels. As made: nothing."""

    __slots__ = (
        "all_channels", "all_keys", "allowed", "channels", "command_rules", "first_arguments", "keys", "matchers",
        "with_future",
    )  # fmt: skip

    def __init__(self) -> None:
        self.all_keys = False
        self.all_channels = False
        self.allowed: set[Command] | None = set()  # None: every command
        self.with_future = False  # +@all was the last word on all commands
        self.command_rules: list[bytes] = []  # those after +@all or -@all, with their signs
        self.first_arguments: dict[Command, list[bytes]] = {}  # `+select|0`
        self.keys: dict[bytes, int] = {}  # patterns, and the rights they give
        self.channels: dict[bytes, None] = {}
        self.matchers: dict[bytes, Matcher] = {}  # of both

    @classmethod
    def everything(cls) -> "Selector":
        selector = cls()
        selector.all_keys = selector.all_channels = selector.with_future = True
        selector.allowed = None
        return selector

    @property
    def is_everything(self) -> bool:
        return self.all_keys and self.all_channels and self.allowed is None

    def copy(self) -> "Selector":
        copy = Selector()
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(copy, name, value.copy() if isinstance(value, set | dict | list) else value)
        copy.first_arguments = {row: words.copy() for row, words in self.first_arguments.items()}
        return copy

    # --- changing ---------------------------------------------------------------------------------------------------

    def change(self, rule: bytes, table: CommandTable) -> None:
        """Follow one rule. Raises BadRule."""
        word = rule.lower()
        if word in (b"allkeys", b"~*", b"resetkeys"):
            self.all_keys = word != b"resetkeys"
            self.keys.clear()
            self._drop_matchers()
        elif word in (b"allchannels", b"&*", b"resetchannels"):
            self.all_channels = word != b"resetchannels"
            self.channels.clear()
            self._drop_matchers()
        elif word in (b"allcommands", b"+@all", b"nocommands", b"-@all"):
            self.with_future = word in (b"allcommands", b"+@all")
            self.allowed = None if self.with_future else set()
            self.command_rules.clear()
            self.first_arguments.clear()
        elif rule[:1] in (b"~", b"%"):
            self._add_keys(rule)
        elif rule[:1] == b"&":
            if self.all_channels:
                raise BadRule(AFTER_ALL_CHANNELS)
            self.channels[self._pattern(rule[1:])] = None
        elif rule[:1] in (b"+", b"-"):
            self._change_commands(rule, table)
        else:
            raise BadRule(BAD_SYNTAX)

    def _pattern(self, pattern: bytes) -> bytes:
        if BLANK.search(pattern):
            raise BadRule(BAD_SYNTAX)
        self.matchers[pattern] = glob_matcher(pattern)
        return pattern

    def _drop_matchers(self) -> None:
        """Those of patterns that are not there any more."""
        self.matchers = {each: self.matchers[each] for each in (*self.keys, *self.channels)}

    def _add_keys(self, rule: bytes) -> None:
        if self.all_keys:
            raise BadRule(AFTER_ALL_KEYS)
        head = KEY_RULE.match(rule)
        if head is None:
            raise BadRule(BAD_SYNTAX)
        letters = head[0].upper()
        rights = READ * (b"R" in letters) | WRITE * (b"W" in letters) if letters[:1] == b"%" else READ | WRITE
        pattern = self._pattern(rule[head.end() :])
        self.keys[pattern] = self.keys.get(pattern, 0) | rights

    def _change_commands(self, rule: bytes, table: CommandTable) -> None:
        """`+get`, `-client|kill`, `+select|0`, `-@read`."""
        allow, name = rule[:1] == b"+", rule[1:].lower()
        if name[:1] == b"@":
            category = "@" + name[1:].decode("latin-1")
            if category[1:] not in CATEGORIES:
                raise BadRule(UNKNOWN)
            for row in every_command(table):
                if category in row.categories:
                    self._allow(row, allow, table)
        else:
            found = find_command(name, table)
            if found is not None:
                self._allow(found, allow, table)
            elif not is_elsewhere(name):
                self._allow_first_argument(name, allow, table)
        self._note(rule[:1], name)

    def _allow(self, row: Command, allow: bool, table: CommandTable) -> None:
        """A container stands for its subcommands, too."""
        rows = (row, *row.subcommands.values())
        self.first_arguments.pop(row, None)
        if allow and self.allowed is not None:
            self.allowed.update(rows)
        elif not allow:
            if self.allowed is None:
                self.allowed = set(every_command(table))
            self.allowed.difference_update(rows)

    def _allow_first_argument(self, name: bytes, allow: bool, table: CommandTable) -> None:
        command, bar, word = name.rpartition(b"|")
        row = find_command(command, table) if allow and bar else None
        if row is None:
            raise BadRule(UNKNOWN)
        if b"|" in command:
            raise BadRule(FIRST_ARGUMENT_OF_SUBCOMMAND)
        if not word:
            raise BadRule(BAD_SYNTAX)
        if row.is_container:
            raise BadRule(UNKNOWN)
        words = self.first_arguments.setdefault(row, [])
        if word not in words:
            words.append(word)

    def _note(self, sign: bytes, name: bytes) -> None:
        """Keep a rule about commands; earlier ones about the same command, or its subcommands, have no effect more."""
        self.command_rules = [
            rule for rule in self.command_rules if rule[1:] != name and not rule[1:].startswith(name + b"|")
        ]
        self.command_rules.append(sign + name)

    # --- showing ----------------------------------------------------------------------------------------------------

    def shown_commands(self) -> bytes:
        return b" ".join([b"+@all" if self.with_future else b"-@all", *self.command_rules])

    def shown_keys(self) -> bytes:
        if self.all_keys:
            return b"~*"
        prefixes = {READ: b"%R~", WRITE: b"%W~", READ | WRITE: b"~"}
        return b" ".join([prefixes[rights] + pattern for pattern, rights in self.keys.items()])

    def shown_channels(self) -> bytes:
        return b"&*" if self.all_channels else b" ".join([b"&" + pattern for pattern in self.channels])

    def shown(self) -> bytes:
        channels = self.shown_channels()
        parts = [self.shown_keys(), channels if self.all_channels else b"resetchannels " + channels]
        return b" ".join([part.strip() for part in parts if part] + [self.shown_commands()])


# --- commands by name -----------------------------------------------------------------------------------------------


def every_command(table: CommandTable) -> list[Command]:
    return [each for row in table.complete().commands.values() for each in (row, *row.subcommands.values())]


def find_command(name: bytes, table: CommandTable) -> Command | None:
    """A command or subcommand (`client|kill`)."""
    first, bar, rest = name.partition(b"|")
    row = table.find(first)
    return row.subcommands.get(rest.decode("latin-1").upper()) if row is not None and bar else row


def is_elsewhere(name: bytes) -> bool:
    """Whether this is a command of Redis 7.2 that the table lacks."""
    from minidist.engines.keyspace.reference import redis_72

    wanted = name.decode("latin-1").upper().replace("|", " ")
    known = {each for names in redis_72().values() for each in names}
    known |= {each.split()[0] for each in known}
    if wanted.split(" ")[0] in ("CLUSTER", "DEBUG"):  # not listed in full
        return re.fullmatch(r"\w+ [\w-]+", wanted) is not None
    return wanted in known


# --- users ----------------------------------------------------------------------------------------------------------


def selectors_of(user: User) -> list[Selector]:
    """The root selector, and the others."""
    return [Selector.everything()] if user.selectors is None else user.selectors


def new_user(name: bytes) -> User:
    return User(name, [Selector()])


def changed_user(user: User, rules: list[bytes], table: CommandTable) -> User:
    """A copy of a user, with all of these rules followed. Raises BadRule, its `rule` the one that cannot be."""
    changed = User(user.name, [each.copy() for each in selectors_of(user)])
    changed.enabled, changed.nopass, changed.skip_sanitize = user.enabled, user.nopass, user.skip_sanitize
    changed.passwords = dict(user.passwords)
    for rule in merged(rules):
        try:
            _change(changed, rule, table)
        except BadRule as problem:
            shown = rule.decode("utf-8", "surrogateescape")
            raise BadRule(f"Error in ACL SETUSER modifier '{shown}': {problem}") from None
    assert changed.selectors is not None
    changed.restricted = not any(each.is_everything for each in changed.selectors)
    return changed


def merged(rules: list[bytes]) -> list[bytes]:
    """The rules, with selectors that came as several words (`(+get`, `~x)`) put together. Raises BadRule."""
    found: list[bytes] = []
    opened = -1
    for at, rule in enumerate(rules):
        if opened >= 0:
            found[-1] += b" " + rule
            opened = -1 if rule.endswith(b")") else opened
            continue
        found.append(rule)
        if rule.startswith(b"(") and not rule.endswith(b")"):
            opened = at
    if opened >= 0:
        shown = rules[opened].decode("utf-8", "surrogateescape")
        raise BadRule(f"Unmatched parenthesis in acl selector starting at '{shown}'.")
    return found


def _change(user: User, rule: bytes, table: CommandTable) -> None:
    word = rule.lower()
    assert user.selectors is not None
    if word in (b"on", b"off"):
        user.enabled = word == b"on"
    elif word in (b"skip-sanitize-payload", b"sanitize-payload"):
        user.skip_sanitize = word == b"skip-sanitize-payload"
    elif word in (b"nopass", b"resetpass"):
        user.nopass = word == b"nopass"
        user.passwords.clear()
    elif rule[:1] in (b">", b"#", b"<", b"!"):
        _change_passwords(user, rule)
    elif rule[:1] == b"(" and rule[-1:] == b")" and len(rule) > 1:
        user.selectors.append(_selector(rule[1:-1], table))
    elif word == b"clearselectors":
        del user.selectors[1:]
    elif word == b"reset":
        user.become(new_user(user.name))
    elif rule:  # an empty one does nothing
        user.selectors[0].change(rule, table)


def _selector(text: bytes, table: CommandTable) -> Selector:
    selector = Selector()
    try:
        rules = split_inline(text)
    except ProtocolError:
        rules = []  # as in Redis: quotes that do not match make a selector of nothing
    for rule in rules:
        selector.change(rule, table)
    return selector


def _change_passwords(user: User, rule: bytes) -> None:
    sign, given = rule[:1], rule[1:]
    if sign in (b"#", b"!") and not HASH.fullmatch(given):
        raise BadRule(BAD_HASH)
    digest = given if sign in (b"#", b"!") else hashed(given)
    if sign in (b">", b"#"):
        user.passwords[digest] = None
        user.nopass = False
    elif digest in user.passwords:
        del user.passwords[digest]
    else:
        raise BadRule(NO_SUCH_PASSWORD)


def flags_of(user: User) -> list[bytes]:
    """In Redis' order."""
    return [
        b"on" if user.enabled else b"off",
        *([b"nopass"] if user.nopass else []),
        b"skip-sanitize-payload" if user.skip_sanitize else b"sanitize-payload",
    ]


def shown_user(user: User) -> bytes:
    """The line of ACL LIST, which is also that of a file of users."""
    root, *others = selectors_of(user)
    words = [b"user", user.name, *flags_of(user), *(b"#" + each for each in user.passwords), root.shown()]
    return b" ".join(words + [b"(" + each.shown() + b")" for each in others])


def bad_user_name(name: bytes) -> bool:
    return BLANK.search(name) is not None


def add_from_line(users: Users, words: list[str], table: CommandTable) -> None:
    """A line of a file of users, behind the word `user`. Raises ValueError."""
    name = words[0].encode()
    user = changed_user(new_user(name), [word.encode() for word in words[1:]], table)
    users.by_name.setdefault(name, user).become(user)
