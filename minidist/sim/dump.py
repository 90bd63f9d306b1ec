"""What a run that cannot go on looks like: each task, where it waits, and for what.

    Task-3 on store: serve (store.py:12) > StreamReader.readline (streams.py:534) … waits for a future
    Task-9 on client-1: fetch (client.py:40) > wait (locks.py:213) … waits for Task-3

Tasks that wait at the same place are one line with their count.
"""

import asyncio
import os
from collections.abc import Iterable
from typing import Any

MAX_LINES = 60
MAX_FRAMES = 24


def describe(tasks: Iterable["asyncio.Task[Any]"], held_back: list[str]) -> str:
    """The unfinished tasks of lives that go on, then lines about what the network holds back."""
    places: dict[str, list[str]] = {}
    dead = 0
    for task in tasks:
        if task.done():
            continue
        host = getattr(task, "host", None)
        if host is not None and host.incarnation != getattr(task, "incarnation", 0):
            dead += 1
            continue
        where = "the world" if host is None else f"{host.name} (paused)" if host.paused else host.name
        places.setdefault(f"on {where}: {_waits(task)}", []).append(task.get_name())
    lines = [f"  {_names(names)} {place}" for place, names in places.items()]
    if not lines:
        lines.append("  (no task is left)")
    if dead:
        lines.append(f"  (and {dead} tasks of hosts that have crashed)")
    lines += [f"  {text}" for text in held_back]
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = [f"  (and {len(lines) - MAX_LINES} more lines)"]
    return "\n".join(lines)


def _names(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} tasks ({names[0]} … {names[-1]})"


def _waits(task: "asyncio.Task[Any]") -> str:
    frames, last = _chain(task.get_coro())
    way = " > ".join(frames) or "no frame"
    if last is None:
        waiting = getattr(task, "_fut_waiter", None)
        if waiting is None:
            return f"{way} … is ready to run, or has not begun"
        last = waiting
    return f"{way} … waits for {_shown(last)}"


def _chain(coroutine: Any) -> "tuple[list[str], asyncio.Future[Any] | None]":
    """The frames from the task's own function down to where it is suspended, and the future there."""
    frames: list[str] = []
    while coroutine is not None and len(frames) < MAX_FRAMES:
        if isinstance(coroutine, asyncio.Future):
            return frames, coroutine
        frame = _attribute(coroutine, "cr_frame", "gi_frame", "ag_frame")
        if frame is not None:
            name = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
            frames.append(f"{name} ({os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno})")
        coroutine = _attribute(coroutine, "cr_await", "gi_yieldfrom", "ag_await")
    return frames, None


def _attribute(coroutine: Any, *names: str) -> Any:
    for name in names:
        if hasattr(coroutine, name):
            return getattr(coroutine, name)
    return None


def _shown(future: "asyncio.Future[Any]") -> str:
    if isinstance(future, asyncio.Task):
        return future.get_name()
    return "a future" if not future.done() else "nothing any more: its future is done"
