"""Planted bugs: known defects that the checkers must find, each a replacement of one function while a run lasts.

No engine and no component knows of them. A bug names what it replaces as `module:Class.function`; the replacement gets
the real function as its first argument. A bug whose module is not part of a scenario cannot be planted in it.

    with planted("cache-lost-write"): …
"""

import contextlib
import functools
import importlib
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bug:
    """A named defect."""

    name: str
    target: str
    replacement: Callable[..., Any]
    summary: str


class UnknownBugError(Exception):
    """No such bug; the text has the names there are."""


def find(name: str) -> Bug:
    """Raises UnknownBugError."""
    for each in BUGS:
        if each.name == name:
            return each
    raise UnknownBugError(f"--bug: given {name!r}, allowed: one of {', '.join(each.name for each in BUGS)}")


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """The bug is there within the block; without a name nothing changes. Raises UnknownBugError."""
    if not name:
        yield
        return
    bug = find(name)
    module_name, _, path = bug.target.partition(":")
    try:
        owner: Any = sys.modules.get(module_name) or importlib.import_module(module_name)
    except ModuleNotFoundError:
        raise UnknownBugError(f"--bug: given {name!r}, allowed: with a scenario that uses {module_name}") from None
    *owners, last = path.split(".")
    for each in owners:
        owner = getattr(owner, each)
    real = getattr(owner, last)

    @functools.wraps(real)
    def wrong(*args: Any, **options: Any) -> Any:
        return bug.replacement(real, *args, **options)

    setattr(owner, last, wrong)
    try:
        yield
    finally:
        setattr(owner, last, real)


# --- the cache and the demo's program ---------------------------------------------------------------------------------


def _cache_lost_write(real: Any, service: Any, session: Any, args: Any, now_ms: int) -> Any:
    """A SET is acknowledged and forgotten."""
    lost = args[0].upper() == b"SET" and random.random() < 0.02
    return b"+OK\r\n" if lost else real(service, session, args, now_ms)


async def _web_mixed_answers(real: Any, shop: Any, number: str) -> Any:
    """Somebody is shown what another one asked for."""
    return await real(shop, str(int(number) + 1) if random.random() < 0.01 else number)


# --- the cache, for the scenarios of tests/sim/cache ------------------------------------------------------------------


def _cache_expired_read(real: Any, database: Any, key: bytes, now_ms: int) -> Any:
    """What has expired is still there for a while, as if only active expiry removed it."""
    return real(database, key, now_ms - 200)


def _cache_reads_an_old_clock(real: Any, round_: Any) -> None:
    """Now and then the commands of a round see the time of half a second ago."""
    real(round_)
    if random.random() < 0.05:
        round_.now_ms -= 500


def _cache_skips_a_message(real: Any, publishing: Any, sessions: Any, words: Any) -> int:
    """Now and then a message does not go out."""
    return real(publishing, [] if random.random() < 0.05 else sessions, words)  # type: ignore[no-any-return]


def _cache_exec_ignores_expiry(real: Any, session: Any, now_ms: int) -> bool:
    """EXEC looks whether a watched key was changed, and not whether it has expired meanwhile."""
    return bool(real(session, 0))


def _cache_exec_ignores_watch(real: Any, session: Any, now_ms: int) -> bool:
    """EXEC forgets to look at what is watched, now and then."""
    return False if random.random() < 0.2 else real(session, now_ms)


def _cache_half_a_transaction(real: Any, session: Any, now_ms: int) -> bool:
    """EXEC runs the first command only, now and then."""
    if random.random() < 0.05:
        del session.transaction.commands[1:]
    return bool(real(session, now_ms))


def _cache_feeds_the_dead(real: Any, service: Any, session: Any) -> None:
    """Who waits for a key goes on waiting when his connection is gone."""
    service.sessions.pop(session.id, None)


def _cache_serves_last_first(real: Any, service: Any, session: Any, place: Any, now_ms: int) -> bool:
    """Of those who wait for a key, the one who came last is served first."""
    return bool(real(service, next(reversed(place.sessions), session), place, now_ms))


def _cache_evicts_what_must_stay(real: Any, evictor: Any, database: Any, start: int) -> Any:
    """Every key is a candidate, whether it has a lifetime or not."""
    return [(key, entry) for _, _, table in database.filled() for key, entry in table.items()]


def _cache_keeps_a_removed_field(real: Any, value: Any, field: bytes) -> bool:
    """HDEL says that it has removed a field, and now and then has not."""
    return value.get(field) is not None if random.random() < 0.1 else bool(real(value, field))


