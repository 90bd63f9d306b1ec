"""Plans: the words they are written in, and rules between their parts."""

import pytest

from minidist.load.driver import driver_for
from minidist.load.plan import Plan, parse_ramp, parse_rate, parse_ratio, shown_url
from minidist.runtime.config import ConfigError


@pytest.mark.parametrize(("text", "rate"), [("500", 500), ("2.5k", 2500), ("1m", 1e6), ("20/s", 20)])
def test_rates(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0", "-5", "5x", "k", "1e3", "inf", "nan"])
def test_no_rates(text: str) -> None:
    with pytest.raises(ValueError):
        parse_rate(text)


def test_ramps_and_ratios() -> None:
    assert parse_ramp("100:2k") == (100.0, 2000.0)
    assert parse_ramp("0:50") == (0.0, 50.0)
    assert parse_ratio("9:1") == (9, 1)
    for text in ("100", "0:0", "a:b", ":"):
        with pytest.raises(ValueError):
            parse_ramp(text)
    for text in ("9", "0:0", "-1:2", "a:b"):
        with pytest.raises(ValueError):
            parse_ratio(text)


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"rate": 5.0, "ramp": (1.0, 2.0)}, "--ramp"),
        ({"rate": 5.0, "concurrency": 2}, "--concurrency"),
        ({"connections": 5}, "--connections"),
        ({"arrivals": "poisson"}, "--arrivals"),
        ({"duration_ms": 0}, "--duration"),
        ({"timeout_ms": 0}, "--timeout"),
        ({"concurrency": 2, "processes": 3}, "--processes"),
    ],
)
def test_contradictions_name_the_option(changes: dict[str, object], option: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Plan(url="http://127.0.0.1/", **changes).check()  # type: ignore[arg-type]
    assert refused.value.option == option


@pytest.mark.parametrize(
    "url", ["", "nonsense", "http://", "ftp://127.0.0.1/", "redis://h/x", "http://h:99999/", "http://h:0/"]
)
def test_urls_that_nobody_serves(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        driver_for(Plan(url=url))
    assert refused.value.option == "URL"


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"workload": "incr"}, "--workload"),
        ({"options": {"pipeline": 5}}, "--pipeline"),
        ({"options": {"body": "x", "body_size": 5}}, "--body-size"),
        ({"options": {"body": "@/nonexistent/file"}}, "--body"),
        ({"workload": "mix", "options": {"method": "PUT"}}, "--method"),
    ],
)
def test_drivers_refuse_what_is_not_theirs(changes: dict[str, object], option: str) -> None:
    with pytest.raises(ConfigError) as refused:
        driver_for(Plan(url="http://127.0.0.1/", **changes))  # type: ignore[arg-type]
    assert refused.value.option == option


def test_connections_are_shared_out_among_processes() -> None:
    plan = Plan(url="http://127.0.0.1/", concurrency=7, processes=3)
    assert [plan.channels_of(share) for share in range(3)] == [3, 2, 2]


def test_passwords_are_not_shown() -> None:
    assert shown_url("redis://user:secret@h:1/0") == "redis://user:***@h:1/0"
    assert shown_url("redis://:secret@h:1/0") == "redis://:***@h:1/0"
    assert shown_url("http://h/a:b@c") == "http://h/a:b@c"
