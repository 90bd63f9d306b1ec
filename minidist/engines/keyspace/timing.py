"""How long commands take, for the slow log and for LATENCY, at no cost where nothing can be slow.

The engine has no clock: the shell gives it a stopwatch. A command is timed by a function put around its own
(`timed_run`), so that the paths on which commands run ask nothing. When a setting changes it is chosen what is timed:

    nothing is wanted                  nothing
    thresholds from a millisecond on   all but commands that do constant work for each argument, called directly, with
                                       at most LONGEST_DIRECT arguments: only a stall of the whole process would make
                                       them slow, and the node's histogram shows those
    lower ones                         everything, and pipelines do not run by column

`Service.call`, which runs what is not run directly, always takes the timed function. Time that a command spends waiting
for a key is not counted.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from minidist.engines.keyspace.latency import Latency
from minidist.engines.keyspace.registry import Command, CommandTable, Run, RunColumns
from minidist.engines.keyspace.slowlog import SlowLog
from minidist.engines.keyspace.waiting import Block
from minidist.wire.resp_plain import Command as Arguments

if TYPE_CHECKING:
    from minidist.engines.keyspace.session import Session

COARSE_US = 1000
# Constant time, though their flags in Redis do not say so; those that are `fast` are known by their flag.
ALSO_QUICK = frozenset({"SET", "SETEX", "PSETEX"})


class Timing:
    """The stopwatch around the commands of one table. Without a stopwatch nothing is timed."""

    def __init__(self, table: CommandTable) -> None:
        self.slow_log = SlowLog()
        self.latency = Latency()
        self.slower_than_us = -1  # what the slow log takes; -1 nothing, 0 everything
        self.stopwatch_s: Callable[[], float] | None = None
        self._on = False
        self._fine = False
        self._plain: list[tuple[Command, Run, RunColumns | None]] = []
        self.include(list(table.commands.values()))
        table.on_load = self.include

    def include(self, commands: list[Command]) -> None:
        """These commands are in the table, too."""
        added = [(each, each.run, each.run_columns) for each in commands]
        self._plain += added
        self._apply(added)

    def configure(self, *, slower_than_us: int, slow_entries: int, threshold_ms: int) -> None:
        """Take over the settings; 0 for `threshold_ms` turns LATENCY off."""
        self.slow_log.trim(slow_entries)
        self.latency.threshold_ms = threshold_ms
        self.slower_than_us = slower_than_us if slow_entries else -1
        self._on = self.stopwatch_s is not None and (self.slower_than_us >= 0 or threshold_ms > 0)
        self._fine = 0 <= self.slower_than_us < COARSE_US
        self._apply(self._plain)

    def _apply(self, commands: list[tuple[Command, Run, RunColumns | None]]) -> None:
        on, fine = self._on, self._fine
        for command, run, run_columns in commands:
            command.timed_run = self._around(command, run) if on else run
            direct = on and (fine or not ("fast" in command.flags or command.name in ALSO_QUICK))
            command.run = command.timed_run if direct else run
            command.run_columns = None if direct else run_columns

    def _around(self, command: Command, run: Run) -> Run:
        stopwatch_s = self.stopwatch_s
        assert stopwatch_s is not None

        def timed_run(session: "Session", args: Arguments, now_ms: int) -> bytes:
            began_s = stopwatch_s()
            try:
                reply = run(session, args, now_ms)
            except Block:
                raise
            except Exception:
                self.took(session, command, args, round((stopwatch_s() - began_s) * 1e6), now_ms)
                raise
            self.took(session, command, args, round((stopwatch_s() - began_s) * 1e6), now_ms)
            return reply

        return timed_run

    def took(self, session: "Session", command: Command, args: Arguments, took_us: int, now_ms: int) -> None:
        """A command took so long."""
        if 0 <= self.slower_than_us <= took_us and "skip_slowlog" not in command.flags:
            self.slow_log.add(now_ms, took_us, args, session.carrier.peer, session.name)
        threshold_ms = self.latency.threshold_ms
        if threshold_ms and took_us >= threshold_ms * 1000:
            name = "fast-command" if "fast" in command.flags else "command"
            self.latency.add(name, now_ms, took_us // 1000)

    def reset(self) -> None:
        self.slow_log.entries.clear()
        self.latency.events.clear()