def _cache_passes_its_limit(real: Any, service: Any, session: Any, command: Any, now_ms: int) -> None:
    """Now and then no room is made, and the write goes on all the same."""
    if random.random() >= 0.7:
        real(service, session, command, now_ms)


# --- the replicated register of tests/sim/register --------------------------------------------------------------------


async def _register_stale_read(real: Any, proposer: Any, key: str) -> Any:
    """A read is answered from what this node has, without asking a majority: old, after failing over to it."""
    accepted = proposer.acceptor.accepted.get(key)
    return await real(proposer, key) if accepted is None else accepted[1]["value"]


def _register_lost_write(real: Any, accepted: list[Any]) -> Any:
    """Of what a majority has accepted, the first is taken instead of the newest."""
    return accepted[0][1]


def _register_duplicate_apply(real: Any, state: Any, client: str, sequence: int) -> bool:
    """What a client asks for again, because the answer got lost, is done again."""
    return False


async def _register_ack_before_fsync(real: Any, acceptor: Any, sequence: int) -> None:
    """An acceptor answers before its disk has the promise or the value."""


BUGS: tuple[Bug, ...] = (
    Bug(
        "cache-lost-write",
        "minidist.engines.keyspace.service:Service.run_directly",
        _cache_lost_write,
        "the cache acknowledges a write and forgets it",
    ),
    Bug(
        "cache-expired-read",
        "minidist.engines.keyspace.database:Database.peek",
        _cache_expired_read,
        "a key is there for a moment longer than its lifetime",
    ),
    Bug(
        "cache-reads-an-old-clock",
        "minidist.components.cache.server:Round.begin",
        _cache_reads_an_old_clock,
        "commands see, now and then, what the time was half a second ago",
    ),
    Bug(
        "cache-skips-a-message",
        "minidist.engines.keyspace.publishing:Publishing._send",
        _cache_skips_a_message,
        "a message is not sent to those who have subscribed",
    ),
    Bug(
        "cache-exec-ignores-expiry",
        "minidist.engines.keyspace.session:Session.watched_changed",
        _cache_exec_ignores_expiry,
        "EXEC goes through although a watched key has expired",
    ),
    Bug(
        "cache-exec-ignores-watch",
        "minidist.engines.keyspace.session:Session.watched_changed",
        _cache_exec_ignores_watch,
        "EXEC goes through, now and then, although a watched key was changed",
    ),
    Bug(
        "cache-half-a-transaction",
        "minidist.engines.keyspace.session:Session.watched_changed",
        _cache_half_a_transaction,
        "EXEC runs the first of its commands only, now and then",
    ),
    Bug(
        "cache-feeds-the-dead",
        "minidist.engines.keyspace.service:Service.close",
        _cache_feeds_the_dead,
        "a client that is gone still waits for a key, and takes an element with it",
    ),
    Bug(
        "cache-serves-last-first",
        "minidist.engines.keyspace.service:Service._try_again",
        _cache_serves_last_first,
        "of the clients that wait for a key, the one that came last is served first",
    ),
    Bug(
        "cache-evicts-what-must-stay",
        "minidist.engines.keyspace.eviction:Evictor._candidates",
        _cache_evicts_what_must_stay,
        "under a volatile policy a key without a lifetime is evicted",
    ),
    Bug(
        "cache-passes-its-limit",
        "minidist.engines.keyspace.service:Service._make_room",
        _cache_passes_its_limit,
        "writes go on, now and then, although the memory is full",
    ),
    Bug(
        "cache-keeps-a-removed-field",
        "minidist.engines.keyspace.hashes:Hash.remove",
        _cache_keeps_a_removed_field,
        "a field of a hash is acknowledged as removed, and is still there",
    ),
    Bug(
        "register-stale-read",
        "register_service:Proposer.read",
        _register_stale_read,
        "after a failover, a node of the register answers a read from what it happens to have",
    ),
    Bug(
        "register-lost-write",
        "register_service:newest",
        _register_lost_write,
        "a node of the register builds on an old state, and so undoes a write",
    ),
    Bug(
        "register-duplicate-apply",
        "register_service:is_done",
        _register_duplicate_apply,
        "an addition that a client repeats is made twice",
    ),
    Bug(
        "register-ack-before-fsync",
        "register_service:Acceptor.durable",
        _register_ack_before_fsync,
        "a node of the register answers before its disk is safe, and loses power",
    ),
    Bug(
        "web-mixed-answers",
        "minidist.cluster.demo.web:Shop.product",
        _web_mixed_answers,
        "the demo's program shows another product than was asked for",
    ),
)
