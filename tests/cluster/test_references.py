"""References such as {cache.url}: which are found, what they become, what is left alone."""

import pytest

from minidist.cluster.references import Endpoint, Reference, fill_in, references_in

NODES = {
    "cache": [Endpoint("cache-1", "cache", "127.0.0.1", 1, "127.0.0.1:9")],
    "log": [Endpoint("log-1", "broker", "127.0.0.1", 1), Endpoint("log-2", "broker", "::1", 2)],
    "web": [Endpoint("web-1", "command", "127.0.0.1", 3), Endpoint("web-2", "command", "127.0.0.1", 4)],
}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{cache.url}", "redis://127.0.0.1:1/0"),
        ("{cache.admin}", "127.0.0.1:9"),
        ("{log.url} {log.bootstrap}", "kafka://127.0.0.1:1 127.0.0.1:1,[::1]:2"),
        ("{web.urls}", "http://127.0.0.1:3,http://127.0.0.1:4"),
        ("--at={web[1].address}!", "--at=127.0.0.1:4!"),
        ("{web.host}:{web[1].port}", "127.0.0.1:4"),
        ("{{cache.url}}", "{cache.url}"),
        ('{"a": {"b": 1}} ${HOME} {} {cache}', '{"a": {"b": 1}} ${HOME} {} {cache}'),
    ],
)
def test_references_are_filled_in_and_other_braces_left_alone(text, filled):
    assert fill_in(text, lambda group: NODES[group]) == filled


def test_references_are_found_in_order():
    text = "{a.url} {{b.url}} {c[2].port}"
    assert references_in(text) == [Reference("a", None, "url"), Reference("c", 2, "port")]
    assert [str(each) for each in references_in(text)] == ["{a.url}", "{c[2].port}"]
