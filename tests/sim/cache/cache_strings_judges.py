"""What must hold of the deeds of cache_strings.py. Every judge tells a life's wrongs through `sim.fail`."""

import itertools
from collections.abc import Iterable, Iterator

from cache_clients import Deed, Stage

REGISTERS = ("r0", "r1", "r2")
COUNTER = "c0"
LOCK, FENCE = "lock", "fence"
ACCOUNTS = ("a0", "a1", "a2", "a3")
OPENING = 100


def judge(stage: Stage) -> None:
    for problem in (
        *increments(stage.done("increment")),
        *lifetimes(stage),
        *locks(stage),
        *fences(stage.done("fence"), stage.done("lock")),
        *sums(stage.done("add up"), stage.done("open")),
        *watches(stage),
    ):
        stage.sim.fail(problem)
    stage.sim.check("cas-register", only=lambda operation: str(operation.key).startswith(REGISTERS))
    stage.sim.check("counter", only=lambda operation: str(operation.key).startswith(COUNTER))


def by_life(deeds: Iterable[Deed]) -> Iterator[list[Deed]]:
    """The deeds of each life, in the order of their beginnings."""
    lives: dict[int, list[Deed]] = {}
    for deed in sorted(deeds, key=lambda each: each.began.at):
        lives.setdefault(deed.life, []).append(deed)
    yield from lives.values()


# --- counters ---------------------------------------------------------------------------------------------------------


def increments(deeds: Iterable[Deed]) -> Iterator[str]:
    """A number is given once, and one that was asked for later is higher."""
    for life in by_life(deed for deed in deeds if deed.is_ok):
        given: dict[int, Deed] = {}
        for deed in life:
            if deed.result in given:
                yield f"the same number twice: {given[deed.result]}; {deed}"
            given[deed.result] = deed
        yield from not_growing(life)


def not_growing(life: list[Deed]) -> Iterator[str]:
    ended = sorted(life, key=lambda each: each.ended.at)
    highest: Deed | None = None
    at = 0
    for deed in life:
        while ended[at].before(deed):
            if highest is None or ended[at].result > highest.result:
                highest = ended[at]
            at += 1
        if highest is not None and deed.result <= highest.result:
            yield f"a number that does not grow: {highest}; then {deed}"


# --- lifetimes --------------------------------------------------------------------------------------------------------


def surely_over(stage: Stage, lent: Deed, moment: Deed) -> bool:
    """Whether what was written for a while had expired by the node's clock before another deed began."""
    time = stage.time
    latest_ms = time.highest_ms(lent.began, lent.ended) + lent.value[1]
    return lent.is_ok and lent.before(moment) and time.highest_ms(lent.ended, moment.began) >= latest_ms


def surely_there(stage: Stage, lent: Deed, moment: Deed) -> bool:
    """Whether it had not expired when the other deed ended."""
    time = stage.time
    earliest_ms = time.lowest_ms(lent.began, lent.ended) + lent.value[1]
    return lent.is_ok and lent.before(moment) and time.highest_ms(lent.began, moment.ended) < earliest_ms


def lifetimes(stage: Stage, *, evicts: bool = False) -> Iterator[str]:
    """Each key has one writer, and a write in doubt is its last. A cache that evicts may have dropped any of them."""
    written: dict[tuple[str, int], list[Deed]] = {}
    by_value: dict[int, Deed] = {}
    for lent in stage.done("lend"):
        written.setdefault((lent.key, lent.life), []).append(lent)
        by_value[lent.value[0]] = lent
    for look in stage.done("look up"):
        if not look.is_ok:
            continue
        writes = written.get((look.key, look.life), [])
        last = next((each for each in reversed(writes) if each.is_ok and each.before(look)), None)
        if look.result is None:
            newest = last is not None and (last is writes[-1] or look.before(writes[writes.index(last) + 1]))
            if not evicts and last is not None and newest and surely_there(stage, last, look):
                yield f"lost before its time: {last}; {look}"
            continue
        source = by_value[look.result]
        if (source.key, source.life) != (look.key, look.life):
            yield f"not of this key and life: {source}; {look}"
        elif surely_over(stage, source, look):
            yield f"expired and still read: {source}; {look}"
        elif last is not None and source.before(last):
            yield f"stale read: {source}; {last}; {look}"


def watches(stage: Stage) -> Iterator[str]:
    """The watched keys have one writer each, so nothing but their end can have changed them."""
    for done in stage.done("execute"):
        lent: Deed = done.more
        if done.is_ok and surely_over(stage, lent, done):
            yield f"EXEC went through though the watched key had expired: {lent}; {done}"
        if "Watched variable changed" in done.error and surely_there(stage, lent, done):
            yield f"EXEC was refused though the watched key was as it had been: {lent}; {done}"


# --- the lock ---------------------------------------------------------------------------------------------------------


def locks(stage: Stage) -> Iterator[str]:
    releases = {deed.value[0]: deed for deed in stage.done("unlock") if deed.may_have_happened}

    def may_follow(first: Deed, second: Deed) -> bool:
        """Whether the first holder's time may have been over when the second one got the lock."""
        release = releases.get(first.value[0])
        if release is not None and release.began.at < second.ended.at:
            return True
        earliest_ms = stage.time.lowest_ms(first.began, first.ended) + first.value[1]
        return stage.time.highest_ms(first.began, second.ended) >= earliest_ms

    for life in by_life(deed for deed in stage.done("lock") if deed.is_ok and deed.result):
        for first, second in itertools.pairwise(life):
            if not (may_follow(first, second) or (not first.before(second) and may_follow(second, first))):
                yield f"two holders of one lock: {first}; {second}"


def fences(fences: Iterable[Deed], locks: Iterable[Deed]) -> Iterator[str]:
    """Who got the lock after another one had his number has a higher one."""
    taken = {deed.value[0]: deed for deed in locks}
    for life in by_life(deed for deed in fences if deed.is_ok):
        for first, second in itertools.pairwise(life):
            lock = taken[second.value]
            if lock.life == second.life and first.before(lock) and second.result <= first.result:
                yield f"a fencing number that does not grow: {first}; {second}"


# --- accounts ---------------------------------------------------------------------------------------------------------


def sums(looks: Iterable[Deed], openings: Iterable[Deed]) -> Iterator[str]:
    opened: dict[int, Deed] = {}
    for deed in openings:
        if deed.is_ok:
            first = opened.setdefault(deed.life, deed)
            if first.ended.at > deed.ended.at:
                opened[deed.life] = deed
    for look in looks:
        for balances in look.result or () if look.is_ok else ():
            if all(balance is None for balance in balances):
                if look.life in opened and opened[look.life].before(look):
                    yield f"the accounts are gone: {look}"
            elif None in balances or sum(map(int, balances)) != OPENING * len(ACCOUNTS):
                yield f"half of a transfer is visible: {look}"
