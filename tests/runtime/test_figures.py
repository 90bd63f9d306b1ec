"""Prometheus text, sums over processes, histograms, events, logs, the collector."""

import gc
import io
import json
import logging
import math
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from minidist.runtime import logs
from minidist.runtime.collector import Collector
from minidist.runtime.events import KEPT, EventLog
from minidist.runtime.logs import NodeLog
from minidist.runtime.metrics import (
    Family,
    Histogram,
    counter,
    exposition,
    gauge,
    merge_family,
    merge_figures,
    pack_family,
    unpack_family,
)


def parsed(*families):
    return {family.name: family for family in text_string_to_metric_families(exposition(families))}


# --- exposition -------------------------------------------------------------------------------------------------------


def test_counters_and_gauges():
    read = parsed(counter("requests_total", "Requests.", 3, method="GET"), gauge("share", "A share.", 0.25))
    (sample,) = read["minidist_requests"].samples
    assert (sample.name, sample.labels, sample.value) == ("minidist_requests_total", {"method": "GET"}, 3.0)
    assert read["minidist_share"].samples[0].value == 0.25


@pytest.mark.parametrize("value", [0, 10**15, 1e-9, math.inf, -math.inf])
def test_numbers(value):
    assert parsed(gauge("x", "X.", value))["minidist_x"].samples[0].value == value
    assert math.isnan(parsed(gauge("x", "X.", math.nan))["minidist_x"].samples[0].value)


@given(st.text(), st.text())
def test_any_text_is_escaped(summary, label):
    if "\r" in summary + label or not summary.isprintable() or summary != summary.strip():
        summary = summary.encode("unicode_escape").decode().strip()
        label = label.replace("\r", "")
    read = parsed(Family("x", "gauge", summary, [({"a": label}, 1)]))
    assert read["minidist_x"].samples[0].labels == {"a": label}


def test_histograms():
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 3.0):
        histogram.observe(value)
    histogram.observe_many(0.5, 4)
    family = parsed(Family("took_seconds", "histogram", "How long.", [({"a": "b"}, histogram)]))[
        "minidist_took_seconds"
    ]
    samples = {(sample.name, sample.labels.get("le")): sample.value for sample in family.samples}
    assert samples["minidist_took_seconds_bucket", "0.1"] == 2
    assert samples["minidist_took_seconds_bucket", "1"] == 7
    assert samples["minidist_took_seconds_bucket", "+Inf"] == samples["minidist_took_seconds_count", None] == 8
    assert samples["minidist_took_seconds_sum", None] == pytest.approx(5.65)
    assert histogram.quantile(0.5) == pytest.approx(0.46)
    assert histogram.quantile(1.0) == 1.0
    histogram.clear()
    assert (histogram.count, histogram.total, histogram.quantile(0.99)) == (0, 0.0, 0.0)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_lies_in_the_bucket_of_the_value_it_stands_for(values, share):
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    value = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    edges = (0.0, *histogram.bounds, histogram.bounds[-1])
    bucket = bisect_left(histogram.bounds, value)
    assert edges[bucket] <= histogram.quantile(share) <= edges[bucket + 1]


# --- of several processes ---------------------------------------------------------------------------------------------


def test_families_of_processes_are_summed_label_by_label():
    merged = {}
    for number in (1, 2):
        histogram = Histogram((1.0,))
        histogram.observe(number)
        for family in (
            counter("requests_total", "R.", number, method="GET"),
            gauge("info", "I.", 1, version="1"),
            Family("took", "histogram", "T.", [({}, histogram)]),
            Family("by", "counter", "B.", [({"a": "1", "b": "2"}, 1), ({"b": "3", "a": str(number)}, 1)]),
        ):
            packed = json.loads(json.dumps(pack_family(family)))
            merge_family(merged, unpack_family(packed))
    assert merged["requests_total"].samples == [({"method": "GET"}, 3)]
    assert merged["info"].samples == [({"version": "1"}, 1)]
    ((_, histogram),) = merged["took"].samples
    assert (histogram.counts, histogram.total) == ([1, 1], 3.0)
    assert merged["by"].samples == [({"a": "1", "b": "2"}, 2), ({"b": "3", "a": "1"}, 1), ({"b": "3", "a": "2"}, 1)]


