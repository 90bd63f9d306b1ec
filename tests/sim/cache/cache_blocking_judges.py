"""What must hold of the deeds of cache_blocking.py, and of what was left at the end."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from cache_clients import CALM_S, Deed, Stage

QUEUES = ("q0", "q1", "q2")
SORTED, STREAM, GROUP = "z0", "s0", "workers"
DONE = "done"  # where BLMOVE moves elements to
Left = dict[str, Any]

# What may keep bytes, or the node, from coming through.
DISTURBING = ("partition", "delay", "bandwidth", "drop", "hang", "pause", "kill")
LATE_S = 0.1


def judge(stage: Stage, left: Left) -> None:
    for problem in (
        *taken_once(stage),
        *nothing_missing(stage, left),
        *nothing_left_of_groups(stage, left),
        *first_come_first_served(stage),
        *waits(stage),
        *ids_grow(stage),
        *messages(stage),
    ):
        stage.sim.fail(problem)


def elements_of(result: Any) -> list[int]:
    """The numbers in a reply of any command that takes elements."""
    if isinstance(result, dict):
        return [int(result["e"])] if "e" in result else [n for each in result.values() for n in elements_of(each)]
    if isinstance(result, list | tuple):
        if len(result) == 3 and result[0] == SORTED:  # BZPOPMIN: key, element, score
            return [int(result[1])]
        return [n for each in result for n in elements_of(each)]
    return [int(result)] if isinstance(result, str) and result.isdigit() else []


def pushes(stage: Stage) -> dict[int, Deed]:
    return {element: deed for deed in stage.done("push") for element in deed.value}


# --- elements ---------------------------------------------------------------------------------------------------------


def taken_once(stage: Stage) -> Iterator[str]:
    pushed, takers = pushes(stage), dict[int, Deed]()
    for take in stage.done("take"):
        for element in take.more or ():
            source = pushed[element]
            if source.life != take.life or not source.may_have_happened or take.before(source):
                yield f"taken before it was pushed, or in another life: {source}; {take}"
            if element in takers:
                yield f"given to two: {takers[element]}; {take}"
            takers[element] = take


def nothing_missing(stage: Stage, left: Left) -> Iterator[str]:
    """In the last life every element of lists and the sorted set is somewhere, or a taker was cut off for it."""
    takes = [take for take in stage.done("take") if take.life == left["life"]]
    places = Counter(element for take in takes if DONE not in take.value[0] for element in take.more or ())
    for key in (*QUEUES, DONE, SORTED):
        places.update(map(int, left[key]))
    for element, count in places.items():
        if count > 1:
            yield f"element {element} is in {count} places: {pushes(stage)[element]}"
    missing = [
        (element, push)
        for element, push in pushes(stage).items()
        if push.is_ok and push.life == left["life"] and push.key != STREAM and element not in places
    ]
    cut_off = [take for take in takes if take.may_have_happened and not take.is_ok and DONE not in take.value[0]]
    noticed_s = {take: stage.noticed_s(take.ended) for take in cut_off}
    could_have = {
        element: [take for take in cut_off if push.key in take.value[0] and noticed_s[take] >= push.began.s]
        for element, push in missing
    }
    for element, push in unmatched(missing, could_have):
        yield f"element {element} is gone, and nobody was cut off who could have had it: {push}"


def unmatched(missing: list[tuple[int, Deed]], could_have: dict[int, list[Deed]]) -> list[tuple[int, Deed]]:
    """Those that are left when each taker stands for as many elements as he asked for: a maximum matching (Kuhn)."""
    has: dict[tuple[Deed, int], int] = {}

    def place(element: int, tried: set[tuple[Deed, int]]) -> bool:
        for hand in ((take, number) for take in could_have[element] for number in range(take.value[2])):
            if hand not in tried:
                tried.add(hand)
                if hand not in has or place(has[hand], tried):
                    has[hand] = element
                    return True
        return False

    return [(element, push) for element, push in missing if not place(element, set())]


def nothing_left_of_groups(stage: Stage, left: Left) -> Iterator[str]:
    """Entries are never lost; each is pending with one consumer, who got it or was cut off, or with nobody yet."""
    takes = [take for take in stage.done("take") if take.life == left["life"] and take.key == STREAM]
    pending = dict(left["pending"])
    entries = {int(element): entry_id for entry_id, element in left[STREAM].items()}
    for element, push in pushes(stage).items():
        if push.key == STREAM and push.life == left["life"] and push.is_ok and element not in entries:
            yield f"an entry is gone: {push}"
    taken = {element: take for take in takes for element in take.more or ()}
    for element, entry_id in entries.items():
        owner = pending.get(entry_id)
        if element in taken and taken[element].who != owner:
            yield f"entry {entry_id} is pending with {owner}, and not with who has it: {taken[element]}"
        cut_off = any(take.who == owner and take.may_have_happened and not take.is_ok for take in takes)
        if owner is not None and element not in taken and not cut_off:
            yield f"entry {entry_id} is pending with {owner}, who got every reply and not this one"


# --- fairness and time ------------------------------------------------------------------------------------------------


def first_come_first_served(stage: Stage) -> Iterator[str]:
    pushed = pushes(stage)
    takes = [take for take in stage.done("take") if take.is_ok and take.key != STREAM]
    waiting = [take for take in takes if stage.calm(take.began.s, take.began.s + CALM_S, DISTURBING)]
    for second in takes:
        if not second.more:
            continue
        key = pushed[second.more[0]].key
        for first in waiting:
            if (
                first.life == second.life
                and key in first.value[0]
                and first.began.s + CALM_S <= second.began.s <= second.ended.s < first.ended.s
                and still_waited(stage, first, second, pushed)
            ):
                yield f"who came later was served first: {second}; {first}"


def still_waited(stage: Stage, first: Deed, second: Deed, pushed: dict[int, Deed]) -> bool:
    """Whether the first one was surely waiting when the second one had got his reply."""
    if first.more:
        return all(second.before(pushed[element]) for element in first.more)
    over_ms = stage.time.lowest_ms(first.began, second.ended) + first.value[1] * 1000
    return stage.time.highest_ms(first.began, second.ended) < over_ms


def waits(stage: Stage) -> Iterator[str]:
    """Waits in vain end when their time is over."""
    all_kinds = (*DISTURBING, "clock", "reset", "refuse", "reply")
    for take in stage.done("take"):
        wait_s, took_s = take.value[1], take.ended.s - take.began.s
        if take.is_ok and not take.more:
            shown_ms = stage.time.highest_ms(take.began, take.ended) - stage.time.lowest_ms(take.began, take.ended)
            if shown_ms < wait_s * 1000 - 1:
                yield f"gave up after {shown_ms} ms by the node's clock instead of {wait_s} s: {take}"
        undisturbed = took_s > wait_s + LATE_S and stage.calm(take.began.s - 1, take.ended.s, all_kinds)
        if undisturbed and (take.is_ok or "Timeout" in take.error):
            yield f"waited for {took_s:.3f} s instead of {wait_s} s: {take}"


# --- streams and messages ---------------------------------------------------------------------------------------------


def ids_grow(stage: Stage) -> Iterator[str]:
    added = [push for push in stage.done("push") if push.key == STREAM and push.is_ok]
    last: dict[int, Deed] = {}
    for push in sorted(added, key=lambda each: each.ended.at):
        before = last.get(push.life)
        if before is not None and before.before(push) and entry_id(before) >= entry_id(push):
            yield f"an id that does not grow: {before}; {push}"
        if before is None or entry_id(before) < entry_id(push):
            last[push.life] = push


def entry_id(push: Deed) -> tuple[int, ...]:
    return tuple(map(int, push.result.split("-")))


def messages(stage: Stage) -> Iterator[str]:
    published: dict[str, list[Deed]] = {}
    for publish in stage.done("publish"):
        published.setdefault(publish.value[0], []).append(publish)
    for subscription in stage.done("subscribe"):
        heard: dict[str, list[int]] = {}
        for who, count, _ in subscription.more or ():
            heard.setdefault(who, []).append(count)
        for who, counts in heard.items():
            if any(second <= first for first, second in itertools.pairwise(counts)):
                yield f"messages of {who} twice or out of order: {counts}; {subscription}"
            sent = [each for each in published[who] if each.life == subscription.life and each.may_have_happened]
            if not set(counts) <= {each.value[1] for each in sent}:
                yield f"messages of {who} that were not sent in this life: {counts}; {subscription}"
            between = {each.value[1] for each in sent if each.is_ok and counts[0] < each.value[1] < counts[-1]}
            if not between <= set(counts):
                yield f"messages of {who} left out: {sorted(between - set(counts))}; {subscription}"
