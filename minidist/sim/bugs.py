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