def test_figures_are_sums_but_times_are_the_worst():
    assert merge_figures([{"requests_total": 1, "p99_ms": 5, "name": "x"}, {"requests_total": 2, "p99_ms": 3}, {}]) == {
        "requests_total": 3,
        "p99_ms": 5,
    }


# --- events -----------------------------------------------------------------------------------------------------------


def test_events_are_kept_and_followed():
    events = EventLog("n1", NodeLog("n1"), lambda: 1500)
    heard = []
    stop = events.follow(heard.append)
    events.emit("first", event="a detail may have any name", message="also this", self="and this")
    assert (
        heard
        == events.since()
        == [
            {
                "time": 1.5,
                "node": "n1",
                "event": "first",
                "detail": {"event": "a detail may have any name", "message": "also this", "self": "and this"},
            }
        ]
    )
    stop()
    stop()
    for number in range(KEPT + 5):
        events.emit("n", number=number)
    assert len(heard) == 1
    assert len(events.since()) == len(events.since(0)) == KEPT
    assert [event["detail"]["number"] for event in events.since(KEPT + 3)] == [KEPT + 2, KEPT + 3, KEPT + 4]
    assert events.since(KEPT + 6) == events.since(10**9) == []


# --- logs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def log_lines():
    """Set up logs in a style; what was logged so far, as lines."""
    before = {name: (logger.handlers[:], logger.propagate, logger.level)
              for name in (logs.ROOT, "asyncio") for logger in [logging.getLogger(name)]}  # fmt: skip
    stream = io.StringIO()

    def lines(level="info", style="text"):
        logs.set_up(level, style, stream)
        return lambda: stream.getvalue().splitlines()

    yield lines
    for name, (handlers, propagate, level) in before.items():
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_text_lines_are_one_line_each_whatever_a_peer_says(log_lines):
    lines = log_lines()
    log = NodeLog("n1")
    log.debug("not written")
    log.info("fault started", id="f1", ms=5, name="two words", evil="x\n2026 ERROR fake a=b", empty="")
    (line,) = lines()
    assert line[24:] == (' INFO    n1 fault started id=f1 ms=5 name="two words" evil="x\\n2026 ERROR fake a=b" empty=')


def test_json_lines_keep_types_and_their_own_keys(log_lines):
    lines = log_lines(style="json")
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        NodeLog("n1").error("failed", exc_info=error, count=3, share=0.5, ok=True, none=None, level="mine", peers=[1])
    logging.getLogger("asyncio").error("from the loop")
    first, second = map(json.loads, lines())
    assert (first["level"], first["node"], first["message"]) == ("error", "n1", "failed")
    assert (first["count"], first["share"], first["ok"], first["none"], first["peers"]) == (3, 0.5, True, None, "[1]")
    assert first["exception"].endswith("RuntimeError: boom")
    assert (second["node"], second["message"]) == ("asyncio", "from the loop")


# --- collector --------------------------------------------------------------------------------------------------------


def test_the_collector_freezes_survivors_and_tells():
    collector, threshold = Collector(), gc.get_threshold()
    try:
        collector.install()
        assert gc.get_freeze_count() > 1000
        before = collector.freezes
        gc.collect(1)
        assert collector.freezes == before + 1
        names = {family.name: family.samples[0][1] for family in collector.families()}
        assert names == {"gc_frozen_objects": gc.get_freeze_count(), "gc_freezes_total": collector.freezes}
    finally:
        gc.callbacks.remove(collector._collected)
        gc.set_threshold(*threshold)
        gc.unfreeze()
