"""What the house tests share: the project's sources, parsed, and where things stand in them.

Each rule is a plain function from a `Source` to a list of findings, so that every test can also feed it a few lines
that break the rule: a rule that cannot fail guards nothing.
"""

import ast
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PURE_LAYERS = ("structures", "wire", "engines")
TOOLS = ("check", "cluster", "load", "sim", "testing", "cli", "run", "__main__")


@dataclass(frozen=True)
class Source:
    """One Python file, by its path inside the checkout; the text need not be on disk."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def module(self) -> str:
        """The dotted name, as an import would write it."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def layer(self) -> str:
        """The part of minidist it belongs to: `wire`, `components`, `cli` … ("" outside it)."""
        first, second, *_ = [*self.module.split("."), ""]
        return second if first == "minidist" else ""

    def at(self, node: ast.AST, what: str) -> str:
        """A finding: where, and what is wrong there."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {what}"

    def imports(self) -> Iterator[tuple[ast.AST, str]]:
        """Every imported module as (node, dotted name), wherever in the file the import stands.

        `from a.b import c` counts as `a.b.c`: c may be a module, and a rule about a.b also covers what is below it.
        """
        return self._imports(ast.walk(self.tree))

    def eager_imports(self) -> Iterator[tuple[ast.AST, str]]:
        """The imports that happen when the module is imported: not those in functions or for type checkers."""
        return self._imports(_executed_on_import(self.tree))

    def _imports(self, nodes: Iterator[ast.AST]) -> Iterator[tuple[ast.AST, str]]:
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node, alias.name
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    package = self.module.split(".")
                    depth = node.level - (1 if self.path.endswith("/__init__.py") else 0)
                    base = ".".join(package[: len(package) - depth] + ([base] if base else []))
                for alias in node.names:
                    yield node, f"{base}.{alias.name}"


def _executed_on_import(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _executed_on_import(child)


@cache
def files() -> tuple[str, ...]:
    """Every file of the project that is, or is about to be, under version control; sorted paths inside the checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return tuple(sorted(path for path in listed.stdout.split("\0") if path and (ROOT / path).is_file()))


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """The Python files below these folders of the checkout."""
    prefixes = tuple(f"{folder}/" for folder in folders)
    return tuple(
        Source(path, (ROOT / path).read_text("utf-8"))
        for path in files()
        if path.endswith(".py") and path.startswith(prefixes)
    )


def package() -> tuple[Source, ...]:
    """All of minidist."""
    return sources("minidist")


def layer(*names: str) -> tuple[Source, ...]:
    """The files of these layers."""
    return tuple(source for source in package() if source.layer in names)


def no_findings(findings: Iterable[str]) -> None:
    """Fail with one line for each finding."""
    lines = list(findings)
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)
