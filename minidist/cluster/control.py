"""The control socket: how a verb talks to the supervisor. JSON lines over a Unix socket in the run directory.

    ▶ {"verb": "stop", "nodes": ["web-2"], "timeout_s": 5}
    ◀ {"progress": "web-2 stopped"}          any number, for stderr
    ◀ {"item": …}                            any number, of verbs that stream
    ◀ {"result": …}                          or {"error": text, "exit": 1 | 2}; then the connection ends

Closing the connection early cancels the request. Who may connect is a matter of the directory's permissions (0700).
This file is the verb's end, without an event loop; control_server.py is the supervisor's.
"""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from minidist.cluster.rundir import RunDir

CONNECT_TIMEOUT_S, CONNECT_PAUSE_S = 5.0, 0.01

Message = dict[str, Any]


class VerbError(Exception):
    """What the supervisor would not or could not do; `exit_code` is the verb's."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Call:
    """One request under way. Iterating gives `{"progress"}` and `{"item"}` messages; `result` is set at the end."""

    def __init__(self, connection: socket.socket, verb: str, arguments: Message) -> None:
        self.connection = connection
        self.result: Any = None
        self.done = False
        self._received = b""
        connection.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")

    def __iter__(self) -> Iterator[Message]:
        """Raises VerbError; also when the supervisor ends before it has answered."""
        while not self.done:
            try:
                data = self.connection.recv(65536)
            except TimeoutError:
                raise VerbError("the supervisor does not answer") from None
            except OSError:
                data = b""
            yield from self.feed(data)

    def feed(self, data: bytes) -> list[Message]:
        """The messages that came with these bytes; no bytes mean that the supervisor is gone. Raises VerbError."""
        if not data:
            self.close()
            raise VerbError("the supervisor ended before it had answered")
        *lines, self._received = (self._received + data).split(b"\n")
        messages = []
        for line in lines:
            message: Message = json.loads(line)
            if "error" in message:
                self.close()
                raise VerbError(message["error"], message["exit"])
            if "result" in message:
                self.result = message["result"]
                self.close()
                break
            messages.append(message)
        return messages

    def close(self) -> None:
        """The request is over, or no longer wanted. Called at its end by itself."""
        self.done = True
        self.connection.close()


def begin(run_dir: RunDir, verb: str, **arguments: Any) -> Call:
    """Send a request, also to a supervisor that is just starting. Raises VerbError when nobody is there."""
    deadline_s = time.monotonic() + CONNECT_TIMEOUT_S
    while (connection := run_dir.connect()) is None:
        if not run_dir.in_use() or time.monotonic() > deadline_s:
            raise VerbError(f"no supervisor answers in {run_dir.path}")
        time.sleep(CONNECT_PAUSE_S)
    return Call(connection, verb, arguments)


def call(
    run_dir: RunDir,
    verb: str,
    *,
    progress: Callable[[str], object] | None = None,
    silence_s: float | None = None,
    **arguments: Any,
) -> Any:
    """Send a request and wait for its result; after `silence_s` the supervisor counts as hung. Raises VerbError."""
    request = begin(run_dir, verb, **arguments)
    with contextlib.closing(request):
        request.connection.settimeout(silence_s)
        for message in request:
            if progress is not None and "progress" in message:
                progress(message["progress"])
    return request.result
