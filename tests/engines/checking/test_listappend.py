"""Transactions on lists: each anomaly by a hand-made history, and all orders tried for small ones.

Steps are written `x1` (append 1 to x) and `x=1,2` (read [1, 2] from x).
"""

import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.checking import Judgement, Outcome, UnsuitableError, check, dependencies
from minidist.engines.checking.history import read


def steps_of(text):
    steps = []
    for word in text.split():
        if "=" in word:
            steps.append(["r", word[0], [int(each) for each in word[2:].split(",") if each]])
        else:
            steps.append(["append", word[0], int(word[1:])])
    return steps


def lines_of(order, transactions):
    """`order` has each transaction's number twice (begins, ends); outcomes other than ok end the text: `x1 info`."""
    lines, begun = [], []
    for place, number in enumerate(order):
        *_, outcome = transactions[number].rsplit(" ", 1)
        outcome = outcome if outcome in ("info", "fail") else "ok"
        steps = steps_of(transactions[number].removesuffix(outcome))
        asked = [[kind, key, None if kind == "r" else value] for kind, key, value in steps]
        event = {"process": number, "f": "txn", "time": 1000 * place}
        event["type"] = outcome if number in begun else "invoke"
        event["value"] = steps if number in begun and outcome == "ok" else asked
        begun.append(number)
        lines.append(json.dumps(event))
    return lines


def together(*transactions):
    """All under way at the same time."""
    numbers = range(len(transactions))
    return read(lines_of([*numbers, *numbers], transactions))


def one_by_one(*transactions):
    return read(lines_of([each for number in range(len(transactions)) for each in (number, number)], transactions))


def names(operations):
    return [violation.name for violation in check(operations, "list-append").violations]


@pytest.mark.parametrize(
    "operations",
    [
        together("x1", "x2", "x=1,2", "x=1"),
        together("x1 x=1 x2", "x=1,2"),
        together("x1", "x=", "x=1"),
        one_by_one("x1 info", "x=", "x=1"),
        one_by_one("x1 fail", "x="),
        one_by_one("x1 y1 info", "x=1", "y=1"),
        one_by_one("x1", "y1", "x= info", "x=1 y=1"),
        together("x= x="),
    ],
)
def test_it_holds(operations):
    assert names(operations) == []


@pytest.mark.parametrize(
    ("name", "breaks", "operations"),
    [
        ("G0 (write cycle)", "read uncommitted", together("x1 y1", "x2 y2", "x=1,2 y=2,1")),
        ("G1a (aborted read)", "read committed", together("x1 fail", "x=1")),
        ("G1b (intermediate read)", "read committed", together("x1 x2", "x=1", "x=1,2")),
        ("G1c (circular information flow)", "read committed", together("x1 y=1", "y1 x=1")),
        ("G-single (read skew)", "snapshot isolation", together("x1 y1", "x=1 y=", "y=1")),
        ("G-single (read skew)", "snapshot isolation", together("x1 y1 info", "x=1 y=")),
        ("G2 (anti-dependency cycle)", "serializability", together("x= y1", "y= x1", "x=1 y=1")),
        ("G-single-realtime", "strict serializability", one_by_one("x1", "x=", "x=1")),
        ("G-single-realtime", "strict serializability", one_by_one("x1", "x=")),
        ("G1c-realtime", "strict serializability", one_by_one("x=1", "x1")),
        ("G0-realtime", "strict serializability", one_by_one("x1", "x2", "x=2,1")),
        ("internal", "read committed", together("x1 x=", "x=1")),
        ("internal", "read committed", together("x= x=1", "x1")),
        ("internal", "read committed", together("x=1 x1", "x=1")),
        ("reordered appends", "read uncommitted", together("x1 x2", "x=2,1")),
        ("reordered appends", "read uncommitted", together("x1 x2", "x=2")),
        ("incompatible order", "read committed", together("x1", "x2", "x=1,2", "x=2")),
        ("duplicate element", "read uncommitted", together("x1", "x=1,1")),
        ("phantom element", "read uncommitted", together("x=9")),
    ],
)
def test_an_anomaly_by_its_name(name, breaks, operations):
    violations = check(operations, "list-append").violations
    assert name in [violation.name for violation in violations]
    violation = next(each for each in violations if each.name == name)
    assert violation.breaks == breaks
    assert violation.marked
    assert len(violation.names) == len(violation.evidence)


