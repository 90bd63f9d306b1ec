"""One process of several that make a load together: `python -m minidist.load.worker`, started by processes.py.

On stdin come {"plan", "share"}, then {"start_s"}, perhaps {"stop"}; on stdout go {"ready"} or {"error"}, {"interval"}s,
{"done"}. `start_s` is perf_counter time, which all processes of a machine share. The end of stdin, that is of
the parent, ends the process at once.
"""

import asyncio
import dataclasses
import gc
import os
import sys
from typing import Any

from minidist.load import frames
from minidist.load.driver import driver_for
from minidist.load.plan import LoadError, Plan
from minidist.load.recorder import Interval
from minidist.load.runner import Share
from minidist.runtime.config import ConfigError
from minidist.runtime.loop import run


async def work() -> None:
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin.buffer)
    first = await frames.read(stdin)
    if first is None:
        return
    share = _share_of(first)
    try:
        await share.prepare()
    except (LoadError, ConfigError) as error:
        _say({"error": str(error)})
        await share.close()
        return
    gc.freeze()
    _say({"ready": True})
    go = await frames.read(stdin)
    stop = asyncio.Event()
    watching = loop.create_task(_watch(stdin, stop))
    if go is not None:
        await share.go(go["start_s"], _say_interval, stop)
        done = {name: getattr(share, name) for name in ("cpu_s", "last_ok_s", "window_s", "interrupted")}
        _say({"done": done})
    await share.close()
    watching.cancel()


def _share_of(first: dict[str, Any]) -> Share:
    described = first["plan"]
    if described["ramp"]:
        described["ramp"] = tuple(described["ramp"])
    plan = Plan(**described)
    return Share(plan, driver_for(plan), first["share"])


async def _watch(stdin: asyncio.StreamReader, stop: asyncio.Event) -> None:
    while await frames.read(stdin) is not None:
        stop.set()
    os._exit(1)  # the parent is gone, and nobody will read a report


def _say(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(frames.pack(message))
    sys.stdout.buffer.flush()


def _say_interval(interval: Interval) -> None:
    _say({"interval": dataclasses.asdict(interval)})


if __name__ == "__main__":
    run(work())
