"""What the demo shows while it runs: a live view on a terminal, else a line a second."""

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

from minidist.load.live import EIGHTHS
from minidist.load.plan import Plan
from minidist.load.recorder import Interval, merged

CURVE_POINTS = 60
LOOK_EVERY_S = 0.5
SHOWN_EVENTS = 6
STATE_STYLES = {
    "running": "green",
    "killed": "bold red",
    "failed": "bold red",
    "starting": "yellow",
    "paused": "yellow",
}

Nodes = Callable[[], list[dict[str, Any]]]


def show_for(file: Any, nodes: Nodes) -> "Show":
    """The live view if the file is a terminal, else plain lines."""
    return Live(file, nodes) if file.isatty() else Lines(file)


class Show(ABC):
    """Told of every interval of the load, and of what is done to the nodes."""

    def __init__(self) -> None:
        self.began_at_s = 0.0
        self.length_s = 0.0

    def begin(self, plan: Plan, began_at_s: float) -> None:
        """A round begins, so many seconds after the first."""
        self.began_at_s = began_at_s
        self.length_s = plan.window_s

    @abstractmethod
    def tick(self, interval: Interval) -> None:
        """An interval of the load has ended."""

    @abstractmethod
    def happened(self, text: str) -> None:
        """Something was done to a node. Called from another thread."""

    def __enter__(self) -> "Show":
        return self

    def __exit__(  # noqa: B027
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was; plain lines have nothing to leave."""


class Lines(Show):
    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file
        self._second: list[Interval] = []

    def tick(self, interval: Interval) -> None:
        if interval.start_s >= self.length_s:
            return  # waiting for the last answers
        self._second.append(interval)
        second = merged(self._second)
        if second.seconds > 0.999:
            p50, p99 = second.percentiles_ms(50, 99)
            latency = "no answer" if p50 is None else f"p50 {p50:.1f} ms  p99 {p99:.1f} ms"
            self._say(f"{self.began_at_s + second.end_s:6.1f} s  {second.ok} ok  {second.failed} failed  {latency}")
            self._second.clear()

    def happened(self, text: str) -> None:
        self._say(f"          {text}")

    def _say(self, text: str) -> None:
        print(text, file=self._file, flush=True)


class Live(Show):
    """Nodes with their states, the load of the last minute as curves, what has happened."""

    def __init__(self, file: Any, nodes: Nodes) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        super().__init__()
        self._live = RichLive(console=Console(file=file), auto_refresh=False)
        self._nodes_of = nodes
        self._nodes: list[dict[str, Any]] = []
        self._second: deque[Interval] = deque()
        self._points: deque[Interval] = deque(maxlen=CURVE_POINTS)
        self._point: list[Interval] = []
        self._events: deque[tuple[float, str]] = deque(maxlen=SHOWN_EVENTS)
        self._ok = self._failed = 0
        self._now_s = 0.0
        self._leaving = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Show:
        self._live.start()
        self._looking.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._leaving.set()
        self._looking.join()
        self._live.stop()

    def _look(self) -> None:
        """Ask for the nodes' states, beside the load."""
        while not self._leaving.wait(LOOK_EVERY_S if self._nodes else 0.0):
            self._nodes = self._nodes_of()

    def begin(self, plan: Plan, began_at_s: float) -> None:
        super().begin(plan, began_at_s)
        self._second.clear()
        self._point.clear()

    def tick(self, interval: Interval) -> None:
        self._now_s = self.began_at_s + interval.end_s
        self._ok += interval.ok
        self._failed += interval.failed
        self._second.append(interval)
        while self._second[0].end_s <= interval.end_s - 0.999:
            self._second.popleft()
        self._point.append(interval)
        if merged(self._point).seconds > 0.299:
            self._points.append(merged(self._point))
            self._point.clear()
        self._live.update(self._drawn(), refresh=True)

    def happened(self, text: str) -> None:
        self._events.append((self._now_s, text))

    def _drawn(self) -> Any:
        from rich.console import Group
        from rich.panel import Panel

        return Panel(
            Group(self._table(), "", self._figures(), "", *self._history()),
            title="minidist demo: a shop of three web servers, a balancer and a cache",
            subtitle="Ctrl-C ends it",
            width=min(100, self._live.console.width),
        )

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 3, 0, 0))
        for column in ("node", "what", "state", "pid", "address", "up"):
            table.add_column(column, header_style="dim")
        for node in self._nodes:
            state = Text(f"● {node['state']}", style=STATE_STYLES.get(node["state"], ""))
            what = "your program" if node["component"] == "command" else node["component"]
            uptime = "" if node["uptime_s"] is None else f"{node['uptime_s']:.0f} s"
            table.add_row(node["name"], what, state, str(node["pid"] or "–"), node["address"], uptime)
        return table

    def _figures(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        second = merged(self._second)
        p50, p99 = second.percentiles_ms(50, 99)
        grid = Table.grid(padding=(0, 2))
        ok = [point.ok / point.seconds for point in self._points]
        failed = [point.failed / point.seconds for point in self._points]
        slow = [point.percentile_ms(99) or 0.0 for point in self._points]
        grid.add_row("answered", f"{second.ok / second.seconds:.0f}/s", Text(curve(ok), style="green"))
        grid.add_row("failed", f"{second.failed / second.seconds:.0f}/s", Text(curve(failed), style="red"))
        grid.add_row("p99", "–" if p99 is None else f"{p99:.1f} ms", Text(curve(slow), style="cyan"))
        grid.add_row(
            "p50", "–" if p50 is None else f"{p50:.1f} ms", f"{self._ok} answered, {self._failed} failed in all"
        )
        return grid

    def _history(self) -> list[Any]:
        from rich.text import Text

        return [Text(f"{at_s:6.1f} s  {text}") for at_s, text in self._events] or [Text("nothing has happened yet")]


def curve(values: list[float]) -> str:
    """Values as bars an eighth of a cell fine; the highest fills its cell, and what is not zero shows."""
    highest = max(values, default=0.0)
    if not highest:
        return EIGHTHS[0] * len(values)
    return "".join(EIGHTHS[max(1, round(value / highest * 8)) if value else 0] for value in values)
