"""`minidist top`: the nodes in a table that renews itself. Rates and shares are of the time between two looks."""

import os
import select
import sys
import termios
import time
import tty
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from minidist.cluster.control import VerbError, call
from minidist.cluster.rundir import RunDir
from minidist.cluster.usage import Usage, of_groups
from minidist.cluster.verbs.looking import duration

COLOUR_OF_STATE = {
    "running": "green",
    "starting": "yellow",
    "paused": "magenta",
    "stopped": "bright_black",
    "killed": "red",
    "failed": "bold red",
}

WIDTH_WITH_ADDRESSES = 90

Row = dict[str, Any]


@dataclass(slots=True)
class Look:
    """What one look at the cluster saw."""

    at_s: float
    name: str
    nodes: list[Row]
    usage: dict[int, Usage]


def look(run_dir: RunDir) -> Look:
    """Ask the supervisor and the kernel. Raises VerbError when the cluster is gone."""
    answer = call(run_dir, "ps", figures=True)
    usage = of_groups(node["pid"] for node in answer["nodes"] if node["pid"])
    return Look(time.monotonic(), answer["name"], answer["nodes"], usage)


def top(run_dir: RunDir, interval_s: float) -> int:
    """Until Ctrl-C, `q`, or the end of the cluster."""
    before = now = look(run_dir)
    with _Keys() as keys, Live(auto_refresh=False, screen=True) as live:
        live.update(table(before, now, live.console.width), refresh=True)
        try:
            while keys.wait(interval_s) != "q":
                before, now = now, look(run_dir)
                live.update(table(before, now, live.console.width), refresh=True)
        except KeyboardInterrupt:
            pass
        except VerbError:
            live.stop()
            print(f"{now.name} is down")
    return 0


def table(before: Look, now: Look, width: int = 120) -> Table:
    """The table of a look, for so many columns of a terminal; `before` is what rates are counted from."""
    running = sum(node["state"] == "running" for node in now.nodes)
    title = f"[bold]{now.name}[/]  {running} of {len(now.nodes)} nodes running   [dim]q quits[/]"
    shown = Table(title=title, title_justify="left", title_style="none", box=box.SIMPLE_HEAD, pad_edge=False)
    wide = width >= WIDTH_WITH_ADDRESSES
    for heading in ("NODE", "STATE", "ROLE", *["ADDRESS"] * wide):
        shown.add_column(heading, no_wrap=True)
    for heading in ("REQ/S", "P99 MS", "CPU %", "RSS MB", "UP"):
        shown.add_column(heading, justify="right", no_wrap=True)
    earlier = {node["name"]: node for node in before.nodes}
    elapsed_s = now.at_s - before.at_s
    for node in now.nodes:
        cells = _cells(node, earlier.get(node["name"]), before, now, elapsed_s)
        shown.add_row(*(cells if wide else cells[:3] + cells[4:]))
    return shown


def _cells(node: Row, earlier: Row | None, before: Look, now: Look, elapsed_s: float) -> list[Text | str]:
    state = node["state"]
    if node["exit"] is not None and not node["pid"]:
        state += f" ({node['exit']})"
    figures = node["figures"] if node["pid"] else {}
    usage, then = now.usage.get(node["pid"]), before.usage.get(node["pid"])
    same = earlier is not None and earlier["pid"] == node["pid"] and elapsed_s > 0
    requests = [each["figures"].get("requests_total") for each in (earlier, node) if each] if same else []
    rate = (requests[1] - requests[0]) / elapsed_s if len(requests) == 2 and None not in requests else None
    cpu = (usage.cpu_s - then.cpu_s) / elapsed_s * 100 if usage and then and same else None
    return [
        node["name"],
        Text(state, style=COLOUR_OF_STATE[node["state"]]),
        node["role"] or "",
        node["address"],
        _number(rate, 0),
        _number(figures.get("p99_ms"), 2),
        _number(cpu, 0),
        _number(usage.rss_bytes / 1024**2 if usage else None, 0),
        duration(node["uptime_s"]),
    ]


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{max(value, 0):,.{decimals}f}"


class _Keys:
    """Reads single keys while it is open; keys are not echoed."""

    def __enter__(self) -> "_Keys":
        self._terminal = sys.stdin.isatty()
        if self._terminal:
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(self, *error: object) -> None:
        if self._terminal:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def wait(self, timeout_s: float) -> str:
        """The key that was pressed within the time; "" when none was."""
        if not self._terminal:
            time.sleep(timeout_s)
            return ""
        readable, _, _ = select.select([sys.stdin], [], [], timeout_s)
        return os.read(sys.stdin.fileno(), 1).decode("latin-1") if readable else ""
