"""CLIENT TRACKING: which client may have cached which key, and who is told when a key changes.

A client that tracks remembers what it has read, and wants to hear when that is no longer so. There are two ways:

    by default     the table remembers the names of the keys that a client's reads have named; the first change of such
                   a key is told to those clients, and forgotten with them until they read it again
    BCAST          nothing is remembered: a client hears of every change under its prefixes, once for each read of the
                   shell, as one message for each prefix

The table is global: as in Redis a key's name stands for that key in any database. It holds ids, so a client that goes,
or stops tracking, costs nothing; its entries go when the keys change. It is cut into SHARDS small dicts, as no step may
see a million keys, and bounded: beyond `most_tracked_keys` keys are forgotten (the one that has been longest in a shard
drawn at random), and those who may have cached them are told so.

Changes are told by `Keyspace.on_change`, set only while somebody tracks; sessions that track are gated, so neither
costs anybody else. What a command causes for the client that runs it follows the reply (`answered`), a transaction's
or a script's after the whole; what it causes for others is pushed. In NOLOOP a client does not hear of changes it has
made itself; of keys that expired or were evicted meanwhile it does, as nobody made those (Redis 7.2: with BCAST only).

Sources: https://redis.io/docs/latest/develop/reference/client-side-caching/ and, for order and errors, Redis 7.2.
"""

from binascii import crc32
from typing import TYPE_CHECKING

from minidist.engines.keyspace.errors import CommandError, Postponed, printable
from minidist.engines.keyspace.outputs import Push, Signal
from minidist.engines.keyspace.registry import Command
from minidist.engines.keyspace.waiting import Block
from minidist.wire.resp_plain import Command as Arguments
from minidist.wire.resp_replies import bulk, bulks, integer, push_header

if TYPE_CHECKING:
    from minidist.engines.keyspace.service import Service
    from minidist.engines.keyspace.session import Session

SHARDS = 256
# Keys forgotten in one step when there are too many: about half a millisecond.
STEP_KEYS = 200
INVALIDATE = bulk(b"invalidate")
CHANNEL_MESSAGE = bulk(b"message") + bulk(b"__redis__:invalidate")
BROKEN = bulk(b"tracking-redir-broken")


class Tracker:
    """How one client tracks."""

    __slots__ = ("broadcast", "broken", "caching", "no_loop", "opt_in", "opt_out", "prefixes", "redirect")

    def __init__(self) -> None:
        self.redirect = 0  # the id of the client that is told instead; 0 for itself
        self.broken = False  # that client was gone when there was something to tell
        self.broadcast = False
        self.opt_in = False
        self.opt_out = False
        self.no_loop = False
        self.caching = False  # CLIENT CACHING was called: the next command is an exception from opt_in or opt_out
        self.prefixes: dict[bytes, None] = {}

    @property
    def flags(self) -> list[str]:
        """What CLIENT TRACKINGINFO shows, in Redis' order."""
        shown = {
            "bcast": self.broadcast,
            "optin": self.opt_in,
            "caching-yes": self.opt_in and self.caching,
            "optout": self.opt_out,
            "caching-no": self.opt_out and self.caching,
            "noloop": self.no_loop,
            "broken_redirect": self.broken,
        }
        return ["on", *(name for name, on in shown.items() if on)]

    @property
    def remembers(self) -> bool:
        """What is read now goes into the table."""
        if self.broadcast or (self.opt_in and not self.caching):
            return False
        return not (self.opt_out and self.caching)


class Prefix:
    """What some clients hear all changes of: changed keys, each with the client that did it last, and the clients."""

    __slots__ = ("keys", "sessions")

    def __init__(self) -> None:
        self.keys: dict[bytes, Session | None] = {}
        self.sessions: dict[Session, None] = {}