def test_a_cycle_is_found_also_where_not_every_start_is_tried(monkeypatch):
    monkeypatch.setattr(dependencies, "MAX_STARTS", 0)
    for name, operations in (
        ("G0 (write cycle)", together("x1 y1", "x2 y2", "x=1,2 y=2,1")),
        ("G1c (circular information flow)", together("x1 y=1", "y1 x=1")),
        ("G-single (read skew)", together("x1 y1", "x=1 y=", "y=1")),
        ("G2 (anti-dependency cycle)", together("x= y1", "y= x1", "x=1 y=1")),
        ("G0-realtime", one_by_one("x1", "x2", "x=2,1")),
        ("G-single-realtime", one_by_one("x1", "x=", "x=1")),
    ):
        assert names(operations) == [name]


def test_two_anti_dependencies_closed_by_real_time():
    """T2 missed the append of T1, which missed that of T0; T0 had ended before T2 began."""
    operations = read(lines_of([0, 1, 0, 2, 2, 1, 3, 3], ["x1", "x= y1", "y=", "x=1 y=1"]))
    assert names(operations) == ["G2-realtime"]
    operations = read(lines_of([0, 1, 2, 0, 2, 1, 3, 3], ["x1", "x= y1", "y=", "x=1 y=1"]))
    assert names(operations) == []


def test_the_cycle_is_told_in_words():
    violation = next(iter(check(together("x1 y1", "x=1 y=", "y=1"), "list-append").violations))
    assert violation.headline == "G-single (read skew): T1 must come before T2, T2 must come before T1"
    assert violation.reasons == [
        'T1 before T2: T2 read 1, which T1 appended to key "x".',
        'T2 before T1: T2 read key "y" without 1, which T1 appended.',
    ]
    assert [(arrow.tail, arrow.head, arrow.label) for arrow in violation.arrows] == [
        (0, 1, 'wr "x"'),
        (1, 0, 'rw "y"'),
    ]


def test_who_saw_the_order_of_writes_is_evidence():
    violation = next(iter(check(together("x1 y1", "x2 y2", "x=1,2 y=2,1"), "list-append").violations))
    assert violation.names == ["T1", "T2", "T3"]
    assert violation.marked == [0, 1]
    assert violation.reasons[0].endswith("(T3 read both).")


def test_real_time_is_one_edge_however_long():
    operations = one_by_one("x1", "y1", "y2", "y3", "x=")
    (violation,) = check(operations, "list-append").violations
    assert violation.reasons[0] == "T1 before T2: it had ended (line 2) before T2 began (line 9)."
    assert len(violation.evidence) == 2


def test_lone_appends_and_reads(transcript):
    events = ("0 append 1", "0 ok", "1 read", "1 ok [1]", "2 append 2", "2 info", "1 read", "1 ok [1,2]")
    assert names(transcript(*events)) == []
    assert names(transcript(*events, "3 read", "3 ok [1]")) == ["G-single-realtime"]


@pytest.mark.parametrize("events", [
    ['0 append "{1}"', "0 ok", "1 read", '1 ok ["{1}","{x}"]'],
    ['0 append {"a":[1]}', "0 fail", "1 read", '1 ok [{"a":[1]}]'],
    ['0 append "{1}"', "0 ok", "1 read", '1 ok ["{1}","{1}"]'],
])  # fmt: skip
def test_braces_are_nothing_special(transcript, events):
    """As in Redis' hash tags: `{user}:1`."""
    (violation,) = check(transcript(*events, key="{user}:1"), "list-append").violations
    assert 'from key "{user}:1"' in violation.headline
    assert json.dumps(json.loads(events[-1][5:])[-1], separators=(",", ":")) in violation.headline


def test_the_key_of_a_lone_append_is_in_the_evidence(transcript):
    (violation,) = check(transcript("0 append 1", "0 ok", "1 read", "1 ok null"), "list-append").violations
    assert [violation.what(each) for each in violation.evidence] == ['"k": append 1', '"k": read → null']


