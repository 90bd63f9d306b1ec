"""Docs are executable: every example of the README, the docs and the components' pages runs; its output is compared.

How a page marks its examples: the head of examples.py.
"""

import os
import re

import pytest
from source_reader import ROOT, files

from examples import ExampleFailed, blocks, commands, matches, run_examples, with_free_ports

PAGES = [path for path in files() if re.fullmatch(r"README\.md|docs/.*\.md|minidist/components/\w+/README\.md", path)]
PAGES_WITH_EXAMPLES = [
    path for path in PAGES if any(block.word != "file" for block in blocks((ROOT / path).read_text()))
]
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


@pytest.mark.parametrize("path", PAGES_WITH_EXAMPLES)
def test_the_examples_of_a_page_run(path, tmp_path):
    assert run_examples((ROOT / path).read_text(), tmp_path, ROOT / "bin")


def broken_links(text: str, folder) -> list[str]:
    """Relative links of a page that lead nowhere."""
    return [target for target in LINK.findall(text) if not (folder / target).exists()]


@pytest.mark.parametrize("path", [path for path in files() if path.endswith(".md")])
def test_the_links_of_a_page_lead_somewhere(path):
    assert broken_links((ROOT / path).read_text(), (ROOT / path).parent) == []


def page(language: str, text: str, comment: str = "") -> str:
    return f"Text.\n\n{comment}\n```{language}\n{text}\n```\n"


def test_an_example_that_works(tmp_path):
    text = (
        page("toml", 'name = "shop"', "<!-- file: shop.toml -->")
        + page("console", "$ cd . && export X=1\n$ grep -c \\\n> name shop.toml\n1")
        + page("console", '$ printf "a\\nb\\nc d\\n"; echo $X\na\n...\nc...\n1')
        + page("python", "import pathlib\nassert pathlib.Path('shop.toml').exists()")
        + page("python", "def test_x():\n    assert True")
        + page("console", "$ false", "<!-- not run: fails -->")
        + page("text", "$ false")
    )
    assert run_examples(text, tmp_path, ROOT / "bin") == 4


@pytest.mark.parametrize(
    "example",
    [
        page("console", "$ false"),
        page("console", "$ echo one\ntwo"),
        page("console", "$ echo one\none\ntwo"),
        page("console", "$ exit 3"),
        page("console", "no prompt"),
        page("python", "assert False"),
        page("python", "def test_x():\n    assert False"),
    ],
)
def test_an_example_that_does_not_do_what_the_text_says_is_found(example, tmp_path):
    with pytest.raises(ExampleFailed):
        run_examples(example, tmp_path, ROOT / "bin")


def test_a_daemon_in_the_background_ends_with_the_page(tmp_path):
    os.mkfifo(tmp_path / "alive")
    reader = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    run_examples(page("console", "$ sleep 1000 > alive &\n$ kill -0 $!"), tmp_path, ROOT / "bin")
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b"", "end of file: the last writer is gone"
    os.close(reader)


def test_ports_are_free_ones():
    text = with_free_ports("<!-- ports: 6379 80 -->\nredis://127.0.0.1:6379 and 63790, 80, 8080")
    assert re.search(r"redis://127.0.0.1:(?!6379)\d+ and 63790, (?!80,)\d+, 8080", text)


def test_output_is_compared_line_by_line():
    assert matches(("a", "...", "d"), "a\nb\nc\nd\n")
    assert matches(("a", "...", "d"), "a\nd")
    assert matches(("took ... ms",), "took 1.5 ms\n")
    assert not matches(("a",), "a\nb\n")
    assert not matches(("a.c",), "abc")
    assert commands("$ a\n> b\nout\n> quoted\n$ c")[0].expected == ("out", "> quoted")


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "there.md").write_text("")
    assert broken_links("[a](there.md#x) [b](gone.md) [c](https://x.y/z) [d](#e)", tmp_path) == ["gone.md"]
