"""`@pytest.mark.simulated(seeds=50)`: an async test that runs in the simulated world, once for each seed.

    @pytest.mark.simulated(seeds=50)
    async def test_sessions_survive_a_restart(minidist):
        cache = await minidist.cache()
        ...
        cache.kill()
        await cache.restart()

The fixture `minidist` is the world (minidist/sim/simulation.py): the factory of the other tests, as far as that makes
sense there, and `trial`, `client`, `history`, `check`. A failure says its seed, and leaves a bundle in
`.minidist/failures/`.
"""

import asyncio
import dataclasses
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from minidist.sim.bundle import write_bundle
from minidist.sim.run import Ending, Outcome, Settings, run_seed
from minidist.sim.simulation import Simulation

FIXTURE = "minidist"
DEFAULT_SEEDS = 10
FAILURES = Path(".minidist") / "failures"


class SimulatedFailure(AssertionError):
    """Something went wrong in the world, and the test itself did not raise: the text says what."""


def run_item(item: pytest.Function) -> None:
    """Run a marked test with each of its seeds. Raises what the first failing one raised, with a note of the seed."""
    function = test_function(item)
    settings, seeds = read_mark(item)
    arguments = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}

    async def scenario(sim: Simulation) -> None:
        await function(**(arguments | ({FIXTURE: sim} if FIXTURE in arguments else {})))

    for seed in seeds:
        outcome = run_seed(scenario, seed, settings)
        if outcome.ending is not Ending.OK:
            again = run_seed(scenario, seed, dataclasses.replace(settings, keep=True))
            fail(item, outcome, again)


def test_function(item: pytest.Function) -> Callable[..., Any]:
    """The test as it was written: pytest-asyncio puts a function without `async` in its place."""
    function: Callable[..., Any] = item.obj
    if not asyncio.iscoroutinefunction(function):
        function = getattr(function, "__wrapped__", function)
    if not asyncio.iscoroutinefunction(function):
        raise pytest.UsageError(f"{item.nodeid}: given a function, allowed: @pytest.mark.simulated on an async test")
    return function


def read_mark(item: pytest.Function) -> tuple[Settings, range]:
    """What the mark and the command line say. Raises UsageError."""
    mark = item.get_closest_marker("simulated")
    assert mark is not None
    known: dict[str, Any] = {"seeds": DEFAULT_SEEDS, "faults": None, "duration_s": Settings().duration_s, "bug": ""}
    unknown = [name for name in mark.kwargs if name not in known]
    if mark.args or unknown:
        given = ", ".join([*map(repr, mark.args), *unknown])
        raise pytest.UsageError(f"{item.nodeid}: simulated: given {given}, allowed: {', '.join(known)} by name")
    values: dict[str, Any] = {**known, **mark.kwargs}
    seed = item.config.getoption("--minidist-seed")
    count = values.pop("seeds")
    seeds = range(1, count + 1) if seed is None else range(seed, seed + 1)
    return Settings(**values), seeds


def fail(item: pytest.Function, outcome: Outcome, again: Outcome) -> None:
    """Write the bundle and raise."""
    replay = shlex.join(["pytest", item.nodeid, f"--minidist-seed={outcome.seed}"])
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", item.nodeid).strip("-.")
    directory = item.config.rootpath / FAILURES / name
    write_bundle(directory, again, replay, item.path)
    notes = [f"simulated: {outcome.line()}", f"replay: {replay}", f"bundle: {directory}"]
    if again.digest != outcome.digest:
        notes.append(f"the second run of this seed was another one (trace {again.digest}): it is not deterministic")
    error = outcome.error or SimulatedFailure("\n".join(outcome.problems))
    for note in notes:
        error.add_note(note)
    raise error.with_traceback(_from_the_test_on(error.__traceback__, str(item.path)))


def _from_the_test_on(trace: TracebackType | None, file: str) -> TracebackType | None:
    """A traceback without the simulator's own frames in front, if the test is in it at all."""
    each = trace
    while each is not None and each.tb_frame.f_code.co_filename != file:
        each = each.tb_next
    return each or trace
