"""Logs: what producers were told and consumers saw, anomaly by anomaly."""

import pytest

from minidist.engines.checking import UnsuitableError, check


def send(process, value):
    return f'{process} send {{"value":{value}}}'


def sent(process, value, offset, partition=0):
    return f'{process} ok {{"partition":{partition},"offset":{offset},"value":{value}}}'


def got(process, *records):
    """A poll of (offset, value) or (offset, value, partition)."""
    texts = [
        f'{{"partition":{more[0] if more else 0},"offset":{offset},"value":{value}}}'
        for offset, value, *more in records
    ]
    return [f"{process} poll", f"{process} ok [{','.join(texts)}]"]


def produced(*places):
    """Values 10, 11 … sent one after the other and acknowledged at these offsets."""
    return [event for number, at in enumerate(places) for event in (send(0, 10 + number), sent(0, 10 + number, at))]


def test_a_hole_in_the_offsets_may_be_as_large_as_it_likes(judge):
    far = 10**15
    assert judge("log", *produced(0, far), *got(1, (0, 10), (far, 11))) == []
    (violation,) = judge("log", *produced(0, 5, far), *got(1, (0, 10), (far, 12)), *got(2, (5, 11)))
    assert 'got offset 1000000000000000 of partition 0 of "k" right after offset 0, without offset 5' in (
        violation.headline
    )


@pytest.mark.parametrize(
    "events",
    [
        [*produced(0, 1, 2), *got(1, (0, 10), (1, 11)), *got(1, (2, 12))],
        # What is not read yet is not lost; holes in the offsets are no records.
        [*produced(0, 1, 5), *got(1, (0, 10))],
        [*produced(0, 5), *got(1, (0, 10), (5, 11))],
        # In doubt: there or not.
        [send(0, 1), "0 info", *got(1, (0, 1))],
        [send(0, 1), "0 info", *produced(0)[2:], *got(1)],
        [send(0, 1), "0 fail", *got(1)],
        # A new assignment begins anywhere.
        [*produced(0, 1), *got(1, (0, 10), (1, 11)), "1 assign [0]", "1 ok", *got(1, (0, 10))],
        [*produced(0, 1), *got(1, (0, 10)), "1 commit [1]", "1 ok", *got(1, (1, 11))],
        # Concurrent sends may lie in either order, and partitions have nothing to do with each other.
        [send(0, 1), send(1, 2), sent(0, 1, 1), sent(1, 2, 0), *got(2, (0, 2), (1, 1))],
        [send(0, 1), sent(0, 1, 7, 0), send(0, 2), sent(0, 2, 3, 1), *got(2, (3, 2, 1), (7, 1, 0))],
    ],
)
def test_it_holds(judge, events):
    assert judge("log", *events) == []


@pytest.mark.parametrize(
    ("name", "headline", "events"),
    [
        ("lost record", "process 0's 11 was acknowledged at offset 1 of partition 0 of \"k\" (0.003000 s) and never",
         [*produced(0, 1, 2), *got(1, (0, 10)), "1 assign [0]", "1 ok", *got(1, (2, 12))]),
        ("duplicate", "10 lies at offset 0 of partition 0 of \"k\" and at offset 1 of partition 0",
         [*produced(0), *got(1, (0, 10), (1, 10))]),
        ("duplicate", "at offset 0 of partition 1", [*produced(0), *got(1, (0, 10)), *got(2, (0, 10, 1))]),
        ("divergent log", "held 10 for process 0 and 99 for process 1",
         [*produced(0), send(2, 99), "2 info", *got(1, (0, 99))]),
        ("phantom record", "got 99 from offset 0 of partition 0 of \"k\" at 0.001000 s, which nobody sent",
         got(1, (0, 99))),
        ("aborted record", "whose send had failed", [send(0, 1), "0 fail", *got(1, (0, 1))]),
        ("record from the future", "got 10 from offset 0 of partition 0 of \"k\" at 0.001000 s, whose send began at",
         [*got(1, (0, 10)), *produced(0)]),
        ("reordered", "10 had been acknowledged at offset 4", produced(4, 3)),
        ("reordered", "had been acknowledged", [send(0, 1), sent(0, 1, 4), send(1, 2), sent(1, 2, 3)]),
        ("poll goes back", "got offset 0 of partition 0 of \"k\" after it had got offset 1",
         [*produced(0, 1), *got(1, (0, 10), (1, 11)), *got(1, (0, 10))]),
        ("poll goes back", "got offset 0", [*produced(0, 1), *got(1, (1, 11), (0, 10))]),
        ("poll skips", "without offset 1 with 11", [*produced(0, 1, 2), *got(1, (0, 10)), *got(1, (2, 12)),
         *got(2, (1, 11))]),
    ],
)  # fmt: skip
def test_an_anomaly_by_its_name(judge, name, headline, events):
    violations = judge("log", *events)
    assert [violation.name for violation in violations] == [name]
    assert headline in violations[0].headline
    assert violations[0].marked
    assert violations[0].breaks == "one log per partition"


def test_a_record_may_name_its_topic(judge):
    polled = '1 ok [{"partition":0,"offset":0,"value":7,"key":"other"}]'
    assert [each.name for each in judge("log", *produced(0), send(2, 7), "2 info", "1 poll", polled)] == []


def test_what_nobody_read_is_noted(transcript):
    verdict = check(transcript(*produced(0, 1, 2), *got(1, (0, 10))), "log")
    assert verdict.notes == ["2 acknowledged records lie above all that was polled: nobody read so far"]
    assert verdict.keys == 1


def test_many_of_a_kind_are_counted(transcript):
    verdict = check(transcript(*got(1, *[(offset, 90 + offset) for offset in range(9)])), "log")
    assert verdict.found == 9
    assert len(verdict.violations) == 3
    assert verdict.notes == ["phantom record: 9 times"]


def test_values_are_sent_once(transcript):
    with pytest.raises(UnsuitableError, match=r"line 3: 7 is sent again \(first in line 1\): values must be unique"):
        check(transcript(send(0, 7), "0 info", send(1, 7), "1 info"), "log")


def test_a_history_of_something_else(transcript):
    with pytest.raises(UnsuitableError, match="line 1: the model log has no write, allowed: send, poll"):
        check(transcript("0 write 1"), "log")
