"""pyproject.toml, the docs and the package agree: each dependency is argued for, the version is said once and kept."""

import re
import tomllib

from source_reader import ROOT

import minidist

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def distribution(requirement: str) -> str:
    """`hiredis>=3.2,<4; marker` -> `hiredis`."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()


def required(pyproject: dict) -> set[str]:
    project = pyproject["project"]
    lists = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *pyproject["dependency-groups"].values(),
    ]
    return {distribution(requirement) for requirements in lists for requirement in requirements}


def argued_for(markdown: str) -> set[str]:
    """The dependencies that docs/dependencies.md has an entry for: those in backticks in a table's first column."""
    found = set()
    for row in re.findall(r"^\|([^|]*)\|", markdown, re.MULTILINE):
        found.update(name.lower() for name in re.findall(r"`([\w.-]+)`", row))
    return found


def unbounded(requirements: set[str]) -> list[str]:
    """A version is bounded on both sides: today's floor is tested, and a new major release is a decision."""
    return sorted(line for line in requirements if ">=" not in line or "<" not in line.replace("<=", ""))


def test_every_dependency_is_argued_for():
    assert required(PYPROJECT) == argued_for((ROOT / "docs/dependencies.md").read_text())


def test_versions_are_bounded():
    project = PYPROJECT["project"]
    lines = {
        *project["dependencies"],
        *PYPROJECT["dependency-groups"]["test"],
        *project["optional-dependencies"]["demo"],
    }
    assert unbounded(lines) == []


def test_the_version_is_the_same_everywhere():
    assert PYPROJECT["project"]["version"] == minidist.__version__
    assert f"## {minidist.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_licence_is_the_whole_text():
    text = (ROOT / "LICENSE").read_text()
    for part in ("Apache License", "Version 2.0, January 2004", "END OF TERMS AND CONDITIONS"):
        assert part in text


def test_what_does_not_agree_is_found():
    pyproject = {
        "project": {
            "dependencies": ["uvloop>=0.21; sys_platform != 'win32'"],
            "optional-dependencies": {"demo": ["redis>=8"]},
        },
        "dependency-groups": {"test": ["pytest-asyncio>=1"]},
    }
    assert required(pyproject) == {"uvloop", "redis", "pytest-asyncio"}
    assert argued_for("| `uvloop` | loop |\n|---|---|\n| `redis`, `h11` | x `no` |\n") == {"uvloop", "redis", "h11"}
    assert unbounded({"a>=1,<2", "b>=1", "c"}) == ["b>=1", "c"]