class Tracking:
    """All tracking of a node; there is one while anybody tracks."""

    def __init__(self, service: "Service") -> None:
        self.service = service
        self.clients = 0
        self.keys = 0
        self.items = 0  # pairs of a key and a client
        self.prefixes: dict[bytes, Prefix] = {}
        self._lengths: list[int] = []  # of the prefixes, each once
        self._gathering = False  # there are changes to be broadcast
        self._shards: list[dict[bytes, dict[int, None]]] = [{} for _ in range(SHARDS)]
        self._current: Session | None = None  # the client that is served
        self._own: list[bytes] = []  # what it is told after its reply

    # --- clients ----------------------------------------------------------------------------------------------------

    def enable(self, session: "Session", prefixes: list[bytes], wanted: Tracker) -> None:
        """A client tracks from now on, or in another way. Prefixes are added to those of before."""
        before = session.tracker
        if before is None:
            self.clients += 1
        else:
            wanted.prefixes, wanted.caching = before.prefixes, before.caching
        session.tracker = wanted
        for text in (prefixes or [b""]) if wanted.broadcast else ():
            wanted.prefixes[text] = None
            self.prefixes.setdefault(text, Prefix()).sessions[session] = None
        self._lengths = sorted(set(map(len, self.prefixes)))
        session.regate()

    def leave(self, session: "Session") -> None:
        """CLIENT TRACKING OFF, or the client is gone. When nobody tracks any more, nothing costs anything again."""
        tracker = session.tracker
        if tracker is None:
            return
        for text in tracker.prefixes:
            prefix = self.prefixes[text]
            del prefix.sessions[session]
            if not prefix.sessions:
                del self.prefixes[text]
        self._lengths = sorted(set(map(len, self.prefixes)))
        session.tracker = None
        session.regate()
        self.clients -= 1
        if not self.clients:
            self._push_own()  # nobody will ask for it
            self.service.tracking = None
            self.service.execute = self.service.run_admitted
            self.service.keyspace.observe(None, lambda: None)

    # --- reading ----------------------------------------------------------------------------------------------------

    def run(self, session: "Session", command: Command, args: Arguments, now_ms: int) -> bytes:
        """`Service.run_admitted`, for a client, its transaction or its script; what it reads is remembered."""
        outermost = self._current is None
        if outermost:
            self._current = session
        try:
            return self.service.run_admitted(session, command, args, now_ms)
        except (Block, Postponed):
            if outermost:
                self._push_own()  # there is no reply to follow
            raise
        finally:
            current = self._current
            if current is not None and current.tracker is not None and current.tracker.remembers:
                self._remember(current, command, args)
            if outermost:
                self._current = None

    def _remember(self, session: "Session", command: Command, args: Arguments) -> None:
        """A client has read the keys that a command names. Scripts count by the commands they run."""
        if command.is_container and len(args) > 1:
            command = command.subcommands.get(printable(args[1]).upper(), command)
        if "readonly" not in command.flags or command.group == "scripting":
            return
        for key in command.keys.of(args):
            shard = self._shards[crc32(key) % SHARDS]
            ids = shard.get(key)
            if ids is None:
                ids = shard[key] = {}
                self.keys += 1
            if session.id not in ids:
                ids[session.id] = None
                self.items += 1
        self.trim()

    def answered(self, session: "Session", name: bytes) -> bytes:
        """A client's command is done: what it is told after the reply."""
        tracker = session.tracker
        if tracker is not None and session.transaction is None and name.upper() != b"CLIENT":
            tracker.caching = False
        if not self._own:
            return b""
        own, self._own = self._own, []
        return b"".join(own)

    def _push_own(self) -> None:
        if self._own and self._current is not None:
            self.service.outbox.append(Push([self._current], b"".join(self._own)))
            self._own = []

    # --- telling ----------------------------------------------------------------------------------------------------

    def changed(self, key: bytes, lost: bool) -> None:
        """A key was changed; `lost` as in Database.remove."""
        by = None if lost else self._current
        for length in self._lengths:
            prefix = self.prefixes.get(key[:length]) if length <= len(key) else None
            if prefix is not None:
                prefix.keys[key] = by
                if not self._gathering:
                    self._gathering = True
                    self.service.outbox.append(Signal.BROADCAST)
        self._forget(key, by)

    def _forget(self, key: bytes, by: "Session | None") -> None:
        """Take a key out of the table, and tell those who may have cached it, but not whoever changed it in NOLOOP."""
        ids = self._shards[crc32(key) % SHARDS].pop(key, None)
        if ids is None:
            return
        self.keys -= 1
        self.items -= len(ids)
        message = bulks([key])
        for number in ids:
            session = self.service.sessions.get(number)
            if session is None or session.tracker is None or session.tracker.broadcast:
                continue
            if not (session.tracker.no_loop and session is by):
                self._tell(session, session.tracker, message)

    def flushed(self) -> None:
        """All keys are others now."""
        for session in list(self.service.sessions.values()):
            if session.tracker is not None:
                self._tell(session, session.tracker, None)
        self._shards = [{} for _ in range(SHARDS)]
        self.keys = self.items = 0

    def broadcast(self) -> None:
        """Tell of the changes under prefixes since the last call."""
        self._gathering = False
        for text in sorted(self.prefixes):
            prefix = self.prefixes[text]
            changes, prefix.keys = sorted(prefix.keys.items(), key=lambda change: change[0]), {}
            everything = bulks([key for key, _ in changes])
            for session in prefix.sessions if changes else ():
                tracker = session.tracker
                assert tracker is not None
                message = everything
                if tracker.no_loop:
                    keys = [key for key, by in changes if by is not session]
                    if not keys:
                        continue
                    message = bulks(keys)
                self._tell(session, tracker, message)

    def _tell(self, session: "Session", tracker: Tracker, keys: bytes | None) -> None:
        """Send a message to a client that tracks, or to that which it has named; `keys` is an array, None for all."""
        target = self.service.sessions.get(tracker.redirect) if tracker.redirect else session
        if target is None:
            tracker.broken = True
            if session.resp3:
                self._send(session, push_header(2, resp3=True) + BROKEN + integer(tracker.redirect))
            return
        what = target.null if keys is None else keys
        if target.resp3:
            self._send(target, push_header(2, resp3=True) + INVALIDATE + what)
        elif tracker.redirect and target.subscriptions:
            self._send(target, push_header(3, resp3=False) + CHANNEL_MESSAGE + what)

    def _send(self, target: "Session", message: bytes) -> None:
        if target is self._current:
            self._own.append(message)
        else:
            self.service.outbox.append(Push([target], message))

    # --- the limit --------------------------------------------------------------------------------------------------

    def trim(self) -> None:
        """Forget what is beyond `most_tracked_keys`, so much in one step; `Service.wake` does the next."""
        rng, most = self.service.keyspace.random, self.service.most_tracked_keys
        for _ in range(STEP_KEYS):
            if not 0 < most < self.keys:
                return
            at = rng.randrange(SHARDS)
            while not self._shards[at % SHARDS]:
                at += 1
            self._forget(next(iter(self._shards[at % SHARDS])), None)
        self.service.keyspace.set_alarm(0)


def track(session: "Session", prefixes: list[bytes], wanted: Tracker) -> None:
    """CLIENT TRACKING ON, with options that were checked."""
    service = session.service
    if service.tracking is None:
        tracking = service.tracking = Tracking(service)
        service.execute = tracking.run
        service.keyspace.observe(tracking.changed, tracking.flushed)
    service.tracking.enable(session, prefixes, wanted)


def check_prefixes(prefixes: list[bytes], existing: dict[bytes, None]) -> None:
    """No key may be under two prefixes of a client. Raises CommandError."""
    for at, prefix in enumerate(prefixes):
        for which, others in (("an existing", sorted(existing)), ("another provided", prefixes[at + 1 :])):
            for other in others:
                if prefix.startswith(other) or other.startswith(prefix):
                    raise CommandError(
                        f"ERR Prefix '{printable(prefix)}' overlaps with {which} prefix '{printable(other)}'. "
                        "Prefixes for a single client must not overlap."
                    )
