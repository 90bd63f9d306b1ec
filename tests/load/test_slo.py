"""Objectives: read, measured, judged."""

import pytest

from minidist.load.recorder import Interval, Recorder
from minidist.load.slo import Limit, parse_slo


def interval(*latencies_ms: float, **errors: int) -> Interval:
    recorder = Recorder()
    recorder.latencies.extend(each / 1000 for each in latencies_ms)
    recorder.settle(1.0)
    for kind, count in errors.items():
        recorder.failed(kind, count)
    return recorder.close(1.0)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("p99=50ms,error-rate=0.01", (Limit("p99", 50), Limit("error-rate", 0.01))),
        ("p99.9=1s", (Limit("p99.9", 1000),)),
        ("p99_9=1s", (Limit("p99.9", 1000),)),
        ("mean=250us, max=1.5ms", (Limit("mean", 0.25), Limit("max", 1.5))),
        ("error-rate=5%", (Limit("error-rate", 0.05),)),
    ],
)
def test_parse(text: str, limits: tuple[Limit, ...]) -> None:
    assert parse_slo(text) == limits


@pytest.mark.parametrize(
    "text", ["", "p99", "p99=", "p99=50", "p=5ms", "p100=5ms", "error-rate=2", "rate=5", "p99=5ms,"]
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        parse_slo(text)


def test_limits_are_upper_limits_and_may_be_reached() -> None:
    total = interval(1, 2, 3, 4)
    assert Limit("max", 4.001).verdict(total).kept
    assert not Limit("max", 3.9).verdict(total).kept
    assert Limit("p50", 2.002).verdict(total).kept
    assert not Limit("mean", 2.4).verdict(total).kept


def test_error_rate_is_a_share_of_all_requests() -> None:
    total = interval(1, 1, 1, reset=1)
    assert Limit("error-rate", 0.25).verdict(total).kept
    assert not Limit("error-rate", 0.24).verdict(total).kept


def test_nothing_that_succeeded_keeps_no_limit() -> None:
    verdict = Limit("p99", 50).verdict(interval(reset=3))
    assert not verdict.kept
    assert str(verdict) == "p99 nothing succeeded, at most 50 ms: EXCEEDED"
    assert not Limit("error-rate", 1).verdict(interval()).kept
