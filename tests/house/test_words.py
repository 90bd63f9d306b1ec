"""Words: every module says how it works, and nothing half-done or private to one machine is left in the text."""

import ast
import re

import pytest
from source_reader import ROOT, Source, files, no_findings, package, sources

LONG_MODULE_LINES = 200  # from here on one sentence is no theory of operation
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X{3}|HA" + r"CK)\b")
# Home directories and the like: what works there works nowhere else. /tmp and /etc mean the same everywhere.
MACHINE_PATHS = re.compile(r"(?<![\w.$}])/(ro" + r"ot|ho" + r"me|wo" + r"rk|Us" + r"ers|opt|mnt)/\w")


def missing_theory(source: Source) -> list[str]:
    text = ast.get_docstring(source.tree) or ""
    if not text:
        return [source.at(source.tree, "a file opens with its theory of operation (a module docstring)")]
    if source.layer and source.text.count("\n") > LONG_MODULE_LINES and len(text.splitlines()) < 3:
        return [source.at(source.tree, "a file of this length needs a paragraph on how it works, not a title")]
    return []


def stubs(source: Source) -> list[str]:
    """Functions that only say `...` or NotImplementedError, outside of a Protocol or an ABC."""
    found: list[str] = []
    for owner in ast.walk(source.tree):
        bases = [ast.unparse(base) for base in getattr(owner, "bases", [])]
        if isinstance(owner, ast.ClassDef) and any(re.search(r"\b(Protocol|ABC)\b", base) for base in bases):
            continue
        functions = [n for n in ast.iter_child_nodes(owner) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        found += [source.at(node, f"{node.name} is a stub") for node in functions if is_stub(node)]
    return found


def is_stub(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A docstring explains why there is nothing to do; a decorator (overload, abstractmethod) explains it as well."""
    if node.decorator_list or ast.get_docstring(node):
        return False
    return all(ast.unparse(line) in ("...", "raise NotImplementedError") for line in node.body)


def lines_matching(path: str, text: str, pattern: re.Pattern[str], what: str) -> list[str]:
    return [
        f"{path}:{number}: {what}: {line.strip()}"
        for number, line in enumerate(text.split("\n"), 1)
        if pattern.search(line)
    ]


def texts() -> list[tuple[str, str]]:
    """All text files of the project."""
    found = []
    for path in files():
        data = (ROOT / path).read_bytes()
        if b"\0" not in data:
            found.append((path, data.decode()))
    return found


def test_every_module_says_how_it_works():
    no_findings(
        finding for source in sources("minidist", "benchmarks", "bin", "tests") for finding in missing_theory(source)
    )


def test_no_stubs():
    no_findings(finding for source in package() for finding in stubs(source))


@pytest.mark.parametrize(
    ("pattern", "what"),
    [(UNFINISHED, "unfinished"), (MACHINE_PATHS, "the path of one machine")],
    ids=["unfinished", "paths"],
)
def test_no_such_words(pattern, what):
    no_findings(finding for path, text in texts() for finding in lines_matching(path, text, pattern, what))


def test_a_module_without_theory_is_found():
    assert missing_theory(Source("minidist/x.py", "x = 1"))
    assert missing_theory(Source("minidist/wire/x.py", '"""The x."""\n' + "x = 1\n" * 201))
    assert not missing_theory(Source("minidist/x.py", '"""The x."""\nx = 1'))


def test_a_stub_is_found():
    assert stubs(Source("minidist/x.py", "def f(): ..."))
    assert stubs(Source("minidist/x.py", "class A:\n    async def f(self): raise NotImplementedError"))
    assert not stubs(Source("minidist/x.py", "class A(Base):\n    def on_close(self): pass"))
    assert not stubs(Source("minidist/x.py", "class A(Protocol):\n    def f(self): ..."))
    assert not stubs(Source("minidist/x.py", 'def f():\n    """Nothing to flush: memory."""'))


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (UNFINISHED, "# TO" + "DO: later"),
        (UNFINISHED, "FIX" + "ME"),
        (MACHINE_PATHS, "path = '/ho" + "me/ann/minidist'"),
        (MACHINE_PATHS, "see /Us" + "ers/ann"),
    ],
)
def test_such_words_are_found(pattern, text):
    assert lines_matching("x.md", f"first\n{text}\n", pattern, "bad") == [f"x.md:2: bad: {text}"]


@pytest.mark.parametrize("text", ["GET /users/me", "https://example.com/home/page", "/tmp/x", "a/root/b", "work"])
def test_other_words_are_fine(text):
    assert not lines_matching("x.md", text, MACHINE_PATHS, "")
    assert not lines_matching("x.md", text, UNFINISHED, "")
