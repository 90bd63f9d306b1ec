"""Reading and writing histories; every line that cannot be part of one is named by its number."""

import json

import pytest
from checking import Shape, history
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.checking.history import HistoryError, event_line, read, write
from minidist.engines.checking.operation import Outcome, describe
from minidist.engines.checking.values import canonical, from_json, original, printable, show, to_json

WRITE = {"process": 0, "type": "invoke", "f": "write", "key": "k", "value": 1, "time": 10}
OK = {"process": 0, "type": "ok", "f": "write", "key": "k", "value": 1, "time": 20}
TXN = {"process": 0, "type": "invoke", "f": "txn", "value": [["append", "x", 1], ["r", "x", None]], "time": 1}
SEND = {"process": 0, "type": "invoke", "f": "send", "key": "t", "value": {"value": 1}, "time": 1}


def lines(*events):
    return [event if isinstance(event, str | bytes) else json.dumps(event) for event in events]


def test_an_operation_is_an_invocation_and_its_completion():
    (operation,) = read(lines({**WRITE, "node": "store-1"}, {**OK, "time": 25}))
    assert (operation.process, operation.f, operation.key, operation.argument) == (0, "write", "k", 1)
    assert operation.outcome is Outcome.OK
    assert (operation.began, operation.ended, operation.began_ns, operation.ended_ns) == (1, 2, 10, 25)
    assert operation.node == "store-1"


def test_what_is_open_at_the_end_is_indeterminate():
    (operation,) = read(lines(WRITE))
    assert operation.outcome is Outcome.INFO
    assert operation.ended is None


def test_empty_lines_are_skipped_but_counted():
    with pytest.raises(HistoryError, match=r"^line 4: "):
        read(["", "\n", json.dumps(WRITE), "nonsense"])


def test_bytes_are_strings_or_base64():
    events = [{**WRITE, "value": {"b64": "/wA="}}, OK, {**WRITE, "time": 30, "value": {"b64": "dGV4dA=="}}]
    events[1] = {**OK, "value": {"b64": "/wA="}}
    first, second = read(lines(*events))
    assert first.argument == b"\xff\x00"
    assert second.argument == "text"
    assert [json.loads(line)["value"] for line in write([first, second])] == [{"b64": "/wA="}, {"b64": "/wA="}, "text"]


def test_time_may_stand_still():
    assert len(read(lines({**WRITE, "time": 20}, OK))) == 1


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ((WRITE, "{"), "line 2: not JSON"),
        ((WRITE, "no"), "line 2: not JSON"),
        ((b"\xff",), "line 1: not JSON"),
        (("[]",), "line 1: Expected `object`"),
        (({**WRITE, "process": "one"},), r"line 1: Expected `int`, got `str` - at `\$.process`"),
        (({"type": "invoke", "f": "read", "time": 1},), "line 1: Object missing required field `process`"),
        (({**WRITE, "time": None},), r"line 1: Expected `int`, got `null` - at `\$.time`"),
        (({**WRITE, "type": "start"},), "line 1: unknown type 'start', allowed: invoke, ok, fail, info"),
        (({**WRITE, "f": "put"},), "line 1: unknown f 'put', allowed: read, write, cas"),
        (({**WRITE, "key": {"a": 1}},), "line 1: key is an object"),
        (({**WRITE, "value": {"b64": "?"}},), "line 1: '\\?' is not base64"),
        ((OK,), "line 1: ok without invoke: process 0 has nothing under way"),
        ((WRITE, OK, {**OK, "type": "info"}), "line 3: info without invoke"),
        ((WRITE, {**WRITE, "time": 11}), "line 2: process 0 begins write while its write of line 1 is not completed"),
        ((WRITE, {**OK, "time": 9}), "line 2: time runs backwards: 9 after the 10 of line 1"),
        ((WRITE, {**OK, "f": "read"}), "line 2: ok of read, but line 1 invoked write"),
        ((WRITE, {**OK, "key": "x"}), "line 2: ok for key 'x', but line 1 has key 'k'"),
        ((WRITE, {**OK, "value": 2}), r"line 2: ok has the value 2, but it was invoked with 1 \(line 1\)"),
        (({**WRITE, "f": "cas", "value": 3},), r"line 1: cas needs the value \[old, new\]"),
        (({**TXN, "value": "x"},), "line 1: txn needs a list"),
        (({**TXN, "value": [["w", "x", 1]]},), "line 1: txn has the step"),
        (({**TXN, "value": [["r", None, None]]},), "line 1: txn has the key None"),
        ((TXN, {**TXN, "type": "ok", "value": [["r", "x", []]]}), "line 2: the steps of the txn differ"),
        (
            (TXN, {**TXN, "type": "ok", "value": [["append", "x", 2], ["r", "x", []]]}),
            "line 2: the txn appended 2, but it was invoked with 1",
        ),
        ((TXN, {**TXN, "type": "ok", "value": [["append", "x", 1], ["r", "x", 5]]}), "line 2: the txn read 5, allowed"),
        (({**SEND, "value": 1},), "line 1: send needs the value"),
        ((SEND, {**SEND, "type": "ok", "value": {"value": 1}}), "line 2: .* is not a record"),
        (
            (SEND, {**SEND, "type": "ok", "value": {"partition": 0, "offset": 1, "value": 2}}),
            "line 2: ok has the value 2",
        ),
        (({**SEND, "f": "poll"}, {**SEND, "f": "poll", "type": "ok", "value": 7}), "line 2: the value of a poll's ok"),
        (
            ({**SEND, "f": "poll"}, {**SEND, "f": "poll", "type": "ok", "value": [{"offset": 1}]}),
            "line 2: .* is not a record",
        ),
    ],
)
def test_a_wrong_line_is_named(events, message):
    with pytest.raises(HistoryError, match=message):
        read(lines(*events))


