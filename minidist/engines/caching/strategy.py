"""A cache before a backing store: which commands read from it, which write to it, who waits for what.

`Service` gives every command to `Strategy.call` (service.py), which runs it as it is once these questions are answered:

1. Does it name a key whose write is under way (write-through)? Then it waits for the outcome.
2. Does it need the value of a string that is not in the cache? Then it waits until the store has answered: one load for
   each key, whoever asks (loads.py). An answer stays with the command until it runs, so that a command loads no key
   twice, however small the cache; a change of the key takes it away again.
3. Has it changed keys? Then loads of them are revoked, and the strategy passes the new values on: at once, with the
   client waiting (write_through.py), or later (write_behind.py).

A transaction or a script runs in one go and never loads: it sees what is in the cache; what it has changed is passed on
as a whole. Waiting is that of blocking commands (engines/keyspace/waiting.py), so others are served meanwhile, first
come, first served, and a client that leaves takes nothing with it.

A value that the store has refused, or may have refused, is dropped: the next read asks the store what is true.

What the store should do is in `requests`, which `ASK_BACKING` in the service's outbox announces; `loaded` and `stored`
tell how each request ended. `now_ms` is service time, `loop_ms` loop time.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum

from minidist.engines.caching.database import BackedDatabase
from minidist.engines.caching.loads import Lifetimes, Loads
from minidist.engines.caching.requests import Failure, Found, Load, Request, Store
from minidist.engines.caching.write_behind import WriteBehind
from minidist.engines.caching.write_through import WriteThrough
from minidist.engines.keyspace.errors import CommandError, discarded
from minidist.engines.keyspace.outputs import Signal
from minidist.engines.keyspace.registry import Command
from minidist.engines.keyspace.service import Service
from minidist.engines.keyspace.session import Session
from minidist.engines.keyspace.tables import NEVER, Entry
from minidist.engines.keyspace.texts import is_string
from minidist.engines.keyspace.waiting import Block
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import error

# String commands that replace a value without asking what it was.
BLIND = frozenset({"SETEX", "PSETEX", "MSET"})
# Options of SET that ask for it.
ASKING = frozenset({b"NX", b"XX", b"GET", b"KEEPTTL"})
SCRIPTS = frozenset({"EVAL", "EVALSHA", "FCALL"})
FLUSHES = frozenset({"FLUSHALL", "FLUSHDB"})


class Mode(Enum):
    """What is done with writes; reads go through to the store under each."""

    READ_THROUGH = "read-through"
    WRITE_THROUGH = "write-through"
    WRITE_BEHIND = "write-behind"


class Pending(Block):
    """The command has not run: it waits for the store. `answers`: what its loads have brought so far."""

    def __init__(self, keys: list[bytes], nothing: bytes) -> None:
        super().__init__(keys, bytes, 0, nothing, at_any_change=True)
        self.answers: dict[bytes, Found | None] = {}


class Written(Block):
    """The command has run: its reply waits until the store has its writes."""

    ran = True

    def __init__(self, session: Session, reply: bytes, nothing: bytes) -> None:
        super().__init__([], bytes, 0, nothing)
        self.session = session
        self.reply = reply

    def wakes_for(self, entry: Entry | None) -> bool:
        return False


NO_ANSWERS: dict[bytes, Found | None] = {}


class Strategy:
    """The strategy of one cache. It takes the place of database 0, so make it before the first session is opened."""

    def __init__(
        self,
        service: Service,
        name: str,
        mode: Mode,
        lifetimes: Lifetimes,
        *,
        load_limit: int,
        behind: WriteBehind | None,
        rng: random.Random,
    ) -> None:
        assert (behind is not None) == (mode is Mode.WRITE_BEHIND)
        self.service = service
        self.name = name  # of the store, for errors
        self.mode = mode
        self.load_limit = load_limit
        self.loads = Loads(lifetimes, rng)
        self.behind = behind
        self.through: WriteThrough[Written] | None = WriteThrough() if mode is Mode.WRITE_THROUGH else None
        self.requests: list[Request] = []
        self.loop_ms: Callable[[], int] = lambda: 0  # for figures; the shell has the clock
        self.loading = 0  # loads that have not ended, those without a valid lease included
        self.failed_loads = 0
        self.database = BackedDatabase(service.keyspace, 0)
        self.database.on_lost = self.loads.forget_renewal
        self.database.on_clear = self._cleared
        service.keyspace.databases[0] = self.database
        service.use_strategy(self)

    def direct_commands(self) -> dict[bytes, Command]:
        """What may run without checks: GET, which looks whether it may. Hits are what such a cache is for."""
        get, service, database = self.service.table.commands["GET"], self.service, self.database
        through, renewals = self.through, self.loads.renewals

        def run(session: Session, args: Arguments, now_ms: int) -> bytes:
            key = args[1]
            if session.database is database:
                entry = database.table(key).get(key)
                if entry is None or entry.expires_ms <= now_ms or renewals or through:
                    return service.run_checked(session, args, now_ms)
            get.calls += 1
            return get.run(session, args, now_ms)

        direct = replace(get, run=run, run_columns=None)
        return {b"GET": direct, b"get": direct}

    # --- commands ---------------------------------------------------------------------------------------------------

    def call(self, session: Session, command: Command, args: Arguments, now_ms: int) -> bytes:
        """Run a command. Raises CommandError, Postponed, and Block if it has to wait, or its reply has."""
        if command.name == "SWAPDB" and b"0" in args:
            raise CommandError("ERR database 0 has a backing store and cannot be swapped")
        if session.executing:
            return self.service.carry_out(session, command, args, now_ms)
        answers = NO_ANSWERS
        if session.wait is not None and isinstance(session.wait.block, Pending):
            answers = session.wait.block.answers
        try:
            lent = self._admit(session, command, args, answers, now_ms)
        except CommandError as problem:
            if command.name != "EXEC":
                raise
            session.leave_transaction()
            raise discarded(problem) from None
        if not lent and not answers:
            return self._run(session, command, args, now_ms)
        found = dict.fromkeys([*lent, *(key for key, answer in answers.items() if answer is not None)])
        keyspace = self.service.keyspace
        hits = keyspace.hits
        try:
            return self._run(session, command, args, now_ms)
        finally:
            misses = min(keyspace.hits - hits, len(found))  # for the client they were
            keyspace.hits -= misses
            keyspace.misses += misses
            if keyspace.used_bytes > keyspace.limit_bytes:
                for key in lent:
                    self.database.drop(key)

    def _admit(
        self, session: Session, command: Command, args: Arguments, answers: dict[bytes, Found | None], now_ms: int
    ) -> list[bytes]:
        """As `_make_ready`. Raises CommandError, too, for a command that must not run now."""
        if self.behind is not None and self.behind.is_full and self._writes(session, command):
            raise CommandError(
                f"ERR write-behind queue is full: {self.behind.queued_bytes} bytes wait for backing {self.name}"
            )
        if session.database is not self.database:
            return []
        return self._make_ready(session, command, args, answers, now_ms)

    def _writes(self, session: Session, command: Command) -> bool:
        if command.name == "EXEC" and session.transaction is not None:
            return any(each.write for each, _ in session.transaction.commands)
        if command.name in SCRIPTS:
            return True
        return command.write and session.database is self.database and command.name not in FLUSHES

    def _make_ready(
        self, session: Session, command: Command, args: Arguments, answers: dict[bytes, Found | None], now_ms: int
    ) -> list[bytes]:
        """Have in the cache what the command reads; the keys that were put there for it alone. Raises Pending."""
        keys = self._named_keys(session, command, args)
        if not keys:
            return []
        if self.through is not None:
            if self.through and any(map(self.through.holds, keys)):
                raise self._pending(keys)
            if self.through.any_uncertain and self._writes(session, command):
                self._refuse_uncertain(keys)
        missing = self._missing(read_keys(command, args, keys), now_ms)
        if not missing:
            return []
        queued = {} if self.behind is None else {key: self.behind.newest(key) for key in missing}
        lacking = [
            key
            for key in missing
            if queued.get(key) is None and key not in answers and not self.loads.is_absent(key, now_ms)
        ]
        if lacking:
            self._load(lacking)
            raise self._pending(keys)
        return [key for key in missing if self._lend(key, queued.get(key), answers.get(key), now_ms)]

    def _refuse_uncertain(self, keys: list[bytes]) -> None:
        """Raises CommandError for keys that an older write may still change."""
        assert self.through is not None
        if any(map(self.through.is_uncertain, keys)):
            raise CommandError(f"ERR backing {self.name}: an earlier write of this key has not ended")

    def _missing(self, keys: Sequence[bytes], now_ms: int) -> list[bytes]:
        """Those that are not in the cache, each once; others may be due for renewal."""
        missing: dict[bytes, None] = {}
        for key in keys:
            if self.database.peek(key, now_ms) is None:
                missing[key] = None
            elif (load := self.loads.renew(key, now_ms)) is not None:
                self._ask(load)
        return list(missing)

    def _lend(self, key: bytes, queued: Store | None, answer: Found | None, now_ms: int) -> bool:
        """Put a key back that was there or is on its way to the store; whether there is a value."""
        if queued is not None:
            if queued.value is None or queued.expires_ms <= now_ms:
                return False
            self.database.keep(key, queued.value, now_ms, queued.expires_ms)
            return True
        if answer is None:
            return False
        # It was loaded for a command that is still waiting for others: good for it, though its time may be over.
        self.database.keep(key, answer.value, now_ms, max(answer.expires_ms, now_ms + 1))
        return True

    @staticmethod
    def _named_keys(session: Session, command: Command, args: Arguments) -> list[bytes]:
        if command.name == "EXEC" and session.transaction is not None:
            return [key for queued, words in session.transaction.commands for key in queued.keys.of(words)]
        return command.keys.of(args)

    def _pending(self, keys: list[bytes]) -> Pending:
        return Pending(keys, error(f"ERR backing {self.name}: nobody waits any more"))

    def _run(self, session: Session, command: Command, args: Arguments, now_ms: int) -> bytes:
        changes: dict[bytes, None] = {}
        self.database.changes = changes
        try:
            reply = self.service.carry_out(session, command, args, now_ms)
        except CommandError as problem:  # a script may have written before it failed
            if not changes:
                raise
            reply = self.service.error_reply(problem)
        finally:
            self.database.changes = None
        if changes:
            self._pass_on(session, list(changes), reply, now_ms)
        return reply

    # --- writes -----------------------------------------------------------------------------------------------------

    def _pass_on(self, session: Session, keys: list[bytes], reply: bytes, now_ms: int) -> None:
        """Keys were changed for a client. Raises Written if it has to wait."""
        for key in keys:
            self._revoke(key)
        if self.mode is Mode.READ_THROUGH:
            return
        stores = [store for key in keys if (store := self._present(key, now_ms)) is not None]
        if self.behind is not None:
            for store in stores:
                self.behind.add(store)
            self._announce()
        elif self.through is not None and stores:
            unknown = error(f"UNKNOWN outcome: backing {self.name}: nobody waits for it any more")
            written = Written(session, reply, unknown)
            for store in self.through.write(stores, written):
                self._ask(store)
            raise written

    def _present(self, key: bytes, now_ms: int) -> Store | None:
        """What the store should have under a key; None for types that are the cache's alone."""
        entry = self.database.peek(key, now_ms)
        if entry is None:
            return Store(key, None)
        return Store(key, bytes(entry.value), entry.expires_ms) if is_string(entry) else None

    def stored(self, store: Store, failure: Failure | None, loop_ms: int, now_ms: int) -> None:
        """A write has ended."""
        if self.behind is not None:
            self.behind.done(store, failure, loop_ms)
            self._announce()
            return
        assert self.through is not None
        ticket, following = self.through.done(store, failure)
        if failure is not None:
            self.database.drop(store.key)
            self._revoke(store.key)
        if following is not None:
            self._ask(following)
        elif (place := self.service.waiting.at(self.database, store.key)) is not None:
            place.changed = True
        if ticket is not None:
            self._answer(ticket.waiter, ticket.failure)
        self.service.serve(now_ms)

    def ended(self, store: Store, now_ms: int) -> None:
        """A write that failed and lingered is over: what was loaded meanwhile may be older."""
        if self.through is None:
            return
        following = self.through.ended(store)
        if following is not None:
            self._ask(following)
        self.database.drop(store.key)
        self._revoke(store.key)
        self.service.serve(now_ms)

    def _answer(self, written: Written, failure: Failure | None) -> None:
        session = written.session
        if session.wait is None or session.wait.block is not written:
            return  # gone, or unblocked by somebody else
        reply = written.reply
        if failure is not None:
            code = "UNKNOWN outcome:" if failure.happened else "ERR"
            reply = self.service.error_reply(CommandError(f"{code} backing {self.name}: {failure.reason}"))
        self.service.release(session, reply)

    # --- loads ------------------------------------------------------------------------------------------------------

    def _load(self, keys: list[bytes]) -> None:
        """Raises CommandError when too many wait already."""
        new = [key for key in keys if not self.loads.is_under_way(key)]
        if new and self.loading + len(new) > self.load_limit:
            raise CommandError(f"ERR backing {self.name}: {self.loading} loads are waiting already")
        for key in new:
            load = self.loads.begin(key)
            if load is not None:
                self._ask(load)

    def loaded(self, load: Load, answer: Found | Failure | None, now_ms: int) -> None:
        """A load has ended."""
        self.loading -= 1
        self.failed_loads += isinstance(answer, Failure)
        if not self.loads.redeem(load):
            return
        if isinstance(answer, Failure):
            self._load_failed(load.key, answer, now_ms)
            return
        if answer is not None:
            answer = Found(answer.value, self.loads.expiry_ms(load.key, answer.expires_ms, now_ms))
        if answer is None or answer.expires_ms <= now_ms:
            answer = None
            self.loads.note_absent(load.key, now_ms)
            self.database.drop(load.key)
        elif self.service.keyspace.make_room(now_ms):
            self.database.keep(load.key, answer.value, now_ms, answer.expires_ms)
        elif self.database.peek(load.key, now_ms) is None:
            self.loads.forget_renewal(load.key)  # there is no room for it
        place = self.service.waiting.at(self.database, load.key)
        if place is not None:
            for session in place.sessions:
                if session.wait is not None and isinstance(session.wait.block, Pending):
                    session.wait.block.answers[load.key] = answer
            place.changed = True
            self.service.serve(now_ms)

    def _load_failed(self, key: bytes, failure: Failure, now_ms: int) -> None:
        self.loads.renewal_failed(key, now_ms)
        place = self.service.waiting.at(self.database, key)
        if place is None or self.database.peek(key, now_ms) is not None:
            return
        for session in list(place.sessions):
            if session.wait is not None and isinstance(session.wait.block, Pending):
                problem = CommandError(f"ERR backing {self.name}: {failure.reason}")
                self.service.release(session, self.service.error_reply(problem))

    def _revoke(self, key: bytes) -> None:
        """A key was changed: what was loaded or is being loaded is older. Who waits for it looks again."""
        revoked = self.loads.revoke(key)
        place = self.service.waiting.at(self.database, key)
        if place is None:
            return
        for session in place.sessions:
            if session.wait is not None and isinstance(session.wait.block, Pending):
                session.wait.block.answers.pop(key, None)
        if revoked:
            place.changed = True

    def _cleared(self) -> None:
        """All keys are gone from the cache; what waits to be written is not."""
        for key in self.loads.revoke_all():
            self._revoke(key)
            place = self.service.waiting.at(self.database, key)
            if place is not None:
                place.changed = True

    # --- the shell --------------------------------------------------------------------------------------------------

    def _ask(self, request: Request) -> None:
        self.loading += isinstance(request, Load)
        self.requests.append(request)
        self._announce()

    def _announce(self) -> None:
        self.service.outbox.append(Signal.ASK_BACKING)

    def take(self, loop_ms: int) -> list[Request]:
        """The requests to make now."""
        requests, self.requests = self.requests, []
        if self.behind is not None:
            requests += self.behind.take(loop_ms)
        return requests

    @property
    def alarm_ms(self) -> int:
        """When (loop time) to call `take` again though nothing asks for it; NEVER for never."""
        return NEVER if self.behind is None else self.behind.alarm_ms

    def flush(self) -> None:
        """The node stops: write what waits as soon as the store takes it."""
        if self.behind is not None:
            self.behind.flushing = True
            self._announce()

    @property
    def unwritten(self) -> int:
        """Keys with acknowledged or begun writes that the store does not have."""
        return len(self.behind or ()) + len(self.through or ())

    def forget_everything(self) -> None:
        """As new. Requests under way end as they will."""
        if self.behind is not None:
            self.behind.clear()
        if self.through is not None:
            self.through.clear()
        self.requests = [each for each in self.requests if isinstance(each, Load)]
        self.loads.revoke_all()

    def information(self) -> dict[str, object]:
        """INFO's section."""
        figures: dict[str, object] = {
            "backing": self.name,
            "backing_strategy": self.mode.value,
            "backing_loads": self.loads.started,
            "backing_loads_failed": self.failed_loads,
            "backing_loads_revoked": self.loads.revoked,
            "backing_loading": self.loading,
            "backing_absent_keys": self.loads.absent_keys,
            "backing_absent_hits": self.loads.absent_hits,
            "backing_stale_hits": self.loads.stale_hits,
        }
        if self.through is not None:
            figures |= {
                "backing_writes": self.through.written,
                "backing_writes_failed": self.through.failed,
                "backing_writing": len(self.through),
            }
        if self.behind is not None:
            figures |= {
                "backing_writes": self.behind.written,
                "backing_queue_keys": len(self.behind),
                "backing_queue_bytes": self.behind.queued_bytes,
                "backing_queue_lag_ms": self.behind.lag_now_ms(self.loop_ms()),
                "backing_coalesced": self.behind.coalesced,
                "backing_retries": self.behind.retries,
                "backing_last_failure": self.behind.last_failure,
            }
        return figures


def read_keys(command: Command, args: Arguments, keys: list[bytes]) -> Sequence[bytes]:
    """The keys whose string the command has to know; none for one that just replaces it, or is for other types."""
    if command.group not in ("string", "bitmap") or command.name in BLIND:
        return ()
    if command.name == "SET":
        return keys if any(word.upper() in ASKING for word in args[3:]) else ()
    return args[3:] if command.name == "BITOP" else keys
