"""The command table: every command once, with all that is known about it.

    @command("GETRANGE", arity=4, flags="readonly", keys=FIRST_KEY, since="2.4.0", group="string", summary="…")
    def getrange(session, args, now_ms):
        ...
        return bulk(value)

A command is a plain function of the session that called it, its arguments (name included) and service time; it returns
the encoded reply and raises CommandError for an error reply. `arity` is Redis': the exact number of arguments with the
name, or minus the least number. COMMAND, COMMAND DOCS, the reference page and the checks before a command runs all
derive from this table. A container such as CLIENT has subcommands, declared as `CLIENT KILL`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from minidist.engines.keyspace.errors import unknown_command, unknown_subcommand, wrong_arity
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_plain import strict_integer
from minidist.wire.resp_replies import array, simple

if TYPE_CHECKING:
    from minidist.engines.keyspace.session import Session

Run = Callable[["Session", Arguments, int], bytes]
RunColumns = Callable[["Session", Sequence[Sequence[bytes]], int], tuple[int, bytes]]
"""Runs as many as it can of a pipeline given by column (all names, all first arguments, …): how many, their replies."""

MOST_ARGUMENTS = 1 << 31
# A command with more arguments is not run directly, but with every check, and timed.
LONGEST_DIRECT = 256
CONTAINER = "Depends on subcommand."
FLAGS = frozenset(
    {
        "write", "readonly", "denyoom", "admin", "pubsub", "noscript", "blocking", "loading", "stale", "fast",
        "no_auth", "no_multi", "allow_busy", "movablekeys", "no_mandatory_keys", "skip_monitor",
        "skip_slowlog",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Keys:
    """Where keys stand: from argument `first` to `last` (negative: counted from the end), every `step`-th.

    `counted` names an argument that says how many keys follow it (ZUNION 2 a b), besides those.
    """

    first: int = 0
    last: int = 0
    step: int = 0
    counted: int = 0

    def __bool__(self) -> bool:
        return bool(self.first or self.counted)

    def spans(self, args: Arguments) -> list[range]:
        """The positions of the keys."""
        spans = []
        if self.first:
            last = self.last if self.last >= 0 else len(args) + self.last
            spans.append(range(self.first, last + 1, self.step))
        if self.counted:
            count = strict_integer(args[self.counted]) or 0
            if 0 < count < len(args) - self.counted:
                spans.append(range(self.counted + 1, self.counted + 1 + count))
        return spans

    def of(self, args: Arguments) -> list[bytes]:
        keys: list[bytes] = []
        for span in self.spans(args):
            keys += args[span.start : span.stop : span.step]
        return keys


NO_KEYS = Keys()
FIRST_KEY = Keys(1, 1, 1)
TWO_KEYS = Keys(1, 2, 1)
ALL_KEYS = Keys(1, -1, 1)
EVERY_OTHER_KEY = Keys(1, -1, 2)
COUNTED_KEYS = Keys(counted=1)


@dataclass(slots=True, eq=False)
class Command:
    """One row of the table, and how often it ran."""

    name: str
    run: Run
    arity: int
    flags: frozenset[str]
    keys: Keys
    since: str
    group: str
    summary: str
    complexity: str = ""
    run_columns: RunColumns | None = None
    subcommands: "dict[str, Command]" = field(default_factory=dict)
    # Derived, for the checks before each run:
    least: int = 0
    most: int = 0
    usual: int = 0
    write: bool = False
    deny_oom: bool = False
    most_directly: int = 0
    # `run`, or a function around it that takes its time (timing.py).
    timed_run: Run = field(init=False)
    # Counted for INFO commandstats:
    calls: int = 0
    failed_calls: int = 0
    rejected_calls: int = 0

    def __post_init__(self) -> None:
        assert self.flags <= FLAGS, self.flags - FLAGS
        self.least = abs(self.arity)
        self.most = self.arity if self.arity > 0 else MOST_ARGUMENTS
        self.usual = self.least
        self.write = "write" in self.flags
        self.deny_oom = "denyoom" in self.flags
        self.most_directly = min(self.most, LONGEST_DIRECT)
        self.timed_run = self.run

    @property
    def full_name(self) -> str:
        """As error texts and CLIENT LIST name it: `client|kill`."""
        return self.name.lower().replace(" ", "|")

    @property
    def is_container(self) -> bool:
        return self.complexity == CONTAINER

    @property
    def is_direct(self) -> bool:
        """Its function may be called without asking anything about the session, and always replies at once."""
        of_data = (self.group in DATA_GROUPS and self.name not in NOT_DIRECT) or self.name in ALSO_DIRECT
        return of_data and not self.is_container and "blocking" not in self.flags

    @property
    def categories(self) -> list[str]:
        """The ACL categories, each with its `@`."""
        from minidist.engines.keyspace.categories import categories_of  # not for a node's start

        return ["@" + name for name in categories_of(self)]


# Commands of these groups work on data alone, so nothing about the session must be asked before they run.
DATA_GROUPS = frozenset(
    {"string", "generic", "bitmap", "hash", "list", "set", "sorted-set", "stream", "hyperloglog", "geo"}
)
# They wait, which Redis' flags do not say.
NOT_DIRECT = frozenset({"WAIT", "WAITAOF"})
ALSO_DIRECT = frozenset({"PING", "ECHO", "PUBLISH"})


class CommandTable:
    """Commands by name. `by_bytes` and `direct` find them as clients spell them: in capitals or in small letters.

    `direct` holds those whose function may be called without further checks when nothing is special about the session.

    A node does not wait for modules that it may never need: those in `pending` are loaded by `load_next`, one at a
    time, when there is time for it, or as many as it takes until a command is known.
    """

    def __init__(self) -> None:
        self.pending: list[Callable[[], CommandTable]] = []
        self.on_load: Callable[[list[Command]], object] = lambda commands: None
        self.commands: dict[str, Command] = {}
        self.by_bytes: dict[bytes, Command] = {}
        self.direct: dict[bytes, Command] = {}

    def command(
        self,
        name: str,
        *,
        arity: int,
        flags: str = "",
        keys: Keys = NO_KEYS,
        since: str,
        group: str,
        summary: str,
        complexity: str = "O(1)",
        run_columns: RunColumns | None = None,
    ) -> Callable[[Run], Run]:
        """Decorator: add a command. `NAME SUB` adds a subcommand to a container that `container` has added."""

        def add(run: Run) -> Run:
            own_flags = frozenset(flags.split())
            self._add(Command(name, run, arity, own_flags, keys, since, group, summary, complexity, run_columns))
            return run

        return add

    def container(
        self,
        name: str,
        *,
        since: str,
        group: str,
        summary: str,
        flags: str = "",
        arity: int = -2,
        run: Run | None = None,
    ) -> None:
        """Add a command that has subcommands, HELP among them."""

        def run_subcommand(session: "Session", args: Arguments, now_ms: int) -> bytes:
            table = session.service.table
            subcommand = table.subcommand(table.commands[name], args)
            subcommand.calls += 1
            return subcommand.run(session, args, now_ms)

        def show_help(session: "Session", args: Arguments, now_ms: int) -> bytes:
            lines = [f"{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
            for subcommand in session.service.table.commands[name].subcommands.values():
                lines += [subcommand.name.partition(" ")[2], "    " + subcommand.summary]
            return array([simple(line) for line in lines])

        own_flags = frozenset(flags.split())
        self._add(Command(name, run or run_subcommand, arity, own_flags, NO_KEYS, since, group, summary, CONTAINER))
        self.command(
            f"{name} HELP", arity=2, flags="loading stale", since="5.0.0", group=group, summary="Prints this help."
        )(show_help)

    def _add(self, command: Command) -> None:
        first, _, rest = command.name.partition(" ")
        if rest:
            self.commands[first].subcommands[rest] = command
            return
        assert first not in self.commands, first
        self.commands[first] = command
        for spelling in (first.encode(), first.lower().encode()):
            self.by_bytes[spelling] = command
            if command.is_direct:
                self.direct[spelling] = command

    def include(self, other: "CommandTable") -> None:
        """Take over the commands of another table."""
        for command in other.commands.values():
            self._add(command)

    def find(self, name: bytes) -> Command | None:
        """By any spelling."""
        while (found := self.by_bytes.get(name) or self.by_bytes.get(name.upper())) is None and self.pending:
            self.load_next()
        return found

    def called(self, args: Arguments) -> Command:
        """The command that these arguments call. Raises CommandError for an unknown one or a wrong number of them."""
        command = self.find(args[0])
        if command is None:
            raise unknown_command(args)
        if not command.least <= len(args) <= command.most:
            command.rejected_calls += 1
            raise wrong_arity(command.name.lower())
        return command

    def load_next(self) -> None:
        """Add the commands of the first module that waits, and tell `on_load` of them."""
        loaded = self.pending.pop(0)().fresh()
        self.include(loaded)
        self.on_load(list(loaded.commands.values()))

    def complete(self) -> "CommandTable":
        """This table, with everything that was pending."""
        while self.pending:
            self.load_next()
        return self

    def subcommand(self, container: Command, args: Arguments) -> Command:
        """The subcommand that args[1] names. Raises CommandError for an unknown one or a wrong number of arguments."""
        given = args[1].decode("latin-1").upper()
        subcommand = container.subcommands.get(given)
        if subcommand is None:
            raise unknown_subcommand(container.name, args[1])
        if not subcommand.least <= len(args) <= subcommand.most:
            raise wrong_arity(f"{container.name}|{given}".lower())
        return subcommand

    def fresh(self) -> "CommandTable":
        """A copy with counters of its own: each node counts for itself."""
        copy = CommandTable()
        for command in self.commands.values():
            subcommands = {name: replace(each) for name, each in command.subcommands.items()}
            copy._add(replace(command, subcommands=subcommands))
        copy.pending = self.pending.copy()
        return copy

    def reset_statistics(self) -> None:
        for command in self.commands.values():
            for each in (command, *command.subcommands.values()):
                each.calls = each.failed_calls = each.rejected_calls = 0
