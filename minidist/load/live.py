"""Progress on standard error: a small live panel on a terminal, else one plain line a second.

It sees intervals of a tenth of a second or longer, and shows the last second of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import IO, Any

from minidist.load.plan import Plan, shown_url
from minidist.load.recorder import Interval, merged
from minidist.load.report import ms_text, rate_text

#: A load longer than this has a plain line per ten seconds only.
LONG_S = 60.0
#: Points of the panel's small curves; the eighths of a cell they are drawn with.
CURVE_POINTS = 60
#: What the panel needs beside them.
TEXT_COLUMNS = 52
EIGHTHS = " ▁▂▃▄▅▆▇█"
_ROUNDING_S = 1e-6


class Display:
    """Shows nothing; base of those that do. A context manager around one or more loads."""

    def begin(self, plan: Plan) -> None:
        """A load starts, with times from 0 again."""

    def tick(self, interval: Interval) -> None:
        """An interval has ended."""

    def note(self, text: str) -> None:
        """A line that stays."""

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""


class Lines(Display):
    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._second: list[Interval] = []
        self._every_s = 1.0
        self._next_s = 0.0

    def begin(self, plan: Plan) -> None:
        self._second.clear()
        self._every_s = self._next_s = 1.0 if plan.window_s <= LONG_S else 10.0

    def tick(self, interval: Interval) -> None:
        self._second.append(interval)
        if interval.end_s >= self._next_s - _ROUNDING_S:
            self._next_s = interval.end_s + self._every_s
            self.note(_line(merged(self._second)))
            self._second.clear()

    def note(self, text: str) -> None:
        print(text, file=self._file, flush=True)


def _line(second: Interval) -> str:
    p50, p99 = second.percentiles_ms(50, 99)
    failed = f"  failed {rate_text(second.failed / second.seconds)}" if second.failed else ""
    kinds = f" ({', '.join(sorted(second.errors))})" if second.errors else ""
    hits = "" if second.hit_ratio is None else f"  hits {second.hit_ratio:.1%}"
    latency = f"p50 {ms_text(p50)} ms  p99 {ms_text(p99)} ms"
    return (
        f"{second.end_s:6.1f} s  offered {rate_text(second.offered / second.seconds)}"
        f"  ok {rate_text(second.ok / second.seconds)}  {latency}{hits}{failed}{kinds}"
    )


class Panel(Display):
    """On a terminal, with rich."""

    def __init__(self, file: IO[str]) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=file)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._width = max(10, min(CURVE_POINTS, console.width - TEXT_COLUMNS))
        self._title = ""
        self._window_s = 1.0
        self._last_second: deque[Interval] = deque()
        self._rates: deque[float] = deque(maxlen=CURVE_POINTS)
        self._latencies: deque[float] = deque(maxlen=CURVE_POINTS)
        self._failed = 0
        self._point: list[Interval] = []

    def __enter__(self) -> Display:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def begin(self, plan: Plan) -> None:
        loop = (
            f"{plan.rate:,.0f}/s offered" if plan.rate else "ramp" if plan.ramp else f"{plan.channels} in a closed loop"
        )
        self._title = f"{shown_url(plan.url)}  ·  {loop}"
        self._window_s = plan.window_s
        self._last_second.clear()
        self._rates.clear()
        self._latencies.clear()
        self._point.clear()
        self._failed = 0

    def tick(self, interval: Interval) -> None:
        self._failed += interval.failed
        self._last_second.append(interval)
        while self._last_second[0].end_s <= interval.end_s - 1.0 + _ROUNDING_S:
            self._last_second.popleft()
        self._point.append(interval)
        if sum(each.seconds for each in self._point) >= self._window_s / CURVE_POINTS - _ROUNDING_S:
            point = merged(self._point)
            self._rates.append(point.ok / point.seconds)
            self._latencies.append(point.percentile_ms(99) or 0.0)
            self._point.clear()
        self._live.update(self._drawn(interval.end_s), refresh=True)

    def note(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def _drawn(self, time_s: float) -> Any:
        from rich.panel import Panel as Box
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        second = merged(self._last_second)
        p50, p90, p99 = second.percentiles_ms(50, 90, 99)
        rows = Table.grid(padding=(0, 2))
        rows.add_row(
            "time",
            Text(f"{time_s:.1f} of {self._window_s:g} s"),
            ProgressBar(self._window_s, time_s, width=self._width),
        )
        ok = second.ok / second.seconds
        rows.add_row("ok", Text(rate_text(ok), "green"), Text(curve(self._rates, self._width), "green"))
        latency = f"p50 {ms_text(p50)}  p90 {ms_text(p90)}  p99 {ms_text(p99)} ms"
        rows.add_row("latency", Text(latency, "cyan"), Text(curve(self._latencies, self._width), "cyan"))
        failed = Text(f"{self._failed:,}", "red" if self._failed else "dim")
        rows.add_row("failed", failed, Text(", ".join(sorted(second.errors)), "red"))
        return Box(rows, title=Text(self._title, "bold"), title_align="left", border_style="dim", expand=False)


def curve(values: Iterable[float], width: int = CURVE_POINTS) -> str:
    """The last values as a line of block characters, the highest being full."""
    values = list(values)[-width:]
    top = max(values, default=0.0)
    if not top:
        return ""
    return "".join(EIGHTHS[max(1, round(value / top * 8)) if value else 0] for value in values)


def display_for(file: IO[str], *, quiet: bool) -> Display:
    if quiet:
        return Display()
    return Panel(file) if file.isatty() else Lines(file)
