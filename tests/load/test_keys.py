"""The options that say which keys are asked for: their words, and what does not go together."""

import pytest

from minidist.load.command import main
from minidist.load.options import read


@pytest.mark.parametrize(
    ("word", "pattern"), [("zipf", "zipf"), ("zipfian", "zipf"), ("hotspot", "hot"), ("sequential", "scan")]
)
def test_names_of_other_tools_are_known(word, pattern):
    assert read(["redis://h", "--key-pattern", word]).plan.options == {"key_pattern": pattern}


def test_a_share_is_a_fraction_or_a_percentage():
    for text in ("0.75", "75%"):
        assert read(["redis://h", "--key-pattern", "hot", "--hot-share", text]).plan.options["hot_share"] == 0.75


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--key-pattern", "gaussian"], "--key-pattern: given 'gaussian', allowed: one of uniform, zipf, hot, scan"),
        (["--zipf-exponent", "1"], "--zipf-exponent: given 1.0, allowed: with --key-pattern zipf"),
        (["--key-pattern", "zipf", "--hot-keys", "1"], "--hot-keys: given 1, allowed: with --key-pattern hot"),
        (["--key-pattern", "zipf", "--zipf-exponent", "-1"], "--zipf-exponent: given '-1', allowed: a number"),
        (["--key-pattern", "zipf", "--zipf-exponent", "nan"], "--zipf-exponent: given 'nan', allowed: a number"),
        (["--key-pattern", "hot", "--hot-share", "110%"], "--hot-share: given '110%', allowed: a share such as 0.9"),
        (["--key-pattern", "hot", "--hot-keys", "5", "--keys", "4"], "--hot-keys: given 5, allowed: at most --keys"),
        (["--value-size", "1-0"], "--value-size: given '1-0', allowed: a size such as 64"),
        (["--ratio", "1"], "--ratio: given '1', allowed: two whole numbers such as 9:1"),
    ],
)
def test_what_cannot_be_taken_is_named(capsys, options, complaint):
    assert main(["redis://127.0.0.1:1", *options]) == 2
    assert complaint in capsys.readouterr().err
