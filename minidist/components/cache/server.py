"""The cache node: bytes in, state, bytes out.

Command gear: a read gives all its whole commands, `Service.run` answers them from the command table, and the replies of
one wake-up go out in one write. A client that does not read its replies is not read from: while the loop's buffer is
over its high-water mark no further command of this client is run, so at most one long reply waits beyond it. What could
not be run at once (back-pressure, CLIENT PAUSE, very long pipelines) is kept in `left`, with reading paused, so `left`
holds less than one read. Only who waits for a key (BLPOP) is read from all the same, up to HELD_WHILE_WAITING_BYTES:
his leaving must be noticed, or the next element would be given to nobody.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

from minidist import __version__
from minidist.components.cache.config import CacheConfig
from minidist.components.cache.figures import families
from minidist.components.cache.limits import parse_limits
from minidist.components.cache.rounds import Round
from minidist.components.cache.settings import CacheSettings
from minidist.components.cache.state import CacheService, Facts
from minidist.engines.keyspace.outputs import (
    Admitted,
    End,
    Named,
    Output,
    Push,
    Release,
    Signal,
)
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.tables import NEVER
from minidist.engines.keyspace.users import Users
from minidist.runtime.clock import ClockTimer
from minidist.runtime.config import Config, ConfigError
from minidist.runtime.connection import Connection
from minidist.runtime.endpoint import EndpointState, Listener
from minidist.runtime.metrics import Family, Histogram
from minidist.runtime.node import Halves, Message, Node
from minidist.runtime.ports import Ports
from minidist.runtime.randomness import unguessable
from minidist.runtime.stopwatch import now_s
from minidist.wire.resp import Command, CommandReader, Limits, ProtocolError, RespInspector, StrangerReader
from minidist.wire.resp_replies import error

if TYPE_CHECKING:
    from minidist.components.cache.backing.driver import Backing
    from minidist.components.cache.memcached import MemcachedConnection
    from minidist.components.cache.snapshots import Snapshots
    from minidist.engines.keyspace.memcached import Memcached

# Commands of one client run in one go before others get their turn: half a millisecond, three while keys are evicted.
COMMANDS_PER_TURN = 128
LOAD_AFTER_S = 0.05  # when others that start with us have most likely started, too
HELD_WHILE_WAITING_BYTES = 256 * 1024
NEVER_IDLE = -(10**9)  # sweeps for which somebody who waits for a key may be silent
TOO_MANY_CLIENTS = error("ERR max number of clients reached")


class RespConnection(Connection):
    """One client."""

    __slots__ = ("behind_since_s", "held_bytes", "left", "node", "reader", "session", "violation")

    def __init__(self, listener: "Listener[RespConnection]", node: "Cache") -> None:
        super().__init__(listener)
        self.node = node
        self.session: Session
        self.reader: CommandReader | StrangerReader
        # Batches of commands that could not be run yet, and replies of faults that must keep their place between them.
        self.left: deque[Sequence[Command] | bytes] | None = None
        self.held_bytes = 0  # read while something was left
        self.violation: ProtocolError | None = None  # to be answered when they have been
        self.behind_since_s: float | None = None  # loop time since when too many messages have waited

    def opened(self) -> None:
        node = self.node
        self.session = node.service.open(self, node.clock.now_ms())
        self.reader = CommandReader(node.command_limits) if self.session.authenticated else StrangerReader()

    def refused(self) -> bytes:
        return TOO_MANY_CLIENTS

    def closed(self, error: Exception | None) -> None:
        self.left = None
        self.node.waiting.pop(self, None)
        self.node.service.close(self.session)

    def data_received(self, data: bytes) -> None:
        self.touched = True
        service, session, round_ = self.node.service, self.session, self.node.round
        if not round_:
            round_.begin()
        commands, violation = self.reader.feed(data)
        done = len(commands)
        if self.left is not None or done > COMMANDS_PER_TURN:
            self.held_bytes += len(data)
            self._keep(commands, violation)
            return
        if done == 1 and (reply := service.run_directly(session, commands[0], round_.now_ms)) is not None:
            round_.append((self, reply))
        else:
            done, replies = service.run(session, commands, round_.now_ms)
            round_.append((self, replies))
        if service.outbox:
            self.node.perform()
        if violation is not None or session.gated or done < len(commands):
            self._keep(commands[done:], violation)

    # --- what does not go straight through --------------------------------------------------------------------------

    def _keep(self, commands: Sequence[Command], violation: ProtocolError | None) -> None:
        """Put commands behind those that wait, and go on with them as far as possible."""
        waiting = self.left is not None
        if self.left is None:
            self.left = deque()
        if commands:
            self.left.append(commands)
        self.violation = self.violation or violation
        self.node.perform()
        if not waiting:
            self.go_on()
        elif self.held_bytes > HELD_WHILE_WAITING_BYTES:
            self.transport.pause_reading()

    def go_on(self) -> None:
        """Run what is left until it is done, or until the client has to wait or others have their turn."""
        node, session = self.node, self.session
        while self.left is not None and not self.closing:
            if session.ended:
                self.close()
                return
            if session.wait is not None and (self.left or self.violation is not None):
                self._wait()
                return
            if not self.left and not self._read_more():
                self._caught_up()
                return
            if self.write_paused:
                return  # resume_writing goes on
            turn = self._take_turn(self.left)
            if not turn:
                continue
            done, replies = node.service.run(session, turn, node.clock.now_ms())
            if done < len(turn):
                self.left.appendleft(turn[done:])
            self.write(replies)
            node.perform()
            if done == 0:
                self._wait()
                return
            if self.left and done == len(turn):
                self.transport.pause_reading()
                asyncio.get_running_loop().call_soon(self.go_on)
                return

    def _take_turn(self, left: "deque[Sequence[Command] | bytes]") -> Sequence[Command]:
        """The next commands to run in one go; ready replies that stand before them are written."""
        while left:
            first = left.popleft()
            if isinstance(first, bytes):
                self.write(first)
                continue
            if len(first) > COMMANDS_PER_TURN:
                left.appendleft(first[COMMANDS_PER_TURN:])
            return first[:COMMANDS_PER_TURN]
        return ()

    def _read_more(self) -> bool:
        """A stranger's commands come one at a time; after AUTH the rest of its read is an ordinary one."""
        reader = self.reader
        if not isinstance(reader, StrangerReader) or self.violation is not None:
            return False
        if self.session.authenticated:
            self.reader = CommandReader(self.node.command_limits)
            commands, self.violation = self.reader.feed(reader.rest())
        else:
            commands, self.violation = reader.feed()
        assert self.left is not None
        if commands:
            self.left.append(commands)
        return bool(commands)

    def _caught_up(self) -> None:
        """Nothing is left: answer a violation and close, or read again."""
        self.left = None
        self.held_bytes = 0
        if self.session.wait is not None:
            self._excuse()
        if self.violation is not None:
            self.node.log.debug("protocol error", peer=self.peer, reason=str(self.violation))
            self.write(error(f"ERR Protocol error: {self.violation}"))
            self.close()
        elif not self.write_paused:
            self.transport.resume_reading()

    def _wait(self) -> None:
        """Paused or asleep, or waiting for a key: go on after `RESUME` or `Release`."""
        self.node.waiting[self] = None
        if self.session.wait is None or self.held_bytes > HELD_WHILE_WAITING_BYTES:
            self.transport.pause_reading()
            return
        self._excuse()
        if not self.write_paused:
            self.transport.resume_reading()

    def _excuse(self) -> None:
        """Who waits for a key is not idle; `released` ends that."""
        self.touched = False
        self.idle_rounds = NEVER_IDLE

    def admitted(self) -> None:
        """The client is no stranger any more, perhaps by what another one did: go on with what follows in its read."""
        if self.left is None:
            self.left = deque()
            self.go_on()

    def released(self, reply: bytes) -> None:
        """The client waits for a key no longer."""
        self.touched = True
        self.send(reply)
        if self.endpoint.state is EndpointState.DRAINING:
            self.close()
        elif self.node.waiting.pop(self, False) is None:
            self.go_on()

    def draining(self) -> None:
        if self.session.wait is None or self.node.backing is None:
            self.close()  # else it goes when it has been answered, or the time is over

    def mid_request(self) -> bool:
        return not self.reader.idle

    def answer_instead(self, reply: bytes) -> None:
        if self.left is not None:
            self.left.append(reply)
        elif self.session.wait is None:
            self.send(reply)
        else:
            self.left = deque([reply])
            self.go_on()

    def push(self, message: bytes) -> None:
        """Send what was not asked for; cut the client off if it is too far behind."""
        self.send(message)
        if not self.write_paused or self.closing:
            return
        limit = self.node.output_limits["pubsub" if self.session.subscriptions else "normal"]
        buffered, now_s = self.transport.get_write_buffer_size(), asyncio.get_running_loop().time()
        if buffered <= limit.soft_bytes:
            self.behind_since_s = None
        elif self.behind_since_s is None:
            self.behind_since_s = now_s
        behind_s = 0.0 if self.behind_since_s is None else now_s - self.behind_since_s
        if limit.is_passed(buffered, behind_s) or buffered > self.endpoint.limits.max_buffered_bytes:
            self.node.service.messages_cut_off += 1
            self.endpoint.cut_off(self, buffered)

    def resume_writing(self) -> None:
        self.behind_since_s = None
        if self.left is None:
            super().resume_writing()
        else:
            self.write_paused = False
            self.go_on()


