"""One node's RESP service without its sockets: sessions, the command table, the keyspace, and the order of checks.

`Service.run(session, commands, now_ms)` is the hot path. A data command that meets no condition (known, right number of
arguments, nothing special about the session, memory below the limit) goes straight to its function; everything else
takes `run_checked`, which asks the questions in Redis' order (server.c, `processCommand`): known? arity? authenticated?
memory? paused? inside MULTI?

What the shell must do is data. After `run` it writes the replies; if `run` did not run all commands, it keeps the
rest: either much has been written and it should look at back-pressure, or the session waits: paused, asleep or short
of room, until `Signal.RESUME`, or for a key, until its `Release`. `outbox` holds what concerns other connections; the
shell empties it after each run.
"""

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from minidist.engines.keyspace import events
from minidist.engines.keyspace.errors import NO_AUTH, OUT_OF_MEMORY, CommandError, Postponed, discarded
from minidist.engines.keyspace.eviction import Policy
from minidist.engines.keyspace.keyspace import Keyspace
from minidist.engines.keyspace.outputs import Output, Push, Release, Signal
from minidist.engines.keyspace.publishing import Publishing, Sessions
from minidist.engines.keyspace.registry import Command, CommandTable
from minidist.engines.keyspace.scripting import Scripts
from minidist.engines.keyspace.session import Carrier, Session
from minidist.engines.keyspace.settings import NO_SETTINGS, Settings
from minidist.engines.keyspace.slowlog import monitor_line
from minidist.engines.keyspace.timing import Timing
from minidist.engines.keyspace.users import UserFile, Users
from minidist.engines.keyspace.waiting import Block, Place, Waiting
from minidist.wire.resp import Pipeline
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import QUEUED, error

if TYPE_CHECKING:
    from minidist.engines.caching.strategy import Strategy
    from minidist.engines.keyspace.acl_log import AccessLog
    from minidist.engines.keyspace.snapshots import Snapshots
    from minidist.engines.keyspace.tracking import Tracking

# A longer reply ends a run, so that the shell can look at back-pressure before the next one is made.
LARGE_REPLY_BYTES = 16 * 1024
# Clients that are told in one step that they waited in vain: about a millisecond.
STEP_RELEASES = 200
# Inside MULTI these act at once instead of being queued.
NEVER_QUEUED = frozenset({"EXEC", "DISCARD", "MULTI", "WATCH", "QUIT", "RESET"})
# What a subscriber that speaks RESP2 may say: messages would come between other replies.
OF_SUBSCRIBERS = frozenset(
    {"SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE", "PING", "QUIT", "RESET"}
)
# Commands that MONITOR does not show.
HIDDEN = frozenset({"admin", "skip_monitor"})
# Shown before they run, and so before the commands that they run.
RUNS_OTHERS = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"})