@given(st.integers(0, 2**32), st.sampled_from(["register", "cas-register", "counter", "set"]))
@settings(max_examples=25)
def test_what_is_written_reads_the_same(seed, model):
    operations = read(history(Shape(model, 20, keys=2, clients=3, info=0.2), seed))
    again = read(write(operations))
    assert [_facts(each) for each in again] == [_facts(each) for each in operations]


def _facts(operation):
    return [getattr(operation, name) for name in operation.__struct_fields__ if name not in ("began", "ended")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
)


@given(JSON)
@settings(max_examples=100)
def test_values_survive_json(value):
    line = event_line(0, "invoke", "write", 0, key="k", value=value)
    assert canonical(from_json(json.loads(line).get("value"))) == canonical(from_json(to_json(value)))


def test_equal_is_what_json_calls_equal():
    assert canonical(1) == canonical(1.0)
    assert len({canonical(value) for value in (1, True, "1", None, [1], [[1]], {"a": 1}, {"a": True}, b"\xff")}) == 9
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})


@given(JSON)
@settings(max_examples=100)
def test_canonical_values_are_shown_as_what_they_were(value):
    value = from_json(to_json(value))
    assert canonical(original(canonical(value))) == canonical(value)
    assert show(canonical({"a": [True, None]})) == '{"a":[true,null]}'


@pytest.mark.parametrize("depth", [60, 1_000, 100_000])
def test_values_nested_too_deeply(depth):
    line = '{"process":1,"type":"invoke","f":"write","value":' + "[" * depth + "]" * depth + ',"time":0}'
    with pytest.raises(HistoryError, match="line 1: a value is nested more than 50 levels deep"):
        read([line])


def test_what_would_move_the_cursor_is_shown_as_an_escape():
    assert show("\x1b[31m\n\u202e\U000e0001é") == '"\\u001b[31m\\n\\u202e\\U000e0001é"'
    assert printable("plain é") == "plain é"


def test_values_are_shown_briefly():
    assert show("a") == '"a"'
    assert show(None) == "null"
    assert show(b"\xff") == '{"b64":"/w=="}'
    assert show([1, 2]) == "[1, 2]"
    assert show(list(range(100))) == "[0, 1, 2, 3, 4, 5, … 88 more …, 94, 95, 96, 97, 98, 99]"
    assert len(show("x" * 100)) == 60


def test_operations_are_described(transcript):
    events = ("0 cas [1,2]", "0 ok", '0 send {"value":7}', '0 ok {"partition":0,"offset":4,"value":7}', "0 poll")
    events += ('0 ok [{"partition":0,"offset":4,"value":7}]', "0 assign [0]", "0 ok", '0 txn [["r","x",null]]')
    described = [describe(each) for each in transcript(*events)]
    assert described == ["cas 1 → 2", "send 7 → 0@4", "poll → 0@4=7", "assign [0]", 'r "x" → null']
