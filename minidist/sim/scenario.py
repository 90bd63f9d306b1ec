"""What `minidist sim` is given: a topology file, or a Python file with a scenario.

A scenario file has `async def scenario(sim)`; `sim` is a Simulation. Its directory is importable while it runs, as for
`python FILE`, and for a topology the directory of the file, so that programs beside it are found.
"""

import asyncio
import importlib.util
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from minidist.cluster.topology import Topology, TopologyError
from minidist.run import EntryError
from minidist.sim.simulation import Simulation, read_topology
from minidist.sim.workload import play

Scenario = Callable[[Simulation], Awaitable[None]]
FUNCTION = "scenario"
PYTHON = ".py"


class UsageError(Exception):
    """What was given cannot be run; the text says which, what was given and what is allowed. Exit code 2."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A scenario with where it came from; `topology` for a topology file."""

    file: str
    scenario: Scenario
    topology: Topology | None = None


def load(file: str) -> Subject:
    """Raises UsageError."""
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"given {file!r}, allowed: a topology file or a Python file with `async def scenario(sim)`")
    directory = str(path.absolute().parent)
    if directory not in sys.path:
        sys.path.insert(0, directory)
    return _from_python(path) if path.suffix == PYTHON else _from_topology(path)


def _from_topology(path: Path) -> Subject:
    try:
        topology = read_topology(path)
    except (TopologyError, EntryError, UnicodeDecodeError) as error:
        raise UsageError(str(error)) from error

    async def scenario(sim: Simulation) -> None:
        await play(sim, topology)

    return Subject(str(path), scenario, topology)


def _from_python(path: Path) -> Subject:
    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"{path}: given Python that raises {_what_and_where(error)}, allowed: a scenario") from error
    scenario = getattr(module, FUNCTION, None)
    if not asyncio.iscoroutinefunction(scenario):
        raise UsageError(f"{path}: given no {FUNCTION}, allowed: `async def {FUNCTION}(sim)` in it")
    return Subject(str(path), scenario)


def _what_and_where(error: Exception) -> str:
    """`NameError: name 'x' is not defined (theatre.py:3)`."""
    told = traceback.TracebackException.from_exception(error)
    what = next(told.format_exception_only()) if not isinstance(error, SyntaxError) else f"SyntaxError: {error.msg}"
    file, line = told.stack[-1].filename, told.stack[-1].lineno
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
    return f"{what.strip()} ({file}:{line})"