class Service:
    """What all sessions of a node share. `table` is copied, so that each node counts for itself."""

    redis_version = "7.2.4"  # what clients are told

    def __init__(self, table: CommandTable, databases: int, rng: random.Random) -> None:
        self.table = table.fresh()
        # What may run without checks; empty while every use of a key has to be counted.
        self.direct = self.direct_commands = self.table.direct
        self.keyspace = Keyspace(databases, rng)
        self.users = Users()
        self.settings: Settings = NO_SETTINGS
        self.sessions: dict[int, Session] = {}
        self.waiting = Waiting()
        self.scripts = Scripts(self)
        self.ready = self.waiting.ready
        self.outbox: list[Output] = []
        self.publishing = Publishing(self._deliver)
        self.keyspace.on_event = self.publishing.tell
        self.monitors: Sessions = {}
        self.strategy: Strategy | None = None
        self.tracking: Tracking | None = None  # while anybody tracks keys
        self.most_tracked_keys = 1_000_000  # 0 for no limit
        # How admitted commands are run: `run_admitted`, or with what tracking puts around it.
        self.execute: Callable[[Session, Command, Arguments, int], bytes] = self.run_admitted
        self.timing = Timing(self.table)
        self.keyspace.on_alarm = self._alarmed
        self.paused_until_ms = 0
        self.pause_all = False
        self.short_of_room = False  # some client waits until enough has been evicted
        self.connections_made = 0
        self.access_log: AccessLog | None = None  # once anybody was refused anything
        self.denied = dict.fromkeys(("auth", "command", "key", "channel"), 0)
        self.user_file: UserFile | None = None
        self.random_bytes: Callable[[int], bytes] = rng.randbytes  # for passwords; the shell's cannot be guessed
        self.messages_cut_off = 0  # connections that took no messages and were closed; the shell counts them
        self.errors: dict[str, int] = {}
        self.started_ms = 0
        self.snapshots: Snapshots | None = None  # where there is a file for them
        self.saved_ms = 0  # when one was written last
        self.save_at_stop = True
        self.end_process: Callable[[], object] | None = None  # for SHUTDOWN, where the process is the node's own
        self._last_id = 0
        self._now_ms = 0

    # --- sessions ---------------------------------------------------------------------------------------------------

    def open(self, carrier: Carrier, now_ms: int) -> Session:
        """A client has connected."""
        self.connections_made += 1
        self._last_id += 1
        session = Session(self, self._last_id, carrier, now_ms)
        self.sessions[session.id] = session
        return session

    def close(self, session: Session) -> None:
        """A client is gone."""
        session.end()
        session.unwatch()
        self.waiting.remove(session)
        self.silence(session)
        self.sessions.pop(session.id, None)

    # --- running commands -------------------------------------------------------------------------------------------

    def run_directly(self, session: Session, args: Arguments, now_ms: int) -> bytes | None:
        """The reply of a command that nothing special stands around; None, without any effect: give it to `run`.

        The same as `run` with one command, which is what most reads bring, at two thirds of its cost.
        """
        command = self.direct.get(args[0])
        keyspace = self.keyspace
        if (
            command is None
            or session.gated
            or (len(args) != command.usual and not command.least <= len(args) <= command.most_directly)
            or keyspace.used_bytes > keyspace.limit_bytes
            or self.paused_until_ms
        ):
            return None
        if now_ms == self._now_ms:
            now_ms = self._now_ms  # entries keep this integer: share one per millisecond
        else:
            self._now_ms = now_ms
        session.last_ms = now_ms
        session.last_command = command
        command.calls += 1
        try:
            reply = command.run(session, args, now_ms)
        except CommandError as problem:
            return self._failed(session, args, problem)
        if self.ready:
            self.serve(now_ms)
        return reply

    def run(self, session: Session, commands: Sequence[Arguments], now_ms: int) -> tuple[int, bytes]:
        """Run commands in order: how many were run (if not all, see above), and their replies."""
        if now_ms == self._now_ms:
            now_ms = self._now_ms
        else:
            self._now_ms = now_ms
        if self.paused_until_ms:
            session.gated = True
        keyspace, command_of = self.keyspace, self.direct.get
        done, replies = 0, b""
        if commands.__class__ is Pipeline and not session.gated:
            done, replies = self._run_columns(session, commands, now_ms)
            if done == len(commands):
                return done, replies
        pieces = [replies]
        command = None
        for args in commands[done:] if done else commands:
            command = command_of(args[0])
            try:
                if (
                    command is None
                    or session.gated
                    or (len(args) != command.usual and not command.least <= len(args) <= command.most_directly)
                    or keyspace.used_bytes > keyspace.limit_bytes
                ):
                    reply = self.run_checked(session, args, now_ms)
                else:
                    command.calls += 1
                    reply = command.run(session, args, now_ms)
            except CommandError as problem:
                reply = self._failed(session, args, problem)
            except Postponed:
                break
            pieces.append(reply)
            if self.ready:
                self.serve(now_ms)
            if len(reply) > LARGE_REPLY_BYTES:
                break
        session.last_ms = now_ms
        if command is not None:
            session.last_command = command
        return done + len(pieces) - 1, b"".join(pieces)

    def _run_columns(self, session: Session, pipeline: Pipeline, now_ms: int) -> tuple[int, bytes]:
        """Run the first commands of a pipeline in one go, if their command has a way for that: how many, replies."""
        columns = pipeline.columns
        command = self.direct.get(columns[0][0])
        if command is None or command.run_columns is None or len(columns) != command.usual:
            return 0, b""
        done, replies = command.run_columns(session, columns, now_ms)
        command.calls += done
        session.last_ms = now_ms
        session.last_command = command
        return done, replies

    def _failed(self, session: Session, args: Arguments, problem: CommandError) -> bytes:
        command = self.table.find(args[0])
        if command is not None:
            command.failed_calls += 1
        return self._answer(session, args[0], self.error_reply(problem))

    def error_reply(self, problem: CommandError) -> bytes:
        """The encoded reply of an error, counted by its code."""
        text = str(problem)
        code = text.partition(" ")[0]
        self.errors[code] = self.errors.get(code, 0) + 1
        return error(text)

    def run_checked(self, session: Session, args: Arguments, now_ms: int) -> bytes:
        """Run or queue one command with every check. Raises CommandError, Postponed."""
        if session.ended:
            return b""
        if session.wait is not None:
            raise Postponed
        try:
            command = self._admitted(session, args, now_ms)
        except CommandError as problem:
            if session.transaction is not None:
                session.transaction.refused = True
            if args[0].upper() != b"EXEC":
                raise
            session.leave_transaction()
            raise discarded(problem) from None
        session.last_command = self._innermost(command, args)
        if session.transaction is not None and command.name not in NEVER_QUEUED:
            session.transaction.commands.append((command, args))
            return self._answer(session, args[0], QUEUED)
        reply = self.call(session, command, args, now_ms)
        if session.gated and not session.ended:
            session.regate()
        return self._answer(session, args[0], reply) if session.wait is None else b""

    def _admitted(self, session: Session, args: Arguments, now_ms: int) -> Command:
        """The command that these arguments call, if this session may call it now. Raises CommandError, Postponed."""
        command = self.table.called(args)
        innermost = self._innermost(command, args)
        if not session.authenticated and "no_auth" not in command.flags:
            command.rejected_calls += 1
            raise CommandError(NO_AUTH)
        if session.transaction is not None and "no_multi" in command.flags:
            raise CommandError("ERR Command not allowed inside a transaction")
        if session.user.restricted:
            self.authorise(session, command, args, now_ms)
        self._make_room(session, innermost, now_ms)
        if session.subscriptions and not session.resp3 and command.name not in OF_SUBSCRIBERS:
            raise CommandError(
                f"ERR Can't execute '{innermost.full_name}': only (P|S)SUBSCRIBE / "
                "(P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
            )
        self._let_pass(session, command, now_ms)
        return command

    def authorise(self, session: Session, command: Command, args: Arguments, now_ms: int, context: str = "") -> None:
        """Raises CommandError for what a restricted user may not do (acl.py)."""
        from minidist.engines.keyspace.acl import authorise  # only for those who have such users

        authorise(session, self._innermost(command, args), args, now_ms, context)

    def _innermost(self, command: Command, args: Arguments) -> Command:
        """The subcommand, where there is one."""
        return self.table.subcommand(command, args) if command.is_container and len(args) > 1 else command

    def _make_room(self, session: Session, command: Command, now_ms: int) -> None:
        """Keep the memory limit. Raises CommandError when nothing may go, Postponed when not enough has gone yet."""
        # While somebody waits, `maintain` is at work: a step for each command besides would hold up the loop.
        possible = self.short_of_room or self.keyspace.make_room(now_ms)
        if possible and not self.keyspace.overfull:
            return
        if not any(each.deny_oom for each in self._meant(session, command)):
            return
        if possible:
            self.short_of_room = True
            raise Postponed
        command.rejected_calls += 1
        raise CommandError(OUT_OF_MEMORY)

    @staticmethod
    def _meant(session: Session, command: Command) -> list[Command]:
        """The command, or those that EXEC will run."""
        if command.name == "EXEC" and session.transaction is not None:
            return [each for each, _ in session.transaction.commands]
        return [command]

    def _let_pass(self, session: Session, command: Command, now_ms: int) -> None:
        """CLIENT PAUSE: hold back this command while it lasts. Raises Postponed."""
        if not self.paused_until_ms:
            return
        if now_ms >= self.paused_until_ms:
            self.unpause()
            return
        queued = session.transaction is not None and command.name != "EXEC"
        writes = any(each.write for each in self._meant(session, command))
        if self.pause_all or (writes and not queued):
            raise Postponed

    def call(self, session: Session, command: Command, args: Arguments, now_ms: int) -> bytes:
        """Run one admitted command; no reply yet if it has to wait for a key. Raises CommandError, Postponed."""
        command.calls += 1
        if self.monitors and command.name in RUNS_OTHERS:
            self._show(session, args, now_ms)
        try:
            return self.execute(session, command, args, now_ms)
        except Block as block:
            if session.executing:
                return block.nothing
            self.waiting.add(session, command, block.again or args, block, now_ms)
            session.regate()
            if block.timeout_ms:
                self.keyspace.set_alarm(now_ms + block.timeout_ms)
            return b""
        finally:
            if self.monitors and not self._innermost(command, args).flags & HIDDEN:
                self._show(session, args, now_ms)

    def run_admitted(self, session: Session, command: Command, args: Arguments, now_ms: int) -> bytes:
        """Run one command as the cache strategy has it, if there is one. Raises as `call`."""
        if self.strategy is not None:
            return self.strategy.call(session, command, args, now_ms)
        return self.carry_out(session, command, args, now_ms)

    def carry_out(self, session: Session, command: Command, args: Arguments, now_ms: int) -> bytes:
        """Run one command with nothing around it but the counts of uses. Raises as `call`."""
        if self.keyspace.evictor.counts_uses and not session.no_touch:
            self.keyspace.evictor.count_uses(session.database, command.keys.of(args), now_ms)
        if not session.no_touch or command.name == "TOUCH":
            return command.timed_run(session, args, now_ms)
        touched = [
            (entry, entry.touched_ms)
            for key in command.keys.of(args)
            if (entry := session.database.peek(key, now_ms)) is not None
        ]
        reply = command.timed_run(session, args, now_ms)
        for entry, touched_ms in touched:
            entry.touched_ms = touched_ms
        return reply

    def _answer(self, session: Session, name: bytes, reply: bytes) -> bytes:
        """What a client gets for a command: the reply, unless CLIENT REPLY swallows it, and what tracking adds."""
        if session.skip_replies:
            session.skip_replies -= 1
            session.regate()
            reply = b""
        elif session.replies_off:
            reply = b""
        return reply if self.tracking is None else reply + self.tracking.answered(session, name)

    # --- messages ---------------------------------------------------------------------------------------------------

    def _deliver(self, sessions: Sequence[Session], message: bytes) -> None:
        self.outbox.append(Push(sessions, message))

    def notify(self, kinds: int) -> None:
        """`notify-keyspace-events`: which events are published from now on, and where (events.py)."""
        self.publishing.events = kinds
        self.keyspace.notified = kinds if kinds & (events.KEYSPACE | events.KEYEVENT) else 0

    def monitor(self, session: Session) -> None:
        """Show this session every command from now on. While anybody looks, no command is run directly."""
        self.monitors[session] = None
        for each in self.sessions.values():
            each.gated = True  # until its first command after nobody looks any more

    def silence(self, session: Session) -> None:
        """A session wants no messages any more."""
        self.publishing.leave(session)
        self.monitors.pop(session, None)
        if self.tracking is not None:
            self.tracking.leave(session)

    def _show(self, session: Session, args: Arguments, now_ms: int) -> None:
        """Show a command to those who called MONITOR."""
        peer = session.carrier.peer if self.sessions.get(session.id) is session else "lua"  # the session of a script
        self._deliver(list(self.monitors), monitor_line(now_ms, session.database.number, peer, args))

    # --- waiting for keys -------------------------------------------------------------------------------------------

    def serve(self, now_ms: int) -> None:
        """Try again what waits for the keys that were changed, first come, first served."""
        while self.ready:
            for place in self.waiting.take_ready():
                while place.sessions and self._try_again(next(iter(place.sessions)), place, now_ms):
                    pass
                # The first one cannot use what is there (and keeps its place): others may.
                for session in list(place.sessions)[1:]:
                    self._try_again(session, place, now_ms)

    def _try_again(self, session: Session, place: Place, now_ms: int) -> bool:
        """Whether this client's command was run."""
        wait = session.wait
        if wait is None or not wait.block.wakes_for(place.database.peek(place.key, now_ms)):
            return False
        try:
            if session.user.restricted:  # its rights may have shrunk
                self.authorise(session, wait.command, wait.args, now_ms)
            reply = self.execute(session, wait.command, wait.args, now_ms)
        except Block as block:
            if block.ran:
                self.waiting.remove(session)
                self.waiting.add(session, wait.command, wait.args, block, now_ms)
            return block.ran
        except CommandError as problem:
            wait.command.failed_calls += 1
            reply = self.error_reply(problem)
        self.release(session, reply)
        return True

    def release(self, session: Session, reply: bytes) -> None:
        """A client waits no longer, and gets this reply."""
        name = b"" if session.wait is None else session.wait.args[0]
        self.waiting.remove(session)
        session.regate()
        self.outbox.append(Release(session, self._answer(session, name, reply)))

    # --- what closes the direct way ---------------------------------------------------------------------------------

    def evict_by(self, policy: Policy) -> None:
        """Choose what goes when memory is full; at any time."""
        self.keyspace.evictor.use(policy)
        self.direct = {} if policy.counts_uses else self.direct_commands

    def use_strategy(self, strategy: "Strategy") -> None:
        """Give every command to a cache strategy; before the first session is opened."""
        self.strategy = strategy
        self.direct_commands = strategy.direct_commands()
        self.direct = {} if self.keyspace.evictor.counts_uses else self.direct_commands

    # --- pausing ----------------------------------------------------------------------------------------------------

    def pause(self, until_ms: int, *, everything: bool) -> None:
        """Hold back commands (only writes unless `everything`) until a service time; never shortens a pause."""
        self.pause_all = everything or (self.pause_all and bool(self.paused_until_ms))
        self.paused_until_ms = max(until_ms, self.paused_until_ms)
        self.keyspace.set_alarm(self.paused_until_ms)

    def unpause(self) -> None:
        if self.paused_until_ms:
            self.paused_until_ms = 0
            self.pause_all = False
            self.outbox.append(Signal.RESUME)

    # --- time -------------------------------------------------------------------------------------------------------

    def wake(self, now_ms: int) -> None:
        """Do one bounded step of what is due at `keyspace.alarm_ms`, which then says when to call again."""
        if self.paused_until_ms and now_ms >= self.paused_until_ms:
            self.unpause()
        self.keyspace.maintain(now_ms)
        if self.short_of_room and not self.keyspace.is_making_room:
            self.short_of_room = False
            self.outbox.append(Signal.RESUME)
        if self.tracking is not None:
            self.tracking.trim()
        self.serve(now_ms)  # keys may have expired that somebody wants to know of
        self._give_up(now_ms)
        if self.paused_until_ms:
            self.keyspace.set_alarm(self.paused_until_ms)
        if (alarm_ms := self.waiting.alarm_ms) is not None:
            self.keyspace.set_alarm(alarm_ms)

    def _give_up(self, now_ms: int) -> None:
        """Answer clients whose time has run out, so many of them in one step."""
        for _ in range(STEP_RELEASES):
            session = self.waiting.overdue(now_ms)
            if session is None or session.wait is None:
                return
            self.release(session, session.wait.block.nothing)

    def _alarmed(self) -> None:
        self.outbox.append(Signal.ALARM)

    # --- figures ----------------------------------------------------------------------------------------------------

    def information(self, now_ms: int) -> dict[str, dict[str, object]]:
        """INFO's sections, in order: name (`Server`, `Memory`, …) → field → value. Components fill it."""
        return {}

    @property
    def commands_run(self) -> int:
        """How many commands were run since the start, or since the statistics were reset."""
        return sum(row.calls for row in self.table.commands.values())

    def reset_statistics(self) -> None:
        self.connections_made = 0
        self.errors.clear()
        self.denied = dict.fromkeys(self.denied, 0)
        self.messages_cut_off = 0
        self.table.reset_statistics()
        self.keyspace.reset_statistics()
