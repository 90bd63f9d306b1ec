"""The registry, the folders and bin/ name the same components, and one folder looks like another."""

import os

import pytest
from source_reader import ROOT

from minidist.components import COMPONENTS

FILES = ("README.md", "config.py", "state.py", "server.py")
TOOLS = ("cluster", "load")
PROGRAMS = ("minidist", "test")
NAMES = tuple(component.name for component in COMPONENTS)


def missing_files(present: list[str]) -> list[str]:
    return [name for name in FILES if name not in present]


def wrong_scripts(scripts: dict[str, str], components: tuple[str, ...]) -> list[str]:
    """What is wrong with bin/, given the text of each script: one thin script per component and tool, nothing else."""
    calls = {name: f'/minidist" {name} "$@"' for name in (*components, "load")}
    calls["cluster"] = '/minidist" "$@"'
    findings = [f"bin/{name} is missing" for name in calls if name not in scripts]
    findings += [
        f"bin/{name} does not run {calls[name]}" for name in calls if calls[name] not in scripts.get(name, calls[name])
    ]
    return findings + [f"bin/{name} is no component" for name in scripts if name not in (*calls, *PROGRAMS)]


@pytest.mark.parametrize("name", NAMES)
def test_a_component_has_the_usual_files(name):
    assert missing_files(os.listdir(ROOT / "minidist/components" / name)) == []


def test_every_folder_is_registered():
    folders = [path.parent.name for path in sorted((ROOT / "minidist/components").glob("*/server.py"))]
    assert sorted(folders) == sorted(NAMES)


def test_bin_has_a_script_for_each():
    scripts = {path.name: path.read_text() for path in sorted((ROOT / "bin").iterdir()) if path.is_file()}
    assert wrong_scripts(scripts, NAMES) == []


@pytest.mark.parametrize("name", [*PROGRAMS, *TOOLS, *NAMES])
def test_scripts_are_executable(name):
    assert os.access(ROOT / "bin" / name, os.X_OK)


def test_what_is_missing_is_found():
    assert missing_files(["server.py", "config.py", "README.md"]) == ["state.py"]
    good = {"cache": '"${self%/*}/minidist" cache "$@"', "load": '/minidist" load "$@"', "cluster": '/minidist" "$@"'}
    assert wrong_scripts(good, ("cache",)) == []
    assert wrong_scripts(good, ("cache", "kv")) == ["bin/kv is missing"]
    assert wrong_scripts(good, ()) == ["bin/cache is no component"]
    assert wrong_scripts({**good, "cache": '/minidist" kv "$@"'}, ("cache",)) == [
        'bin/cache does not run /minidist" cache "$@"'
    ]