def test_what_the_evidence_leaves_standing():
    verdict = check(one_by_one("x1", "x="), "list-append")
    assert verdict.notes == [
        "broken: strict serializability; no evidence here against: read uncommitted, read committed, "
        "snapshot isolation, serializability"
    ]


def test_many_findings_of_a_kind_are_counted():
    verdict = check(together(*[f"x=9{number}" for number in range(9)]), "list-append")
    assert verdict.found == 9
    assert len(verdict.violations) == 3
    assert verdict.notes[0] == "phantom element: 9 times"


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (("0 append 1", "0 ok", "1 append 1", "1 ok"), 'line 3: 1 is appended to key "k" again \\(first in line 1\\)'),
        (("0 read", "0 ok 7"), "line 2: a read of a list with the value 7"),
        (("0 write 7", "0 ok"), "line 1: the model list-append has no write, allowed: txn, append, read"),
    ],
)
def test_a_history_of_something_else(transcript, events, message):
    with pytest.raises(UnsuitableError, match=message):
        check(transcript(*events), "list-append")


def test_a_lone_append_needs_a_key(transcript):
    with pytest.raises(UnsuitableError, match="line 1: a lone append needs a key"):
        check(transcript("0 append 1", "0 ok", key=None), "list-append")


def test_a_large_history_is_quick():
    """A list of a thousand elements, read as often: the dependencies are linear, not quadratic."""
    transactions = []
    for number in range(1000):
        transactions += [f"x{number}", "x=" + ",".join(map(str, range(number + 1)))]
    assert names(one_by_one(*transactions)) == []


# --- All orders -------------------------------------------------------------------------------------------------------


def is_strictly_serializable(operations) -> bool:
    certain = [each for each in operations if each.outcome is Outcome.OK]
    doubtful = [each for each in operations if each.outcome is Outcome.INFO]
    for count in range(len(doubtful) + 1):
        for some in itertools.combinations(doubtful, count):
            if any(is_legal(order) for order in itertools.permutations([*certain, *some])):
                return True
    return False


def is_legal(order) -> bool:
    if any(later.before(earlier) for earlier, later in itertools.combinations(order, 2)):
        return False
    lists: dict[str, list[int]] = {}
    for operation in order:
        for kind, key, value in operation.result or operation.argument:
            if kind == "append":
                lists[key] = [*lists.get(key, []), value]
            elif operation.is_ok and (value or []) != lists.get(key, []):
                return False
    return True


@st.composite
def histories(draw):
    """Up to five transactions, run one by one somewhere between beginning and end; some reads falsified.

    A transaction that fails has had its effect all the same.
    """
    rng = random.Random(draw(st.integers(0, 2**32)))
    count, elements = rng.randint(2, 5), list(range(1, 99))
    lists: dict[str, list[int]] = {"x": [], "y": []}
    events = [number for number in range(count) for _ in range(3)]
    rng.shuffle(events)
    order, done, texts = [], dict.fromkeys(range(count), 0), {}
    for number in events:
        done[number] += 1
        if done[number] != 2:
            order.append(number)
            continue
        words = []
        for _ in range(rng.randint(1, 3)):
            key = rng.choice("xy")
            if rng.random() < 0.5:
                lists[key].append(elements.pop(0))
                words.append(f"{key}{lists[key][-1]}")
            else:
                seen = list(lists[key])
                if seen and rng.random() < 0.15:
                    seen.pop(rng.randrange(len(seen)))
                if rng.random() < 0.1:
                    rng.shuffle(seen)
                if rng.random() < 0.1:
                    seen.append(elements[0])  # appended next, perhaps by this very transaction
                words.append(f"{key}={','.join(map(str, seen))}")
        outcome = rng.choices(["", " info", " fail"], [6, 1, 0.5])[0]
        texts[number] = " ".join(words) + outcome
    return lines_of(order, texts)


@given(histories())
@settings(max_examples=150)
def test_the_graph_agrees_with_all_orders(lines):
    operations = read(lines)
    expected = is_strictly_serializable(operations)
    assert (check(operations, "list-append").judgement is Judgement.HOLDS) == expected
