"""Histories as transcripts: one event a line, `PROCESS write 1` for what begins, `PROCESS ok 1` for what ends."""

import json

import pytest

from minidist.engines.checking import Judgement, check
from minidist.engines.checking.history import FUNCTIONS, read

ENDS = ("ok", "fail", "info")


def operations_of(*events, key="k"):
    """`0 write 1`, `0 cas [1,2]`, `0 ok`, `1 read`, `1 ok null`; values are JSON; `0@store-1 read` names a node."""
    lines, under_way = [], {}
    for place, event in enumerate(events):
        process, word, *rest = event.split(" ", 2)
        process, _, node = process.partition("@")
        value = json.loads(rest[0]) if rest else None
        assert word in (*FUNCTIONS, *ENDS), event
        if word in FUNCTIONS:
            under_way[process] = (word, value)
        f, asked = under_way[process]
        if word in ENDS and value is None and f not in ("read", "poll"):
            value = asked
        line = {"process": int(process), "type": word if word in ENDS else "invoke", "f": f, "value": value}
        line |= {"time": 1_000_000 * place}
        line |= {"key": key} if f != "txn" else {}
        line |= {"node": node} if node else {}
        lines.append(json.dumps(line))
    return read(lines)


@pytest.fixture
def transcript():
    return operations_of


@pytest.fixture
def judge():
    """The violations of a transcript by a model."""

    def judged(model, *events, **more):
        verdict = check(operations_of(*events, **more), model)
        assert verdict.judgement is not Judgement.UNKNOWN
        return verdict.violations

    return judged
