"""Getting the suites: their files, as published, and an environment with what they need."""

import subprocess
import sys
import tarfile
from pathlib import Path

from suites import Suite


def obtain(suite: Suite, folder: Path, given: Path | None) -> Path:
    """The folder of a suite's files: the given one, or unpacked from PyPI's source archive, or cloned.

    Raises CalledProcessError when the registry or the repository cannot be reached.
    """
    if given is not None:
        return given.resolve()
    place = folder / f"{suite.name}-{suite.version}"
    if place.exists():
        return place
    unfinished = folder / f"{suite.name}.unfinished"
    if suite.source.startswith("pypi:"):
        package = f"{suite.source.removeprefix('pypi:')}=={suite.version}"
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, package, "--dest", str(unfinished)], check=True)
        with tarfile.open(next(unfinished.glob("*.tar.gz"))) as archive:
            archive.extractall(unfinished, filter="data")
        next(each for each in unfinished.iterdir() if each.is_dir()).rename(place)
    else:
        subprocess.run(["git", "clone", "-q", suite.source, str(unfinished)], check=True)
        subprocess.run(["git", "-C", str(unfinished), "checkout", "-q", suite.version], check=True)
        unfinished.rename(place)
    return place


def environment(suites: list[Suite], folder: Path) -> Path:
    """The Python of an environment that has what these suites need."""
    python = folder / "venv" / "bin" / "python"
    wanted = sorted({package for suite in suites for package in suite.requires})
    note = folder / "venv" / "installed"
    if not note.exists() or not set(wanted) <= set(note.read_text().split()):
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True)
        note.write_text("\n".join(wanted))
    return python
