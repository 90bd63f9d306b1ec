"""The one rule for outcomes, and that all who record histories go by it."""

from pathlib import Path

import pytest

from minidist.engines.checking import Outcome
from minidist.engines.checking.answers import NO_EFFECT, after_error, after_silence

FAIL, INFO = Outcome.FAIL, Outcome.INFO


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("CLUSTERDOWN Hash slot not served", FAIL),
        ("READONLY You can't write against a read only replica.", FAIL),
        ("MOVED 3999 127.0.0.1:6381", FAIL),
        ("TRYAGAIN Multiple keys request during rehashing of slot", FAIL),
        ("MISCONF Errors writing to the AOF file: No space left on device", FAIL),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", FAIL),
        ("LOADING", FAIL),
        ("UNKNOWN outcome: no quorum within 2 s", INFO),
        ("ERR unknown command", INFO),
        ("ERR", INFO),
        ("ASKING is not ASK", INFO),
        ("readonly in small letters is another word", INFO),
        ("", INFO),
    ],
)
def test_an_error_reply(text, outcome):
    assert after_error("write", text) is outcome
    assert after_error("read", text) is FAIL, "a read has no effect"


@pytest.mark.parametrize("f", ["write", "cas", "add", "append", "txn", "send", "poll"])
def test_no_answer(f):
    assert after_silence(f, sent=False) is FAIL
    assert after_silence(f, sent=True) is INFO


def test_the_page_lists_them():
    page = (Path(__file__).parents[3] / "docs" / "checking.md").read_text()
    assert ", ".join(f"`{word}`" for word in sorted(NO_EFFECT)) in page


def test_a_read_without_an_answer_had_no_effect():
    assert after_silence("read", sent=True) is FAIL
