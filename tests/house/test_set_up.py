"""bin/minidist and bin/test on a fresh machine, as far as that goes without a network: when they set up, and with what.

The shell half runs against a copy of bin/ in a folder with a space in its name, with a stand-in for the installed
program; of the Python half the functions are called.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
from source_reader import ROOT

spec = importlib.util.spec_from_file_location("set_up_script", ROOT / "bin/lib/setup.py")
setup = importlib.util.module_from_spec(spec)
spec.loader.exec_module(setup)


@pytest.fixture
def checkout(tmp_path):
    """A checkout that is set up; its `minidist` prints its arguments."""
    root = tmp_path / "a b"
    shutil.copytree(ROOT / "bin", root / "bin")
    (root / "pyproject.toml").write_text("first")
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/python").symlink_to(sys.executable)
    program = root / ".venv/bin/minidist"
    program.write_text('#!/bin/sh\necho "minidist $*"\n')
    program.chmod(0o755)
    (root / "bin/lib/setup.py").write_text("import sys\nprint('set-up', *sys.argv[1:])\n")
    setup.Environment(root).stamp("base", b"first")
    return root


def run(program, *arguments, **environment):
    """Everything it prints, in a clean environment."""
    inherited = {"PATH": os.environ["PATH"], "HOME": str(Path(program).parent)}
    done = subprocess.run(
        [program, *arguments],
        env={**inherited, **environment},
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.stdout.strip()


def test_a_current_environment_is_used_as_it_is(checkout, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(checkout / "bin/minidist")
    for program in (checkout / "bin/minidist", link):
        assert run(program, "cache", "--max-memory", "1 mb") == "minidist cache --max-memory 1 mb"


def test_the_script_of_a_daemon_is_minidist_with_its_name(checkout, tmp_path):
    link = tmp_path / "my-cache"
    link.symlink_to(checkout / "bin/cache")
    assert run(link, "--help") == "minidist cache --help"
    assert run(checkout / "bin/cluster", "up", "-d") == "minidist up -d"


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "pyproject.toml").write_text("second"),
        lambda root: (root / ".venv/made-for/path").write_text("/elsewhere\n"),
        lambda root: (root / ".venv/made-for/base").unlink(),
        lambda root: (root / ".venv/bin/python").unlink(),
        lambda root: shutil.rmtree(root / ".venv/made-for"),
    ],
    ids=["pyproject", "moved", "killed half-way", "no interpreter", "of unknown origin"],
)
def test_what_changed_is_noticed(checkout, change):
    change(checkout)
    assert run(checkout / "bin/minidist", "x").split("\n") == [f"set-up {checkout} base", "minidist x"]
    assert not setup.Environment(checkout).is_current("base")


def test_the_test_tools_are_a_set_up_of_their_own(checkout):
    assert run(checkout / "bin/test", "--version").startswith(f"set-up {checkout} test\n")


def test_another_python_is_another_environment(checkout, monkeypatch):
    environment = setup.Environment(checkout)
    monkeypatch.setenv("PYTHON", "python3")
    assert environment.is_current("base")
    monkeypatch.setattr(setup, "python_version", lambda: "cpython-399")
    assert not environment.is_current("base")
    monkeypatch.delenv("PYTHON")
    assert environment.is_current("base"), "without a wish the environment stays with its Python"


def test_without_a_python_one_line_says_what_to_install(checkout, tmp_path):
    (checkout / ".venv/bin/python").unlink()
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "readlink", "cmp"):
        (tools / tool).symlink_to(shutil.which(tool))
    assert run(checkout / "bin/minidist", PATH=str(tools)).startswith(
        "minidist: needs Python 3.11 or newer: install it"
    )
    wish = run(checkout / "bin/minidist", PYTHON="/no/such/python")
    assert wish == "minidist: PYTHON=/no/such/python is not a Python 3.11 or newer"


def test_two_at_once_build_once(checkout, monkeypatch, capsys):
    (checkout / ".venv/made-for/base").unlink()
    building, both_there, built = threading.Event(), threading.Event(), []

    def build(environment, what):
        building.set()
        assert both_there.wait(10)
        environment.stamp(what, b"first")
        built.append(what)

    monkeypatch.setattr(setup, "build", build)
    monkeypatch.setattr(setup, "say", lambda text: both_there.set())  # "another run is setting up .venv"
    first = threading.Thread(target=setup.set_up, args=(checkout, "base"))
    first.start()
    assert building.wait(10)
    setup.set_up(checkout, "base")
    first.join()
    assert built == ["base"]


INDEX = """
<a href="https://files.example/pip-9.0-py2.py3-none-any.whl#sha256=00">pip-9.0</a>
<a href="../files/pip-25.1-py3-none-any.whl#sha256=aa" data-requires-python="&gt;=3.9">pip-25.1</a>
<a href="../files/pip-25.10-py3-none-any.whl#sha256=bb" data-requires-python="&gt;=3.9">pip-25.10</a>
<a href="../files/pip-26.0b1-py3-none-any.whl#sha256=cc">pip-26.0b1</a>
<a href="../files/pip-99.0-py3-none-any.whl#sha256=dd" data-requires-python="&gt;=3.99">pip-99.0</a>
<a href="../files/pip-25.10.tar.gz#sha256=ee">pip-25.10.tar.gz</a>
"""


def test_the_newest_pip_that_this_python_can_run_is_taken(monkeypatch):
    monkeypatch.setattr(setup, "fetch", lambda url: INDEX.encode())
    found = setup.newest_pip("https://index.example/simple/")
    assert found == ("https://index.example/simple/files/pip-25.10-py3-none-any.whl", "bb")


def test_a_wheel_that_was_tampered_with_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "fetch", lambda url: INDEX.encode())
    with pytest.raises(setup.SetUpError, match=r"does not match its SHA-256: install python3-venv"):
        setup.download_pip(tmp_path)


def test_an_index_that_cannot_be_reached_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    with pytest.raises(setup.SetUpError, match=r"no pip from http://127.0.0.1:1/simple .*: install python3-venv"):
        setup.download_pip(tmp_path)


def test_the_index_is_pips(monkeypatch, tmp_path):
    for name in ("PIP_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://of.the.file/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    assert setup.package_index() == "https://of.the.file/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "https://of.the.environment/simple")
    assert setup.package_index() == "https://of.the.environment/simple"


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        (
            "ERROR: No matching distribution found for x\nerror: subprocess-exited-with-error\n\n× pip failed\n",
            "ERROR: No matc",
        ),
        (
            "error: Request failed\n  cause: Failed to fetch: http://x\n  cause: refused\n",
            "cause: Failed to fetch: http://x",
        ),
        ("OSError: [Errno 28] No space left on device\n", "OSError: [Errno 28]"),
        ("something\n", "something"),
        ("", "the installer failed without a word"),
    ],
)
def test_the_failure_line_names_the_cause(log, complaint, tmp_path):
    (tmp_path / "setup.log").write_text(log)
    assert setup.last_complaint(tmp_path / "setup.log").startswith(complaint)


def test_every_extra_is_installed():
    """What bin/minidist starts has no option that answers "install this first"."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert sorted(setup.EXTRAS.split(",")) == sorted(extras)
