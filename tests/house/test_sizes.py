"""Sizes: files and functions that a reader can take in.

Hard limits fail at once. The habits leave room for the exception that reads better in one piece: a file over 500 lines
is listed below with its reason, and of all functions only a few in a hundred may be longer than 40 lines.
A function's length counts its lines of code: no docstring, no blank lines, no comments, no decorators.
"""

import ast
import io
import tokenize
from functools import cache

import pytest
from source_reader import Source, no_findings, sources

FILE_LINES, FILE_LINES_HARD = 500, 700
FUNCTION_LINES, FUNCTION_LINES_HARD = 40, 70
LONG_FUNCTIONS_PERCENT = 3

# path: why it reads better in one piece.
LONG_FILES: dict[str, str] = {}


def checked() -> tuple[Source, ...]:
    return sources("minidist", "benchmarks", "bin")


def file_lines(source: Source) -> int:
    return source.text.count("\n")


def files_too_long(source: Source, listed: dict[str, str] = LONG_FILES) -> list[str]:
    lines = file_lines(source)
    if lines > FILE_LINES_HARD:
        return [f"{source.path}: {lines} lines, never more than {FILE_LINES_HARD}"]
    if lines > FILE_LINES and source.path not in listed:
        return [f"{source.path}: {lines} lines: split it, or list it in LONG_FILES of {__name__} with the reason"]
    return []


@cache
def code_lines(source: Source) -> frozenset[int]:
    """Numbers of the lines that hold code: not blank, not only a comment, not part of a docstring."""
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
    return frozenset(lines)


def functions(source: Source) -> list[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Every function with its length; one that lies inside another counts for both."""
    code = code_lines(source)
    return [
        (node, sum(line in code for line in range(node.lineno, (node.end_lineno or 0) + 1)))
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def functions_too_long(source: Source) -> list[str]:
    return [
        source.at(node, f"{node.name} has {length} lines of code, never more than {FUNCTION_LINES_HARD}")
        for node, length in functions(source)
        if length > FUNCTION_LINES_HARD
    ]


def too_many_long_functions(package: tuple[Source, ...]) -> list[str]:
    """All functions over the habit's length, when they are more than a few in a hundred (and more than three)."""
    lengths = [(length, source.at(node, node.name)) for source in package for node, length in functions(source)]
    long = sorted(((length, where) for length, where in lengths if length > FUNCTION_LINES), reverse=True)
    if len(long) <= max(3, len(lengths) * LONG_FUNCTIONS_PERCENT // 100):
        return []
    return [
        f"{where}: {length} lines; {len(long)} of {len(lengths)} are too many: shorten some" for length, where in long
    ]


def test_files_are_short():
    no_findings(finding for source in checked() for finding in files_too_long(source))


def test_listed_files_are_long():
    """An entry that is no longer needed goes."""
    long = {source.path for source in checked() if file_lines(source) > FILE_LINES}
    assert set(LONG_FILES) <= long
    assert all(len(reason) > 20 for reason in LONG_FILES.values())


def test_functions_are_short():
    no_findings(finding for source in checked() for finding in functions_too_long(source))


def test_long_functions_are_rare():
    no_findings(too_many_long_functions(checked()))


def function_of(lines: int, name: str = "f") -> str:
    return f"def {name}():\n" + "    x = 1\n" * (lines - 1)


def test_a_long_file_is_found():
    assert files_too_long(Source("minidist/x.py", "x = 1\n" * 701), {"minidist/x.py": "no reason is good enough"})
    assert files_too_long(Source("minidist/x.py", "x = 1\n" * 501), {})
    assert not files_too_long(Source("minidist/x.py", "x = 1\n" * 501), {"minidist/x.py": "one table"})
    assert not files_too_long(Source("minidist/x.py", "x = 1\n" * 500), {})


def test_a_long_function_is_found():
    assert functions_too_long(Source("minidist/x.py", function_of(71)))
    assert not functions_too_long(Source("minidist/x.py", function_of(70)))


@pytest.mark.parametrize("extra", ["\n", "    # why\n", '    """What\n    it does.\n    """\n'])
def test_what_is_not_code_does_not_count(extra):
    ((_, length),) = functions(Source("minidist/x.py", function_of(5) + extra + "    y = 2\n"))
    assert length == 6


def test_many_long_functions_are_found():
    short = [function_of(2, f"short_{number}") for number in range(96)]
    long = [function_of(41, f"long_{number}") for number in range(4)]
    assert len(too_many_long_functions((Source("minidist/x.py", "".join(short + long)),))) == 4
    assert not too_many_long_functions((Source("minidist/x.py", "".join(short + long[:3])),))
