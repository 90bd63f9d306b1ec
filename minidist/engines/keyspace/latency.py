"""Latency spikes by event, as LATENCY shows them: `command` and `fast-command` (those whose time does not grow).

An event's history has one sample for each second in which it took too long: the worst of that second.
"""

from collections import deque

SAMPLES = 160


class Event:
    """The spikes of one event. `worst_ms` is the worst ever."""

    def __init__(self) -> None:
        self.samples: deque[tuple[int, int]] = deque(maxlen=SAMPLES)  # (service time in whole seconds, ms)
        self.worst_ms = 0

    def add(self, now_ms: int, took_ms: int) -> None:
        self.worst_ms = max(self.worst_ms, took_ms)
        second = now_ms // 1000
        if self.samples and self.samples[-1][0] == second:
            took_ms = max(took_ms, self.samples.pop()[1])
        self.samples.append((second, took_ms))


class Latency:
    """All events that had a spike since the start or the last reset, by name."""

    def __init__(self) -> None:
        self.threshold_ms = 0  # 0: nothing is watched
        self.events: dict[str, Event] = {}

    def add(self, name: str, now_ms: int, took_ms: int) -> None:
        self.events.setdefault(name, Event()).add(now_ms, took_ms)

    def reset(self, names: list[str]) -> int:
        """Forget these events, or all; how many there were."""
        found = [name for name in names or list(self.events) if self.events.pop(name, None) is not None]
        return len(found)


def graph(name: str, event: Event, now_ms: int) -> str:
    """LATENCY GRAPH's picture: a column for each sample, its height in quarters of the range, its age below."""
    took = [took_ms for _, took_ms in event.samples]
    low, high = min(took), max(took)
    ages = [_age(now_ms // 1000 - second) for second, _ in event.samples]
    levels = [round((each - low) * 3 / (high - low)) if high > low else 0 for each in took]
    rows = ["".join("#" if level >= row else " " for level in levels) for row in (3, 2, 1)]
    rows.append("".join("#" if level else "_" for level in levels))
    tallest = max(map(len, ages))
    rows += ["".join(letters) for letters in zip(*(age.ljust(tallest) for age in ages), strict=True)]
    title = f"{name} - high {high} ms, low {low} ms (all time high {event.worst_ms} ms)\n" + "-" * 80 + "\n"
    return title + "\n".join(rows) + "\n"


def _age(seconds: int) -> str:
    """As short as possible: 5s, 3m, 7h, 2d."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"
