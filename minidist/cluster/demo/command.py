"""`minidist demo`: a small shop under load, while one of its web servers is killed and comes back.

Three web servers (demo/web.py, a user's program on redis-py) behind a balancer, with a cache; an open-loop load; a
SIGKILL and a restart on schedule. On a terminal a live view, else a line a second; at the end a report of what happened
to the requests. The topology is demo/minidist.toml, and everything is done with the verbs anybody can type.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from minidist.cluster.control import VerbError, call
from minidist.cluster.demo.story import ENDLESS_ROUND_S, Chapter, Round, report_json, report_text
from minidist.cluster.rundir import RunDir
from minidist.cluster.supervisor import LaunchError, UpOptions, launch

if TYPE_CHECKING:
    from minidist.cluster.demo.show import Show
    from minidist.load.recorder import Interval

OK, FAILED, USAGE = 0, 1, 2
TOPOLOGY = Path(__file__).with_name("minidist.toml")
VICTIM = "web-2"
RATE_PER_S = 200
PRODUCTS = 500
UP_TIMEOUT_S = 30.0
GONE_TIMEOUT_S = 5.0
STORY_EVENTS = ("started", "ready", "killed", "failed", "stopped")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"minidist demo: {message} (see minidist demo --help)", file=sys.stderr)
        raise SystemExit(USAGE)


def seconds(text: str) -> float:
    """At least one second; `20` and `20s` are the same."""
    try:
        given = float(text.removesuffix("s"))
    except ValueError:
        given = 0.0
    if not 1 <= given <= 86_400:
        raise argparse.ArgumentTypeError(f"given {text!r}, allowed: a number of seconds from 1 to 86400")
    return given


def main(argv: Sequence[str]) -> int:
    """Run the demo; the exit code."""
    parser = Parser(prog="minidist demo", description="A small cluster under load, while one of its nodes dies.")
    parser.add_argument("--seconds", type=seconds, metavar="N", help="end after so long; default: until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout, progress on stderr")
    try:
        options = parser.parse_args(argv)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    if importlib.util.find_spec("redis") is None:
        print("minidist demo: redis-py is missing (the shop's web servers use it): pip install redis", file=sys.stderr)
        return FAILED
    say = _printer(sys.stderr if options.json else sys.stdout)
    directory = Path(tempfile.mkdtemp(prefix="minidist-demo-"))
    try:
        return _demo(directory, options.seconds, options.json, say)
    except (LaunchError, VerbError) as error:
        print(f"minidist demo: {error}", file=sys.stderr)
        return FAILED
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _printer(file: Any) -> Callable[[str], None]:
    return lambda text: print(text, file=file, flush=True)


def _demo(directory: Path, length_s: float | None, as_json: bool, say: Callable[[str], None]) -> int:
    began_s = time.monotonic()
    run_dir, temporary = str(directory / "demo"), str(directory)
    launched = launch(UpOptions(str(TOPOLOGY), run_dir=run_dir, timeout_s=UP_TIMEOUT_S, temporary=temporary))
    demo = Demo(launched.run_dir, length_s)
    pids: list[int] = []
    try:
        call(launched.run_dir, "attach", progress=say)
        pids = demo.look()
        say(
            f"{len(pids)} processes are up in {time.monotonic() - began_s:.2f} s; the shop: {demo.edge_url}/product/1\n"
        )
        asyncio.run(demo.play(as_json))
        report = report_json(demo.chapters, demo.events(), demo.cache_figures())
    except KeyboardInterrupt:
        return OK
    finally:
        _go_down(launched.run_dir)
    left = _left_behind(pids)
    if as_json:
        print(json.dumps(report), flush=True)
    else:
        say(report_text(report, VICTIM))
    if left:
        print(f"minidist demo: left behind: {', '.join(map(str, left))}", file=sys.stderr)
    return FAILED if left or demo.failure else OK


def _go_down(run_dir: RunDir) -> None:
    try:
        call(run_dir, "down", timeout_s=2.0)
    except VerbError:
        pass  # the supervisor is gone, and everything with it
    run_dir.wait_until_free()


def _left_behind(pids: Sequence[int]) -> list[int]:
    """Which of the processes still exist a while after `down`."""
    deadline_s = time.monotonic() + GONE_TIMEOUT_S
    left = list(pids)
    while left and time.monotonic() < deadline_s:
        left = [pid for pid in left if os.path.exists(f"/proc/{pid}") or _alive(pid)]
        if left:
            time.sleep(0.01)
    return left


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Demo:
    """The rounds of load on a cluster that is up."""

    def __init__(self, run_dir: RunDir, length_s: float | None) -> None:
        self.run_dir = run_dir
        self.length_s = length_s
        self.chapters: list[Chapter] = []
        self.edge_url = ""
        self.failure = ""
        self._stop = asyncio.Event()

    def nodes(self) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = call(self.run_dir, "ps")["nodes"]
        return nodes

    def look(self) -> list[int]:
        """Find the balancer; the pids of all nodes."""
        nodes = self.nodes()
        self.edge_url = next(node["url"] for node in nodes if node["group"] == "edge")
        return [node["pid"] for node in nodes]

    def events(self) -> list[dict[str, Any]]:
        """What happened to the nodes since the load began, and what the balancer saw of it."""
        began_at = self.chapters[0].report.started_at if self.chapters else time.time()
        kept = [json.loads(line) for line in self.run_dir.events.read_text(encoding="utf-8").splitlines()]
        return [
            event
            for event in kept
            if event["time"] >= began_at and (event["event"] in STORY_EVENTS or event["event"].startswith("upstream"))
        ]

    def cache_figures(self) -> dict[str, int]:
        status = call(self.run_dir, "status", nodes=["cache"])[0]
        figures = status.get("figures", {})
        return {"hits": int(figures.get("hits_total", 0)), "misses": int(figures.get("misses_total", 0))}

    async def play(self, as_json: bool) -> None:
        """Round after round until the time is over or Ctrl-C."""
        from minidist.cluster.demo.show import show_for

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        with show_for(sys.stderr if as_json else sys.stdout, self.nodes) as show:
            while not self._stop.is_set() and (self.length_s is None or not self.chapters):
                await self._round(Round(self.length_s or ENDLESS_ROUND_S), show)

    async def _round(self, plan: Round, show: "Show") -> None:
        from minidist.load.plan import Plan
        from minidist.load.runner import run

        acts = {plan.kill_s: self._kill, plan.restart_s: self._restart}
        under_way: list[asyncio.Future[None]] = []

        def tick(interval: "Interval") -> None:
            show.tick(interval)
            due = [at_s for at_s in acts if interval.end_s >= at_s]
            under_way.extend(loop.run_in_executor(None, acts.pop(at_s), show) for at_s in due)

        loop = asyncio.get_running_loop()
        began_at_s = sum(chapter.played_s for chapter in self.chapters)
        load = Plan(
            url=f"{self.edge_url}/product/{{key}}",
            rate=RATE_PER_S,
            connections=20,
            duration_ms=round(plan.length_s * 1000),
            options={"keys": PRODUCTS},
        )
        show.begin(load, began_at_s)
        # Apart: in a process of its own, so that the display does not delay the load.
        report = await run(load, on_tick=tick, stop=self._stop, apart=True)
        await asyncio.gather(*under_way)
        self.chapters.append(Chapter(plan, min(report.window_s, plan.length_s), report, began_at_s))

    def _kill(self, show: "Show") -> None:
        call(self.run_dir, "kill", nodes=[VICTIM])
        show.happened(f"{VICTIM} killed (SIGKILL)")

    def _restart(self, show: "Show") -> None:
        try:
            call(self.run_dir, "start", nodes=[VICTIM], timeout_s=UP_TIMEOUT_S)
        except VerbError as error:
            self.failure = f"{VICTIM} did not come back: {error}"
        show.happened(self.failure or f"{VICTIM} is back")
