"""What happened in a cluster, in one list: what the launcher did and saw, and what the nodes say themselves.

An event is `{"time", "node", "event", "detail"}`, time in seconds since the epoch. All go to `events.jsonl`, of which
the older part goes when it gets too long; followers get them as they come. A node's own come over its admin port
(`GET /events?follow=1`, JSON lines) while it runs.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from minidist.runtime.config import Address

Event = dict[str, Any]

MAX_FILE_BYTES = 16 * 1024**2  # some 100,000 events: whoever follows gets all that are kept
KEPT_FILE_BYTES = 4 * 1024**2  # of a file that has become longer
MAX_WAITING = 10_000  # events a slow follower may be behind; beyond it the oldest are dropped


class Events:
    """The list and its followers."""

    def __init__(self, file: Path) -> None:
        self._path = file
        self._open()
        self._followers: list[asyncio.Queue[Event | None]] = []
        self.heard: Callable[[Event], object] = lambda event: None  #: called with each event of a node's own

    def _open(self) -> None:
        self._file = open(self._path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._size = self._file.tell()

    def emit(self, node: str, event: str, **detail: Any) -> None:
        """Record what the launcher did or saw; `node` is empty for what concerns the whole cluster."""
        self.add({"time": round(time.time(), 3), "node": node, "event": event, "detail": detail})

    def add(self, event: Event) -> None:
        if not self._file.closed:
            line = json.dumps(event) + "\n"  # ASCII
            self._file.write(line)
            self._size += len(line)
            if self._size > MAX_FILE_BYTES:
                self._shorten()
            self._tell(event)

    def _shorten(self) -> None:
        """Keep the newest whole lines, in a new file: who reads the old one reads it to its end."""
        self._file.close()
        made = self._path.with_name(self._path.name + ".new")
        try:
            with open(self._path, "rb") as file:
                file.seek(max(0, self._size - KEPT_FILE_BYTES))
                file.readline()
                made.write_bytes(file.read())
            os.replace(made, self._path)
        except OSError:  # a full disk is no reason to fill it further
            os.truncate(self._path, 0)
        self._open()

    def _tell(self, event: Event | None) -> None:
        for follower in self._followers:
            if follower.full():
                follower.get_nowait()
            follower.put_nowait(event)

    def kept(self) -> list[Event]:
        """All events since `up`."""
        with open(self._path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    async def follow(self) -> AsyncIterator[Event]:
        """All kept events, then each as it comes, until the list is closed."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(MAX_WAITING)
        self._followers.append(queue)
        try:
            for event in self.kept():
                yield event
            while (next_event := await queue.get()) is not None:
                yield next_event
        finally:
            self._followers.remove(queue)

    async def collect(self, admin: Address) -> None:
        """Take over a node's own events until it is gone."""
        with contextlib.suppress(OSError, ValueError):
            reader, writer = await asyncio.open_connection(admin.host, admin.port)
            try:
                # HTTP/1.0: the answer's body is the lines and nothing else, until the connection ends.
                writer.write(f"GET /events?follow=1 HTTP/1.0\r\nHost: {admin}\r\n\r\n".encode())
                while (await reader.readline()).strip():
                    pass
                while line := await reader.readline():
                    event = json.loads(line)
                    self.add(event)
                    self.heard(event)
            finally:
                writer.close()

    def close(self) -> None:
        """Take no more, and let the followers end."""
        self._file.close()
        self._tell(None)