class Cache(Node):
    """A cache that speaks RESP."""

    config_type = CacheConfig
    config: CacheConfig
    names_clients = True  # CLIENT SETNAME

    def __init__(self, config: CacheConfig, ports: Ports, halves: Halves = Halves.BOTH) -> None:
        super().__init__(config, ports, halves)
        self.service = CacheService(config, ports.random)
        self.service.started_ms = self.clock.now_ms()
        self.service.facts = self._facts
        self.service.scripts.stopwatch_s = now_s
        self.service.scripts.log = lambda level, text: self.log.info("script", level=level, text=text)
        self.service.timing.stopwatch_s = now_s
        self.service.random_bytes = unguessable
        self.service.configure(config)
        self.output_limits = parse_limits(config.output_limits)
        self.waiting: dict[RespConnection | MemcachedConnection, None] = {}
        self.performing = False
        self.armed_ms = NEVER
        self._timer: ClockTimer | asyncio.Handle | None = None
        self._loading: asyncio.Handle | None = None
        self.memcached: Memcached | None = None
        self.backing: Backing | None = None
        if config.backing:
            from minidist.components.cache.backing import driver

            self.backing = driver.Backing(self)
        self.snapshots: Snapshots | None = None
        if config.snapshot:
            from minidist.components.cache import snapshots

            self.snapshots = self.service.snapshots = snapshots.Snapshots(self)
        self.service_time = Histogram()
        self.round = Round(self.clock, self.service_time)
        self.command_limits = Limits(bulk_bytes=config.max_bulk)
        self.clock.before_backward(self._expire_all)

    async def open_data(self) -> None:
        self.service.users = self._read_users()
        self.service.end_process = self.end_process
        self.service.settings = CacheSettings(
            lambda: self.config, self.configure, lambda: self.address, self.service.users
        )
        if self.backing is not None:
            await self.backing.open()
        if self.snapshots is not None:
            await self.snapshots.load()
        await self.listen(
            "resp",
            self.config.listen,
            lambda listener: RespConnection(listener, self),
            inspector=RespInspector(),
            outgoing=self.round,
        )
        if self.config.memcached is not None:
            from minidist.components.cache.memcached import open_memcached

            self.memcached = await open_memcached(self, self.config.memcached)
        self._loading = asyncio.get_running_loop().call_later(LOAD_AFTER_S, self._load_commands)

    def _load_commands(self) -> None:
        """Load the modules of commands that nobody has needed yet, one in each round of the loop."""
        if self.service.table.pending:
            self.service.table.load_next()
            self._loading = asyncio.get_running_loop().call_later(0, self._load_commands)

    def _read_users(self) -> Users:
        if not self.config.auth_file:
            return Users()
        from minidist.components.cache.user_file import UserFileOnDisk

        self.service.user_file = UserFileOnDisk(self.config.auth_file, self.service.table)
        try:
            return self.service.user_file.load()
        except (OSError, ValueError) as problem:
            raise ConfigError(
                "--auth-file", self.config.auth_file, f"a readable file of user:password lines ({problem})"
            ) from None

    async def drain(self, timeout_s: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + (self.config.drain_timeout / 1000 if timeout_s is None else timeout_s)
        await super().drain(timeout_s)
        if self.backing is not None:
            await self.backing.drain(max(until_s - loop.time(), 0))

    async def close_all(self) -> None:
        if self.backing is not None:
            await self.backing.close()
        if self.snapshots is not None:
            await self.snapshots.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._loading is not None:
            self._loading.cancel()

    # --- time -------------------------------------------------------------------------------------------------------

    def arm(self) -> None:
        """Wake at the service's alarm. As soon as possible means after whatever else is ready to run."""
        if self._timer is not None:
            self._timer.cancel()
        self.armed_ms = self.service.keyspace.alarm_ms
        if self.armed_ms <= self.clock.now_ms():
            self._timer = asyncio.get_running_loop().call_soon(self._wake)
        else:
            self._timer = self.clock.call_at(self.armed_ms, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.armed_ms = NEVER
        self.service.wake(self.clock.now_ms())
        self.perform()

    def _expire_all(self, now_ms: int) -> None:
        self.service.keyspace.expire_all(now_ms)
        self.perform()

    # --- what the service asks for ----------------------------------------------------------------------------------

    def perform(self) -> None:
        """Do what commands left in the outbox for other connections, or for the node.

        Those may run commands that leave something again: it is done here, one after the other, however long the chain.
        """
        if self.performing:
            return
        self.performing = True
        try:
            while self.service.outbox:
                outputs, self.service.outbox = self.service.outbox, []
                for output in outputs:
                    self._perform(output)
        finally:
            self.performing = False

    def _perform(self, output: Output) -> None:
        if output is Signal.ALARM:
            if self.service.keyspace.alarm_ms < self.armed_ms:
                self.arm()
        elif output is Signal.RESUME:
            waiting, self.waiting = self.waiting, {}
            for connection in waiting:
                connection.go_on()
        elif isinstance(output, Release):
            cast(RespConnection, output.session.carrier).released(output.reply)
        elif isinstance(output, Push):
            for session in output.sessions:
                cast(RespConnection, session.carrier).push(output.message)
        elif output is Signal.ASK_BACKING:
            if self.backing is not None:
                self.backing.work()
        elif output is Signal.BROADCAST:
            if self.service.tracking is not None:
                self.service.tracking.broadcast()
        elif isinstance(output, End):
            connection = cast(RespConnection, output.session.carrier)
            if output.at_once:
                connection.abort("killed by another client")
            else:
                connection.close()
        elif isinstance(output, Admitted):
            cast(RespConnection, output.session.carrier).admitted()
        elif isinstance(output, Named):
            name = output.session.name.decode("latin-1")
            cast(RespConnection, output.session.carrier).named(f"client:{name}" if name else "")

    # --- control ----------------------------------------------------------------------------------------------------

    def configured(self, before: Config) -> None:
        self.service.configure(self.config)
        if self.snapshots is not None:
            self.snapshots.schedule()
        self.output_limits = parse_limits(self.config.output_limits)
        self.command_limits = Limits(bulk_bytes=self.config.max_bulk)
        for session in self.service.sessions.values():
            reader = cast(RespConnection, session.carrier).reader
            if isinstance(reader, CommandReader):
                reader.limits = self.command_limits

    async def reset_data(self) -> None:
        from minidist.engines.keyspace.acl import replace_users  # not for a node's start

        replace_users(self.service, self._read_users())
        self.service.forget_everything()
        if self.memcached is not None:
            self.memcached.forget_everything()
        self.service_time.clear()
        self.perform()

    def _facts(self) -> Facts:
        status = self.status()
        listener = self.listeners["resp"]
        return Facts(
            version=__version__,
            process_id=status["pid"],
            tcp_port=listener.address.port,
            uptime_s=status["uptime_s"],
            refused_connections=listener.counters.refused,
        )

    # --- what others see --------------------------------------------------------------------------------------------

    def status_fields(self) -> Message:
        keyspace = self.service.keyspace
        fields = {"keys": keyspace.count, "used_bytes": keyspace.used_bytes, "clients": len(self.service.sessions)}
        return fields if self.backing is None else fields | {"backing": self.backing.strategy.information()}

    def figures(self) -> Message:
        return {
            "requests_total": self.service.commands_run,
            "p99_ms": round(self.service_time.quantile(0.99) * 1000, 3),
            "hits_total": self.service.keyspace.hits,
            "misses_total": self.service.keyspace.misses,
        }

    def families(self) -> Iterable[Family]:
        return families(self.service, self.service_time)
