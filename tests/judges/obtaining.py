"""Getting the suites: their files, as published, and for each an environment with what it needs."""

import shutil
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
    shutil.rmtree(unfinished, ignore_errors=True)
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
    shutil.rmtree(unfinished, ignore_errors=True)
    return place


def environment(suite: Suite, folder: Path) -> Path:
    """The Python of an environment that has what a suite needs."""
    place = folder / f"venv-{suite.name}"
    python, note = place / "bin" / "python", place / "installed"
    wanted = "\n".join(suite.requires)
    if not note.exists() or note.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *suite.requires], check=True)
        note.write_text(wanted)
    return python
