"""How soon something is there: a daemon's ready line, and `minidist up` and `down` of three and of ten nodes.

The daemon is compared with the least that any server on the same libraries takes: a script that imports every module
the daemon has imported when it is ready, except our own, and prints its line when a uvloop listener accepts.
"""

import re
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from lab.figures import Figure, Result, Run, Target
from lab.machine import Cores
from lab.servers import environment, pinned, process, python
from lab.settings import Settings

READY_RATIO = Target(1.6, 1.3, higher=False)
UP_S = {3: Target(0.5, 0.3, higher=False), 10: Target(2.0, 1.0, higher=False)}
DOWN_S = Target(0.5, 0.3, higher=False)
STARTS_PER_PAIR = 3  # one start is short: more of them for the same patience

# Prints those of its arguments that can be imported one by one.
IMPORTABLE = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        print(name)
    except Exception:
        pass
"""

BARE = """
{imports}
import asyncio, sys, uvloop

async def main():
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    print('{{"event":"ready"}}', flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


def run(settings: Settings, cores: Cores, folder: Path) -> Result:
    """The ready line against the bare listener, then whole clusters."""
    result = Result()
    if settings.chosen(["ready line"]):
        settings.say("ready line")
        bare = folder / "bare.py"
        modules = imported_by_the_daemon(folder)
        bare.write_text(BARE.format(imports="\n".join(f"import {name}" for name in modules)))
        result.settings["bare_imports"] = len(modules)
        commands = {"minidist": [python(), "-m", "minidist", "cache", "--listen", "127.0.0.1:0"]}
        commands["bare listener"] = [python(), str(bare)]
        for command in commands.values():
            time_to_line(command, cores, folder)  # compiles what is not compiled yet, fills the page cache
        for _ in range(settings.pairs * STARTS_PER_PAIR):
            for name, command in commands.items():
                result.runs.append(start(name, command, cores, folder))
        result.figures.append(ready_figure(result.runs))
    for nodes in settings.chosen(list(UP_S)):
        settings.say(f"up and down of {nodes} nodes")
        result.figures += up_and_down(nodes, settings.pairs, folder)
    return result


def imported_by_the_daemon(folder: Path) -> list[str]:
    """All modules but ours that a daemon imports until it is ready, in the order in which they are complete."""
    command = [python(), "-X", "importtime", "-m", "minidist", "cache", "--listen", "127.0.0.1:0"]
    log = folder / "imports.log"
    with process(command, log) as child:
        assert child.stdout is not None
        child.stdout.readline()
    names = re.findall(r"^import time:\s+\d+ \|\s+\d+ \| +([\w.]+)$", log.read_text(), re.MULTILINE)
    importable = subprocess.run(
        [python(), "-c", IMPORTABLE, *(name for name in names if not name.startswith(("minidist", "__")))],
        capture_output=True,
        text=True,
        check=True,
    )
    return importable.stdout.split()


def time_to_line(command: list[str], cores: Cores, folder: Path) -> float:
    """Seconds from exec to the first line on stdout."""
    begin = time.monotonic()
    with process(pinned(cores.server, command), folder / "startup.log") as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        seconds = time.monotonic() - begin
    if not line:
        raise RuntimeError(f"no ready line: {(folder / 'startup.log').read_text()[-500:]}")
    return seconds


def start(name: str, command: list[str], cores: Cores, folder: Path) -> Run:
    seconds = time_to_line(command, cores, folder)
    return Run("exec to ready line", name, 1, seconds, 0, 0, 0)


def ready_figure(runs: list[Run]) -> Figure:
    ours = [run.seconds * 1000 for run in runs if run.server == "minidist"]
    bare = [run.seconds * 1000 for run in runs if run.server != "minidist"]
    pairs = [a / b for a, b in zip(ours, bare, strict=True)]
    a, b = median(ours), median(bare)
    return Figure("exec to ready line", "time", a, b, "ms", a / b, READY_RATIO, spread=(min(pairs), max(pairs)))


def up_and_down(nodes: int, times: int, folder: Path) -> list[Figure]:
    """Medians of `minidist up -d` and `minidist down` for a topology of so many cache nodes, on all cores."""
    ups, downs = [], []
    for _ in range(times):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            here = Path(name)
            (here / "minidist.toml").write_text(
                f'name = "b"\n[groups.cache]\ncomponent = "cache"\nreplicas = {nodes}\n'
            )
            try:
                ups.append(verb(here, "up", "-d"))
            finally:
                downs.append(verb(here, "down"))
    return [
        absolute(f"up -d, {nodes} nodes", ups, UP_S[nodes]),
        absolute(f"down, {nodes} idle nodes", downs, DOWN_S),
    ]


def verb(folder: Path, *words: str) -> float:
    begin = time.monotonic()
    done = subprocess.run(
        [python(), "-m", "minidist", *words], cwd=folder, capture_output=True, text=True, timeout=60, env=environment()
    )
    if done.returncode:
        raise RuntimeError(f"minidist {' '.join(words)}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
    return time.monotonic() - begin


def absolute(case: str, seconds: list[float], target: Target) -> Figure:
    value = median(seconds)
    return Figure(case, "time", value, None, "s", value, target, is_ratio=False, spread=(min(seconds), max(seconds)))
