"""The command table is complete in itself, and the page made from it is current."""

from pathlib import Path

import pytest

from minidist.engines.keyspace.commands import all_commands
from minidist.engines.keyspace.reference import SINCE_72_TEXT, commands_of, missing, page, redis_72

SINCE_72 = commands_of(SINCE_72_TEXT)
KNOWN = {group: [*names, *SINCE_72.get(group, ())] for group, names in redis_72().items()}
ROWS = [each for row in all_commands().commands.values() for each in (row, *row.subcommands.values())]


def test_the_page_is_current():
    root = Path(__file__).parents[3]
    assert (root / "docs" / "commands-cache.md").read_text() == page(), (
        "the page is old: minidist/engines/keyspace/reference.py says how to make it anew"
    )


def test_what_is_missing_is_listed():
    absent = missing()
    assert "MIGRATE" in absent["generic"]
    assert not {"string", "list"} & absent.keys()


def test_every_command_is_one_of_redis():
    known = {name.split()[0] for names in KNOWN.values() for name in names}
    assert {row.name.split()[0] for row in ROWS} <= known


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_are_whole(row):
    assert row.summary.endswith(".")
    assert row.since[0].isdigit()
    assert row.categories
    assert row.least >= 1
    if row.keys.first:
        assert row.keys.first < row.least or row.arity < 0
    assert row.name.split()[0] in {name.split()[0] for name in KNOWN[row.group]}
